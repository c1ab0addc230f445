"""A deployed stack behind the command: boto3 against an endpoint on this host."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from rich.console import Console

from questdb_backup.aws_stack import Stack
from questdb_backup.cli.main import main
from questdb_backup.cli.render import PercentProgress
from questdb_backup.errors import (
    BackupAbortedError,
    BackupInProgressError,
    BackupToolError,
    ConfigurationError,
    NoRestorePointError,
    PermanentError,
    RestoreFailedError,
    StatusUnavailableError,
    StoreAccessDeniedError,
)
from tests.support.aws_endpoint import EXECUTION, RESTORE_EXECUTION, AwsEndpoint, running_execution

ROW = {
    "status": "backup in progress",
    "progress_percent": 35,
    "start_ts": "2024-08-24T12:50:01.000000Z",
    "end_ts": None,
    "backup_error": None,
    "cleanup_error": None,
    "backup_timestamp": "2024-08-24T12:50:01.000000Z",
    "backup_instance_name": "gentle-forest-orchid",
}
RESULT = {
    "backup_timestamp": "2024-08-24T12:50:01.000000Z",
    "backup_instance_name": "gentle-forest-orchid",
    "status": "backup complete",
    "bytes_read": 2048,
    "bytes_stored": 1024,
    "bytes_reused": 0,
}
RESTORED = {
    "root": "/mnt/restore",
    "backup_timestamp": "2024-08-24T12:50:01.000000Z",
    "backup_instance_name": "gentle-forest-orchid",
    "tables": 2,
    "files": 30,
    "bytes": 4096,
    "server_version": "9.1.0",
    "notes": [],
}
RUNNING = {"status": "RUNNING"}
SUCCEEDED = {"status": "SUCCEEDED", "output": json.dumps(RESULT)}


def failed(error: str, cause: str) -> dict[str, Any]:
    return {"status": "FAILED", "error": error, "cause": cause}


@pytest.fixture(scope="module", autouse=True)
def own_session() -> Iterator[None]:
    """One session for this module: each new one would read the services' descriptions again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boto3, "DEFAULT_SESSION", None)
        yield


@pytest.fixture(autouse=True)
def usual_chain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsEndpoint]:
    with AwsEndpoint() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        yield running


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def stack(aws: AwsEndpoint, slept: list[float]) -> Iterator[Stack]:
    with closing(Stack("prod", sleep=slept.append)) as made:
        yield made


@pytest.fixture
def hasty(aws: AwsEndpoint, slept: list[float]) -> Iterator[Stack]:
    """Takes the first answer for the last."""
    with closing(Stack("prod", sleep=slept.append, attempts=1)) as made:
        yield made


