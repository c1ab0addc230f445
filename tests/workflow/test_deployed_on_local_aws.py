"""The whole bundle as the template wires it, on this host: see `tests.support.deployed`."""

import json
from pathlib import Path
from typing import Any

import pytest

from questdb_backup.ebs.base import INSTANCE_TAG, RUN_TAG, STACK_TAG
from questdb_backup.engine.execution import Status
from questdb_backup.words import BackupStatus
from tests.support.backups import FolderSource, listing, make_root
from tests.support.deployed import CREDENTIALS, Deploy, DeployedStack
from tests.support.deployed_template import STACK
from tests.support.interrupted import Interrupted
from tests.template.cloudformation import ROOT

EVENTS = ROOT / "events"
NEW = ("_restore", "db/.backup_instance_name")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path / "origin")


@pytest.fixture
def stack(deploy: Deploy, root: Path) -> DeployedStack:
    made = deploy()
    made.source = FolderSource(root)
    return made


def ended(arn: str, status: str) -> dict[str, Any]:
    """EventBridge's event of an execution that ended badly."""
    event: dict[str, Any] = json.loads((EVENTS / "guard_checkpoint.execution_status.json").read_text())
    return {**event, "detail": {**event["detail"], "executionArn": arn, "status": status}}


def rows(stack: DeployedStack) -> list[tuple[str, str | None]]:
    return [(row["status"], row["backup_error"]) for row in stack.invoke("ListBackupsFunction", {})]


def assert_nothing_is_held(stack: DeployedStack) -> None:
    assert stack.database.read().checkpoint.in_progress is False
    assert stack.catalog().lease is None
    assert stack.services("ListBackupsFunction").status.read(stack.catalog().instance) is None


def test_a_backup_is_made_under_the_stacks_own_instance(stack: DeployedStack) -> None:
    output = stack.backed_up()
    assert output["status"] == "backup complete"
    assert output["tables"] == 2
    assert rows(stack) == [("backup complete", None)]
    assert stack.catalog().instance == output["backup_instance_name"]
    assert {key.split("/")[:2] == ["questdb", "_backup"] for key in stack.stored()} == {True}
    assert_nothing_is_held(stack)


def test_the_snapshots_bear_the_tag_that_the_permissions_ask_for(stack: DeployedStack) -> None:
    made = stack.backed_up()
    (snapshot,) = stack.ebs.snapshots()
    assert snapshot.tags[STACK_TAG] == STACK
    assert snapshot.tags[RUN_TAG] == made["backup_timestamp"]
    assert snapshot.tags[INSTANCE_TAG] == made["backup_instance_name"]


def test_the_snapshots_of_the_newest_backup_stay(stack: DeployedStack, root: Path) -> None:
    stack.backed_up()
    (root / "db/trades~1/sym.c").write_bytes(b"other symbols")
    made = stack.backed_up()
    assert [each.tags[RUN_TAG] for each in stack.ebs.snapshots()] == [made["backup_timestamp"]]


def test_a_snapshot_that_fails_ends_the_backup_in_ec2s_words(stack: DeployedStack) -> None:
    def fail() -> None:
        for snapshot in stack.ebs.snapshots():
            stack.ebs.end_snapshot(snapshot.snapshot_id, "error", "Given key ID is not accessible")

    stack.ebs.faults.run("CreateSnapshots", fail, after_effect=True)
    assert stack.run("Backup", {}).error == "SnapshotError"
    ((status, error),) = rows(stack)
    assert status == "backup failed"
    assert "is in state 'error': Given key ID is not accessible" in str(error)
    assert_nothing_is_held(stack)
    tick = {"trigger": "schedule"}
    assert len(stack.invoke("GuardCheckpointFunction", tick)["snapshots_deleted"]) == 1
    stack.backed_up()


