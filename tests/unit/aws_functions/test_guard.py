"""GuardCheckpoint: what it ends, releases and deletes after a dead run, and the figures that it tells."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from questdb_backup import aws_guard
from questdb_backup.aws_guard import guard_stack
from questdb_backup.catalog_store import read_catalog
from questdb_backup.ebs.base import RUN_TAG
from questdb_backup.errors import (
    BackupInProgressError,
    CheckpointBusyError,
    ConfigurationError,
    DatabaseUnavailableError,
    ScheduleServedError,
)
from questdb_backup.questdb.base import Fence
from questdb_backup.services import Services
from questdb_backup.steps.lock import acquire_lock
from questdb_backup.steps.run import Run
from questdb_backup.steps.snapshots import tags_of_instance
from questdb_backup.stores.memory import MemoryObjectStore
from tests.support.backups import INSTANCE, Ticking, back_up, make_services
from tests.support.memory_ec2 import MemoryEc2
from tests.unit.aws_functions.conftest import EXECUTION, NOW, call

GUARD = {
    "QDB_BACKUP_RELEASE_CHECKPOINT_FUNCTION": "release",
    "QDB_BACKUP_READ_DATABASE_FUNCTION": "read",
}
FREE = {"now": NOW, "version": "9.3.4", "checkpoint": {"in_progress": False, "started_at": None}}


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


def test_the_words_of_the_worker_that_failed_are_not_lost(
    services: Services, dead_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.status.record_error(INSTANCE, dead_run.backup_timestamp, dead_run.token, "the disk is torn")
    set_status(monkeypatch, "FAILED")
    assert guard_stack(services, {}, GUARD)["outcome"] == "ended"
    row = read_catalog(services.store, INSTANCE).row(dead_run.backup_timestamp)
    assert row is not None
    assert row.backup_error == "the disk is torn"


def test_a_new_run_does_not_forget_the_checkpoint_of_a_dead_one(
    services: Services, dead_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(services.clock, Ticking)
    services.clock.now += timedelta(hours=2)
    with pytest.raises(BackupInProgressError, match="may still be held"):
        acquire_lock(services, f"{EXECUTION}-next", {})
    sent = set_status(monkeypatch, "FAILED")
    assert guard_stack(services, {}, GUARD)["release"] == "released"
    assert len(sent) == 1
    acquire_lock(services, f"{EXECUTION}-next", {})


def test_a_tick_that_is_delivered_again_while_its_backup_runs_is_served(services: Services) -> None:
    tick = {"trigger": "schedule", "scheduled_time": NOW}
    acquire_lock(services, EXECUTION, tick)
    with pytest.raises(ScheduleServedError):
        acquire_lock(services, f"{EXECUTION}-again", tick)
    with pytest.raises(BackupInProgressError):
        acquire_lock(services, f"{EXECUTION}-other", {})
