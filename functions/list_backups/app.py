"""ListBackups: the rows of backups()."""

from typing import Any

from questdb_backup.backups import list_backups
from questdb_backup.handler import Event, lambda_handler
from questdb_backup.services import Services


@lambda_handler
def handler(event: Event, services: Services) -> list[dict[str, Any]]:
    """See `list_backups`."""
    return list_backups(services, event.get("instance"))
