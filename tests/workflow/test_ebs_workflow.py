"""The deployed state machine on the source ebs, up to the plan: EC2 and the server are in memory.

What comes after PlanBackup is that of a folder: how files are read out of snapshots is tested elsewhere.
"""

from collections.abc import Callable
from typing import Any

import pytest

from questdb_backup.catalog_store import read_catalog
from questdb_backup.ebs.base import CHECKPOINT_TAG, RUN_TAG
from questdb_backup.engine.execution import ExecutionResult
from questdb_backup.engine.history import EngineEvent
from questdb_backup.services import Services
from questdb_backup.steps.plan import plan_backup
from questdb_backup.steps.prune import plan_prune
from questdb_backup.steps.run import Run
from questdb_backup.steps.sweep import sweep_snapshots
from tests.support.ebs_kit import EbsKit, entered
from tests.support.faults import Faulty, Gate, raise_injected
from tests.support.kit import INSTANCE, DictSource

HELD = [
    "status.record_fence",  # RecordCheckpoint: what became of CREATE
    "database.read",  # CheckCheckpoint
    "ec2.create_snapshots",  # CreateSnapshots
    "database.read",  # VerifyCheckpoint
]
EBS_STATES = [
    "CreateCheckpoint",
    "RecordCheckpoint",
    "WasCheckpointCreated",
    "CheckCheckpoint",
    "IsCheckpointWhole",
    "HowIsItCopied",
    "CreateSnapshots",
    "VerifyCheckpoint",
    "ReleaseCheckpoint",
    "WhatIsReleased",
]


def make_kit() -> EbsKit:
    return EbsKit(DictSource({"db/t~1/20260101/x.d": b"data", "conf/server.conf": b"a=b\n"}))


@pytest.fixture
def kit() -> EbsKit:
    return make_kit()


def plan(kit: EbsKit) -> Callable[[dict[str, Any]], Any]:
    """PlanBackup of the folder instead of the snapshots."""

    def planned(event: dict[str, Any]) -> Any:
        assert len(event["snapshots"]["volumes"]) == 2
        assert event["snapshots"]["state"] == "completed"
        run = Run.from_json(event["run"])
        return plan_backup(kit.services, run, "path", "9.3.4", event["fence"]["started_at"], 0)

    return planned


def run(kit: EbsKit, services: Services | None = None, **replaced: Any) -> ExecutionResult:
    return kit.run(services, **{"PlanBackup": plan(kit), **replaced})


def backed_up(kit: EbsKit) -> str:
    result = run(kit)
    assert result.status == "SUCCEEDED", (result.error, result.cause)
    assert isinstance(result.output, dict)
    return str(result.output["backup_timestamp"])


def through(kit: EbsKit, gate: Gate) -> Services:
    """Services whose every call passes the gate."""
    sound = kit.services
    return kit.make_services(
        store=Faulty(sound.store, "store", gate),
        status=Faulty(sound.status, "status", gate),
        database=Faulty(sound.database, "database", gate),
        ec2=Faulty(kit.ec2, "ec2", gate),
    )


def runs_of_snapshots(kit: EbsKit) -> list[str]:
    return sorted({each.tags[RUN_TAG] for each in kit.ec2.snapshots()})


def test_the_checkpoint_is_held_for_the_snapshot_call_and_its_verification_alone(kit: EbsKit) -> None:
    gate = Gate()
    assert run(kit, through(kit, gate)).status == "SUCCEEDED"
    begin = gate.calls.index("database.create_checkpoint")
    end = gate.calls.index("database.release_checkpoint")
    assert gate.calls[begin + 1 : end] == HELD


def test_the_hold_does_not_depend_on_how_long_the_snapshots_take(kit: EbsKit) -> None:
    kit.ec2.looks = 500
    events: list[EngineEvent] = []
    assert run(kit, hook=events.append).status == "SUCCEEDED"
    states = entered(events)
    begin = states.index("CreateCheckpoint")
    assert states[begin : begin + len(EBS_STATES)] == EBS_STATES
    assert states.count("CheckSnapshots") == 501
    assert states.count("WaitForSnapshots") == 500
    assert kit.manifest().counters["checkpoint_held_seconds"] < 1
    assert states.index("PlanBackup") > states.index("ReleaseCheckpoint")


