import json
import threading
from typing import Any

import pytest

from questdb_backup.engine import EngineEvent, EventType, Status, TaskFunction
from questdb_backup.engine.map import concurrency
from questdb_backup.engine.states import Flow, MapState
from tests.workflow.engine_kit import (
    WAIT,
    Events,
    Json,
    Recorder,
    catch_all,
    each,
    execution,
    machine,
    run,
    task,
)

SUCCEED: Json = {"Type": "Succeed"}
READER: Json = {
    "Resource": "arn:aws:states:::s3:getObject",
    "ReaderConfig": {"InputType": "JSON"},
    "Parameters": {"Bucket.$": "$.bucket", "Key": "plan.json"},
}


class Gauge:
    """A task function that holds each call until so many run at once, and keeps the most that did."""

    def __init__(self, expected: int) -> None:
        self.most = 0
        self._now = 0
        self._expected = expected
        self._lock = threading.Lock()
        self._full = threading.Event()

    def __call__(self, event: Json) -> object:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            if self._now >= self._expected:
                self._full.set()
        assert self._full.wait(WAIT)
        with self._lock:
            self._now -= 1
        return {}


def test_results_stand_in_the_items_order_whatever_finishes_first() -> None:
    last = threading.Event()

    def item(event: Json) -> object:
        if event["value"] == 0:
            assert last.wait(WAIT)
        if event["value"] == 2:
            last.set()
        return event["value"] * 10

    assert run(machine(A=each()), {"item": item}, {"items": [0, 1, 2]}).output == [0, 10, 20]


def test_each_item_is_a_child_execution_with_its_selected_input() -> None:
    item = Recorder()
    child = machine(
        Item=task("item", Parameters={"in.$": "$", "id.$": "$$.Execution.Id", "of.$": "$$.Execution.Input"})
    )
    selector = {
        "v.$": "$$.Map.Item.Value",
        "n.$": "$$.Map.Item.Index",
        "run.$": "$.run",
        "id.$": "$$.Execution.Id",
    }
    run(machine(A=each(child, ItemSelector=selector, Label="L")), {"item": item}, {"items": ["x"], "run": 7})
    given = {"v": "x", "n": 0, "run": 7, "id": "run-1"}
    assert item.events == [{"in": given, "of": given, "id": "run-1/L:0"}]


def test_without_an_item_selector_the_item_is_the_childs_input() -> None:
    definition = machine(A=each())
    del definition["States"]["A"]["ItemSelector"]
    assert run(definition, {"item": Recorder()}, {"items": [{"value": 1}]}).output == [{"value": 1}]


def test_a_map_of_no_items_succeeds_with_an_empty_array() -> None:
    assert run(machine(A=each()), {"item": Recorder()}, {"items": []}).output == []


def test_the_items_are_the_json_array_that_the_reader_names() -> None:
    read: list[tuple[str, str]] = []

    def read_object(bucket: str, key: str) -> bytes:
        read.append((bucket, key))
        return b'[{"n": 1}, {"n": 2}]'

    result = run(
        machine(A=each(ItemReader=READER)), {"item": Recorder()}, {"bucket": "b"}, read_object=read_object
    )
    assert result.output == [{"value": {"n": 1}}, {"value": {"n": 2}}]
    assert read == [("b", "plan.json")]


@pytest.mark.parametrize("data", [b'{"a": []}', b"not json", None])
def test_an_object_that_cannot_be_read_as_an_array_is_an_item_reader_failure_that_catch_sees(
    data: bytes | None,
) -> None:
    def read_object(bucket: str, key: str) -> bytes:
        if data is None:
            raise OSError("no such object")
        return data

    definition = machine(A=each(ItemReader=READER, Catch=catch_all("B"), Next="B"), B=SUCCEED)
    output: Any = run(definition, {"item": Recorder()}, {"bucket": "b"}, read_object=read_object).output
    assert output["error"]["Error"] == "States.ItemReaderFailed"


