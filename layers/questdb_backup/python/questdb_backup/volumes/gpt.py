"""GUID partition tables (UEFI specification 2.10, chapter 5.3), with sectors of 512 or 4096 bytes."""

import struct
import zlib
from dataclasses import dataclass

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.volumes.base import Device
from questdb_backup.volumes.slots import PartitionTable, Slot, read_clipped

_SECTORS = (512, 4096)
_SIGNATURE = b"EFI PART"
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_MOST_ENTRY_BYTES = 1 << 20
"""Tables are 16 KiB; what claims more than this is not believed."""


@dataclass(frozen=True, slots=True)
class _Header:
    """``entries`` is a sector, ``entry_size`` bytes."""

    entries: int
    count: int
    entry_size: int
    checksum: int


def read_gpt(device: Device) -> PartitionTable | None:
    """The table behind the primary header, or behind the backup where that one is damaged; None without one.

    A backup alone, with no trace of a primary, is left over from an older use of the disk: it does not count.
    Raise DamagedVolumeError where both are damaged.
    """
    traces = [sector for sector in _SECTORS if read_clipped(device, sector, 8) == _SIGNATURE]
    for sector in traces:
        if slots := _read_table(device, sector, 1):
            return slots
    if not traces and not _is_protected(device):
        return None
    for sector in traces or _SECTORS:
        for place in _backup_places(device, sector):
            if slots := _read_table(device, sector, place):
                return slots
    raise DamagedVolumeError(
        "the GPT of the disk is damaged: neither its primary nor its backup table passes its checksum",
        "`sgdisk --verify` on a volume made from the snapshot says more",
    )


def _is_protected(device: Device) -> bool:
    """Whether the protective MBR says that this is a GPT disk."""
    block = read_clipped(device, 0, 512)
    return block[510:] == b"\x55\xaa" and 0xEE in (block[450], block[466], block[482], block[498])


def _backup_places(device: Device, sector: int) -> list[int]:
    """Sectors to look at: the last one, and where the primary says (the disk may have grown since)."""
    places = [device.size // sector - 1]
    raw = read_clipped(device, sector, _HEADER.size)
    if len(raw) == _HEADER.size and raw.startswith(_SIGNATURE):
        places.append(_HEADER.unpack(raw)[6])
    return places


def _read_table(device: Device, sector: int, place: int) -> PartitionTable | None:
    header = _read_header(device, sector, place)
    if header is None:
        return None
    raw = read_clipped(device, header.entries * sector, header.count * header.entry_size)
    if len(raw) != header.count * header.entry_size or zlib.crc32(raw) != header.checksum:
        return None
    slots = (
        _slot(number + 1, raw[number * header.entry_size : number * header.entry_size + _ENTRY.size], sector)
        for number in range(header.count)
    )
    return PartitionTable(scheme="GPT", slots=tuple(slot for slot in slots if slot is not None))


def _read_header(device: Device, sector: int, place: int) -> _Header | None:
    """The header in that sector; None where there is none that passes its checksum."""
    block = read_clipped(device, place * sector, sector)
    if len(block) < sector or not block.startswith(_SIGNATURE):
        return None
    fields = _HEADER.unpack_from(block)
    size, checksum, own = fields[2], fields[3], fields[5]
    if not _HEADER.size <= size <= sector or own != place:
        return None
    if zlib.crc32(block[:16] + bytes(4) + block[20:size]) != checksum:
        return None
    header = _Header(*fields[10:])
    believed = header.entry_size >= _ENTRY.size and header.count * header.entry_size <= _MOST_ENTRY_BYTES
    return header if believed else None


def _slot(number: int, raw: bytes, sector: int) -> Slot | None:
    kind, _, first, last, _, _ = _ENTRY.unpack(raw)
    if not any(kind):
        return None
    return Slot(
        number=number,
        offset=first * sector,
        size=(last - first + 1) * sector,
    )
