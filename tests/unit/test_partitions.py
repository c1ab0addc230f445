"""Names of partition directories, as a server made them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from questdb_backup.questdb.layout import UnknownLayout
from questdb_backup.questdb.partitions import PartitionBy, partition_directory, partition_key

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("by", "start", "name"),
    [
        (PartitionBy.NONE, "1970-01-01", "default"),
        (PartitionBy.HOUR, "2024-01-01T00:00:00", "2024-01-01T00"),
        (PartitionBy.HOUR, "2024-01-01T07:00:00", "2024-01-01T07"),
        (PartitionBy.HOUR, "2024-01-01T07:30:00", "2024-01-01T073000"),
        (PartitionBy.HOUR, "2024-01-01T07:00:00.000001", "2024-01-01T070000-000001"),
        (PartitionBy.DAY, "2024-01-01", "2024-01-01"),
        (PartitionBy.DAY, "2024-01-01T05:00:00", "2024-01-01T05"),
        (PartitionBy.DAY, "2024-01-04T11:00:00.000001", "2024-01-04T110000-000001"),
        (PartitionBy.DAY, "2023-01-01T07:59:59.999999", "2023-01-01T075959-999999"),
        (PartitionBy.WEEK, "2024-01-01", "2024-W01"),
        (PartitionBy.WEEK, "2024-12-30", "2025-W01"),
        (PartitionBy.WEEK, "2024-01-02", "2024-W01-2"),
        (PartitionBy.WEEK, "2024-01-01T05:00:00", "2024-W01-1T05"),
        (PartitionBy.WEEK, "1969-12-29", "1970-W01"),
        (PartitionBy.WEEK, "2024-01-14T20:00:00", "2024-W02-7T20"),
        (PartitionBy.MONTH, "2024-02-01", "2024-02"),
        (PartitionBy.MONTH, "2024-02-15", "2024-02-15"),
        (PartitionBy.MONTH, "2024-02-01T01:02:03", "2024-02-01T010203"),
        (PartitionBy.YEAR, "2024-01-01", "2024"),
        (PartitionBy.YEAR, "2024-02-01", "2024-02-01"),
    ],
)
def test_a_partition_is_named_after_its_start(by: PartitionBy, start: str, name: str) -> None:
    assert partition_directory(micros(start), by, nanos=False) == name
    assert partition_directory(micros(start), by, nanos=False, name_txn=12) == f"{name}.12"


def test_nanoseconds_have_nine_digits() -> None:
    start = micros("2024-01-14T20:00:00") * 1000
    assert partition_directory(start, PartitionBy.WEEK, nanos=True) == "2024-W02-7T20"
    assert partition_directory(start + 1, PartitionBy.WEEK, nanos=True) == "2024-W02-7T200000-000000001"
    assert partition_directory(start + 1, PartitionBy.DAY, nanos=True) == "2024-01-14T200000-000000001"


def test_a_year_of_five_digits_is_an_unknown_layout() -> None:
    with pytest.raises(UnknownLayout):
        partition_directory(1 << 62, PartitionBy.DAY, nanos=False)


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-(1 << 63), (1 << 63) - 1))
def test_keys_sort_like_timestamps(one: int, other: int) -> None:
    assert (partition_key(one) < partition_key(other)) == (one < other)
    assert len(partition_key(one)) == 20
