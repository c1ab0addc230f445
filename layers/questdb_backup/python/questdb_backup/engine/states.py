"""The states of a loaded machine, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from questdb_backup.engine.paths import ROOT, Path, Template
from questdb_backup.engine.retry import Retrier

MOST_SECONDS = 99_999_999
"""The longest that a Wait state may wait."""


class Comparator(StrEnum):
    """The comparators of a Choice that this engine knows."""

    STRING_EQUALS = "StringEquals"
    BOOLEAN_EQUALS = "BooleanEquals"
    NUMERIC_GREATER_THAN = "NumericGreaterThan"
    IS_PRESENT = "IsPresent"


@dataclass(frozen=True, kw_only=True)
class Catcher:
    """One entry of a Catch field."""

    error_equals: tuple[str, ...]
    next: str
    result_path: Path | None = ROOT


@dataclass(frozen=True, kw_only=True)
class ChoiceRule:
    """One entry of a Choice's Choices."""

    variable: Path
    comparator: Comparator
    operand: str | bool | float
    next: str


@dataclass(frozen=True, kw_only=True)
class State:
    """What every kind of state has; a path that is None was written as null."""

    name: str
    input_path: Path | None = ROOT
    output_path: Path | None = ROOT

    @property
    def kind(self) -> str:
        """The Type, as the definition and the events write it."""
        return type(self).__name__.removesuffix("State")


@dataclass(frozen=True, kw_only=True)
class WorkState(State):
    """A state that works, can fail, and has a successor: `next`, or None at the end."""

    next: str | None
    result_path: Path | None = ROOT
    retry: tuple[Retrier, ...] = ()
    catch: tuple[Catcher, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TaskState(WorkState):
    """Calls a function."""

    resource: str
    parameters: Template | None = None
    timeout_seconds: int | None = None


@dataclass(frozen=True, kw_only=True)
class ItemReader:
    """A Map's items are the JSON array in an object; the template gives Bucket and Key."""

    parameters: Template


@dataclass(frozen=True, kw_only=True)
class MapState(WorkState):
    """A Distributed Map: one child execution per item."""

    label: str
    processor: "Flow"
    item_reader: ItemReader | None = None
    items_path: Path = ROOT
    item_selector: Template | None = None
    max_concurrency: int = 0
    max_concurrency_path: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ChoiceState(State):
    """Goes on by the first rule that matches."""

    rules: tuple[ChoiceRule, ...]
    default: str | None = None


@dataclass(frozen=True, kw_only=True)
class WaitState(State):
    """Waits; `seconds` is literal or a path to a whole number. Its `next` is None at the end."""

    seconds: int | Path
    next: str | None


@dataclass(frozen=True, kw_only=True)
class SucceedState(State):
    """Ends well."""


@dataclass(frozen=True, kw_only=True)
class FailState(State):
    """Ends with an error, whose name and cause are literal or come from paths."""

    error: str | Path = ""
    cause: str | Path = ""


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A graph of states: a machine's own, or the ItemProcessor of a Map."""

    start_at: str
    states: Mapping[str, State] = field(default_factory=dict)


def successors(state: State) -> list[str]:
    """Names of the states that can follow: Next, Choices, Default, Catch."""
    match state:
        case WorkState():
            return [*([] if state.next is None else [state.next]), *(catcher.next for catcher in state.catch)]
        case WaitState():
            return [] if state.next is None else [state.next]
        case ChoiceState():
            names = [rule.next for rule in state.rules]
            return names if state.default is None else [*names, state.default]
        case _:
            return []
