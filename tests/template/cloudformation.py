"""What the template, the state machines and the events say, as plain values."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]


@cache
def template() -> dict[str, Any]:
    """The whole template; the short tags as in JSON: ``!Ref X`` is ``{"Ref": "X"}``."""
    loaded: dict[str, Any] = yaml_parse((ROOT / "template.yaml").read_text())
    return loaded


def resources(kind: str) -> dict[str, dict[str, Any]]:
    """Logical id to resource, of one type."""
    return {name: each for name, each in template()["Resources"].items() if each["Type"] == kind}


def functions() -> dict[str, dict[str, Any]]:
    """Name of a function's folder to its properties."""
    return {
        snake_case(logical_id.removesuffix("Function")): each["Properties"]
        for logical_id, each in resources("AWS::Serverless::Function").items()
    }


def statements(properties: dict[str, Any]) -> list[dict[str, Any]]:
    """The statements of a function's or state machine's policies, options included."""
    found: list[dict[str, Any]] = []
    for policy in properties.get("Policies", []):
        if "Fn::If" in policy:
            name = policy["Fn::If"][1]["Ref"]
            policy = template()["Resources"][name]["Properties"]["PolicyDocument"]
        found += policy["Statement"]
    return found


def as_list(value: Any) -> list[Any]:
    """A policy's Action or Resource may be one or many."""
    return value if isinstance(value, list) else [value]


def actions(properties: dict[str, Any]) -> set[str]:
    """Every action that a function or state machine is allowed."""
    return {action for each in statements(properties) for action in as_list(each["Action"])}


def environment(properties: dict[str, Any]) -> dict[str, Any]:
    """The environment of a function, without what all share."""
    variables: dict[str, Any] = properties.get("Environment", {}).get("Variables", {})
    return variables


@cache
def state_machine(name: str) -> dict[str, Any]:
    """The definition of ``backup`` or ``restore``."""
    loaded: dict[str, Any] = json.loads((ROOT / "statemachine" / f"{name}.asl.json").read_text())
    return loaded


def tasks(definition: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every Task state, those inside Maps too."""
    found = {}
    for name, state in definition["States"].items():
        if state["Type"] == "Task":
            found[name] = state
        elif state["Type"] == "Map":
            found |= tasks(state["ItemProcessor"])
    return found


def function_of(task: dict[str, Any]) -> str:
    """The folder of the function that a Task runs."""
    found = re.fullmatch(r"\$\{(\w+)FunctionArn\}", task["Resource"])
    assert found, task["Resource"]
    return snake_case(found[1])


def snake_case(name: str) -> str:
    """``PlanBackup`` to ``plan_backup``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def camel_case(name: str) -> str:
    """``plan_backup`` to ``PlanBackup``."""
    return "".join(word.capitalize() for word in name.split("_"))
