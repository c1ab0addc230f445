"""What of a file has not moved and not been written since the snapshot of the previous backup.

Two snapshots of one volume, the blocks that ListChangedBlocks names, and the file's extents in both:
where a stretch of the file lies at the same place of the disk, and no block there has changed, its
bytes are those that the previous backup stored. No mtime and no size is asked: a write through a
memory map changes neither, but it changes a block.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from questdb_backup.ebs.base import BLOCK_BYTES
from questdb_backup.errors import (
    ConfigurationError,
    DamagedBackupError,
    DamagedVolumeError,
    SnapshotError,
    SourceFileError,
    UnsupportedVolumeError,
)
from questdb_backup.manifest import Entry, Group, ShardRef, TableRef
from questdb_backup.packs import ChunkRef
from questdb_backup.services import logger
from questdb_backup.source.base import EntryKind, PlannedFile, PlannedGroup
from questdb_backup.unit_cutting import cut_extents, cut_piece
from questdb_backup.units import DiskExtent, UnitFile
from questdb_backup.volumes.tree import VolumeTree

Range = tuple[int, int]
"""First byte, and the byte behind the last."""

NOT_COMPARED = (
    SourceFileError,
    DamagedVolumeError,
    UnsupportedVolumeError,
    ConfigurationError,  # a mount's name that meant nothing yet
)
"""What is wrong with the previous backup's volumes: no reason to fail, what they held is read again."""


