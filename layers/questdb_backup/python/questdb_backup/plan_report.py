"""What the next backup would read and store: the planner's own decisions, added up instead of written.

One unit is held at a time, and a number of counters for each table.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

from questdb_backup.catalog import BackupRow, Catalog
from questdb_backup.clock import seconds_between
from questdb_backup.manifest import Group, KeptShard, Manifest, TableRef
from questdb_backup.packs import PACK_BYTES
from questdb_backup.planner import Planner
from questdb_backup.retention import KeepLatest, StatusRow, plan_retention
from questdb_backup.shards import ShardCutter
from questdb_backup.source.base import EntryKind, Source
from questdb_backup.units import SettledPart, UnitGroup, UnitItem
from questdb_backup.words import BackupStatus

_ENOUGH_BYTES = 64 << 20
"""Of a backup that read less, the time says nothing about the next one."""
_PUTS_OF_A_RUN = 12
"""Lists and facts of the plan, manifest, and the swaps of the catalog."""
_PUTS_OF_A_REMOVAL = 3


@dataclass(slots=True, kw_only=True)
class TablePlan:
    """A table in the plan; the table "" has the root's own files.

    ``directory`` is its folder below ``db``. ``partitions`` counts the `partitions_unchanged` too,
    ``bytes`` what is kept of them and the `bytes_to_read`.
    """

    table: str
    directory: str
    kind: str
    partitions: int = 0
    partitions_unchanged: int = 0
    files: int = 0
    bytes: int = 0
    bytes_to_read: int = 0


@dataclass(slots=True, kw_only=True)
class Totals:
    """What of the plan is not a table's: ``reading`` of the ``units`` have something to read."""

    units: int = 0
    reading: int = 0
    shards: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """The answer of the verb `plan` for one machine.

    Estimates are None where nothing is known to derive them from. ``exact``: it was read under a
    checkpoint. ``refused``: why a backup would not begin now.
    """

    instance: str | None
    source: str
    exact: bool
    tables: tuple[TablePlan, ...]
    totals: Totals
    previous: str | None
    bytes_to_store: int | None
    puts: int
    seconds: float | None
    removed: tuple[dict[str, Any], ...]
    refused: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def sum(self, name: str) -> int:
        """A counter of all tables together."""
        return sum(getattr(table, name) for table in self.tables)

    def to_json(self) -> dict[str, Any]:
        """The JSON of `plan`."""
        counted = ("partitions", "partitions_unchanged", "files", "bytes", "bytes_to_read")
        return {
            "backup_instance_name": self.instance,
            "source": self.source,
            "exact": self.exact,
            "tables": [asdict(table) for table in self.tables],
            **{name: self.sum(name) for name in counted},
            "bytes_to_store_estimate": self.bytes_to_store,
            "units": self.totals.units,
            "put_requests_estimate": self.puts,
            "duration_seconds_estimate": self.seconds,
            "previous": self.previous,
            "retention": {"remove": list(self.removed)},
            "refused": list(self.refused),
            "warnings": list(self.warnings),
        }


