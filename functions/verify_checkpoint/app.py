"""VerifyCheckpoint: after the copy, the very same checkpoint is still held."""

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.questdb.base import Fence
from questdb_backup.services import Services
from questdb_backup.steps.database import verify_checkpoint


@lambda_handler
def handler(event: Event, services: Services) -> None:
    """See `verify_checkpoint`."""
    verify_checkpoint(services, Fence.from_json(event["fence"]))
