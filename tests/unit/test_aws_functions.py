"""The invoked functions: restore, abort, list and guard; Step Functions and Lambda are moto's and stubs."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.response import StreamingBody
from botocore.stub import Stubber
from moto import mock_aws

from questdb_backup import aws_guard, aws_workflow
from questdb_backup.abort import abort_backup
from questdb_backup.aws_guard import guard_stack
from questdb_backup.aws_workflow import (
    describe_execution,
    invoke_function,
    is_execution,
    start_execution,
    stop_execution,
)
from questdb_backup.backups import backup_rows, list_backups
from questdb_backup.catalog import Catalog, acquire
from questdb_backup.catalog_store import read_catalog
from questdb_backup.ebs.base import RUN_TAG
from questdb_backup.errors import (
    CheckpointBusyError,
    ConfigurationError,
    DatabaseUnavailableError,
    PermanentError,
    StatusUnavailableError,
)
from questdb_backup.instances import find_instance
from questdb_backup.local.bundle import LocalContext, load_handler
from questdb_backup.questdb.base import Fence
from questdb_backup.services import Services
from questdb_backup.steps.lock import acquire_lock
from questdb_backup.steps.run import Run
from questdb_backup.steps.snapshots import tags_of_instance
from questdb_backup.stores.memory import MemoryObjectStore
from tests.support.backups import INSTANCE, back_up, make_root, make_services
from tests.support.memory_ec2 import MemoryEc2

NOW = "2026-03-01T12:00:00.000000Z"
COLUMNS = ["status", "progress_percent", "start_ts", "end_ts", "backup_error", "cleanup_error"]
EXECUTION = "arn:aws:states:eu-central-1:123456789012:execution:stack-backup:run-1"
MACHINE_ROLE = "arn:aws:iam::123456789012:role/x"
GUARD = {
    "QDB_BACKUP_RELEASE_CHECKPOINT_FUNCTION": "release",
    "QDB_BACKUP_READ_DATABASE_FUNCTION": "read",
}
FREE = {"now": NOW, "version": "9.3.4", "checkpoint": {"in_progress": False, "started_at": None}}


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(make_root(tmp_path / "origin"))


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A region of moto's, and clients that are made in it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    aws_workflow._step_functions.cache_clear()
    aws_workflow._lambda.cache_clear()
    with mock_aws():
        yield
    aws_workflow._step_functions.cache_clear()
    aws_workflow._lambda.cache_clear()


def call(name: str, event: dict[str, Any], services: Services) -> Any:
    """Call a function as the local engine does."""
    return load_handler(name)(event, LocalContext(services, name))


def make_machine() -> str:
    definition = json.dumps(
        {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 60, "End": True}}}
    )
    client = boto3.client("stepfunctions")
    answer = client.create_state_machine(name="stack-restore", definition=definition, roleArn=MACHINE_ROLE)
    return answer["stateMachineArn"]


# ---- Rows


def test_the_rows_have_the_six_columns_and_the_two_names(services: Services) -> None:
    run = back_up(services)
    (row,) = list_backups(services)
    assert list(row) == [*COLUMNS, "backup_timestamp", "backup_instance_name"]
    assert (row["status"], row["progress_percent"]) == ("backup complete", 100)
    assert (row["backup_timestamp"], row["backup_instance_name"]) == (run.backup_timestamp, INSTANCE)
    json.dumps(row)


def test_a_running_backup_shows_its_live_progress(services: Services) -> None:
    run = Run.from_json(acquire_lock(services, EXECUTION, {})["run"])
    services.status.set_total(INSTANCE, run.backup_timestamp, run.token, 200)
    services.status.add_done(INSTANCE, run.backup_timestamp, run.token, 0, 50)
    (row,) = list_backups(services)
    assert (row["status"], row["progress_percent"], row["end_ts"]) == ("backup in progress", 25, None)


def test_a_run_whose_lease_is_over_is_shown_as_failed() -> None:
    catalog = acquire(Catalog(instance=INSTANCE), holder="h", purpose="backup", now=NOW, term_seconds=60)
    (row,) = backup_rows(catalog, None, "2026-03-01T12:00:59.000000Z")
    assert row["status"] == "backup in progress"
    (row,) = backup_rows(catalog, None, "2026-03-01T12:01:00.000000Z")
    assert row["status"] == "backup failed"
    assert row["backup_error"]
    (row,) = backup_rows(replace(catalog, lease=None), None, NOW)
    assert row["status"] == "backup failed"


def test_without_an_instance_of_its_own_every_one_of_the_store_is_listed(
    services: Services, tmp_path: Path
) -> None:
    back_up(services)
    other = make_services(make_root(tmp_path / "two"), services.store, instance_name="quiet-river-stone")
    back_up(other)
    anyone = make_services(None, services.store, instance_name=None)
    names = {row["backup_instance_name"] for row in call("ListBackups", {}, anyone)}
    assert names == {INSTANCE, "quiet-river-stone"}
    assert call("ListBackups", {"instance": INSTANCE}, anyone) == list_backups(services)


def test_a_stack_finds_its_instance_by_its_own_id(services: Services) -> None:
    mine = make_services(services.config.root, services.store, instance_name=None, stack_id="arn:mine")
    assert find_instance(mine) is None
    back_up(mine)
    assert find_instance(mine) is not None
    assert find_instance(make_services(None, services.store, instance_name=None, stack_id="arn:x")) is None


def test_an_empty_store_has_no_rows() -> None:
    assert list_backups(make_services()) == []


# ---- Abort


def test_abort_stops_the_execution_that_holds_the_lease_and_leaves_the_reason(services: Services) -> None:
    run = Run.from_json(acquire_lock(services, EXECUTION, {})["run"])
    stopped: list[tuple[str, str]] = []

    def stop(holder: str, reason: str) -> bool:
        live = services.status.read(INSTANCE)
        assert live is not None
        assert live.abort_reason == reason
        stopped.append((holder, reason))
        return True

    answer = abort_backup(services, stop)
    assert answer == {"status": "aborted", "backup_timestamp": run.backup_timestamp}
    assert [holder for holder, _ in stopped] == [EXECUTION]


def test_abort_finds_the_run_in_the_catalog_where_the_status_is_lost(services: Services) -> None:
    run = Run.from_json(acquire_lock(services, EXECUTION, {})["run"])
    services.status.finish(INSTANCE, run.backup_timestamp, run.token)
    assert abort_backup(services, lambda _holder, _reason: True)["status"] == "aborted"


def test_abort_of_nothing_is_not_running(
    services: Services, cloud: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QDB_BACKUP_GUARD_FUNCTION", "guard")

    def never(_holder: str, _reason: str) -> bool:
        raise AssertionError("there is nothing to stop")

    nothing = {"status": "not running", "backup_timestamp": None}
    assert abort_backup(make_services(instance_name=None), never) == nothing
    back_up(services)
    assert abort_backup(services, never) == nothing
    acquire_lock(services, "local:host:1", {})
    assert call("AbortBackup", {}, services) == nothing


@pytest.mark.parametrize("guard_is_down", [False, True])
def test_abort_of_the_stack_tells_its_reason_and_has_the_guard_clean_up(
    services: Services, monkeypatch: pytest.MonkeyPatch, guard_is_down: bool
) -> None:
    acquire_lock(services, EXECUTION, {})
    calls: list[object] = []

    def invoke(name: str, event: dict[str, Any]) -> None:
        calls.append((name, event))
        if guard_is_down:
            raise CheckpointBusyError("busy")

    def stop(*told: str) -> bool:
        calls.append(told)
        return True

    monkeypatch.setattr(aws_guard, "stop_execution", stop)
    monkeypatch.setattr(aws_guard, "invoke_function", invoke)
    environ = {"QDB_BACKUP_GUARD_FUNCTION": "guard"}
    answer = aws_guard.abort_stack(services, {"reason": "maintenance"}, environ)
    assert answer["status"] == "aborted"
    assert calls == [
        (EXECUTION, "aborted by BACKUP ABORT: maintenance"),
        ("guard", {"trigger": "abort"}),
    ]


# ---- Step Functions and Lambda


def test_the_restore_function_starts_the_machine_with_the_checked_request(
    cloud: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = make_machine()
    monkeypatch.setenv("QDB_BACKUP_RESTORE_STATE_MACHINE_ARN", machine)
    request = {"instance": INSTANCE, "timestamp": "2026-03-01", "dry_run": False}
    answer = call("RestoreDatabase", request, make_services())
    described = boto3.client("stepfunctions").describe_execution(executionArn=answer["execution_arn"])
    assert json.loads(described["input"]) == {"instance": INSTANCE, "timestamp": "2026-03-01"}
    with pytest.raises(ConfigurationError, match="no field 'tmestamp'"):
        call("RestoreDatabase", {"tmestamp": "2026-03-01"}, make_services())
    monkeypatch.delenv("QDB_BACKUP_RESTORE_STATE_MACHINE_ARN")
    with pytest.raises(ConfigurationError, match="QDB_BACKUP_RESTORE_STATE_MACHINE_ARN is missing"):
        call("RestoreDatabase", {}, make_services())


def test_an_execution_is_started_described_and_stopped(cloud: None) -> None:
    execution = start_execution(make_machine(), {})
    assert is_execution(execution)
    assert not is_execution("local:host:1")
    assert describe_execution(execution) == "RUNNING"
    assert stop_execution(execution, "because") is True
    assert describe_execution(execution) == "ABORTED"


def test_an_execution_that_does_not_exist_is_no_error(cloud: None) -> None:
    missing = make_machine().replace("stateMachine", "execution") + ":gone"
    assert describe_execution(missing) is None
    assert stop_execution(missing, "because") is False


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("ThrottlingException", StatusUnavailableError),
        ("AccessDeniedException", ConfigurationError),
        ("InvalidArn", PermanentError),
    ],
)
def test_errors_of_the_sdk_get_our_names(
    cloud: None, monkeypatch: pytest.MonkeyPatch, code: str, error: type[Exception]
) -> None:
    client = aws_workflow._step_functions()

    def fail(**_: object) -> None:
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, "DescribeExecution")

    monkeypatch.setattr(client, "describe_execution", fail)
    with pytest.raises(error, match="describing"):
        describe_execution(EXECUTION)


def test_a_network_that_is_gone_is_transient(cloud: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://x")

    monkeypatch.setattr(aws_workflow._step_functions(), "start_execution", fail)
    with pytest.raises(StatusUnavailableError):
        start_execution("arn:x", {})


def answer_of(value: object, **more: object) -> dict[str, Any]:
    data = json.dumps(value).encode()
    return {"StatusCode": 200, "Payload": StreamingBody(io.BytesIO(data), len(data)), **more}


def test_a_function_is_invoked_and_its_error_raised_under_its_own_class(cloud: None) -> None:
    with Stubber(aws_workflow._lambda()) as stub:
        stub.add_response("invoke", answer_of({"outcome": "free"}))
        assert invoke_function("release", {"fence": {}}) == {"outcome": "free"}
        told = {"errorType": "CheckpointBusyError", "errorMessage": "busy. Hint: wait."}
        stub.add_response("invoke", answer_of(told, FunctionError="Unhandled"))
        with pytest.raises(CheckpointBusyError, match="busy"):
            invoke_function("release", {})
        stub.add_response("invoke", answer_of({"errorMessage": "Task timed out"}, FunctionError="Unhandled"))
        with pytest.raises(PermanentError, match="Task timed out"):
            invoke_function("release", {})


# ---- Guard


class Figures:
    """Remembers the metrics."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    @property
    def names(self) -> list[str]:
        return list(self.values)

    def add(self, name: str, value: float, unit: str, **dimensions: str) -> None:
        assert value >= 0
        self.values[name] = value


