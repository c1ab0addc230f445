"""RestoreVolumes: volumes made of a backup's kept snapshots, one step further with each call."""

from typing import Any

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.restore.request import Restore
from questdb_backup.services import Services
from questdb_backup.steps.restore_volumes import restore_volumes


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `restore_volumes`."""
    return restore_volumes(
        services, Restore.from_json(event["restore"]), event["volumes"], event.get("error")
    )
