"""Backups of a deployed stack: started, followed, listed, aborted."""

import json
import re
from typing import Any

import pytest

from questdb_backup.aws_stack import Stack
from questdb_backup.errors import (
    BackupAbortedError,
    BackupInProgressError,
    BackupToolError,
    PermanentError,
    StatusUnavailableError,
    StoreAccessDeniedError,
)
from tests.support.aws_endpoint import EXECUTION, AwsEndpoint, running_execution
from tests.unit.aws_stack.conftest import RESULT, ROW, RUNNING, SUCCEEDED, entered, failed


def test_a_backup_is_started_under_a_legal_name_as_a_manual_one(stack: Stack, aws: AwsEndpoint) -> None:
    execution = stack.start_backup()

    (sent,) = aws.named("StartExecution")
    assert execution == EXECUTION + sent["name"]
    assert re.fullmatch(r"manual-\d{8}T\d{6}Z-[0-9a-f]{8}", sent["name"])
    assert json.loads(sent["input"]) == {"trigger": "manual"}
    assert sent["stateMachineArn"] == aws.outputs["BackupStateMachineArn"]


def test_two_backups_have_two_names(stack: Stack, aws: AwsEndpoint) -> None:
    assert stack.start_backup() != stack.start_backup()
    assert len(aws.named("DescribeStacks")) == 1


def test_a_backup_is_followed_to_its_row_and_counters(
    stack: Stack, aws: AwsEndpoint, slept: list[float]
) -> None:
    aws.executions.extend([RUNNING, RUNNING, SUCCEEDED])

    assert stack.follow_backup(stack.start_backup()) == RESULT
    assert len(slept) == 2
    assert aws.named("invoke list") == []


def test_whoever_looks_sees_the_row_in_progress_of_this_execution_and_no_older_one(
    stack: Stack, aws: AwsEndpoint
) -> None:
    aws.executions.extend([*[RUNNING] * 7, SUCCEEDED])
    percents = iter([0, 35, 90])
    older = ROW | {"start_ts": "2024-08-24T12:40:00.000000Z", "progress_percent": 99}
    aws.functions["list"] = lambda _: [
        ROW | {"progress_percent": next(percents)},
        older,
        ROW | {"status": "backup complete", "start_ts": "2024-08-24T12:59:00.000000Z"},
    ]
    seen: list[tuple[int | None, str]] = []

    stack.follow_backup(stack.start_backup(), lambda *told: seen.append(told))

    assert seen == [(0, ""), (35, ""), (90, "")]
    assert len(aws.named("invoke list")) == 3


def test_a_progress_that_cannot_be_read_does_not_end_the_following(stack: Stack, aws: AwsEndpoint) -> None:
    aws.executions.extend([RUNNING, SUCCEEDED])
    aws.functions["list"] = lambda _: 1 // 0
    seen: list[Any] = []

    assert stack.follow_backup(stack.start_backup(), lambda *told: seen.append(told)) == RESULT
    assert seen == []


TRIED = {"timestamp": 1724503800.0, "type": "TaskStarted", "id": 8, "taskStartedEventDetails": {}}


@pytest.mark.parametrize(
    ("events", "doing"),
    [
        ([entered("UploadPartitions"), entered("PlanBackup")], "UploadPartitions"),
        ([*[TRIED] * 20, entered("PlanBackup")], "PlanBackup"),
        ([entered("WaitForSnapshots", '{"snapshots": {"progress_percent": 43}}')], "snapshots at 43%"),
        ([entered("CheckSnapshots", '{"snapshots": {"progress_percent": 43}}')], "snapshots at 43%"),
        ([entered("CheckSnapshots", '{"snapshots": {"progr')], "snapshots"),
        ([TRIED] * 40, ""),
    ],
)
def test_whoever_looks_sees_what_the_execution_is_doing(
    stack: Stack, aws: AwsEndpoint, events: list[dict[str, Any]], doing: str
) -> None:
    aws.executions.extend([RUNNING, SUCCEEDED])
    aws.functions["list"] = lambda _: [ROW]
    aws.events = events
    seen: list[tuple[int | None, str]] = []

    stack.follow_backup(stack.start_backup(), lambda *told: seen.append(told))

    assert seen == [(35, doing)]


def test_a_history_that_may_not_be_read_leaves_the_percentage(stack: Stack, aws: AwsEndpoint) -> None:
    aws.executions.extend([RUNNING, SUCCEEDED])
    aws.functions["list"] = lambda _: [ROW]

    def refuse_the_history(call: str) -> None:
        if call == "GetExecutionHistory":
            aws.refusals.append((400, "AccessDeniedException"))

    aws.before_answer = refuse_the_history
    seen: list[tuple[int | None, str]] = []

    assert stack.follow_backup(stack.start_backup(), lambda *told: seen.append(told)) == RESULT
    assert seen == [(35, "")]


