"""The guard on AWS: it decides here, and asks the function in the VPC to release."""

from collections.abc import Mapping
from typing import Any

from questdb_backup.aws_workflow import describe_execution, invoke_function, is_execution, required
from questdb_backup.backups import deployed_instance
from questdb_backup.catalog_store import read_catalog
from questdb_backup.clock import seconds_between
from questdb_backup.questdb.base import Fence, ReleaseOutcome
from questdb_backup.services import Services
from questdb_backup.steps.database import release_from_json
from questdb_backup.steps.guard import GuardReport, guard_checkpoint

_REASONS = {
    "FAILED": "the execution failed",
    "TIMED_OUT": "the execution ran into its timeout",
    "ABORTED": "the execution was stopped",
}


def guard_stack(services: Services, event: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Run the guard for a status event of EventBridge or a tick of its schedule; give its report.

    What fails passes, so that no heartbeat is emitted and the delivery is tried again.
    """
    function = required(environ, "QDB_BACKUP_RELEASE_CHECKPOINT_FUNCTION")

    def release(fence: Fence) -> ReleaseOutcome:
        return release_from_json(invoke_function(function, {"fence": fence.to_json()}))

    instance = deployed_instance(services)
    report = GuardReport(outcome="idle")
    if instance is not None:
        report = guard_checkpoint(services, instance, is_dead=is_dead, release=release, reason=_reason(event))
        _report_age(services, instance)
    services.metrics.add("GuardHeartbeat", 1, "Count")
    return report.to_json()


def is_dead(holder: str) -> bool:
    """Whether the execution that holds the lease has ended; a holder on another host is never judged."""
    return is_execution(holder) and describe_execution(holder) != "RUNNING"


def _reason(event: dict[str, Any]) -> str:
    status = (event.get("detail") or {}).get("status")
    return _REASONS.get(str(status), "the run died")


def _report_age(services: Services, instance: str) -> None:
    """The age of the newest backup; none is told where there is none."""
    latest = read_catalog(services.store, instance).latest_complete()
    if latest is not None:
        age = seconds_between(latest.end_ts or latest.backup_timestamp, services.now())
        services.metrics.add("BackupAgeSeconds", max(0.0, age), "Seconds")
