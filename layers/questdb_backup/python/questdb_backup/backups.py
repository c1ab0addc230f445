"""The rows of ``backups()``: what the catalog lists, with the live progress of the run under way."""

from typing import Any

from questdb_backup.catalog import BackupRow, Catalog
from questdb_backup.catalog_store import read_catalog
from questdb_backup.instances import find_instance, read_instances
from questdb_backup.services import Services
from questdb_backup.status.base import LiveRun
from questdb_backup.steps.run import progress_percent
from questdb_backup.words import BackupStatus


def backup_rows(catalog: Catalog, live: LiveRun | None, now: str) -> list[dict[str, Any]]:
    """The rows, oldest first: the six columns of ``backups()``, and the two names of a backup.

    A run whose lease is over is shown as failed: nobody has written that down yet.
    """
    return [_row(catalog, row, live, now) for row in catalog.rows]


def _row(catalog: Catalog, row: BackupRow, live: LiveRun | None, now: str) -> dict[str, Any]:
    status, error, percent = row.status, row.backup_error, row.progress_percent
    if status is BackupStatus.BACKUP_IN_PROGRESS:
        known = progress_percent(live, row.backup_timestamp)
        percent = percent if known is None else known
        if not _is_alive(catalog, row, live, now):
            status = BackupStatus.BACKUP_FAILED
            error = error or "the run ended without its last step"
    return {
        "status": str(status),
        "progress_percent": percent,
        "start_ts": row.start_ts,
        "end_ts": row.end_ts,
        "backup_error": error,
        "cleanup_error": row.cleanup_error,
        "backup_timestamp": row.backup_timestamp,
        "backup_instance_name": catalog.instance,
    }


def _is_alive(catalog: Catalog, row: BackupRow, live: LiveRun | None, now: str) -> bool:
    """Whether a lease of the run is in force; status and catalog are renewed one after the other."""
    lease = catalog.lease
    in_catalog = lease is not None and lease.run == row.backup_timestamp and lease.expires_at > now
    in_status = live is not None and live.run == row.backup_timestamp and live.expires_at > now
    return in_catalog or in_status


def list_backups(services: Services, instance: str | None = None) -> list[dict[str, Any]]:
    """The rows of the instance, else of this deployment's, else of every one in the store."""
    chosen = instance or find_instance(services)
    names = [chosen] if chosen else [entry.name for entry in read_instances(services.store)[0]]
    rows: list[dict[str, Any]] = []
    for name in names:
        catalog = read_catalog(services.store, name)
        running = any(row.status is BackupStatus.BACKUP_IN_PROGRESS for row in catalog.rows)
        live = services.status.read(name) if running else None
        rows += backup_rows(catalog, live, services.now())
    return rows
