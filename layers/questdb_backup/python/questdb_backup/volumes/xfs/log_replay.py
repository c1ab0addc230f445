"""Log recovery in memory: what a mount would write back before it reads anything.

Chapters "Journaling Log" and "Self Describing Metadata" of "XFS Algorithms & Data Structures". Two passes
over the log. The first learns which buffers were cancelled (their blocks were freed, and may hold file data
now) and which intents were left unfinished; the second changes the buffers and inodes that are older on
disk than the transaction. Only what a reader looks at is replayed: no free space, no quotas, no attributes.
"""

import struct
from collections import Counter
from collections.abc import Iterator

from questdb_backup.errors import DamagedVolumeError, UnsupportedVolumeError
from questdb_backup.volumes.xfs.log_bounds import LogBounds, find_bounds
from questdb_backup.volumes.xfs.log_buffers import BufferFormat, replay_buffer
from questdb_backup.volumes.xfs.log_inodes import InodeFormat, replay_inode, replay_inode_create
from questdb_backup.volumes.xfs.log_items import Item, ItemKind, Transaction, transactions
from questdb_backup.volumes.xfs.log_records import LogRegion
from questdb_backup.volumes.xfs.overlay import ReplayedDevice
from questdb_backup.volumes.xfs.superblock import DAMAGE_HINT, Superblock, read_superblock

_MAPPING_INTENTS = {
    ItemKind.MAP_INTENT: ItemKind.MAP_DONE,
    ItemKind.EXCHANGE_INTENT: ItemKind.EXCHANGE_DONE,
}
_DONE = {done: intent for intent, done in _MAPPING_INTENTS.items()}
_REPLAYED = (ItemKind.INODE, ItemKind.INODE_CREATE)
_KNOWN = frozenset(ItemKind)
_IDENTITY_AT = 8


def replay(device: ReplayedDevice, superblock: Superblock) -> bool:
    """Bring the device to where a mount would bring it; give whether the log was dirty.

    Raise DamagedVolumeError; UnsupportedVolumeError for an external log, items that are not known, and
    file mappings that were caught half changed.
    """
    log = LogRegion(device, superblock)
    bounds = find_bounds(log)
    if bounds is None:
        return False
    superblock.check_recovery()
    try:
        cancelled = _cancelled_buffers(log, bounds)
        _Replay(device, superblock, cancelled).run(log, bounds)
    except struct.error as error:
        raise DamagedVolumeError(f"XFS: an item of the log is cut short ({error})", DAMAGE_HINT) from error
    return True


def _transactions(log: LogRegion, bounds: LogBounds, *, first: bool) -> Iterator[Transaction]:
    records = log.records(bounds.tail, bounds.head, bounds.cycle, verify=first)
    return transactions(records, _wanted_first if first else _wanted_second)


def _wanted_first(kind: int, region: bytes) -> bool:
    if kind == ItemKind.BUFFER:
        return BufferFormat.parse(region).is_cancel
    return kind in _MAPPING_INTENTS or kind in _DONE or kind not in _KNOWN


def _wanted_second(kind: int, region: bytes) -> bool:
    return kind in _REPLAYED or (kind == ItemKind.BUFFER and BufferFormat.parse(region).is_read)


Cancelled = Counter[tuple[int, int]]
"""How often the buffer of that disk address and length (in sectors) is cancelled from here on."""


def _cancelled_buffers(log: LogRegion, bounds: LogBounds) -> Cancelled:
    cancelled: Cancelled = Counter()
    unfinished: set[tuple[int, bytes]] = set()
    for transaction in _transactions(log, bounds, first=True):
        for item in transaction.items:
            if item.kind == ItemKind.BUFFER:
                cancelled[BufferFormat.parse(item.regions[0]).key] += 1
            else:
                _note_intent(item, unfinished)
    if unfinished:
        raise UnsupportedVolumeError(
            f"the snapshot caught {len(unfinished)} changes of file mappings (reflink or exchange) half done",
            "take another snapshot",
        )
    return cancelled


def _note_intent(item: Item, unfinished: set[tuple[int, bytes]]) -> None:
    identity = item.regions[0][_IDENTITY_AT : _IDENTITY_AT + 8]
    if item.kind in _MAPPING_INTENTS:
        unfinished.add((item.kind, identity))
    elif item.kind in _DONE:
        unfinished.discard((_DONE[ItemKind(item.kind)], identity))
    else:
        raise UnsupportedVolumeError(
            f"the XFS log holds items of the unknown kind {item.kind:#x}",
            "unmount the volume, or freeze it, before the snapshot",
        )


class _Replay:
    """The second pass."""

    def __init__(self, device: ReplayedDevice, superblock: Superblock, cancelled: Cancelled) -> None:
        self._device = device
        self._superblock = superblock
        self._cancelled = cancelled

    def run(self, log: LogRegion, bounds: LogBounds) -> None:
        for transaction in _transactions(log, bounds, first=False):
            self._apply(transaction)

    def _apply(self, transaction: Transaction) -> None:
        """Buffers first, then the inodes that lie in some of them; a cancellation counts from the end."""
        for item in transaction.items:
            if item.kind == ItemKind.INODE_CREATE:
                replay_inode_create(self._device, self._superblock, item, self._cancelled)
            elif item.kind == ItemKind.BUFFER:
                buffer = BufferFormat.parse(item.regions[0])
                if not buffer.is_cancel and not self._cancelled[buffer.key]:
                    replay_buffer(self._device, self._superblock, item, buffer, transaction.lsn)
                    if buffer.address == 0:
                        self._superblock = read_superblock(self._device, sealed=False)
        for item in transaction.items:
            if item.kind == ItemKind.INODE:
                inode = InodeFormat.parse(item.regions[0])
                if not self._cancelled[inode.key]:
                    replay_inode(self._device, self._superblock, item, inode, transaction.lsn)
        for item in transaction.items:
            if item.kind == ItemKind.BUFFER:
                buffer = BufferFormat.parse(item.regions[0])
                if buffer.is_cancel:
                    self._cancelled[buffer.key] -= 1
