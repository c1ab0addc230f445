"""`check --rebuild`: a lost or damaged catalog is made anew from what the store holds.

A manifest counts as a backup where it decodes, all its shards match it, and all its packs are there with
their sizes. Of a manifest that was written but never published nobody can tell that any more: where it is
whole, it is a backup (its run had stored everything, and restoring it gives the database of that
checkpoint). What was removed long ago is gone from the history; packs that waited become orphans.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from questdb_backup import keys
from questdb_backup.catalog import BackupRow, Catalog, ManifestRef, RunRecord, encode_catalog
from questdb_backup.check.catalogs import Look, look_at
from questdb_backup.check.inventory import Inventory
from questdb_backup.check.judging import FAULTS
from questdb_backup.check.shapes import SCRATCH, Kind
from questdb_backup.codec import digest_of
from questdb_backup.errors import (
    BackupInProgressError,
    DamagedBackupError,
    NoRestorePointError,
    ObjectExistsError,
    PreconditionFailedError,
)
from questdb_backup.manifest import (
    Group,
    Manifest,
    ShardRef,
    decode_manifest,
    fold_signatures,
    read_shard,
)
from questdb_backup.restore.point import check_manifest
from questdb_backup.services import Services
from questdb_backup.stores.base import ObjectStore
from questdb_backup.words import BackupStatus

TOKEN_MARGIN = 1_000_000
"""Leases that may have been taken since the newest manifest: a stale run must not meet its own token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A manifest that is no backup, and why."""

    key: str
    reason: str


@dataclass(kw_only=True)
class Rebuilt:
    """A catalog as it would be, and what was left out; ``written`` tells whether it is in place."""

    instance: str
    catalog: Catalog
    found: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    written: bool = False

    def to_json(self) -> dict[str, Any]:
        """The JSON of `check --rebuild` for one instance."""
        return {
            "backup_instance_name": self.instance,
            "written": self.written,
            "backups": self.found,
            "rejected": [{"key": one.key, "reason": one.reason} for one in self.rejected],
            "unfinished_runs": [run.run for run in self.catalog.runs if not run.published],
            "last_token": self.catalog.last_token,
            "data_id": self.catalog.data_id,
        }


def rebuild_catalog(
    services: Services, inventory: Inventory, instance: str, *, force: bool = False, dry_run: bool = False
) -> Rebuilt:
    """Make the catalog of the instance anew from the listed store.

    ``force`` does so where one can be read: what it says stays, and manifests of runs that it does not know
    are added. Raise ObjectExistsError where one can be read and ``force`` is not given, BackupInProgressError
    where its lease is in force, NoRestorePointError where the store has nothing of the instance,
    PreconditionFailedError where another writer was faster.
    """
    look = look_at(services.store, instance)
    _refuse(services, instance, look, force)
    if not inventory.runs(instance):
        raise NoRestorePointError(
            f"the store holds nothing of the instance '{instance}'", "see the names below _backup/"
        )
    rebuilt = _collect(services.store, inventory, instance, look.catalog or Catalog(instance=instance))
    if not dry_run:
        _write(services.store, instance, rebuilt.catalog, look.version)
        rebuilt.written = True
    return rebuilt


def _refuse(services: Services, instance: str, look: Look, force: bool) -> None:
    if look.catalog is None:
        return
    if not force:
        raise ObjectExistsError(
            f"{keys.catalog(instance)} is there and can be read",
            "nothing needs to be made anew; --force lists the manifests again that it does not know",
        )
    lease = look.catalog.lease
    if lease and lease.expires_at > services.now():
        raise BackupInProgressError(
            f"a {lease.purpose} of instance '{instance}' is running (held by {lease.holder}"
            f" until {lease.expires_at})",
            "wait for it, or stop it with `questdb-backup abort`",
        )


def _write(store: ObjectStore, instance: str, catalog: Catalog, expected: str | None) -> None:
    key = keys.catalog(instance)
    try:
        store.replace(key, encode_catalog(catalog), expected)
    except PreconditionFailedError as error:
        raise PreconditionFailedError(
            f"{key} was written by another while it was made anew",
            "stop the schedule and every run of the instance, then try again",
        ) from error


def _collect(store: ObjectStore, inventory: Inventory, instance: str, known: Catalog) -> Rebuilt:
    rebuilt = Rebuilt(instance=instance, catalog=known)
    rows = {row.backup_timestamp: row for row in known.rows}
    rebuilt.found += [row.backup_timestamp for row in known.complete_rows()]
    tokens, data_id = [known.last_token], known.data_id
    for item in inventory.items(instance, Kind.MANIFEST):
        run = str(item.run)
        if run in rows:  # the catalog that is there knows what became of it
            continue
        read = _read(store, inventory, instance, item.key, run)
        if read.manifest is None:
            rebuilt.rejected.append(Rejected(key=item.key, reason=read.fault))
            rows[run] = _failed(run, f"found by check --rebuild, not whole: {read.fault}")
            continue
        tokens.append(read.manifest.token)
        data_id = read.manifest.data_id or data_id
        ref = ManifestRef(key=item.key, digest=digest_of(read.data), size=len(read.data))
        rows[run] = _complete(read.manifest, ref)
        rebuilt.found.append(run)
    runs = inventory.runs(instance)
    for run in [*(run for run, kinds in runs.items() if kinds & SCRATCH), max(runs)]:
        rows.setdefault(run, _failed(run, "found by check --rebuild: the run left objects and no manifest"))
    rebuilt.found.sort()
    rebuilt.catalog = replace(
        known,
        data_id=data_id,
        last_token=max(tokens) + TOKEN_MARGIN,
        lease=None,
        rows=tuple(_ended(rows[run]) for run in sorted(rows)),
        runs=tuple(_records(known, runs, set(rebuilt.found))),
    )
    return rebuilt


def _ended(row: BackupRow) -> BackupRow:
    """No run is alive: what was in progress has failed."""
    if row.status is not BackupStatus.BACKUP_IN_PROGRESS:
        return row
    return replace(row, status=BackupStatus.BACKUP_FAILED, backup_error="the run ended without its last step")


def _complete(manifest: Manifest, ref: ManifestRef) -> BackupRow:
    """The row of a backup; when it ended is not known."""
    return BackupRow(
        backup_timestamp=manifest.backup_timestamp,
        status=BackupStatus.BACKUP_COMPLETE,
        start_ts=manifest.backup_timestamp,
        progress_percent=100,
        manifest=ref,
        counters=manifest.counters,
    )


def _failed(run: str, error: str) -> BackupRow:
    return BackupRow(
        backup_timestamp=run, status=BackupStatus.BACKUP_FAILED, start_ts=run, backup_error=error
    )


def _records(known: Catalog, runs: dict[str, set[Kind]], found: set[str]) -> Iterator[RunRecord]:
    """Runs that left scratch: prune removes it, and of those that are no backup everything."""
    tokens = {record.run: record.token for record in known.runs}
    left = {run for run, kinds in runs.items() if kinds & SCRATCH}
    for run in sorted(left | set(tokens)):
        yield RunRecord(run=run, token=tokens.get(run, 0), published=run in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A manifest with its bytes where the backup is whole, else what is wrong."""

    manifest: Manifest | None = None
    data: bytes = b""
    fault: str = ""


