"""FailRestore: nothing is in place, what is staged waits for another try."""

from typing import Any

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.restore.request import Restore
from questdb_backup.services import Services
from questdb_backup.steps.fail_restore import fail_restore


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `fail_restore`."""
    return fail_restore(services, Restore.from_json(event["restore"]), event["error"])
