"""The events of an execution, named and counted as Step Functions does for a Standard workflow."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from questdb_backup.engine.errors import RUNTIME, StateError

HISTORY_LIMIT = 25_000
"""Events that one execution may have; a Map's child executions have histories of their own."""


class EventType(StrEnum):
    """Types of GetExecutionHistory. A Task whose Resource is a function's ARN has the LambdaFunction ones."""

    EXECUTION_STARTED = "ExecutionStarted"
    EXECUTION_SUCCEEDED = "ExecutionSucceeded"
    EXECUTION_FAILED = "ExecutionFailed"
    EXECUTION_ABORTED = "ExecutionAborted"
    EXECUTION_TIMED_OUT = "ExecutionTimedOut"
    TASK_STATE_ENTERED = "TaskStateEntered"
    TASK_STATE_EXITED = "TaskStateExited"
    CHOICE_STATE_ENTERED = "ChoiceStateEntered"
    CHOICE_STATE_EXITED = "ChoiceStateExited"
    WAIT_STATE_ENTERED = "WaitStateEntered"
    WAIT_STATE_EXITED = "WaitStateExited"
    MAP_STATE_ENTERED = "MapStateEntered"
    MAP_STATE_EXITED = "MapStateExited"
    SUCCEED_STATE_ENTERED = "SucceedStateEntered"
    SUCCEED_STATE_EXITED = "SucceedStateExited"
    FAIL_STATE_ENTERED = "FailStateEntered"
    LAMBDA_FUNCTION_SCHEDULED = "LambdaFunctionScheduled"
    LAMBDA_FUNCTION_STARTED = "LambdaFunctionStarted"
    LAMBDA_FUNCTION_SUCCEEDED = "LambdaFunctionSucceeded"
    LAMBDA_FUNCTION_FAILED = "LambdaFunctionFailed"
    LAMBDA_FUNCTION_TIMED_OUT = "LambdaFunctionTimedOut"
    MAP_STATE_STARTED = "MapStateStarted"
    MAP_RUN_STARTED = "MapRunStarted"
    MAP_RUN_SUCCEEDED = "MapRunSucceeded"
    MAP_RUN_FAILED = "MapRunFailed"
    MAP_STATE_SUCCEEDED = "MapStateSucceeded"
    MAP_STATE_FAILED = "MapStateFailed"


_LAST = frozenset(
    {
        EventType.EXECUTION_SUCCEEDED,
        EventType.EXECUTION_FAILED,
        EventType.EXECUTION_ABORTED,
        EventType.EXECUTION_TIMED_OUT,
    }
)


@dataclass(frozen=True, kw_only=True)
class EngineEvent:
    """One event, as a hook gets it.

    Attributes:
        id: Number within the execution, from 1.
        execution_id: The execution's, or the child execution's of a Map item.
        item: Index of the Map item whose child execution this is; None in the parent.
        state: The state's name; None for the execution's own events.
        resource: The Task's Resource.
        retry_count: Attempts of the Task before this one.
        value: Input, output or result that the event is about; not to be changed.
        error: Error name of a failure.
        cause: Its cause.
    """

    type: EventType
    id: int
    execution_id: str
    item: int | None
    state: str | None = None
    resource: str | None = None
    retry_count: int = 0
    value: object = None
    error: str | None = None
    cause: str | None = None


Hook = Callable[[EngineEvent], None]


class History:
    """Counts the events of one execution and shows each to the hook."""

    def __init__(self, execution_id: str, item: int | None, hook: Hook | None) -> None:
        self._execution_id = execution_id
        self._item = item
        self._hook = hook
        self.count = 0

    def add(
        self,
        event_type: EventType,
        state: str | None = None,
        *,
        resource: str | None = None,
        retry_count: int = 0,
        value: object = None,
        error: StateError | None = None,
    ) -> None:
        """Record one event.

        Raises:
            StateError: ``States.Runtime`` where the only place left is that of the last event. What the hook
                raises passes through.
        """
        if self.count + 1 >= HISTORY_LIMIT and event_type not in _LAST:
            raise StateError(
                RUNTIME, f"The execution reached the maximum number of history events ({HISTORY_LIMIT})."
            )
        self.count += 1
        if self._hook is not None:
            self._hook(
                EngineEvent(
                    type=event_type,
                    id=self.count,
                    execution_id=self._execution_id,
                    item=self._item,
                    state=state,
                    resource=resource,
                    retry_count=retry_count,
                    value=value,
                    error=None if error is None else error.name,
                    cause=None if error is None else error.cause,
                )
            )
