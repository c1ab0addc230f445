"""The catalog of one instance: what exists, who holds the lease, what waits to be deleted.

Everything here is pure: each change takes a catalog and gives a new one, or raises. The swap that
makes a change real is in `catalog_store`. The format is described in `docs/FORMAT.md`.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from questdb_backup.clock import add_seconds, seconds_between
from questdb_backup.errors import (
    BackupInProgressError,
    LeaseLostError,
    ScheduleServedError,
)
from questdb_backup.sealed import damaged, seal, unseal
from questdb_backup.words import BackupStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who may write: a backup or a prune. ``token`` grows by one with every lease."""

    token: int
    holder: str
    purpose: str
    run: str | None
    expires_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRef:
    """A listed manifest: that it stands here is what makes it a backup."""

    key: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRow:
    """A row of ``backups()``; it outlives its backup, with ``manifest`` None, until `forget_rows`."""

    backup_timestamp: str
    status: BackupStatus
    start_ts: str
    progress_percent: int = 0
    end_ts: str | None = None
    backup_error: str | None = None
    cleanup_error: str | None = None
    manifest: ManifestRef | None = None
    counters: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run whose scratch objects may exist: a later run or prune finds there what a dead one left."""

    run: str
    token: int
    published: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """Objects that nothing refers to any more; deleted from ``delete_after`` on.

    ``removed`` is the backup_timestamp or the dead run that they belonged to. ``manifest`` is the key
    that is deleted at once (None: done, or a dead run). ``names`` are the keys that wait, or
    ``names_key`` is the object that holds them as a JSON array where they are many.
    """

    removed: str
    created_at: str
    delete_after: str
    manifest: str | None = None
    names: tuple[str, ...] = ()
    names_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadShare:
    """When share ``part`` of ``parts`` of the packs was last read whole by `verify`."""

    part: int
    parts: int
    read_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """The state of one backup instance.

    ``last_scheduled_time`` is the newest tick of the schedule that started a backup. ``damaged_packs``
    (and shards, by their keys) were found missing or damaged: no new backup refers to them.
    ``read_shares`` is what `verify` has read of the data, share by share.
    """

    instance: str
    data_id: str | None = None
    last_token: int = 0
    last_scheduled_time: str | None = None
    lease: Lease | None = None
    rows: tuple[BackupRow, ...] = ()
    runs: tuple[RunRecord, ...] = ()
    tombstones: tuple[Tombstone, ...] = ()
    damaged_packs: tuple[str, ...] = ()
    read_shares: tuple[ReadShare, ...] = ()

    def row(self, backup_timestamp: str) -> BackupRow | None:
        """The row of that backup."""
        return next((row for row in self.rows if row.backup_timestamp == backup_timestamp), None)

    def complete_rows(self) -> list[BackupRow]:
        """The restore points, oldest first."""
        return [row for row in self.rows if row.manifest and row.status is BackupStatus.BACKUP_COMPLETE]

    def longest_run_seconds(self) -> float:
        """How long the longest run took that was completed; 0 where none was.

        A failed one says nothing: it may have been found dead after weeks, and reads no more.
        """
        ended = (
            (row.start_ts, row.end_ts)
            for row in self.rows
            if row.end_ts and row.status is not BackupStatus.BACKUP_FAILED
        )
        return max((seconds_between(start, end) for start, end in ended), default=0.0)

    def grace_seconds(self, wanted: float) -> float:
        """How long what is left over stays: as wanted, and never less than twice the longest run."""
        return max(wanted, 2 * self.longest_run_seconds())

    def latest_complete(self) -> BackupRow | None:
        """The newest restore point."""
        rows = self.complete_rows()
        return rows[-1] if rows else None


def encode_catalog(catalog: Catalog) -> bytes:
    """The bytes of ``catalog.json``."""
    return seal(asdict(catalog))


def decode_catalog(data: bytes, name: str = "the catalog") -> Catalog:
    """The inverse; ``name`` is for messages.

    Raise UnsupportedFormatError for a newer format, DamagedBackupError for anything else.
    """
    value = unseal(data, name)
    try:
        return Catalog(
            instance=value["instance"],
            data_id=value["data_id"],
            last_token=value["last_token"],
            last_scheduled_time=value["last_scheduled_time"],
            lease=Lease(**value["lease"]) if value["lease"] else None,
            rows=tuple(_decode_row(row) for row in value["rows"]),
            runs=tuple(RunRecord(**run) for run in value["runs"]),
            tombstones=tuple(
                Tombstone(**{**stone, "names": tuple(stone["names"])}) for stone in value["tombstones"]
            ),
            damaged_packs=tuple(value["damaged_packs"]),
            read_shares=tuple(ReadShare(**share) for share in value["read_shares"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(name, error) from error


def _decode_row(row: dict[str, Any]) -> BackupRow:
    manifest = row["manifest"]
    return BackupRow(
        **{
            **row,
            "status": BackupStatus(row["status"]),
            "manifest": ManifestRef(**manifest) if manifest else None,
        }
    )


def acquire(
    catalog: Catalog,
    *,
    holder: str,
    purpose: str,
    now: str,
    term_seconds: float,
    scheduled_time: str | None = None,
) -> Catalog:
    """Take the lease; the same holder gets the same one again (a retry).

    A backup gets its run, a timestamp greater than every one in the catalog whatever the clock says,
    and its row. ``scheduled_time`` is the schedule's tick that asks for it; each is served once. Raise
    BackupInProgressError while another holder's lease has not expired, ScheduleServedError.
    """
    lease = catalog.lease
    expires_at = add_seconds(now, term_seconds)
    if lease and lease.holder == holder and lease.purpose == purpose:
        return replace(catalog, lease=replace(lease, expires_at=expires_at))
    if scheduled_time is not None:
        catalog = serve_tick(catalog, scheduled_time, now)
    if lease and lease.expires_at > now:
        raise BackupInProgressError(
            f"a {lease.purpose} of instance '{catalog.instance}' is running"
            f" (since {lease.run or 'unknown'}, held by {lease.holder} until {lease.expires_at})",
            "one backup at a time: wait for it, or stop it with `questdb-backup abort`",
        )
    if lease:
        catalog = drop_lease(catalog, lease.token, f"its lease expired at {lease.expires_at}", now)
    token = catalog.last_token + 1
    run = _next_run(catalog, now) if purpose == "backup" else None
    taken = replace(
        catalog,
        last_token=token,
        lease=Lease(token=token, holder=holder, purpose=purpose, run=run, expires_at=expires_at),
    )
    if run is None:
        return taken
    row = BackupRow(backup_timestamp=run, status=BackupStatus.BACKUP_IN_PROGRESS, start_ts=now)
    return replace(taken, rows=(*taken.rows, row), runs=(*taken.runs, RunRecord(run=run, token=token)))


def serve_tick(catalog: Catalog, scheduled_time: str, now: str) -> Catalog:
    """Note the tick. A last one in the future was noted by a wrong clock, and counts for nothing.

    Raise ScheduleServedError where it was noted before.
    """
    last = catalog.last_scheduled_time
    if last is not None and scheduled_time <= last <= now:
        raise ScheduleServedError(
            f"the schedule's tick of {scheduled_time} was delivered again: the backup of {last} was started",
            "nothing needs to be done",
        )
    return replace(catalog, last_scheduled_time=scheduled_time)


def _next_run(catalog: Catalog, now: str) -> str:
    last = max((row.backup_timestamp for row in catalog.rows), default="")
    return now if now > last else add_seconds(last, 0.000001)


def require_lease(catalog: Catalog, token: int) -> Lease:
    """The lease of that token. Raise LeaseLostError where it is not the one in force."""
    lease = catalog.lease
    if lease is None or lease.token != token:
        holder = f"now held by {lease.holder} with token {lease.token}" if lease else "no lease is held"
        raise LeaseLostError(
            f"the lease with token {token} of instance '{catalog.instance}' was lost: {holder}",
            "this run ends without a trace; the next backup starts anew",
        )
    return lease


def renew(catalog: Catalog, token: int, *, now: str, term_seconds: float, progress: int | None) -> Catalog:
    """Move the expiry, and the row's progress where it is known. Raise LeaseLostError."""
    lease = require_lease(catalog, token)
    renewed = replace(catalog, lease=replace(lease, expires_at=add_seconds(now, term_seconds)))
    if lease.run is None or progress is None:
        return renewed
    return with_row(renewed, lease.run, progress_percent=progress)


