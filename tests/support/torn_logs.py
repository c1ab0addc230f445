"""XFS volumes as a crash leaves them: a snapshot, and a part of the log records that were written after it.

A record is on the disk before anything is changed in place that it tells of. So a snapshot with some sectors
of the next records is what a crash would have left, as long as these records leave the tail where it was:
behind a later tail the snapshot lacks what was written in place. What a write did not bring are old sectors.
To tear records of the snapshot itself makes what no crash leaves: blocks in place newer than the log.
"""

import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from questdb_backup.volumes.base import ImageDevice
from questdb_backup.volumes.xfs.log_bounds import find_bounds
from questdb_backup.volumes.xfs.log_records import LogRegion, RecordHeader
from questdb_backup.volumes.xfs.superblock import SECTOR, read_superblock
from tests.support.busy_volumes import clone

_IN_FLIGHT = 7
"""Records that are torn: Linux writes up to eight at once, but where eight of the longest are on their way in
a log's first round, and the first sector of all is missing, it finds no record before it and refuses."""
_SECTOR_BYTES_AT = 102


@dataclass(frozen=True, kw_only=True)
class Burst:
    """Two snapshots, and the records that only the later one has; positions are those of ``before``.

    ``start`` is where the log begins on the volume in bytes, ``unit`` how many blocks are written as one.
    """

    before: Path
    after: Path
    start: int
    blocks: int
    unit: int
    records: tuple[RecordHeader, ...]

    @property
    def edge(self) -> int | None:
        """The position at the log's end, where records lie before and behind it."""
        begin, end = self.records[0].position, self.records[-1].end
        edge = -(-(begin + 1) // self.blocks) * self.blocks
        return edge if edge < end else None

    def changed(self, position: int) -> bool:
        """Whether the sector at a position is another one in the later snapshot."""
        old, new = (self._sector(path, position) for path in (self.before, self.after))
        return old != new

    def written(self, target: Path, begin: int, end: int, old: set[int]) -> Path:
        """The earlier snapshot with the log's sectors between two positions, but for the ``old`` ones."""
        clone(self.before, target)
        with target.open("rb+") as file:
            for position in range(begin, end, self.unit):
                if position not in old:
                    file.seek(self._offset(position))
                    file.write(self._sector(self.after, position))
        return target

    def _sector(self, path: Path, position: int) -> bytes:
        with path.open("rb") as file:
            file.seek(self._offset(position))
            return file.read(self.unit * SECTOR)

    def _offset(self, position: int) -> int:
        return self.start + position % self.blocks * SECTOR


@dataclass(frozen=True, kw_only=True)
class TornLog:
    """An image as a crash leaves it; ``head`` is where its log ends, counted from the start of cycle 0."""

    image: Path
    head: int
    what: str


def burst_between(before: Path, after: Path) -> Burst | None:
    """What was written to a log between two snapshots, up to where the tail is moved; None for nothing."""
    with closing(ImageDevice(before)) as old, closing(ImageDevice(after)) as new:
        superblock = read_superblock(old)
        log, later = LogRegion(old, superblock), LogRegion(new, superblock)
        bounds = find_bounds(log)
        if bounds is None:
            return None
        last = list(log.records(bounds.tail, bounds.head, bounds.cycle, verify=False))[-1].header
        records, position = [], bounds.head
        while header := later.header(position, bounds.cycle + position // log.blocks):
            if header.tail_lsn != last.tail_lsn or not later.record(header):
                break
            records.append(header)
            position = header.end
        if not records:
            return None
        return Burst(
            before=before,
            after=after,
            start=superblock.block_offset(superblock.log_start),
            blocks=log.blocks,
            unit=int.from_bytes(old.read(_SECTOR_BYTES_AT, 2), "big") // SECTOR,
            records=tuple(records),
        )


def tear(burst: Burst, target: Path, kind: str, chance: random.Random) -> TornLog:
    """Make the image of a crash: the burst's records are whole up to some, of which sectors are missing."""
    first = _first_in_flight(burst, chance)
    flight = burst.records[first : first + _IN_FLIGHT]
    begin, end = flight[0].position, flight[-1].end
    old = TEARS[kind](burst, flight, range(begin, end, burst.unit), chance)
    burst.written(target, burst.records[0].position, end, old)
    missing = sorted(position for position in old if burst.changed(position))
    torn = next((record.position for record in flight if missing and missing[0] < record.end), end)
    return TornLog(
        image=target,
        head=flight[0].cycle * burst.blocks + begin % burst.blocks + torn - begin,
        what=f"{kind}: of blocks {begin} to {end} {missing} are missing, the log has {burst.blocks}",
    )


def _first_in_flight(burst: Burst, chance: random.Random) -> int:
    """The number of a record; where the burst goes around the log's end, of one shortly before it."""
    if burst.edge is None:
        return chance.randrange(len(burst.records))
    before = max(number for number, record in enumerate(burst.records) if record.position < burst.edge)
    return max(0, before - chance.randrange(_IN_FLIGHT - 1))


Tear = Callable[[Burst, tuple[RecordHeader, ...], range, random.Random], set[int]]


def _cut(burst: Burst, flight: tuple[RecordHeader, ...], sectors: range, chance: random.Random) -> set[int]:
    return set(sectors[chance.randrange(len(sectors)) :])


def _hole(burst: Burst, flight: tuple[RecordHeader, ...], sectors: range, chance: random.Random) -> set[int]:
    return {chance.choice(sectors)}


def _some(burst: Burst, flight: tuple[RecordHeader, ...], sectors: range, chance: random.Random) -> set[int]:
    share = chance.choice((0.05, 0.5, 0.95))
    return {position for position in sectors if chance.random() < share}


def _header(
    burst: Burst, flight: tuple[RecordHeader, ...], sectors: range, chance: random.Random
) -> set[int]:
    """The last header block of a record: it may say nothing that the checksum is over."""
    record = chance.choice(flight)
    block = record.position + record.headers - 1
    return {block - (block - sectors.start) % burst.unit}


def _last_block(
    burst: Burst, flight: tuple[RecordHeader, ...], sectors: range, chance: random.Random
) -> set[int]:
    """The last block of the log, though the first one was written again."""
    return _hole(burst, flight, sectors, chance) if burst.edge is None else {burst.edge - burst.unit}


def _first_block(
    burst: Burst, flight: tuple[RecordHeader, ...], sectors: range, chance: random.Random
) -> set[int]:
    return _hole(burst, flight, sectors, chance) if burst.edge is None else {burst.edge}


TEARS: dict[str, Tear] = {
    "a header block": _header,
    "the log's last block": _last_block,
    "some blocks": _some,
    "the log's first block": _first_block,
    "one block": _hole,
    "all from one block on": _cut,
}