def test_after_the_upload_the_backup_is_published_without_another_look_at_the_server(kit: EbsKit) -> None:
    events: list[EngineEvent] = []
    run(kit, hook=events.append)
    states = entered(events)
    assert states[states.index("UploadPartitions") :] == [
        "UploadPartitions",
        "WhatWasCopied",
        "CompleteBackup",
        "PruneBackups",
        "ReleaseLock",
        "BackupSucceeded",
    ]


def test_the_newest_backup_keeps_its_snapshots_and_the_one_before_does_not(kit: EbsKit) -> None:
    first = backed_up(kit)
    assert runs_of_snapshots(kit) == [first]
    kit.source.files["conf/server.conf"] = b"c=d\n"
    second = backed_up(kit)
    assert runs_of_snapshots(kit) == [second]
    assert len(kit.ec2.snapshots()) == 2


def test_a_dry_run_of_prune_tells_which_snapshots_would_go_and_deletes_none(kit: EbsKit) -> None:
    made = backed_up(kit)
    kit.keep_snapshots = 0
    report = plan_prune(kit.make_services(), INSTANCE).to_json()["snapshots"]
    assert [gone["run"] for gone in report["remove"]] == [made, made]
    assert len(kit.ec2.snapshots()) == 2


def test_none_are_kept_where_none_are_to_be_kept(kit: EbsKit) -> None:
    kit.keep_snapshots = 0
    kit.services = kit.make_services()
    backed_up(kit)
    assert kit.ec2.snapshots() == []


def test_the_manifest_names_the_snapshots(kit: EbsKit) -> None:
    backed_up(kit)
    assert [known.snapshot_id for known in kit.manifest().snapshots] == [
        each.snapshot_id for each in kit.ec2.snapshots()
    ]


def test_a_hole_that_the_snapshot_shows_begins_a_new_round_with_new_snapshots(kit: EbsKit) -> None:
    answers = iter([{"outcome": "torn", "tables": ["t~1"]}])
    planned = plan(kit)
    result = run(kit, PlanBackup=lambda event: next(answers, None) or planned(event))
    assert result.status == "SUCCEEDED", (result.error, result.cause)
    assert kit.ec2.calls.count("create_snapshots") == 2
    left = {each.tags[CHECKPOINT_TAG] for each in kit.ec2.snapshots()}
    assert left == {kit.manifest().checkpoint_started_at}, "those of the first round went with the prune"


def test_the_fourth_round_is_refused(kit: EbsKit) -> None:
    result = run(kit, PlanBackup=lambda _event: {"outcome": "torn", "tables": ["t~1"]})
    assert result.error == "CheckpointCreateError"
    assert kit.ec2.calls.count("create_snapshots") == 3
    assert kit.database.read().checkpoint.in_progress is False


def test_a_checkpoint_lost_during_the_snapshot_call_voids_it(kit: EbsKit) -> None:
    class Restarting(Faulty):
        def __getattr__(self, name: str) -> Any:
            if name == "create_snapshots":
                kit.database.restart()
            return getattr(self._inner, name)

    result = run(kit, kit.make_services(ec2=Restarting(kit.ec2, "ec2", Gate())))
    assert result.error == "CheckpointLostError"
    assert "was lost" in kit.error()
    assert_cleaned(kit)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("error", "is in state 'error': Given key ID is not accessible"),
        ("recoverable", "is in state 'recoverable'"),
    ],
)
def test_a_snapshot_that_fails_ends_the_run_with_ec2s_message(kit: EbsKit, state: str, told: str) -> None:
    kit.ec2.end = (state, "Given key ID is not accessible")
    result = run(kit)
    assert result.error == "SnapshotError"
    assert told in kit.error()
    assert_cleaned(kit)


def test_a_snapshot_that_goes_ends_the_run(kit: EbsKit) -> None:
    kit.ec2.looks = 100

    def drop(event: EngineEvent) -> None:
        if event.type == "WaitStateEntered" and len(kit.ec2.snapshots()) == 2:
            kit.ec2.drop_snapshot(kit.ec2.snapshots()[0].snapshot_id)

    assert run(kit, hook=drop).error == "SnapshotError"
    assert "is gone" in kit.error()
    assert_cleaned(kit)


def test_a_snapshot_that_takes_for_ever_ends_the_run_before_its_history_does(kit: EbsKit) -> None:
    kit.ec2.looks = 100_000
    result = run(kit)
    assert result.error == "SnapshotError"
    assert "is not completed after 46 h" in kit.error()
    assert result.events < 20_000
    assert_cleaned(kit)


