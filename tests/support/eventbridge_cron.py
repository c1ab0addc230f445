"""An evaluator of EventBridge Scheduler's cron expressions, written from its documentation alone.

It shares no code with the product, so that the two can be held against each other.
"""

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()  # noqa: SIM905
WEEK_DAYS = "SUN MON TUE WED THU FRI SAT".split()  # noqa: SIM905


@dataclass(frozen=True, slots=True)
class EventBridgeCron:
    minutes: frozenset[int]
    hours: frozenset[int]
    month_day: str
    months: frozenset[int]
    week_day: str

    @classmethod
    def parse(cls, expression: str) -> "EventBridgeCron":
        match = re.fullmatch(r"cron\(([^()]+)\)", expression)
        assert match, f"{expression} is not cron(...)"
        assert len(expression) <= 256, f"{expression} is longer than 256 characters"
        fields = match[1].split(" ")
        assert len(fields) == 6, f"{expression} has {len(fields)} fields"
        assert (fields[2] == "?") != (fields[4] == "?"), f"{expression}: exactly one day field has to be ?"
        assert fields[5] == "*"
        return cls(
            values(fields[0], 0, 59),
            values(fields[1], 0, 23),
            fields[2],
            values(fields[3], 1, 12, MONTHS),
            fields[4],
        )

    def has_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        return self._has_week_day(day) if self.month_day == "?" else self._has_month_day(day)

    def _has_month_day(self, day: date) -> bool:
        last = calendar.monthrange(day.year, day.month)[1]
        if self.month_day == "L":
            return day.day == last
        if self.month_day.endswith("W"):
            wanted = int(self.month_day[:-1])
            working = [
                number for number in range(1, last + 1) if date(day.year, day.month, number).isoweekday() <= 5
            ]
            # Friday for a Saturday and Monday for a Sunday are one day away, so there are no ties.
            return day.day == min(working, key=lambda number: abs(number - wanted))
        return day.day in values(self.month_day, 1, 31)

    def _has_week_day(self, day: date) -> bool:
        number = day.isoweekday() % 7 + 1
        if match := re.fullmatch(r"([1-7])L", self.week_day):
            return number == int(match[1]) and (day + timedelta(days=7)).month != day.month
        if match := re.fullmatch(r"([1-7])#([1-5])", self.week_day):
            return number == int(match[1]) and (day.day - 1) // 7 + 1 == int(match[2])
        return number in values(self.week_day, 1, 7, WEEK_DAYS)

    def runs(self, zone: ZoneInfo, after: datetime, until: datetime) -> Iterator[datetime]:
        """Every run in (after, until]: a skipped local time is left out, a repeated one runs once."""
        day = after.astimezone(zone).date() - timedelta(days=1)
        while day <= until.astimezone(zone).date():
            if self.has_day(day):
                for hour in sorted(self.hours):
                    for minute in sorted(self.minutes):
                        local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
                        run = local.astimezone(UTC)
                        if after < run <= until and run.astimezone(zone).replace(fold=0) == local:
                            yield run
            day += timedelta(days=1)


def values(field: str, low: int, high: int, names: list[str] | None = None) -> frozenset[int]:
    """A list of ``*``, numbers, names, ranges and ``start/step``."""
    found: set[int] = set()
    for item in field.split(","):
        base, _, step = item.partition("/")
        first, _, last = base.partition("-")
        begin = low if first == "*" else _number(first, low, names)
        end = high if first == "*" or (step and not last) else _number(last or first, low, names)
        assert low <= begin <= end <= high, f"{item} is not within {low}-{high}"
        found.update(range(begin, end + 1, int(step or 1)))
    return frozenset(found)


def _number(text: str, low: int, names: list[str] | None) -> int:
    return names.index(text) + low if names and text in names else int(text)
