"""What every Lambda handler shares: its services, and the keys of its log lines.

On AWS the services are built once per process from the environment. The local engine brings its own
with the context object, so that the same handlers run in process.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, Protocol

from questdb_backup.services import Services, logger

Event = dict[str, Any]
Step = Callable[[Event, Services], Any]


class Handler(Protocol):
    """A Lambda entry point."""

    def __call__(self, event: Event, context: object) -> Any:
        """Run one step; what it raises ends the task with the exception's class name."""


def lambda_handler(step: Step) -> Handler:
    """Make a Lambda entry point of a step that takes the event and the services."""

    @functools.wraps(step)
    def entry(event: Event, context: object) -> Any:
        local = getattr(context, "services", None)
        if isinstance(local, Services):
            return step(event, local)
        return _logged(step, event, context, _services_of_process())

    return entry


def _logged(step: Step, event: Event, context: object, services: Services) -> Any:
    """Run the step; its begin, its end and its error are log lines, and every line names run and instance."""
    from questdb_backup.bootstrap_aws import set_log_keys

    set_log_keys(
        {
            **_run_keys(event),
            "function_name": getattr(context, "function_name", None),
            "function_request_id": getattr(context, "aws_request_id", None),
        }
    )
    logger.info("begun")
    try:
        result = step(event, services)
    except Exception as error:
        logger.error("%s: %s", type(error).__name__, error)
        raise
    if isinstance(result, dict) and result.keys() & {"run", "restore"}:
        set_log_keys(_run_keys(result))
    logger.info("done")
    return result


def _run_keys(value: Event) -> dict[str, str | None]:
    """Instance and backup_timestamp of a backup's run, or of the backup that is restored."""
    run = value.get("run") or value.get("restore") or {}
    return {"instance": run.get("instance"), "run": run.get("backup_timestamp")}


@functools.cache
def _services_of_process() -> Services:
    from questdb_backup.bootstrap_aws import services_from_environment

    return services_from_environment(os.environ)
