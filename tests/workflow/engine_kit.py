"""Small state machines and executions of them, for the engine's tests."""

from collections.abc import Callable, Mapping
from typing import Any

from questdb_backup.engine import (
    EngineEvent,
    EventType,
    Execution,
    ExecutionResult,
    StateMachine,
    TaskFunction,
)

Json = dict[str, Any]
WAIT = 20.0
"""Seconds that a test waits for another thread before it fails."""


def task(resource: str = "work", **fields: Any) -> Json:
    return {"Type": "Task", "Resource": resource, **({} if "Next" in fields else {"End": True}), **fields}


def catch_all(following: str, result_path: str | None = "$.error") -> list[Json]:
    return [{"ErrorEquals": ["States.ALL"], "ResultPath": result_path, "Next": following}]


def retry(*names: str, **fields: Any) -> Json:
    return {"ErrorEquals": list(names), **fields}


def machine(**states: Json) -> Json:
    """A machine that starts at its first state; underscores in names stay."""
    return {"StartAt": next(iter(states)), "States": states}


def each(child: Json | None = None, **fields: Any) -> Json:
    """A Distributed Map over the task "item", its items at $.items."""
    processor = {
        "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
        **(child or machine(Item=task("item", Parameters={"value.$": "$.value"}))),
    }
    selector = {"value.$": "$$.Map.Item.Value", "index.$": "$$.Map.Item.Index"}
    defaults = {"ItemsPath": "$.items", "ItemSelector": selector, "ItemProcessor": processor}
    if "ItemReader" in fields:
        del defaults["ItemsPath"]
    return {"Type": "Map", **defaults, **({} if "Next" in fields else {"End": True}), **fields}


def refuse_to_read(bucket: str, key: str) -> bytes:
    raise AssertionError(f"nothing should read {bucket}/{key}")


def execution(
    definition: Json,
    tasks: Mapping[str, TaskFunction] | None = None,
    input: Json | None = None,
    **fields: Any,
) -> Execution:
    defaults: Json = {"name": "run-1", "execution_id": "run-1", "max_workers": 4, "time_scale": 0.0}
    defaults["read_object"] = refuse_to_read
    return Execution(StateMachine.load(definition, {}), tasks or {}, input or {}, **(defaults | fields))


def run(
    definition: Json,
    tasks: Mapping[str, TaskFunction] | None = None,
    input: Json | None = None,
    **fields: Any,
) -> ExecutionResult:
    made = execution(definition, tasks, input, **fields)
    result = made.run()
    assert made.join(WAIT)
    return result


def raiser(error: BaseException) -> TaskFunction:
    def raise_it(event: Json) -> object:
        raise error

    return raise_it


class Recorder:
    """A task function that keeps its events and gives what `answer` makes of them."""

    def __init__(self, answer: Callable[[Json], object] = lambda event: event) -> None:
        self.events: list[Json] = []
        self._answer = answer

    def __call__(self, event: Json) -> object:
        self.events.append(event)
        return self._answer(event)


class FailsFirst:
    """A task function that raises the errors one by one, then gives the number of its calls."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.calls = 0

    def __call__(self, event: Json) -> object:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)
        return self.calls


class Events:
    """A hook that keeps every event."""

    def __init__(self) -> None:
        self.all: list[EngineEvent] = []

    def __call__(self, event: EngineEvent) -> None:
        self.all.append(event)

    def types(self) -> list[EventType]:
        """Types of the parent's own events."""
        return [event.type for event in self.all if event.item is None]

    def entered(self) -> list[str]:
        """Names of the parent's states, in the order of their visits."""
        return [str(e.state) for e in self.all if e.item is None and e.type.endswith("StateEntered")]
