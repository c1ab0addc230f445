"""When a backup is due: the next runs, the schedule in words, and as EventBridge Scheduler expressions.

Summer time: a local time that a change skips runs as much later by the wall clock as the change
skips (02:30 becomes 03:30), and one that a change repeats runs the first time only. EventBridge
Scheduler differs in the first case: it leaves that run out. UTC, or a time between 03:00 and 23:00,
avoids both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from heapq import heappop, heappush, merge
from itertools import groupby, islice, pairwise
from zoneinfo import ZoneInfo, available_timezones

from questdb_backup.cron import (
    Cron,
    Days,
    EveryDay,
    LastDay,
    MonthDays,
    NearestWeekday,
    NthWeekDay,
    WeekDays,
    parse_cron,
)
from questdb_backup.cron_words import describe
from questdb_backup.errors import ConfigurationError

_LARGEST_SHIFT = timedelta(hours=3)
_WEEK_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A cron expression (``backup.schedule.cron``) and its IANA time zone (``backup.schedule.tz``).

    Raise ConfigurationError where either is wrong.
    """

    cron: str
    tz: str = "UTC"

    def __post_init__(self) -> None:
        parse_cron(self.cron)
        check_time_zone(self.tz)


def check_time_zone(tz: str) -> ZoneInfo:
    """The time zone of that name. Raise ConfigurationError, with the nearest name, where there is none."""
    try:
        return ZoneInfo(tz)
    except (LookupError, ValueError, OSError):  # OSError: the name of a folder, say "America"
        by_lower = {name.lower(): name for name in available_timezones()}
        near = get_close_matches(tz.lower(), by_lower, n=1)
        raise ConfigurationError(
            f"'{tz}' is not a time zone",
            f"the nearest one is {by_lower[near[0]]}"
            if near
            else "use an IANA name like Europe/London, or UTC",
        ) from None


def explain(schedule: Schedule) -> str:
    """The schedule in plain English, without a full stop: ``at 02:00, every day (Europe/London)``."""
    return f"{describe(parse_cron(schedule.cron))} ({schedule.tz})"


def next_runs(schedule: Schedule, after: datetime, n: int) -> list[datetime]:
    """The next ``n`` runs after an aware moment, aware, UTC, ascending."""
    return list(islice(_runs(schedule, after), n))


def _runs(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    zone = ZoneInfo(schedule.tz)
    cron = parse_cron(schedule.cron)
    # A run that a change of the clock moved may come from a local time before this one.
    start = after.astimezone(zone).replace(tzinfo=None) - _LARGEST_SHIFT
    last = after.astimezone(UTC)
    waiting: list[datetime] = []
    for local in merge(*(_local_times(cron, days, start) for days in cron.days)):
        run = local.replace(tzinfo=zone).astimezone(UTC)
        heappush(waiting, run)
        skipped = run.astimezone(zone).replace(tzinfo=None) != local
        while waiting and waiting[0] <= run and not skipped:  # a skipped one may move past the next
            due = heappop(waiting)
            if due > last:
                last = due
                yield due


def _local_times(cron: Cron, days: Days, start: datetime) -> Iterator[datetime]:
    from croniter import croniter  # takes an eighth of a second to load, and few steps need it

    expression = _croniter_expression(cron, days)
    times: Iterator[datetime] = croniter(expression, start, ret_type=datetime)
    return times


def _croniter_expression(cron: Cron, days: Days) -> str:
    """One kind of day only: croniter takes the intersection where it is asked for W or # and another."""
    month_day, week_day = "*", "*"
    match days:
        case MonthDays(numbers):
            month_day = _list(numbers)
        case LastDay():
            month_day = "L"
        case NearestWeekday(day):
            month_day = f"{day}W"
        case WeekDays(numbers):
            week_day = _list(numbers)
        case NthWeekDay(day, nth):
            week_day = f"{day}#{nth}" if nth else f"L{day}"
    return f"{_list(cron.minutes)} {_list(cron.hours)} {month_day} {_list(cron.months)} {week_day}"


def _list(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))


def to_eventbridge(schedule: Schedule) -> list[str]:
    """The schedule as expressions ``cron(...)`` of EventBridge Scheduler, whose union it is.

    One expression mostly. Where both days are given, unix means either and EventBridge cannot say so:
    that gives one expression for each kind of day (``L``, ``W`` and ``#`` stand alone as well). Two of
    them may fire at the same minute: the lease lets one backup run. None is longer than the 256
    characters that EventBridge takes.
    """
    cron = parse_cron(schedule.cron)
    times = f"{_eventbridge_values(cron.minutes, 0, 59)} {_eventbridge_values(cron.hours, 0, 23)}"
    months = _eventbridge_values(cron.months, 1, 12)
    return [
        f"cron({times} {month_day} {months} {week_day} *)"
        for month_day, week_day in map(_eventbridge_days, cron.days)
    ]


def _eventbridge_days(days: Days) -> tuple[str, str]:
    """Day of month and day of week; one of them has to be ``?``. There Sunday is 1, names are safer."""
    match days:
        case EveryDay():
            return "*", "?"
        case MonthDays(numbers):
            return _eventbridge_values(numbers, 1, 31), "?"
        case LastDay():
            return "L", "?"
        case NearestWeekday(day):
            return f"{day}W", "?"
        case WeekDays(numbers):
            return "?", ",".join(_WEEK_DAYS[day] for day in numbers)
        case NthWeekDay(day, nth):
            return "?", f"{day + 1}#{nth}" if nth else f"{day + 1}L"


def _eventbridge_values(numbers: tuple[int, ...], low: int, high: int) -> str:
    """``*``, a step ``0/15`` that runs to the field's end, or a list with its ranges."""
    if len(numbers) == high - low + 1:
        return "*"
    steps = {later - earlier for earlier, later in pairwise(numbers)}
    if len(steps) == 1 and len(numbers) > 2:
        step = steps.pop()
        if step > 1 and numbers[-1] + step > high:
            return f"{numbers[0]}/{step}"
    return ",".join(f"{first}-{last}" if first != last else f"{first}" for first, last in _ranges(numbers))


def _ranges(numbers: tuple[int, ...]) -> list[tuple[int, int]]:
    """The numbers as ranges of consecutive ones."""
    found = []
    for _, group in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in group]
        found.append((members[0], members[-1]))
    return found
