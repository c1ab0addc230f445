import json
from datetime import UTC, datetime
from typing import Any

import pytest

from questdb_backup.engine import EventType, Status
from questdb_backup.engine.payload import PAYLOAD_LIMIT
from questdb_backup.errors import ConfigurationError
from tests.workflow.engine_kit import (
    Events,
    FailsFirst,
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

NOON = datetime(2024, 8, 24, 12, 0, 0, 789_123, tzinfo=UTC)
SUCCEED: Json = {"Type": "Succeed"}


def output(state: Json, value: Json, answer: object = None) -> object:
    return run(machine(A=state), {"work": lambda event: answer}, value).output


def test_a_template_takes_values_literals_and_nested_objects_and_lists() -> None:
    work = Recorder()
    template = {"a.$": "$.x.y", "b": {"c.$": "$", "d": 1}, "e": [{"f.$": "$.x"}, "$.x"]}
    run(machine(A=task(Parameters=template)), {"work": work}, {"x": {"y": 5}})
    whole = {"x": {"y": 5}}
    assert work.events == [{"a": 5, "b": {"c": whole, "d": 1}, "e": [{"f": {"y": 5}}, "$.x"]}]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", {"r": 1}),
        ("$.a", {"a": {"r": 1}, "k": 2}),
        ("$.b.c", {"a": {"z": 0}, "k": 2, "b": {"c": {"r": 1}}}),
        ("$.a.q", {"a": {"z": 0, "q": {"r": 1}}, "k": 2}),
        (None, {"a": {"z": 0}, "k": 2}),
    ],
)
def test_result_path_replaces_adds_or_discards(path: str | None, expected: Json) -> None:
    assert output(task(ResultPath=path), {"a": {"z": 0}, "k": 2}, {"r": 1}) == expected


def test_a_result_path_through_what_is_no_object_is_a_result_path_match_failure() -> None:
    result = run(machine(A=task(ResultPath="$.a.b")), {"work": lambda event: 1}, {"a": "text"})
    assert (result.status, result.error) == (Status.FAILED, "States.ResultPathMatchFailure")


def test_input_path_and_output_path_select_and_null_gives_an_empty_object() -> None:
    work = Recorder()
    assert run(machine(A=task(InputPath="$.a")), {"work": work}, {"a": {"b": 1}}).output == {"b": 1}
    assert run(machine(A=task(InputPath=None)), {"work": work}, {"a": 1}).output == {}
    assert work.events == [{"b": 1}, {}]
    assert output(task(OutputPath="$.a"), {}, {"a": 3}) == 3
    assert output(task(OutputPath=None), {}, {"a": 3}) == {}


def test_result_path_is_applied_to_the_input_before_input_path() -> None:
    assert output(task(InputPath="$.a", ResultPath="$.r"), {"a": {"b": 1}}, 2) == {"a": {"b": 1}, "r": 2}


def test_succeed_gives_what_its_output_path_names() -> None:
    assert output({"Type": "Succeed", "OutputPath": "$.b"}, {"b": {"c": 1}}) == {"c": 1}


@pytest.mark.parametrize(
    "state",
    [
        task(Parameters={"x.$": "$.gone"}, Catch=catch_all("B"), Next="B"),
        task(InputPath="$.gone", Catch=catch_all("B"), Next="B"),
        task(OutputPath="$.gone", Catch=catch_all("B"), Next="B"),
        each(ItemsPath="$.gone", Catch=catch_all("B"), Next="B"),
        each(ItemSelector={"x.$": "$.gone"}, Catch=catch_all("B"), Next="B"),
        each(MaxConcurrencyPath="$.gone", Catch=catch_all("B"), Next="B"),
        {
            "Type": "Choice",
            "Choices": [{"Variable": "$.gone", "StringEquals": "x", "Next": "B"}],
            "Default": "B",
        },
    ],
)
def test_a_path_that_names_nothing_is_a_runtime_error_that_nothing_catches(state: Json) -> None:
    tasks = {"work": Recorder(), "item": Recorder()}
    result = run(machine(A=state, B=SUCCEED), tasks, {"items": [1]})
    assert (result.status, result.error) == (Status.FAILED, "States.Runtime")
    assert "'A'" in result.cause
    assert "$.gone" in result.cause


def test_the_context_object_tells_of_the_execution_and_the_state() -> None:
    work = Recorder()
    names = ["Execution.Id", "Execution.Name", "Execution.StartTime", "Execution.Input.k", "State.Name"]
    template = {f"{name}.$": f"$$.{name}" for name in [*names, "State.EnteredTime", "State.RetryCount"]}
    definition = machine(First=task("first", Next="A"), A=task(Parameters=template))
    run(
        definition,
        {"first": lambda event: {}, "work": work},
        {"k": 7},
        name="n-1",
        execution_id="id:1",
        clock=lambda: NOON,
    )
    time = "2024-08-24T12:00:00.789Z"
    expected = {
        "Execution.Id": "id:1",
        "Execution.Name": "n-1",
        "Execution.StartTime": time,
        "Execution.Input.k": 7,
        "State.Name": "A",
        "State.EnteredTime": time,
        "State.RetryCount": 0,
    }
    assert work.events == [expected]


