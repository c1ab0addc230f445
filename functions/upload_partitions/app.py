"""UploadPartitions: one unit of work, its new chunks stored in packs."""

from typing import Any

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.services import Services
from questdb_backup.steps.run import Run
from questdb_backup.steps.upload import upload_partitions


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `upload_partitions`."""
    run, item, attempt = Run.from_json(event["run"]), event["item"], event["attempt"]
    return upload_partitions(services, run, item, attempt, workers=event["workers"])
