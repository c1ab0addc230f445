"""Block maps: extent lists, and the B+trees that hold longer ones.

Chapter "Data Extents" of "XFS Algorithms & Data Structures".
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.volumes.xfs.inodes import ForkFormat, Inode
from questdb_backup.volumes.xfs.overlay import ReplayedDevice
from questdb_backup.volumes.xfs.superblock import DAMAGE_HINT, Superblock, check_crc

BLOCK_HEADER = 72
"""Bytes of the header of a B+tree block with long pointers and a checksum."""
ROOT_HEADER = 4
"""Bytes of the header of the root in an inode."""
RECORD_BYTES = 16
BTREE_MAGIC = b"BMA3"

_DEEPEST = 12
_CRC_AT = 64
_RECORD = struct.Struct(">QQ")
_HEADER = struct.Struct(">4sHH")
_START_MASK = (1 << 54) - 1
_COUNT_MASK = (1 << 21) - 1


class Mapping(NamedTuple):
    """``blocks`` blocks of a file from its block ``start`` on, at byte ``offset`` of the device."""

    start: int
    blocks: int
    offset: int
    written: bool


class BlockMaps:
    """Reads where inodes' data are."""

    def __init__(self, device: ReplayedDevice, superblock: Superblock) -> None:
        self._device = device
        self._superblock = superblock

    def mappings(self, inode: Inode) -> Iterator[Mapping]:
        """In order, without overlaps. Raise DamagedVolumeError, also where some are missing."""
        end = found = 0
        for first, second in self._records(inode):
            start = first >> 9 & _START_MASK
            count = second & _COUNT_MASK
            if start < end or not count:
                raise _damaged(inode, "its extents overlap")
            end, found = start + count, found + 1
            block = (first & 0x1FF) << 43 | second >> 21
            yield Mapping(start, count, self._superblock.block_offset(block, count), not first >> 63)
        if found != inode.extents:
            raise _damaged(inode, f"{found} extents of {inode.extents}")

    def _records(self, inode: Inode) -> Iterator[tuple[int, int]]:
        if inode.format == ForkFormat.EXTENTS:
            if inode.extents * RECORD_BYTES > len(inode.fork):
                raise _damaged(inode, f"{inode.extents} extents do not fit into it")
            return _RECORD.iter_unpack(inode.fork[: inode.extents * RECORD_BYTES])
        if inode.format == ForkFormat.BTREE:
            return self._below_root(inode)
        raise _damaged(inode, f"no block map (format {inode.format})")

    def _below_root(self, inode: Inode) -> Iterator[tuple[int, int]]:
        level, count = struct.unpack_from(">HH", inode.fork)
        most = (len(inode.fork) - ROOT_HEADER) // RECORD_BYTES
        if not 0 < level <= _DEEPEST or not 0 < count <= most:
            raise _damaged(inode, f"the root of its tree (level {level}, {count} records)")
        pointers = struct.unpack_from(f">{count}Q", inode.fork, ROOT_HEADER + most * 8)
        for block in pointers:
            yield from self._below(inode, block, level - 1)

    def _below(self, inode: Inode, block: int, level: int) -> Iterator[tuple[int, int]]:
        """The records below a block: every block has some, in order, so no circle is walked for long."""
        size = self._superblock.block_bytes
        offset = self._superblock.block_offset(block)
        data = self._device.read(offset, size)
        magic, own_level, count = _HEADER.unpack_from(data)
        most = (size - BLOCK_HEADER) // RECORD_BYTES
        if magic != BTREE_MAGIC or own_level != level or not 0 < count <= most:
            raise _damaged(inode, f"block {block} of its tree")
        if not self._device.is_patched(offset, size):
            check_crc(data, _CRC_AT, f"block {block} in the tree of inode {inode.number}")
        if not level:
            yield from _RECORD.iter_unpack(data[BLOCK_HEADER : BLOCK_HEADER + count * RECORD_BYTES])
            return
        for child in struct.unpack_from(f">{count}Q", data, BLOCK_HEADER + most * 8):
            yield from self._below(inode, child, level - 1)


def _damaged(inode: Inode, what: str) -> DamagedVolumeError:
    return DamagedVolumeError(f"XFS: the block map of inode {inode.number} is damaged: {what}", DAMAGE_HINT)
