"""The journal replayed as an overlay: chapter "Journal (jbd2)", "Layout" and "Data Block".

Nothing is written and no block is kept: what comes of a replay is where in the journal the newest bytes of
each block are. Where the kernel would end the log (a transaction without its commit block) it ends here;
where the kernel would refuse the mount (a checksum fails inside a transaction that was committed)
DamagedVolumeError is raised.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from questdb_backup.errors import UnsupportedVolumeError
from questdb_backup.volumes.base import Device
from questdb_backup.volumes.ext4.blocks import Overlay
from questdb_backup.volumes.ext4.damage import damaged
from questdb_backup.volumes.ext4.journal_blocks import (
    BlockType,
    CommitSum,
    Tag,
    commit_time,
    fits,
    is_good_commit,
    revoked,
    tags,
)
from questdb_backup.volumes.ext4.journal_superblock import (
    HEADER,
    MAGIC,
    SUPERBLOCK_SIZE,
    JournalSuperblock,
    parse_journal_superblock,
)
from questdb_backup.volumes.ext4.runs import Run
from questdb_backup.volumes.ext4.superblock import Superblock

_SEQUENCES = 1 << 32
_FAST_COMMIT_HEAD = (9).to_bytes(2, "little") + (8).to_bytes(2, "little")
"""fc_tag and fc_len of EXT4_FC_TAG_HEAD; fc_features and fc_tid follow."""


def replay(device: Device, superblock: Superblock, runs: Sequence[Run]) -> Overlay:
    """Replay the journal, which lies in ``runs``, of a file system that was not unmounted.

    Raise DamagedVolumeError where the kernel would refuse to replay, UnsupportedVolumeError for features
    that are not read and where a fast commit would have to be replayed.
    """
    log = _Log(device, superblock.block_size, runs)
    journal = parse_journal_superblock(log.read(0)[:SUPERBLOCK_SIZE], superblock.block_size, log.block_count)
    if not journal.start:
        return Overlay(device, superblock.block_size, {})
    scan = _Scan(log, journal, device.size // superblock.block_size)
    scan.run()
    _refuse_fast_commit(log, journal, scan.sequence)
    return _replayed(log, journal, scan, superblock)


class _Log:
    """The blocks of the journal's file."""

    def __init__(self, device: Device, block_size: int, runs: Sequence[Run]) -> None:
        self.device = device
        self.block_size = block_size
        self._runs = runs
        self._starts = [run.start for run in runs]
        self.block_count = 0
        for run in runs:
            if run.start != self.block_count:
                raise damaged("the journal's file has a hole")
            self.block_count += run.length

    def offset(self, number: int) -> int:
        """Where a block is on the device."""
        if not 0 <= number < self.block_count:
            raise damaged(f"block {number} of a journal of {self.block_count} is asked for")
        run = self._runs[bisect_right(self._starts, number) - 1]
        return (run.block + number - run.start) * self.block_size

    def read(self, number: int) -> bytes:
        """The bytes of a block."""
        return self.device.read(self.offset(number), self.block_size)


@dataclass
class _Transaction:
    """What is met of a transaction before its commit block."""

    ordinal: int
    descriptors: list[int] = field(default_factory=list)
    revoked: set[int] = field(default_factory=set)
    is_doubtful: bool = False
    logged: CommitSum = field(default_factory=CommitSum)


