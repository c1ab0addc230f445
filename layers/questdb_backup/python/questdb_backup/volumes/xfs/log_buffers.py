"""Replay of buffers: the 128-byte chunks of a metadata block that a transaction changed.

Chapter "Journaling Log", section "Buffer Log Item", of "XFS Algorithms & Data Structures".
"""

import struct
from dataclasses import dataclass

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.volumes.xfs.extents import BTREE_MAGIC
from questdb_backup.volumes.xfs.log_items import Item
from questdb_backup.volumes.xfs.overlay import ReplayedDevice
from questdb_backup.volumes.xfs.superblock import DAMAGE_HINT, SECTOR, Superblock

CHUNK = 128
"""Bytes that one bit of the map stands for."""

_FORMAT = struct.Struct("<HHHHqI")
_INODE_BUFFER = 0x1
_CANCEL = 0x2
_KIND_SHIFT = 11
_BTREE = 4
_UNREAD_KINDS = frozenset((1, 2, 3, 5, 6, 7, 16, 17, 19, 20))
"""Quotas, the groups' headers, extended attributes, realtime bitmaps: nothing that a reader looks at."""
_LONGEST = 1 << 17

_STAMPS = {
    b"XDB3": (16, 24),
    b"XDD3": (16, 24),
    b"XDF3": (16, 24),
    BTREE_MAGIC: (32, 40),
    b"XSLM": (48, 16),
    b"XFSB": (240, 32),
}
"""Where the log sequence number and the file system's UUID stand, by the magic at the front."""
_INDEX_STAMP = (24, 32)
_INDEX_MAGICS = (b"\x3d\xf1", b"\x3d\xff", b"\x3e\xbe", b"\x3b\xee")
_INDEX_MAGIC_AT = 8
_HEADER_BYTES = 264
_NEVER = 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True, slots=True)
class BufferFormat:
    """The first region of a buffer item; ``address`` and ``sectors`` tell which buffer."""

    flags: int
    sectors: int
    address: int
    map: int

    @classmethod
    def parse(cls, region: bytes) -> "BufferFormat":
        """Raise struct.error where it is too short."""
        _, _, flags, sectors, address, words = _FORMAT.unpack_from(region)
        chunks = region[_FORMAT.size : _FORMAT.size + 4 * words]
        return cls(flags, sectors, address, int.from_bytes(chunks, "little"))

    @property
    def key(self) -> tuple[int, int]:
        """The buffer that it is about."""
        return self.address, self.sectors

    @property
    def is_cancel(self) -> bool:
        """Whether the buffer's blocks were freed: nothing of before is to be replayed into them."""
        return bool(self.flags & _CANCEL)

    @property
    def is_btree(self) -> bool:
        """Whether it is a block of a B+tree, of whatever kind."""
        return self.flags >> _KIND_SHIFT == _BTREE

    @property
    def is_read(self) -> bool:
        """Whether a reader looks at it. An inode buffer brings only the list of the unlinked."""
        return self.is_cancel or not (
            self.flags & _INODE_BUFFER or self.flags >> _KIND_SHIFT in _UNREAD_KINDS
        )


def replay_buffer(
    device: ReplayedDevice, superblock: Superblock, item: Item, buffer: BufferFormat, lsn: int
) -> None:
    """Put a buffer's changed chunks in place, unless it was written back with the transaction or later.

    Raise DamagedVolumeError.
    """
    offset, length = buffer.address * SECTOR, buffer.sectors * SECTOR
    if not 0 < length <= _LONGEST:
        raise _damaged(buffer)
    new = item.regions[1][:4] if buffer.map & 1 and len(item.regions) > 1 else b""
    if buffer.is_btree and new not in (b"", BTREE_MAGIC):
        return
    header = device.read(offset, min(length, _HEADER_BYTES))
    if buffer.is_btree and not new and header[:4] != BTREE_MAGIC:
        return
    if _stamp(header, superblock) >= lsn:
        return
    _put_chunks(device, item, buffer, offset)


def _put_chunks(device: ReplayedDevice, item: Item, buffer: BufferFormat, offset: int) -> None:
    """A region brings one run of chunks of the map, or a part of one."""
    left = buffer.map
    for region in item.regions[1:]:
        if not left:
            raise _damaged(buffer)
        first = (left & -left).bit_length() - 1
        run = left >> first
        count = min((~run & run + 1).bit_length() - 1, len(region) // CHUNK)
        if not count or (first + count) * CHUNK > buffer.sectors * SECTOR:
            raise _damaged(buffer)
        device.write(offset + first * CHUNK, region[: count * CHUNK])
        left &= ~((1 << count) - 1 << first)


def _stamp(header: bytes, superblock: Superblock) -> int:
    """The log sequence number that a block was last written with; 0 where it has none, or is not ours."""
    magic = header[:4]
    if header[_INDEX_MAGIC_AT : _INDEX_MAGIC_AT + 2] in _INDEX_MAGICS and magic not in _STAMPS:
        lsn_at, uuid_at = _INDEX_STAMP
    elif magic in _STAMPS:
        lsn_at, uuid_at = _STAMPS[magic]
    else:
        return 0
    uuid = superblock.uuid if magic == b"XFSB" else superblock.meta_uuid
    if header[uuid_at : uuid_at + 16] != uuid:
        return 0
    lsn = int.from_bytes(header[lsn_at : lsn_at + 8], "big")
    return 0 if lsn == _NEVER else lsn


def _damaged(buffer: BufferFormat) -> DamagedVolumeError:
    return DamagedVolumeError(
        f"XFS: the log changes {buffer.sectors} sectors at {buffer.address} in a way that cannot be",
        DAMAGE_HINT,
    )
