"""AcquireLock and ReleaseLock: one backup at a time, under a lease with a fencing token."""

from typing import Any

from questdb_backup.catalog import Catalog, acquire, drop_lease, serve_tick
from questdb_backup.catalog_store import read_catalog, update_catalog
from questdb_backup.clock import format_timestamp, parse_timestamp
from questdb_backup.errors import BackupInProgressError, ConfigurationError
from questdb_backup.instances import resolve_instance
from questdb_backup.questdb.base import Fence
from questdb_backup.services import SOURCES, Services, logger
from questdb_backup.status.base import LiveRun
from questdb_backup.steps.run import Run


def acquire_lock(services: Services, execution: str, request: dict[str, Any]) -> dict[str, Any]:
    """Take the lease for a backup; give the workflow's first state.

    The instance's name is found or made, and registered. ``request`` is the execution's input; a
    manual execution needs none. Raise BackupInProgressError at once while another run is live,
    ScheduleServedError where the schedule's tick was delivered before, DataIdMismatchError where the
    root belongs to another database.
    """
    source = services.config.source
    if source not in SOURCES:
        raise ConfigurationError(f"source '{source}' is unknown", f"one of {', '.join(SOURCES)}")
    tick = _tick(request)
    instance = resolve_instance(services)
    try:
        services.status.refuse_if_running(instance.name, execution, services.now())
    except BackupInProgressError:
        if tick is not None:  # it may be the very run that this tick has begun
            serve_tick(read_catalog(services.store, instance.name), tick, services.now())
        raise
    catalog = update_catalog(
        services.store,
        instance.name,
        lambda before: acquire(
            before,
            holder=execution,
            purpose="backup",
            now=services.now(),
            term_seconds=services.config.lease_seconds,
            scheduled_time=tick,
        ),
    )
    lease = catalog.lease
    assert lease is not None, "acquire gives a lease"
    assert lease.run is not None, "a backup's lease has a run"
    services.status.begin(
        instance.name,
        LiveRun(run=lease.run, token=lease.token, holder=execution, expires_at=lease.expires_at),
        services.now(),
    )
    run = Run(instance=instance.name, backup_timestamp=lease.run, token=lease.token, data_id=instance.data_id)
    return {
        "run": run.to_json(),
        "source": source,
        "trigger": str(request.get("trigger", "manual")),
        "max_concurrency": _workers(services),
        "fence": {**Fence().to_json(), "round": 0},
        "database": None,
        "snapshots": None,
        "release": None,
        "final_release": None,
    }


def _workers(services: Services) -> int:
    """How many units are stored at once: no more than can be, or the others would fail in the end."""
    wanted, limit = services.config.max_concurrency, services.worker_limit()
    if limit is None or limit >= wanted:
        return wanted
    logger.warning("%d workers at once, not MaxConcurrency (%d): Lambda gives no more here", limit, wanted)
    return limit


def _tick(request: dict[str, Any]) -> str | None:
    """The schedule's tick that an execution serves; None where it was started by hand."""
    if request.get("trigger") != "schedule" or not request.get("scheduled_time"):
        return None
    return format_timestamp(parse_timestamp(str(request["scheduled_time"])))


def release_lock(services: Services, run: Run) -> None:
    """Give the lease back.

    A run whose checkpoint may still be held keeps lease and intent: the guard needs both, and frees
    them when the database is free.
    """
    live = services.status.read(run.instance)
    if live and live.run == run.backup_timestamp and live.fence.db_now is not None:
        return
    drop_run_lease(services, run.instance, run.token, "it failed and gave its lease back")
    services.status.finish(run.instance, run.backup_timestamp, run.token)


def drop_run_lease(services: Services, instance: str, token: int, reason: str) -> Catalog:
    """Free the lease with that token, if it is in force."""
    return update_catalog(
        services.store, instance, lambda before: drop_lease(before, token, reason, services.now())
    )


def take_lease(services: Services, instance: str, holder: str, purpose: str) -> int:
    """The lease for a prune; give its token. Raise BackupInProgressError."""
    catalog = update_catalog(
        services.store,
        instance,
        lambda before: acquire(
            before,
            holder=holder,
            purpose=purpose,
            now=services.now(),
            term_seconds=services.config.lease_seconds,
        ),
    )
    assert catalog.lease is not None, "acquire gives a lease"
    return catalog.lease.token
