import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from questdb_backup.engine import EngineEvent, EventType, Execution, ExecutionResult, Status
from tests.workflow.engine_kit import (
    WAIT,
    Events,
    Json,
    Recorder,
    catch_all,
    each,
    execution,
    machine,
    retry,
    run,
    task,
)

SUCCEED: Json = {"Type": "Succeed"}
PACKAGE = Path(__file__).parents[2] / "layers" / "questdb_backup" / "python"


class Held:
    """A task function that tells when it runs and goes on when it may."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.may_end = threading.Event()
        self.ended = threading.Event()

    def __call__(self, event: Json) -> object:
        self.running.set()
        assert self.may_end.wait(WAIT)
        self.ended.set()
        return {}


def in_background(made: Execution) -> Callable[[], ExecutionResult]:
    results: list[ExecutionResult] = []
    thread = threading.Thread(target=lambda: results.append(made.run()))
    thread.start()

    def result() -> ExecutionResult:
        thread.join(WAIT)
        return results[0]

    return result


def test_stop_gives_aborted_at_once_runs_no_catch_and_leaves_the_handler_running() -> None:
    work, caught = Held(), Recorder()
    definition = machine(A=task(Catch=catch_all("B"), Next="B"), B=task("caught"))
    made = execution(definition, {"work": work, "caught": caught})
    result = in_background(made)
    assert work.running.wait(WAIT)
    assert made.stop("Operator", "stopped by hand") is True
    ended = result()
    assert (ended.status, ended.error, ended.cause) == (Status.ABORTED, "Operator", "stopped by hand")
    assert made.running_tasks == 1
    work.may_end.set()
    assert made.join(WAIT)
    assert work.ended.is_set()
    assert caught.events == []


def test_stop_lets_no_new_item_start_and_the_running_ones_go_on() -> None:
    work, events = Held(), Events()
    made = execution(
        machine(A=each(MaxConcurrency=3)), {"item": work}, {"items": list(range(100))}, hook=events
    )
    result = in_background(made)
    assert work.running.wait(WAIT)
    made.stop()
    assert result().status is Status.ABORTED
    work.may_end.set()
    assert made.join(WAIT)
    started = sum(event.type is EventType.LAMBDA_FUNCTION_STARTED for event in events.all)
    assert 1 <= started <= 3
    assert not any(event.type is EventType.LAMBDA_FUNCTION_SUCCEEDED for event in events.all)


def test_stop_interrupts_the_wait_before_a_retry() -> None:
    failed = threading.Event()

    def work(event: Json) -> object:
        failed.set()
        raise OSError

    definition = machine(A=task(Retry=[retry("OSError", IntervalSeconds=1000)]))
    made = execution(definition, {"work": work}, time_scale=1.0)
    result = in_background(made)
    assert failed.wait(WAIT)
    made.stop()
    assert result().status is Status.ABORTED


def test_stop_before_run_starts_nothing_and_stop_after_the_end_is_refused() -> None:
    work = Recorder()
    made = execution(machine(A=task()), {"work": work})
    assert made.stop("early") is True
    assert (made.run().status, work.events) == (Status.ABORTED, [])
    assert made.stop() is False
    ended = execution(machine(A=task()), {"work": work})
    assert ended.run().status is Status.SUCCEEDED
    assert ended.stop("late") is False


STATE_EVENTS = [
    EventType.EXECUTION_STARTED,
    EventType.TASK_STATE_ENTERED,
    EventType.LAMBDA_FUNCTION_SCHEDULED,
    EventType.LAMBDA_FUNCTION_STARTED,
    EventType.LAMBDA_FUNCTION_SUCCEEDED,
    EventType.TASK_STATE_EXITED,
    EventType.MAP_STATE_ENTERED,
    EventType.MAP_RUN_STARTED,
    EventType.MAP_RUN_SUCCEEDED,
    EventType.SUCCEED_STATE_ENTERED,
    EventType.SUCCEED_STATE_EXITED,
]


@pytest.mark.parametrize("event_type", STATE_EVENTS)
def test_a_hook_can_stop_the_execution_at_any_event_and_no_later_state_is_entered(
    event_type: EventType,
) -> None:
    seen: list[EventType] = []
    holder: list[Execution] = []

    def hook(event: EngineEvent) -> None:
        seen.append(event.type)
        if event.type is event_type:
            holder[0].stop()

    definition = machine(
        A=task(ResultPath=None, Catch=catch_all("C"), Next="M"),
        M=each(ResultPath=None, Catch=catch_all("C"), Next="C"),
        C=SUCCEED,
    )
    holder.append(execution(definition, {"work": Recorder(), "item": Recorder()}, {"items": [1]}, hook=hook))
    assert holder[0].run().status is Status.ABORTED
    first = seen.index(event_type)
    assert not any(later.endswith("StateEntered") for later in seen[first + 1 :])
    assert seen[-1] is EventType.EXECUTION_ABORTED


def test_a_task_timeout_is_a_states_timeout_and_the_handler_runs_on() -> None:
    work = Held()
    definition = machine(A=task(TimeoutSeconds=1, Catch=catch_all("B"), Next="B"), B=SUCCEED)
    made = execution(definition, {"work": work}, timeout_scale=0.05)
    output: Any = made.run().output
    assert output["error"] == {"Error": "States.Timeout", "Cause": ""}
    assert made.running_tasks == 1
    assert not work.ended.is_set()
    work.may_end.set()
    assert made.join(WAIT)
    assert work.ended.is_set()


def test_a_task_within_its_timeout_is_not_disturbed() -> None:
    assert run(machine(A=task(TimeoutSeconds=60)), {"work": lambda event: 5}).output == 5


def test_a_task_that_timed_out_has_the_event_of_it() -> None:
    work, events = Held(), Events()
    made = execution(machine(A=task(TimeoutSeconds=1)), {"work": work}, timeout_scale=0.05, hook=events)
    result = made.run()
    work.may_end.set()
    assert made.join(WAIT)
    assert (result.status, result.error) == (Status.FAILED, "States.Timeout")
    assert EventType.LAMBDA_FUNCTION_TIMED_OUT in events.types()


@pytest.mark.parametrize(
    "state", [task("work", Parameters={}), each(machine(Item=task("work", Parameters={})))]
)
def test_the_executions_timeout_is_timed_out_and_runs_no_catch(state: Json) -> None:
    work, caught = Held(), Recorder()
    del state["End"]
    state = state | {"Catch": catch_all("B"), "Next": "B"}
    definition = machine(A=state, B=task("caught")) | {"TimeoutSeconds": 1}
    made = execution(definition, {"work": work, "caught": caught}, {"items": [1, 2]}, timeout_scale=0.05)
    result = made.run()
    assert (result.status, result.error) == (Status.TIMED_OUT, "States.Timeout")
    work.may_end.set()
    assert made.join(WAIT)
    assert caught.events == []


def test_the_executions_timeout_interrupts_the_wait_before_a_retry() -> None:
    def work(event: Json) -> object:
        raise OSError

    definition = machine(A=task(Retry=[retry("OSError", IntervalSeconds=1000)])) | {"TimeoutSeconds": 1}
    result = run(definition, {"work": work}, time_scale=1.0, timeout_scale=0.05)
    assert result.status is Status.TIMED_OUT


SCRIPT = """
import os, signal, sys, threading, time
sys.path.insert(0, sys.argv[1])
how, scale = sys.argv[2], float(sys.argv[3])
from questdb_backup.engine import Execution, StateMachine

def work(event):
    if how != "none":
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(3600)

task = {"Type": "Task", "Resource": "work", "TimeoutSeconds": 960, "End": True}
execution = Execution(
    StateMachine.load({"StartAt": "A", "States": {"A": task}}, {}), {"work": work}, {},
    name="n", execution_id="n", read_object=lambda bucket, key: b"", max_workers=1, timeout_scale=scale,
)
if how == "stop":
    signal.signal(signal.SIGINT, lambda *_: execution.stop("Signal"))
try:
    print(execution.run().status, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def run_script(how: str, scale: float) -> str:
    command = [sys.executable, "-c", SCRIPT, str(PACKAGE), how, str(scale)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout.strip()


def test_an_interrupt_in_the_main_thread_ends_the_run_and_a_left_handler_does_not_hold_the_process() -> None:
    assert run_script("sigint", 1.0) == "interrupted"


def test_a_signal_handler_may_stop_the_execution() -> None:
    assert run_script("stop", 1.0) == "ABORTED"


def test_a_handler_that_outlived_its_timeout_does_not_hold_the_process() -> None:
    assert run_script("none", 0.0001) == "FAILED"
