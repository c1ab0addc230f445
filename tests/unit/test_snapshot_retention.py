"""Which snapshots stay: those of live runs, and the newest of the latest complete backups."""

import itertools
from dataclasses import replace

import pytest

from questdb_backup.ebs.base import KEPT_UNTIL_TAG, RUN_TAG, Snapshot
from questdb_backup.snapshot_retention import SnapshotPlan, plan_snapshots

A, B, C, D = (f"2026-01-0{day}T00:00:00.000000Z" for day in range(1, 5))
NOW = "2026-02-02T00:00:00.000000Z"
_numbers = itertools.count()


def snapshot(run: str | None, volume: str = "vol-1") -> Snapshot:
    number = next(_numbers)
    return Snapshot(
        snapshot_id=f"snap-{number}",
        volume_id=volume,
        state="completed",
        message="",
        progress_percent=100,
        size=1 << 30,
        started_at=f"2026-02-01T00:00:00.{number:06d}Z",
        tags={RUN_TAG: run} if run else {},
    )


def removed(plan: SnapshotPlan) -> list[str]:
    return [decision.run for decision in plan.remove]


@pytest.mark.parametrize(("keep", "gone"), [(0, [A, B, C]), (1, [A, B]), (2, [A]), (3, []), (9, [])])
def test_the_latest_complete_backups_keep_theirs(keep: int, gone: list[str]) -> None:
    listed = [snapshot(run) for run in (A, B, C)]
    plan = plan_snapshots(listed, live=(), complete=[C, B, A], keep=keep, now=NOW)
    assert removed(plan) == gone
    assert len(plan.keep) + len(plan.remove) == 3


def test_a_live_run_keeps_all_of_its_own_and_a_dead_one_nothing() -> None:
    listed = [snapshot(A), snapshot(B), snapshot(B), snapshot(C)]
    plan = plan_snapshots(listed, live={B}, complete=[A], keep=1, now=NOW)
    assert removed(plan) == [C]
    assert {decision.reason for decision in plan.keep} == {"latest 1 of 1", "its run is in progress"}
    assert plan.remove[0].reason == "its run is dead or its backup removed"


def test_a_complete_backup_keeps_the_newest_of_each_volume() -> None:
    """An earlier round of the run was torn."""
    first = [snapshot(A, "vol-1"), snapshot(A, "vol-2")]
    second = [snapshot(A, "vol-2"), snapshot(A, "vol-1")]
    plan = plan_snapshots([*first, *second], live=(), complete=[A], keep=1, now=NOW)
    assert {each.snapshot_id for each in plan.keep} == {each.snapshot_id for each in second}
    assert {each.reason for each in plan.remove} == {"replaced by a later one of its run"}


def test_a_run_that_is_complete_is_not_protected_by_its_lease() -> None:
    """The prune of a run sees its own backup listed, and its lease in force."""
    plan = plan_snapshots([snapshot(A), snapshot(B)], live={B}, complete=[B, A], keep=0, now=NOW)
    assert removed(plan) == [A, B]


def test_a_complete_backup_without_snapshots_counts_too() -> None:
    plan = plan_snapshots([snapshot(A)], live=(), complete=[B, A], keep=1, now=NOW)
    assert removed(plan) == [A]


def test_a_snapshot_without_a_run_goes() -> None:
    assert removed(plan_snapshots([snapshot(None)], live=(), complete=[A], keep=1, now=NOW)) == [""]


@pytest.mark.parametrize(("until", "stays"), [("2026-02-02T00:00:00.000001Z", True), (NOW, False)])
def test_what_a_restore_needs_stays_for_its_time(until: str, stays: bool) -> None:
    for run in (A, D):  # of an older backup, and of a run that is dead
        wanted = snapshot(run)
        wanted = replace(wanted, tags={**wanted.tags, KEPT_UNTIL_TAG: until})
        plan = plan_snapshots([wanted], live=(), complete=[B, A], keep=1, now=NOW)
        assert bool(plan.keep) is stays
        assert not stays or plan.keep[0].reason == f"a restore keeps it until {until}"


def test_nothing_gives_nothing() -> None:
    assert plan_snapshots([], live={A}, complete=[B], keep=1, now=NOW) == SnapshotPlan(keep=(), remove=())
