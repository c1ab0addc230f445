"""Cuts a source into units of work, and leaves out what is stored already."""

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import Any

from questdb_backup import keys
from questdb_backup.catalog import Catalog
from questdb_backup.codec import compress_text
from questdb_backup.collecting import rarely_collected
from questdb_backup.errors import SourceFileError
from questdb_backup.increment import Carried, carry_over, descends, spent_packs
from questdb_backup.leftovers import LeftUnit, left_of, left_units, place_of
from questdb_backup.manifest import Manifest, ShardRef, read_shard
from questdb_backup.services import logger
from questdb_backup.settled import Settled, SettledTable, encode_settled
from questdb_backup.source.base import GroupOutline, PlannedGroup, PlannedTable, Source
from questdb_backup.steps.run import Run
from questdb_backup.stores.base import ObjectStore
from questdb_backup.stores.writes import ParallelWrites
from questdb_backup.unit_cutting import Locate, cut_units, whole_file
from questdb_backup.units import PlannedItem, Unit, UnitGroup, UnitItem, encode_unit

Clone = Callable[[str], None]
"""Keeps a file of the root as it is now. Raises OSError where that cannot be done."""


class Planner:
    """Writes units, and gives the work list: ``{unit, attempt, bytes, first, last, cloned, units}`` for each.

    It holds one unit, and what the manifest says of the previous backup. ``largest`` is the bytes that no
    unit is to exceed.
    """

    def __init__(
        self,
        store: ObjectStore,
        run: Run,
        catalog: Catalog,
        base: Manifest | None,
        attempt: int,
        *,
        largest: int | None = None,
    ) -> None:
        self._store = store
        self._largest = largest
        self._run = run
        self._attempt = attempt
        self._tables = {table.table: table for table in base.tables} if base else {}
        self.spent = spent_packs(base, catalog.damaged_packs) if base else frozenset[str]()
        """Packs that are not referred to any more."""
        self._volumes: tuple[str, ...] = ()
        self._locate: Locate = whole_file
        self._left: list[LeftUnit] = list(left_units(store, run.instance, catalog, run.backup_timestamp))

    def read_from(self, volumes: tuple[str, ...], locate: Locate) -> None:
        """Let the workers read from EBS snapshots; ``locate`` tells where the files lie on them."""
        self._volumes, self._locate = volumes, locate

    def plan(
        self, origin: Source, settled: Settled, before: list[dict[str, Any]], clone: Clone | None = None
    ) -> list[dict[str, Any]]:
        """Everything that the checkpoint references; ``before`` is the work list of what is settled.

        ``clone`` is given each file that is to be read; where it raises OSError, all are read from the root.
        """
        run = self._run
        self._left += left_of(run.backup_timestamp, before)
        items = self._write(self.shares(origin, settled, len(before)), len(before), clone=clone)
        tables = _encode_tables(origin.tables())
        self._store.create(keys.plan_tables(run.instance, run.backup_timestamp, self._attempt), tables)
        return items

    def plan_settled(self, origin: Source) -> list[dict[str, Any]]:
        """What is settled and not in the previous backup, with an index of it for the plan proper."""
        run = self._run
        settled: Settled = {}
        items = self._write(self.settled_shares(origin, settled), 0, settled=True)
        key = keys.settled_index(run.instance, run.backup_timestamp, self._attempt)
        self._store.create(key, encode_settled(settled))
        return items

    def shares(self, origin: Source, settled: Settled, first: int) -> Iterator[tuple[UnitItem, ...]]:
        """What `plan` writes, unit by unit from number ``first`` on; nothing is written here."""
        return cut_units(self._everything(origin, settled), first, self._locate, largest=self._largest)

    def settled_shares(self, origin: Source, settled: Settled) -> Iterator[tuple[UnitItem, ...]]:
        """What `plan_settled` writes, unit by unit; noted in ``settled`` is which unit has what."""
        for number, share in enumerate(cut_units(self._settled(origin, settled), largest=self._largest)):
            _note(settled, share, number)
            yield share

    def _write(
        self,
        shares: Iterator[tuple[UnitItem, ...]],
        first: int,
        *,
        settled: bool = False,
        clone: Clone | None = None,
    ) -> list[dict[str, Any]]:
        run = self._run
        items: list[dict[str, Any]] = []
        with ParallelWrites(self._store) as writes, rarely_collected():
            for number, share in enumerate(shares, start=first):
                unit = self._unit(number, share, settled=settled)
                key = keys.unit(run.instance, run.backup_timestamp, number, self._attempt)
                writes.create(key, encode_unit(unit))
                clone = clone and _all_cloned(unit, clone)
                items.append(
                    {
                        "unit": number,
                        "attempt": self._attempt,
                        "bytes": unit.bytes,
                        "first": place_of(share[0]),
                        "last": place_of(share[-1], end=True),
                    }
                )
        for item in items:
            item |= {"cloned": clone is not None, "units": len(items)}
        return items

    def _everything(self, origin: Source, settled: Settled) -> Iterator[PlannedItem]:
        """The whole backup in order; only what may have changed gets its files listed."""
        for table, outlines in groupby(origin.outlines(), key=lambda outline: outline.table):
            before = settled.get(table)
            if before is not None and not descends(origin, before.facts):
                before = None
            for carried in self._carry_over(origin, table, outlines):
                if not isinstance(carried, GroupOutline):
                    yield carried
                elif before and (part := before.find(carried.partition, carried.signature)):
                    yield part
                else:
                    yield carried.plan()

    def _settled(self, origin: Source, settled: Settled) -> Iterator[PlannedGroup]:
        """Settled partitions that the previous backup does not have."""
        for facts, outlines in origin.settled():
            if facts.txnlog_record is None:
                continue  # it could not prove that it is the same history
            settled[facts.table] = SettledTable(facts)
            for carried in self._carry_over(origin, facts.table, outlines):
                if isinstance(carried, GroupOutline):
                    with suppress(SourceFileError):  # gone; the checkpoint has what came in its place
                        yield carried.plan()

    def _carry_over(self, origin: Source, table: str, outlines: Iterator[GroupOutline]) -> Iterable[Carried]:
        known = self._tables.get(table)
        if known is None or not descends(origin, known):
            return outlines
        return carry_over(outlines, known.shards, partial(read_shard, self._store), self.spent)

    def _unit(self, number: int, items: tuple[UnitItem, ...], *, settled: bool) -> Unit:
        """The unit, with where the chunks of what it reads may be stored already."""
        read = _read_of(items)
        if not read:
            return Unit(number=number, items=items, settled=settled, volumes=self._volumes)
        base = tuple(self._shards(read))
        first, last = place_of(items[0]), place_of(items[-1], end=True)
        return Unit(
            number=number,
            items=items,
            settled=settled,
            volumes=self._volumes,
            base=base,
            found=tuple((unit.run, unit.number) for unit in self._left if unit.overlaps(first, last)),
            spent=tuple(sorted(self.spent.intersection(name for shard in base for name in shard.packs))),
        )

    def _shards(self, read: dict[str, list[str]]) -> Iterator[ShardRef]:
        """Shards of the previous backup that hold one of the partitions."""
        for name, partitions in read.items():
            if name in self._tables:
                for shard in self._tables[name].shards:
                    at = bisect_left(partitions, shard.first)
                    if at < len(partitions) and partitions[at] <= shard.last and shard.key not in self.spent:
                        yield shard


def _all_cloned(unit: Unit, clone: Clone) -> Clone | None:
    try:
        for piece in unit.files_to_read():
            if piece.start == 0:  # of a file that is cut, every piece is read from the one clone
                clone(piece.file.path)
    except OSError as error:
        logger.debug("nothing is cloned, files are read while the checkpoint is held: %s", error)
        return None
    return clone


def _note(settled: Settled, share: tuple[UnitItem, ...], number: int) -> None:
    for item in share:
        if isinstance(item, UnitGroup):
            settled[item.table].note(item, number)


def _read_of(items: tuple[UnitItem, ...]) -> dict[str, list[str]]:
    """The partitions that are read, by table, in order."""
    found: dict[str, set[str]] = {}
    for item in items:
        if isinstance(item, UnitGroup):
            found.setdefault(item.table, set()).add(item.partition)
    return {table: sorted(partitions) for table, partitions in found.items()}


def _encode_tables(tables: Iterator[PlannedTable]) -> bytes:
    rows = (
        {
            "table": table.table,
            "name": table.name,
            "kind": table.kind,
            "last_txn": table.last_txn,
            "txnlog_record": table.txnlog_record,
            "rows": table.rows,
        }
        for table in tables
    )
    return compress_text(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
