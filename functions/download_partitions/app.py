"""DownloadPartitions: one unit of work, verified, into the staging directory."""

from typing import Any

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.restore.request import Restore
from questdb_backup.services import Services
from questdb_backup.steps.download import download_partitions


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `download_partitions`."""
    return download_partitions(services, Restore.from_json(event["restore"]), event["unit"])
