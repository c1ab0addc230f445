"""CompleteBackup: results become shards, shards a manifest, and the catalog's swap the commit."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any

from questdb_backup import keys
from questdb_backup.catalog import BackupRow, Catalog, ManifestRef, Tombstone, publish
from questdb_backup.catalog_store import read_catalog, update_catalog
from questdb_backup.clock import seconds_between
from questdb_backup.codec import compress_text, decompress_text, digest_of
from questdb_backup.ebs.base import VolumeSnapshot
from questdb_backup.ebs.cost import estimated_dollars
from questdb_backup.errors import (
    DamagedBackupError,
    ObjectNotFoundError,
    ObjectTombstonedError,
    SourceFileError,
)
from questdb_backup.increment import needed_bytes
from questdb_backup.instances import data_id_of
from questdb_backup.leftovers import read_result
from questdb_backup.manifest import (
    Group,
    KeptShard,
    Manifest,
    ShardRef,
    TableRef,
    encode_manifest,
    read_manifest,
)
from questdb_backup.packs import PackInfo
from questdb_backup.questdb.base import Fence
from questdb_backup.services import Services, logger
from questdb_backup.shards import ShardCutter, merge_groups
from questdb_backup.steps.run import Run, check_lease
from questdb_backup.stores.base import ObjectStore
from questdb_backup.stores.writes import ParallelWrites
from questdb_backup.units import SettledPart, UnitResult


def complete_backup(
    services: Services,
    run: Run,
    source: str,
    plan: dict[str, Any],
    server_version: str | None,
    fence: Fence,
    release: dict[str, Any] | None,
    snapshots: tuple[VolumeSnapshot, ...] = (),
) -> dict[str, Any]:
    """Publish the backup; give its row. Doing it again is a success. Raise LeaseLostError."""
    known = read_catalog(services.store, run.instance).row(run.backup_timestamp)
    if known is None or known.manifest is None:
        catalog = check_lease(services, run)
        run = replace(run, data_id=run.data_id or data_id_of(services.store, run.instance))
        manifest = _build(services, run, source, plan, server_version, fence, release, catalog, snapshots)
        known = _publish(services, run, manifest)
    if release is not None:
        services.status.record_fence(run.instance, run.backup_timestamp, run.token, Fence())
    services.clones.clear()
    _emit(services, known)
    return backup_to_json(run.instance, known)


def backup_to_json(instance: str, row: BackupRow) -> dict[str, Any]:
    """A complete backup as the workflow's output: the JSON of the verb `backup`."""
    return {
        "backup_timestamp": row.backup_timestamp,
        "backup_instance_name": instance,
        "status": row.status,
        **row.counters,
    }


def _emit(services: Services, row: BackupRow) -> None:
    add = services.metrics.add
    add("BackupSucceeded", 1, "Count")
    add("BackupAgeSeconds", 0, "Seconds")
    if row.end_ts:
        add("DurationSeconds", seconds_between(row.start_ts, row.end_ts), "Seconds", Phase="backup")
    for metric, counter in (
        ("BytesRead", "bytes_read"),
        ("BytesStored", "bytes_stored"),
        ("BytesReused", "bytes_reused"),
    ):
        add(metric, row.counters.get(counter, 0), "Bytes")


