"""A cron expression in plain English."""

from collections.abc import Sequence

from questdb_backup.cron import (
    Cron,
    Days,
    EveryDay,
    LastDay,
    MonthDays,
    NearestWeekday,
    NthWeekDay,
    WeekDays,
)

_WEEK_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_PLACES = ("first", "second", "third", "fourth", "fifth")
_MOST_TIMES = 6


def describe(cron: Cron) -> str:
    """When it is due, without the zone: ``at 02:00, every day``."""
    return f"{_times(cron)}, {', or '.join(map(_days, cron.days))}{_months(cron)}"


def _times(cron: Cron) -> str:
    minutes, hours = cron.minutes, cron.hours
    if len(minutes) * len(hours) <= _MOST_TIMES:
        return "at " + _joined([f"{hour:02}:{minute:02}" for hour in hours for minute in minutes])
    if len(hours) == 24:
        return "every hour, on the hour" if minutes == (0,) else _minutes(minutes)
    return f"{_minutes(minutes)} of the hours {_spans(hours)}"


def _minutes(minutes: tuple[int, ...]) -> str:
    if len(minutes) == 60:
        return "every minute"
    if len(minutes) == 1:
        return f"at minute {minutes[0]}"
    step = minutes[1] - minutes[0]
    if minutes == tuple(range(0, 60, step)) and 60 % step == 0:
        return f"every {step} minutes"
    return f"at the minutes {_spans(minutes)}"


def _days(days: Days) -> str:
    match days:
        case EveryDay():
            return "every day"
        case MonthDays(numbers):
            return f"on day {_spans(numbers)} of the month"
        case LastDay():
            return "on the last day of the month"
        case NearestWeekday(day):
            return f"on the weekday nearest to day {day} of the month"
        case WeekDays(numbers):
            return _week_days(numbers)
        case NthWeekDay(day, nth):
            return f"on the {_PLACES[nth - 1] if nth else 'last'} {_WEEK_DAYS[day]} of the month"


def _week_days(numbers: tuple[int, ...]) -> str:
    if len(numbers) == 7:
        return "every day"
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"from {_WEEK_DAYS[numbers[0]]} to {_WEEK_DAYS[numbers[-1]]}"
    return "every " + _joined([_WEEK_DAYS[day] for day in numbers])


def _months(cron: Cron) -> str:
    if len(cron.months) == 12:
        return ""
    return ", in " + _joined([_MONTHS[month - 1] for month in cron.months])


def _spans(numbers: tuple[int, ...]) -> str:
    """``0, 15 and 40``; consecutive numbers as ``9 to 17``."""
    words: list[str] = []
    first = 0
    for place, number in enumerate(numbers):
        if place + 1 == len(numbers) or numbers[place + 1] != number + 1:
            run = numbers[first : place + 1]
            words += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run)
            first = place + 1
    return _joined(words)


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
