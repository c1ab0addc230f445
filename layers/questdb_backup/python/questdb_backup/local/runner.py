"""Runs a workflow on one machine: lock, guard, watchdog, engine, and the guard again where it failed."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from questdb_backup import keys
from questdb_backup.engine.definition import StateMachine
from questdb_backup.engine.errors import EXCEED_TOLERATED_FAILURE_THRESHOLD
from questdb_backup.engine.execution import Execution, ExecutionResult
from questdb_backup.engine.history import EngineEvent
from questdb_backup.errors import BackupAbortedError, BackupToolError
from questdb_backup.local.bundle import read_definition, substitutions, tasks
from questdb_backup.local.guarding import guard, local_instance, new_holder
from questdb_backup.local.interrupts import Interrupts
from questdb_backup.local.options import Place
from questdb_backup.local.watchdog import Watchdog
from questdb_backup.local.workers import Task, Workers
from questdb_backup.services import Services, logger
from questdb_backup.status.base import LiveRun
from questdb_backup.status.run_lock import RunLock, read_holder
from questdb_backup.steps.complete_restore import is_restored
from questdb_backup.steps.fail import as_error, error_text
from questdb_backup.steps.run import keep_lease
from questdb_backup.stores.base import ObjectStore

_POLL_SECONDS = 0.2
_INTERRUPTED = "interrupted at the terminal"
_TIME_SCALE = 0.25
"""Waits between retries are made for Lambda's cold starts; one machine needs a quarter of them."""

Progress = Callable[[LiveRun | None], None]


def _ignore(_live: LiveRun | None) -> None:
    """No progress is wanted."""


def run_backup(
    place: Place,
    request: dict[str, Any],
    progress: Progress = _ignore,
    workflow_services: Services | None = None,
) -> dict[str, Any]:
    """One backup, followed to its end; give its row and counters.

    ``workflow_services``: what the handlers use where that is not the place's own (tests inject faults).

    Raise what the run failed with, under its own class. An interrupt (Ctrl-C, SIGTERM) and an abort stop
    the execution; the checkpoint is released and the row failed before this returns.
    """
    holder = new_holder()
    before = read_holder(place.state.run_lock)
    lock = RunLock(place.state.run_lock)
    with lock:
        lock.record(holder)
        guard(place, last_holder=(before.run if before else None) or "")
        with Interrupts() as interrupts, Watchdog(place) as watchdog, Workers(place) as workers:
            around = workers.around if workflow_services is None else _as_they_are
            workflow = _prepare("backup", workflow_services or place.services, request, holder, around)

            def look() -> None:
                if interrupts.noted:
                    workflow.execution.stop("BackupAbortedError", _INTERRUPTED)
                watchdog.keep()
                _watch_backup(place, holder, workflow.execution, progress)

            result = _follow(workflow, look)
            workers.close()  # before the guard: a run that has failed stores nothing more
            if result.status != "SUCCEEDED" and not _end_failed(place, holder, result):
                watchdog.take_over()
    return _output("backup", result)


