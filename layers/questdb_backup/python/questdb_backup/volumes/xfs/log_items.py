"""What the log's records hold: operations, which make transactions, which are lists of items.

Chapter "Journaling Log", sections "Log Operations" and "Log Items", of "XFS Algorithms & Data Structures".
A region is what one operation brings, or several where a record ended in it; an item's first region says
in its second word of 16 bits how many regions the item has.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.volumes.xfs.log_records import Record
from questdb_backup.volumes.xfs.superblock import DAMAGE_HINT


class ItemKind(IntEnum):
    """Kinds of log items: intents to free, map, count and own extents, and their done items; the rest."""

    FREE_INTENT = 0x1236
    FREE_DONE = 0x1237
    UNLINKED = 0x1238
    INODE = 0x123B
    BUFFER = 0x123C
    QUOTA = 0x123D
    QUOTA_OFF = 0x123E
    INODE_CREATE = 0x123F
    OWNER_INTENT = 0x1240
    OWNER_DONE = 0x1241
    COUNT_INTENT = 0x1242
    COUNT_DONE = 0x1243
    MAP_INTENT = 0x1244
    MAP_DONE = 0x1245
    ATTRIBUTE_INTENT = 0x1246
    ATTRIBUTE_DONE = 0x1247
    EXCHANGE_INTENT = 0x1248
    EXCHANGE_DONE = 0x1249


@dataclass(frozen=True, slots=True)
class Item:
    """A log item; ``kind`` is a number, as it may be unknown."""

    kind: int
    regions: list[bytes]


@dataclass(slots=True)
class Transaction:
    """A transaction; ``lsn`` is that of the record in which it begins."""

    lsn: int
    items: list[Item] = field(default_factory=list)


Wanted = Callable[[int, bytes], bool]
"""Tells of an item's kind and first region whether its regions are to be kept."""

_OPERATION = struct.Struct(">IIBB2x")
_START, _COMMIT, _CONTINUES, _CONTINUED, _UNMOUNT = 0x01, 0x02, 0x04, 0x08, 0x20
_CLIENTS = (0x69, 0xAA)
_KIND = struct.Struct("<HH")
_TRANSACTION_MAGIC = b"NART"
"""``TRAN`` as a little-endian number."""
_TRANSACTION_HEADER = 16


def transactions(records: Iterable[Record], wanted: Wanted) -> Iterator[Transaction]:
    """The committed transactions, in the order of their commits.

    One that began before the first record, or is not committed by the last, is left out.
    Raise DamagedVolumeError.
    """
    growing: dict[int, _Growing] = {}
    for record in records:
        for number, flags, region in _operations(record):
            if flags & _START:
                growing[number] = _Growing(record.header.lsn, wanted)
            elif number not in growing:
                continue
            elif flags & _COMMIT:
                yield growing.pop(number).committed()
            elif flags & _UNMOUNT:
                del growing[number]
            else:
                growing[number].add(region, flags)


def _operations(record: Record) -> Iterator[tuple[int, int, bytes]]:
    data, at = record.data, 0
    for _ in range(record.header.operations):
        start = at + _OPERATION.size
        if start > len(data):
            raise _damaged(record.header.lsn)
        number, length, client, flags = _OPERATION.unpack_from(data, at)
        at = start + length
        if at > len(data) or client not in _CLIENTS:
            raise _damaged(record.header.lsn)
        yield number, flags, data[start:at]


class _Growing:
    """A transaction that is being put together."""

    def __init__(self, lsn: int, wanted: Wanted) -> None:
        self._transaction = Transaction(lsn)
        self._wanted = wanted
        self._partial = bytearray()
        self._begun = False
        self._regions: list[bytes] | None = None
        self._missing = 0

    def add(self, part: bytes, flags: int) -> None:
        """Add what an operation brings."""
        if self._partial and not flags & _CONTINUED:
            raise _damaged(self._transaction.lsn)
        if self._partial or flags & _CONTINUES:
            self._partial += part
            if flags & _CONTINUES:
                return
            part, self._partial = bytes(self._partial), bytearray()
        if not self._begun:
            self._begin(part)
        elif self._missing:
            self._missing -= 1
            if self._regions is not None:
                self._regions.append(part)
        else:
            self._begin_item(part)

    def committed(self) -> Transaction:
        """The whole of it."""
        if self._partial or self._missing:
            raise _damaged(self._transaction.lsn)
        return self._transaction

    def _begin(self, region: bytes) -> None:
        if len(region) != _TRANSACTION_HEADER or region[:4] != _TRANSACTION_MAGIC:
            raise _damaged(self._transaction.lsn)
        self._begun = True

    def _begin_item(self, region: bytes) -> None:
        if len(region) < _KIND.size:
            raise _damaged(self._transaction.lsn)
        kind, regions = _KIND.unpack_from(region)
        if not regions:
            raise _damaged(self._transaction.lsn)
        self._missing = regions - 1
        self._regions = None
        if self._wanted(kind, region):
            self._regions = [region]
            self._transaction.items.append(Item(kind, self._regions))


def _damaged(lsn: int) -> DamagedVolumeError:
    return DamagedVolumeError(f"XFS: the log record {lsn >> 32}:{lsn & 0xFFFFFFFF} is damaged", DAMAGE_HINT)
