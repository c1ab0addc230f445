"""PlanRestore: which backup is restored to where, judged before anything changes."""

from typing import Any

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.services import Services
from questdb_backup.steps.plan_restore import plan_restore


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `plan_restore`."""
    return plan_restore(services, event["execution"], event.get("request") or {})