def run_restore(
    services: Services, request: dict[str, Any], progress: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """One restore, followed to its end; give its result. Raise what it failed with."""
    workflow = _prepare("restore", services, request, new_holder())
    result = _follow(workflow, progress)
    workflow.execution.join(60.0)  # a step that has begun is not ended by a stop
    if result.status == "ABORTED" and is_restored(Path(request["root"])):
        raise BackupAbortedError(
            f"the restore was aborted in its last step: {request['root']} has the whole database in place",
            "start the server on it, or remove it",
        )
    return _output("restore", result)


@dataclass(slots=True)
class _Workflow:
    """An execution, and what the last child of a Map failed with: a failed Map does not tell."""

    execution: Execution
    child_failure: tuple[str, str] | None = None


def _as_they_are(tasks: dict[str, Task]) -> dict[str, Task]:
    return tasks


def _prepare(
    name: str,
    services: Services,
    request: dict[str, Any],
    holder: str,
    around: Callable[[dict[str, Task]], dict[str, Task]] = _as_they_are,
) -> _Workflow:
    definition = read_definition(name)
    machine = StateMachine.load(definition, substitutions(definition))
    execution = Execution(
        machine,
        around(tasks(definition, services)),
        request,
        name=holder.rpartition(":")[2],
        execution_id=holder,
        read_object=lambda _bucket, key: _read_by_address(services.store, key),
        max_workers=services.config.max_concurrency,
        time_scale=_TIME_SCALE,
        hook=lambda event: note(event),
    )
    workflow = _Workflow(execution)

    def note(event: EngineEvent) -> None:
        if event.item is not None and event.error is not None:
            workflow.child_failure = (event.error, event.cause or "")

    return workflow


def _read_by_address(store: ObjectStore, whole_key: str) -> bytes:
    """What the Map's reader does on AWS: it knows bucket and whole key."""
    prefix = store.address(keys.INSTANCES)[1].removesuffix(keys.INSTANCES)
    return store.get(whole_key.removeprefix(prefix))


def _follow(workflow: _Workflow, look: Callable[[], None]) -> ExecutionResult:
    """Run the execution on a thread and look at it until it ends; an interrupt stops it."""
    execution = workflow.execution
    outcome = _Outcome()
    threading.Thread(target=lambda: outcome.run(execution), name="execution").start()
    with _stop_on_interrupt(execution):
        while not outcome.known.wait(_POLL_SECONDS):
            look()
        look()
    result = outcome.result()
    if result.error == EXCEED_TOLERATED_FAILURE_THRESHOLD and workflow.child_failure:
        name, cause = workflow.child_failure
        return replace(result, error=name, cause=cause)
    return result


class _Outcome:
    """How the execution's thread ends. An interrupted `Thread.join` would take a living one for dead."""

    def __init__(self) -> None:
        self.known = threading.Event()
        self._result: ExecutionResult | None = None
        self._error: BaseException | None = None

    def run(self, execution: Execution) -> None:
        """On the thread: run it to its end."""
        try:
            self._result = execution.run()
        except BaseException as error:
            self._error = error
        finally:
            self.known.set()

    def result(self) -> ExecutionResult:
        """Wait for the end. Raise what ended the thread."""
        self.known.wait()
        if self._error is not None:
            raise self._error
        assert self._result is not None, "it ran"
        return self._result


@contextmanager
def _stop_on_interrupt(execution: Execution) -> Iterator[None]:
    """Whatever ends the looking on ends the execution too: it must not run on unwatched."""
    try:
        yield
    except KeyboardInterrupt:
        execution.stop("BackupAbortedError", _INTERRUPTED)
    except BackupToolError as error:
        execution.stop(type(error).__name__, str(error))


def _watch_backup(place: Place, holder: str, execution: Execution, progress: Progress) -> None:
    """Show how far the run is, keep its lease, and stop it where an abort is asked for."""
    instance = local_instance(place)
    live = place.services.status.read(instance) if instance else None
    progress(live)
    if instance is None or live is None or live.holder != holder:
        return
    keep_lease(place.services, instance, live)
    if live.abort_reason:
        execution.stop("BackupAbortedError", live.abort_reason)


def _end_failed(place: Place, holder: str, result: ExecutionResult) -> bool:
    """What EventBridge does on AWS: the guard looks after every execution that did not succeed.

    False where it did not get through.
    """
    try:
        guard(place, reason=_failure(result)[1], last_holder=holder)
    except BackupToolError as error:
        logger.warning("the guard could not end the failed run, the watchdog goes on trying: %s", error)
        return False
    return True


def _failure(result: ExecutionResult) -> tuple[str, str]:
    """Class name and message of what an execution failed with."""
    text = error_text({"Error": result.error or "", "Cause": result.cause or ""})
    return result.error or result.status, text


def _output(what: str, result: ExecutionResult) -> dict[str, Any]:
    if result.status == "SUCCEEDED":
        output = cast("dict[str, Any]", result.output)
        if "Error" in output:  # a tick that was served before ends well on AWS, where no alarm should ring
            raise as_error(output["Error"], error_text(output))
        return output
    name, text = _failure(result)
    if result.status == "ABORTED":
        hint = "the same restore goes on where it stopped" if what == "restore" else ""
        raise BackupAbortedError(f"the {what} was aborted: {text}", hint)
    raise as_error(name, text)
