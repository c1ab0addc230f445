"""A device as it stands after the log was replayed: the replayed sectors in memory, the rest below."""

from collections.abc import Iterator

from questdb_backup.errors import UnsupportedVolumeError
from questdb_backup.volumes.base import Device, Stretch, check_range
from questdb_backup.volumes.xfs.superblock import SECTOR

_MOST_SECTORS = 1 << 20
"""512 MiB of metadata: more than any log brings in the 30 seconds after which Linux writes it back."""


class ReplayedDevice:
    """Device that reads through the sectors that `write` changed in memory."""

    def __init__(self, below: Device) -> None:
        self._below = below
        self._sectors: dict[int, bytearray] = {}

    @property
    def size(self) -> int:
        """As Device says."""
        return self._below.size

    @property
    def sectors(self) -> int:
        """How many sectors are in memory."""
        return len(self._sectors)

    def read(self, offset: int, length: int) -> bytes:
        """As Device says."""
        check_range(offset, length, self.size)
        known, end = self._sectors, offset + length
        first, last = offset // SECTOR, (end - 1) // SECTOR
        if first == last and (sector := known.get(first)):
            return bytes(sector[offset % SECTOR : offset % SECTOR + length])
        data = self._below.read(offset, length)
        touched = [number for number in range(first, last + 1) if number in known] if known else []
        if not touched:
            return data
        changed = bytearray(data)
        for number in touched:
            start = number * SECTOR
            at, stop = max(start, offset), min(start + SECTOR, end)
            changed[at - offset : stop - offset] = known[number][at - start : stop - start]
        return bytes(changed)

    def locate(self, offset: int, length: int) -> Iterator[Stretch]:
        """As Device says: where the bytes below lie."""
        return self._below.locate(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        """Change bytes in memory. Raise UnsupportedVolumeError where that takes too much of it."""
        check_range(offset, len(data), self.size)
        position = 0
        while position < len(data):
            number, within = divmod(offset + position, SECTOR)
            part = data[position : position + SECTOR - within]
            sector = self._sectors.get(number)
            if sector is None:
                sector = self._sectors[number] = self._fetched(number, len(part))
            sector[within : within + len(part)] = part
            position += len(part)

    def is_patched(self, offset: int, length: int) -> bool:
        """Whether some of these bytes were replayed: the checksum over them was not renewed then."""
        known = self._sectors
        return bool(known) and any(
            n in known for n in range(offset // SECTOR, (offset + length - 1) // SECTOR + 1)
        )

    def _fetched(self, number: int, replaced: int) -> bytearray:
        if len(self._sectors) >= _MOST_SECTORS:
            raise UnsupportedVolumeError(
                f"the XFS log changes more than {_MOST_SECTORS} sectors of metadata",
                "take another snapshot in a calmer minute",
            )
        if replaced == SECTOR:
            return bytearray(SECTOR)
        start = number * SECTOR
        return bytearray(self._below.read(start, min(SECTOR, self.size - start)))
