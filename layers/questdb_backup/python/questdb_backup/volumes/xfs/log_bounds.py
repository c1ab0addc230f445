"""Where the part of the log begins and ends that a mount would replay.

The log is a circle that is written on and on; the cycle number at the front of its blocks falls by one where
the newest record ends (the head). The last records may be torn, as up to eight are written at once: the
head is behind the last one of an unbroken chain of whole records. The newest of these tells the tail.
"""

from dataclasses import dataclass

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.volumes.xfs.log_records import LONGEST_RECORD, LogRegion, Record, RecordHeader
from questdb_backup.volumes.xfs.superblock import DAMAGE_HINT, SECTOR

_IN_FLIGHT = 8
_WINDOW = (_IN_FLIGHT + 1) * LONGEST_RECORD
"""Blocks before the newest one, among which the records are that may be torn."""


@dataclass(frozen=True, slots=True)
class LogBounds:
    """The records from position ``tail`` up to ``head`` are replayed; ``cycle`` is that of position 0."""

    tail: int
    head: int
    cycle: int


def find_bounds(log: LogRegion) -> LogBounds | None:
    """Where a dirty log's records are; None for a clean log. Raise DamagedVolumeError."""
    cycle, last_cycle = log.cycle(0), log.cycle(log.blocks - 1)
    if not cycle:
        _check_never_written(log, last_cycle)
        return None
    if last_cycle == cycle - 2:
        cycle -= 1  # of a record around the log's end, the first block was written and the last one was not
    newest = log.blocks if last_cycle == cycle else _first_of(log, last_cycle)
    last = _last_whole(log, newest, cycle, wrapped=last_cycle != 0)
    if last.is_unmount:
        return None
    tail_cycle, tail_block = last.header.tail_lsn >> 32, last.header.tail_lsn & 0xFFFFFFFF
    tail, head = (tail_cycle - cycle) * log.blocks + tail_block, last.header.end
    if tail_block >= log.blocks or tail > last.header.position or head - tail > log.blocks:
        raise DamagedVolumeError(
            f"XFS: the log's tail ({tail_cycle}, {tail_block}) is beyond it", DAMAGE_HINT
        )
    return LogBounds(_first_whole(log, tail, head, cycle), head, cycle)


def _check_never_written(log: LogRegion, last_cycle: int) -> None:
    """Raise DamagedVolumeError where only the log's first block is zeros: then it was written to."""
    if last_cycle or any(log.read(0, min(_WINDOW, log.blocks))):
        raise DamagedVolumeError("XFS: the first block of the log is gone", DAMAGE_HINT)


def _first_of(log: LogRegion, last_cycle: int) -> int:
    """The first block of the log's last part, which is of another cycle than its first part."""
    low, high = 0, log.blocks - 1
    while high - low > 1:
        middle = (low + high) // 2
        if log.cycle(middle) == last_cycle:
            high = middle
        else:
            low = middle
    return high


def _last_whole(log: LogRegion, newest: int, cycle: int, *, wrapped: bool) -> Record:
    """The last record of the unbroken chain."""
    oldest = newest - log.blocks if wrapped else 0
    headers = _headers(log, max(newest - _WINDOW, oldest), newest, cycle)
    last, count = None, 0
    for header in headers:
        if last and header.position != last.header.end:
            break
        record = log.record(header)
        if not record:
            break
        last, count = record, count + 1
    lost = len(headers) - count
    if last is None or lost > _IN_FLIGHT:
        raise DamagedVolumeError(f"XFS: {lost} records at the head of the log cannot be read", DAMAGE_HINT)
    return last


def _headers(log: LogRegion, start: int, end: int, cycle: int) -> list[RecordHeader]:
    """The headers of all records that begin between two positions."""
    data = log.read(start, end - start)
    found = []
    for position in range(start, end):
        at = (position - start) * SECTOR
        header = log.header(position, cycle + position // log.blocks, data[at : at + SECTOR])
        if header:
            found.append(header)
    return found


def _first_whole(log: LogRegion, tail: int, head: int, cycle: int) -> int:
    """The tail; or, where records that were torn and so dropped lie over it, the first record behind them."""
    overwritten = head + _WINDOW - log.blocks
    for position in range(tail, max(tail + 1, min(overwritten, head))):
        header = log.header(position, cycle + position // log.blocks)
        if header and log.record(header):
            return position
    raise DamagedVolumeError(
        f"XFS: there is no record at the log's tail, block {tail % log.blocks}", DAMAGE_HINT
    )
