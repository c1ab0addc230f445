"""The schedule on one machine: a backup when one is due, the guard every five minutes between them."""

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from questdb_backup.clock import Clock, format_timestamp, system_clock
from questdb_backup.errors import BackupToolError
from questdb_backup.local.guarding import guard
from questdb_backup.local.options import Place
from questdb_backup.local.runner import run_backup
from questdb_backup.schedule import Schedule, next_runs
from questdb_backup.services import logger

GUARD_SECONDS = 300.0
_TICK_SECONDS = 1.0


def serve(place: Place, schedule: Schedule, stop: threading.Event) -> None:
    """Run the schedule of this machine until the stop event is set; an interrupt passes."""
    Server(
        schedule,
        enabled=place.settings.enabled,
        back_up=lambda request: run_backup(place, request),
        guard=lambda: guard(place),
        sleep=stop.wait,
        stop=stop,
    ).run()


class Server:
    """The loop of `serve`.

    A due time starts one backup; those that pass meanwhile (a backup runs, the machine sleeps), or
    before this was started, are not made up for. ``back_up`` is given the input of an execution. A
    failure of it, or of ``guard``, is told and ends nothing. Not ``enabled``, only the schedule rests.
    ``monotonic`` and ``sleep`` are in seconds.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        enabled: bool,
        back_up: Callable[[dict[str, Any]], dict[str, Any]],
        guard: Callable[[], object],
        stop: threading.Event,
        clock: Clock = system_clock,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._schedule = schedule
        self._enabled = enabled
        self._back_up = back_up
        self._guard = guard
        self._stop = stop
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep

    def run(self) -> None:
        """Guard and back up until the stop event is set."""
        due = self._next()
        guard_at = self._monotonic()
        while not self._stop.is_set():
            if self._monotonic() >= guard_at:
                _survive(self._guard)
                guard_at = self._monotonic() + GUARD_SECONDS
            if self._clock() >= due:
                self._start(due)
                due = self._next()
            self._sleep(_TICK_SECONDS)

    def _next(self) -> datetime:
        return next_runs(self._schedule, self._clock(), 1)[0]

    def _start(self, due: datetime) -> None:
        moment = format_timestamp(due)
        if not self._enabled:
            logger.warning("backup.enabled is false: the backup due at %s is left out", moment)
            return
        request = {"trigger": "schedule", "scheduled_time": moment}
        _survive(lambda: _tell(self._back_up(request)))


def _tell(result: dict[str, Any]) -> None:
    logger.info("backup %s is complete", result.get("backup_timestamp"))


def _survive(act: Callable[[], object]) -> None:
    """The next due time is worth more than an end with this error."""
    try:
        act()
    except BackupToolError as error:
        logger.error("%s", error)
    except Exception:
        logger.exception("an error that was not foreseen")
