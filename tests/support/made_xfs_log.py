"""XFS logs made by hand: records of transactions of items, with right checksums."""

import struct
from dataclasses import dataclass, field

from questdb_backup.volumes.crc32c import crc32c
from questdb_backup.volumes.xfs.overlay import ReplayedDevice
from questdb_backup.volumes.xfs.superblock import SECTOR, Superblock

START, COMMIT, CONTINUES, CONTINUED, END, UNMOUNT = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
TRANSACTION = struct.pack("<IIII", 0x5452414E, 40, 0, 1)


def operation(flags: int, data: bytes = b"", number: int = 7) -> bytes:
    return struct.pack(">IIBBH", number, len(data), 0x69, flags, 0) + data


def item(kind: int, regions: int, rest: bytes = b"") -> bytes:
    return struct.pack("<HH", kind, regions) + rest


def transaction(*regions: bytes) -> list[bytes]:
    """The operations of a transaction of these regions."""
    return [
        operation(START),
        operation(0, TRANSACTION),
        *(operation(0, region) for region in regions),
        operation(COMMIT),
    ]


def buffer_item(
    address: int, sectors: int, kind: int, chunks: dict[int, bytes], flags: int = 0
) -> list[bytes]:
    """A change of a buffer: ``chunks`` of 128 bytes by their number."""
    changed = sum(1 << number for number in chunks)
    head = struct.pack("<HHHHqIQ", 0x123C, 1 + len(chunks), flags | kind << 11, sectors, address, 2, changed)
    return [head, *(data.ljust(128, b"\0") for _, data in sorted(chunks.items()))]


def cancel_item(address: int, sectors: int) -> list[bytes]:
    return buffer_item(address, sectors, 0, {}, flags=0x2)


@dataclass
class MadeLog:
    """Writes records over the log of an image, which it empties; the first one is at ``position``.

    ``headers`` is how many header blocks each record has.
    """

    device: ReplayedDevice
    superblock: Superblock
    position: int = 0
    tail: int = 0
    cycle: int = 1
    headers: int = 1
    positions: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.blocks = (self.superblock.log_blocks << self.superblock.block_bits) // SECTOR
        self._start = self.superblock.block_offset(self.superblock.log_start)
        old = (self.cycle - 1).to_bytes(4, "big").ljust(SECTOR, b"\0")
        self.device.write(self._start, old * self.blocks)

    def lsn(self, position: int) -> int:
        return (self.cycle + position // self.blocks) << 32 | position % self.blocks

    def write(self, operations: list[bytes], *, torn: bool = False) -> int:
        """Add a record, give its LSN; ``torn``: nothing of it reaches the disk."""
        data = bytearray().join(operations)
        data += bytes(-len(data) % SECTOR)
        position, count = self.position, len(data) // SECTOR
        words = b"".join(data[at : at + 4] for at in range(0, len(data), SECTOR))
        for index in range(count):
            cycle = self.lsn(position + self.headers + index) >> 32
            data[index * SECTOR : index * SECTOR + 4] = cycle.to_bytes(4, "big")
        head = struct.pack(
            ">IIIIQQIII", 0xFEEDBABE, self.lsn(position) >> 32, 2, len(data), self.lsn(position),
            self.lsn(self.tail), 0, 0, len(operations),
        )  # fmt: skip
        header = bytearray((head + words).ljust(SECTOR, b"\0"))
        header[300:324] = struct.pack(">I16sI", 1, self.superblock.uuid, self.headers * 32768)
        header[32:36] = crc32c(bytes(data), crc32c(bytes(header[:328]))).to_bytes(4, "little")
        self.positions.append(position)
        self.position += self.headers + count
        if not torn:
            further = [self.first_word(position + index) for index in range(1, self.headers)]
            self._put(position, bytes(header) + b"".join(further) + bytes(data))
        return self.lsn(position)

    def lose(self, position: int) -> None:
        """Put the block at a position back to what it was a round before."""
        self._put(position, self.first_word(position - self.blocks))

    def first_word(self, position: int) -> bytes:
        """A block with nothing but its cycle."""
        return (self.lsn(position) >> 32).to_bytes(4, "big").ljust(SECTOR, b"\0")

    def _put(self, position: int, data: bytes) -> None:
        for index in range(0, len(data), SECTOR):
            block = (position + index // SECTOR) % self.blocks
            self.device.write(self._start + block * SECTOR, data[index : index + SECTOR])