def _build(
    services: Services,
    run: Run,
    source: str,
    plan: dict[str, Any],
    server_version: str | None,
    fence: Fence,
    release: dict[str, Any] | None,
    catalog: Catalog,
    snapshots: tuple[VolumeSnapshot, ...],
) -> Manifest:
    base = _previous(services.store, catalog, plan["previous"])
    planned = _planned_tables(services.store, run, int(plan["attempt"]))
    with ParallelWrites(services.store) as writes:
        collector = _Collector(services.store, writes, run, _units(plan), base)
        tables = tuple(collector.tables(planned))
    counters: dict[str, float] = dict(collector.counters)
    counters["tables"] = sum(1 for table in tables if table.table)
    counters["files"] = sum(shard.files for table in tables for shard in table.shards)
    counters["bytes"] = sum(shard.bytes for table in tables for shard in table.shards)
    if release and release.get("held_seconds") is not None:
        counters["checkpoint_held_seconds"] = float(release["held_seconds"])
    if source == "ebs":
        _count_costs(counters, plan, collector.shards_written)
    needed = needed_bytes(tables)
    counters["bytes_wasted"] = sum(max(0, info.size - needed[name]) for name, info in collector.packs.items())
    return Manifest(
        backup_timestamp=run.backup_timestamp,
        backup_instance_name=run.instance,
        token=run.token,
        source=source,
        server_version=server_version,
        data_id=run.data_id,
        checkpoint_started_at=fence.started_at,
        previous=base.backup_timestamp if base else None,
        tables=tables,
        packs=dict(sorted(collector.packs.items())),
        counters=counters,
        snapshots=snapshots,
        server_root=plan.get("server_root"),
    )


def _count_costs(counters: dict[str, float], plan: dict[str, Any], shards: int) -> None:
    """Add what planning and publishing asked for, and what all of it costs."""
    for name, value in plan.get("counters", {}).items():
        counters[name] = counters.get(name, 0) + value
    counters["put_requests"] = counters.get("put_requests", 0) + shards + 2  # manifest and catalog
    counters["estimated_dollars"] = estimated_dollars(counters, int(plan["units"]))


def _previous(store: ObjectStore, catalog: Catalog, timestamp: str | None) -> Manifest | None:
    """The backup that the plan builds upon."""
    if timestamp is None:
        return None
    row = catalog.row(timestamp)
    if row is None or row.manifest is None:
        raise DamagedBackupError(f"the backup of {timestamp} went during the run", "start the backup again")
    return read_manifest(store, row.manifest)


def _units(plan: dict[str, Any]) -> range:
    """The numbers of the plan's units; those before are of what was settled."""
    first = int(plan["first"])
    return range(first, first + int(plan["units"]))


class _Collector:
    """Streams the results of all units, in order, into shards; holds one shard at a time."""

    def __init__(
        self, store: ObjectStore, writes: ParallelWrites, run: Run, units: range, base: Manifest | None
    ) -> None:
        self._store = store
        self._writes = writes
        self._run = run
        self._units = units
        self._counted: set[int] = set()
        self._settled_unit = -1
        self._settled: dict[tuple[str, str], list[Group]] = {}
        self._known_packs = dict(base.packs) if base else {}
        self._known_shards = {
            table.table: {shard.digest: shard.key for shard in table.shards}
            for table in (base.tables if base else ())
        }
        self.packs: dict[str, PackInfo] = {}
        self.counters: dict[str, int] = {}
        self.shards_written = 0

    def tables(self, planned: dict[str, dict[str, Any]]) -> Iterator[TableRef]:
        """Every table with its shards."""
        for name, items in groupby(merge_groups(self._items()), key=lambda item: item.table):
            facts = planned.get(name, {"table": name, "name": "", "kind": "root"})
            yield TableRef(**facts, shards=tuple(self._shards(name, items)))

    def _shards(self, table: str, items: Iterator[Group | KeptShard]) -> Iterator[ShardRef]:
        cutter = ShardCutter(write=self._write_shard, known=self._known_shards.get(table, {}))
        for item in items:
            for shard in cutter.take(item):
                self._note_packs(shard)
                yield shard
        if last := cutter.finish():
            self._note_packs(last)
            yield last

    def _write_shard(self, digest: str, plain: bytes) -> str:
        key = keys.shard(self._run.instance, digest, self._run.backup_timestamp)
        self._writes.create(key, compress_text(plain))
        self.shards_written += 1
        return key

    def _note_packs(self, shard: ShardRef) -> None:
        for name in shard.packs:
            self.packs[name] = self._known_packs[name]

    def _items(self) -> Iterator[Group | KeptShard]:
        for number in self._units:
            for item in self._result(number).items:
                if isinstance(item, SettledPart):
                    yield from self._settled_groups(item)
                else:
                    yield item
        for number in range(self._units.start):
            if number not in self._counted:
                self._result(number)

    def _settled_groups(self, part: SettledPart) -> Iterator[Group]:
        """The partition's parts from the units that stored it before the checkpoint."""
        for number in range(part.first, part.last + 1):
            if self._settled_unit != number:
                self._settled_unit, self._settled = number, _by_partition(self._result(number))
            parts = self._settled.get((part.table, part.partition))
            if not parts:
                raise SourceFileError(
                    f"partition {part.partition} of '{part.table}' could not be read before the checkpoint",
                    "something but the server changed its files; start the backup again",
                )
            yield from parts

    def _result(self, number: int) -> UnitResult:
        result = read_result(self._store, self._run.instance, self._run.backup_timestamp, number)
        if result is None:
            raise DamagedBackupError(
                f"unit {number} of run {self._run.backup_timestamp} has no result", "start the backup again"
            )
        self._known_packs.update(result.packs)
        if number not in self._counted:
            self._counted.add(number)
            for name, value in result.counters.items():
                self.counters[name] = self.counters.get(name, 0) + value
        return result