@pytest.mark.parametrize("call", ["find_instance", "volumes", "create_snapshots", "describe_snapshots"])
def test_ec2_being_busy_costs_a_retry_and_no_second_set(kit: EbsKit, call: str) -> None:
    gate = Gate()

    class Busy(Faulty):
        def __getattr__(self, name: str) -> Any:
            if name == call and call not in gate.calls:
                gate.calls.append(name)
                kit.ec2.be_busy()
            return getattr(self._inner, name)

    result = run(kit, kit.make_services(ec2=Busy(kit.ec2, "ec2", Gate())))
    assert result.status == "SUCCEEDED", (result.error, result.cause)
    assert len(kit.ec2.snapshots()) == 2


def test_an_answer_that_is_lost_after_the_effect_is_found_by_tag(kit: EbsKit) -> None:
    kit.ec2.lose_answer("after")
    assert run(kit).status == "SUCCEEDED"
    assert kit.ec2.calls.count("create_snapshots") == 1
    assert len(kit.ec2.snapshots()) == 2


def test_an_answer_that_is_lost_before_the_effect_fails_the_run(kit: EbsKit) -> None:
    kit.ec2.lose_answer("before")
    assert run(kit).error == "SnapshotError"
    assert "no snapshots of it were found" in kit.error()
    assert kit.ec2.calls.count("create_snapshots") == 1
    assert_cleaned(kit)


def assert_cleaned(kit: EbsKit, label: str = "") -> None:
    """After the guard and the sweep nothing is held or left but a complete backup's; the next run works."""
    kit.clock.forward(seconds=60)  # past the intent's window
    kit.guard()
    assert kit.database.read().checkpoint.in_progress is False, label
    assert kit.status.read(INSTANCE) is None, label
    catalog = read_catalog(kit.inner, INSTANCE)
    assert catalog.lease is None, label
    report = sweep_snapshots(kit.services, INSTANCE)
    assert report["errors"] == [], label
    latest = catalog.latest_complete()
    kept = [latest.backup_timestamp] if latest else []
    assert runs_of_snapshots(kit) in (kept, []), label
    kit.ec2.looks, kit.ec2.end = 1, ("completed", "")
    kit.source.files["conf/server.conf"] += b"#"
    newest = backed_up(kit)
    assert runs_of_snapshots(kit) == [newest], label
    assert len(kit.ec2.snapshots()) == 2, label


def calls_of_a_clean_run() -> list[str]:
    """Of a second backup, whose prune deletes the snapshots of the first."""
    kit = make_kit()
    backed_up(kit)
    gate = Gate()
    run(kit, through(kit, gate))
    return gate.calls


def test_the_calls_that_are_failed_below_are_those_of_every_adapter() -> None:
    calls = calls_of_a_clean_run()
    assert {name.partition(".")[0] for name in calls} == {"store", "status", "database", "ec2"}
    assert {
        "ec2.find_instance",
        "ec2.volumes",
        "ec2.create_snapshots",
        "ec2.describe_snapshots",
        "ec2.find_snapshots",
        "ec2.delete_snapshot",
    } <= set(calls)
    assert "store.list" not in calls


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["error", "stop", "death"])
def test_whatever_happens_at_any_call_nothing_is_held_and_no_snapshot_is_orphaned(
    when: str, kind: str
) -> None:
    """An error of the call; StopExecution while a function runs on; one that takes the function with it."""
    calls = calls_of_a_clean_run()
    for number, name in enumerate(calls):
        label = f"{kind} {when} call {number} {name}"
        kit = make_kit()
        backed_up(kit)
        armed = Gate(at=number, when=when)
        acted: list[str] = []
        execution = kit.execution(through(kit, armed), PlanBackup=plan(kit))

        def act(name: str, stop: Callable[..., bool] = execution.stop, acted: list[str] = acted) -> None:
            acted.append(name)
            if kind != "error":
                stop("", "by the test")
            if kind != "stop":
                raise_injected(name)

        armed.act = act
        result = execution.run()
        assert execution.join(10.0)
        if acted and kind != "error":  # a call that is to be refused has no effect to act after
            assert result.status == "ABORTED", label
        assert_cleaned(kit, label)
    print(f"\n{len(calls)} calls, {kind} {when} each")
