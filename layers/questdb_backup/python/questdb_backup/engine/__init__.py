"""The local engine: runs the project's state machines in process, with the semantics of Step Functions."""

from questdb_backup.engine.calls import TaskFunction
from questdb_backup.engine.definition import StateMachine
from questdb_backup.engine.errors import StateError
from questdb_backup.engine.execution import Execution, ExecutionResult, Status
from questdb_backup.engine.history import EngineEvent, EventType
from questdb_backup.engine.services import MapFailure

__all__ = [
    "EngineEvent",
    "EventType",
    "Execution",
    "ExecutionResult",
    "MapFailure",
    "StateError",
    "StateMachine",
    "Status",
    "TaskFunction",
]