class _Scan:
    """The first pass: which transactions are committed, and what they revoke.

    ``descriptors`` are the (ordinal of the transaction, block of the log) of the descriptor blocks;
    ``revoked`` tells for each revoked block the last transaction that did so.
    """

    def __init__(self, log: _Log, journal: JournalSuperblock, block_count: int) -> None:
        self._log = log
        self._block_count = block_count
        self._journal = journal
        self._at = journal.start
        self._left = journal.end - journal.first
        self._transaction = _Transaction(0)
        self._last_time = 0
        self.descriptors: list[tuple[int, int]] = []
        self.revoked: dict[int, int] = {}

    @property
    def sequence(self) -> int:
        """The number of the first transaction that is not committed."""
        return sequence_of(self._journal, self._transaction.ordinal)

    def run(self) -> None:
        """Follow the log to its end, which comes at the latest once it was gone around."""
        while self._left > 0:
            block = self._log.read(self._at)
            magic, kind, sequence = HEADER.unpack_from(block)
            if magic != MAGIC or sequence != self.sequence:
                return
            place = self._at
            self._advance(1)
            if kind == BlockType.DESCRIPTOR:
                self._take_descriptor(place, block)
            elif kind == BlockType.REVOKE:
                self._take_revoke(block)
            elif kind != BlockType.COMMIT or not self._take_commit(block):
                return

    def _advance(self, count: int) -> None:
        self._left -= count
        self._at = self._journal.following(self._at, count)

    def _take_descriptor(self, place: int, block: bytes) -> None:
        transaction = self._transaction
        transaction.is_doubtful |= not self._journal.has_good_tail(block)
        transaction.descriptors.append(place)
        count = sum(1 for _ in tags(self._journal, block))
        if self._journal.has_commit_sums:
            transaction.logged.add(block)
            for number in range(count):
                transaction.logged.add(self._log.read(self._journal.following(place, number + 1)))
        self._advance(count)

    def _take_revoke(self, block: bytes) -> None:
        transaction = self._transaction
        if self._journal.has_good_tail(block):
            transaction.revoked.update(n for n in revoked(self._journal, block) if n < self._block_count)
        else:
            transaction.is_doubtful = True

    def _take_commit(self, block: bytes) -> bool:
        """Take the transaction in; False where the log ends before it.

        A checksum that fails in a block older than the last transaction is of an earlier round of the log.
        """
        transaction, time = self._transaction, commit_time(block)
        is_stale = time < self._last_time
        if transaction.is_doubtful or not is_good_commit(self._journal, block, transaction.logged.value):
            if is_stale or (self._journal.is_async and not transaction.is_doubtful):
                return False
            raise damaged(f"transaction {self.sequence} of the journal was committed, but fails its checksum")
        self._last_time = time
        self.descriptors += ((transaction.ordinal, place) for place in transaction.descriptors)
        self.revoked.update(dict.fromkeys(transaction.revoked, transaction.ordinal))
        self._transaction = _Transaction(transaction.ordinal + 1)
        return True


def sequence_of(journal: JournalSuperblock, ordinal: int) -> int:
    """The sequence number of a transaction, counted from the log's first; the numbers turn over."""
    return (journal.sequence + ordinal) % _SEQUENCES


def _refuse_fast_commit(log: _Log, journal: JournalSuperblock, sequence: int) -> None:
    if journal.fast_commits is None or journal.fast_commits >= log.block_count:
        return
    head = log.read(journal.fast_commits)[:12]
    if head[:4] == _FAST_COMMIT_HEAD and int.from_bytes(head[8:12], "little") == sequence:
        raise UnsupportedVolumeError(
            "the ext4 file system holds a fast commit, which is not replayed",
            "take a new snapshot; or switch it off: tune2fs -O ^fast_commit while unmounted",
        )


def _replayed(log: _Log, journal: JournalSuperblock, scan: _Scan, superblock: Superblock) -> Overlay:
    """The second pass: the last bytes of every block that was not revoked later."""
    positions: dict[int, int] = {}
    for ordinal, place in scan.descriptors:
        for at, tag in _logged(log, journal, place):
            if scan.revoked.get(tag.block, -1) >= ordinal:
                continue
            if not tag.block < log.device.size // log.block_size:
                raise damaged(
                    f"the journal holds block {tag.block}, the last one is {superblock.block_count - 1}"
                )
            if tag.checksum is not None and not fits(
                journal, tag, log.read(at), sequence_of(journal, ordinal)
            ):
                raise damaged(f"the journal's copy of block {tag.block} fails its checksum")
            position = log.offset(at)
            positions[tag.block] = ~position if tag.is_escaped else position
    return Overlay(log.device, log.block_size, positions, MAGIC.to_bytes(4, "big"))


def _logged(log: _Log, journal: JournalSuperblock, place: int) -> Iterator[tuple[int, Tag]]:
    """Each tag of a descriptor block, and the block of the log that holds its bytes."""
    for number, tag in enumerate(tags(journal, log.read(place)), 1):
        yield journal.following(place, number), tag
