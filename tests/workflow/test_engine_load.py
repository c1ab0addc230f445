import copy
import json
from pathlib import Path
from typing import Any

import pytest

from questdb_backup.engine import StateMachine
from questdb_backup.errors import ConfigurationError
from tests.workflow.engine_kit import Json, catch_all, each, machine, retry, task

ROOT = Path(__file__).parents[2]


def refusal(definition: object, substitutions: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        StateMachine.load(definition, substitutions or {})
    return str(caught.value)


def placeholders(text: str) -> dict[str, str]:
    return {part.split("}")[0]: "x" for part in text.split("${")[1:]}


@pytest.mark.parametrize(("name", "hours"), [("backup", 72), ("restore", 24)])
def test_the_real_machine_loads_and_needs_every_one_of_its_placeholders(name: str, hours: int) -> None:
    text = (ROOT / "statemachine" / f"{name}.asl.json").read_text(encoding="utf-8")
    names = {key: key for key in placeholders(text)}
    loaded = StateMachine.load(json.loads(text), names)
    assert loaded.timeout_seconds == hours * 3600
    assert loaded.resources() == {key for key in names if key.endswith("FunctionArn")}
    for missing in names:
        rest = {key: value for key, value in names.items() if key != missing}
        assert f"${{{missing}}}" in refusal(json.loads(text), rest)


def test_a_placeholder_is_replaced_inside_a_text() -> None:
    loaded = StateMachine.load(machine(A=task("arn:${P}:${Q}")), {"P": "aws", "Q": "f"})
    assert loaded.resources() == {"arn:aws:f"}


def with_state(**fields: Any) -> Json:
    return machine(A=task(**fields))


UNKNOWN = {
    "ResultSelector": {},
    "HeartbeatSeconds": 3,
    "Assign": {},
    "Arguments": {},
    "Output": {},
    "Credentials": {},
    "QueryLanguage": "JSONata",
    "TimeoutSecondsPath": "$.t",
    "Surprise": 1,
}


@pytest.mark.parametrize("field", UNKNOWN)
def test_a_field_that_is_not_implemented_is_refused_with_its_state(field: str) -> None:
    message = refusal(with_state(**{field: UNKNOWN[field]}))
    assert "'A'" in message
    assert f"'{field}'" in message


@pytest.mark.parametrize("kind", ["Pass", "Parallel", "Nonsense"])
def test_a_state_type_that_is_not_implemented_is_refused(kind: str) -> None:
    message = refusal(machine(A={"Type": kind, "End": True}))
    assert "'A'" in message
    assert f"'{kind}'" in message


@pytest.mark.parametrize(
    "rule",
    [
        {"Variable": "$.a", "StringMatches": "x*", "Next": "B"},
        {"And": [], "Next": "B"},
        {"Variable": "$.a", "Next": "B"},
        {"Variable": "$.a", "StringEquals": "x", "IsPresent": True, "Next": "B"},
        {"Variable": "$.a", "StringEquals": 1, "Next": "B"},
        {"Variable": "$.a", "BooleanEquals": 1, "Next": "B"},
        {"Variable": "$.a", "NumericGreaterThan": True, "Next": "B"},
        {"Variable": "$.a", "StringEqualsPath": "$.b", "Next": "B"},
        {"StringEquals": "x", "Next": "B"},
        {"Variable": "$.a", "StringEquals": "x"},
    ],
)
def test_a_choice_rule_that_is_not_implemented_or_whole_is_refused(rule: Json) -> None:
    message = refusal(machine(A={"Type": "Choice", "Choices": [rule], "Default": "B"}, B={"Type": "Succeed"}))
    assert "'A', field 'Choices'[0]" in message


@pytest.mark.parametrize(
    "path",
    [
        "$.a[0]",
        "$..a",
        "$.*",
        "$['a']",
        "a",
        "",
        "$.",
        "$.a-b",
        "States.UUID()",
        "$$",
        "$$.Task.Token",
        "$$.Map.Item.Value",
        7,
    ],
)
def test_a_path_that_is_not_of_the_subset_is_refused_in_a_template(path: object) -> None:
    message = refusal(with_state(Parameters={"deep": [{"x.$": path}]}))
    assert "'A', field 'Parameters', x.$" in message


@pytest.mark.parametrize("field", ["InputPath", "OutputPath", "ResultPath"])
def test_a_path_that_is_not_of_the_subset_is_refused_in_a_path_field(field: str) -> None:
    assert f"'A', field '{field}'" in refusal(with_state(**{field: "$.a[*]"}))


def test_a_result_path_cannot_write_into_the_context_object() -> None:
    assert "'ResultPath'" in refusal(with_state(ResultPath="$$.Execution.Input"))


def test_the_map_item_is_known_in_an_item_selector_alone() -> None:
    StateMachine.load(machine(A=each()), {})
    inner = machine(Item=task("item", Parameters={"v.$": "$$.Map.Item.Value"}))
    assert "$$.Map.Item.Value" in refusal(machine(A=each(inner)))


@pytest.mark.parametrize(
    ("states", "fact"),
    [
        ({"A": task(Next="Nowhere")}, "leads to 'Nowhere'"),
        ({"A": task(Catch=catch_all("Nowhere"))}, "leads to 'Nowhere'"),
        ({"A": task(), "B": task()}, "'B': no state leads to it"),
        ({"A": task(Next="B"), "B": task(Next="A")}, "no terminal state is reached"),
        ({"A": {"Type": "Task", "Resource": "work"}}, "exactly one of 'Next' and 'End'"),
        ({"A": task(Next="B", End=True), "B": task()}, "exactly one of 'Next' and 'End'"),
        ({"A": {"Type": "Choice", "Choices": [], "Default": "B"}, "B": task()}, "holds no rule"),
        ({"A": {"Type": "Task", "End": True}}, "'Resource' is missing"),
        ({"A" * 81: task()}, "too long"),
        ({"A": []}, "is not a JSON object"),
    ],
)
def test_a_graph_that_is_not_whole_is_refused(states: Json, fact: str) -> None:
    assert fact in refusal(machine(**states))


def test_a_start_that_does_not_exist_is_refused() -> None:
    assert "'StartAt'" in refusal({"StartAt": "B", "States": {"A": task()}})


def test_a_state_name_is_unique_in_the_whole_machine() -> None:
    assert "'A'" in refusal(machine(A=each(machine(A=task("item")))))


@pytest.mark.parametrize(
    "entries",
    [
        [retry("States.ALL", "X")],
        [retry("States.ALL"), retry("X")],
        [retry()],
        [retry("States.Unheard")],
    ],
)
@pytest.mark.parametrize("field", ["Retry", "Catch"])
def test_error_names_that_the_service_refuses_are_refused(field: str, entries: list[Json]) -> None:
    entries = copy.deepcopy(entries)
    for entry in entries:
        entry.update({"Next": "B"} if field == "Catch" else {})
    fields: Json = {field: entries}
    assert f"'A', field '{field}'" in refusal(machine(A=task(Next="B", **fields), B=task()))


@pytest.mark.parametrize(
    "fields",
    [
        {"IntervalSeconds": 0},
        {"MaxAttempts": -1},
        {"MaxAttempts": True},
        {"BackoffRate": 0.5},
        {"IntervalSeconds": 5, "MaxDelaySeconds": 5},
        {"JitterStrategy": "HALF"},
        {"Comments": "x"},
    ],
)
def test_a_retrier_that_the_service_refuses_is_refused(fields: Json) -> None:
    assert "'A', field 'Retry'[0]" in refusal(with_state(Retry=[retry("X", **fields)]))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"Seconds": 1, "SecondsPath": "$.s"},
        {"Seconds": -1},
        {"Seconds": 1.5},
        {"Seconds": 100_000_000},
        {"SecondsPath": 5},
        {"Timestamp": "2026-01-01T00:00:00Z"},
        {"TimestampPath": "$.t"},
        {"Seconds": 1, "ResultPath": "$.r"},
        {"Seconds": 1, "Catch": catch_all("B")},
    ],
)
def test_a_wait_that_the_service_refuses_or_that_is_not_implemented_is_refused(fields: Json) -> None:
    message = refusal(machine(A={"Type": "Wait", "Next": "B", **fields}, B={"Type": "Succeed"}))
    assert "'A'" in message


