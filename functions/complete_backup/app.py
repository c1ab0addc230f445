"""CompleteBackup: manifest, then the catalog's swap, the commit."""

from typing import Any

from questdb_backup.ebs.base import volumes_of
from questdb_backup.handler import Event, lambda_handler
from questdb_backup.questdb.base import Fence
from questdb_backup.services import Services
from questdb_backup.steps.complete import complete_backup
from questdb_backup.steps.run import Run


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `complete_backup`."""
    return complete_backup(
        services,
        Run.from_json(event["run"]),
        event["source"],
        event["plan"],
        (event["database"] or {}).get("version") or services.config.server_version,
        Fence.from_json(event["fence"]),
        event["release"],
        volumes_of(event["snapshots"]),
    )
