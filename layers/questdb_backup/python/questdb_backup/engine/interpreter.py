"""The walk through a flow's states: one instance per execution, parent or child of a Map item."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from questdb_backup.engine.choice import choose
from questdb_backup.engine.context import Context, Visit, format_time
from questdb_backup.engine.errors import TIMEOUT, StateError, lambda_error, matches, runtime_error
from questdb_backup.engine.history import EventType, History
from questdb_backup.engine.map import MapRun, concurrency, read_items, select_items
from questdb_backup.engine.paths import MissingPathError, Path, combine
from questdb_backup.engine.payload import check_size, marshal_result
from questdb_backup.engine.retry import RetryCounters
from questdb_backup.engine.scope import Ending, Scope, ScopeEndedError
from questdb_backup.engine.services import MapFailure, Services
from questdb_backup.engine.states import (
    MOST_SECONDS,
    ChoiceState,
    FailState,
    Flow,
    MapState,
    State,
    SucceedState,
    TaskState,
    WaitState,
    WorkState,
)

_Step = tuple[object, str | None]


_Work = Callable[[object, Visit], object]


class Interpreter:
    """Runs one flow once, in the calling thread.

    Args:
        execution_id: The execution's, or the child execution's.
        item: The Map item's index for a child execution.
    """

    def __init__(
        self,
        flow: Flow,
        services: Services,
        scope: Scope,
        *,
        execution_id: str,
        name: str,
        item: int | None = None,
    ) -> None:
        self._flow = flow
        self._services = services
        self._scope = scope
        self._id = execution_id
        self._name = name
        self._execution: Context = {}
        self._history = History(execution_id, item, services.hook)

    @property
    def events(self) -> int:
        """Events of this execution so far."""
        return self._history.count

    def run(self, value: object) -> object:
        """The flow's output.

        Raises:
            StateError: The execution failed.
            ScopeEndedError: It was stopped or timed out.
            BaseException: What a hook (outside task events) or a handler raised to end the process.
        """
        started = format_time(self._services.clock())
        self._execution = {"Id": self._id, "Name": self._name, "Input": value, "StartTime": started}
        self._scope.check()
        try:
            self._history.add(EventType.EXECUTION_STARTED, value=value)
            output = self._walk(value)
            self._scope.finish()
        except StateError as error:
            if self._scope.end(Ending.FINISHED):
                self._history.add(EventType.EXECUTION_FAILED, error=error)
                raise
            self._history.add(EventType.EXECUTION_ABORTED)
            raise ScopeEndedError(Ending.ABORTED) from error
        except ScopeEndedError as ended:
            timed_out = ended.ending is Ending.TIMED_OUT
            self._history.add(EventType.EXECUTION_TIMED_OUT if timed_out else EventType.EXECUTION_ABORTED)
            raise
        self._history.add(EventType.EXECUTION_SUCCEEDED, value=output)
        return output

    def _walk(self, value: object) -> object:
        following: str | None = self._flow.start_at
        while following is not None:
            state = self._flow.states[following]
            try:
                value, following = self._visit(state, value)
            except MissingPathError as error:
                fact = f"The JSONPath '{error}' could not be found in the state's input or context."
                raise runtime_error(state.name, fact) from error
        return value

    def _visit(self, state: State, value: object) -> _Step:
        self._scope.check()
        self._history.add(EventType(f"{state.kind}StateEntered"), state.name, value=value)
        entered = format_time(self._services.clock())
        visit = Visit(execution=self._execution, name=state.name, entered=entered)
        output, following = self._run_state(state, value, visit)
        check_size(output, f"The state/task '{state.name}' returned a result")
        self._history.add(EventType(f"{state.kind}StateExited"), state.name, value=output)
        return output, following

    def _run_state(self, state: State, value: object, visit: Visit) -> _Step:
        context = visit.context()
        match state:
            case TaskState():
                return self._with_retry(state, value, visit, partial(self._task, state))
            case MapState():
                return self._with_retry(state, value, visit, partial(self._map, state))
            case ChoiceState():
                chosen = _select(state.input_path, value, context)
                return _select(state.output_path, chosen, context), choose(state, chosen, context)
            case WaitState():
                kept = _select(state.input_path, value, context)
                self._pause(_seconds(state, kept, context) * self._services.time_scale)
                return _select(state.output_path, kept, context), state.next
            case SucceedState():
                kept = _select(state.input_path, value, context)
                return _select(state.output_path, kept, context), None
            case FailState():
                raise StateError(
                    _declared(state, state.error, value, context),
                    _declared(state, state.cause, value, context),
                )
            case _:
                raise AssertionError(f"a {state.kind} was loaded that cannot be run")

    def _with_retry(self, state: WorkState, value: object, visit: Visit, work: _Work) -> _Step:
        """The work between InputPath and OutputPath; on an error first Retry, then Catch."""
        counters = RetryCounters(state.retry)
        while True:
            context = visit.context()
            try:
                result = work(_select(state.input_path, value, context), visit)
                output = _select(state.output_path, combine(state.result_path, value, result), context)
                return output, state.next
            except StateError as error:
                delay = counters.next_delay(error.name)
                if delay is None:
                    return _catch(state, value, error)
            self._pause(delay * self._services.time_scale)
            visit = replace(visit, retry_count=visit.retry_count + 1)

    def _pause(self, seconds: float) -> None:
        if self._services.sleep is None:
            self._scope.wait(lambda: False, seconds)
        else:
            self._services.sleep(seconds)
            self._scope.check()

    def _task(self, state: TaskState, value: object, visit: Visit) -> object:
        event = value if state.parameters is None else state.parameters.fill(value, visit.context())
        data = check_size(event, f"The state/task '{state.name}' was given an input")
        record = partial(self._record_task, state=state, retry_count=visit.retry_count)
        try:
            record(EventType.LAMBDA_FUNCTION_SCHEDULED, value=event)
            record(EventType.LAMBDA_FUNCTION_STARTED)
            result = self._call(state, json.loads(data))
            record(EventType.LAMBDA_FUNCTION_SUCCEEDED, value=result)
            return result
        except StateError as error:
            timed_out = error.name == TIMEOUT
            record(
                EventType.LAMBDA_FUNCTION_TIMED_OUT if timed_out else EventType.LAMBDA_FUNCTION_FAILED,
                error=error,
            )
            raise

    def _call(self, state: TaskState, event: object) -> object:
        if not isinstance(event, dict):
            raise runtime_error(state.name, "A task's input must be a JSON object.")
        function = self._services.tasks[state.resource]
        seconds = state.timeout_seconds
        scaled = None if seconds is None else seconds * self._services.timeout_scale
        result = self._services.calls.call(self._scope, function, event, scaled)
        return marshal_result(result, f"The state/task '{state.resource}' returned a result")

    def _record_task(
        self,
        event_type: EventType,
        *,
        state: TaskState,
        retry_count: int,
        value: object = None,
        error: StateError | None = None,
    ) -> None:
        """Record a task's event; what the hook raises there is the task's error."""
        try:
            self._history.add(
                event_type,
                state.name,
                resource=state.resource,
                retry_count=retry_count,
                value=value,
                error=error,
            )
        except StateError:
            raise
        except Exception as fault:
            raise lambda_error(fault) from fault

    def _map(self, state: MapState, value: object, visit: Visit) -> object:
        context = visit.context()
        limit = concurrency(state, value, context, self._services.max_workers)
        items = None if state.item_reader else select_items(state, value, context)
        self._history.add(EventType.MAP_STATE_STARTED, state.name, value=items)
        self._history.add(EventType.MAP_RUN_STARTED, state.name)
        try:
            results = self._map_run(state, value, context, items, limit)
        except StateError as error:
            self._history.add(EventType.MAP_RUN_FAILED, state.name, error=error)
            self._history.add(EventType.MAP_STATE_FAILED, state.name, error=error)
            raise
        self._history.add(EventType.MAP_RUN_SUCCEEDED, state.name)
        self._history.add(EventType.MAP_STATE_SUCCEEDED, state.name)
        return results

    def _map_run(
        self, state: MapState, value: object, context: Context, items: list[object] | None, limit: int
    ) -> object:
        if state.item_reader is not None:
            items = read_items(state.item_reader, value, context, self._services.read_object)
        listed = items or []
        run = MapRun(self._scope, self._services.threads, limit, partial(self._child, state))
        results = run.run(
            len(listed), lambda index: _child_input(state, value, context, index, listed[index])
        )
        check_size(results, f"The state/task '{state.name}' returned a result")
        return results

    def _child(self, state: MapState, scope: Scope, index: int, value: object) -> object:
        child = Interpreter(
            state.processor,
            self._services,
            scope,
            execution_id=f"{self._id}/{state.label}:{index}",
            name=f"{self._name}-{state.label}-{index}",
            item=index,
        )
        try:
            return child.run(value)
        except StateError as error:
            self._services.failures.append(
                MapFailure(state=state.name, item=index, error=error.name, cause=error.cause)
            )
            raise


def _select(path: Path | None, value: object, context: Context) -> object:
    return {} if path is None else path.select(value, context)


def _seconds(state: WaitState, value: object, context: Context) -> int:
    """How long a Wait state waits."""
    found = state.seconds.select(value, context) if isinstance(state.seconds, Path) else state.seconds
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= MOST_SECONDS:
        fact = f"The SecondsPath parameter must be a whole number from 0 to {MOST_SECONDS}, not {found!r}."
        raise runtime_error(state.name, fact)
    return found


def _declared(state: State, declared: str | Path, value: object, context: Context) -> str:
    """An Error or Cause of a Fail state."""
    found = declared.select(value, context) if isinstance(declared, Path) else declared
    if not isinstance(found, str):
        raise runtime_error(
            state.name, f"The value of an ErrorPath or a CausePath must be text, not {found!r}."
        )
    return found


def _catch(state: WorkState, value: object, error: StateError) -> _Step:
    for catcher in state.catch:
        if matches(catcher.error_equals, error.name):
            return combine(catcher.result_path, value, error.as_output()), catcher.next
    raise error


def _child_input(state: MapState, value: object, context: Context, index: int, item: object) -> object:
    selected = item
    if state.item_selector is not None:
        inside = {**context, "Map": {"Item": {"Index": index, "Value": item}}}
        selected = state.item_selector.fill(value, inside)
    check_size(selected, f"The state/task '{state.name}' was given an item")
    return selected
