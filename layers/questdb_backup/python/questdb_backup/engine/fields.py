"""Reading a definition's JSON objects field by field, refusing what is missing, wrong or left over."""

from collections.abc import Mapping
from typing import NoReturn

from questdb_backup.engine.paths import Path, parse_path
from questdb_backup.errors import ConfigurationError

_MISSING = object()


def refuse(where: str, fact: str, hint: str) -> NoReturn:
    """Raise ConfigurationError for the state and field that `where` names."""
    raise ConfigurationError(f"state machine, {where}: {fact}", hint)


class Fields:
    """The fields of one JSON object; each is taken once, and `done` refuses the rest.

    Every method raises ConfigurationError that names the object and the field.
    """

    def __init__(self, body: object, where: str) -> None:
        if not isinstance(body, Mapping):
            refuse(where, "is not a JSON object", "write it as an object")
        self.where = where
        self._left = dict(body)

    def place(self, name: str) -> str:
        """The name of a field for an error: ``state 'X', field 'Y'``."""
        return f"{self.where}, field '{name}'"

    def has(self, name: str) -> bool:
        """Whether the field is there and not taken yet."""
        return name in self._left

    def take(self, name: str, default: object = _MISSING) -> object:
        """A field's value as it is."""
        if name in self._left:
            return self._left.pop(name)
        if default is _MISSING:
            refuse(self.where, f"field '{name}' is missing", "add it")
        return default

    def text(self, name: str, default: object = _MISSING) -> str:
        """A field that must be a string which is not empty."""
        value = self.take(name, default)
        if not isinstance(value, str) or (not value and value is not default):
            refuse(self.place(name), f"{value!r} is not a text", "write a string")
        return value

    def integer(self, name: str, default: int, *, least: int, most: int = 99_999_999) -> int:
        """A whole number within bounds."""
        value = self.take(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            refuse(
                self.place(name),
                f"{value!r} is not a whole number from {least} to {most}",
                "write a number in that range",
            )
        return value

    def optional_integer(self, name: str, *, least: int) -> int | None:
        """A whole number, or None where the field is absent."""
        return self.integer(name, 0, least=least) if self.has(name) else None

    def objects(self, name: str) -> list[object]:
        """A list; empty where the field is absent."""
        value = self.take(name, [])
        if not isinstance(value, list):
            refuse(self.place(name), "is not a list", "write it in brackets")
        return value

    def path(self, name: str, default: Path, *, context: bool = True) -> Path:
        """A path; the default where the field is absent."""
        return parse_path(self.take(name), self.place(name), context=context) if self.has(name) else default

    def nullable_path(self, name: str, default: Path, *, context: bool = True) -> Path | None:
        """A path, or None where the field is null; the default where it is absent."""
        if self.has(name) and self._left[name] is None:
            self.take(name)
            return None
        return self.path(name, default, context=context)

    def drop_comment(self) -> None:
        """Take the Comment, which means nothing."""
        self.take("Comment", None)

    def left(self) -> str:
        """The names that were not taken yet, for an error."""
        return ", ".join(f"'{name}'" for name in sorted(self._left))

    def done(self) -> None:
        """Refuse every field that was not taken."""
        if self._left:
            refuse(
                self.where, f"the local engine does not implement {self.left()}", "use the fields it knows"
            )
