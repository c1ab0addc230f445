"""Guard and abort on AWS: they decide here, and ask the functions in the VPC to read and to release."""

from collections.abc import Mapping
from typing import Any

from questdb_backup.abort import REASON, abort_backup
from questdb_backup.aws_workflow import (
    describe_execution,
    invoke_function,
    is_execution,
    required,
    stop_execution,
)
from questdb_backup.catalog_store import read_catalog
from questdb_backup.clock import seconds_between
from questdb_backup.errors import BackupToolError, DatabaseUnavailableError
from questdb_backup.instances import find_instance
from questdb_backup.questdb.base import Fence, ReleaseOutcome
from questdb_backup.services import Services, logger
from questdb_backup.steps.database import database_from_json, release_from_json
from questdb_backup.steps.guard import GuardReport, guard_checkpoint
from questdb_backup.steps.sweep import sweep_snapshots

_REASONS = {
    "FAILED": "the execution failed",
    "TIMED_OUT": "the execution ran into its timeout",
    "ABORTED": "the execution was stopped",
}
_REASON_LENGTH = 500


def guard_stack(services: Services, event: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Run the guard for a status event of EventBridge, a tick of its schedule or an abort; give its report.

    What fails passes, so that no heartbeat is emitted and the delivery is tried again; the figures that
    the alarms watch are emitted all the same. EBS snapshots that nobody needs go last: they only cost
    money, so what fails there waits for the next run.
    """
    release_function = required(environ, "QDB_BACKUP_RELEASE_CHECKPOINT_FUNCTION")
    read_function = required(environ, "QDB_BACKUP_READ_DATABASE_FUNCTION")

    def release(fence: Fence) -> ReleaseOutcome:
        return release_from_json(invoke_function(release_function, {"fence": fence.to_json()}))

    instance = find_instance(services)
    report = GuardReport(outcome="idle")
    try:
        if instance is not None:
            report = guard_checkpoint(
                services, instance, is_dead=is_dead, release=release, reason=_reason(event)
            )
    finally:
        _report_age(services, instance)
        _report_held(services, read_function)
    deleted = _sweep(services, instance)
    services.metrics.add("GuardHeartbeat", 1, "Count")
    keys = {"instance": instance, "run": report.backup_timestamp}
    logger.info("guard: %s, release: %s", report.outcome, report.release, extra=keys)
    return {**report.to_json(), "snapshots_deleted": deleted}


def abort_stack(services: Services, event: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Stop the running backup of the stack and have the guard end it at once; see `abort_backup`.

    ``event`` may give a ``reason`` for the row. Where the guard cannot do it now, the event of the
    stopped execution and the guard's schedule have it done.
    """
    guard = required(environ, "QDB_BACKUP_GUARD_FUNCTION")
    told = str(event.get("reason") or "")[:_REASON_LENGTH]
    answer = abort_backup(
        services,
        lambda holder, reason: is_execution(holder) and stop_execution(holder, reason),
        f"{REASON}: {told}" if told else REASON,
    )
    if answer["status"] == "aborted":
        try:
            invoke_function(guard, {"trigger": "abort"})
        except BackupToolError as error:
            logger.warning("the guard will clean up later: %s", error)
    return answer


def _sweep(services: Services, instance: str | None) -> list[str]:
    """Ids of the snapshots that were deleted."""
    if instance is None or services.config.source != "ebs":
        return []
    deleted: list[str] = sweep_snapshots(services, instance)["deleted"]
    return deleted


def is_dead(holder: str) -> bool:
    """Whether the execution that holds the lease has ended; a holder on another host is never judged."""
    return is_execution(holder) and describe_execution(holder) != "RUNNING"


def _reason(event: dict[str, Any]) -> str:
    status = (event.get("detail") or {}).get("status")
    return _REASONS.get(str(status), "the run died")


def _report_age(services: Services, instance: str | None) -> None:
    """The age of the newest complete backup; where there is none, the time since the first was begun."""
    catalog = read_catalog(services.store, instance) if instance else None
    if catalog is None or not catalog.rows:
        logger.info("no backup was begun yet, so no age is told: its alarm rings until the first")
        return
    latest = catalog.latest_complete()
    since = (latest.end_ts or latest.backup_timestamp) if latest else catalog.rows[0].start_ts
    services.metrics.add("BackupAgeSeconds", max(0.0, seconds_between(since, services.now())), "Seconds")


def _report_held(services: Services, read_function: str) -> None:
    """How long a checkpoint has been held by now, whosever it is, by the server's clock."""
    try:
        state = database_from_json(invoke_function(read_function, {}))
    except DatabaseUnavailableError as error:
        logger.warning("a server that is down holds no checkpoint, so none is looked for: %s", error)
        return
    started_at = state.checkpoint.started_at
    if state.checkpoint.in_progress and started_at is not None:
        held = max(0.0, seconds_between(started_at, state.now))
        services.metrics.add("CheckpointHeldSeconds", held, "Seconds")
