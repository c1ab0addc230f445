"""The sweep of EBS snapshots: of dead runs, and of backups beyond ``keep_ebs_snapshots``."""

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from questdb_backup.catalog_store import read_catalog
from questdb_backup.errors import BackupToolError
from questdb_backup.services import Services, logger
from questdb_backup.snapshot_retention import SnapshotPlan, plan_snapshots
from questdb_backup.steps.snapshots import tags_of_instance


def plan_sweep(services: Services, instance: str, removed: Collection[str] = ()) -> SnapshotPlan:
    """The dry run: what stays and what goes; ``removed`` are backups that retention is about to remove.

    The snapshots are listed before the catalog is read: whoever made one of them had the lease by then.
    """
    found = services.ec2.find_snapshots(tags_of_instance(services, instance))
    catalog = read_catalog(services.store, instance)
    live = {catalog.lease.run} if catalog.lease and catalog.lease.run else set()
    complete = [row.backup_timestamp for row in reversed(catalog.complete_rows())]
    return plan_snapshots(
        found,
        live=live,
        complete=[run for run in complete if run not in removed],
        keep=services.config.keep_ebs_snapshots,
        now=services.now(),
    )


def sweep_snapshots(services: Services, instance: str) -> dict[str, Any]:
    """Delete what `plan_sweep` says; give the report.

    One that is locked or in use is told among the errors and met again by the next sweep, and so is
    whatever EC2 answers: a sweep fails nobody.
    """
    try:
        plan = plan_sweep(services, instance)
    except BackupToolError as error:
        logger.warning("snapshots could not be swept: %s", error)
        return {**plan_to_json(SnapshotPlan(keep=(), remove=())), "deleted": [], "errors": [str(error)]}
    deleted, errors = [], []
    for gone in plan.remove:
        try:
            services.ec2.delete_snapshot(gone.snapshot_id)
            deleted.append(gone.snapshot_id)
        except BackupToolError as error:
            logger.warning("%s stays: %s", gone.snapshot_id, error)
            errors.append(f"{gone.snapshot_id}: {error}")
    return {**plan_to_json(plan), "deleted": deleted, "errors": errors}


def plan_to_json(plan: SnapshotPlan) -> dict[str, Any]:
    """The key ``snapshots`` of the JSON of `prune`."""
    return {
        "keep": [asdict(decision) for decision in plan.keep],
        "remove": [asdict(decision) for decision in plan.remove],
    }
