"""FailBackup: the row of a run that ended with an error."""

from typing import Any

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.questdb.base import Fence
from questdb_backup.services import Services
from questdb_backup.steps.fail import fail_backup
from questdb_backup.steps.run import Run


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `fail_backup`."""
    return fail_backup(
        services,
        Run.from_json(event["run"]),
        Fence.from_json(event["fence"]),
        event["error"],
        event["final_release"],
    )