def test_a_second_backup_stores_what_has_changed_and_no_more(stack: DeployedStack, root: Path) -> None:
    stack.backed_up()
    (root / "db/trades~1/sym.c").write_bytes(b"other symbols")
    output = stack.backed_up()
    assert output["bytes_stored"] == len(b"other symbols")
    assert len(stack.catalog().complete_rows()) == 2
    assert_nothing_is_held(stack)


def test_a_tick_of_the_schedule_that_comes_twice_makes_one_backup(stack: DeployedStack) -> None:
    tick = json.loads((EVENTS / "backup.schedule.json").read_text())
    assert stack.run("Backup", tick).status is Status.SUCCEEDED
    again = stack.run("Backup", tick)
    assert again.status is Status.SUCCEEDED, "no alarm rings"
    assert isinstance(again.output, dict)
    assert again.output["Error"] == "ScheduleServedError"
    assert stack.invoke("GuardCheckpointFunction", {})["outcome"] == "idle"
    assert rows(stack) == [("backup complete", None)]


def test_an_abort_stops_the_run_and_leaves_nothing_held(stack: DeployedStack, root: Path) -> None:
    answers: list[Any] = []
    event = json.loads((EVENTS / "abort_backup.json").read_text())
    stack.source = Interrupted(root, lambda: answers.append(stack.invoke("AbortBackupFunction", event)))
    arn = stack.start("Backup", {})
    assert stack.result(arn).status is Status.ABORTED
    (row,) = stack.catalog().rows
    assert answers == [{"status": "aborted", "backup_timestamp": row.backup_timestamp}]
    assert row.status is BackupStatus.BACKUP_FAILED
    assert row.backup_error == f"aborted by BACKUP ABORT: {event['reason']}"
    assert_nothing_is_held(stack)
    assert stack.invoke("GuardCheckpointFunction", ended(arn, "ABORTED"))["outcome"] == "idle"
    assert stack.invoke("AbortBackupFunction", {})["status"] == "not running"
    stack.source = FolderSource(root)
    stack.backed_up()


def test_the_guard_ends_what_a_stopped_execution_left(stack: DeployedStack, root: Path) -> None:
    """StopExecution in the console: no state runs any more, nobody told the status."""
    client = stack.step_functions("someone")

    def stop() -> None:
        client.stop_execution(executionArn=arn, error="", cause="by hand")

    stack.ebs.faults.run("CreateSnapshots", lambda: stop(), after_effect=True)
    arn = stack.start("Backup", {})
    stack.result(arn)
    assert stack.database.read().checkpoint.in_progress
    (orphan,) = stack.ebs.snapshots()
    report = stack.invoke("GuardCheckpointFunction", ended(arn, "ABORTED"))
    assert (report["outcome"], report["release"]) == ("ended", "released")
    assert report["snapshots_deleted"] == [orphan.snapshot_id]
    assert stack.ebs.snapshots() == []
    assert rows(stack) == [("backup failed", "the execution was stopped")]
    assert_nothing_is_held(stack)
    stack.source = FolderSource(root)
    stack.backed_up()


def test_the_guard_leaves_a_run_alone_that_lives(stack: DeployedStack, root: Path) -> None:
    reports: list[Any] = []
    tick = json.loads((EVENTS / "guard_checkpoint.schedule.json").read_text())
    stack.source = Interrupted(root, lambda: reports.append(stack.invoke("GuardCheckpointFunction", tick)))
    stack.backed_up()
    assert [report["outcome"] for report in reports] == ["running"]


def test_a_file_that_is_missing_fails_the_backup_in_its_own_words(stack: DeployedStack, root: Path) -> None:
    path = "db/quotes~2/2026-03-01/price.d"
    stack.source = Interrupted(root, lambda: (root / path).unlink())
    result = stack.run("Backup", {})
    assert result.status is Status.FAILED
    ((status, error),) = rows(stack)
    assert status == "backup failed"
    assert error is not None
    assert f"'{path}' is referenced by the checkpoint but missing" in error
    assert_nothing_is_held(stack)


