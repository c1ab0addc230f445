"""Directory blocks: chapter "Directory Entries".

Hash trees ("Hash Tree Directories") are laid out so that a reader of the linear form sees their index
blocks as free space: all names are in leaves of the linear form, and are read as such.
"""

import struct

from questdb_backup.volumes.crc32c import raw_crc32c
from questdb_backup.volumes.ext4.damage import damaged

_ENTRY = struct.Struct("<IHBB")
"""inode, rec_len, name_len, file_type; what the latter says stands in the inode too."""
_TAIL = struct.Struct("<IHBBI")
"""det_reserved_zero1, det_rec_len, det_reserved_zero2, det_reserved_ft, det_checksum."""
_TAIL_MARK = (0, _TAIL.size, 0, 0xDE)
_HIDDEN = (b".", b"..")


class DirectoryFormat:
    """How the directories of a file system are written."""

    def __init__(self, block_size: int, *, has_checksums: bool) -> None:
        self._block_size = block_size
        self._has_checksums = has_checksums

    def check(self, block: bytes, number: int, seed: int) -> None:
        """Raise DamagedVolumeError where a block of directory ``number`` fails its checksum."""
        if not self._has_checksums or self._is_index(block):
            return
        *mark, checksum = _TAIL.unpack_from(block, self._block_size - _TAIL.size)
        if tuple(mark) != _TAIL_MARK or raw_crc32c(block[: -_TAIL.size], seed) != checksum:
            raise damaged(f"directory {number} has a block that fails its checksum")

    def _is_index(self, block: bytes) -> bool:
        """Whether it is a node of a hash tree, which holds no names but ``.`` and ``..``."""
        inode, length, name_length, _ = _ENTRY.unpack_from(block)
        if inode == 0:
            return self._length(length) == self._block_size
        if name_length != 1 or block[8:9] != b"." or length != 12:
            return False
        _, length, name_length, _ = _ENTRY.unpack_from(block, 12)
        return name_length == 2 and self._length(length) == self._block_size - 12

    def entries(self, region: bytes, number: int, start: int = 0) -> list[tuple[bytes, int]]:
        """Names and inode numbers in a block, or in the inline data, of directory ``number``.

        Raise DamagedVolumeError where the entries do not fill the region, or a name cannot be one.
        """
        found: list[tuple[bytes, int]] = []
        at, end = start, len(region)
        unpack = _ENTRY.unpack_from
        while at < end:
            if at + _ENTRY.size > end:
                raise damaged(f"directory {number} has an entry that is cut short")
            inode, length, name_length, _ = unpack(region, at)
            if length & 3 or not 0 < length < 0xFFFC:
                length = self._length(length)
            if length & 3 or length < _ENTRY.size + name_length or at + length > end:
                raise damaged(f"directory {number} has an entry with a length that cannot be right")
            if inode:
                name = region[at + 8 : at + 8 + name_length]
                if not name or b"/" in name or b"\0" in name:
                    raise damaged(f"directory {number} has the name {name!r}")
                if name not in _HIDDEN:
                    found.append((name, inode))
            at += length
        return found

    def _length(self, length: int) -> int:
        """rec_len as it is meant: blocks of 64 KiB need a 17th bit, and keep it in the lowest ones."""
        if self._block_size < 1 << 16:
            return length
        if length in (0, 0xFFFF):
            return 1 << 16
        return length & 0xFFFC | (length & 3) << 16
