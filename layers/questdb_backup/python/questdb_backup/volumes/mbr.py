"""Partition tables in the master boot record, with logical partitions in an extended one.

The layout is the one of PC BIOS: four entries of 16 bytes at byte 446, then 55 AA. An extended partition
starts a chain of records of the same form: the first entry is a logical partition, counted from its
own record, the second leads to the next record, counted from the start of the extended partition.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.volumes.base import Device
from questdb_backup.volumes.slots import SECTOR, PartitionTable, Slot, read_clipped

_ENTRY = struct.Struct("<B3sB3sII")
_EXTENDED = (0x05, 0x0F, 0x85)
_FIRST_LOGICAL = 5
_MOST_LOGICAL = 256
_BOOT_FLAGS = (0x00, 0x80)


@dataclass(frozen=True, slots=True)
class _Entry:
    """``start`` and ``count`` are sectors."""

    flag: int
    kind: int
    start: int
    count: int

    @property
    def is_used(self) -> bool:
        return self.kind != 0 and self.count != 0


def read_mbr(device: Device) -> PartitionTable | None:
    """The table in the first sector; None where there is none.

    The boot sector of a FAT or NTFS also ends with 55 AA: only entries that can be true make a table.
    """
    entries = _read_entries(device, 0)
    used = [entry for entry in entries if entry.is_used]
    if any(entry.flag not in _BOOT_FLAGS for entry in entries):
        return None
    if not any(0 < entry.start * SECTOR < device.size for entry in used):
        return None
    slots = [_slot(number, entry) for number, entry in enumerate(entries, 1) if _is_plain(entry)]
    damage = None
    try:
        for entry in used:
            if entry.kind in _EXTENDED:
                for slot in _logical(device, entry.start):
                    slots.append(slot)
    except DamagedVolumeError as error:
        damage = str(error)
    return PartitionTable(scheme="MBR", slots=tuple(slots), damage=damage)


def _read_entries(device: Device, sector: int) -> list[_Entry]:
    """The four entries of the record in that sector; none where it is no such record."""
    block = read_clipped(device, sector * SECTOR, SECTOR)
    if block[510:] != b"\x55\xaa":
        return []
    rows = _ENTRY.iter_unpack(block[446:510])
    return [_Entry(flag, kind, start, count) for flag, _, kind, _, start, count in rows]


def _is_plain(entry: _Entry) -> bool:
    return entry.is_used and entry.kind not in _EXTENDED


def _slot(number: int, entry: _Entry, base: int = 0) -> Slot:
    return Slot(number=number, offset=(base + entry.start) * SECTOR, size=entry.count * SECTOR)


def _logical(device: Device, extended: int) -> Iterator[Slot]:
    """The chain of the extended partition that starts in that sector.

    Raise DamagedVolumeError where the chain breaks or leads back into itself, after the ones before.
    """
    record, seen = extended, set[int]()
    number = _FIRST_LOGICAL
    while True:
        if record in seen or len(seen) == _MOST_LOGICAL:
            raise DamagedVolumeError(f"the chain of logical partitions leads back to sector {record}")
        seen.add(record)
        entries = _read_entries(device, record)
        if not entries:
            raise DamagedVolumeError(
                f"the chain of logical partitions breaks at sector {record}",
                "the partitions before it are read, those behind it are not known",
            )
        if _is_plain(entries[0]):
            yield _slot(number, entries[0], record)
            number += 1
        if entries[1].kind not in _EXTENDED:
            return
        record = extended + entries[1].start
