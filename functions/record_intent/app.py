"""RecordIntent: say that a CREATE is coming, by the server's own clock."""

from typing import Any

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.services import Services
from questdb_backup.steps.database import database_from_json
from questdb_backup.steps.intent import record_intent
from questdb_backup.steps.run import Run


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `record_intent`."""
    return record_intent(
        services, Run.from_json(event["run"]), database_from_json(event["database"]), event["fence"]["round"]
    )
