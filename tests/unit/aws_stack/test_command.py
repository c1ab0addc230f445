"""The command with ``--stack``."""

import json
import os
import signal
from collections.abc import Iterator
from io import StringIO

import pytest
from rich.console import Console

from questdb_backup.cli.main import main
from questdb_backup.cli.render import PercentProgress
from tests.support.aws_endpoint import RESTORE_EXECUTION, AwsEndpoint
from tests.unit.aws_stack.conftest import RESTORED, RESULT, ROW, RUNNING, SUCCEEDED, entered, failed


@pytest.fixture
def terminate_handler() -> Iterator[None]:
    """The command takes SIGTERM over; the tests' own handler comes back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_in_a_terminal_the_percentage_is_a_bar() -> None:
    out = StringIO()
    with PercentProgress("backup", Console(file=out, force_terminal=True, width=80)) as bar:
        bar.show(None)
        bar.show(35, "UploadPartitions")

    assert "35%" in out.getvalue()
    assert "backup, UploadPartitions" in out.getvalue()


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
        aws.events = [entered("UploadPartitions")]
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
            "backup: 35%, UploadPartitions",
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
            (["guard"], "--stack goes with backup, backups, abort, restore, plan, not with guard"),
            (["prune", "--dry-run"], "not with prune"),
            (["serve", "--root", "."], "not with serve"),
            (["backup", "--root", "."], "--root does not go with --stack"),
            (["backup", "--frozen"], "--frozen does not go with --stack"),
            (["plan", "--root", "."], "--root does not go with --stack"),
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
