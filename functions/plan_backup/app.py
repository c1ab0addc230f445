"""PlanBackup: what the checkpoint references, cut into units of work."""

from typing import Any

from questdb_backup.ebs.base import volumes_of
from questdb_backup.handler import Event, lambda_handler
from questdb_backup.services import Services
from questdb_backup.steps.plan import plan_backup
from questdb_backup.steps.run import Run


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `plan_backup`."""
    return plan_backup(
        services,
        Run.from_json(event["run"]),
        event["source"],
        (event["database"] or {}).get("version") or services.config.server_version,
        event["fence"]["started_at"],
        event["attempt"],
        volumes_of(event["snapshots"]),
        (event["database"] or {}).get("data_id"),
    )
