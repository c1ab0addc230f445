"""A deployment on the source ebs, in memory: `Kit` with an instance and its volumes."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from questdb_backup.catalog_store import read_catalog
from questdb_backup.engine.definition import StateMachine
from questdb_backup.engine.execution import Execution, ExecutionResult
from questdb_backup.engine.history import EngineEvent
from questdb_backup.local.bundle import read_definition, substitutions, tasks
from questdb_backup.questdb.base import Fence
from questdb_backup.services import Services
from questdb_backup.steps.guard import GuardReport, guard_checkpoint
from questdb_backup.steps.lock import acquire_lock
from questdb_backup.steps.run import Run
from tests.support.kit import INSTANCE, Kit
from tests.support.memory_ec2 import MemoryEc2

STARTED_AT = "2026-01-01T00:00:05.000000Z"
STACK = "questdb-backup"


@dataclass
class EbsKit(Kit):
    """``i``, its boot volume ``root`` and its data volumes ``data``; sleeping moves the clock."""

    ec2: MemoryEc2 = field(default_factory=MemoryEc2)
    keep_snapshots: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ec2.clock = self.clock
        self.i = self.ec2.add_instance(Name="questdb")
        self.root = self.ec2.add_volume(self.i, "/dev/sda1", root=True)
        self.data = [self.ec2.add_volume(self.i, f"/dev/sd{letter}") for letter in "fg"]
        self.services = self.make_services()

    def make_services(self, **changes: Any) -> Services:
        """Services over this deployment's adapters, or over others that are given."""
        ec2, settings = changes.pop("ec2", None), changes.pop("settings", {})
        services = super().make_services(**changes)
        own = {
            "source": "ebs",
            "ebs_instance": "Name=questdb",
            "keep_ebs_snapshots": self.keep_snapshots,
        }
        services.config = replace(services.config, **(own | settings))
        services.make_ec2 = lambda: ec2 or self.ec2
        services.sleep = lambda seconds: self.clock.forward(seconds=seconds)
        return services

    def begin(self) -> tuple[Run, Fence]:
        """A run that has the lease, and its checkpoint's fence."""
        self.started += 1
        state = acquire_lock(self.services, f"execution-{self.started}", {})
        fence = Fence(db_now="2026-01-01T00:00:04.000000Z", window_seconds=30.0, started_at=STARTED_AT)
        return Run.from_json(state["run"]), fence

    def execution(self, services: Services | None = None, **replaced: Any) -> Execution:
        """One execution of the deployed machine; ``replaced`` are tasks by state name, or a ``hook``."""
        hook = replaced.pop("hook", None)
        definition, used = read_definition("backup"), services or self.services
        self.started += 1
        name = f"execution-{self.started}"
        return Execution(
            StateMachine.load(definition, substitutions(definition)),
            {**tasks(definition, used), **replaced},
            {},
            name=name,
            execution_id=name,
            read_object=lambda _bucket, key: used.store.get(key),
            max_workers=2,
            sleep=lambda seconds: self.clock.forward(seconds=seconds),
            time_scale=1.0,
            hook=hook,
        )

    def run(self, services: Services | None = None, **replaced: Any) -> ExecutionResult:
        """The same, run to its end."""
        return self.execution(services, **replaced).run()

    def guard(self) -> GuardReport:
        """What EventBridge has done after an execution that ended badly: all of them are dead."""
        return guard_checkpoint(
            self.services,
            INSTANCE,
            is_dead=lambda _holder: True,
            release=partial(self.database.release_checkpoint, timeout_seconds=1.0),
        )

    def error(self) -> str:
        """What stands on the newest row."""
        return str(read_catalog(self.inner, INSTANCE).rows[-1].backup_error)


def entered(events: list[EngineEvent]) -> list[str]:
    """Names of the states, in the order of their visits; not those of Map items."""
    return [str(e.state) for e in events if e.item is None and e.type.endswith("StateEntered")]
