"""GuardCheckpoint: release what a dead run left behind; on status events and every five minutes."""

import os
from typing import Any

from questdb_backup.aws_guard import guard_stack
from questdb_backup.handler import Event, lambda_handler
from questdb_backup.services import Services


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `guard_stack`."""
    return guard_stack(services, event, os.environ)
