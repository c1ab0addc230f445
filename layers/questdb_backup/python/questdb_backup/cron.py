"""The cron expressions that ``backup.schedule.cron`` may hold: five fields, as QuestDB Enterprise has them.

Minute, hour and month take ``*``, lists, ranges and steps; months and days of the week may be names.
The day of the month takes ``L`` (the last day) and ``15W`` (the weekday nearest to the 15th) besides, the
day of the week (0-7, 0 and 7 are Sunday) ``5L`` (the last Friday of the month) and ``5#3`` (the third).
Where both days are given, either is enough.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from questdb_backup.errors import ConfigurationError

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EXAMPLE = "write minute, hour, day of month, month, day of week: '0 2 * * *' is every day at 02:00"
_LONGEST_MONTH = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
_ITEM = re.compile(r"(\*|\w+)(?:-(\w+))?(?:/(\d+))?", re.ASCII)
_NEAREST = re.compile(r"(\d+)W", re.ASCII | re.IGNORECASE)
_NTH = re.compile(r"(\w+?)(?:#([1-5])|L)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class EveryDay:
    """No day is chosen."""


@dataclass(frozen=True, slots=True)
class MonthDays:
    """Days of the month, 1-31, ascending."""

    days: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LastDay:
    """The last day of the month."""


@dataclass(frozen=True, slots=True)
class NearestWeekday:
    """The Monday-Friday day nearest to a day of the month, within the month."""

    day: int


@dataclass(frozen=True, slots=True)
class WeekDays:
    """Days of the week, 0 is Sunday, ascending."""

    days: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NthWeekDay:
    """The first to fifth of a day of the week within the month; ``nth`` None is the last one."""

    day: int
    nth: int | None


Days = EveryDay | MonthDays | LastDay | NearestWeekday | WeekDays | NthWeekDay


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """A parsed expression; the ``days`` are alternatives, any of them is enough."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: tuple[int, ...]
    days: tuple[Days, ...]


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    wraps: bool = False


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEK_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_MINUTE = _Field("minute", 0, 59)
_HOUR = _Field("hour", 0, 23)
_MONTH_DAY = _Field("day of month", 1, 31)
_MONTH = _Field("month", 1, 12, _MONTHS)
_WEEK_DAY = _Field("day of week", 0, 7, _WEEK_DAYS, wraps=True)


def parse_cron(text: str) -> Cron:
    """Parse an expression or one of `ALIASES`.

    Raise ConfigurationError for any other form (seconds, years, ``H``, ``@reboot``), a value out of its
    range, and days that never come.
    """
    fields = _fields_of(text)
    try:
        cron = Cron(
            minutes=_values(fields[0], _MINUTE),
            hours=_values(fields[1], _HOUR),
            months=_values(fields[3], _MONTH),
            days=_days(fields[2], fields[4]),
        )
        _refuse_days_that_never_come(cron)
    except ValueError as error:
        raise ConfigurationError(f"'{text}' is not a cron expression: {error}", _EXAMPLE) from None
    return cron


def _fields_of(text: str) -> list[str]:
    expression = text.strip()
    if expression.startswith("@"):
        if expression.lower() not in ALIASES:
            raise ConfigurationError(
                f"'{text}' is not a schedule", f"of these words there are {', '.join(sorted(ALIASES))}"
            )
        expression = ALIASES[expression.lower()]
    fields = expression.split()
    if len(fields) != 5:
        raise ConfigurationError(
            f"'{text}' has {len(fields)} fields, a cron expression here has 5 (no seconds, no year)", _EXAMPLE
        )
    return fields


def _values(text: str, field: _Field) -> tuple[int, ...]:
    return tuple(sorted({value for item in text.split(",") for value in _expand(item, field)}))


def _expand(item: str, field: _Field) -> Iterator[int]:
    match = _ITEM.fullmatch(item)
    if not match or (match[1] == "*" and match[2]):
        raise ValueError(f"'{item}' in the {field.name} field")
    low, high = _bounds(match, field)
    step = int(match[3] or 1)
    if step == 0:
        raise ValueError(f"the step of '{item}' in the {field.name} field is 0")
    if low > high:
        if not field.wraps:
            raise ValueError(f"'{item}' in the {field.name} field runs backwards")
        high += 7
    return (value % 7 if field.wraps else value for value in range(low, high + 1, step))


def _bounds(match: re.Match[str], field: _Field) -> tuple[int, int]:
    highest = 6 if field.wraps else field.high
    if match[1] == "*":
        return field.low, highest
    low = _number(match[1], field)
    if match[2]:
        return low, _number(match[2], field)
    return low, max(low, highest) if match[3] else low


def _number(text: str, field: _Field) -> int:
    if text.upper() in field.names:
        return field.names.index(text.upper()) + field.low
    if not text.isdecimal():
        raise ValueError(f"'{text}' in the {field.name} field")
    if not field.low <= int(text) <= field.high:
        raise ValueError(f"{text} in the {field.name} field is not within {field.low}-{field.high}")
    return int(text)


def _days(month_day: str, week_day: str) -> tuple[Days, ...]:
    chosen: list[Days] = []
    if month_day != "*":
        special, plain = _split(month_day, _month_day_special)
        chosen += [MonthDays(_values(plain, _MONTH_DAY))] if plain else []
        chosen += special
    if week_day != "*":
        special, plain = _split(week_day, _week_day_special)
        chosen += [WeekDays(_values(plain, _WEEK_DAY))] if plain else []
        chosen += special
    return tuple(dict.fromkeys(chosen)) or (EveryDay(),)


def _split(text: str, special_of: Callable[[str], Days | None]) -> tuple[list[Days], str]:
    """The special items of a day field, and the others joined again."""
    items = [(item, special_of(item)) for item in text.split(",")]
    return [day for _, day in items if day], ",".join(item for item, day in items if not day)


def _month_day_special(item: str) -> Days | None:
    if item.upper() == "L":
        return LastDay()
    match = _NEAREST.fullmatch(item)
    if match is None:
        return None
    if not 1 <= int(match[1]) <= 28:
        raise ValueError(f"{item}: not every month has that day, 1W to 28W can be used")
    return NearestWeekday(int(match[1]))


def _week_day_special(item: str) -> Days | None:
    match = _NTH.fullmatch(item)
    if match is None:
        return None
    return NthWeekDay(_number(match[1], _WEEK_DAY) % 7, int(match[2]) if match[2] else None)


def _refuse_days_that_never_come(cron: Cron) -> None:
    longest = max(_LONGEST_MONTH.get(month, 31) for month in cron.months)
    for days in cron.days:
        if isinstance(days, MonthDays) and days.days[0] > longest:
            raise ValueError(f"day {days.days[0]} never comes in the given months")
