"""Names of partition directories.

The formats are those of QuestDB's ``MicrosTimestampDriver.java`` and ``NanosTimestampDriver.java``
(``IsoDatePartitionFormat``, ``IsoWeekPartitionFormat``; before 9.1 in ``cairo/ptt``) under
``core/src/main/java/io/questdb/cairo``, the suffix that of ``TableUtils.setSinkForNativePartition``.
"""

from datetime import date, timedelta
from enum import IntEnum

from questdb_backup.questdb.layout import UnknownLayout

_EPOCH = date(1970, 1, 1)
_MICROS_PER_DAY = 86_400_000_000


class PartitionBy(IntEnum):
    """The codes in ``_meta`` (QuestDB's ``PartitionBy.java``)."""

    DAY = 0
    MONTH = 1
    YEAR = 2
    NONE = 3
    HOUR = 4
    WEEK = 5


def partition_key(timestamp: int) -> str:
    """20 digits that sort as text like the timestamps (i64) do."""
    return f"{timestamp + (1 << 63):020d}"


def partition_directory(timestamp: int, by: PartitionBy, *, nanos: bool, name_txn: int = -1) -> str:
    """The directory of the partition that starts at ``timestamp`` (micros, or nanos since 1970).

    A part that was split off starts within its day, month or hour, and is named by its exact start.
    Raise UnknownLayout for a year beyond 9999.
    """
    suffix = f".{name_txn}" if name_txn > -1 else ""
    if by is PartitionBy.NONE:
        return "default" + suffix
    per_day = _MICROS_PER_DAY * (1000 if nanos else 1)
    days, time = divmod(timestamp, per_day)
    try:
        day = _EPOCH + timedelta(days=days)
    except OverflowError as error:
        raise UnknownLayout(f"a partition at {timestamp}") from error
    digits = 9 if nanos else 6
    name = (
        _week(day, time, per_day, digits) if by is PartitionBy.WEEK else _date(day, time, by, per_day, digits)
    )
    return name + suffix


def _date(day: date, time: int, by: PartitionBy, per_day: int, digits: int) -> str:
    if by is PartitionBy.HOUR and time % (per_day // 24) == 0:
        return f"{day.isoformat()}T{time // (per_day // 24):02d}"
    if by is PartitionBy.YEAR and time == 0 and (day.month, day.day) == (1, 1):
        return f"{day.year:04d}"
    if by is PartitionBy.MONTH and time == 0 and day.day == 1:
        return f"{day.year:04d}-{day.month:02d}"
    return day.isoformat() + _clock(time, per_day, digits)


def _week(day: date, time: int, per_day: int, digits: int) -> str:
    year, week, weekday = day.isocalendar()
    name = f"{year:04d}-W{week:02d}"
    if weekday == 1 and time == 0:
        return name
    return f"{name}-{weekday}{_clock(time, per_day, digits)}"


def _clock(time: int, per_day: int, digits: int) -> str:
    """``T07``, ``T075959`` or ``T075959-999999``; nothing at midnight."""
    if time == 0:
        return ""
    hour, rest = divmod(time, per_day // 24)
    seconds, fraction = divmod(rest, per_day // 86_400)
    text = f"T{hour:02d}"
    if rest:
        text += f"{seconds // 60:02d}{seconds % 60:02d}"
    return f"{text}-{fraction:0{digits}d}" if fraction else text
