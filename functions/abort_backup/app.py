"""AbortBackup: as BACKUP ABORT."""

from typing import Any

from questdb_backup.abort import abort_backup
from questdb_backup.aws_workflow import is_execution, stop_execution
from questdb_backup.handler import Event, lambda_handler
from questdb_backup.services import Services


@lambda_handler
def handler(_event: Event, services: Services) -> dict[str, Any]:
    """See `abort_backup`."""
    return abort_backup(
        services, lambda holder, reason: is_execution(holder) and stop_execution(holder, reason)
    )
