"""Every file of ``events/``, fed to what the template makes of its name.

The events of the steps are those of one run: what a step answers to its event is what the next event
holds.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from questdb_backup import aws_workflow, unit_cutting
from questdb_backup.catalog import Catalog
from questdb_backup.catalog_store import read_catalog, update_catalog
from questdb_backup.clock import parse_timestamp
from questdb_backup.engine.definition import StateMachine
from questdb_backup.engine.execution import Execution, ExecutionResult
from questdb_backup.local.bundle import LocalContext
from questdb_backup.services import Config
from tests.support.backups import INSTANCE, FolderSource, listing, make_root
from tests.support.deployed_template import Template
from tests.support.kit import Kit
from tests.support.memory_ec2 import MemoryEc2
from tests.support.memory_volumes import MemoryVolumes
from tests.support.opened_snapshots import put_folder_in_snapshots
from tests.template.cloudformation import ROOT, camel_case

EVENTS = ROOT / "events"
PREVIOUS = "2024-08-23T00:00:02.417003Z"
RUN = "2024-08-24T12:34:56.789123Z"
DB_NOW = "2024-08-24T12:34:58.120345Z"
STARTED_AT = "2024-08-24T12:34:59.004511Z"
RELEASED_AT = "2024-08-24T12:35:03.204511Z"
UNKNOWN_HERE = ("bucket", "key", "bytes", "counters")


def event(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text())
    return loaded


class Clock:
    """Stands still."""

    def __init__(self) -> None:
        self.set(PREVIOUS)

    def __call__(self) -> datetime:
        return self.at

    def set(self, moment: str) -> None:
        self.at = parse_timestamp(moment)


class Stack:
    """The functions of the template over in-memory adapters, one backup made the day before."""

    def __init__(self, root: Path, mount: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
        self.template = Template({}, {})
        self.clock = Clock()
        self.kit = Kit(clock=self.clock)  # type: ignore[arg-type]
        self.source = FolderSource(root)
        self.services = self.kit.make_services(config=self._config("path", mount), source=self.source)
        self.ec2 = self._ec2()
        self.services.make_ec2 = lambda: self.ec2
        put_folder_in_snapshots(monkeypatch, lambda: self.source)
        self.status = "RUNNING"
        self.stopped: list[str] = []
        self.restores: list[ExecutionResult] = []
        monkeypatch.setattr(aws_workflow, "_step_functions", self._step_functions)
        monkeypatch.setattr(aws_workflow, "_lambda", self._lambda)
        for name in ("GuardCheckpoint", "AbortBackup", "RestoreDatabase"):
            for variable, value in self.template.environment(f"{name}Function").items():
                monkeypatch.setenv(variable, value)
        assert self.kit.backup(self.services).status == "SUCCEEDED"
        monkeypatch.setattr(unit_cutting, "UNIT_BYTES", 6 << 20)
        self.services.config = self._config("ebs", mount)
        update_catalog(self.kit.inner, INSTANCE, lambda before: replace(before, last_token=6))
        (root / "db/trades~1/sym.c").write_bytes(b"of today")
        self.clock.set(RUN)

    def _config(self, source: str, mount: Path | None) -> Config:
        return Config(
            source=source,
            instance_name=INSTANCE,
            stack_id="arn:stack",
            ebs_instance="Name=questdb",
            window_seconds=30.0,
            restore_root=mount,
            object_store="s3::bucket=b;root=questdb;",
        )

    def _ec2(self) -> MemoryEc2:
        """The instance, its volume and the snapshot of the events."""
        ec2, wanted = MemoryEc2(clock=self.clock, looks=0), event("create_snapshots")["preflight"]
        known = event("check_snapshots")["snapshots"]["volumes"][0]
        ec2.name_next(i=wanted["instance_id"], vol=known["volume_id"], snap=known["snapshot_id"])
        instance = ec2.add_instance(Name="questdb")
        ec2.add_volume(instance, known["device"], size=wanted["volumes"][0]["size"])
        ec2.add_volume(instance, "/dev/sda1", root=True)
        return ec2

    def feed(self, name: str, **changes: Any) -> Any:
        """Call the function that the event is named after, as the template's Handler names it."""
        return self.invoke(f"{camel_case(name.partition('.')[0])}Function", {**event(name), **changes})

    def invoke(self, function: str, value: dict[str, Any]) -> Any:
        answer = self.template.handler(function)(value, LocalContext(self.services, function))
        return json.loads(json.dumps(answer))

    def catalog(self) -> Catalog:
        return read_catalog(self.kit.inner, INSTANCE)

    def begin(self, until: str = "check_checkpoint") -> None:
        """Feed the run's events up to the one before ``until``."""
        for name, moment in (
            ("acquire_lock.manual", RUN),
            ("record_intent", DB_NOW),
            ("create_checkpoint", STARTED_AT),
            ("record_checkpoint", STARTED_AT),
        ):
            if name == until:
                return
            self.clock.set(moment)
            self.feed(name)

    def _step_functions(self) -> Any:
        return SimpleNamespace(
            describe_execution=lambda executionArn: {"status": self.status},
            stop_execution=lambda executionArn, error, cause: self._stop(executionArn),
            start_execution=lambda stateMachineArn, input: self._start(stateMachineArn, json.loads(input)),
            exceptions=SimpleNamespace(ExecutionDoesNotExist=LookupError),
        )

    def _stop(self, arn: str) -> None:
        self.stopped.append(arn)
        self.status = "ABORTED"

    def _start(self, machine: str, value: dict[str, Any]) -> dict[str, str]:
        assert machine == self.template.machine_arn("RestoreStateMachine")
        self.restores.append(self.run("RestoreStateMachine", value))
        return {"executionArn": f"{machine.replace('stateMachine', 'execution')}:one"}

    def run(self, machine: str, value: dict[str, Any]) -> ExecutionResult:
        definition, substitutions = self.template.definition(machine)
        loaded = StateMachine.load(definition, substitutions)
        tasks = {name: self._task(name) for name in loaded.resources()}
        return Execution(
            loaded,
            tasks,
            value,
            name="one",
            execution_id=f"arn:aws:states:eu-west-1:123456789012:execution:{machine}:one",
            read_object=lambda _bucket, key: self.kit.inner.get(key),
            max_workers=1,
            time_scale=0.0,
        ).run()

    def _task(self, function: str) -> Callable[[dict[str, Any]], object]:
        return lambda value: self.invoke(function, value)

    def _lambda(self) -> Any:
        def invoke(FunctionName: str, Payload: bytes) -> dict[str, Any]:
            data = json.dumps(self.invoke(FunctionName, json.loads(Payload))).encode()
            return {"Payload": SimpleNamespace(read=lambda: data)}

        return SimpleNamespace(invoke=invoke)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path / "origin")


