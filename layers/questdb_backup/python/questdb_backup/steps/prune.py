"""PruneBackups: retention's plan, then the cleanup, in an order that survives a death at any point.

A backup that retention removes first gets a tombstone in the catalog, in the same swap that takes its
manifest off the list; then its manifest is deleted; its shards and packs follow when the grace is
over, each looked up once more among what the listed manifests refer to. What a dead run left goes the
same way. A prune that dies is finished by the next one.
"""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from questdb_backup import keys
from questdb_backup.catalog import (
    BackupRow,
    Catalog,
    ManifestRef,
    RunRecord,
    Tombstone,
    forget_rows,
    require_lease,
    with_row,
)
from questdb_backup.catalog_store import read_catalog, update_catalog
from questdb_backup.clock import add_seconds
from questdb_backup.errors import BackupToolError, DamagedBackupError, LeaseLostError, ObjectNotFoundError
from questdb_backup.leftovers import ATTEMPTS, work_list
from questdb_backup.manifest import Manifest, read_manifest
from questdb_backup.retention import KeepLatest, RetentionPlan, plan_retention
from questdb_backup.services import Services, logger
from questdb_backup.steps.complete import names_of
from questdb_backup.steps.sweep import plan_sweep, plan_to_json, sweep_snapshots
from questdb_backup.stores.base import ObjectStore
from questdb_backup.units import decode_result
from questdb_backup.words import BackupStatus

_INLINE_NAMES = 100
_READS_AT_ONCE = 8
MOST_ROWS = 1_000
"""About 900 bytes each, in an object that every step reads."""


