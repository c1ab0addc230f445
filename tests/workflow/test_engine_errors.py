import json
from typing import Any

import pytest

from questdb_backup.engine import EngineEvent, EventType, StateError, Status
from questdb_backup.engine.errors import matches
from questdb_backup.engine.retry import Retrier, RetryCounters
from questdb_backup.errors import ConfigurationError, StoreUnavailableError
from tests.workflow.engine_kit import (
    Events,
    FailsFirst,
    Json,
    Recorder,
    catch_all,
    execution,
    machine,
    raiser,
    retry,
    run,
    task,
)

SUCCEED: Json = {"Type": "Succeed"}


class BaseFailure(Exception):
    pass


class DerivedFailure(BaseFailure):
    pass


def test_an_exception_becomes_its_class_name_and_the_cause_that_lambda_gives() -> None:
    result = run(machine(A=task()), {"work": raiser(StoreUnavailableError("no answer", "wait"))})
    cause = json.loads(result.cause)
    assert (result.status, result.error) == (Status.FAILED, "StoreUnavailableError")
    assert set(cause) == {"errorMessage", "errorType", "requestId", "stackTrace"}
    assert cause["errorType"] == "StoreUnavailableError"
    assert cause["errorMessage"] == "no answer. Hint: wait."
    assert len(cause["stackTrace"]) == 1
    assert "raise_it" in cause["stackTrace"][0]


def test_catch_puts_error_and_cause_at_its_result_path_and_keeps_the_input() -> None:
    definition = machine(A=task(Catch=catch_all("B"), Next="B"), B=SUCCEED)
    output: Any = run(definition, {"work": raiser(BaseFailure("x"))}, {"k": 1}).output
    assert output["k"] == 1
    assert output["error"]["Error"] == "BaseFailure"
    assert json.loads(output["error"]["Cause"])["errorMessage"] == "x"


def test_catch_without_a_result_path_replaces_the_input_and_with_null_keeps_it() -> None:
    definition = machine(A=task(Catch=[retry("States.ALL", Next="B")], Next="B"), B=SUCCEED)
    replaced: Any = run(definition, {"work": raiser(BaseFailure("x"))}, {"k": 1}).output
    assert set(replaced) == {"Error", "Cause"}
    definition = machine(A=task(Catch=catch_all("B", None), Next="B"), B=SUCCEED)
    assert run(definition, {"work": raiser(BaseFailure("x"))}, {"k": 1}).output == {"k": 1}


@pytest.mark.parametrize(
    ("names", "error", "expected"),
    [
        (["States.ALL"], "Anything", True),
        (["States.ALL"], "States.Timeout", True),
        (["States.ALL"], "States.ExceedToleratedFailureThreshold", True),
        (["States.ALL"], "States.Runtime", False),
        (["States.ALL"], "States.DataLimitExceeded", False),
        (["States.TaskFailed"], "Anything", True),
        (["States.TaskFailed"], "States.Timeout", False),
        (["States.TaskFailed"], "States.Runtime", False),
        (["States.TaskFailed"], "States.DataLimitExceeded", False),
        (["States.Timeout"], "States.Timeout", True),
        (["States.Runtime"], "States.Runtime", False),
        (["States.DataLimitExceeded"], "States.DataLimitExceeded", True),
        (["BaseFailure"], "DerivedFailure", False),
        (["Other", "DerivedFailure"], "DerivedFailure", True),
    ],
)
@pytest.mark.parametrize("field", ["Catch", "Retry"])
def test_which_error_names_match(field: str, names: list[str], error: str, expected: bool) -> None:
    assert matches(tuple(names), error) is expected
    events = Events()
    entry: Json = {"ErrorEquals": names} | ({"Next": "B"} if field == "Catch" else {"MaxAttempts": 1})
    fields: Json = {field: [entry]}
    definition = machine(
        A={
            "Type": "Choice",
            "Choices": [{"Variable": "$.b", "BooleanEquals": True, "Next": "B"}],
            "Default": "T",
        },
        T=task(Next="B", **fields),
        B=SUCCEED,
    )
    result = run(definition, {"work": FailsFirst(StateError(error))}, {"b": False}, hook=events)
    assert (result.status is Status.SUCCEEDED) is expected
    retried = events.types().count(EventType.LAMBDA_FUNCTION_STARTED) == 2
    assert retried is (expected and field == "Retry")