@pytest.fixture
def stack(root: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    return Stack(root, None, monkeypatch)


def test_no_event_is_left_out_here() -> None:
    text = Path(__file__).read_text()
    assert [path.stem for path in EVENTS.glob("*.json") if f'"{path.stem}"' not in text] == []


def test_the_events_of_the_steps_are_those_of_one_run(stack: Stack, root: Path) -> None:
    first = stack.feed("acquire_lock.manual")
    assert first["run"] == event("check_preflight")["run"]
    assert (first["source"], first["trigger"], first["fence"]) == (
        "ebs",
        "manual",
        event("record_intent")["fence"],
    )
    stack.clock.set(DB_NOW)
    assert stack.feed("read_database") == event("check_preflight")["database"]
    checked = stack.feed("check_preflight")
    assert {**checked, "warnings": []} == event("create_snapshots")["preflight"]
    assert stack.feed("record_intent") == event("create_checkpoint")["fence"]
    stack.clock.set(STARTED_AT)
    assert stack.feed("create_checkpoint") == event("record_checkpoint")["checkpoint"]
    assert stack.feed("record_checkpoint") == event("check_checkpoint")["fence"]
    assert stack.feed("check_checkpoint") == {"outcome": "ok", "torn": []}
    assert stack.feed("create_snapshots") == event("check_snapshots")["snapshots"]
    assert stack.feed("verify_checkpoint") is None
    stack.clock.set(RELEASED_AT)
    assert stack.feed("release_checkpoint") == event("complete_backup")["release"]
    assert stack.feed("check_snapshots") == event("plan_backup")["snapshots"]
    plan, wanted = stack.feed("plan_backup"), event("complete_backup")["plan"]
    assert set(plan) == set(wanted)
    assert wanted["key"].endswith(plan["key"])
    assert set(plan["counters"]) == set(wanted["counters"])
    assert {**plan, **{name: wanted[name] for name in UNKNOWN_HERE}} == wanted
    for number in range(plan["units"]):
        item = event("upload_partitions")["item"]
        assert stack.feed("upload_partitions", item={**item, "unit": number}) == {}
    done = stack.feed("complete_backup")
    assert (done["backup_timestamp"], done["status"]) == (RUN, "backup complete")
    pruned = stack.feed("prune_backups")
    assert [kept["backup_timestamp"] for kept in pruned["keep"]] == [RUN, PREVIOUS]
    assert [kept["run"] for kept in pruned["snapshots"]["keep"]] == [RUN]
    assert stack.feed("release_lock") is None
    assert stack.catalog().lease is None
    rows = stack.feed("list_backups")
    assert [row["backup_timestamp"] for row in rows] == [PREVIOUS, RUN]
    assert {row["status"] for row in rows} == {"backup complete"}


@pytest.mark.parametrize("name", ["backup.manual", "backup.schedule"])
def test_the_state_machine_takes_a_start_by_hand_and_a_tick(stack: Stack, name: str) -> None:
    result = stack.run("BackupStateMachine", event(name))
    assert result.status == "SUCCEEDED", (result.error, result.cause)
    served = "2024-08-24T00:00:00.000000Z" if name == "backup.schedule" else None
    assert stack.catalog().last_scheduled_time == served
    assert len(stack.catalog().complete_rows()) == 2


def test_a_tick_is_served_once(stack: Stack) -> None:
    assert stack.feed("acquire_lock.schedule")["trigger"] == "schedule"
    assert stack.feed("acquire_lock.schedule")["run"]["backup_timestamp"] == RUN, "a retry"
    stack.feed("release_lock")
    other = stack.run("BackupStateMachine", event("backup.schedule"))
    assert other.status == "SUCCEEDED", "no alarm rings"
    assert isinstance(other.output, dict)
    assert other.output["Error"] == "ScheduleServedError"


def test_the_error_of_a_failed_run_gets_to_its_row_and_the_intent_stays(stack: Stack) -> None:
    stack.begin()
    assert stack.feed("fail_backup") == {"outcome": "failed", "backup": None}
    row = stack.catalog().row(RUN)
    assert row is not None
    assert row.status == "backup failed"
    assert row.backup_error == json.loads(event("fail_backup")["error"]["Cause"])["errorMessage"]
    live = stack.services.status.read(INSTANCE)
    assert live is not None
    assert live.fence.started_at == STARTED_AT


def test_the_guard_leaves_a_living_run_alone_and_ends_a_dead_one(stack: Stack) -> None:
    stack.begin()
    assert stack.feed("guard_checkpoint.schedule")["outcome"] == "running"
    stack.status = "ABORTED"
    assert stack.feed("guard_checkpoint.execution_status") == {
        "outcome": "ended",
        "backup_timestamp": RUN,
        "release": "released",
        "snapshots_deleted": [],
    }
    row = stack.catalog().row(RUN)
    assert row is not None
    assert row.backup_error == "the execution was stopped"
    assert stack.feed("guard_checkpoint.schedule")["outcome"] == "idle"


def test_an_abort_stops_the_execution_and_the_guard_ends_the_run(stack: Stack) -> None:
    assert stack.feed("abort_backup") == {"status": "not running", "backup_timestamp": None}
    stack.begin()
    assert stack.feed("abort_backup") == {"status": "aborted", "backup_timestamp": RUN}
    assert stack.stopped == [event("acquire_lock.manual")["execution"]]
    row = stack.catalog().row(RUN)
    assert row is not None
    assert row.backup_error == "aborted by BACKUP ABORT: maintenance of the host"
    assert stack.kit.database.read().checkpoint.in_progress is False


@pytest.fixture
def restoring(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A stack with a mounted file system and the backups of two days."""
    (tmp_path / "mount").mkdir()
    stack = Stack(root, tmp_path / "mount", monkeypatch)
    assert stack.run("BackupStateMachine", {}).status == "SUCCEEDED"
    return stack


@pytest.mark.parametrize(
    ("name", "restored"), [("restore_database.latest", RUN), ("restore_database.timestamp", PREVIOUS)]
)
def test_the_restore_function_starts_the_restore_of_the_asked_point(
    restoring: Stack, root: Path, tmp_path: Path, name: str, restored: str
) -> None:
    assert ":execution:questdb-backup-restore:" in restoring.feed(name)["execution_arn"]
    (result,) = restoring.restores
    assert result.status == "SUCCEEDED", (result.error, result.cause)
    assert isinstance(result.output, dict)
    assert result.output["backup_timestamp"] == restored
    found = (tmp_path / "mount/db/trades~1/sym.c").read_bytes()
    assert (found == b"of today") == (restored == RUN)


def test_the_events_of_a_restores_steps_are_those_of_one_restore(
    restoring: Stack, root: Path, tmp_path: Path
) -> None:
    planned = restoring.feed("plan_restore")
    wanted = event("download_partitions")["restore"]
    assert set(planned["restore"]) == set(wanted)
    same = (
        "execution",
        "instance",
        "backup_timestamp",
        "manifest_key",
        "server_version",
        "keep_instance",
        "notes",
    )
    assert {name: planned["restore"][name] for name in same} == {name: wanted[name] for name in same}
    assert planned["target"] == "path"
    failed = restoring.feed("fail_restore", restore=planned["restore"])
    assert failed["error"] == json.loads(event("fail_restore")["error"]["Cause"])["errorMessage"]
    for unit in restoring.feed("plan_restore")["units"]:
        assert restoring.feed("download_partitions", restore=planned["restore"], unit=unit) == {}
    done = restoring.feed("complete_restore", restore=planned["restore"])
    assert (done["root"], done["backup_timestamp"]) == (str(tmp_path / "mount"), RUN)
    assert listing(tmp_path / "mount/db") == listing(root / "db")


def test_the_event_of_a_restore_to_volumes_asks_for_the_snapshot_of_the_run(stack: Stack) -> None:
    assert stack.run("BackupStateMachine", {}).status == "SUCCEEDED"
    volumes = MemoryVolumes()
    stack.services.make_volumes = lambda: volumes
    assert stack.feed("restore_volumes")["phase"] == "creating"
    assert volumes.calls == ["create"]
    assert stack.feed("restore_volumes.after_error")["phase"] == "new", "nothing goes on"
    assert volumes.calls == ["create"], "no fast restore was asked for"
