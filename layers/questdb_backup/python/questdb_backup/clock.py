"""Timestamps as QuestDB writes them, and the clock that decisions are given.

A timestamp is text in ISO 8601 UTC with six fraction digits, ``2024-08-24T12:34:56.789123Z``:
it sorts as text, and it is the id of a backup. In object keys it has the basic form
``20240824T123456.789123Z``, because ``:`` breaks some file systems.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from questdb_backup.errors import ConfigurationError

Clock = Callable[[], datetime]

_PATTERN = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:?\d\d)?", re.ASCII
)
_KEY = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)\.(\d{6})Z", re.ASCII)


def system_clock() -> datetime:
    """The current time, aware, UTC."""
    return datetime.now(UTC)


def format_timestamp(moment: datetime) -> str:
    """``2024-08-24T12:34:56.789123Z``; a naive datetime is taken as UTC, as QuestDB's pgwire gives it."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return aware.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"  # strftime pads no early year


def parse_timestamp(text: str) -> datetime:
    """An aware UTC datetime from ISO 8601 text.

    A date alone is its midnight; no zone is UTC; digits past microseconds are cut.
    Raise ConfigurationError for anything else.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match:
        date, time, fraction, zone = match.groups()
        iso = f"{date}T{time or '00:00'}"
        if fraction:
            iso += "." + fraction[:6].ljust(6, "0")
        try:
            return datetime.fromisoformat(iso + (zone or "Z")).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # a month 13, or before the year 1 in UTC: the error below names the text
    raise ConfigurationError(
        f"'{text}' is not a timestamp", "write it as 2024-08-24T12:34:56.789123Z (UTC), or a part of that"
    )


def to_key(timestamp: str) -> str:
    """The basic form of a timestamp, for object keys."""
    return timestamp.replace("-", "").replace(":", "")


def from_key(key: str) -> str:
    """The extended form of a key's timestamp. Raise ConfigurationError where it is none."""
    match = _KEY.fullmatch(key)
    if not match:
        raise ConfigurationError(f"'{key}' is not a backup's key", "keys look like 20240824T123456.789123Z")
    year, month, day, hour, minute, second, micros = match.groups()
    return f"{year}-{month}-{day}T{hour}:{minute}:{second}.{micros}Z"


def add_seconds(timestamp: str, seconds: float) -> str:
    """The timestamp so many seconds later."""
    return format_timestamp(parse_timestamp(timestamp) + timedelta(seconds=seconds))


def seconds_between(earlier: str, later: str) -> float:
    """Seconds from one timestamp to another."""
    return (parse_timestamp(later) - parse_timestamp(earlier)).total_seconds()