class ChangedBlocks:
    """Block indexes of one volume, ascending: a few bytes each, however many there are."""

    def __init__(self, indexes: Iterable[int]) -> None:
        self._indexes = array("Q", indexes)

    def __len__(self) -> int:
        return len(self._indexes)

    def __contains__(self, index: object) -> bool:
        assert isinstance(index, int), "a block's index"
        at = bisect_left(self._indexes, index)
        return at < len(self._indexes) and self._indexes[at] == index

    def unchanged(self, offset: int, length: int) -> Iterator[Range]:
        """What of these bytes of the disk lies in blocks that have not changed."""
        start, end = offset, offset + length
        for at in range(bisect_left(self._indexes, offset // BLOCK_BYTES), len(self._indexes)):
            first = self._indexes[at] * BLOCK_BYTES
            if first >= end:
                break
            if start < first:
                yield start, first
            start = first + BLOCK_BYTES
        if start < end:
            yield start, end


def unchanged_ranges(
    new: Sequence[DiskExtent], old: Sequence[DiskExtent], changed: Sequence[ChangedBlocks], size: int
) -> list[Range]:
    """The ranges of a file's first ``size`` bytes that hold what they held before, ascending and joined.

    ``new`` and ``old`` are its extents in both snapshots; ``changed`` is by volume. A hole in both is
    unchanged too; what stands in an inode or a journal counts as changed.
    """
    found: list[Range] = []
    for first, last, now, then in _side_by_side(new, old, size):
        if now is None and then is None:
            _add(found, first, last)
        elif now is not None and then is not None and _same_place(now, then):
            offset = now.offset + first - now.start
            for start, end in changed[now.volume].unchanged(offset, last - first):
                _add(found, first + start - offset, first + end - offset)
    return found


def _same_place(now: DiskExtent, then: DiskExtent) -> bool:
    return (
        now.data is None
        and then.data is None
        and now.volume == then.volume
        and now.offset - now.start == then.offset - then.start
    )


def _side_by_side(
    new: Sequence[DiskExtent], old: Sequence[DiskExtent], size: int
) -> Iterator[tuple[int, int, DiskExtent | None, DiskExtent | None]]:
    """The file cut at every edge of either map: first, last, and what each of them has there."""
    edges = {0, size}
    for extent in (*new, *old):
        edges.update(edge for edge in (extent.start, extent.start + extent.length) if edge < size)
    points = sorted(edges)
    now, then = _Cursor(new), _Cursor(old)
    for first, last in pairwise(points):
        yield first, last, now.at(first), then.at(first)


class _Cursor:
    """The extent at a position that only grows."""

    def __init__(self, extents: Sequence[DiskExtent]) -> None:
        self._extents = extents
        self._next = 0

    def at(self, position: int) -> DiskExtent | None:
        extents = self._extents
        while self._next < len(extents) and _end(extents[self._next]) <= position:
            self._next += 1
        if self._next < len(extents) and extents[self._next].start <= position:
            return extents[self._next]
        return None


def _end(extent: DiskExtent) -> int:
    return extent.start + extent.length


def _add(ranges: list[Range], first: int, last: int) -> None:
    if ranges and ranges[-1][1] == first:
        first = ranges.pop()[0]
    ranges.append((first, last))


def kept_stretches(
    chunks: Iterable[ChunkRef], ranges: Sequence[Range], spent: frozenset[str]
) -> Iterator[tuple[int, tuple[ChunkRef, ...]]]:
    """Runs of stored chunks that lie wholly in unchanged ranges: where each begins, and its chunks."""
    kept: list[ChunkRef] = []
    start = position = 0
    ends = iter(ranges)
    current = next(ends, None)
    for chunk in chunks:
        end = position + chunk.plain
        while current is not None and current[1] < end:
            current = next(ends, None)
        if current is not None and current[0] <= position and chunk.pack not in spent:
            if not kept:
                start = position
            kept.append(chunk)
        elif kept:
            yield start, tuple(kept)
            kept = []
        position = end
    if kept:
        yield start, tuple(kept)


@dataclass(slots=True)
class KnownFiles:
    """The previous backup's entries by path, group by group; holds the groups of one shard."""

    tables: Mapping[str, TableRef]
    read: Callable[[ShardRef], Iterable[Group]]
    _shard: ShardRef | None = None
    _groups: dict[str, Group] = field(default_factory=dict)
    _place: tuple[str, str] | None = None
    _entries: dict[str, Entry] = field(default_factory=dict)

    def find(self, group: PlannedGroup, path: str) -> Entry | None:
        """The entry of that path in the group as it was; None where there was none."""
        place = group.table, group.partition
        if self._place != place:
            known = self._group(*place)
            self._place = place
            self._entries = {entry.path: entry for entry in known.entries} if known else {}
        return self._entries.get(path)

    def _group(self, table: str, partition: str) -> Group | None:
        known = self.tables.get(table)
        for shard in known.shards if known else ():
            if shard.first <= partition <= shard.last:
                if self._shard is not shard:
                    self._shard, self._groups = shard, self._load(shard)
                if (group := self._groups.get(partition)) is not None:
                    return group
        return None

    def _load(self, shard: ShardRef) -> dict[str, Group]:
        try:
            return {group.partition: group for group in self.read(shard)}
        except DamagedBackupError as error:
            logger.warning("its files are read again: %s", error)
            return {}


@dataclass(slots=True, kw_only=True)
class Locator:
    """Gives the pieces of each planned file: kept chunks where nothing changed, else where to read.

    ``base`` is the root in the previous backup's snapshots, None where there are none any more: then
    everything is read, and chunks are found again by their digests.
    """

    tree: VolumeTree
    base: VolumeTree | None = None
    changed: Sequence[ChangedBlocks] = ()
    known: KnownFiles | None = None
    spent: frozenset[str] = frozenset()

    def pieces(self, group: PlannedGroup, file: PlannedFile) -> Iterable[UnitFile]:
        """As `Locate` says."""
        if file.kind is not EntryKind.FILE or file.size == 0:
            return (UnitFile(file=file),)
        extents = cut_extents(self.tree.extents(file.path), 0, file.size)
        if self.base is None:
            return (UnitFile(file=file, extents=extents),)
        return self._compared(group, file, extents)

    def _compared(
        self, group: PlannedGroup, file: PlannedFile, extents: tuple[DiskExtent, ...]
    ) -> Iterator[UnitFile]:
        whole, position = UnitFile(file=file, extents=extents), 0
        for start, chunks in self._kept(group, file, extents):
            if position < start:
                yield cut_piece(whole, position, start)
            position = start + sum(chunk.plain for chunk in chunks)
            yield UnitFile(file=file._replace(size=position), start=start, kept=chunks)
        if position < file.size:
            yield cut_piece(whole, position, file.size)

    def _kept(
        self, group: PlannedGroup, file: PlannedFile, extents: tuple[DiskExtent, ...]
    ) -> Iterator[tuple[int, tuple[ChunkRef, ...]]]:
        if self.base is None or self.known is None:
            return
        entry = self.known.find(group, file.path)
        if entry is None or not entry.chunks:
            return
        try:
            if self.base.stat(file.path).size < entry.size:
                return
            before = cut_extents(self.base.extents(file.path), 0, entry.size)
        except OSError:
            return  # it was not there, or somewhere else
        except NOT_COMPARED as error:
            logger.info("%s is read again, it cannot be compared: %s", file.path, error)
            return
        except SnapshotError as error:
            logger.warning("what follows is read again: %s", error)
            self.base = None
            return
        size = min(entry.size, file.size)
        ranges = unchanged_ranges(extents, before, self.changed, size)
        yield from kept_stretches(entry.chunks, ranges, self.spent)
