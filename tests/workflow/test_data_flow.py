"""Every path that a state reads is written on every way to it, or given by the machine's first state.

A Choice on ``$.source`` is decided by the source of the run; every other Choice may go any way.
A path that names nothing is ``States.Runtime``, which no Catch sees: the release would be left to the guard.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.state_graph import ways

Json = dict[str, Any]

FOLDER = Path(__file__).parents[2] / "statemachine"
FIRST_STATE_GIVES = {
    "backup": {
        "run",
        "source",
        "fence",
        "database",
        "snapshots",
        "max_concurrency",
        "release",
        "final_release",
    },
    "restore": {"restore", "target", "units", "volumes", "max_concurrency", "result"},
}
"""Keys that the first state's result must hold, with null where a later state may write them."""


def names(value: object) -> Iterator[str]:
    """First parts of the ``$.`` paths in a state's fields."""
    if isinstance(value, dict):
        for part in value.values():
            yield from names(part)
    elif isinstance(value, list):
        for part in value:
            yield from names(part)
    elif isinstance(value, str) and value.startswith("$."):
        yield value.split(".")[1]


def read_by(state: Json) -> set[str]:
    outside = ("ResultPath", "Catch", "Retry", "ItemProcessor")
    return set(names({key: value for key, value in state.items() if key not in outside}))


def written_to(state: Json, source: str) -> Iterator[tuple[str, set[str]]]:
    """Each successor with what is written on the way to it."""
    if state["Type"] == "Choice":
        yield from ((name, set()) for name in ways(state, {"$.source": source}))
    elif "Next" in state:
        yield state["Next"], set(names(state.get("ResultPath")))
    for catcher in state.get("Catch", []):
        yield catcher["Next"], set(names(catcher["ResultPath"]))


def missing(machine: Json, source: str) -> dict[str, list[str]]:
    """Keys that are read but not written on every way there, each with the states that read it."""
    states = machine["States"]
    written: dict[str, set[str]] = {machine["StartAt"]: set()}
    ahead = [machine["StartAt"]]
    while ahead:
        name = ahead.pop()
        for following, more in written_to(states[name], source):
            known = written[name] | more
            if following not in written or not written[following] <= known:
                written[following] = known & written.get(following, known)
                ahead.append(following)
    found: dict[str, list[str]] = {}
    for name in written:
        for key in read_by(states[name]) - written[name] if name != machine["StartAt"] else ():
            found.setdefault(key, []).append(name)
    return found


@pytest.mark.parametrize("name", FIRST_STATE_GIVES)
def test_what_no_state_writes_on_every_way_is_what_the_first_state_gives(name: str) -> None:
    machine = json.loads((FOLDER / f"{name}.asl.json").read_text(encoding="utf-8"))
    found = [missing(machine, source) for source in ("path", "frozen", "ebs")]
    assert set().union(*found) == FIRST_STATE_GIVES[name], found
