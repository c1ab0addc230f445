"""PruneBackups: retention's plan, then the cleanup."""

from typing import Any

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.services import Services
from questdb_backup.steps.prune import prune_backups
from questdb_backup.steps.run import Run


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `prune_backups`."""
    run = Run.from_json(event["run"])
    return prune_backups(services, run.instance, run.token)
