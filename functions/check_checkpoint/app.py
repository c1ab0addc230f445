"""CheckCheckpoint: our checkpoint is held, and its files are whole."""

from typing import Any

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.questdb.base import Fence
from questdb_backup.services import Services
from questdb_backup.steps.intent import check_checkpoint


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `check_checkpoint`."""
    return check_checkpoint(services, Fence.from_json(event["fence"]), event["source"])
