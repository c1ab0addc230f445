"""State, function, folder and event share one name, and everything that a name refers to is there."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from questdb_backup.questdb.base import Fence
from questdb_backup.restore.request import Restore, RestoreRequest
from questdb_backup.steps.database import database_from_json, release_from_json
from questdb_backup.steps.run import Run
from tests.template.cloudformation import (
    ROOT,
    camel_case,
    environment,
    function_of,
    functions,
    resources,
    state_machine,
    tasks,
    template,
)

MACHINES = ("backup", "restore")
EVENTS = sorted((ROOT / "events").glob("*.json"), key=str)
OUTSIDE_MACHINES = {"guard_checkpoint", "list_backups", "abort_backup", "restore_database"}


def _substitutions(machine: str) -> dict[str, object]:
    properties = resources("AWS::Serverless::StateMachine")[f"{machine.capitalize()}StateMachine"][
        "Properties"
    ]
    found: dict[str, object] = properties["DefinitionSubstitutions"]
    return found


def _functions_of(machine: str) -> set[str]:
    return {function_of(task) for task in tasks(state_machine(machine)).values()}


@pytest.mark.parametrize("machine", MACHINES)
def test_every_placeholder_of_a_state_machine_is_substituted_and_no_other(machine: str) -> None:
    text = (ROOT / "statemachine" / f"{machine}.asl.json").read_text()
    assert set(re.findall(r"\$\{([\w:]+)\}", text)) == set(_substitutions(machine))


@pytest.mark.parametrize("machine", MACHINES)
def test_every_function_placeholder_is_the_arn_of_the_function_of_that_name(machine: str) -> None:
    for name, value in _substitutions(machine).items():
        if name != "AWS::Partition":
            assert value == {"Fn::GetAtt": [name.removesuffix("Arn"), "Arn"]}
            assert name.removesuffix("Arn") in resources("AWS::Serverless::Function")


def test_every_function_has_a_folder_with_a_handler_and_every_folder_a_function() -> None:
    folders = {path.parent.name for path in (ROOT / "functions").glob("*/app.py")}
    assert folders == set(functions())


def test_every_function_is_built_from_its_own_folder() -> None:
    for name, properties in functions().items():
        assert properties["CodeUri"] == f"functions/{name}/"


def test_every_function_is_a_step_of_a_state_machine_or_invoked_by_itself() -> None:
    assert _functions_of("backup") | _functions_of("restore") | OUTSIDE_MACHINES == set(functions())
    assert not (_functions_of("backup") | _functions_of("restore")) & OUTSIDE_MACHINES


@pytest.mark.parametrize("machine", MACHINES)
def test_every_step_has_a_state_of_its_own_name(machine: str) -> None:
    assert {camel_case(name) for name in _functions_of(machine)} <= set(state_machine(machine)["States"])


@pytest.mark.parametrize("machine", MACHINES)
def test_a_state_machine_may_invoke_its_own_functions_and_no_other(machine: str) -> None:
    properties = resources("AWS::Serverless::StateMachine")[f"{machine.capitalize()}StateMachine"][
        "Properties"
    ]
    invoked = {
        name["Fn::GetAtt"][0]
        for policy in properties["Policies"]
        for statement in policy.get("Statement", [])
        if statement["Action"] == "lambda:InvokeFunction"
        for name in statement["Resource"]
    }
    assert invoked == {f"{camel_case(name)}Function" for name in _functions_of(machine)}


@pytest.mark.parametrize("machine", MACHINES)
def test_no_task_gives_up_before_its_function_does(machine: str) -> None:
    for state, task in tasks(state_machine(machine)).items():
        assert functions()[function_of(task)]["Timeout"] < task["TimeoutSeconds"], state


def test_the_map_reads_where_the_state_machine_may_read() -> None:
    policies = resources("AWS::Serverless::StateMachine")["BackupStateMachine"]["Properties"]["Policies"]
    read = [
        statement["Resource"]
        for policy in policies
        for statement in policy.get("Statement", [])
        if statement["Action"] == "s3:GetObject"
    ]
    assert read == [{"Fn::Sub": "${BackupBucket.Arn}/${ObjectStoreRoot}/_backup/*/runs/*/plan.json"}]


def _known_names(machine: str) -> set[str]:
    """What stands in a function's environment as a name built from the stack's, not by reference."""
    properties = resources("AWS::Serverless::StateMachine")[f"{machine.capitalize()}StateMachine"][
        "Properties"
    ]
    return {str(properties["Name"]["Fn::Sub"])}


def test_the_arn_that_functions_build_by_name_is_that_of_the_state_machine() -> None:
    for name in ("guard_checkpoint", "abort_backup"):
        arn = environment(functions()[name])["QDB_BACKUP_STATE_MACHINE_ARN"]["Fn::Sub"]
        assert {arn.split(":stateMachine:")[1]} == _known_names("backup")


def _target(event: Path) -> str:
    return event.name.split(".")[0]


@pytest.mark.parametrize("event", EVENTS, ids=[path.name for path in EVENTS])
def test_every_event_is_a_json_object_and_named_after_its_function_or_state_machine(event: Path) -> None:
    assert isinstance(json.loads(event.read_text()), dict)
    assert _target(event) in {*functions(), *MACHINES}


def test_every_function_has_an_event() -> None:
    assert {_target(event) for event in EVENTS} >= set(functions())


@pytest.mark.parametrize("machine", MACHINES)
def test_the_event_of_a_step_has_exactly_the_keys_that_its_states_pass(machine: str) -> None:
    passed: dict[str, set[frozenset[str]]] = {}
    for task in tasks(state_machine(machine)).values():
        keys = frozenset(key.removesuffix(".$") for key in task["Parameters"])
        passed.setdefault(function_of(task), set()).add(keys)
    for function, wanted in passed.items():
        events = [event for event in EVENTS if _target(event) == function]
        assert {frozenset(json.loads(event.read_text())) for event in events} == wanted, function


def test_the_handlers_can_read_what_the_events_hold() -> None:
    read: dict[str, Callable[[dict[str, Any]], object]] = {
        "run": Run.from_json,
        "fence": Fence.from_json,
        "restore": Restore.from_json,
        "database": database_from_json,
        "release": release_from_json,
    }
    seen = set()
    for event in EVENTS:
        for key, value in json.loads(event.read_text()).items():
            if key in read:
                assert read[key](value)
                seen.add(key)
            if key == "request" and _target(event) == "plan_restore":
                assert RestoreRequest.from_json(value).timestamp
    assert seen == set(read)


def test_there_is_an_event_for_each_trigger() -> None:
    assert {event.name for event in EVENTS} >= {
        "backup.schedule.json",
        "backup.manual.json",
        "restore_database.latest.json",
        "restore_database.timestamp.json",
        "abort_backup.json",
        "guard_checkpoint.schedule.json",
        "guard_checkpoint.execution_status.json",
    }


def test_a_manual_execution_needs_no_input() -> None:
    assert json.loads((ROOT / "events" / "backup.manual.json").read_text()) == {}


def test_the_event_of_a_schedule_tick_is_what_the_schedules_send() -> None:
    machine = resources("AWS::Serverless::StateMachine")["BackupStateMachine"]["Properties"]
    example = json.loads((ROOT / "events" / "backup.schedule.json").read_text())
    for schedule in machine["Events"].values():
        sent = json.loads(schedule["Properties"]["Input"])
        assert sent["scheduled_time"] == "<aws.scheduler.scheduled-time>"
        assert set(sent) == set(example)
        assert sent["trigger"] == example["trigger"]


def test_the_event_of_an_ended_execution_is_one_that_the_guards_rule_matches() -> None:
    event = json.loads((ROOT / "events" / "guard_checkpoint.execution_status.json").read_text())
    pattern = functions()["guard_checkpoint"]["Events"]["ExecutionEnded"]["Properties"]["Pattern"]
    assert event["source"] in pattern["source"]
    assert event["detail-type"] in pattern["detail-type"]
    assert event["detail"]["status"] in pattern["detail"]["status"]


def test_every_reference_of_a_policy_or_an_environment_is_there() -> None:
    text = json.dumps(template())
    known = {*template()["Resources"], *template()["Parameters"]}
    for name in re.findall(r"\$\{(\w+)[.}]", text):
        assert name in known, name
