"""The Distributed Map: its items, and their child executions at so many at a time."""

import json
from collections import deque
from collections.abc import Callable

from questdb_backup.engine.context import Context
from questdb_backup.engine.errors import (
    EXCEED_TOLERATED_FAILURE_THRESHOLD,
    ITEM_READER_FAILED,
    StateError,
    runtime_error,
)
from questdb_backup.engine.scope import Ending, Scope, ScopeEndedError
from questdb_backup.engine.services import ReadObject
from questdb_backup.engine.states import ItemReader, MapState
from questdb_backup.engine.threads import Threads

RunChild = Callable[[Scope, int, object], object]
"""Scope, index and input to the output of one child execution."""

# The whole text that Step Functions gives: the child's error is not in it.
_THRESHOLD = "The specified tolerated failure threshold was exceeded"


def concurrency(state: MapState, value: object, context: Context, max_workers: int) -> int:
    """How many child executions may run at once: the state's own limit (0 is none) and the host's.

    Raise StateError ``States.Runtime`` where MaxConcurrencyPath gives no whole number from 0.
    """
    limit: object = state.max_concurrency
    if state.max_concurrency_path is not None:
        limit = state.max_concurrency_path.select(value, context)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        text = "" if state.max_concurrency_path is None else state.max_concurrency_path.text
        raise runtime_error(
            state.name,
            f'The MaxConcurrencyPath field refers to value "{limit}" which is not a valid integer: {text}',
        )
    return min(limit or max_workers, max_workers)


def read_items(reader: ItemReader, value: object, context: Context, read_object: ReadObject) -> list[object]:
    """The items of an ItemReader.

    Raise StateError ``States.ItemReaderFailed`` where the object cannot be read or is no JSON array.
    """
    arguments = reader.parameters.fill(value, context)
    assert isinstance(arguments, dict)  # the parser lets nothing else through
    try:
        items: object = json.loads(read_object(str(arguments["Bucket"]), str(arguments["Key"])))
    except Exception as error:
        raise StateError(ITEM_READER_FAILED, f"{type(error).__name__}: {error}") from error
    if not isinstance(items, list):
        raise StateError(ITEM_READER_FAILED, "Attempting to map over non-iterable node.")
    return items


def select_items(state: MapState, value: object, context: Context) -> list[object]:
    """The items at ItemsPath. Raise StateError ``States.Runtime`` where that is no array."""
    items = state.items_path.select(value, context)
    if not isinstance(items, list):
        raise runtime_error(state.name, f'Reference path "{state.items_path.text}" must point to array.')
    return items


class MapRun:
    """The child executions of one Map; results stand in the items' order."""

    def __init__(self, scope: Scope, threads: Threads, limit: int, run_child: RunChild) -> None:
        self._scope = scope
        self._threads = threads
        self._limit = limit
        self._run_child = run_child
        self._children = scope.child()
        self._finished: deque[tuple[int, object, BaseException | None]] = deque()

    def run(self, count: int, child_input: Callable[[int], object]) -> list[object]:
        """Run all items, each with the input made for it when it starts.

        The first failure ends the run at once: nothing new starts, children go on with no further state or
        retry, and handlers that run are left to run.

        Raises:
            StateError: ``States.ExceedToleratedFailureThreshold``, or what `child_input` raises.
            ScopeEndedError: The execution was stopped or timed out.
            BaseException: What is no failure of a child, such as KeyboardInterrupt.
        """
        results: list[object] = [None] * count
        started = finished = 0
        try:
            while finished < count:
                self._scope.check()
                if self._finished:
                    index, output, error = self._finished.popleft()
                    finished += 1
                    if error is not None:
                        raise _failure(error)
                    results[index] = output
                elif started < count and started - finished < self._limit:
                    self._start(started, child_input(started))
                    started += 1
                else:
                    self._scope.wait(lambda: bool(self._finished))
        finally:
            self._scope.drop(self._children)
        return results

    def _start(self, index: int, value: object) -> None:
        def work() -> None:
            scope = self._children.child()
            output: object = None
            failure: BaseException | None = None
            try:
                output = self._run_child(scope, index, value)
            except BaseException as error:
                failure = error
            self._children.drop(scope)
            self._finished.append((index, output, failure))
            self._scope.wake()

        self._threads.start(work)


def _failure(error: BaseException) -> BaseException:
    if isinstance(error, StateError):
        return StateError(EXCEED_TOLERATED_FAILURE_THRESHOLD, _THRESHOLD)
    if isinstance(error, ScopeEndedError):
        return ScopeEndedError(Ending.ABORTED)
    return error