def _read(store: ObjectStore, inventory: Inventory, instance: str, key: str, run: str) -> _Read:
    try:
        data = store.get(key)
        manifest = decode_manifest(data, key)
        check_manifest(manifest, key)
        _check(store, inventory, instance, manifest, run)
    except FAULTS as error:
        return _Read(fault=error.fact)
    return _Read(manifest=manifest, data=data)


def _check(store: ObjectStore, inventory: Inventory, instance: str, manifest: Manifest, run: str) -> None:
    """Raise DamagedBackupError where the backup is not whole as far as names, sizes and shards tell."""
    if (manifest.backup_instance_name, manifest.backup_timestamp) != (instance, run):
        raise DamagedBackupError(
            f"it is the manifest of {manifest.backup_instance_name} {manifest.backup_timestamp}"
        )
    if type(manifest.token) is not int or not isinstance(manifest.data_id, str | None):
        raise DamagedBackupError("its token or data id is malformed")
    for name, info in manifest.packs.items():
        size = inventory.size_of(keys.pack(instance, name))
        if size != info.size:
            what = "is missing" if size is None else f"has {size} bytes instead of {info.size}"
            raise DamagedBackupError(f"{keys.pack(instance, name)} {what}")
    for table in manifest.tables:
        for shard in table.shards:
            _check_shard(store, table.table, shard, manifest)


def _check_shard(store: ObjectStore, table: str, shard: ShardRef, manifest: Manifest) -> None:
    """Compare all that the manifest says of a shard: no digest of the manifest itself is left."""
    groups = list(read_shard(store, shard))
    files = [entry for group in groups for entry in group.entries if entry.kind == "f"]
    told = (shard.groups, shard.files, shard.bytes, shard.first, shard.last, shard.signatures)
    real = (
        len(groups),
        len(files),
        sum(entry.size for entry in files),
        groups[0].partition if groups else "",
        groups[-1].partition if groups else "",
        fold_signatures((group.partition, group.signature) for group in groups),
    )
    if told != real or any(group.table != table for group in groups) or _packs(groups) != shard.packs:
        raise DamagedBackupError(f"shard {shard.key} is not what the manifest says")
    if not set(shard.packs) <= set(manifest.packs):
        raise DamagedBackupError(f"shard {shard.key} needs a pack that is not in the manifest")


def _packs(groups: list[Group]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for chunk in {chunk for group in groups for entry in group.entries for chunk in entry.chunks}:
        if chunk.pack:
            sizes[chunk.pack] = sizes.get(chunk.pack, 0) + chunk.stored
    return sizes