@pytest.mark.parametrize(
    "fields",
    [
        {"ToleratedFailurePercentage": 5},
        {"ToleratedFailureCount": 1},
        {"ItemBatcher": {}},
        {"ResultWriter": {}},
        {"Retry": [retry("States.ALL")]},
        {"MaxConcurrency": 2, "MaxConcurrencyPath": "$.n"},
        {"Label": "x" * 41},
        {"ItemProcessor": {"ProcessorConfig": {"Mode": "INLINE"}, **machine(I=task("item"))}},
        {"Iterator": machine(I=task("item"))},
    ],
)
def test_a_map_field_that_is_not_implemented_is_refused(fields: Json) -> None:
    assert "'A'" in refusal(machine(A=each(**fields)))


READER: Json = {
    "Resource": "arn:aws:states:::s3:getObject",
    "ReaderConfig": {"InputType": "JSON"},
    "Parameters": {"Bucket": "b", "Key.$": "$.key"},
}


@pytest.mark.parametrize(
    "fields",
    [
        {"Resource": "arn:aws:states:::s3:listObjectsV2"},
        {"ReaderConfig": {"InputType": "CSV"}},
        {"ReaderConfig": {"InputType": "JSON", "MaxItems": 3}},
        {"Parameters": {"Bucket": "b"}},
        {"Parameters": {"Bucket": "b", "Key": "k", "VersionId": "1"}},
    ],
)
def test_an_item_reader_that_is_not_implemented_is_refused(fields: Json) -> None:
    StateMachine.load(machine(A=each(ItemReader=READER)), {})
    assert "'A', field 'ItemReader'" in refusal(machine(A=each(ItemReader=READER | fields)))


@pytest.mark.parametrize("seconds", [0, -1, 1.5, "60", True])
def test_a_timeout_that_is_no_positive_whole_number_is_refused(seconds: object) -> None:
    assert "'TimeoutSeconds'" in refusal(with_state(TimeoutSeconds=seconds))
    assert "'TimeoutSeconds'" in refusal(machine(A=task()) | {"TimeoutSeconds": seconds})


def test_an_unknown_field_of_the_machine_itself_is_refused() -> None:
    assert "'Version'" in refusal(machine(A=task()) | {"Version": "1.0"})


@pytest.mark.parametrize("definition", [None, [], "text", {"States": {}}, {"StartAt": "A", "States": {}}])
def test_what_is_no_definition_is_refused(definition: object) -> None:
    assert "state machine, definition" in refusal(definition)
