"""AbortBackup: whom it stops, and how the guard cleans up at once."""

from typing import Any

import pytest

from questdb_backup import aws_guard
from questdb_backup.abort import abort_backup
from questdb_backup.errors import CheckpointBusyError
from questdb_backup.services import Services
from questdb_backup.steps.lock import acquire_lock
from questdb_backup.steps.run import Run
from tests.support.backups import INSTANCE, back_up, make_services
from tests.unit.aws_functions.conftest import EXECUTION, call


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
