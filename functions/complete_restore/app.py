"""CompleteRestore: every file checked, then put in place, the database last."""

from typing import Any

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.restore.request import Restore
from questdb_backup.services import Services
from questdb_backup.steps.complete_restore import complete_restore


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `complete_restore`."""
    return complete_restore(services, Restore.from_json(event["restore"]))
