"""RestoreDatabase: the invoked restore; starts the restore's state machine."""

import os
from typing import Any

from questdb_backup.aws_workflow import required, start_execution
from questdb_backup.handler import Event, lambda_handler
from questdb_backup.restore.request import RestoreRequest
from questdb_backup.services import Services


@lambda_handler
def handler(event: Event, _services: Services) -> dict[str, Any]:
    """Check the request's fields, start, and give the execution; follow it with DescribeExecution."""
    request = RestoreRequest.from_json(event)
    machine = required(os.environ, "QDB_BACKUP_RESTORE_STATE_MACHINE_ARN")
    return {"execution_arn": start_execution(machine, request.to_json())}
