"""ReleaseLock: give the lease back."""

from questdb_backup.handler import Event, lambda_handler
from questdb_backup.services import Services
from questdb_backup.steps.lock import release_lock
from questdb_backup.steps.run import Run


@lambda_handler
def handler(event: Event, services: Services) -> None:
    """See `release_lock`."""
    release_lock(services, Run.from_json(event["run"]))
