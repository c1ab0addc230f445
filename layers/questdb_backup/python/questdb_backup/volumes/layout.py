"""Every place on a disk, and what stands there: the disk itself, its partitions, their logical volumes.

A place that is refused or damaged never hides its neighbours: it becomes a part with its reason.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from questdb_backup.errors import DamagedVolumeError, UnsupportedVolumeError
from questdb_backup.volumes.base import Device, FileSystem
from questdb_backup.volumes.detect import LVM, READABLE, detect
from questdb_backup.volumes.lvm import LogicalVolume, read_logical_volumes
from questdb_backup.volumes.partitions import read_partitions
from questdb_backup.volumes.slots import PartitionTable, Slot

WHOLE_DISK = "whole disk"
_REFUSALS = (DamagedVolumeError, UnsupportedVolumeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One place on a disk.

    ``where``: ``whole disk``, ``partition 1 (GPT)``, ``LV data of VG vg0``. ``what``: as `detect.Found.kind`
    names it. ``refused``: why nothing is read there, as ``fact. Hint: action``; None for ext4, XFS, and
    a physical volume whose logical ones are parts of their own. ``offset`` (of its first byte) and
    ``size`` are bytes of the whole disk; ``offset`` and ``device`` are None where the place is not mapped.
    ``files`` is there once `open_parts` has opened it.
    """

    where: str
    what: str
    size: int
    offset: int | None = None
    device: Device | None = None
    refused: str | None = None
    files: FileSystem | None = None


def probe(disk: Device) -> tuple[Part, ...]:
    """What is on a disk, in the order of its tables; nothing is mounted or replayed.

    Raise only what the disk behind the device raises, VolumeUnavailableError for one.
    """
    return tuple(_parts(disk))


def open_parts(disk: Device) -> tuple[Part, ...]:
    """The same, each ext4 and XFS opened, its journal or log replayed; refused where that does not go."""
    return tuple(_opened(part) for part in probe(disk))


def open_file_system(kind: str, device: Device) -> FileSystem:
    """Open an ``ext4`` or ``xfs``. Raise DamagedVolumeError, UnsupportedVolumeError."""
    if kind == "xfs":
        from questdb_backup.volumes.xfs.filesystem import XfsFileSystem

        return XfsFileSystem.open(device)
    from questdb_backup.volumes.ext4.filesystem import Ext4FileSystem

    return Ext4FileSystem.open(device)


def _opened(part: Part) -> Part:
    if part.device is None or part.what not in READABLE:
        return part
    try:
        return replace(part, files=open_file_system(part.what, part.device))
    except _REFUSALS as error:
        return replace(part, refused=str(error))


def _parts(disk: Device) -> Iterator[Part]:
    try:
        table = read_partitions(disk)
    except DamagedVolumeError as error:
        yield _refused(WHOLE_DISK, error, size=disk.size, offset=0)
        return
    if table is None:
        yield from _standing(WHOLE_DISK, disk)
    else:
        yield from _partitions(disk, table)


def _partitions(disk: Device, table: PartitionTable) -> Iterator[Part]:
    for slot in table.slots:
        yield from _partition(disk, slot, f"partition {slot.number} ({table.scheme})")
    if table.damage:
        yield Part(where=f"further partitions ({table.scheme})", what="", size=0, refused=table.damage)
    elif not table.slots:
        empty = UnsupportedVolumeError(f"the {table.scheme} of the disk has no partitions")
        yield _refused(WHOLE_DISK, empty, size=disk.size, offset=0)


def _partition(disk: Device, slot: Slot, where: str) -> Iterator[Part]:
    try:
        device = slot.open(disk)
    except DamagedVolumeError as error:
        yield _refused(where, error, size=slot.size)
        return
    yield from _standing(where, device)


def _standing(where: str, device: Device) -> Iterator[Part]:
    part = _detected(where, device)
    if part.what != LVM:
        yield part
        return
    try:
        volumes = read_logical_volumes(device)
    except _REFUSALS as error:
        yield replace(part, refused=str(error))
        return
    yield part
    for volume in volumes:
        yield _logical(device, volume)


def _logical(disk: Device, volume: LogicalVolume) -> Part:
    where = f"LV {volume.name} of VG {volume.group_name}"
    try:
        part = _detected(where, volume.open(disk))
    except _REFUSALS as error:
        return _refused(where, error, size=volume.size)
    nested = UnsupportedVolumeError("an LVM physical volume inside of a logical one is not read")
    return replace(part, refused=str(nested)) if part.what == LVM else part


def _detected(where: str, device: Device) -> Part:
    try:
        found = detect(device)
        offset = next((stretch.offset for stretch in device.locate(0, min(1, device.size))), None)
    except DamagedVolumeError as error:
        return _refused(where, error, size=device.size)
    return Part(
        where=where,
        what=found.kind,
        size=device.size,
        offset=offset,
        device=device,
        refused=None if found.refusal is None else str(found.refusal),
    )


def _refused(
    where: str,
    error: DamagedVolumeError | UnsupportedVolumeError,
    *,
    size: int = 0,
    offset: int | None = None,
) -> Part:
    return Part(where=where, what="", size=size, offset=offset, refused=str(error))
