"""Inodes: where they are, their core, and their data fork.

Chapter "On-disk Inode" of "XFS Algorithms & Data Structures"; only version 3 of the core.
"""

import stat
import struct
from collections import OrderedDict
from dataclasses import dataclass
from enum import IntEnum

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.source.base import EntryKind
from questdb_backup.volumes.base import Node
from questdb_backup.volumes.xfs.overlay import ReplayedDevice
from questdb_backup.volumes.xfs.superblock import DAMAGE_HINT, Superblock, check_crc

CORE_BYTES = 176
"""Of a version 3 inode: where its data fork begins."""
INODE_MAGIC = b"IN"
MANY_EXTENTS = 1 << 4
"""Bit of flags2: the number of extents is of 64 bits (nrext64)."""
BIG_TIME = 1 << 3
"""Bit of flags2: times are nanoseconds since December 1901 (bigtime)."""
_BIG_TIME_EPOCH = 1 << 31
REALTIME = 1
"""Bit of flags: the data are on the realtime device."""

_CHUNK = 1 << 16
_CHUNKS = 48
_CRC_AT = 100
_CORE = struct.Struct(">2sHBB18xQ16xQQ12xI2xB7xHI24xQ24xQ")
_KINDS = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFLNK: EntryKind.SYMLINK,
}


class ForkFormat(IntEnum):
    """How the data fork holds its data."""

    DEVICE = 0
    LOCAL = 1
    EXTENTS = 2
    BTREE = 3


@dataclass(frozen=True, slots=True)
class Inode:
    """An inode's data fork; ``size`` in bytes, ``extents`` how many records its block map has."""

    number: int
    size: int
    format: int
    flags: int
    extents: int
    fork: bytes


class InodeTable:
    """Inodes by number, read in chunks of many; each one's checksum is verified."""

    def __init__(self, device: ReplayedDevice, superblock: Superblock) -> None:
        self._device = device
        self._superblock = superblock
        self._chunks: OrderedDict[int, bytes] = OrderedDict()
        self._recent = -1
        self._recent_chunk = b""

    def node(self, number: int) -> Node:
        """What an inode is. Raise DamagedVolumeError where it is free or damaged."""
        chunk, at = self._find(number)
        core = _CORE.unpack_from(chunk, at)
        magic, mode, version, _, _, changed, size, _, _, _, generation, flags2, own_number = core
        if magic != INODE_MAGIC or version != 3 or own_number != number or not mode:
            raise _broken(number)
        kind = _KINDS.get(stat.S_IFMT(mode), EntryKind.OTHER)
        if kind is EntryKind.DIRECTORY or kind is EntryKind.OTHER:
            size = 0
        elif size >> 63:
            raise _broken(number)
        return Node(number, generation, kind, mode & 0o7777, size, _seconds(changed, flags2))

    def inode(self, number: int) -> Inode:
        """An inode with its data fork. Raise DamagedVolumeError where it is free or damaged."""
        chunk, at = self._find(number)
        core = _CORE.unpack_from(chunk, at)
        magic, mode, version, form, many_extents, _, size, extents, fork_offset, flags, _, flags2 = core[:-1]
        if magic != INODE_MAGIC or version != 3 or core[-1] != number or not mode:
            raise _broken(number)
        room = fork_bytes(self._superblock.inode_bytes, fork_offset)
        if room < 0:
            raise _broken(number)
        fork = chunk[at + CORE_BYTES : at + CORE_BYTES + room]
        return Inode(number, size, form, flags, many_extents if flags2 & MANY_EXTENTS else extents, fork)

    def _find(self, number: int) -> tuple[bytes, int]:
        offset = self._superblock.inode_offset(number)
        index, at = divmod(offset, _CHUNK)
        if index != self._recent:
            self._recent_chunk = self._chunk(index)
            self._recent = index
        size = self._superblock.inode_bytes
        if not self._device.is_patched(offset, size):  # a replayed one has no valid checksum
            check_crc(self._recent_chunk[at : at + size], _CRC_AT, f"inode {number}")
        return self._recent_chunk, at

    def _chunk(self, index: int) -> bytes:
        found = self._chunks.get(index)
        if found is not None:
            self._chunks.move_to_end(index)
            return found
        start = index * _CHUNK
        self._chunks[index] = found = self._device.read(start, min(_CHUNK, self._device.size - start))
        if len(self._chunks) > _CHUNKS:
            self._chunks.popitem(last=False)
        return found


def _seconds(time: int, flags2: int) -> float:
    """A time of an inode: nanoseconds since 1901, or seconds since the epoch and nanoseconds."""
    if flags2 & BIG_TIME:
        return time / 1e9 - _BIG_TIME_EPOCH
    return (time >> 32) - (time >> 63 << 32) + (time & 0xFFFFFFFF) / 1e9


def fork_bytes(inode_bytes: int, fork_offset: int) -> int:
    """Bytes of the data fork; ``fork_offset`` is where the attribute fork begins, in 8 bytes, 0 for none."""
    room = inode_bytes - CORE_BYTES
    if fork_offset * 8 > room:
        return -1
    return fork_offset * 8 or room


def _broken(number: int) -> DamagedVolumeError:
    return DamagedVolumeError(f"XFS: inode {number} is free or damaged", DAMAGE_HINT)
