"""ReadDatabase: the server's clock, version and checkpoint status."""

from typing import Any

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.services import Services
from questdb_backup.steps.database import read_database


@lambda_handler
def handler(_event: Event, services: Services) -> dict[str, Any]:
    """See `read_database`."""
    return read_database(services)