def _by_partition(result: UnitResult) -> dict[tuple[str, str], list[Group]]:
    """The unit's groups by table and partition; a large partition has several in one unit."""
    found: dict[tuple[str, str], list[Group]] = {}
    for item in result.items:
        if isinstance(item, Group):
            found.setdefault((item.table, item.partition), []).append(item)
    return found


def _planned_tables(store: ObjectStore, run: Run, attempt: int) -> dict[str, dict[str, Any]]:
    data = decompress_text(store.get(keys.plan_tables(run.instance, run.backup_timestamp, attempt)))
    rows = (json.loads(line) for line in data.splitlines())
    return {row["table"]: row for row in rows}


def _publish(services: Services, run: Run, manifest: Manifest) -> BackupRow:
    store, data = services.store, encode_manifest(manifest)
    ref = ManifestRef(
        key=keys.manifest(run.instance, run.backup_timestamp), digest=digest_of(data), size=len(data)
    )
    store.create(ref.key, data)
    needed = {keys.pack(run.instance, name) for name in manifest.packs}
    needed |= {shard.key for table in manifest.tables for shard in table.shards}

    def change(before: Catalog) -> Catalog:
        dead = needed & tombstoned_names(store, before.tombstones)
        if dead:
            raise ObjectTombstonedError(
                f"{sorted(dead)[0]} was set for deletion while the backup was running",
                "start the backup again",
            )
        return publish(
            before, run.token, ref, now=services.now(), counters=manifest.counters, data_id=run.data_id
        )

    row = update_catalog(store, run.instance, change).row(run.backup_timestamp)
    assert row is not None, "publish keeps the row"
    return row


def tombstoned_names(store: ObjectStore, tombstones: tuple[Tombstone, ...]) -> set[str]:
    """Every key that waits for its deletion. A tombstone that cannot be read deletes nothing either."""
    names: set[str] = set()
    for stone in tombstones:
        try:
            names.update(names_of(store, stone))
        except DamagedBackupError as error:
            logger.warning("nothing of the tombstone of %s will be deleted: %s", stone.removed, error)
    return names


def names_of(store: ObjectStore, stone: Tombstone) -> list[str]:
    """The keys of one tombstone; those in an object of their own are read."""
    if stone.names_key is None:
        return list(stone.names)
    try:
        names: list[str] = json.loads(store.get(stone.names_key))
        foreign = [name for name in names if not name.startswith(_folder_of(stone.names_key))]
    except ObjectNotFoundError:
        return []
    except (ValueError, TypeError, AttributeError) as error:
        raise DamagedBackupError(f"{stone.names_key} cannot be read: {error!r}", _KEPT_HINT) from error
    if foreign:
        raise DamagedBackupError(f"{stone.names_key} names '{foreign[0]}', another's object", _KEPT_HINT)
    return names


def _folder_of(key: str) -> str:
    """The instance's part of the store; nothing else is a tombstone's to name."""
    return key.partition("/tombstones/")[0] + "/"


_KEPT_HINT = "nothing that it named is deleted; `questdb-backup check --remove-orphans` finds what is left"
