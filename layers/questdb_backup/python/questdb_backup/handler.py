"""What every Lambda handler shares: its services, its log keys, its metrics.

On AWS the services are built once per process from the environment. The local engine brings its own
with the context object, so that the same handlers run in process.
"""

import functools
import logging
import os
from collections.abc import Callable
from typing import Any, Protocol

from questdb_backup.services import Services

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
        services = _services_of_process()
        logging.getLogger("questdb_backup").info(
            "step %s", step.__module__, extra={"run": event.get("run"), "source": event.get("source")}
        )
        try:
            return step(event, services)
        finally:
            flush = getattr(services.metrics, "flush", None)
            if flush is not None:
                flush()

    return entry


@functools.cache
def _services_of_process() -> Services:
    from questdb_backup.bootstrap_aws import services_from_environment

    return services_from_environment(os.environ)
