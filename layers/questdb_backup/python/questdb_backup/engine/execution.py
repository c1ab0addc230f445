"""One execution of a state machine on this host."""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from questdb_backup.clock import Clock, system_clock
from questdb_backup.engine.calls import Calls, Event, TaskFunction
from questdb_backup.engine.definition import StateMachine
from questdb_backup.engine.errors import TIMEOUT, StateError
from questdb_backup.engine.history import Hook
from questdb_backup.engine.interpreter import Interpreter
from questdb_backup.engine.payload import PAYLOAD_LIMIT, encode
from questdb_backup.engine.scope import Ending, Scope, ScopeEndedError
from questdb_backup.engine.services import MapFailure, ReadObject, Services
from questdb_backup.engine.threads import Threads
from questdb_backup.errors import ConfigurationError

# StartExecution's rule for a name.
_NAME = re.compile(r"[^\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]{1,80}")


class Status(StrEnum):
    """How an execution ended, in the words of DescribeExecution."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    ABORTED = "ABORTED"


@dataclass(frozen=True, kw_only=True)
class ExecutionResult:
    """What DescribeExecution tells of an execution that has ended.

    Attributes:
        output: The last state's output, of SUCCEEDED alone.
        error: Error name of FAILED and TIMED_OUT; of ABORTED what `stop` was given.
        cause: Its cause.
        events: Length of the execution's history, without those of child executions.
        map_failures: Errors of failed Map items, first failed first. Step Functions does not hand them to the
            parent's Catch either; there ListExecutions of the Map run tells.
    """

    status: Status
    output: object = None
    error: str = ""
    cause: str = ""
    events: int
    map_failures: tuple[MapFailure, ...] = ()


class Execution:
    """One execution, run once by `run` in the calling thread.

    Handlers are called on daemon threads, each with its own copy of its event. A handler whose task timed
    out, whose execution was stopped, or whose Map failed runs on: `join` waits for it.

    A hook sees each event in the thread that makes it. What it raises at a task's event (the LambdaFunction
    ones) is that task's error: at LambdaFunctionScheduled an error before the effect, at
    LambdaFunctionSucceeded one after it. At any other event a StateError fails the execution, and every other
    exception leaves `run` as it is, as from a process that dies there. It may call `stop`.

    Args:
        machine: The loaded machine.
        tasks: A handler for every Resource of the machine.
        input: The execution's input, a JSON object.
        name: As StartExecution takes it: up to 80 characters, none of ``:/,;`` and the like.
        execution_id: What ``$$.Execution.Id`` gives; a Map's children have ``<id>/<label>:<index>``.
        read_object: Gives the bytes of an ItemReader's object for bucket and key.
        max_workers: Child executions of one Map that run at once at most, whatever MaxConcurrency says. A Map
            inside a Map has this limit for each of its runs.
        sleep: Waits between retries and in Wait states; by default a wait that a stop or a timeout ends.
        clock: The times in the context object.
        time_scale: Factor on the waits between retries and in Wait states.
        timeout_scale: Factor on TimeoutSeconds.
        hook: Sees every event.

    Raises:
        ConfigurationError: A Resource has no handler, or name, input or max_workers would be refused.
    """

    def __init__(
        self,
        machine: StateMachine,
        tasks: Mapping[str, TaskFunction],
        input: Event,
        *,
        name: str,
        execution_id: str,
        read_object: ReadObject,
        max_workers: int,
        sleep: Callable[[float], None] | None = None,
        clock: Clock = system_clock,
        time_scale: float = 1.0,
        timeout_scale: float = 1.0,
        hook: Hook | None = None,
    ) -> None:
        _check_start(machine, tasks, name, max_workers)
        self._machine = machine
        self._input = _checked_input(input)
        self._name = name
        self._id = execution_id
        self._threads = Threads(f"execution-{name}")
        self._calls = Calls(self._threads)
        self._services = Services(
            tasks=dict(tasks),
            read_object=read_object,
            max_workers=max_workers,
            sleep=sleep,
            clock=clock,
            time_scale=time_scale,
            timeout_scale=timeout_scale,
            hook=hook,
            threads=self._threads,
            calls=self._calls,
        )
        self._scope = Scope()
        self._stopped = ("", "")
        self._started = threading.Lock()

    @property
    def running_tasks(self) -> int:
        """How many handlers run now, also those that were left to run."""
        return self._calls.running

    def run(self) -> ExecutionResult:
        """Run to the end, and give how it ended; failures of the machine are a result, not an exception.

        Raises:
            KeyboardInterrupt, SystemExit: From this thread or from a handler; no new state or item starts.
            RuntimeError: It was run before.
        """
        if not self._started.acquire(blocking=False):
            raise RuntimeError(f"execution '{self._name}' was run before")
        seconds = self._machine.timeout_seconds
        if seconds is not None:
            self._scope.set_deadline(time.monotonic() + seconds * self._services.timeout_scale)
        interpreter = Interpreter(
            self._machine.flow, self._services, self._scope, execution_id=self._id, name=self._name
        )
        try:
            output = interpreter.run(self._input)
            return self._result(interpreter, Status.SUCCEEDED, output=output)
        except StateError as error:
            return self._result(interpreter, Status.FAILED, error=error.name, cause=error.cause)
        except ScopeEndedError as ended:
            if ended.ending is Ending.TIMED_OUT:
                return self._result(interpreter, Status.TIMED_OUT, error=TIMEOUT)
            error_name, cause = self._stopped
            return self._result(interpreter, Status.ABORTED, error=error_name, cause=cause)
        finally:
            self._scope.end(Ending.ABORTED)
            self._threads.close()

    def stop(self, error: str = "", cause: str = "") -> bool:
        """Stop the execution, from any thread, a hook or a signal handler.

        No Catch runs, no state and no Map item starts after it, and `run` returns ABORTED. Handlers that run
        go on. False where the execution had ended already.
        """
        before, self._stopped = self._stopped, (error, cause)
        stopped = self._scope.end(Ending.ABORTED)
        if not stopped:
            self._stopped = before
        return stopped

    def join(self, timeout: float | None = None) -> bool:
        """Wait for handlers that were left to run; False where some still run after so many seconds."""
        return self._calls.join(timeout)

    def _result(
        self,
        interpreter: Interpreter,
        status: Status,
        *,
        output: object = None,
        error: str = "",
        cause: str = "",
    ) -> ExecutionResult:
        return ExecutionResult(
            status=status,
            output=output,
            error=error,
            cause=cause,
            events=interpreter.events,
            map_failures=tuple(self._services.failures),
        )


def _check_start(
    machine: StateMachine, tasks: Mapping[str, TaskFunction], name: str, max_workers: int
) -> None:
    missing = sorted(machine.resources() - tasks.keys())
    if missing:
        raise ConfigurationError(f"no task function for {', '.join(missing)}", "give one for every Resource")
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"'{name}' is no name of an execution", "use up to 80 letters, digits, . - _"
        )
    if max_workers < 1:
        raise ConfigurationError(f"max_workers is {max_workers}", "give at least 1")


def _checked_input(value: Event) -> object:
    try:
        data = encode(value)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the execution's input is not JSON: {error}", "pass plain values"
        ) from error
    if len(data) > PAYLOAD_LIMIT:
        raise ConfigurationError(
            f"the execution's input has {len(data)} bytes of JSON, more than {PAYLOAD_LIMIT}",
            "pass references instead",
        )
    return json.loads(data)
