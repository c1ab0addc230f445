"""What all partition tables come to: numbered stretches of a disk."""

from dataclasses import dataclass

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.volumes.base import Device, Segment, SegmentedDevice

SECTOR = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One partition as its table gives it, in bytes of the disk; ``number`` as Linux counts it."""

    number: int
    offset: int
    size: int

    def open(self, disk: Device) -> Device:
        """The partition's own bytes. Raise DamagedVolumeError where it reaches beyond the disk."""
        if self.size <= 0 or self.offset < 0 or self.offset + self.size > disk.size:
            raise DamagedVolumeError(
                f"partition {self.number} lies at bytes {self.offset} to {self.offset + self.size},"
                f" the disk has {disk.size}",
                "the disk was cut short, or its partition table is damaged",
            )
        return SegmentedDevice(disk, (Segment(0, self.size, self.offset),))


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionTable:
    """``scheme`` is ``GPT`` or ``MBR``; ``damage`` says what of the table could not be read."""

    scheme: str
    slots: tuple[Slot, ...]
    damage: str | None = None


def read_clipped(device: Device, offset: int, length: int) -> bytes:
    """As many of these bytes as the device has."""
    if offset < 0 or offset >= device.size:
        return b""
    return device.read(offset, min(length, device.size - offset))
