r"""Properties files as QuestDB reads them: the format of ``java.util.Properties``.

One ``key=value``, ``key: value`` or ``key value`` a line; ``#`` and ``!`` begin a comment line; a
backslash escapes the next character (``\t``, ``\n``, ``\r``, ``\f``, ``\uXXXX``, any other stands for
itself) and, at a line's end, continues the line. Of a key that stands twice the last one counts.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BLANK = " \t\f"
_KEY = re.compile(r"(?:\\.|[^\\=:\s])*", re.DOTALL)
_SEPARATOR = re.compile(r"[ \t\f]*[=:]?[ \t\f]*")
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.|$)", re.DOTALL)
_CONTROL = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One property, and the physical lines ``first`` to ``last`` (from 0) that it stands on."""

    key: str
    value: str
    first: int
    last: int


def parse_properties(text: str) -> dict[str, str]:
    """The properties of a file's text, in the order of their first appearance."""
    return {entry.key: entry.value for entry in entries(split_lines(text))}


def split_lines(text: str) -> list[str]:
    """The lines with their endings; only CR and LF end a line, as in Java."""
    return re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$", text)


def entries(lines: list[str]) -> Iterator[Entry]:
    """Each property of the lines, with the place where it stands."""
    number = 0
    while number < len(lines):
        first, logical = number, _content(lines[number])
        if logical and logical[0] not in "#!":
            while _continues(logical) and number + 1 < len(lines):
                number += 1
                logical = logical[:-1] + _content(lines[number])
            yield _entry(logical, first, number)
        number += 1


def escape_value(value: str) -> str:
    """The value as it has to stand after ``key=`` to be read back unchanged."""
    escaped = value.replace("\\", "\\\\")
    for letter, control in _CONTROL.items():
        escaped = escaped.replace(control, f"\\{letter}")
    return "\\" + escaped if escaped.startswith(" ") else escaped


def _content(line: str) -> str:
    return line.rstrip("\r\n").lstrip(_BLANK)


def _continues(logical: str) -> bool:
    return (len(logical) - len(logical.rstrip("\\"))) % 2 == 1


def _entry(logical: str, first: int, last: int) -> Entry:
    key = _KEY.match(logical)
    end = key.end() if key else 0
    separator = _SEPARATOR.match(logical, end)
    value = logical[separator.end() if separator else end :]
    return Entry(key=_unescape(logical[:end]), value=_unescape(value), first=first, last=last)


def _unescape(text: str) -> str:
    return _ESCAPE.sub(_plain, text)


def _plain(match: re.Match[str]) -> str:
    escaped = match[1]
    if len(escaped) == 5:
        return chr(int(escaped[1:], 16))
    return _CONTROL.get(escaped, escaped)