@pytest.fixture
def terminate_handler() -> Iterator[None]:
    """The command takes SIGTERM over; the tests' own handler comes back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


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
    seen: list[int] = []

    stack.follow_backup(stack.start_backup(), lambda row: seen.append(row["progress_percent"]))

    assert seen == [0, 35, 90]
    assert len(aws.named("invoke list")) == 3


def test_a_progress_that_cannot_be_read_does_not_end_the_following(stack: Stack, aws: AwsEndpoint) -> None:
    aws.executions.extend([RUNNING, SUCCEEDED])
    aws.functions["list"] = lambda _: 1 // 0
    seen: list[Any] = []

    assert stack.follow_backup(stack.start_backup(), seen.append) == RESULT
    assert seen == []


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


def test_a_restore_is_started_by_its_function_and_followed_to_its_result(
    stack: Stack, aws: AwsEndpoint
) -> None:
    aws.functions["restore"] = lambda _: {"execution_arn": RESTORE_EXECUTION}
    aws.executions.extend([RUNNING, {"status": "SUCCEEDED", "output": json.dumps(RESTORED)}])

    execution = stack.start_restore({"timestamp": "2024-08-24"})

    assert stack.follow_restore(execution) == RESTORED
    assert aws.named("invoke restore") == [{"timestamp": "2024-08-24"}]
    assert {sent["executionArn"] for sent in aws.named("DescribeExecution")} == {RESTORE_EXECUTION}


@pytest.mark.parametrize(
    ("ended", "error"),
    [
        (failed("NoRestorePointError", json.dumps({"errorMessage": "none"})), NoRestorePointError),
        ({"status": "ABORTED", "cause": "by hand"}, RestoreFailedError),
    ],
)
def test_a_restore_that_fails_raises_what_it_failed_with(
    stack: Stack, aws: AwsEndpoint, ended: dict[str, Any], error: type[BackupToolError]
) -> None:
    aws.executions.append(ended)

    with pytest.raises(error):
        stack.follow_restore(RESTORE_EXECUTION)


def test_a_restore_whose_answer_is_lost_is_not_started_twice(stack: Stack, aws: AwsEndpoint) -> None:
    aws.functions["restore"] = lambda _: {"execution_arn": RESTORE_EXECUTION}
    stack.start_restore({})
    aws.refusals.append((503, "ServiceException"))

    with pytest.raises(StatusUnavailableError):
        stack.start_restore({})
    assert len(aws.named("invoke restore")) == 2


@pytest.mark.parametrize(
    ("status", "code", "error", "hint"),
    [
        (403, "AccessDenied", ConfigurationError, "allow the action"),
        (403, "ExpiredToken", ConfigurationError, "renew the credentials"),
        (400, "Throttling", StatusUnavailableError, "try again"),
        (500, "InternalFailure", StatusUnavailableError, "try again"),
        (400, "Whatever", ConfigurationError, "check the stack's name"),
    ],
)
def test_what_aws_refuses_has_a_hint(
    hasty: Stack, aws: AwsEndpoint, status: int, code: str, error: type[BackupToolError], hint: str
) -> None:
    aws.refusals.append((status, code))

    with pytest.raises(error, match=f"the stack 'prod': {code}: no. Hint: .*{hint}"):
        hasty.backups()


def test_a_stack_that_does_not_exist_is_told(aws: AwsEndpoint) -> None:
    with closing(Stack("prd")) as stack, pytest.raises(ConfigurationError, match="prd does not exist"):
        stack.backups()


def test_a_stack_of_another_kind_is_told(stack: Stack, aws: AwsEndpoint) -> None:
    aws.outputs = {"Website": "x"}

    with pytest.raises(ConfigurationError, match="has no output ListBackupsFunctionName"):
        stack.backups()


def test_no_credentials_no_region_and_no_such_profile_are_told(
    monkeypatch: pytest.MonkeyPatch, aws: AwsEndpoint
) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with closing(Stack("prod")) as stack, pytest.raises(ConfigurationError, match="Hint: log in"):
        stack.backups()
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with closing(Stack("prod")) as stack, pytest.raises(ConfigurationError, match="set AWS_DEFAULT_REGION"):
        stack.backups()
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with closing(Stack("prod")) as stack, pytest.raises(ConfigurationError, match="nobody"):
        stack.backups()


@pytest.mark.parametrize(
    ("url", "error"),
    [("http://127.0.0.1:1", StatusUnavailableError), ("no url", ConfigurationError)],
)
def test_an_endpoint_that_does_not_answer_or_is_none_is_told(
    monkeypatch: pytest.MonkeyPatch, url: str, error: type[BackupToolError]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)

    with closing(Stack("prod", attempts=1)) as stack, pytest.raises(error):
        stack.backups()


@mock_aws
def test_another_implementation_of_the_apis_gives_what_is_read_here() -> None:
    states = boto3.client("stepfunctions")
    role = "arn:aws:iam::123456789012:role/r"
    definition = '{"StartAt": "A", "States": {"A": {"Type": "Pass", "End": true}}}'
    machine = states.create_state_machine(name="prod-backup", definition=definition, roleArn=role)
    template = {
        "Resources": {"T": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {"BackupStateMachineArn": {"Value": machine["stateMachineArn"]}},
    }
    boto3.client("cloudformation").create_stack(StackName="prod", TemplateBody=json.dumps(template))

    def stop(_seconds: float) -> None:
        states.stop_execution(executionArn=execution, error="BackupAbortedError", cause="by hand")

    with closing(Stack("prod", sleep=stop)) as stack:
        execution = stack.start_backup()
        assert stack._oldest_running() == execution
        with pytest.raises(BackupAbortedError):
            stack.follow_backup(execution)


def test_in_a_terminal_the_percentage_is_a_bar() -> None:
    out = StringIO()
    with PercentProgress("backup", Console(file=out, force_terminal=True, width=80)) as bar:
        bar.show(None)
        bar.show(35)

    assert "35%" in out.getvalue()


@pytest.mark.usefixtures("terminate_handler")
class TestCommand:
    """The four verbs with ``--stack``."""

    def test_backup_prints_its_timestamp_as_locally(
        self, aws: AwsEndpoint, capsys: pytest.CaptureFixture[str]
    ) -> None:
        aws.executions.append(SUCCEEDED)

        assert main(["backup", "--stack", "prod"]) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[0] == RESULT["backup_timestamp"]
        assert "stored 1.0 KiB" in out[1]

    def test_backup_gives_its_row_as_json_and_invokes_nothing_for_progress(
        self, aws: AwsEndpoint, capsys: pytest.CaptureFixture[str]
    ) -> None:
        aws.executions.append(SUCCEEDED)

        assert main(["backup", "--stack", "prod", "--json"]) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out) == RESULT
        assert captured.err == ""

    def test_backup_tells_the_percentage_on_stderr_and_on_an_interrupt_how_to_abort(
        self, aws: AwsEndpoint, capsys: pytest.CaptureFixture[str]
    ) -> None:
        aws.executions.append(RUNNING)
        aws.functions["list"] = lambda _: [ROW]
        seen: list[str] = []

        def interrupt_after_the_look(call: str) -> None:
            if call == "DescribeExecution" and "invoke list" in seen:
                os.kill(os.getpid(), signal.SIGTERM)
            seen.append(call)

        aws.before_answer = interrupt_after_the_look

        assert main(["backup", "--stack", "prod"]) == 130
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.splitlines() == [
            "backup: 35%",
            "the backup goes on in the stack. Hint: stop it with `questdb-backup abort --stack prod`.",
            "interrupted",
        ]
        assert aws.named("StopExecution") == []

    def test_backups_is_the_same_table_and_the_same_json(
        self, aws: AwsEndpoint, capsys: pytest.CaptureFixture[str]
    ) -> None:
        aws.functions["list"] = lambda _: [ROW]

        assert main(["backups", "--stack", "prod", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == [ROW]
        assert main(["backups", "--stack", "prod"]) == 0
        assert "gentle-forest-orchid" in capsys.readouterr().out

    def test_abort_prints_the_one_word(self, aws: AwsEndpoint, capsys: pytest.CaptureFixture[str]) -> None:
        answer = {"status": "not running", "backup_timestamp": None}
        aws.functions["abort"] = lambda _: answer

        assert main(["abort", "--stack", "prod"]) == 0
        assert capsys.readouterr().out == "not running\n"
        assert main(["abort", "--stack", "prod", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == answer

    def test_restore_passes_what_was_asked_for_and_prints_the_result(
        self, aws: AwsEndpoint, capsys: pytest.CaptureFixture[str]
    ) -> None:
        aws.functions["restore"] = lambda _: {"execution_arn": RESTORE_EXECUTION}
        aws.executions.append({"status": "SUCCEEDED", "output": json.dumps(RESTORED)})

        command = ["restore", "--stack", "prod", "--timestamp", "2024-08-24", "--root", "new", "--dry-run"]
        assert main(command) == 0
        assert capsys.readouterr().out.startswith(
            "would restore 2024-08-24T12:50:01.000000Z to /mnt/restore:"
        )
        assert aws.named("invoke restore") == [
            {
                "root": "new",
                "timestamp": "2024-08-24",
                "force": False,
                "keep_instance": False,
                "dry_run": True,
            }
        ]

    def test_restore_on_a_stack_without_a_file_system_prints_the_command_for_the_host(
        self, aws: AwsEndpoint, capsys: pytest.CaptureFixture[str]
    ) -> None:
        handoff = RESTORED | {"root": None, "notes": ["run the command"], "command": "questdb-backup restore"}
        aws.functions["restore"] = lambda _: {"execution_arn": RESTORE_EXECUTION}
        aws.executions.append({"status": "SUCCEEDED", "output": json.dumps(handoff)})

        assert main(["restore", "--stack", "prod"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "would restore 2024-08-24T12:50:01.000000Z: 2 tables, 30 files, 4.0 KiB",
            "run the command",
            "questdb-backup restore",
        ]

    def test_an_error_is_told_on_stderr_with_its_exit_code(
        self, aws: AwsEndpoint, capsys: pytest.CaptureFixture[str]
    ) -> None:
        aws.executions.append(failed("BackupInProgressError", json.dumps({"errorMessage": "busy"})))

        assert main(["backup", "--stack", "prod", "--json"]) == 1
        assert main(["backup", "--stack", "prd", "--json"]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("busy\n")

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["guard"], "--stack goes with backup, backups, abort, restore, not with guard"),
            (["prune", "--dry-run"], "not with prune"),
            (["serve", "--root", "."], "not with serve"),
            (["backup", "--root", "."], "--root does not go with --stack"),
            (["backup", "--frozen"], "--frozen does not go with --stack"),
            (["backups", "--object-store", "fs::root=/x;"], "--object-store does not go with --stack"),
            (["abort", "--state", "x"], "--state does not go with --stack"),
            (["restore", "--dsn", "x"], "--dsn does not go with --stack"),
        ],
    )
    def test_what_does_not_go_with_a_stack_is_wrong_usage(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
    ) -> None:
        assert main([*arguments, "--stack", "prod"]) == 2
        assert words in capsys.readouterr().err
