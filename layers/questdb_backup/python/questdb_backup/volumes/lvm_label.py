"""LVM2 on the disk: the label of a physical volume, its metadata areas, the newest text in them.

The layout is the one of LVM2's ``format_text/layout.h`` and ``label/label.h``; numbers are little endian.
The label stands in one of the first four sectors; the metadata area is a ring behind its header.
"""

import struct
import zlib
from dataclasses import dataclass

from questdb_backup.errors import DamagedVolumeError, UnsupportedVolumeError
from questdb_backup.volumes.base import Device, check_range
from questdb_backup.volumes.lvm_text import Section, parse_metadata
from questdb_backup.volumes.slots import SECTOR, read_clipped

_LABEL = struct.Struct("<8sQII8s")
_AREA = struct.Struct("<QQ")
_AREA_HEADER = struct.Struct("<I16sIQQ")
_LOCATION = struct.Struct("<QQII")
_MAGIC = b" LVM2 x[5A%r0N*>"
_HEADER_SIZE = 512
_LABEL_SECTORS = 4
_MOST_AREAS = 16
_MOST_TEXT = 16 << 20
"""Bytes of text that are believed; a group of a thousand volumes has half a megabyte."""
_IGNORED = 1
_CRC_SEED = 0xF597A6CF


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalVolume:
    """What a disk says of itself; ``metadata`` is None where it belongs to no volume group yet."""

    uuid: str
    metadata: Section | None


def has_label(device: Device) -> bool:
    """Whether an LVM2 label stands on the device, sound or not."""
    return _find_label(device) is not None


def read_physical_volume(device: Device) -> PhysicalVolume:
    """The label and the newest metadata that passes its checksum.

    Raise DamagedVolumeError where none does, UnsupportedVolumeError where this disk keeps none.
    """
    sector = _find_label(device)
    if sector is None:
        raise DamagedVolumeError("no LVM2 label is in the first four sectors")
    header = _checked_label(device, sector)
    areas = _areas(header)
    if not areas:
        raise _elsewhere()
    return PhysicalVolume(
        uuid=header[:32].decode("ascii", "replace"),
        metadata=_newest(device, areas),
    )


def _elsewhere() -> UnsupportedVolumeError:
    return UnsupportedVolumeError(
        "the LVM physical volume keeps no metadata of its own",
        "its volume group spans several disks; move the database to a volume group of one disk",
    )


def _find_label(device: Device) -> int | None:
    head = read_clipped(device, 0, _LABEL_SECTORS * SECTOR)
    for sector in range(_LABEL_SECTORS):
        if head[sector * SECTOR :].startswith(b"LABELONE"):
            return sector
    return None


def _checked_label(device: Device, sector: int) -> bytes:
    """The physical volume's header within its label."""
    block = device.read(sector * SECTOR, SECTOR)
    _, own, checksum, offset, kind = _LABEL.unpack_from(block)
    if own != sector or _crc(block[20:]) != checksum:
        raise DamagedVolumeError("the LVM2 label fails its checksum")
    if kind != b"LVM2 001":
        raise UnsupportedVolumeError(f"the LVM label is of type {kind!r}", "only LVM2 is read")
    if not _LABEL.size <= offset <= SECTOR - 40:
        raise DamagedVolumeError(f"the LVM2 label has its header at byte {offset} of {SECTOR}")
    return block[offset:]


def _areas(header: bytes) -> list[tuple[int, int]]:
    """Offset and size of the metadata areas: the second list behind the header, each ends with zeros."""
    rows = list(_AREA.iter_unpack(header[40 : 40 + (len(header) - 40) // 16 * 16]))
    data_end = next((n for n, (offset, _) in enumerate(rows) if not offset), len(rows))
    areas = []
    for offset, size in rows[data_end + 1 :][:_MOST_AREAS]:
        if not offset:
            break
        areas.append((offset, size))
    return areas


def _newest(device: Device, areas: list[tuple[int, int]]) -> Section | None:
    found: list[Section] = []
    damage: list[DamagedVolumeError | UnsupportedVolumeError] = []
    for offset, size in areas:
        try:
            text = _read_area(device, offset, size)
            if text is not None:
                found.append(parse_metadata(text))
        except (DamagedVolumeError, UnsupportedVolumeError) as error:
            damage.append(error)
    if damage and not found:
        raise damage[0]
    return max(found, key=_sequence, default=None)


def _sequence(metadata: Section) -> int:
    numbers = (group.get("seqno") for group in metadata.values() if isinstance(group, dict))
    return max((number for number in numbers if isinstance(number, int)), default=0)


def _read_area(device: Device, start: int, size: int) -> str | None:
    """The text that is committed in one area; None where it holds none."""
    check_range(start, max(size, _HEADER_SIZE), device.size)
    header = device.read(start, _HEADER_SIZE)
    checksum, magic, version, _, _ = _AREA_HEADER.unpack_from(header)
    if magic != _MAGIC or _crc(header[4:]) != checksum:
        raise DamagedVolumeError(f"the LVM metadata area at byte {start} fails its checksum")
    if version != 1:
        raise UnsupportedVolumeError(
            f"the LVM metadata area is of version {version}", "only version 1 is read"
        )
    offset, length, checksum, flags = _LOCATION.unpack_from(header, _AREA_HEADER.size)
    if not offset:
        return None
    if flags & _IGNORED:
        raise _elsewhere()
    if not _HEADER_SIZE <= offset < size or not 0 < length <= min(size - _HEADER_SIZE, _MOST_TEXT):
        raise DamagedVolumeError(f"the LVM metadata of {length} bytes at {offset} is not within its area")
    before_end = min(length, size - offset)
    raw = device.read(start + offset, before_end)
    raw += device.read(start + _HEADER_SIZE, length - before_end)
    if _crc(raw) != checksum:
        raise DamagedVolumeError(f"the LVM metadata at byte {start + offset} fails its checksum")
    return raw.decode("utf-8", "replace")


def _crc(data: bytes) -> int:
    """LVM's CRC-32: zlib's, with its own seed and no inversions."""
    return zlib.crc32(data, _CRC_SEED ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
