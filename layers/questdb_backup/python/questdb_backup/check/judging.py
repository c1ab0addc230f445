"""What each object of an instance is: needed, waiting for its deletion, of a live run, or left over."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from questdb_backup import keys
from questdb_backup.catalog import BackupRow, Catalog, Tombstone
from questdb_backup.check.inventory import SHOWN, Inventory, Item, Name, Tally, Why
from questdb_backup.check.report import InstanceReport
from questdb_backup.check.shapes import SCRATCH, Kind
from questdb_backup.clock import add_seconds
from questdb_backup.errors import DamagedBackupError, ObjectNotFoundError, UnsupportedFormatError
from questdb_backup.manifest import Manifest
from questdb_backup.restore.point import read_point
from questdb_backup.stores.base import ObjectStore
from questdb_backup.units import decode_result

FAULTS = (DamagedBackupError, UnsupportedFormatError, ObjectNotFoundError)
_PRUNED_WITH_A_RECORD = {*SCRATCH, Kind.MANIFEST}


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """The catalog before the listing and after it: only what both list must be there."""

    before: Catalog
    after: Catalog

    def steady_rows(self) -> list[BackupRow]:
        """Backups that were complete all the time."""
        then = {row.backup_timestamp: row.manifest for row in self.before.complete_rows()}
        return [row for row in self.after.complete_rows() if then.get(row.backup_timestamp) == row.manifest]

    def moving_rows(self) -> list[BackupRow]:
        """Backups that were published or removed meanwhile."""
        steady = {row.backup_timestamp for row in self.steady_rows()}
        rows = [*self.before.complete_rows(), *self.after.complete_rows()]
        return [row for row in rows if row.backup_timestamp not in steady]

    def live_runs(self) -> set[str]:
        """Runs that hold the lease, or began during the listing."""
        leases = (self.before.lease, self.after.lease)
        held = {lease.run for lease in leases if lease and lease.run}
        return held | (self.known_runs() - {row.backup_timestamp for row in self.before.rows})

    def known_runs(self) -> set[str]:
        """Runs that have a row: the catalog keeps it whatever becomes of the backup."""
        return {row.backup_timestamp for row in (*self.before.rows, *self.after.rows)}

    def records(self) -> set[str]:
        """Runs whose scratch prune is going to remove."""
        return {record.run for record in (*self.before.runs, *self.after.runs)}

    def tombstones(self) -> set[Tombstone]:
        """Everything that waits, or did a moment ago."""
        return {*self.before.tombstones, *self.after.tombstones}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grace:
    """Orphans of runs younger than this stay: a worker of theirs may still write."""

    now: str
    seconds: float

    def is_over(self, run: str | None) -> bool:
        """Whether what the run left may go; what has no run is of the holder of an older lease."""
        return run is None or add_seconds(run, self.seconds) <= self.now


def judge(
    store: ObjectStore, inventory: Inventory, instance: str, views: Views, grace: Grace
) -> InstanceReport:
    """Judge every object of the instance. Raise StoreUnavailableError and the like."""
    report = InstanceReport(instance=instance, damaged_packs=views.after.damaged_packs)
    _name_backups(store, inventory, instance, views, report)
    _name_waiting(store, inventory, instance, views, report)
    inventory.compare(keys.instance_prefix(instance))
    for key, what in inventory.damaged(keys.instance_prefix(instance)):
        report.damaged += 1
        if report.damaged <= SHOWN:
            report.problems.append(f"{key} {what}; a backup needs it")
    _sort(inventory, instance, Sorter(views, grace), report)
    return report


class Place(Enum):
    """Where an object belongs."""

    NEEDED = auto()  # by a listed backup, or the catalog itself
    LIVE = auto()  # of the run under way
    WAITING = auto()  # the next prunes delete it
    LOST = auto()  # of a run that the catalog should know
    ORPHAN = auto()
    YOUNG = auto()  # an orphan within its grace


class Sorter:
    """Tells where each object belongs."""

    def __init__(self, views: Views, grace: Grace) -> None:
        self._live = views.live_runs()
        self._known = views.known_runs()
        self._newest = max(self._known, default="")
        self._records = views.records()
        self._grace = grace

    def place(self, item: Item, why: Why | None) -> Place:
        """``why``: what names the object, None where nothing does."""
        if item.kind is Kind.CATALOG or why in (Why.BACKUP, Why.MOVING):
            return Place.NEEDED
        if item.run in self._live:
            return Place.LIVE
        if why is not None or (item.run in self._records and item.kind in _PRUNED_WITH_A_RECORD):
            return Place.WAITING
        if self._is_lost(item):
            return Place.LOST
        return Place.ORPHAN if self._grace.is_over(item.run) else Place.YOUNG

    def _is_lost(self, item: Item) -> bool:
        """Every run has a row before it writes, and keeps it: without one the catalog is not the one it was.

        A rebuilt catalog has rows of manifests and scratch only, so packs of old runs prove nothing.
        """
        if item.run is None or item.run in self._known:
            return False
        return item.kind is Kind.MANIFEST or item.run > self._newest


def _sort(inventory: Inventory, instance: str, sorter: Sorter, report: InstanceReport) -> None:
    tallies = {
        Place.LIVE: report.live,
        Place.WAITING: report.waiting,
        Place.ORPHAN: report.orphans,
        Place.YOUNG: report.young,
    }
    lost = Tally()
    for item, why in inventory.with_reasons(instance):
        place = sorter.place(item, why)
        if place is Place.LOST:
            lost.add(item.key, item.size)
        if place is Place.LOST or (not report.judged and place in (Place.ORPHAN, Place.YOUNG)):
            report.unjudged.add(item.key, item.size)
        elif place is not Place.NEEDED:
            tallies[place].add(item.key, item.size)
    if lost.objects:
        report.judged = False
        report.unjudged = report.unjudged + report.orphans + report.young
        report.orphans, report.young = Tally(), Tally()
        report.problems.append(
            f"{keys.catalog(instance)} does not know the runs of {lost.objects} objects, say {lost.keys[0]}:"
            " it was lost, or an older version was put back;"
            " `questdb-backup check --rebuild --force --dry-run` shows what can be listed again"
        )


def _name_backups(
    store: ObjectStore, inventory: Inventory, instance: str, views: Views, report: InstanceReport
) -> None:
    for row in views.steady_rows():
        assert row.manifest is not None, "complete rows have one"
        inventory.name([Name(row.manifest.key, row.manifest.size, row.manifest.digest)], Why.BACKUP)
        try:
            manifest = read_point(store, instance, row)
        except FAULTS as error:
            report.judged = False
            inventory.damage(row.manifest.key, f"cannot be used: {error}")
            continue
        inventory.name(names_of(instance, manifest), Why.BACKUP)
    for row in views.moving_rows():
        assert row.manifest is not None, "complete rows have one"
        inventory.name([Name(row.manifest.key)], Why.MOVING)
        try:
            inventory.name(names_of(instance, read_point(store, instance, row)), Why.MOVING)
        except FAULTS:  # removed a moment ago: its tombstone has the names
            continue


def names_of(instance: str, manifest: Manifest) -> Iterator[Name]:
    """What a backup needs beside its manifest; sizes of packs are known, those of shards are not."""
    for name, info in manifest.packs.items():
        yield Name(keys.pack(instance, name), info.size, info.digest)
    for table in manifest.tables:
        for shard in table.shards:
            yield Name(shard.key)


def _name_waiting(
    store: ObjectStore, inventory: Inventory, instance: str, views: Views, report: InstanceReport
) -> None:
    for stone in views.tombstones():
        if stone.manifest:
            inventory.name([Name(stone.manifest)], Why.WAITING)
        if stone.names_key:
            inventory.name([Name(stone.names_key)], Why.WAITING)
        try:
            inventory.name((Name(name) for name in _waiting_names(store, stone)), Why.WAITING)
        except DamagedBackupError as error:
            report.problems.append(str(error))
    dead = views.records() - views.live_runs()
    for item in inventory.items(instance, Kind.RESULT):
        if item.run in dead:
            _name_result(store, inventory, instance, item, report)


def _waiting_names(store: ObjectStore, stone: Tombstone) -> list[str]:
    """The names of a tombstone. Raise DamagedBackupError; its absence is the end of a prune that died."""
    if stone.names_key is None:
        return list(stone.names)
    try:
        names = json.loads(store.get(stone.names_key))
    except ObjectNotFoundError:
        return []
    except ValueError as error:
        raise DamagedBackupError(f"tombstone {stone.names_key} cannot be read: {error!r}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DamagedBackupError(f"tombstone {stone.names_key} is no list of keys")
    return names


def _name_result(
    store: ObjectStore, inventory: Inventory, instance: str, item: Item, report: InstanceReport
) -> None:
    try:
        packs = decode_result(store.get(item.key)).packs
    except FAULTS as error:  # scratch: whoever would have used its chunks reads the files again
        report.notes.append(f"{item.key}: {error}")
        return
    inventory.name((Name(keys.pack(instance, name)) for name in packs), Why.DEAD_RUN)
