"""Logical volumes of LVM2: which there are on a physical volume, and the linear ones as devices."""

from collections.abc import Iterator
from dataclasses import dataclass

from questdb_backup.errors import DamagedVolumeError, UnsupportedVolumeError
from questdb_backup.volumes.base import Device, Segment, SegmentedDevice
from questdb_backup.volumes.lvm_label import read_physical_volume
from questdb_backup.volumes.lvm_text import Section, Value
from questdb_backup.volumes.slots import SECTOR

_MOST_VOLUMES = 4096
_MOST_SEGMENTS = 1 << 16
_HINT_LINEAR = "only linear logical volumes on one disk are read; use the path source on the host"


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """One that the host would show; ``size`` in bytes as its metadata gives it."""

    group: "_Group"
    name: str
    size: int
    _section: Section

    @property
    def group_name(self) -> str:
        """Its volume group."""
        return self.group.name

    def open(self, disk: Device) -> Device:
        """Its bytes; ``disk`` is the physical volume that it was found on.

        Raise UnsupportedVolumeError where it is no linear volume on this one disk, DamagedVolumeError
        where its segments leave a gap or reach beyond the disk.
        """
        self.group.refuse_more_disks()
        self.group.refuse_role(self.name)
        segments = tuple(self._segments(disk))
        if not segments:
            raise DamagedVolumeError(f"LV {self.name} has no segments")
        return SegmentedDevice(disk, segments)

    def _segments(self, disk: Device) -> Iterator[Segment]:
        start = 0
        for segment in sorted(_segments(self._section), key=_start_extent):
            length = _number(segment, "extent_count") * self.group.extent
            offset = self.group.first_extent + self._first_physical(segment) * self.group.extent
            if _start_extent(segment) * self.group.extent != start or not length:
                raise DamagedVolumeError(f"the segments of LV {self.name} leave a gap at byte {start}")
            if offset + length > disk.size:
                raise DamagedVolumeError(
                    f"LV {self.name} reaches to byte {offset + length} of a disk of {disk.size}",
                    "the disk was cut short, or the LVM metadata is damaged",
                )
            yield Segment(start, length, offset)
            start += length

    def _first_physical(self, segment: Section) -> int:
        """The physical extent where a linear segment begins."""
        kind = _text(segment, "type")
        stripes = segment.get("stripes")
        if kind not in ("striped", "linear"):
            raise UnsupportedVolumeError(f"LV {self.name} is of the type {kind}", _HINT_LINEAR)
        if kind == "striped" and _number(segment, "stripe_count") != 1:
            raise UnsupportedVolumeError(f"LV {self.name} is striped", _HINT_LINEAR)
        if not isinstance(stripes, list) or len(stripes) != 2 or not isinstance(stripes[1], int):
            raise DamagedVolumeError(f"LV {self.name} has a segment without its place on the disk")
        if stripes[0] != self.group.disk:
            raise UnsupportedVolumeError(f"LV {self.name} lies on {stripes[0]!r}", _HINT_LINEAR)
        return _within(stripes[1], "stripes")


@dataclass(frozen=True, slots=True)
class _Group:
    """``disk`` is the metadata's name of its first physical volume; ``extent`` and ``first_extent`` bytes."""

    name: str
    disks: int
    disk: str
    extent: int
    first_extent: int
    snapshots: frozenset[str]
    merging: frozenset[str]

    def refuse_more_disks(self) -> None:
        if self.disks != 1:
            raise UnsupportedVolumeError(
                f"VG {self.name} spans {self.disks} physical volumes",
                "only a volume group of one disk is read; use the path source on the host",
            )

    def refuse_role(self, volume: str) -> None:
        """A snapshot's own extents hold what differs, not a file system."""
        if volume in self.snapshots:
            raise UnsupportedVolumeError(f"LV {volume} is an LVM snapshot", "its origin is read")
        if volume in self.merging:
            raise UnsupportedVolumeError(
                f"an LVM snapshot is being merged into LV {volume}", "take the backup when the merge is over"
            )


def read_logical_volumes(disk: Device) -> tuple[LogicalVolume, ...]:
    """The visible logical volumes of a physical volume, sorted by name; none where it has no group yet.

    Raise DamagedVolumeError or UnsupportedVolumeError where its metadata cannot be read.
    """
    metadata = read_physical_volume(disk).metadata
    if metadata is None:
        return ()
    found = [(name, group) for name, group in metadata.items() if isinstance(group, dict)]
    if len(found) != 1:
        raise DamagedVolumeError(f"the LVM metadata names {len(found)} volume groups instead of one")
    name, section = found[0]
    volumes = _sections(section, "logical_volumes")
    if len(volumes) > _MOST_VOLUMES:
        raise DamagedVolumeError(f"VG {name} has {len(volumes)} logical volumes")
    group = _group(name, section, volumes)
    return tuple(
        LogicalVolume(group, volume, _size(found, group.extent), found)
        for volume, found in sorted(volumes.items())
        if "VISIBLE" in _words(found.get("status"))
    )


def _group(name: str, section: Section, volumes: dict[str, Section]) -> _Group:
    disks = _sections(section, "physical_volumes")
    if not disks:
        raise DamagedVolumeError(f"VG {name} has no physical volume")
    disk, first = next(iter(disks.items()))
    extent = _number(section, "extent_size") * SECTOR
    if not extent:
        raise DamagedVolumeError(f"VG {name} has extents of 0 bytes")
    relations = [
        segment
        for volume in volumes.values()
        for segment in _segments(volume)
        if segment.get("type") == "snapshot"
    ]
    return _Group(
        name=name,
        disks=len(disks),
        disk=disk,
        extent=extent,
        first_extent=_number(first, "pe_start") * SECTOR,
        snapshots=frozenset(str(one.get(key)) for one in relations for key in ("cow_store", "merging_store")),
        merging=frozenset(str(one.get("origin")) for one in relations if "merging_store" in one),
    )


def _size(volume: Section, extent: int) -> int:
    """Bytes that its segments add up to."""
    return sum(_number(segment, "extent_count") for segment in _segments(volume)) * extent


def _segments(volume: Section) -> list[Section]:
    found = [inner for key, inner in volume.items() if key.startswith("segment") and isinstance(inner, dict)]
    if len(found) > _MOST_SEGMENTS:
        raise DamagedVolumeError(f"a logical volume has {len(found)} segments")
    return found


def _start_extent(segment: Section) -> int:
    return _number(segment, "start_extent")


def _sections(section: Section, key: str) -> dict[str, Section]:
    inner = section.get(key)
    if not isinstance(inner, dict):
        return {}
    return {name: one for name, one in inner.items() if isinstance(one, dict)}


def _words(value: "Value | Section | None") -> list[object]:
    return list(value) if isinstance(value, list) else []


def _text(section: Section, key: str) -> str:
    value = section.get(key)
    if not isinstance(value, str):
        raise DamagedVolumeError(f"the LVM metadata lacks {key}")
    return value


def _number(section: Section, key: str) -> int:
    value = section.get(key)
    if not isinstance(value, int):
        raise DamagedVolumeError(f"the LVM metadata lacks the number {key}")
    return _within(value, key)


def _within(value: int, key: str) -> int:
    if not 0 <= value < 1 << 48:
        raise DamagedVolumeError(f"the LVM metadata has {key} = {value}")
    return value