def publish(
    catalog: Catalog,
    token: int,
    manifest: ManifestRef,
    *,
    now: str,
    counters: dict[str, float],
    data_id: str | None,
) -> Catalog:
    """List the manifest: the commit of a backup.

    Publishing the same manifest again is a success. Raise LeaseLostError for a stale token. That no
    object of the manifest is tombstoned is the caller's check on this very catalog.
    """
    for row in catalog.rows:
        if row.manifest == manifest:
            return catalog
    run = require_lease(catalog, token).run
    assert run is not None, "only a backup's lease publishes"
    published = with_row(
        catalog,
        run,
        status=BackupStatus.BACKUP_COMPLETE,
        progress_percent=100,
        end_ts=now,
        backup_error=None,
        manifest=manifest,
        counters=counters,
    )
    runs = tuple(replace(known, published=True) if known.run == run else known for known in catalog.runs)
    return replace(published, runs=runs, data_id=data_id or catalog.data_id)


def fail_run(catalog: Catalog, run: str, error: str, now: str, progress: int | None = None) -> Catalog:
    """Set the row to ``backup failed``, unless the run is complete, failed already, or unknown."""
    row = catalog.row(run)
    if row is None or row.status is not BackupStatus.BACKUP_IN_PROGRESS:
        return catalog
    percent = row.progress_percent if progress is None else progress
    return with_row(
        catalog,
        run,
        status=BackupStatus.BACKUP_FAILED,
        end_ts=now,
        backup_error=error,
        progress_percent=min(percent, 99),
    )


