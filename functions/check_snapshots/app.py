"""CheckSnapshots: whether the snapshots are completed, and how long to wait where they are not."""

from typing import Any

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.services import Services
from questdb_backup.steps.run import Run
from questdb_backup.steps.snapshots import check_snapshots


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `check_snapshots`."""
    return check_snapshots(services, Run.from_json(event["run"]), event["snapshots"])
