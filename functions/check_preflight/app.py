"""CheckPreflight: what can be known to be wrong before CREATE."""

from typing import Any

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.services import Services
from questdb_backup.steps.database import database_from_json
from questdb_backup.steps.preflight import check_preflight
from questdb_backup.steps.run import Run


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `check_preflight`."""
    return check_preflight(
        services, Run.from_json(event["run"]), event["source"], database_from_json(event["database"])
    )
