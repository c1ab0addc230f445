"""The steps around EBS snapshots, over EC2 in memory."""

import json
from typing import Any

import pytest

from questdb_backup.catalog import drop_lease
from questdb_backup.catalog_store import read_catalog, update_catalog
from questdb_backup.ebs.base import CHECKPOINT_TAG, INSTANCE_TAG, RUN_TAG, STACK_TAG
from questdb_backup.ebs.target import choose_volumes
from questdb_backup.engine.history import HISTORY_LIMIT
from questdb_backup.errors import (
    CheckpointHeldError,
    ConfigurationError,
    LeaseLostError,
    PreflightError,
    SnapshotError,
    VolumeUnavailableError,
)
from questdb_backup.questdb.base import Fence
from questdb_backup.services import Services
from questdb_backup.steps.preflight import check_preflight
from questdb_backup.steps.run import Run
from questdb_backup.steps.snapshots import check_snapshots, create_snapshots
from questdb_backup.steps.sweep import plan_sweep, sweep_snapshots
from tests.support.ebs_kit import STARTED_AT, EbsKit
from tests.support.kit import INSTANCE


@pytest.fixture
def kit() -> EbsKit:
    return EbsKit()


def preflight(kit: EbsKit, run: Run, services: Services | None = None) -> dict[str, Any]:
    found = check_preflight(services or kit.services, run, "ebs", kit.database.read())
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


# ---- CheckPreflight


def test_the_data_volumes_are_taken_and_the_boot_volume_is_left_out(kit: EbsKit) -> None:
    run, _ = kit.begin()
    found = preflight(kit, run)
    assert found["instance_id"] == kit.i
    assert [volume["volume_id"] for volume in found["volumes"]] == kit.data
    assert (found["without_root"], found["without"]) == (True, [])


def test_the_boot_volume_is_taken_where_there_is_no_other(kit: EbsKit) -> None:
    for volume in kit.data:
        kit.ec2.detach(volume)
    run, _ = kit.begin()
    found = preflight(kit, run)
    assert [volume["volume_id"] for volume in found["volumes"]] == [kit.root]
    assert (found["without_root"], found["without"]) == (False, [])


def test_volumes_that_are_named_are_taken_alone_the_boot_volume_too(kit: EbsKit) -> None:
    run, _ = kit.begin()
    services = kit.make_services(settings={"ebs_volume_ids": (kit.root, kit.data[1])})
    found = preflight(kit, run, services)
    assert [volume["volume_id"] for volume in found["volumes"]] == [kit.root, kit.data[1]]
    assert (found["without_root"], found["without"]) == (False, [kit.data[0]])


def test_a_volume_that_is_named_and_not_attached_is_refused(kit: EbsKit) -> None:
    with pytest.raises(PreflightError, match="vol-9 is not attached"):
        choose_volumes(kit.ec2.volumes(kit.i), ["vol-9"])


def test_an_instance_without_volumes_is_refused(kit: EbsKit) -> None:
    for volume in (*kit.data, kit.root):
        kit.ec2.detach(volume)
    run, _ = kit.begin()
    with pytest.raises(PreflightError, match="has no EBS volume"):
        preflight(kit, run)


def test_the_instance_must_be_configured(kit: EbsKit) -> None:
    run, _ = kit.begin()
    with pytest.raises(ConfigurationError, match="EC2 instance is not known"):
        preflight(kit, run, kit.make_services(settings={"ebs_instance": None}))


def test_an_instance_that_does_not_run_is_a_warning(kit: EbsKit) -> None:
    run, _ = kit.begin()
    kit.ec2.set_state(kit.i, "stopped")
    found = preflight(kit, run, kit.make_services(settings={"ebs_instance": kit.i}))
    assert f"{kit.i} is stopped, and yet the database answers" in found["warnings"][-1]


def test_pending_snapshots_of_earlier_runs_are_a_warning_until_ec2_would_refuse_more(kit: EbsKit) -> None:
    run, fence = kit.begin()
    found = preflight(kit, run)
    create_snapshots(kit.services, run, fence, found, 0)
    assert [text for text in preflight(kit, run)["warnings"] if "still pending at 0 %" in text]
    for _ in range(4):
        create_snapshots(kit.services, run, fence, found, 0)
    with pytest.raises(PreflightError, match="has 5 snapshots that are pending"):
        preflight(kit, run)


def test_a_checkpoint_that_is_held_is_refused_before_ec2_is_asked(kit: EbsKit) -> None:
    run, _ = kit.begin()
    kit.database.hold_foreign()
    with pytest.raises(CheckpointHeldError):
        preflight(kit, run)
    assert kit.ec2.calls == []


# ---- CreateSnapshots


def prepared(kit: EbsKit) -> tuple[Run, Fence, dict[str, Any]]:
    run, fence = kit.begin()
    found = preflight(kit, run)
    kit.ec2.calls.clear()
    return run, fence, found


