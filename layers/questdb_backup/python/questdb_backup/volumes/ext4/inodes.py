"""Inodes: chapters "Inode Table" and "Dynamic structures: Index Nodes"."""

import stat
import struct
from functools import lru_cache
from typing import NamedTuple

from questdb_backup.errors import UnsupportedVolumeError
from questdb_backup.source.base import EntryKind
from questdb_backup.volumes.base import Node
from questdb_backup.volumes.crc32c import raw_crc32c
from questdb_backup.volumes.ext4.blocks import Blocks
from questdb_backup.volumes.ext4.damage import damaged
from questdb_backup.volumes.ext4.groups import Groups
from questdb_backup.volumes.ext4.superblock import ROOT_INODE, Superblock

ENCRYPTED = 0x800
EXTENTS = 0x80000
INLINE_DATA = 0x10000000
BLOCK_MAP = slice(0x28, 0x64)
"""i_block: pointers, the root of an extent tree, a short symlink, or the begin of inline data."""
BASE_SIZE = 128
_FIELDS = struct.Struct("<H2xI4xi10xH4xI64xI4xI12xH2xHHI")
"""i_mode, i_size_lo, i_ctime, i_links_count, i_flags, i_generation, i_size_high, i_checksum_lo;
i_extra_isize, i_checksum_hi and i_ctime_extra, which are behind the first 128 bytes."""
_NO_EXTRA = bytes(_FIELDS.size - BASE_SIZE)
_EXTRA_CTIME_END = 8
"""i_extra_isize from which on i_ctime_extra is there: 30 bits of nanoseconds above 2 bits for the years
from 2038 on."""
_HIGH_CHECKSUM_END = 4
"""i_extra_isize from which on i_checksum_hi is there."""
_KEPT = 1 << 20
"""Bytes of inodes that are kept; each costs a few hundred bytes beside its own."""
_LONGEST_FILE = 1 << 32
"""Blocks."""
_KINDS = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFLNK: EntryKind.SYMLINK,
    stat.S_IFIFO: EntryKind.OTHER,
    stat.S_IFSOCK: EntryKind.OTHER,
    stat.S_IFCHR: EntryKind.OTHER,
    stat.S_IFBLK: EntryKind.OTHER,
}
_HAS_SIZE = (EntryKind.FILE, EntryKind.SYMLINK)


class Inode(NamedTuple):
    """An inode: ``size`` is what it says, of a directory too; ``raw`` are its bytes with the space behind."""

    node: Node
    size: int
    flags: int
    raw: bytes

    @property
    def number(self) -> int:
        """As the directory entries have it."""
        return self.node.number

    @property
    def block_map(self) -> bytes:
        """The 60 bytes of i_block."""
        return self.raw[BLOCK_MAP]

    def refuse_encrypted(self) -> None:
        """Raise UnsupportedVolumeError where the names or the bytes are encrypted."""
        if self.flags & ENCRYPTED:
            raise UnsupportedVolumeError(
                f"ext4: inode {self.number} is encrypted (fscrypt): its key is not on the volume",
                "move the server root out of the encrypted directory, or use the source `path` on the host",
            )


class Inodes:
    """The inodes of a file system, each checked when it is read; the last ones are kept."""

    def __init__(self, superblock: Superblock, blocks: Blocks) -> None:
        self._superblock = superblock
        self._blocks = blocks
        self._groups = Groups(superblock, blocks)
        self._has_checksums = superblock.has_checksums
        self.get = lru_cache(maxsize=_KEPT // superblock.inode_size)(self.read)

    def child(self, number: int) -> Inode:
        """The inode of a directory entry. Raise DamagedVolumeError where it can be none."""
        if number < self._superblock.first_inode and number != ROOT_INODE:
            raise damaged(f"a directory has an entry of the reserved inode {number}")
        return self.get(number)

    def read(self, number: int) -> Inode:
        """The inode of that number. Raise DamagedVolumeError where it is free, or not right."""
        raw = self._raw(number)
        fields = _FIELDS.unpack_from(raw if len(raw) > BASE_SIZE else raw + _NO_EXTRA)
        mode, size, changed, links, flags, generation, size_high, low, extra, high, fine = fields
        if self._has_checksums:
            is_long = extra >= _HIGH_CHECKSUM_END
            found = _checksum(number, raw, self._superblock.checksum_seed, is_long=is_long)
            if found != (high << 16 | low if is_long else low):
                raise damaged(f"inode {number} fails its checksum")
        kind = _KINDS.get(stat.S_IFMT(mode))
        if kind is None or not links:
            raise damaged(f"inode {number} is in use, but it has mode {mode:#o} and {links} links")
        if kind is EntryKind.FILE or (kind is EntryKind.DIRECTORY and self._superblock.has_large_directories):
            size |= size_high << 32
        if size > _LONGEST_FILE * self._superblock.block_size:
            raise damaged(f"inode {number} has a size of {size} bytes")
        if extra >= _EXTRA_CTIME_END:
            changed += ((fine & 3) << 32) + (fine >> 2) / 1e9
        shown = size if kind in _HAS_SIZE else 0
        node = Node(number, generation, kind, stat.S_IMODE(mode), shown, float(changed))
        return Inode(node, size, flags, raw)

    def seed(self, number: int, generation: int) -> int:
        """The checksum to begin with for the blocks of an inode's metadata."""
        return raw_crc32c(struct.pack("<II", number, generation), self._superblock.checksum_seed)

    def _raw(self, number: int) -> bytes:
        superblock = self._superblock
        if not 0 < number <= superblock.inode_count:
            raise damaged(f"inode {number} of {superblock.inode_count} is named")
        group, index = divmod(number - 1, superblock.inodes_per_group)
        table = self._groups.inode_table(group) * superblock.block_size
        return self._blocks.read(table + index * superblock.inode_size, superblock.inode_size)


def _checksum(number: int, raw: bytes, seed: int, *, is_long: bool) -> int:
    """What an inode's checksum has to be, which is of its number and generation too; 32 bits or 16."""
    begin = number.to_bytes(4, "little"), raw[0x64:0x68], raw[:0x7C], b"\0\0"
    if is_long:
        return raw_crc32c(b"".join((*begin, raw[0x7E:0x82], b"\0\0", raw[0x84:])), seed)
    return raw_crc32c(b"".join((*begin, raw[0x7E:])), seed) & 0xFFFF
