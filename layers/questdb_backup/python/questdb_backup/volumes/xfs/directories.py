"""Directories: inside the inode, or in blocks of entries; hash indexes are not needed to list them.

Chapter "Directories" of "XFS Algorithms & Data Structures". A directory of one block holds its entries and
their index in it; larger ones have blocks of entries from offset 0 on and the index from 32 GiB on.
"""

import struct
from collections.abc import Iterator
from itertools import groupby

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.volumes.xfs.extents import BlockMaps
from questdb_backup.volumes.xfs.inodes import ForkFormat, Inode
from questdb_backup.volumes.xfs.overlay import ReplayedDevice
from questdb_backup.volumes.xfs.superblock import DAMAGE_HINT, Superblock, check_crc

_INDEX_OFFSET = 1 << 35
_SINGLE, _DATA = b"XDB3", b"XDD3"
_CRC_AT = 4
_HEADER = 64
_ENTRY = struct.Struct(">QB")
_INDEX_ENTRY = 8
_DOTS = (b".", b"..")


class Directories:
    """Reads what is in directories."""

    def __init__(self, device: ReplayedDevice, superblock: Superblock, maps: BlockMaps) -> None:
        self._device = device
        self._superblock = superblock
        self._maps = maps
        self._type_bytes = 1 if superblock.typed_entries else 0

    def entries(self, folder: Inode) -> Iterator[tuple[bytes, int]]:
        """Names and inode numbers, ``.`` and ``..`` left out. Raise DamagedVolumeError."""
        if folder.format == ForkFormat.LOCAL:
            found = self._short(folder)
        else:
            found = (entry for block in self._blocks(folder) for entry in self._in_block(folder, block))
        for name, number in found:
            if name in _DOTS:
                continue
            if not name or b"/" in name or b"\0" in name:
                raise _damaged(folder, f"an entry is called {name!r}")
            yield name, number

    def _short(self, folder: Inode) -> Iterator[tuple[bytes, int]]:
        fork = folder.fork[: folder.size]
        if len(fork) < 6:
            raise _damaged(folder, "it is cut short")
        count, wide = fork[0], fork[1]
        number_bytes = 8 if wide else 4
        at = 2 + number_bytes
        for _ in range(count):
            name_at = at + 3
            end = name_at + fork[at] + self._type_bytes + number_bytes if name_at <= len(fork) else at
            if not name_at < end <= len(fork):
                raise _damaged(folder, "it is cut short")
            yield fork[name_at : name_at + fork[at]], int.from_bytes(fork[end - number_bytes : end], "big")
            at = end

    def _blocks(self, folder: Inode) -> Iterator[bytes]:
        """The blocks of entries, verified; a block may be made of several extents."""
        size = self._superblock.folder_block_bytes
        for index, pieces in groupby(self._pieces(folder), lambda piece: piece[0]):
            places = [(offset, length) for _, offset, length in pieces]
            block = b"".join(self._device.read(offset, length) for offset, length in places)
            if len(block) != size:
                raise _damaged(folder, f"block {index} has a hole")
            if not any(self._device.is_patched(offset, length) for offset, length in places):
                check_crc(block, _CRC_AT, f"block {index} of directory {folder.number}")
            yield block

    def _pieces(self, folder: Inode) -> Iterator[tuple[int, int, int]]:
        """Block number, byte offset and length of every piece that lies together."""
        size, bits, total = self._superblock.folder_block_bytes, self._superblock.block_bits, 0
        for first, count, offset, written in self._maps.mappings(folder):
            total += count
            start, end = first << bits, first + count << bits
            if start >= _INDEX_OFFSET:
                return
            if not written or total > self._superblock.blocks:
                raise _damaged(folder, "it has blocks that no directory can have")
            while start < end:
                length = min(size - start % size, end - start)
                yield start // size, offset, length
                start, offset = start + length, offset + length

    def _in_block(self, folder: Inode, block: bytes) -> Iterator[tuple[bytes, int]]:
        at, end = _HEADER, self._end(folder, block)
        while at < end:
            if block[at] == block[at + 1] == 0xFF:
                length = int.from_bytes(block[at + 2 : at + 4], "big")
                if not length or length % 8:
                    raise _damaged(folder, "a free stretch of no length")
                at += length
                continue
            if at + _ENTRY.size > end:
                raise _damaged(folder, "an entry is cut short")
            number, name_bytes = _ENTRY.unpack_from(block, at)
            name_at = at + _ENTRY.size
            at = at + (_ENTRY.size + name_bytes + self._type_bytes + 2 + 7) // 8 * 8
            if at > end:
                raise _damaged(folder, "an entry is cut short")
            yield block[name_at : name_at + name_bytes], number

    def _end(self, folder: Inode, block: bytes) -> int:
        """Where a block's entries end."""
        magic = block[:4]
        if magic == _DATA:
            return len(block)
        if magic != _SINGLE:
            raise _damaged(folder, f"a block begins with {magic!r}")
        indexed = int.from_bytes(block[-8:-4], "big")
        end = len(block) - 8 - indexed * _INDEX_ENTRY
        if end < _HEADER:
            raise _damaged(folder, "the index of its block is longer than the block")
        return end


def _damaged(folder: Inode, what: str) -> DamagedVolumeError:
    return DamagedVolumeError(f"XFS: directory {folder.number} is damaged: {what}", DAMAGE_HINT)
