"""What all levels of one execution share: the parent and the child executions of its Maps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from questdb_backup.clock import Clock
from questdb_backup.engine.calls import Calls, TaskFunction
from questdb_backup.engine.history import Hook
from questdb_backup.engine.threads import Threads

ReadObject = Callable[[str, str], bytes]
"""Bucket and key to the bytes of an object: an ItemReader's JSON array."""


@dataclass(frozen=True, kw_only=True)
class MapFailure:
    """The error of a Map item's child execution, which Step Functions does not hand to the parent."""

    state: str
    item: int
    error: str
    cause: str


@dataclass(frozen=True, kw_only=True)
class Services:
    """Constant for one execution; `failures` grows."""

    tasks: Mapping[str, TaskFunction]
    read_object: ReadObject
    max_workers: int
    sleep: Callable[[float], None] | None
    clock: Clock
    time_scale: float
    timeout_scale: float
    hook: Hook | None
    threads: Threads
    calls: Calls
    failures: list[MapFailure] = field(default_factory=list)
