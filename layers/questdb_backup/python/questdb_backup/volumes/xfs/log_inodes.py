"""Replay of inodes: their core, their data fork, and the making of new ones.

Chapter "Journaling Log", sections "Inode Updates", "Inode Data Log Item" and "Inode Creation Item", of "XFS
Algorithms & Data Structures". The logged core has the layout of the one on disk, in the order of bytes of
the host.
"""

import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.volumes.xfs.extents import BLOCK_HEADER, RECORD_BYTES, ROOT_HEADER
from questdb_backup.volumes.xfs.inodes import BIG_TIME, CORE_BYTES, INODE_MAGIC, fork_bytes
from questdb_backup.volumes.xfs.log_items import Item
from questdb_backup.volumes.xfs.overlay import ReplayedDevice
from questdb_backup.volumes.xfs.superblock import DAMAGE_HINT, SECTOR, Superblock

_FORMAT = struct.Struct("<HHIHH4xQ16xqii")
_DATA, _EXTENTS, _ROOT = 0x2, 0x4, 0x8
_FIELDS = "H H B b H I I I H H Q Q Q Q Q Q I I H B b I H H I I I Q Q Q I 12s Q Q 16s".replace(" ", "")
_LOGGED = struct.Struct("<" + _FIELDS)
_STORED = struct.Struct(">" + _FIELDS)
_LOGGED_MAGIC = int.from_bytes(INODE_MAGIC, "big")
_FORK_OFFSET_AT, _LSN_AT = 82, 112
_NEVER = 0xFFFFFFFFFFFFFFFF
_TIMES, _FLAGS2 = (11, 12, 13, 32), 29
_CREATE = struct.Struct(">IIIIII")
_CREATE_AT = 4
_MOST_CREATED = 128
_ROOT_FIELDS = struct.Struct(">4sHH")
_UNLINKED_NONE = b"\xff\xff\xff\xff"


@dataclass(frozen=True, slots=True)
class InodeFormat:
    """The first region of an inode item; ``address`` and ``sectors`` tell the buffer that holds it."""

    fields: int
    number: int
    address: int
    sectors: int
    within: int

    @classmethod
    def parse(cls, region: bytes) -> "InodeFormat":
        """Raise struct.error where it is too short."""
        _, _, fields, _, _, number, address, sectors, within = _FORMAT.unpack_from(region)
        return cls(fields, number, address, sectors, within)

    @property
    def key(self) -> tuple[int, int]:
        """The buffer that holds the inode."""
        return self.address, self.sectors


def replay_inode(
    device: ReplayedDevice, superblock: Superblock, item: Item, inode: InodeFormat, lsn: int
) -> None:
    """Put a logged inode in place, unless it was written back later. Raise DamagedVolumeError."""
    offset = inode.address * SECTOR + inode.within
    if offset != superblock.inode_offset(inode.number) or len(item.regions) < 2:
        raise _damaged(inode.number)
    stored = device.read(offset, CORE_BYTES)
    if stored[:2] != INODE_MAGIC:
        raise _damaged(inode.number)
    stamp = int.from_bytes(stored[_LSN_AT : _LSN_AT + 8], "big")
    if stamp > lsn and stamp != _NEVER:
        return
    core = _LOGGED.unpack_from(item.regions[1])
    if core[0] != _LOGGED_MAGIC or core[2] != 3:
        raise _damaged(inode.number)
    device.write(offset, _STORED.pack(*_stored_times(core)))
    room = fork_bytes(superblock.inode_bytes, item.regions[1][_FORK_OFFSET_AT])
    if inode.fields & (_DATA | _EXTENTS | _ROOT):
        fork = item.regions[2] if len(item.regions) > 2 else b""
        if inode.fields & _ROOT:
            fork = _stored_root(fork, room, inode.number)
        if len(fork) > room:
            raise _damaged(inode.number)
        device.write(offset + CORE_BYTES, fork)


def _stored_times(core: tuple[Any, ...]) -> list[Any]:
    """Without bigtime a time is two numbers of 32 bits, each in the order of bytes of the host."""
    found = list(core)
    if not found[_FLAGS2] & BIG_TIME:
        for at in _TIMES:
            found[at] = found[at] >> 32 | (found[at] & 0xFFFFFFFF) << 32
    return found


def _stored_root(logged: bytes, room: int, number: int) -> bytes:
    """The root of a block map's tree: logged as a block in memory, stored with a short header.

    Keys and pointers stand in two arrays, as long as there is room.
    """
    _, level, count = _ROOT_FIELDS.unpack_from(logged)
    logged_most = (len(logged) - BLOCK_HEADER) // RECORD_BYTES
    most = (room - ROOT_HEADER) // RECORD_BYTES
    if not level or not 0 < count <= min(logged_most, most):
        raise _damaged(number)
    pointers_at = BLOCK_HEADER + 8 * logged_most
    keys = logged[BLOCK_HEADER : BLOCK_HEADER + 8 * count]
    pointers = logged[pointers_at : pointers_at + 8 * count]
    return struct.pack(">HH", level, count) + keys.ljust(8 * most, b"\0") + pointers


def replay_inode_create(
    device: ReplayedDevice, superblock: Superblock, item: Item, cancelled: Counter[tuple[int, int]]
) -> None:
    """Put free inodes in place, unless their blocks are freed later on. Raise DamagedVolumeError."""
    group, first, count, inode_bytes, blocks, generation = _CREATE.unpack_from(item.regions[0], _CREATE_AT)
    if (
        inode_bytes != superblock.inode_bytes
        or count != blocks << superblock.inodes_per_block_bits
        or not 0 < count <= _MOST_CREATED
    ):
        raise DamagedVolumeError(f"XFS: the log makes {count} inodes of {inode_bytes} bytes", DAMAGE_HINT)
    offset = superblock.group_block_offset(group, first, blocks)
    cluster = superblock.cluster_blocks << superblock.block_bits
    end = offset + count * inode_bytes
    if any(cancelled[at // SECTOR, cluster // SECTOR] for at in range(offset, end, cluster)):
        return
    number = group << superblock.group_bits + superblock.inodes_per_block_bits
    number += first << superblock.inodes_per_block_bits
    for index in range(count):
        device.write(offset + index * inode_bytes, _fresh(superblock, number + index, generation))


def _fresh(superblock: Superblock, number: int, generation: int) -> bytes:
    fresh = bytearray(superblock.inode_bytes)
    fresh[:2] = INODE_MAGIC
    fresh[4] = 3
    fresh[92:96] = generation.to_bytes(4, "big")
    fresh[96:100] = _UNLINKED_NONE
    fresh[152:160] = number.to_bytes(8, "big")
    fresh[160:176] = superblock.meta_uuid
    return bytes(fresh)


def _damaged(number: int) -> DamagedVolumeError:
    return DamagedVolumeError(f"XFS: the log changes inode {number} in a way that cannot be", DAMAGE_HINT)