def test_an_exception_is_matched_by_its_exact_class_and_not_by_its_base() -> None:
    by_base = machine(A=task(Catch=[retry("BaseFailure", Next="B")], Next="B"), B=SUCCEED)
    assert run(by_base, {"work": raiser(DerivedFailure())}).error == "DerivedFailure"
    by_class = machine(A=task(Catch=[retry("DerivedFailure", Next="B")], Next="B"), B=SUCCEED)
    assert run(by_class, {"work": raiser(DerivedFailure())}).status is Status.SUCCEEDED


def test_the_first_catcher_that_matches_is_taken() -> None:
    events = Events()
    catchers = [retry("Other", Next="B"), retry("BaseFailure", Next="C"), retry("States.ALL", Next="D")]
    definition = machine(A=task(Catch=catchers, Next="D"), B=SUCCEED, C=SUCCEED, D=SUCCEED)
    run(definition, {"work": raiser(BaseFailure())}, hook=events)
    assert events.entered() == ["A", "C"]


def test_retry_is_used_up_before_catch_is_looked_at() -> None:
    work = FailsFirst(*[BaseFailure() for _ in range(3)])
    fields: Json = {"Retry": [retry("BaseFailure", MaxAttempts=3)], "Catch": catch_all("B")}
    assert run(machine(A=task(Next="B", **fields), B=SUCCEED), {"work": work}).output == 4
    work = FailsFirst(*[BaseFailure() for _ in range(9)])
    events = Events()
    run(machine(A=task(Next="B", **fields), B=SUCCEED), {"work": work}, hook=events)
    assert work.calls == 4
    assert events.entered() == ["A", "B"]


def test_max_attempts_zero_means_no_retry() -> None:
    work = FailsFirst(BaseFailure())
    retriers = [retry("BaseFailure", MaxAttempts=0), retry("States.ALL")]
    assert run(machine(A=task(Retry=retriers)), {"work": work}).error == "BaseFailure"
    assert work.calls == 1


def test_each_retrier_counts_its_own_attempts() -> None:
    work = FailsFirst(OSError(), KeyError(), OSError(), KeyError(), KeyError())
    retriers = [retry("OSError", MaxAttempts=2), retry("KeyError", MaxAttempts=2)]
    assert run(machine(A=task(Retry=retriers)), {"work": work}).error == "KeyError"
    assert work.calls == 5


def test_the_retries_of_a_visit_are_not_those_of_the_next_visit() -> None:
    again = {
        "Type": "Choice",
        "Choices": [{"Variable": "$.r", "NumericGreaterThan": 2, "Next": "B"}],
        "Default": "A",
    }
    definition = machine(
        A=task(Retry=[retry("OSError", MaxAttempts=1)], ResultPath="$.r", Next="P"), P=again, B=SUCCEED
    )
    failing = {1, 3}
    calls = 0

    def work(event: Json) -> object:
        nonlocal calls
        calls += 1
        if calls in failing:
            raise OSError
        return calls

    assert run(definition, {"work": work}, {"r": 0}).status is Status.SUCCEEDED
    assert calls == 4


def test_the_waits_grow_by_the_backoff_rate_up_to_the_longest_delay() -> None:
    slept: list[float] = []
    retrier = retry("OSError", IntervalSeconds=2, BackoffRate=2, MaxDelaySeconds=10, MaxAttempts=5)
    work = FailsFirst(*[OSError() for _ in range(5)])
    run(machine(A=task(Retry=[retrier])), {"work": work}, sleep=slept.append, time_scale=1.0)
    assert slept == [2, 4, 8, 10, 10]


def test_the_defaults_of_a_retrier_are_the_services() -> None:
    slept: list[float] = []
    run(
        machine(A=task(Retry=[retry("OSError")])),
        {"work": raiser(OSError())},
        sleep=slept.append,
        time_scale=1.0,
    )
    assert slept == [1, 2, 4]


def test_the_time_scale_shortens_the_waits() -> None:
    slept: list[float] = []
    run(
        machine(A=task(Retry=[retry("OSError")])),
        {"work": raiser(OSError())},
        sleep=slept.append,
        time_scale=0.5,
    )
    assert slept == [0.5, 1, 2]


def test_full_jitter_waits_anything_up_to_the_delay() -> None:
    retrier = Retrier(error_equals=("X",), interval_seconds=4, full_jitter=True)
    delays = [retrier.delay(2) for _ in range(200)]
    assert all(0 <= delay <= 16 for delay in delays)
    assert len(set(delays)) > 100


