"""The backup machine's graph: whatever happens after CHECKPOINT CREATE, a release is passed.

A path is walked by Next, Choices, Default and Catch. A Choice on ``$.source`` is decided by the source of the
run, which AcquireLock sets and no later state may change, one on ``$.plan.cloned`` by what PlanBackup said
last, which of a live root may be either; every other Choice may go any way.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from questdb_backup.errors import transient_error_names
from questdb_backup.leftovers import ATTEMPTS
from tests.support.state_graph import ways

Json = dict[str, Any]

FOLDER = Path(__file__).parents[2] / "statemachine"
RELEASE = "${ReleaseCheckpointFunctionArn}"
SOURCES = ["path", "ebs", "frozen"]
BUSY = "Lambda.TooManyRequestsException"
ASLEEP = [
    "Lambda.CodeArtifactUserPendingException",
    "Lambda.ResourceNotReadyException",
    "Lambda.ENINotReadyException",
    "Lambda.EFSMountTimeoutException",
]
"""Of a function that was not used for weeks, and does not run yet."""
LAMBDA_ERRORS = [
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    BUSY,
    "Sandbox.Timedout",
    "Lambda.Unknown",
]


def load(name: str) -> Json:
    loaded: Json = json.loads((FOLDER / f"{name}.asl.json").read_text(encoding="utf-8"))
    return loaded


BACKUP: Json = load("backup")["States"]


def tasks(states: Json) -> Iterator[tuple[str, Json]]:
    """Every Task, also inside Maps."""
    for name, state in states.items():
        if state["Type"] == "Task":
            yield name, state
        elif state["Type"] == "Map":
            yield from tasks(state["ItemProcessor"]["States"])


def successors(state: Json, source: str, *, cloned: bool) -> list[str]:
    if state["Type"] == "Choice":
        return ways(state, {"$.source": source, "$.plan.cloned": cloned})
    following = [state["Next"]] if "Next" in state else []
    return following + [catcher["Next"] for catcher in state.get("Catch", [])]


def reached(
    start: str, source: str, *, stop_at_release: bool = False, stop_at: str | None = None
) -> set[str]:
    """The states that a run can come to from here; with `stop_at_release` not past a release."""
    seen: set[tuple[str, bool]] = set()
    ahead = [(start, False)]
    while ahead:
        place = name, cloned = ahead.pop()
        if place in seen:
            continue
        seen.add(place)
        if name != stop_at and not (stop_at_release and BACKUP[name].get("Resource") == RELEASE):
            either = (False, True) if name == "PlanBackup" and source == "path" else (cloned,)
            following = successors(BACKUP[name], source, cloned=cloned)
            ahead += [(each, after) for each in following for after in either]
    return {name for name, _ in seen}


def is_terminal(name: str) -> bool:
    return BACKUP[name]["Type"] in ("Succeed", "Fail") or BACKUP[name].get("End") is True


@pytest.mark.parametrize("source", ["path", "ebs"])
def test_every_path_from_create_checkpoint_to_an_end_passes_a_release(source: str) -> None:
    assert any(is_terminal(name) for name in reached("CreateCheckpoint", source))
    unreleased = reached("CreateCheckpoint", source, stop_at_release=True)
    assert not [name for name in unreleased if is_terminal(name)]


def test_a_frozen_copy_never_comes_to_a_state_that_creates_a_checkpoint() -> None:
    assert "CreateCheckpoint" not in reached("AcquireLock", "frozen")


def test_only_a_live_root_is_planned_before_there_is_a_checkpoint() -> None:
    for source, early in (("path", True), ("ebs", False)):
        before = reached("AcquireLock", source, stop_at="CreateCheckpoint")
        assert ("PlanBackup" in before) is early


def test_no_state_after_the_lock_can_change_the_source_the_run_or_the_fence() -> None:
    for name, state in BACKUP.items():
        written = [state.get("ResultPath", "$"), *(c.get("ResultPath", "$") for c in state.get("Catch", []))]
        if state["Type"] in ("Task", "Map") and name != "AcquireLock":
            assert "$" not in written, name
            assert not [path for path in written if path and path.startswith(("$.source", "$.run"))], name
            if name not in ("RecordIntent", "RecordCheckpoint"):
                assert "$.fence" not in written, name


def test_on_snapshots_nothing_but_their_creation_and_its_verification_holds_the_checkpoint() -> None:
    before = reached("CheckCheckpoint", "ebs", stop_at_release=True)
    assert {name for name in before if BACKUP[name]["Type"] in ("Task", "Map", "Wait")} == {
        "CheckCheckpoint",
        "CreateSnapshots",
        "VerifyCheckpoint",
        "ReleaseCheckpoint",
        "ReleaseAndTryAgain",
        "ReleaseAfterError",
    }


def test_clones_are_read_after_the_release_and_then_the_backup_is_complete() -> None:
    planned = {"$.source": "path", "$.plan.cloned": True}
    assert ways(BACKUP["WhatWasPlanned"], planned) == ["VerifyCheckpoint"]
    assert BACKUP["VerifyCheckpoint"]["Next"] == "ReleaseCheckpoint"
    assert ways(BACKUP["WhatIsReleased"], planned) == ["WasItCloned"]
    assert ways(BACKUP["WasItCloned"], planned) == ["UploadPartitions"]
    assert ways(BACKUP["WhatWasCopied"], planned) == ["CompleteBackup"]


def test_snapshots_are_read_after_they_are_completed_and_copied_once_released() -> None:
    assert reached("VerifyCheckpoint", "ebs", stop_at_release=True) == {
        "VerifyCheckpoint",
        "ReleaseCheckpoint",
        "ReleaseAfterError",
    }
    assert "UploadPartitions" not in reached("CreateSnapshots", "ebs", stop_at="PlanBackup")
    for source in ("path", "frozen"):
        everything = reached("AcquireLock", source)
        assert not everything & {"CreateSnapshots", "CheckSnapshots", "WaitForSnapshots", "IsSnapshotWhole"}


def held() -> list[str]:
    """Tasks and Maps between the intent and the regular release, and the release itself."""
    return sorted(
        name
        for source in ("path", "ebs")
        for name in reached("RecordIntent", source)
        if BACKUP[name]["Type"] in ("Task", "Map") and "ReleaseCheckpoint" in reached(name, source)
    )


@pytest.mark.parametrize("name", sorted(set(held())))
def test_every_error_while_the_checkpoint_may_be_held_leads_straight_to_a_release(name: str) -> None:
    last = BACKUP[name]["Catch"][-1]
    assert last["ErrorEquals"] == ["States.ALL"]
    for catcher in BACKUP[name]["Catch"]:
        assert BACKUP[catcher["Next"]]["Resource"] == RELEASE
        assert catcher["Next"] != name


def test_the_states_that_hold_the_checkpoint_are_found() -> None:
    assert {
        "RecordIntent",
        "CreateCheckpoint",
        "UploadPartitions",
        "VerifyCheckpoint",
        "ReleaseCheckpoint",
    } <= set(held())


def test_an_error_is_still_there_when_the_run_fails() -> None:
    """FailBackup and BackupFailed read `$.error`; a later error of the release has a place of its own."""
    release = BACKUP["ReleaseAfterError"]
    assert release["Catch"] == [
        {"ErrorEquals": ["States.ALL"], "ResultPath": "$.release_error", "Next": "FailBackup"}
    ]
    for name, state in BACKUP.items():
        for catcher in state.get("Catch", []):
            if (
                catcher["Next"] in ("ReleaseAfterError", "FailBackup", "BackupFailed")
                and name != "ReleaseAfterError"
            ):
                later = name in ("FailBackup", "ReleaseLockAfterError")
                assert catcher["ResultPath"] == (None if later else "$.error"), name


MACHINES = ["backup", "restore"]


@pytest.mark.parametrize("machine", MACHINES)
def test_every_retry_lists_the_transient_errors_by_their_exact_names(machine: str) -> None:
    found = 0
    for name, state in tasks(load(machine)["States"]):
        first, *others = [retrier["ErrorEquals"] for retrier in state.get("Retry", [])]
        assert first in (ASLEEP, [BUSY, *ASLEEP]), name
        handled = [error for error in LAMBDA_ERRORS if error not in first]
        assert others == ([] if name == "CreateCheckpoint" else [handled + transient_error_names()]), name
        found += 1
    assert found


@pytest.mark.parametrize("machine", MACHINES)
def test_workers_wait_until_lambda_lets_them_begin_and_every_attempt_is_looked_for(machine: str) -> None:
    for state in load(machine)["States"].values():
        for name, task in tasks(state["ItemProcessor"]["States"]) if state["Type"] == "Map" else ():
            busy, others = task["Retry"]
            assert busy["MaxAttempts"] * busy["MaxDelaySeconds"] >= 1200, name
            assert 1 + busy["MaxAttempts"] + others["MaxAttempts"] == ATTEMPTS, name


@pytest.mark.parametrize("machine", MACHINES)
def test_every_task_has_a_timeout(machine: str) -> None:
    assert [name for name, state in tasks(load(machine)["States"]) if "TimeoutSeconds" not in state] == []


def test_a_function_that_sleeps_is_waited_for_as_long_as_it_takes_to_wake() -> None:
    """Some have seen 40 to 106 seconds."""
    for machine in MACHINES:
        for name, state in tasks(load(machine)["States"]):
            first = state["Retry"][0]
            assert first["MaxAttempts"] * first["IntervalSeconds"] >= 100, name


def test_a_checkpoint_is_created_once_whatever_is_answered() -> None:
    (retrier,) = BACKUP["CreateCheckpoint"]["Retry"]
    assert retrier["ErrorEquals"] == ASLEEP, "of these none has begun"


def test_retry_stands_on_the_task_inside_the_map_and_not_on_the_map() -> None:
    for machine in MACHINES:
        for state in load(machine)["States"].values():
            assert state["Type"] != "Map" or "Retry" not in state
