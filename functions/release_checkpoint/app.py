"""ReleaseCheckpoint: release our checkpoint and no other."""

from typing import Any

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.questdb.base import Fence
from questdb_backup.services import Services
from questdb_backup.steps.database import release_checkpoint


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `release_checkpoint`."""
    return release_checkpoint(services, Fence.from_json(event["fence"]))