@pytest.mark.parametrize("items", [{}, "text", 7, None])
def test_items_that_are_no_array_are_a_runtime_error(items: object) -> None:
    definition = machine(A=each(Catch=catch_all("B"), Next="B"), B=SUCCEED)
    assert run(definition, {"item": Recorder()}, {"items": items}).error == "States.Runtime"


@pytest.mark.parametrize(
    ("limit", "expected"),
    [({"MaxConcurrency": 2}, 2), ({"MaxConcurrencyPath": "$.n"}, 3), ({}, 4), ({"MaxConcurrency": 0}, 4)],
)
def test_so_many_items_run_at_once_as_the_state_and_the_host_allow(limit: Json, expected: int) -> None:
    gauge = Gauge(expected)
    result = run(machine(A=each(**limit)), {"item": gauge}, {"items": list(range(12)), "n": 3}, max_workers=4)
    assert result.status is Status.SUCCEEDED
    assert gauge.most == expected


@pytest.mark.parametrize("limit", [-1, 1.5, "2", True, None, {}])
def test_a_concurrency_that_is_no_whole_number_is_a_runtime_error(limit: object) -> None:
    definition = machine(A=each(MaxConcurrencyPath="$.n", Catch=catch_all("B"), Next="B"), B=SUCCEED)
    result = run(definition, {"item": Recorder()}, {"items": [], "n": limit})
    assert result.error == "States.Runtime"
    assert "MaxConcurrencyPath" in result.cause


def test_the_hosts_limit_holds_below_the_states_own() -> None:
    state = MapState(name="A", label="A", next=None, processor=Flow(start_at="I"), max_concurrency=100)
    assert concurrency(state, {}, {}, 8) == 8


def test_a_failed_child_fails_the_map_with_the_services_words_and_the_result_keeps_the_childs() -> None:
    def item(event: Json) -> object:
        if event["value"] == 1:
            raise OSError("disk gone")
        return {}

    definition = machine(A=each(MaxConcurrency=1, Catch=catch_all("B"), Next="B"), B=SUCCEED)
    result = run(definition, {"item": item}, {"items": [0, 1, 2]})
    output: Any = result.output
    assert output["error"] == {
        "Error": "States.ExceedToleratedFailureThreshold",
        "Cause": "The specified tolerated failure threshold was exceeded",
    }
    (failure,) = result.map_failures
    assert (failure.state, failure.item, failure.error) == ("A", 1, "OSError")
    assert json.loads(failure.cause)["errorMessage"] == "disk gone"