@pytest.mark.parametrize(
    ("ended", "error", "words"),
    [
        (
            failed(
                "BackupInProgressError",
                json.dumps({"errorMessage": "a backup is running. Hint: wait.", "errorType": "B"}),
            ),
            BackupInProgressError,
            "a backup is running. Hint: wait.",
        ),
        (failed("States.Runtime", "no such path"), PermanentError, "States.Runtime: no such path"),
        (
            {"status": "ABORTED", "error": "BackupAbortedError", "cause": "aborted by BACKUP ABORT"},
            BackupAbortedError,
            "aborted by BACKUP ABORT",
        ),
        ({"status": "ABORTED"}, BackupAbortedError, "nobody said why"),
        ({"status": "TIMED_OUT"}, PermanentError, "longer than its time limit"),
        ({"status": "SUCCEEDED", "output": "null"}, PermanentError, "without a result"),
    ],
)
def test_a_backup_that_fails_raises_what_it_failed_with(
    stack: Stack, aws: AwsEndpoint, ended: dict[str, Any], error: type[BackupToolError], words: str
) -> None:
    aws.executions.append(ended)

    with pytest.raises(error, match=re.escape(words)) as raised:
        stack.follow_backup(stack.start_backup())
    assert type(raised.value) is error


def test_a_failed_map_is_told_in_the_words_of_the_backups_row(stack: Stack, aws: AwsEndpoint) -> None:
    aws.executions.append(failed("States.ExceedToleratedFailureThreshold", "the threshold was exceeded"))
    aws.functions["list"] = lambda _: [
        ROW | {"status": "backup failed", "backup_error": "trades/x.d is short"}
    ]

    with pytest.raises(PermanentError, match=r"^trades/x\.d is short$"):
        stack.follow_backup(stack.start_backup())


def test_a_failed_map_without_a_row_is_told_as_it_is(stack: Stack, aws: AwsEndpoint) -> None:
    aws.executions.append(failed("States.ExceedToleratedFailureThreshold", "the threshold was exceeded"))

    with pytest.raises(PermanentError, match="the threshold was exceeded"):
        stack.follow_backup(stack.start_backup())


def test_silence_of_aws_is_waited_out(hasty: Stack, aws: AwsEndpoint) -> None:
    aws.executions.extend([RUNNING, SUCCEEDED])
    execution = hasty.start_backup()
    silence = [(503, "ServiceUnavailable")] * 20
    aws.refusals.extend([*silence, None, *silence])

    assert hasty.follow_backup(execution) == RESULT


def test_a_long_silence_ends_the_following_and_says_that_the_backup_goes_on(
    hasty: Stack, aws: AwsEndpoint
) -> None:
    execution = hasty.start_backup()
    aws.refusals.extend([(503, "ServiceUnavailable")] * 100)

    with pytest.raises(
        StatusUnavailableError, match=r"goes on.*Hint: see `questdb-backup backups --stack prod`"
    ):
        hasty.follow_backup(execution)


def test_throttling_is_tried_again_under_the_same_name(stack: Stack, aws: AwsEndpoint) -> None:
    stack.start_backup()
    aws.refusals.append((400, "ThrottlingException"))

    stack.start_backup()

    first, second = aws.named("StartExecution")[1:]
    assert first == second


def test_the_rows_come_as_the_function_gives_them(stack: Stack, aws: AwsEndpoint) -> None:
    aws.functions["list"] = lambda payload: [ROW] if payload == {} else []

    assert stack.backups() == [ROW]


def test_an_answer_that_is_no_list_of_rows_is_refused(stack: Stack, aws: AwsEndpoint) -> None:
    aws.functions["list"] = lambda _: {"message": "hello"}

    with pytest.raises(PermanentError, match="hello"):
        stack.backups()


def test_what_a_function_raised_comes_back_under_its_own_class(stack: Stack, aws: AwsEndpoint) -> None:
    def refuse(_: Any) -> Any:
        raise StoreAccessDeniedError("the bucket said no", "allow it")

    aws.functions["list"] = refuse
    with pytest.raises(StoreAccessDeniedError) as raised:
        stack.backups()
    assert (raised.value.fact, raised.value.hint) == ("the bucket said no", "allow it")


def test_an_abort_waits_until_the_oldest_execution_has_ended(
    stack: Stack, aws: AwsEndpoint, slept: list[float]
) -> None:
    aws.running = [running_execution("young", 1724503900.0), running_execution("old", 1724503800.0)]
    aws.executions.extend([RUNNING, RUNNING, {"status": "ABORTED"}])
    answer = {"status": "aborted", "backup_timestamp": ROW["backup_timestamp"]}
    aws.functions["abort"] = lambda _: answer

    assert stack.abort("enough") == answer
    assert {sent["executionArn"] for sent in aws.named("DescribeExecution")} == {EXECUTION + "old"}
    assert len(slept) == 2
    assert aws.named("invoke abort") == [{"reason": "enough"}]


def test_an_abort_of_nothing_waits_for_nothing(stack: Stack, aws: AwsEndpoint) -> None:
    aws.functions["abort"] = lambda _: {"status": "not running", "backup_timestamp": None}

    assert stack.abort("enough") == {"status": "not running", "backup_timestamp": None}
    assert aws.named("DescribeExecution") == []


def test_an_execution_that_does_not_end_is_an_error(stack: Stack, aws: AwsEndpoint) -> None:
    aws.running = [running_execution("old", 1724503800.0)]
    aws.executions.append(RUNNING)
    aws.functions["abort"] = lambda _: {"status": "aborted", "backup_timestamp": None}

    with pytest.raises(StatusUnavailableError, match="has not ended"):
        stack.abort("enough")
