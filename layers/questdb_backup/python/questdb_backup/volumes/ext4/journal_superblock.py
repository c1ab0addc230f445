"""The superblock of a journal, and the checksums of its blocks: chapter "Journal (jbd2)", "Super Block"."""

import struct
from dataclasses import dataclass
from enum import IntFlag

from questdb_backup.errors import UnsupportedVolumeError
from questdb_backup.volumes.crc32c import raw_crc32c
from questdb_backup.volumes.ext4.damage import damaged
from questdb_backup.volumes.ext4.features import unknown_bits

MAGIC = 0xC03B3998
HEADER = struct.Struct(">3I")
"""h_magic, h_blocktype, h_sequence."""
SUPERBLOCK_SIZE = 1024
_SUPERBLOCK_V1, _SUPERBLOCK_V2 = 3, 4
_CRC32C = 4
_DEFAULT_FAST_COMMIT_BLOCKS = 256
_LEAST_BLOCKS = 1024
_COMPATIBLE_CHECKSUM = 1


class JournalFeature(IntFlag):
    """Incompatible features of a journal."""

    REVOKE = 0x1
    BITS_64 = 0x2
    ASYNC_COMMIT = 0x4
    CSUM_V2 = 0x8
    CSUM_V3 = 0x10
    FAST_COMMIT = 0x20


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalSuperblock:
    """A journal's geometry, in blocks of it, and its features.

    The log is circular from ``first`` to before ``end``; it begins at ``start`` with the transaction
    ``sequence``; ``start`` is 0 where nothing is in it. Fast commits begin at ``fast_commits``, None
    where it has none.
    """

    first: int
    end: int
    start: int
    sequence: int
    fast_commits: int | None
    is_64_bit: bool
    is_async: bool
    has_commit_sums: bool
    has_csum_v2: bool
    has_csum_v3: bool
    seed: int

    @property
    def has_block_sums(self) -> bool:
        """Whether every block of the log has a CRC-32C (checksum v2 or v3)."""
        return self.has_csum_v2 or self.has_csum_v3

    def sum_of(self, data: bytes, sequence: int | None = None) -> int:
        """The CRC-32C of a block of the log; of a logged one with its transaction's sequence number."""
        seed = self.seed if sequence is None else raw_crc32c(sequence.to_bytes(4, "big"), self.seed)
        return raw_crc32c(data, seed)

    def has_good_tail(self, block: bytes) -> bool:
        """Whether a descriptor or revoke block fits the checksum in its last four bytes."""
        if not self.has_block_sums:
            return True
        return self.sum_of(block[:-4] + bytes(4)) == int.from_bytes(block[-4:], "big")

    def following(self, block: int, count: int = 1) -> int:
        """The block of the log ``count`` after another one."""
        return (block - self.first + count) % (self.end - self.first) + self.first


def parse_journal_superblock(raw: bytes, block_size: int, block_count: int) -> JournalSuperblock:
    """Read and check the first 1024 bytes of a journal of ``block_count`` blocks.

    Raise DamagedVolumeError where they cannot be right, UnsupportedVolumeError for unknown features.
    """
    magic, kind, _ = HEADER.unpack_from(raw)
    if magic != MAGIC or kind not in (_SUPERBLOCK_V1, _SUPERBLOCK_V2):
        raise damaged("the journal has no superblock")
    size, length, first, sequence, start = struct.unpack_from(">5I", raw, 0xC)
    compatible, incompatible = struct.unpack_from(">2I", raw, 0x24) if kind == _SUPERBLOCK_V2 else (0, 0)
    features = JournalFeature(incompatible)
    names = unknown_bits(incompatible, JournalFeature, sum(JournalFeature))
    if names:
        raise UnsupportedVolumeError(f"the journal of the ext4 file system has the features {names}")
    has_v2, has_v3 = JournalFeature.CSUM_V2 in features, JournalFeature.CSUM_V3 in features
    has_commit_sums = bool(compatible & _COMPATIBLE_CHECKSUM)
    if has_v2 + has_v3 + has_commit_sums > 1:
        raise damaged("the journal has two kinds of checksums")
    if has_v2 or has_v3:
        _check_checksum(raw)
    end, fast_commits = length, None
    if JournalFeature.FAST_COMMIT in features:
        end, fast_commits = _fast_commit_area(raw, length)
    if (
        size != block_size
        or length > block_count
        or not 0 < first < end
        or (start and not first <= start < end)
    ):
        raise damaged("the journal's geometry cannot be right")
    return JournalSuperblock(
        first=first,
        end=end,
        start=start,
        sequence=sequence,
        fast_commits=fast_commits,
        is_64_bit=JournalFeature.BITS_64 in features,
        is_async=JournalFeature.ASYNC_COMMIT in features,
        has_commit_sums=has_commit_sums,
        has_csum_v2=has_v2,
        has_csum_v3=has_v3,
        seed=raw_crc32c(raw[0x30:0x40], 0xFFFFFFFF),
    )


def _fast_commit_area(raw: bytes, length: int) -> tuple[int, int]:
    """End of the log, and the first block of the fast commits behind it."""
    (count,) = struct.unpack_from(">I", raw, 0x54)
    end = length - (count or _DEFAULT_FAST_COMMIT_BLOCKS)
    if end < _LEAST_BLOCKS:
        end = length
    return end, end + 1


def _check_checksum(raw: bytes) -> None:
    if raw[0x50] != _CRC32C:
        raise damaged(f"the journal names a checksum of unknown type {raw[0x50]}")
    plain = raw[:0xFC] + bytes(4) + raw[0x100:]
    if raw_crc32c(plain, 0xFFFFFFFF) != int.from_bytes(raw[0xFC:0x100], "big"):
        raise damaged("the journal's superblock fails its checksum")