@pytest.fixture
def dead_run(services: Services) -> Run:
    """A run with a checkpoint that it has left behind."""
    back_up(services, "earlier")
    run = Run.from_json(acquire_lock(services, EXECUTION, {})["run"])
    services.status.record_fence(
        INSTANCE, run.backup_timestamp, run.token, Fence(db_now=NOW, window_seconds=30, started_at=NOW)
    )
    return run


def set_status(
    monkeypatch: pytest.MonkeyPatch, status: str | None, database: dict[str, Any] = FREE
) -> list[dict[str, Any]]:
    """Let execution and server have that status; give the events that the release function gets."""
    sent: list[dict[str, Any]] = []

    def invoke(name: str, event: dict[str, Any]) -> dict[str, Any]:
        if name == "read":
            return database
        sent.append(event)
        return {"outcome": "released", "started_at": NOW, "held_seconds": 1.0}

    monkeypatch.setattr(aws_guard, "describe_execution", lambda _arn: status)
    monkeypatch.setattr(aws_guard, "invoke_function", invoke)
    return sent


@pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT", "ABORTED", None])
def test_the_guard_ends_a_dead_run_and_releases_by_its_fence(
    services: Services, dead_run: Run, monkeypatch: pytest.MonkeyPatch, status: str | None
) -> None:
    sent = set_status(monkeypatch, status)
    services.metrics = figures = Figures()
    report = guard_stack(services, {"detail": {"status": "TIMED_OUT"}}, GUARD)
    assert report == {
        "outcome": "ended",
        "backup_timestamp": dead_run.backup_timestamp,
        "release": "released",
        "snapshots_deleted": [],
    }
    assert sent == [{"fence": {"db_now": NOW, "window_seconds": 30, "started_at": NOW}}]
    row = read_catalog(services.store, INSTANCE).row(dead_run.backup_timestamp)
    assert row is not None
    assert row.backup_error == "the execution ran into its timeout"
    assert read_catalog(services.store, INSTANCE).lease is None
    assert figures.names[-2:] == ["BackupAgeSeconds", "GuardHeartbeat"]


