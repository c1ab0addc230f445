"""CreateSnapshots: one crash-consistent set of EBS snapshots while the checkpoint is held."""

from typing import Any

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.questdb.base import Fence
from questdb_backup.services import Services
from questdb_backup.steps.run import Run
from questdb_backup.steps.snapshots import create_snapshots


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `create_snapshots`."""
    return create_snapshots(
        services,
        Run.from_json(event["run"]),
        Fence.from_json(event["fence"]),
        event["preflight"],
        event["attempt"],
    )
