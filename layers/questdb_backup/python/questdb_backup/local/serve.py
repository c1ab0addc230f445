"""The schedule on one machine: a backup when one is due, the guard every five minutes between them."""

import threading
import time
from collections.abc import Callable
from datetime import datetime

from questdb_backup.cli.verb import Outcome
from questdb_backup.clock import Clock, format_timestamp, system_clock
from questdb_backup.errors import BackupToolError, ConfigurationError
from questdb_backup.local.guarding import guard
from questdb_backup.local.options import Place
from questdb_backup.local.runner import run_backup
from questdb_backup.schedule import Schedule, explain, next_runs
from questdb_backup.services import logger

_GUARD_SECONDS = 300.0


def serve(place: Place, *, explain_only: bool = False) -> Outcome:
    """Run until interrupted; ``explain_only``: tell when backups are due, and end.

    A run that was missed while this was down is not made up for. ``backup.enabled=false`` stops the
    schedule and nothing else. Raise ConfigurationError without ``backup.schedule.cron``.
    """
    schedule = place.settings.schedule
    if schedule is None:
        raise ConfigurationError(
            "backup.schedule.cron is not set", 'set it in conf/backup.conf, say backup.schedule.cron=0 0 * * *'
        )
    runs = [format_timestamp(moment) for moment in next_runs(schedule, system_clock(), 5)]
    text = f"{explain(schedule)}\nnext runs (UTC):\n" + "\n".join(f"  {run}" for run in runs)
    if explain_only:
        return Outcome(value={"schedule": explain(schedule), "next_runs": runs}, text=text)
    print(text, flush=True)
    Server(place, schedule).run()
    return Outcome(value=None)


class Server:
    """The loop of `serve`, with a clock and a sleep that tests can drive."""

    def __init__(
        self,
        place: Place,
        schedule: Schedule,
        *,
        clock: Clock = system_clock,
        sleep: Callable[[float], object] = time.sleep,
        stop: threading.Event | None = None,
    ) -> None:
        self._place = place
        self._schedule = schedule
        self._clock = clock
        self._sleep = sleep
        self._stop = stop or threading.Event()

    def run(self) -> None:
        """Wait, guard, back up, until the stop event is set."""
        due = self._next(self._clock())
        guarded = 0.0
        while not self._stop.is_set():
            if time.monotonic() - guarded >= _GUARD_SECONDS:
                self._guarded(lambda: guard(self._place))
                guarded = time.monotonic()
            if self._clock() >= due:
                self._back_up(due)
                due = self._next(self._clock())
            self._sleep(1.0)

    def _next(self, after: datetime) -> datetime:
        return next_runs(self._schedule, after, 1)[0]

    def _back_up(self, due: datetime) -> None:
        if not self._place.settings.enabled:
            logger.warning("backup.enabled is false: the backup due at %s is left out", due)
            return
        request = {"trigger": "schedule", "scheduled_time": format_timestamp(due)}
        self._guarded(lambda: logger.warning("backup complete: %s", run_backup(self._place, request)))

    def _guarded(self, act: Callable[[], object]) -> None:
        """A failed run is told and must not end the schedule."""
        try:
            act()
        except BackupToolError as error:
            logger.error("%s", error)