def test_the_first_attempt_makes_one_call_and_every_snapshot_is_tagged(kit: EbsKit) -> None:
    run, fence, found = prepared(kit)
    state = create_snapshots(kit.services, run, fence, found, 0)
    assert kit.ec2.calls == ["create_snapshots"]
    made = kit.ec2.snapshots()
    assert state == {
        "volumes": [
            {"volume_id": each.volume_id, "device": device, "snapshot_id": each.snapshot_id}
            for each, device in zip(made, ("/dev/sdf", "/dev/sdg"), strict=True)
        ],
        "state": "pending",
        "progress_percent": 0,
        "polls": 0,
        "wait_seconds": 15,
    }
    for each in made:
        assert each.tags == {
            RUN_TAG: run.backup_timestamp,
            INSTANCE_TAG: INSTANCE,
            STACK_TAG: "questdb-backup",
            CHECKPOINT_TAG: STARTED_AT,
            "Name": f"questdb-backup {INSTANCE} {run.backup_timestamp}",
        }


def test_a_later_attempt_takes_what_an_earlier_one_made(kit: EbsKit) -> None:
    run, fence, found = prepared(kit)
    first = create_snapshots(kit.services, run, fence, found, 0)
    assert create_snapshots(kit.services, run, fence, found, 1) == first
    assert kit.ec2.calls == ["create_snapshots", "find_snapshots"]


def test_a_later_attempt_waits_for_ec2_to_show_them(kit: EbsKit) -> None:
    run, fence, found = prepared(kit)
    kit.ec2.hidden_for = 3
    first = create_snapshots(kit.services, run, fence, found, 0)
    assert create_snapshots(kit.services, run, fence, found, 1) == first
    assert len(kit.ec2.snapshots()) == 2


def test_a_later_attempt_makes_them_where_the_earlier_one_did_not_get_to_it(kit: EbsKit) -> None:
    run, fence, found = prepared(kit)
    create_snapshots(kit.services, run, fence, found, 1)
    assert len(kit.ec2.snapshots()) == 2
    assert kit.ec2.calls[-1] == "create_snapshots"


def test_the_next_round_has_snapshots_of_its_own(kit: EbsKit) -> None:
    run, fence, found = prepared(kit)
    first = create_snapshots(kit.services, run, fence, found, 0)
    later = Fence(db_now=fence.db_now, window_seconds=30.0, started_at="2026-01-01T00:01:00.000000Z")
    second = create_snapshots(kit.services, run, later, found, 1)
    ids = [{volume["snapshot_id"] for volume in state["volumes"]} for state in (first, second)]
    assert not ids[0] & ids[1]


def test_an_outcome_that_is_unknown_is_settled_by_tag(kit: EbsKit) -> None:
    run, fence, found = prepared(kit)
    kit.ec2.lose_answer("after")
    kit.ec2.hidden_for = 2
    state = create_snapshots(kit.services, run, fence, found, 0)
    assert len(state["volumes"]) == 2
    assert kit.ec2.calls == ["create_snapshots", *["find_snapshots"] * 3]


def test_an_outcome_that_stays_unknown_fails_and_nothing_is_made_blindly(kit: EbsKit) -> None:
    run, fence, found = prepared(kit)
    kit.ec2.lose_answer("before")
    with pytest.raises(SnapshotError, match="no snapshots of it were found"):
        create_snapshots(kit.services, run, fence, found, 0)
    assert kit.ec2.calls.count("create_snapshots") == 1
    assert kit.ec2.snapshots() == []


