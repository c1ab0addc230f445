"""Blocks of the log: chapter "Journal (jbd2)", "Descriptor Block", "Revocation Block", "Commit Block"."""

import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from questdb_backup.volumes.ext4.damage import damaged
from questdb_backup.volumes.ext4.journal_superblock import HEADER, JournalSuperblock

_ESCAPED, _SAME_UUID, _LAST = 0x1, 0x2, 0x8
_TAIL_SIZE = 4
_REVOKE_HEADER_SIZE = 16
_COMMIT_SUM = slice(0x10, 0x14)
_COMMIT_HEADER_SIZE = 0x3C
_CRC32, _CRC32_SIZE = 1, 4
_MIRRORED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


class BlockType(IntEnum):
    """h_blocktype."""

    DESCRIPTOR = 1
    COMMIT = 2
    REVOKE = 5


class Tag(NamedTuple):
    """One logged block: where it belongs; its checksum is None where the journal has none."""

    block: int
    is_escaped: bool
    checksum: int | None


def tags(journal: JournalSuperblock, block: bytes) -> Iterator[Tag]:
    """The tags of a descriptor block, in the order of the blocks that follow it."""
    if journal.has_csum_v3:
        yield from _tags_v3(journal, block)
        return
    # Version 2 of the checksums made each tag two bytes longer than its fields are, and left them unused.
    size = (12 if journal.is_64_bit else 8) + (2 if journal.has_csum_v2 else 0)
    at, end = HEADER.size, len(block) - (_TAIL_SIZE if journal.has_csum_v2 else 0)
    while at + size <= end:
        low, checksum, flags = struct.unpack_from(">IHH", block, at)
        high = struct.unpack_from(">I", block, at + 8)[0] if journal.is_64_bit else 0
        at += size if flags & _SAME_UUID else size + 16
        yield Tag(high << 32 | low, bool(flags & _ESCAPED), checksum if journal.has_csum_v2 else None)
        if flags & _LAST:
            return


def _tags_v3(journal: JournalSuperblock, block: bytes) -> Iterator[Tag]:
    at, size = HEADER.size, 16
    while at + size <= len(block) - _TAIL_SIZE:
        low, flags, high, checksum = struct.unpack_from(">4I", block, at)
        at += size if flags & _SAME_UUID else size + 16
        yield Tag((high if journal.is_64_bit else 0) << 32 | low, bool(flags & _ESCAPED), checksum)
        if flags & _LAST:
            return


def fits(journal: JournalSuperblock, tag: Tag, logged: bytes, sequence: int) -> bool:
    """Whether a logged block fits the checksum in its tag."""
    if tag.checksum is None:
        return True
    mask = 0xFFFF if journal.has_csum_v2 else 0xFFFFFFFF
    return journal.sum_of(logged, sequence) & mask == tag.checksum


def revoked(journal: JournalSuperblock, block: bytes) -> Iterator[int]:
    """The numbers in a revoke block. Raise DamagedVolumeError where its count cannot be right."""
    (end,) = struct.unpack_from(">I", block, HEADER.size)
    if end > len(block) - (_TAIL_SIZE if journal.has_block_sums else 0):
        raise damaged("the journal has a revoke block that is longer than a block")
    width = 8 if journal.is_64_bit else 4
    for at in range(_REVOKE_HEADER_SIZE, end - width + 1, width):
        yield int.from_bytes(block[at : at + width], "big")


def commit_time(block: bytes) -> int:
    """The seconds in a commit block."""
    return int.from_bytes(block[0x30:0x38], "big")


def is_good_commit(journal: JournalSuperblock, block: bytes, logged_sum: int) -> bool:
    """Whether a commit block fits its checksum; ``logged_sum`` is the `CommitSum` of its transaction."""
    found = int.from_bytes(block[_COMMIT_SUM], "big")
    if journal.has_commit_sums:
        kind, size = block[0xC], block[0xD]
        return (kind, size, found) in ((_CRC32, _CRC32_SIZE, logged_sum), (0, 0, 0))
    if not journal.has_block_sums:
        return True
    plain = block[: _COMMIT_SUM.start] + bytes(4) + block[_COMMIT_SUM.stop :]
    if journal.sum_of(plain) == found:
        return True
    # Some kernels summed the header alone, as if nothing but zeros stood behind it.
    return journal.sum_of(plain[:_COMMIT_HEADER_SIZE].ljust(len(block), b"\0")) == found


class CommitSum:
    """The checksum (v1) of a transaction's descriptors and logged blocks.

    It is CRC-32 with the bits of each byte in the order that zlib has not, from ~0 on and not inverted.
    """

    def __init__(self) -> None:
        self._mirrored = 0

    def add(self, block: bytes) -> None:
        """Take in the next block."""
        self._mirrored = zlib.crc32(block.translate(_MIRRORED), self._mirrored)

    @property
    def value(self) -> int:
        """The checksum so far."""
        return int(f"{self._mirrored ^ 0xFFFFFFFF:032b}"[::-1], 2)