@dataclass(kw_only=True)
class PruneReport:
    """What was decided and done; ``waiting`` are tombstones within their grace.

    ``snapshots`` is what `sweep` reports of EBS snapshots; None where the source has none.
    """

    plan: RetentionPlan
    removed: list[str] = field(default_factory=list)
    waiting: list[dict[str, str]] = field(default_factory=list)
    objects_deleted: int = 0
    errors: list[str] = field(default_factory=list)
    snapshots: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON of `prune`."""
        return {
            "keep": [
                {"backup_timestamp": kept.backup_timestamp, "reasons": list(kept.reasons)}
                for kept in self.plan.keep
            ],
            "remove": [
                {"backup_timestamp": gone.backup_timestamp, "reasons": list(gone.reasons)}
                for gone in self.plan.remove
            ],
            "waiting": self.waiting,
            "objects_deleted": self.objects_deleted,
            "errors": self.errors,
            "snapshots": self.snapshots,
        }


def plan_prune(services: Services, instance: str) -> PruneReport:
    """The dry run: what would go, what stays and why, and what waits for its grace."""
    report = _plan(services, instance)
    if services.config.source == "ebs":
        removed = [gone.backup_timestamp for gone in report.plan.remove]
        report.snapshots = plan_to_json(plan_sweep(services, instance, removed))
    return report


def _plan(services: Services, instance: str) -> PruneReport:
    catalog = read_catalog(services.store, instance)
    plan = plan_retention(catalog.rows, KeepLatest(n=services.config.keep_latest_n), services.now())
    report = PruneReport(plan=plan)
    report.waiting = [_waiting(stone) for stone in catalog.tombstones]
    return report


def _waiting(stone: Tombstone) -> dict[str, str]:
    return {"backup_timestamp": stone.removed, "delete_after": stone.delete_after}


def prune_backups(services: Services, instance: str, token: int) -> dict[str, Any]:
    """Apply retention under the lease of ``token``. Raise LeaseLostError.

    An error with one backup goes to its row's ``cleanup_error`` and does not stop the others.
    """
    cleanup = _Cleanup(services, instance, token)
    cleanup.finish_tombstones()
    cleanup.remove_scratch()
    cleanup.remove_backups()
    cleanup.forget_rows()
    if services.config.source == "ebs":
        cleanup.report.snapshots = sweep_snapshots(services, instance)
    cleanup.report.waiting = [_waiting(stone) for stone in cleanup.catalog().tombstones]
    services.metrics.add("ObjectsPruned", cleanup.report.objects_deleted, "Count")
    return cleanup.report.to_json()


class _Cleanup:
    def __init__(self, services: Services, instance: str, token: int) -> None:
        self._services = services
        self._store: ObjectStore = services.store
        self._instance = instance
        self._token = token
        self._named: dict[str, set[str]] = {}
        self.report = _plan(services, instance)

    def catalog(self) -> Catalog:
        """The catalog now, while the lease is ours."""
        catalog = read_catalog(self._store, self._instance)
        require_lease(catalog, self._token)
        return catalog

    def _update(self, change: Callable[[Catalog], Catalog]) -> Catalog:
        def checked(before: Catalog) -> Catalog:
            require_lease(before, self._token)
            return change(before)

        return update_catalog(self._store, self._instance, checked)

    def _delete(self, names: Iterable[str]) -> None:
        wanted = list(names)
        self._store.delete(wanted)
        self.report.objects_deleted += len(wanted)

    def finish_tombstones(self) -> None:
        """Delete manifests that an earlier prune left, and what has waited long enough."""
        catalog = self.catalog()
        now = self._services.now()
        for stone in catalog.tombstones:
            if stone.manifest:
                self._guarded(stone.removed, partial(self._delete_manifest, stone))
            if stone.delete_after > now:
                continue
            self._guarded(stone.removed, partial(self._delete_names, stone, catalog))

    def _guarded(self, removed: str, act: Callable[[], None]) -> None:
        """Run one cleanup; its error goes to the row it concerns."""
        try:
            act()
        except LeaseLostError:
            raise
        except BackupToolError as error:
            logger.warning("cleanup of %s failed: %s", removed, error)
            self.report.errors.append(f"{removed}: {error}")
            text = str(error)
            self._update(lambda before: _with_cleanup(before, removed, BackupStatus.CLEANUP_FAILED, text))

    def _delete_manifest(self, stone: Tombstone) -> None:
        assert stone.manifest is not None, "only called with one"
        self._delete([stone.manifest])
        self._replace_stone(stone.removed, lambda known: replace(known, manifest=None))

    def _replace_stone(self, removed: str, change: Callable[[Tombstone], Tombstone]) -> None:
        self._update(
            lambda before: replace(
                before,
                tombstones=tuple(
                    change(stone) if stone.removed == removed else stone for stone in before.tombstones
                ),
            )
        )

    def _delete_names(self, stone: Tombstone, catalog: Catalog) -> None:
        live = self._live_names(catalog)
        names = [name for name in names_of(self._store, stone) if name not in live]
        if stone.names_key:
            names.append(stone.names_key)
        self._delete(names)
        self._update(
            lambda before: _with_cleanup(
                replace(
                    before,
                    tombstones=tuple(known for known in before.tombstones if known.removed != stone.removed),
                ),
                stone.removed,
                BackupStatus.CLEANUP_COMPLETE,
                None,
            )
        )

    def _live_names(self, catalog: Catalog) -> set[str]:
        """Keys that listed manifests refer to."""
        names: set[str] = set()
        for row in catalog.complete_rows():
            assert row.manifest is not None, "complete rows have one"
            names |= self._names(row.manifest)
        return names

    def _names(self, ref: ManifestRef) -> set[str]:
        """Keys that a manifest refers to; each is read once, however many backups go."""
        if ref.key not in self._named:
            self._named[ref.key] = _names(self._instance, read_manifest(self._store, ref))
        return self._named[ref.key]

    def remove_backups(self) -> None:
        """Tombstone what retention removes, then delete its manifest."""
        for gone in self.report.plan.remove:
            row = self.catalog().row(gone.backup_timestamp)
            if row is None or row.manifest is None:
                continue
            self._guarded(row.backup_timestamp, partial(self._remove_backup, row))

    def _remove_backup(self, row: BackupRow) -> None:
        assert row.manifest is not None, "checked by the caller"
        catalog = self.catalog()
        kept = replace(
            catalog,
            rows=tuple(known for known in catalog.rows if known is not catalog.row(row.backup_timestamp)),
        )
        own = self._own_names(row)
        stone = self._make_stone(
            row.backup_timestamp, sorted(own - self._live_names(kept)), manifest=row.manifest.key
        )
        self._update(
            lambda before: _with_cleanup(
                _with_stone(before, stone), row.backup_timestamp, BackupStatus.CLEANUP_IN_PROGRESS, None
            )
        )
        self._delete_manifest(stone)
        self.report.removed.append(row.backup_timestamp)

    def _own_names(self, row: BackupRow) -> set[str]:
        """What the backup refers to; nothing where its manifest is damaged: its packs stay."""
        assert row.manifest is not None, "checked by the caller"
        try:
            return self._names(row.manifest)
        except DamagedBackupError as error:
            logger.warning("%s; its packs stay in the store", error)
            return set()

    def _make_stone(self, removed: str, names: list[str], manifest: str | None) -> Tombstone:
        """A tombstone; many names go into an object of their own, durable before anything is deleted."""
        now = self._services.now()
        names_key = None
        if len(names) > _INLINE_NAMES:
            names_key = keys.tombstone(self._instance, removed, self._token)
            self._store.create(names_key, json.dumps(names).encode())
        return Tombstone(
            removed=removed,
            created_at=now,
            delete_after=add_seconds(now, self._services.config.grace_seconds),
            manifest=manifest,
            names=() if names_key else tuple(names),
            names_key=names_key,
        )

    def forget_rows(self) -> None:
        """The history is bounded: what is long gone is not told any more."""
        self._update(lambda before: forget_rows(before, MOST_ROWS))

    def remove_scratch(self) -> None:
        """Scratch of published runs goes at once; a dead run's objects get a tombstone."""
        catalog = self.catalog()
        lease = require_lease(catalog, self._token)
        for record in catalog.runs:
            if record.published:
                self._guarded(record.run, partial(self._remove_published, record))
            elif record.run != lease.run:
                self._guarded(record.run, partial(self._remove_dead, record, catalog))

    def _remove_published(self, record: RunRecord) -> None:
        self._delete(self._scratch(record.run))
        self._update(lambda before: _without_run(before, record.run))

    def _remove_dead(self, record: RunRecord, catalog: Catalog) -> None:
        """Tombstone what it left; packs that a later run has taken over are that one's now."""
        live = self._live_names(catalog)
        packs = [name for name in self._packs_of(record.run) if name not in live]
        names = [*packs, *self._scratch(record.run)]
        stone = self._make_stone(record.run, names, manifest=keys.manifest(self._instance, record.run))
        self._update(lambda before: _without_run(_with_stone(before, stone), record.run))
        self._delete_manifest(stone)

    def _scratch(self, run: str) -> list[str]:
        names: list[str] = []
        for attempt in range(ATTEMPTS):
            names.append(keys.plan_tables(self._instance, run, attempt))
            names.append(keys.settled_index(self._instance, run, attempt))
        for item in work_list(self._store, self._instance, run):
            names.append(keys.unit(self._instance, run, item["unit"], item["attempt"]))
            names += [keys.result(self._instance, run, item["unit"], attempt) for attempt in range(ATTEMPTS)]
        # The lists go last: by them the rest is found again where a prune dies on the way.
        return [*names, keys.settled_plan(self._instance, run), keys.plan(self._instance, run)]

    def _packs_of(self, run: str) -> list[str]:
        """Packs that the run's results name; those that none names stay in the store."""
        results = [
            keys.result(self._instance, run, item["unit"], attempt)
            for item in work_list(self._store, self._instance, run)
            for attempt in range(ATTEMPTS)
        ]
        with ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="prune") as pool:
            return [name for names in pool.map(self._packs_in, results) for name in names]

    def _packs_in(self, result: str) -> list[str]:
        try:
            data = self._store.get(result)
            packs = decode_result(data).packs
        except ObjectNotFoundError:
            return []  # an attempt that died, or never began, has none; another one may
        except DamagedBackupError as error:
            logger.warning("the packs that it names are left to `check`: %s", error)
            return []
        return [keys.pack(self._instance, pack) for pack in packs]


def _names(instance: str, manifest: Manifest) -> set[str]:
    packs = {keys.pack(instance, name) for name in manifest.packs}
    return packs | {shard.key for table in manifest.tables for shard in table.shards}


def _with_stone(catalog: Catalog, stone: Tombstone) -> Catalog:
    others = tuple(known for known in catalog.tombstones if known.removed != stone.removed)
    return replace(catalog, tombstones=(*others, stone))


def _without_run(catalog: Catalog, run: str) -> Catalog:
    return replace(catalog, runs=tuple(known for known in catalog.runs if known.run != run))


def _with_cleanup(catalog: Catalog, removed: str, status: BackupStatus, error: str | None) -> Catalog:
    """Set the cleanup words on a removed backup's row; a failed run's row keeps its own status."""
    row = catalog.row(removed)
    if row is None or row.status in (BackupStatus.BACKUP_FAILED, BackupStatus.BACKUP_IN_PROGRESS):
        return catalog if row is None or error is None else with_row(catalog, removed, cleanup_error=error)
    if status is BackupStatus.CLEANUP_FAILED and row.manifest is not None:
        return with_row(catalog, removed, cleanup_error=error)
    return with_row(catalog, removed, status=status, cleanup_error=error, manifest=None)
