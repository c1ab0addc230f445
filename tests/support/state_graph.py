"""Where the states of a machine lead."""

from collections.abc import Mapping
from typing import Any


def ways(choice: dict[str, Any], known: Mapping[str, object]) -> list[str]:
    """Where a Choice can go, its rules taken in order; ``known`` are values by their ``$.`` path."""
    found = []
    for rule in choice["Choices"]:
        variable = rule.get("Variable")
        if variable not in known:
            found.append(rule["Next"])
        elif known[variable] in (rule.get("StringEquals"), rule.get("BooleanEquals")):
            return [*found, rule["Next"]]
    return [*found, choice["Default"]]