class Measure:
    """Adds up what a planner would write. `settled` comes first, where the run would have that pass."""

    def __init__(self, planner: Planner, origin: Source) -> None:
        self._planner = planner
        self._origin = origin
        self._tables: dict[str, TablePlan] = {}
        self._settled: dict[str, Any] = {}
        self._last: tuple[str, str] | None = None
        self.totals = Totals()

    def settled(self) -> None:
        """What would be stored before the checkpoint."""
        for share in self._planner.settled_shares(self._origin, self._settled):
            self._count_unit(share)
            for item in share:
                self._read(item)

    def everything(self) -> None:
        """What the checkpoint would have beside that."""
        shares = self._planner.shares(self._origin, self._settled, self.totals.units)
        for _, items in groupby(self._counted(shares), key=lambda item: item.table):
            cutter = ShardCutter(write=self._count_shard, known={})
            for item in items:
                for _shard in cutter.take(_without_files(item)):
                    pass
            cutter.finish()

    def tables(self) -> tuple[TablePlan, ...]:
        """Every table under the name that users know, those with the most to read first."""
        for table in self._origin.tables():
            if known := self._tables.get(table.table):
                known.table, known.kind = table.name, table.kind
        return tuple(sorted(self._tables.values(), key=lambda each: (-each.bytes_to_read, each.directory)))

    def _counted(self, shares: Iterable[tuple[UnitItem, ...]]) -> Iterator[UnitItem]:
        """The items; what one is a part of with the item before is given once."""
        for share in shares:
            self._count_unit(share)
            for item in share:
                if self._take(item):
                    yield item

    def _count_unit(self, share: tuple[UnitItem, ...]) -> None:
        self.totals.units += 1
        self.totals.reading += any(isinstance(item, UnitGroup) for item in share)

    def _take(self, item: UnitItem) -> bool:
        """Count the item; False where it goes on with the partition before."""
        table = self._table(item.table)
        if isinstance(item, KeptShard):
            shard = item.shard
            partitions = shard.groups - (shard.first == "")
            _keep(table, partitions, shard.files, shard.bytes)
            return True
        if isinstance(item, Group):
            sizes = [entry.size for entry in item.entries if entry.kind == "f"]
            _keep(table, 1, len(sizes), sum(sizes))
            return True
        self._read(item)
        place = item.table, item.partition
        if place == self._last:
            return False
        self._last = place
        table.partitions += item.partition != ""
        return True

    def _read(self, item: UnitItem) -> None:
        if not isinstance(item, UnitGroup):
            return
        table = self._table(item.table)
        table.bytes += item.bytes
        table.bytes_to_read += item.bytes
        table.files += sum(1 for piece in item.files if piece.file.kind is EntryKind.FILE and not piece.start)

    def _table(self, directory: str) -> TablePlan:
        if directory not in self._tables:
            kind = "unknown" if directory else "root"
            self._tables[directory] = TablePlan(table=directory, directory=directory, kind=kind)
        return self._tables[directory]

    def _count_shard(self, digest: str, _plain: bytes) -> str:
        self.totals.shards += 1
        return digest


def _keep(table: TablePlan, partitions: int, files: int, size: int) -> None:
    table.partitions += partitions
    table.partitions_unchanged += partitions
    table.files += files
    table.bytes += size


def _without_files(item: UnitItem) -> Group | KeptShard:
    """What the shards are cut by; the chunks are not known yet."""
    if isinstance(item, KeptShard):
        return item
    assert isinstance(item, Group | UnitGroup | SettledPart), "the other kinds of items"
    return Group(table=item.table, partition=item.partition, signature=None, entries=())


def estimate_stored(tables: Iterable[TablePlan], base: Manifest | None) -> int | None:
    """What is to be read, as small as the previous backup stored the same table, or all of them.

    Mostly too much: what is found to be stored already when it is read is not taken off. Too little where
    new rows compress worse than the old ones. None without a previous backup.
    """
    if base is None:
        return None
    ratios = {table.table: ratio for table in base.tables if (ratio := _ratio((table,))) is not None}
    overall = _ratio(base.tables)
    if overall is None:
        return None
    return round(sum(table.bytes_to_read * ratios.get(table.directory, overall) for table in tables))


def _ratio(tables: Iterable[TableRef]) -> float | None:
    """Stored bytes for each plain one."""
    shards = [shard for table in tables for shard in table.shards]
    plain = sum(shard.bytes for shard in shards)
    return sum(sum(shard.packs.values()) for shard in shards) / plain if plain else None


def estimate_puts(totals: Totals, stored: int, removed: int) -> int:
    """Objects that the run would write: packs, two for each unit, shards, and what every run has."""
    packs = totals.reading + stored // PACK_BYTES
    return packs + 2 * totals.units + totals.shards + _PUTS_OF_A_RUN + _PUTS_OF_A_REMOVAL * removed


def estimate_seconds(catalog: Catalog, bytes_to_read: int) -> float | None:
    """As fast as the newest backup that read enough to tell; None where there is none."""
    for row in reversed(catalog.complete_rows()):
        read = row.counters.get("bytes_read", 0)
        took = seconds_between(row.start_ts, row.end_ts) if row.end_ts else 0.0
        if read >= _ENOUGH_BYTES and took > 0:
            return round(bytes_to_read * took / read, 1)
    return None


def removed_after(rows: Iterable[StatusRow], keep: int, now: str) -> tuple[dict[str, Any], ...]:
    """What retention would remove once a backup of ``now`` is complete; ``rows`` as in the catalog."""
    complete = BackupRow(backup_timestamp=now, status=BackupStatus.BACKUP_COMPLETE, start_ts=now)
    plan = plan_retention((*rows, complete), KeepLatest(n=keep), now)
    return tuple(
        {"backup_timestamp": gone.backup_timestamp, "reasons": list(gone.reasons)} for gone in plan.remove
    )