def test_a_backoff_beyond_every_number_is_the_longest_delay() -> None:
    retrier = Retrier(error_equals=("X",), backoff_rate=10.0, max_delay_seconds=60)
    assert retrier.delay(100_000) == 60


def test_a_later_retrier_does_not_take_what_an_earlier_one_has_used_up() -> None:
    counters = RetryCounters(
        [Retrier(error_equals=("X",), max_attempts=1), Retrier(error_equals=("States.ALL",))]
    )
    assert counters.next_delay("X") == 1
    assert counters.next_delay("X") is None
    assert counters.next_delay("Y") == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_what_ends_the_process_is_not_swallowed(error: BaseException) -> None:
    definition = machine(A=task(Catch=catch_all("B"), Next="B", Retry=[retry("States.ALL")]), B=SUCCEED)
    events = Events()
    with pytest.raises(type(error)):
        run(definition, {"work": raiser(error)}, hook=events)
    assert events.entered() == ["A"]


def fail_at(event_type: EventType, error: Exception) -> Any:
    def hook(event: EngineEvent) -> None:
        if event.type is event_type:
            raise error

    return hook


@pytest.mark.parametrize(
    ("event_type", "calls"),
    [
        (EventType.LAMBDA_FUNCTION_SCHEDULED, 0),
        (EventType.LAMBDA_FUNCTION_STARTED, 0),
        (EventType.LAMBDA_FUNCTION_SUCCEEDED, 1),
    ],
)
def test_what_a_hook_raises_at_a_tasks_event_is_the_tasks_error(event_type: EventType, calls: int) -> None:
    work = Recorder()
    definition = machine(A=task(Catch=catch_all("B"), Next="B"), B=SUCCEED)
    output: Any = run(definition, {"work": work}, hook=fail_at(event_type, OSError("injected"))).output
    assert output["error"]["Error"] == "OSError"
    assert json.loads(output["error"]["Cause"])["errorMessage"] == "injected"
    assert len(work.events) == calls


def test_a_hook_injects_any_error_name_by_a_state_error() -> None:
    definition = machine(A=task(Retry=[retry("Sandbox.Timedout", MaxAttempts=1)]))
    events: list[int] = []

    def hook(event: EngineEvent) -> None:
        if event.type is EventType.LAMBDA_FUNCTION_SUCCEEDED:
            events.append(event.retry_count)
            if event.retry_count == 0:
                raise StateError("Sandbox.Timedout", "lost")

    assert run(definition, {"work": Recorder()}, hook=hook).status is Status.SUCCEEDED
    assert events == [0, 1]


def test_a_state_error_of_a_hook_outside_a_task_fails_the_execution_past_every_catch() -> None:
    definition = machine(A=task(Catch=catch_all("B"), Next="B"), B=SUCCEED)
    hook = fail_at(EventType.TASK_STATE_ENTERED, StateError("States.Runtime", "injected"))
    result = run(definition, {"work": Recorder()}, hook=hook)
    assert (result.status, result.error, result.cause) == (Status.FAILED, "States.Runtime", "injected")


def test_any_other_exception_of_a_hook_outside_a_task_leaves_run_as_it_is() -> None:
    definition = machine(A=task(Catch=catch_all("B"), Next="B"), B=SUCCEED)
    with pytest.raises(ZeroDivisionError):
        run(definition, {"work": Recorder()}, hook=fail_at(EventType.TASK_STATE_EXITED, ZeroDivisionError()))


def test_an_execution_needs_a_function_for_every_resource_and_a_name_the_service_takes() -> None:
    with pytest.raises(ConfigurationError, match="work"):
        execution(machine(A=task()))
    for name in ["2024-08-24T12:00:00Z", "", "a b", "x" * 81]:
        with pytest.raises(ConfigurationError, match="no name"):
            execution(machine(A=SUCCEED), name=name)
    with pytest.raises(ConfigurationError, match="max_workers"):
        execution(machine(A=SUCCEED), max_workers=0)


def test_an_execution_runs_once() -> None:
    made = execution(machine(A=SUCCEED))
    assert made.run().status is Status.SUCCEEDED
    with pytest.raises(RuntimeError, match="run before"):
        made.run()


def test_a_machine_serves_many_executions() -> None:
    definition = machine(A=task(Parameters={"id.$": "$$.Execution.Id"}))
    outputs = [run(definition, {"work": Recorder()}, execution_id=str(n)).output for n in range(3)]
    assert outputs == [{"id": "0"}, {"id": "1"}, {"id": "2"}]
