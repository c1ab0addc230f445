import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from questdb_backup.errors import ConfigurationError
from questdb_backup.retention import KeepLatest, plan_retention
from questdb_backup.words import BackupStatus

GOLDEN = Path(__file__).parent / "golden" / "retention.json"
NOW = "2025-09-01T00:00:00.000000Z"


@dataclass(frozen=True, slots=True)
class Row:
    backup_timestamp: str
    status: str


def row(day: int, status: str = "backup complete") -> Row:
    return Row(f"2025-08-{day:02}T12:00:00.000000Z", status)


ROWS = st.lists(
    st.builds(row, st.integers(1, 28), st.sampled_from([str(status) for status in BackupStatus])),
    unique_by=lambda each: each.backup_timestamp,
)


def cases() -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in json.loads(GOLDEN.read_text())]


@pytest.mark.parametrize("case", cases())
def test_the_plan_is_the_golden_one(case: dict[str, Any]) -> None:
    rows = [Row(timestamp, status) for timestamp, status in case["rows"]]

    plan = plan_retention(rows, KeepLatest(n=case["n"]), NOW)

    assert json.loads(json.dumps(asdict(plan))) == case["plan"] | {"planned_at": NOW}


@given(ROWS, st.integers(1, 40))
def test_the_plan_keeps_the_newest_complete_backups_and_no_others(rows: list[Row], n: int) -> None:
    plan = plan_retention(rows, KeepLatest(n=n), NOW)
    kept = [decision.backup_timestamp for decision in plan.keep]
    removed = [decision.backup_timestamp for decision in plan.remove]
    complete = {each.backup_timestamp for each in rows if each.status == "backup complete"}

    assert set(kept) | set(removed) == complete
    assert not set(kept) & set(removed)
    assert len(kept) == min(n, len(complete))
    assert not complete or max(complete) in kept
    assert all(stays > goes for stays in kept for goes in removed)
    assert all(decision.reasons for decision in plan.keep + plan.remove)
    assert kept == sorted(kept, reverse=True)
    assert removed == sorted(removed, reverse=True)


@given(ROWS, st.integers(1, 40))
def test_only_a_cleanup_that_began_is_unfinished(rows: list[Row], n: int) -> None:
    plan = plan_retention(rows, KeepLatest(n=n), NOW)

    assert list(plan.unfinished) == sorted(
        each.backup_timestamp for each in rows if each.status in ("cleanup in progress", "cleanup failed")
    )


@given(ROWS, st.integers(1, 40), st.randoms())
def test_the_order_of_the_rows_does_not_matter(rows: list[Row], n: int, chance: Any) -> None:
    shuffled = list(rows)
    chance.shuffle(shuffled)

    assert plan_retention(shuffled, KeepLatest(n=n), NOW) == plan_retention(rows, KeepLatest(n=n), NOW)


@given(ROWS, st.integers(1, 40))
def test_after_the_plan_is_carried_out_nothing_more_goes(rows: list[Row], n: int) -> None:
    removed = {each.backup_timestamp for each in plan_retention(rows, KeepLatest(n=n), NOW).remove}
    after = [
        Row(each.backup_timestamp, "cleanup complete") if each.backup_timestamp in removed else each
        for each in rows
    ]

    assert plan_retention(after, KeepLatest(n=n), NOW).remove == ()


def test_a_backup_that_is_listed_twice_does_not_push_another_one_out() -> None:
    rows = [row(1), row(2), row(2)]

    assert plan_retention(rows, KeepLatest(n=2), NOW).remove == ()


@pytest.mark.parametrize("n", [0, -1])
def test_a_policy_that_keeps_nothing_is_refused(n: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"keep\.latest\.n={n} would leave no backup"):
        KeepLatest(n=n)
