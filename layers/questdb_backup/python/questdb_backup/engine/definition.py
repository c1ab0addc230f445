"""Loading a state machine: parse Amazon States Language (JSONPath) and refuse what the engine does not run.

A definition is refused as a whole at load, so a machine that loads has no field whose meaning is ignored.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from questdb_backup.engine import parse
from questdb_backup.engine.fields import Fields, refuse
from questdb_backup.engine.graph import check_flow
from questdb_backup.engine.states import Flow, MapState, TaskState

_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
_NAME_LIMIT = 80


@dataclass(frozen=True, kw_only=True)
class StateMachine:
    """A definition that was found to be whole and within the engine's subset."""

    flow: Flow
    timeout_seconds: int | None = None

    @classmethod
    def load(cls, definition: object, substitutions: Mapping[str, str]) -> "StateMachine":
        """Parse and check a definition.

        Args:
            definition: The JSON object of an ``.asl.json`` file.
            substitutions: Values of the ``${Name}`` placeholders, as DefinitionSubstitutions give them.

        Raises:
            ConfigurationError: A placeholder has no value; a field, state type, comparator or path is not
                implemented; a state is unreachable, leads nowhere or never ends. State and field are named.
        """
        top = Fields(_substitute(definition, substitutions, "definition"), "definition")
        top.drop_comment()
        timeout = top.optional_integer("TimeoutSeconds", least=1)
        flow = _parse_flow(top, set())
        top.done()
        return cls(flow=flow, timeout_seconds=timeout)

    def resources(self) -> set[str]:
        """Every Task's Resource, also inside Maps."""
        return _resources(self.flow)


def _resources(flow: Flow) -> set[str]:
    found: set[str] = set()
    for state in flow.states.values():
        if isinstance(state, TaskState):
            found.add(state.resource)
        elif isinstance(state, MapState):
            found |= _resources(state.processor)
    return found


def _parse_flow(fields: Fields, names: set[str]) -> Flow:
    """StartAt and States of a machine or an ItemProcessor; `names` are those of the whole machine so far."""
    start_at = fields.text("StartAt")
    bodies = fields.take("States")
    if not isinstance(bodies, Mapping) or not bodies:
        refuse(fields.place("States"), "holds no state", "write at least one")
    for name in bodies:
        if name in names or not 0 < len(name) <= _NAME_LIMIT:
            refuse(
                f"state '{name}'", "its name is not unique or too long", "choose a name of up to 80 letters"
            )
        names.add(name)
    states = {
        name: parse.state(name, body, lambda processor: _parse_flow(processor, names))
        for name, body in bodies.items()
    }
    flow = Flow(start_at=start_at, states=states)
    check_flow(flow, fields.where)
    return flow


def _substitute(value: object, substitutions: Mapping[str, str], where: str) -> object:
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: _replacement(match[1], substitutions, where), value)
    if isinstance(value, Mapping):
        return {key: _substitute(part, substitutions, f"{where}.{key}") for key, part in value.items()}
    if isinstance(value, list):
        return [_substitute(part, substitutions, f"{where}[{n}]") for n, part in enumerate(value)]
    return value


def _replacement(name: str, substitutions: Mapping[str, str], where: str) -> str:
    if name not in substitutions:
        refuse(where, f"'${{{name}}}' has no value", "give it among the substitutions")
    return substitutions[name]
