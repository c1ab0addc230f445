"""The log as a circle of records: their headers, checksums and data.

Chapter "Journaling Log", section "Log Records", of "XFS Algorithms & Data Structures". The log counts in
blocks of 512 bytes. Positions here grow without end: block ``position % blocks`` is where they are, and
the cycle, which every block begins with, is one more for each round.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from questdb_backup.errors import DamagedVolumeError, UnsupportedVolumeError
from questdb_backup.volumes.base import Device
from questdb_backup.volumes.crc32c import crc32c
from questdb_backup.volumes.xfs.superblock import DAMAGE_HINT, SECTOR, Superblock

LONGEST_RECORD = 8 + (1 << 18) // SECTOR
"""Blocks: 256 KiB of data and their headers."""

_MAGIC = 0xFEEDBABE
_MAGIC_BYTES = _MAGIC.to_bytes(4, "big")
_LITTLE_ENDIAN = 1
_NO_UUID = bytes(16)
_HEADER = struct.Struct(">IIIIQQ4xII")
_CRC_AT = 32
_SUMMED_HEADER = 328
_SUMMED_EXTENSION = 260
_FIRST_WORDS_AT = 44
_EXTENSION_WORDS_AT = 4
_WORDS = 64
"""First words of blocks that a header saves; each further 64 are in a further header block."""
_UNMOUNT = 0x20
_OPERATION_FLAGS_AT = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordHeader:
    """A record of ``length`` bytes of data behind ``headers`` blocks, which begins at ``position``."""

    position: int
    cycle: int
    lsn: int
    tail_lsn: int
    length: int
    headers: int
    operations: int

    @property
    def end(self) -> int:
        """The position behind it."""
        return self.position + self.headers + self.length // SECTOR


@dataclass(frozen=True, slots=True)
class Record:
    """A record's data, the first words of its blocks put back."""

    header: RecordHeader
    data: bytes

    @property
    def is_unmount(self) -> bool:
        """Whether it says that the file system was unmounted: nothing is to be replayed."""
        return self.header.operations == 1 and bool(self.data[_OPERATION_FLAGS_AT] & _UNMOUNT)


class LogRegion:
    """The log on its device, read around its end."""

    def __init__(self, device: Device, superblock: Superblock) -> None:
        if not superblock.log_start:
            raise UnsupportedVolumeError(
                "the XFS has its log on another device", "its state cannot be seen; make the log internal"
            )
        self._device = device
        self._uuid = superblock.uuid
        self._start = superblock.block_offset(superblock.log_start, superblock.log_blocks)
        self.blocks = (superblock.log_blocks << superblock.block_bits) // SECTOR
        if self.blocks < 2:
            raise DamagedVolumeError("XFS: there is no log", DAMAGE_HINT)

    def read(self, position: int, count: int) -> bytes:
        """Blocks from a position on."""
        first = position % self.blocks
        together = min(count, self.blocks - first)
        data = self._device.read(self._start + first * SECTOR, together * SECTOR)
        if together < count:
            data += self._device.read(self._start, (count - together) * SECTOR)
        return data

    def cycle(self, position: int) -> int:
        """The cycle that a block was written in, 0 for never."""
        block = self.read(position, 1)
        return int.from_bytes(block[4:8] if block[:4] == _MAGIC_BYTES else block[:4], "big")

    def header(self, position: int, cycle: int, block: bytes | None = None) -> RecordHeader | None:
        """The header at a position, None where no record of that cycle begins there.

        Raise UnsupportedVolumeError where a host of another byte order wrote it.
        """
        block = self.read(position, 1) if block is None else block
        if block[:4] != _MAGIC_BYTES:
            return None
        _, own_cycle, version, length, lsn, tail_lsn, _, operations = _HEADER.unpack_from(block)
        size = int.from_bytes(block[320:324], "big")
        expected = cycle << 32 | position % self.blocks
        if (
            own_cycle != cycle
            or lsn != expected
            or version != 2
            or block[304:320] not in (self._uuid, _NO_UUID)
        ):
            return None
        if not 0 < length <= 1 << 18 or length % SECTOR or size > 1 << 18:
            return None
        if int.from_bytes(block[300:304], "big") != _LITTLE_ENDIAN:
            raise UnsupportedVolumeError("the XFS log was written by a big-endian host")
        return RecordHeader(
            position=position,
            cycle=cycle,
            lsn=lsn,
            tail_lsn=tail_lsn,
            length=length,
            headers=max(1, -(-size // (_WORDS * SECTOR))),
            operations=operations,
        )

    def record(self, header: RecordHeader, *, verify: bool = True) -> Record | None:
        """A record's data; None where a sector of it is of an older write: it was not written whole."""
        raw = self.read(header.position, header.end - header.position)
        if verify and not (self._has_its_headers(raw, header) and _is_whole(raw, header)):
            return None
        return Record(header, _unpacked(raw, header))

    def _has_its_headers(self, raw: bytes, header: RecordHeader) -> bool:
        """Whether the further header blocks were written with it: the checksum leaves out the empty ones."""
        return all(
            int.from_bytes(raw[number * SECTOR : number * SECTOR + 4], "big")
            == header.cycle + (header.position + number) // self.blocks - header.position // self.blocks
            for number in range(1, header.headers)
        )

    def records(self, position: int, end: int, cycle: int, *, verify: bool) -> Iterator[Record]:
        """The records between two positions, one after the other; ``cycle`` is that of position 0.

        Raise DamagedVolumeError where one is damaged.
        """
        while position < end:
            header = self.header(position, cycle + position // self.blocks)
            record = header and self.record(header, verify=verify)
            if not record:
                raise DamagedVolumeError(
                    f"XFS: the log is damaged at its block {position % self.blocks}", DAMAGE_HINT
                )
            yield record
            position = record.header.end


def _is_whole(raw: bytes, header: RecordHeader) -> bool:
    stored = int.from_bytes(raw[_CRC_AT : _CRC_AT + 4], "little")
    if not stored and header.operations == 1:
        return True  # mkfs and xfs_repair write an unmount record without a checksum
    crc = crc32c(raw[_CRC_AT + 4 : _SUMMED_HEADER], crc32c(bytes(4), crc32c(raw[:_CRC_AT])))
    for number in range(1, -(-header.length // (_WORDS * SECTOR))):
        crc = crc32c(raw[number * SECTOR : number * SECTOR + _SUMMED_EXTENSION], crc)
    start = header.headers * SECTOR
    return crc32c(raw[start : start + header.length], crc) == stored


def _unpacked(raw: bytes, header: RecordHeader) -> bytes:
    """The data, with the words that the cycle stood in for; without what cannot be put back."""
    words = raw[_FIRST_WORDS_AT : _FIRST_WORDS_AT + 4 * _WORDS]
    for number in range(1, header.headers):
        at = number * SECTOR + _EXTENSION_WORDS_AT
        words += raw[at : at + 4 * _WORDS]
    count = min(header.length // SECTOR, len(words) // 4)
    data = bytearray(raw[header.headers * SECTOR :][: count * SECTOR])
    memoryview(data).cast("I")[:: SECTOR // 4] = memoryview(words[: 4 * count]).cast("I")
    return bytes(data)