def test_a_restore_without_a_file_system_answers_with_the_command_for_the_host(stack: DeployedStack) -> None:
    made = stack.backed_up()
    arn = stack.invoke("RestoreDatabaseFunction", {})["execution_arn"]
    result = stack.result(arn)
    assert result.status is Status.SUCCEEDED, (result.error, result.cause)
    assert isinstance(result.output, dict)
    assert result.output["backup_timestamp"] == made["backup_timestamp"]
    assert made["backup_instance_name"] in result.output["command"]


def test_a_restore_to_the_mounted_file_system_brings_everything_back(
    deploy: Deploy, root: Path, tmp_path: Path
) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    stack = deploy(restore_root=str(mount))
    stack.source = FolderSource(root)
    first = stack.backed_up()
    (root / "db/trades~1/sym.c").write_bytes(b"later")
    stack.backed_up()
    request = {"timestamp": first["backup_timestamp"], "root": "first"}
    for asked in (request, {"root": "latest"}):
        arn = stack.invoke("RestoreDatabaseFunction", asked)["execution_arn"]
        result = stack.result(arn)
        assert result.status is Status.SUCCEEDED, (result.error, result.cause)
    expected = listing(root, without=NEW)
    assert without_conf(listing(mount / "latest", without=NEW)) == without_conf(expected)
    assert (mount / "first/db/trades~1/sym.c").read_bytes() != b"later"
    again = stack.result(stack.invoke("RestoreDatabaseFunction", {"root": "latest"})["execution_arn"])
    assert (again.status, again.error) == (Status.FAILED, "TargetNotEmptyError")


def without_conf(found: dict[str, Any]) -> dict[str, Any]:
    """Restore adds its own lines to the configuration of the server."""
    return {path: entry for path, entry in found.items() if path != "conf/server.conf"}


def test_every_log_line_names_run_and_instance_and_none_a_secret(
    stack: DeployedStack, capsys: pytest.CaptureFixture[str]
) -> None:
    made = stack.backed_up()
    stack.invoke("GuardCheckpointFunction", {"trigger": "schedule"})
    text = capsys.readouterr().out
    lines = [json.loads(line) for line in text.splitlines()]
    logged = [line for line in lines if "_aws" not in line]
    assert {line["function_name"] for line in logged} >= {"AcquireLockFunction", "PruneBackupsFunction"}
    for line in logged:
        assert line["service"] == "questdb-backup"
        if line["function_name"] in (
            "UploadPartitionsFunction",
            "CompleteBackupFunction",
            "PruneBackupsFunction",
        ):
            assert line["instance"] == made["backup_instance_name"]
            assert line["run"] == made["backup_timestamp"]
    for secret in CREDENTIALS.values():
        assert secret not in text


def test_the_figures_have_the_dimensions_that_the_alarms_ask_for(
    stack: DeployedStack, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.backed_up()
    stack.database.hold_foreign()
    stack.clock.forward(minutes=20)
    stack.invoke("GuardCheckpointFunction", {"trigger": "schedule"})
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    figures = [line for line in lines if "_aws" in line]
    seen: dict[str, dict[str, Any]] = {}
    for figure in figures:
        (told,) = figure["_aws"]["CloudWatchMetrics"]
        assert told["Namespace"] == "QuestDBBackup"
        assert (figure["service"], figure["Stack"]) == ("questdb-backup", STACK)
        assert set(told["Dimensions"][0]) - {"Phase"} == {"service", "Stack"}
        seen[told["Metrics"][0]["Name"]] = figure
    assert {"BackupSucceeded", "BackupAgeSeconds", "CheckpointHeldSeconds", "GuardHeartbeat"} <= set(seen)
    assert seen["CheckpointHeldSeconds"]["CheckpointHeldSeconds"][0] >= 1200
    assert seen["BackupAgeSeconds"]["BackupAgeSeconds"][0] >= 1200
