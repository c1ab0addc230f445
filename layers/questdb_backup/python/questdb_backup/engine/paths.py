"""The JSONPath subset ``$``, ``$.a.b``, ``$$.Execution.Id``, and the templates and result paths built of it.

Amazon States Language, JSONPath: a reference path names one value. Brackets, wildcards, filters and
intrinsic functions are refused when a machine is loaded.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from questdb_backup.engine.errors import RESULT_PATH_MATCH_FAILURE, StateError
from questdb_backup.errors import ConfigurationError

_PATH = re.compile(r"(\$\$?)((?:\.[A-Za-z_][A-Za-z0-9_]*)*)", re.ASCII)

CONTEXT_VALUES = frozenset(
    {
        ("Execution", "Id"),
        ("Execution", "Name"),
        ("Execution", "Input"),
        ("Execution", "StartTime"),
        ("State", "Name"),
        ("State", "EnteredTime"),
        ("State", "RetryCount"),
        ("Map", "Item", "Value"),
        ("Map", "Item", "Index"),
    }
)
"""What ``$$`` gives; a longer path goes on into ``Execution.Input`` or ``Map.Item.Value``."""


class MissingPathError(LookupError):
    """A path names nothing in the value it is applied to; the text names the path."""


@dataclass(frozen=True, kw_only=True)
class Path:
    """A path into a state's input, or (`context`) into the context object."""

    text: str
    parts: tuple[str, ...] = ()
    context: bool = False

    def select(self, value: object, context: Mapping[str, object]) -> object:
        """The value that the path names. Raise MissingPathError where there is none."""
        found: object = context if self.context else value
        for part in self.parts:
            if not isinstance(found, Mapping) or part not in found:
                raise MissingPathError(self.text)
            found = found[part]
        return found


ROOT = Path(text="$")


def parse_path(text: object, where: str, *, context: bool = True, items: bool = False) -> Path:
    """A path from its text.

    Args:
        text: The field's value.
        where: State and field, for the error.
        context: Whether ``$$`` may stand here.
        items: Whether ``$$.Map.Item`` may stand here (in an ItemSelector alone).

    Raises:
        ConfigurationError: It is no text, or not of the subset.
    """
    match = _PATH.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ConfigurationError(
            f"{where}: {text!r} is not a path this engine knows", "it knows $, $.a.b and $$.Execution.Id"
        )
    path = Path(text=match[0], parts=tuple(match[2].split(".")[1:]), context=match[1] == "$$")
    if path.context:
        _check_context(path, where, context=context, items=items)
    return path


def _check_context(path: Path, where: str, *, context: bool, items: bool) -> None:
    if not context:
        raise ConfigurationError(f"{where}: {path.text!r} cannot name the context object", "begin it with $.")
    known = any(path.parts[: len(names)] == names for names in CONTEXT_VALUES)
    if not known or (path.parts[0] == "Map" and not items):
        raise ConfigurationError(
            f"{where}: the context object has no {path.text!r} here",
            "$$.Execution and $$.State are known in every state, $$.Map.Item in an ItemSelector",
        )


@dataclass(frozen=True, kw_only=True)
class Template:
    """A payload template: Parameters or ItemSelector; a key that ends in ``.$`` takes a path's value."""

    body: object

    def fill(self, value: object, context: Mapping[str, object]) -> object:
        """The payload. Raise MissingPathError for a path that names nothing."""
        return _fill(self.body, value, context)


def parse_template(body: object, where: str, *, items: bool = False) -> Template:
    """A template with its paths parsed. Raise ConfigurationError as `parse_path` does."""
    return Template(body=_parse_body(body, where, items))


def _parse_body(body: object, where: str, items: bool) -> object:
    if isinstance(body, list):
        return [_parse_body(part, where, items) for part in body]
    if not isinstance(body, dict):
        return body
    parsed: dict[str, object] = {}
    for key, part in body.items():
        name = key.removesuffix(".$")
        if name in parsed:
            raise ConfigurationError(f"{where}: {name!r} stands there twice", "keep one of the two")
        parsed[name] = (
            _parse_body(part, where, items)
            if name == key
            else parse_path(part, f"{where}, {key}", items=items)
        )
    return parsed


def _fill(body: object, value: object, context: Mapping[str, object]) -> object:
    if isinstance(body, Path):
        return body.select(value, context)
    if isinstance(body, dict):
        return {key: _fill(part, value, context) for key, part in body.items()}
    if isinstance(body, list):
        return [_fill(part, value, context) for part in body]
    return body


def combine(path: Path | None, value: object, result: object) -> object:
    """The state's input with the result at ResultPath: None discards the result, ``$`` replaces the input.

    Raise StateError ``States.ResultPathMatchFailure`` where a part on the way is not an object. The input
    itself is not changed.
    """
    if path is None:
        return value
    return _put(path, path.parts, value, result)


def _put(path: Path, parts: tuple[str, ...], value: object, result: object) -> object:
    if not parts:
        return result
    if not isinstance(value, Mapping):
        raise StateError(
            RESULT_PATH_MATCH_FAILURE, f"Unable to apply ResultPath '{path.text}' to the state's input."
        )
    return {**value, parts[0]: _put(path, parts[1:], value.get(parts[0], {}), result)}
