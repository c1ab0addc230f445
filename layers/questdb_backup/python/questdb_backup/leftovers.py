"""What dead runs left: chunks that they stored, found through their plans and results.

A run that died is in the catalog until a prune tombstones what it wrote. Until then its packs are as good
as any: the next run refers to their chunks by digest, and so loses only the units that were under way.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from questdb_backup import keys
from questdb_backup.catalog import Catalog
from questdb_backup.errors import ObjectNotFoundError
from questdb_backup.manifest import KeptShard
from questdb_backup.services import logger
from questdb_backup.stores.base import ObjectStore
from questdb_backup.units import UnitItem, UnitResult, decode_result

ATTEMPTS = 26
"""A unit is tried once and retried five times, and up to twenty times Lambda lets it wait: see Retry in the
state machine. One count goes on through all of these."""

Place = tuple[bool, str, str]
"""Where in the order of a plan something stands; the root's own files, of table "", come last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftUnit:
    """A unit in a dead run's plan, whether or not it was done."""

    run: str
    number: int
    first: Place
    last: Place

    def overlaps(self, first: Place, last: Place) -> bool:
        """Whether both hold some of the same stretch."""
        return self.first <= last and first <= self.last


def place_of(item: UnitItem, *, end: bool = False) -> Place:
    """Where an item begins, or ends."""
    if isinstance(item, KeptShard):
        return False, item.table, item.shard.last if end else item.shard.first
    return item.table == "", item.table, item.partition


def left_units(store: ObjectStore, instance: str, catalog: Catalog, current: str) -> Iterator[LeftUnit]:
    """The units of runs that died and of which nothing is set for deletion."""
    gone = {stone.removed for stone in catalog.tombstones}
    for record in catalog.runs:
        if record.published or record.run == current or record.run in gone:
            continue
        yield from left_of(record.run, work_list(store, instance, record.run))


def left_of(run: str, items: list[dict[str, Any]]) -> Iterator[LeftUnit]:
    """The units of a work list."""
    for item in items:
        first, last = _place(item["first"]), _place(item["last"])
        yield LeftUnit(run=run, number=item["unit"], first=first, last=last)


def work_list(store: ObjectStore, instance: str, run: str) -> list[dict[str, Any]]:
    """Every unit of a run that is known: what it settled, and what its checkpoint had.

    A damaged list is scratch like any other, and keeps nobody from going on.
    """
    items: list[dict[str, Any]] = []
    for key in (keys.settled_plan(instance, run), keys.plan(instance, run)):
        if found := store.read(key):
            try:
                items += json.loads(found.data)
            except ValueError as error:
                logger.warning("what %s lists is left to `check`, it cannot be read: %s", key, error)
    return items


def _place(value: Any) -> Place:
    late, table, partition = value
    return bool(late), str(table), str(partition)


def read_result(store: ObjectStore, instance: str, run: str, number: int) -> UnitResult | None:
    """The result of a unit's lowest attempt; None where none was finished.

    Attempts write packs of their own, so any of them is whole.
    """
    for attempt in range(ATTEMPTS):
        try:
            return decode_result(store.get(keys.result(instance, run, number, attempt)))
        except ObjectNotFoundError:
            continue
    return None