def test_no_item_starts_after_a_failure() -> None:
    item = Recorder(lambda event: 1 // 0 if event["value"] == 2 else {})
    result = run(machine(A=each(MaxConcurrency=1)), {"item": item}, {"items": list(range(50))})
    assert result.error == "States.ExceedToleratedFailureThreshold"
    assert [event["value"] for event in item.events] == [0, 1, 2]


def test_after_a_failure_the_catch_runs_at_once_while_other_handlers_go_on() -> None:
    running, release_ran, may_end = threading.Event(), threading.Event(), threading.Event()
    order: list[str] = []

    def item(event: Json) -> object:
        if event["value"] == 0:
            assert running.wait(WAIT)
            raise OSError
        running.set()
        assert release_ran.wait(WAIT)
        order.append("worker wrote")
        assert may_end.wait(WAIT)
        return {}

    def release(event: Json) -> object:
        order.append("released")
        release_ran.set()
        return {}

    definition = machine(A=each(Catch=catch_all("B"), Next="B"), B=task("release"))
    made = execution(definition, {"item": item, "release": release}, {"items": [0, 1, 2, 3]}, max_workers=2)
    assert made.run().status is Status.SUCCEEDED
    assert made.running_tasks == 1
    assert made.join(0) is False
    may_end.set()
    assert made.join(WAIT) is True
    assert order == ["released", "worker wrote"]


def test_after_a_failure_a_running_child_gets_no_further_state_and_no_retry() -> None:
    started, aborted, failed = threading.Event(), threading.Event(), threading.Event()
    calls: list[str] = []

    def first(event: Json) -> object:
        calls.append("first")
        if event["value"] == 0:
            assert started.wait(WAIT)
            raise OSError
        started.set()
        assert failed.wait(WAIT)
        raise KeyError

    def release(event: Json) -> object:
        assert aborted.wait(WAIT)
        failed.set()
        return {}

    def hook(event: EngineEvent) -> None:
        if event.item == 1 and event.type is EventType.EXECUTION_ABORTED:
            aborted.set()

    recovery: Json = {
        "Retry": [{"ErrorEquals": ["KeyError"]}],
        "Catch": [{"ErrorEquals": ["KeyError"], "Next": "S"}],
    }
    child = machine(First=task("first", Next="S", **recovery), S=task("second"))
    definition = machine(A=each(child, Catch=catch_all("B"), Next="B"), B=task("release"))
    second = Recorder()
    functions: dict[str, TaskFunction] = {"first": first, "second": second, "release": release}
    assert run(definition, functions, {"items": [0, 1]}, hook=hook).status is Status.SUCCEEDED
    assert calls == ["first", "first"]
    assert second.events == []


def test_the_threads_of_finished_items_serve_the_next_ones() -> None:
    seen: set[int] = set()
    item = Recorder(lambda event: seen.add(threading.get_ident()))
    run(machine(A=each()), {"item": item}, {"items": list(range(300))}, max_workers=1)
    assert len(item.events) == 300
    assert len(seen) < 100


def test_retry_stands_on_the_task_inside_the_map() -> None:
    seen: list[int] = []

    def item(event: Json) -> object:
        seen.append(event["n"])
        if event["n"] < 2:
            raise OSError
        return event["n"]

    child = machine(
        Item=task("item", Parameters={"n.$": "$$.State.RetryCount"}, Retry=[{"ErrorEquals": ["OSError"]}])
    )
    assert run(machine(A=each(child)), {"item": item}, {"items": ["x"]}).output == [2]
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_in_a_child_is_not_swallowed(error: type[BaseException]) -> None:
    def item(event: Json) -> object:
        raise error

    with pytest.raises(error):
        run(machine(A=each(Catch=catch_all("B"), Next="B"), B=SUCCEED), {"item": item}, {"items": [1]})


def test_a_runtime_error_of_a_child_fails_the_map_and_is_caught_there() -> None:
    child = machine(
        Item=task("item", Parameters={"x.$": "$.gone"}, Catch=catch_all("End"), Next="End"), End=SUCCEED
    )
    definition = machine(A=each(child, Catch=catch_all("B"), Next="B"), B=SUCCEED)
    output: Any = run(definition, {"item": Recorder()}, {"items": [1]}).output
    assert output["error"]["Error"] == "States.ExceedToleratedFailureThreshold"


def nested(levels: int) -> Json:
    child = machine(Item=task("item", Parameters={}))
    for level in range(levels):
        inner = each(child, ItemsPath="$.items", ItemSelector={"items.$": "$.items"})
        child = machine(**{f"Level{level}": inner})
    return child


def test_a_map_inside_a_map_inside_a_map_does_not_deadlock_with_one_worker_each() -> None:
    counter = Events()
    result = run(nested(3), {"item": lambda event: 1}, {"items": [1, 2, 3]}, max_workers=1, hook=counter)
    assert result.output == [[[1] * 3] * 3] * 3
    assert sum(event.type is EventType.LAMBDA_FUNCTION_SUCCEEDED for event in counter.all) == 27


def test_an_inner_maps_failure_fails_the_outer_one() -> None:
    def item(event: Json) -> object:
        raise OSError

    result = run(nested(2), {"item": item}, {"items": [1, 2]})
    assert result.error == "States.ExceedToleratedFailureThreshold"
    assert {failure.state for failure in result.map_failures} == {"Level0", "Level1"}


def test_a_hook_can_fail_one_item() -> None:
    def hook(event: EngineEvent) -> None:
        if event.item == 3 and event.type is EventType.LAMBDA_FUNCTION_SCHEDULED:
            raise OSError("injected")

    result = run(machine(A=each()), {"item": Recorder()}, {"items": list(range(5))}, hook=hook)
    assert [failure.item for failure in result.map_failures] == [3]