def test_the_retry_count_is_read_anew_for_each_attempt_and_starts_at_zero_in_each_visit() -> None:
    seen: list[int] = []
    flaky = FailsFirst(OSError(), OSError())

    def work(event: Json) -> object:
        seen.append(event["n"])
        return {} if event["state"] == "B" else flaky(event)

    fields: Json = {
        "Parameters": {"n.$": "$$.State.RetryCount", "state.$": "$$.State.Name"},
        "Retry": [retry("OSError")],
    }
    result = run(machine(A=task(Next="B", **fields), B=task(**fields)), {"work": work})
    assert result.status is Status.SUCCEEDED
    assert seen == [0, 1, 2, 0]


def choose(rules: list[Json], value: Json, default: str | None = "No") -> list[str]:
    states: Json = {"Type": "Choice", "Choices": [rule | {"Next": "Yes"} for rule in rules]}
    events = Events()
    more = {"No": SUCCEED, "Other": SUCCEED} if default else {}
    if default:
        states |= {"Default": default}
        more.pop("Other" if default == "No" else "No")
    run(machine(A=states, Yes=SUCCEED, **more), {}, value, hook=events)
    return events.entered()


@pytest.mark.parametrize(
    ("rule", "value", "yes"),
    [
        ({"StringEquals": "x"}, "x", True),
        ({"StringEquals": "x"}, "y", False),
        ({"StringEquals": "1"}, 1, False),
        ({"BooleanEquals": True}, True, True),
        ({"BooleanEquals": True}, 1, False),
        ({"NumericGreaterThan": 2}, 3, True),
        ({"NumericGreaterThan": 2}, 2, False),
        ({"NumericGreaterThan": 0}, True, False),
        ({"NumericGreaterThan": 0}, "5", False),
        ({"IsPresent": True}, None, True),
        ({"IsPresent": False}, None, False),
    ],
)
def test_a_choice_compares_values_of_the_comparators_own_type(rule: Json, value: object, yes: bool) -> None:
    assert choose([{"Variable": "$.v"} | rule], {"v": value}) == ["A", "Yes" if yes else "No"]


def test_is_present_may_name_what_is_not_there() -> None:
    assert choose([{"Variable": "$.a.b", "IsPresent": False}], {}) == ["A", "Yes"]
    assert choose([{"Variable": "$.a.b", "IsPresent": True}], {}) == ["A", "No"]


def test_a_choice_without_a_match_and_a_default_fails_the_execution() -> None:
    rule = {"Variable": "$.v", "StringEquals": "x", "Next": "B"}
    result = run(machine(A={"Type": "Choice", "Choices": [rule]}, B=SUCCEED), {}, {"v": "y"})
    assert (result.status, result.error) == (Status.FAILED, "States.NoChoiceMatched")


def test_fail_reports_its_literals_or_what_its_paths_name() -> None:
    literal = run(machine(A={"Type": "Fail", "Error": "Bad", "Cause": "because"}))
    assert (literal.status, literal.error, literal.cause) == (Status.FAILED, "Bad", "because")
    paths: Json = {"Type": "Fail", "ErrorPath": "$.e.Error", "CausePath": "$.e.Cause"}
    named = run(machine(A=paths), {}, {"e": {"Error": "Worse", "Cause": "it broke"}})
    assert (named.error, named.cause) == ("Worse", "it broke")
    assert run(machine(A=paths), {}, {"e": {"Error": "Worse"}}).error == "States.Runtime"
    assert run(machine(A=paths), {}, {"e": {"Error": 1, "Cause": ""}}).error == "States.Runtime"