def give_snapshots(services: Services, run: Run) -> MemoryEc2:
    """The source ebs, with a snapshot that the run has made."""
    ec2 = MemoryEc2()
    services.config = replace(services.config, source="ebs")
    services.make_ec2 = lambda: ec2
    instance = ec2.add_instance()
    ec2.add_volume(instance)
    tags = {**tags_of_instance(services, INSTANCE), RUN_TAG: run.backup_timestamp}
    ec2.create_snapshots(instance, tags, without_root=True, without=[])
    return ec2


def test_the_guard_deletes_the_snapshots_of_a_dead_run_and_no_living_ones(
    services: Services, dead_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ec2 = give_snapshots(services, dead_run)
    (snapshot,) = ec2.snapshots()
    set_status(monkeypatch, "RUNNING")
    assert guard_stack(services, {}, GUARD)["snapshots_deleted"] == []
    set_status(monkeypatch, "FAILED")
    assert guard_stack(services, {}, GUARD)["snapshots_deleted"] == [snapshot.snapshot_id]
    assert ec2.snapshots() == []


def test_snapshots_that_cannot_be_deleted_do_not_silence_the_guard(
    services: Services, dead_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ec2 = give_snapshots(services, dead_run)
    set_status(monkeypatch, "FAILED")
    ec2.be_busy()
    services.metrics = figures = Figures()
    report = guard_stack(services, {}, GUARD)
    assert (report["outcome"], report["snapshots_deleted"]) == ("ended", [])
    assert "GuardHeartbeat" in figures.names
    assert len(guard_stack(services, {}, GUARD)["snapshots_deleted"]) == 1


def test_the_guard_leaves_a_running_execution_alone(
    services: Services, dead_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = set_status(monkeypatch, "RUNNING")
    for name, value in GUARD.items():
        monkeypatch.setenv(name, value)
    assert call("GuardCheckpoint", {"trigger": "schedule"}, services)["outcome"] == "running"
    assert sent == []


def test_the_guard_never_judges_a_holder_on_another_host(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire_lock(services, "local:laptop:1", {})
    set_status(monkeypatch, None)
    assert guard_stack(services, {}, GUARD)["outcome"] == "running"


def test_a_release_that_failed_gives_no_heartbeat(
    services: Services, dead_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_status(monkeypatch, "FAILED")

    def busy(name: str, _event: dict[str, Any]) -> dict[str, Any]:
        if name == "release":
            raise CheckpointBusyError("busy")
        return {**FREE, "checkpoint": {"in_progress": True, "started_at": NOW}}

    monkeypatch.setattr(aws_guard, "invoke_function", busy)
    services.metrics = figures = Figures()
    with pytest.raises(CheckpointBusyError):
        guard_stack(services, {}, GUARD)
    assert figures.names == ["BackupAgeSeconds", "CheckpointHeldSeconds"]
    live = services.status.read(INSTANCE)
    assert live is not None
    assert live.fence.started_at == NOW


def test_the_guard_tells_how_long_any_checkpoint_is_held_also_a_foreign_one(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = {"in_progress": True, "started_at": "2026-03-01T11:58:20.000000Z"}
    sent = set_status(monkeypatch, None, {**FREE, "checkpoint": checkpoint})
    services.metrics = figures = Figures()
    assert guard_stack(services, {}, GUARD)["outcome"] == "idle"
    assert figures.values["CheckpointHeldSeconds"] == 100.0
    assert "GuardHeartbeat" in figures.names
    assert sent == []


def test_a_server_that_is_down_does_not_silence_the_guard(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(_name: str, _event: dict[str, Any]) -> None:
        raise DatabaseUnavailableError("no connection")

    monkeypatch.setattr(aws_guard, "invoke_function", down)
    services.metrics = figures = Figures()
    assert guard_stack(services, {}, GUARD)["outcome"] == "idle"
    assert figures.names == ["GuardHeartbeat"]


def test_without_a_complete_backup_the_age_counts_from_the_first_one_begun(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_status(monkeypatch, "RUNNING")
    services.metrics = figures = Figures()
    acquire_lock(services, EXECUTION, {})
    guard_stack(services, {}, GUARD)
    age = figures.values["BackupAgeSeconds"]
    guard_stack(services, {}, GUARD)
    assert 0 < age < figures.values["BackupAgeSeconds"]


def test_the_guard_of_a_fresh_stack_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    set_status(monkeypatch, None)
    services = make_services(store=MemoryObjectStore(), instance_name=None, stack_id="arn:new")
    services.metrics = figures = Figures()
    assert guard_stack(services, {}, GUARD)["outcome"] == "idle"
    assert figures.names == ["GuardHeartbeat"]
    with pytest.raises(ConfigurationError, match="RELEASE_CHECKPOINT_FUNCTION is missing"):
        guard_stack(services, {}, {})