def test_an_outcome_that_cannot_be_looked_for_is_not_for_the_workflow_to_retry(
    kit: EbsKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, fence, found = prepared(kit)
    kit.ec2.lose_answer("after")

    def no_answer(_tags: object) -> Any:
        raise VolumeUnavailableError("looking for snapshots by their tags: no answer")

    monkeypatch.setattr(kit.ec2, "find_snapshots", no_answer)
    with pytest.raises(SnapshotError, match=r"nor whether there are any: looking for .* no answer"):
        create_snapshots(kit.services, run, fence, found, 0)


def test_being_asked_to_slow_down_is_for_the_workflow_to_retry(kit: EbsKit) -> None:
    run, fence, found = prepared(kit)
    kit.ec2.be_busy()
    with pytest.raises(VolumeUnavailableError):
        create_snapshots(kit.services, run, fence, found, 0)


def test_a_volume_that_went_since_the_preflight_fails_the_step(kit: EbsKit) -> None:
    run, fence, found = prepared(kit)
    kit.ec2.detach(kit.data[1])
    with pytest.raises(SnapshotError, match=f"EC2 made no snapshot of {kit.data[1]}"):
        create_snapshots(kit.services, run, fence, found, 0)


def test_a_volume_that_came_since_the_preflight_changes_nothing(kit: EbsKit) -> None:
    run, fence, found = prepared(kit)
    kit.ec2.add_volume(kit.i, "/dev/sdb")
    state = create_snapshots(kit.services, run, fence, found, 0)
    assert [volume["volume_id"] for volume in state["volumes"]] == kit.data


# ---- CheckSnapshots


def snapshotted(kit: EbsKit) -> tuple[Run, dict[str, Any]]:
    run, fence, found = prepared(kit)
    return run, create_snapshots(kit.services, run, fence, found, 0)


def ids(state: dict[str, Any]) -> list[str]:
    return [volume["snapshot_id"] for volume in state["volumes"]]


def test_they_are_completed_when_all_are(kit: EbsKit) -> None:
    run, state = snapshotted(kit)
    kit.ec2.looks = 9
    kit.ec2.end_snapshot(ids(state)[0])
    first = check_snapshots(kit.services, run, state)
    assert (first["state"], first["polls"], first["volumes"]) == ("pending", 1, state["volumes"])
    assert first["progress_percent"] < 100, "of the one that has come least far"
    kit.ec2.end_snapshot(ids(state)[1])
    last = check_snapshots(kit.services, run, first)
    assert (last["state"], last["progress_percent"]) == ("completed", 100)


@pytest.mark.parametrize("state", ["error", "recoverable", "recovering"])
def test_a_state_that_leads_nowhere_fails_with_ec2s_message(kit: EbsKit, state: str) -> None:
    run, made = snapshotted(kit)
    kit.ec2.end_snapshot(ids(made)[1], state, "Given key ID is not accessible")
    with pytest.raises(SnapshotError, match=f"is in state '{state}': Given key ID is not accessible"):
        check_snapshots(kit.services, run, made)


def test_one_that_is_missing_is_waited_for_a_minute_and_then_gone(kit: EbsKit) -> None:
    run, state = snapshotted(kit)
    kit.ec2.drop_snapshot(ids(state)[0])
    for _ in range(4):
        state = check_snapshots(kit.services, run, state)
        assert state["state"] == "pending"
    with pytest.raises(SnapshotError, match=f"{ids(state)[0]} is gone"):
        check_snapshots(kit.services, run, state)


def test_the_waits_grow_and_end_after_46_hours_within_the_history(kit: EbsKit) -> None:
    kit.ec2.looks = 10_000
    run, state = snapshotted(kit)
    waits: list[int] = []

    def poll() -> None:
        nonlocal state
        while len(waits) < HISTORY_LIMIT:
            state = check_snapshots(kit.services, run, state)
            waits.append(state["wait_seconds"])
            kit.clock.forward(seconds=state["wait_seconds"])

    with pytest.raises(SnapshotError, match="is not completed after 46 h"):
        poll()
    assert waits[:39] == [15] * 39
    assert waits[39] == 60
    assert sum(waits) + 15 == 46 * 3600
    assert 9 * len(waits) < HISTORY_LIMIT * 0.7


def test_the_lease_is_renewed_while_they_are_pending(kit: EbsKit) -> None:
    run, state = snapshotted(kit)
    before = read_catalog(kit.inner, INSTANCE).lease
    kit.clock.forward(seconds=600)
    check_snapshots(kit.services, run, state)
    after = read_catalog(kit.inner, INSTANCE).lease
    assert before is not None
    assert after is not None
    assert after.expires_at > before.expires_at
    update_catalog(kit.inner, INSTANCE, lambda c: drop_lease(c, run.token, "test", kit.now()))
    with pytest.raises(LeaseLostError):
        check_snapshots(kit.services, run, state)


# ---- The sweep


def test_a_sweep_deletes_what_belongs_to_nobody_and_tells_what_it_could_not(kit: EbsKit) -> None:
    run, state = snapshotted(kit)
    assert sweep_snapshots(kit.services, INSTANCE)["deleted"] == [], "the run lives"
    update_catalog(kit.inner, INSTANCE, lambda c: drop_lease(c, run.token, "test", kit.now()))
    locked, free = ids(state)
    kit.ec2.lock_snapshot(locked)
    assert [gone.snapshot_id for gone in plan_sweep(kit.services, INSTANCE).remove] == [locked, free]
    report = sweep_snapshots(kit.services, INSTANCE)
    assert report["deleted"] == [free]
    assert [text for text in report["errors"] if locked in text]
    assert [each.snapshot_id for each in kit.ec2.snapshots()] == [locked]


def test_a_sweep_touches_no_other_stack_and_no_other_instance(kit: EbsKit) -> None:
    for tags in (
        {STACK_TAG: "other", INSTANCE_TAG: INSTANCE, RUN_TAG: "x"},
        {STACK_TAG: "questdb-backup", INSTANCE_TAG: "quiet-river-stone", RUN_TAG: "x"},
        {RUN_TAG: "x"},
    ):
        kit.ec2.create_snapshots(kit.i, tags, without_root=True, without=[])
    assert sweep_snapshots(kit.services, INSTANCE)["deleted"] == []
    assert len(kit.ec2.snapshots()) == 6


def test_a_sweep_that_ec2_refuses_fails_nobody(kit: EbsKit) -> None:
    kit.ec2.be_busy()
    report = sweep_snapshots(kit.services, INSTANCE)
    assert (report["deleted"], len(report["errors"])) == ([], 1)