def drop_lease(catalog: Catalog, token: int, reason: str, now: str) -> Catalog:
    """Free the lease of that token; a run of it that is still in progress fails with the reason.

    Another lease being in force, or none, changes nothing.
    """
    lease = catalog.lease
    if lease is None or lease.token != token:
        return catalog
    if lease.run is not None:
        catalog = fail_run(catalog, lease.run, f"the run ended without its last step: {reason}", now)
    return replace(catalog, lease=None)


def forget_rows(catalog: Catalog, most: int) -> Catalog:
    """Drop the oldest rows of removed and failed backups beyond ``most`` rows: every step reads them all.

    A row stays while anything is noted of its run, and so does the newest: the next run is to be later.
    """
    surplus = len(catalog.rows) - most
    if surplus <= 0:
        return catalog
    noted = {stone.removed for stone in catalog.tombstones} | {record.run for record in catalog.runs}
    over = (BackupStatus.CLEANUP_COMPLETE, BackupStatus.BACKUP_FAILED)
    gone = [
        row.backup_timestamp
        for row in catalog.rows[:-1]
        if row.manifest is None and row.status in over and row.backup_timestamp not in noted
    ]
    dropped = frozenset(gone[:surplus])
    return replace(catalog, rows=tuple(row for row in catalog.rows if row.backup_timestamp not in dropped))


def with_row(catalog: Catalog, backup_timestamp: str, **changes: Any) -> Catalog:
    """The catalog with fields of one row changed."""
    rows = tuple(
        replace(row, **changes) if row.backup_timestamp == backup_timestamp else row for row in catalog.rows
    )
    return replace(catalog, rows=rows)
