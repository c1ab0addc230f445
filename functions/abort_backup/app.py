"""AbortBackup: as BACKUP ABORT."""

import os
from typing import Any

from questdb_backup.aws_guard import abort_stack
from questdb_backup.handler import Event, lambda_handler
from questdb_backup.services import Services


@lambda_handler
def handler(event: Event, services: Services) -> dict[str, Any]:
    """See `abort_stack`."""
    return abort_stack(services, event, os.environ)