def text_of(size: int) -> str:
    """A text whose JSON, with its quotes, has so many bytes; two bytes a letter."""
    return "é" * ((size - 2) // 2) + "x" * (size % 2)


def test_a_payload_of_exactly_the_limit_passes() -> None:
    text = text_of(PAYLOAD_LIMIT)
    assert len(json.dumps(text, ensure_ascii=False).encode()) == PAYLOAD_LIMIT
    assert output(task(), {}, text) == text


@pytest.mark.parametrize(
    "state",
    [
        task("big"),
        task("big", ResultPath=None),
        task("half", ResultPath="$.more"),
        task("small", Parameters={"a.$": "$.half", "b.$": "$.half"}, ResultPath=None),
        each(ItemSelector={"a.$": "$.half", "b.$": "$.half"}, ResultPath=None),
        each(machine(Item=task("hundred", Parameters={})), ResultPath=None),
    ],
    ids=["result", "discarded result", "state output", "task input", "map item", "map results"],
)
def test_a_payload_over_the_limit_is_caught_by_nothing(state: Json) -> None:
    half = text_of(PAYLOAD_LIMIT * 2 // 3)
    tasks = {
        "big": lambda event: text_of(PAYLOAD_LIMIT + 1),
        "half": lambda event: half,
        "small": lambda event: {},
        "item": lambda event: {},
        "hundred": lambda event: "x" * 100_000,
    }
    caught = state | {"Catch": catch_all("B"), "Next": "B"}
    del caught["End"]
    result = run(machine(A=caught, B=SUCCEED), tasks, {"half": half, "items": [1, 2, 3]})
    assert (result.status, result.error) == (Status.FAILED, "States.DataLimitExceeded")


def test_an_execution_input_over_the_limit_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="more than 262144"):
        execution(machine(A=SUCCEED), {}, {"a": text_of(PAYLOAD_LIMIT)})


def test_a_handler_has_its_own_copy_of_its_event_and_of_its_result() -> None:
    kept: Json = {"list": (1, 2), "n": 1}

    def spoil(event: Json) -> object:
        event["a"]["b"] = "spoiled"
        return kept

    definition = machine(A=task(ResultPath="$.r", Next="B"), B=task("later", ResultPath=None))

    def later(event: Json) -> object:
        kept["n"] = 2
        event["r"]["n"] = 3
        return None

    assert run(definition, {"work": spoil, "later": later}, {"a": {"b": 1}}).output == {
        "a": {"b": 1},
        "r": {"list": [1, 2], "n": 1},
    }


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", float("nan"), "\ud800", object()])
def test_a_result_that_is_not_json_is_a_marshal_error(value: Any) -> None:
    result = run(machine(A=task()), {"work": lambda event: value})
    assert result.error == "Runtime.MarshalError"
    assert json.loads(result.cause)["errorType"] == "Runtime.MarshalError"


def test_events_are_named_and_counted_as_the_service_does() -> None:
    events = Events()
    choice: Json = {
        "Type": "Choice",
        "Choices": [{"Variable": "$.v", "IsPresent": True, "Next": "B"}],
        "Default": "C",
    }
    flaky = FailsFirst(OSError(), OSError())
    definition = machine(
        A=task(
            ResultPath=None, Retry=[retry("OSError", MaxAttempts=1)], Catch=catch_all("P", None), Next="P"
        ),
        P=choice,
        B=SUCCEED,
        C={"Type": "Fail", "Error": "no"},
    )
    result = run(definition, {"work": flaky}, {"v": 1}, hook=events)
    attempt = [
        EventType.LAMBDA_FUNCTION_SCHEDULED,
        EventType.LAMBDA_FUNCTION_STARTED,
        EventType.LAMBDA_FUNCTION_FAILED,
    ]
    assert events.types() == [
        EventType.EXECUTION_STARTED,
        EventType.TASK_STATE_ENTERED,
        *attempt,
        *attempt,
        EventType.TASK_STATE_EXITED,
        EventType.CHOICE_STATE_ENTERED,
        EventType.CHOICE_STATE_EXITED,
        EventType.SUCCEED_STATE_ENTERED,
        EventType.SUCCEED_STATE_EXITED,
        EventType.EXECUTION_SUCCEEDED,
    ]
    assert result.events == len(events.types()) == events.all[-1].id


def test_a_failed_map_has_the_services_events_and_its_children_a_history_of_their_own() -> None:
    events = Events()
    definition = machine(
        A=each(ResultPath=None, Catch=catch_all("B", None), Next="B"), B={"Type": "Fail", "Error": "no"}
    )

    def item(event: Json) -> object:
        raise OSError

    result = run(definition, {"item": item}, {"items": [1]}, hook=events)
    assert events.types() == [
        EventType.EXECUTION_STARTED,
        EventType.MAP_STATE_ENTERED,
        EventType.MAP_STATE_STARTED,
        EventType.MAP_RUN_STARTED,
        EventType.MAP_RUN_FAILED,
        EventType.MAP_STATE_FAILED,
        EventType.MAP_STATE_EXITED,
        EventType.FAIL_STATE_ENTERED,
        EventType.EXECUTION_FAILED,
    ]
    assert result.events == 9
    child = [event for event in events.all if event.item == 0]
    assert [event.id for event in child] == list(range(1, 7))
    assert child[0].type is EventType.EXECUTION_STARTED
    assert child[-1].type is EventType.EXECUTION_FAILED
    assert {event.execution_id for event in child} == {"run-1/A:0"}


def test_a_history_of_25000_events_fails_the_execution_past_every_catch() -> None:
    loop: Json = {
        "Type": "Choice",
        "Choices": [{"Variable": "$.v", "StringEquals": "x", "Next": "B"}],
        "Default": "A",
    }
    definition = machine(A=task(ResultPath=None, Catch=catch_all("B"), Next="P"), P=loop, B=SUCCEED)
    result = run(definition, {"work": lambda event: {}}, {"v": "y"})
    assert (result.status, result.error, result.events) == (Status.FAILED, "States.Runtime", 25_000)
    assert "25000" in result.cause


def test_a_map_of_many_items_does_not_count_in_the_parents_history() -> None:
    result = run(machine(A=each()), {"item": lambda event: {}}, {"items": list(range(300))})
    assert result.events == 8
