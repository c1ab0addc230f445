"""The Wait state, as Step Functions has it."""

import threading

import pytest

from questdb_backup.engine import Status
from tests.workflow.engine_kit import WAIT, Events, Json, execution, machine, run, task

DONE: Json = {"Type": "Succeed"}


def wait(**fields: object) -> Json:
    return {"Type": "Wait", **({} if "Next" in fields else {"End": True}), **fields}


def test_a_wait_waits_and_passes_its_input_on() -> None:
    slept: list[float] = []
    states = machine(A=wait(Seconds=3, Next="B"), B=wait(SecondsPath="$.poll.seconds"))
    value: Json = {"poll": {"seconds": 60}, "kept": True}
    result = run(states, input=value, sleep=slept.append, time_scale=1.0)
    assert (result.status, result.output, slept) == (Status.SUCCEEDED, value, [3, 60])


def test_the_time_scale_shortens_it() -> None:
    slept: list[float] = []
    run(machine(A=wait(Seconds=10)), sleep=slept.append, time_scale=0.25)
    assert slept == [2.5]


def test_input_path_selects_what_the_seconds_are_read_from_and_what_is_passed_on() -> None:
    slept: list[float] = []
    states = machine(A=wait(InputPath="$.a", SecondsPath="$.s", OutputPath="$.out"))
    result = run(states, input={"a": {"s": 0, "out": "x"}}, sleep=slept.append)
    assert (result.output, slept) == ("x", [0])


@pytest.mark.parametrize("seconds", [-1, 1.5, "60", None, True, 100_000_000])
def test_seconds_that_are_no_whole_number_in_bounds_are_a_runtime_error(seconds: object) -> None:
    result = run(machine(A=wait(SecondsPath="$.s")), input={"s": seconds})
    assert (result.status, result.error) == (Status.FAILED, "States.Runtime")


def test_a_path_that_names_nothing_is_a_runtime_error() -> None:
    assert run(machine(A=wait(SecondsPath="$.s"))).error == "States.Runtime"


def test_its_events_are_two() -> None:
    events = Events()
    result = run(machine(A=wait(Seconds=1, Next="B"), B=DONE), hook=events)
    assert [str(each) for each in events.types()[1:3]] == ["WaitStateEntered", "WaitStateExited"]
    assert result.events == 6


def test_a_stop_interrupts_it() -> None:
    entered = threading.Event()
    states = machine(A=task(Next="B", ResultPath=None), B=wait(Seconds=99_999))
    made = execution(states, {"work": lambda _event: entered.set()}, time_scale=1.0)
    results = []
    thread = threading.Thread(target=lambda: results.append(made.run()))
    thread.start()
    assert entered.wait(WAIT)
    assert made.stop()
    thread.join(WAIT)
    assert results[0].status is Status.ABORTED


def test_the_executions_timeout_ends_it() -> None:
    states = machine(A=wait(Seconds=99_999)) | {"TimeoutSeconds": 1}
    result = run(states, time_scale=1.0, timeout_scale=0.01)
    assert result.status is Status.TIMED_OUT
