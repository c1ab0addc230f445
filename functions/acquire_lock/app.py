"""AcquireLock: take the instance's lease; one backup at a time."""

from typing import Any

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.services import Services
from questdb_backup.steps.lock import acquire_lock


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `acquire_lock`."""
    return acquire_lock(services, event["execution"], event.get("request") or {})
