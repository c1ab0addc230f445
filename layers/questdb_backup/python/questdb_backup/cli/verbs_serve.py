"""The verb of the schedule: serve, and its ``--explain``."""

import argparse
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from questdb_backup.cli.verb import Outcome, Verb
from questdb_backup.cli.verbs_backup import need_root
from questdb_backup.clock import format_timestamp, system_clock
from questdb_backup.errors import ConfigurationError
from questdb_backup.local.options import Place
from questdb_backup.local.serve import serve
from questdb_backup.schedule import Schedule, explain, next_runs, to_eventbridge
from questdb_backup.services import logger

_EXPLAINED_RUNS = 5


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--explain",
        action="store_true",
        help="say when backups are due, also as EventBridge Scheduler expressions, and end",
    )


def _serve(arguments: argparse.Namespace, place: Place) -> Outcome:
    """Ctrl-C and SIGTERM are how a schedule ends: exit code 0, a backup under way is aborted first."""
    need_root(place)
    schedule = place.settings.schedule
    if schedule is None:
        raise ConfigurationError(
            "backup.schedule.cron is not set",
            "set it in conf/backup.conf, say backup.schedule.cron=0 0 * * *",
        )
    value = explained(schedule, enabled=place.settings.enabled)
    if arguments.explain:
        return Outcome(value=value, text="\n".join([*_runs_lines(value), *_eventbridge_lines(value)]))
    place.check_words()
    logger.setLevel(logging.INFO)
    stop = threading.Event()
    with _ended_by_signals(stop), suppress(KeyboardInterrupt):
        if not arguments.json:
            print("\n".join(_runs_lines(value)), flush=True)
        serve(place, schedule, stop)
    return Outcome(value=None)


def explained(schedule: Schedule, *, enabled: bool) -> dict[str, Any]:
    """The JSON of ``serve --explain``.

    ``eventbridge`` are the template's parameters, None where the schedule needs more than its two
    expressions; ``expressions`` are all of them.
    """
    expressions = to_eventbridge(schedule)
    first, second = [*expressions, ""][:2]
    parameters = {
        "ScheduleExpression": first,
        "ScheduleExpression2": second,
        "ScheduleTimezone": schedule.tz,
    }
    return {
        "schedule": explain(schedule),
        "enabled": enabled,
        "next_runs": [
            format_timestamp(moment) for moment in next_runs(schedule, system_clock(), _EXPLAINED_RUNS)
        ],
        "expressions": expressions,
        "eventbridge": parameters if len(expressions) <= 2 else None,
    }


def _runs_lines(value: dict[str, Any]) -> list[str]:
    lines = [value["schedule"], "next runs (UTC):", *(f"  {run}" for run in value["next_runs"])]
    if not value["enabled"]:
        lines.append("backup.enabled is false: none of them starts until it is set to true")
    return lines


def _eventbridge_lines(value: dict[str, Any]) -> list[str]:
    parameters = value["eventbridge"]
    if parameters is None:
        return [
            f"as EventBridge Scheduler expressions these are {len(value['expressions'])},"
            " the template takes two (write the days in fewer ways):",
            *(f"  {expression}" for expression in value["expressions"]),
        ]
    return [
        "parameters of the template on AWS:",
        *(f"  {name}={text}" for name, text in parameters.items()),
    ]


@contextmanager
def _ended_by_signals(stop: threading.Event) -> Iterator[None]:
    """A backup under way turns an interrupt into its own error: the event says that it was one."""

    def end(_signal: int, _frame: FrameType | None) -> NoReturn:
        stop.set()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


VERBS = (Verb(name="serve", help="run the schedule on this machine", configure=_configure, run=_serve),)
