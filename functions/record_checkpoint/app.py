"""RecordCheckpoint: note what became of CREATE."""

from typing import Any

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.questdb.base import Fence
from questdb_backup.services import Services
from questdb_backup.steps.intent import record_checkpoint
from questdb_backup.steps.run import Run


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `record_checkpoint`."""
    return record_checkpoint(
        services,
        Run.from_json(event["run"]),
        Fence.from_json(event["fence"]),
        event["fence"]["round"],
        event["checkpoint"],
    )
