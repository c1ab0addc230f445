"""The text form of LVM2's metadata: nested sections of ``key = value`` (lvm.conf(5), "SYNTAX").

Values are integers, floats, quoted strings and lists of these.
"""

import re
from collections.abc import Iterator
from typing import TypeAlias

from questdb_backup.errors import DamagedVolumeError

Value: TypeAlias = int | float | str | list[int | float | str]
Section: TypeAlias = dict[str, "Value | Section"]

_DEEPEST = 16
_TOKEN = re.compile(
    r"""[ \t\r\n]* (?: \#[^\n]*
      | (?P<mark> [{}=\[\],] )
      | "(?P<text> (?: [^"\\]++ | \\. )*+ )"
      | (?P<number> [+-]?\d+(?:\.\d+)? (?![\w.+-]) )
      | (?P<word> [\w.+/@-]+ ) )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_Token: TypeAlias = tuple[str, str]


def parse_metadata(text: str) -> Section:
    """The outermost section. Raise DamagedVolumeError where the text is none of this form."""
    tokens = _tokens(text)
    outermost: Section = {}
    stack = [outermost]
    for kind, word in tokens:
        if (kind, word) == ("mark", "}") and len(stack) > 1:
            stack.pop()
        elif kind not in ("word", "number", "text"):
            raise _malformed(f"{word!r} stands where a name is due")
        else:
            _, mark = next(tokens, ("", ""))
            if mark == "=":
                stack[-1][word] = _value(tokens)
            elif mark == "{" and len(stack) < _DEEPEST:
                inner: Section = {}
                stack[-1][word] = inner
                stack.append(inner)
            else:
                raise _malformed(f"{mark!r} follows the name {word[:64]!r}")
    if len(stack) > 1:
        raise _malformed("it ends within a section")
    return outermost


def _tokens(text: str) -> Iterator[_Token]:
    text = text.rstrip(" \t\r\n\0")
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _malformed(f"no word begins at character {at}")
        at = match.end()
        if match.lastgroup is not None:
            yield match.lastgroup, match[match.lastgroup]


def _value(tokens: Iterator[_Token]) -> Value:
    token = next(tokens, ("", ""))
    if token != ("mark", "["):
        return _scalar(token)
    values: list[int | float | str] = []
    for token in tokens:
        if token == ("mark", "]"):
            return values
        if token != ("mark", ","):
            values.append(_scalar(token))
    raise _malformed("it ends within a list")


def _scalar(token: _Token) -> int | float | str:
    kind, word = token
    if kind == "text":
        return _ESCAPED.sub(r"\1", word)
    if kind == "number" and len(word) <= 20:
        return float(word) if "." in word else int(word)
    raise _malformed(f"{word[:64]!r} stands where a value is due")


def _malformed(what: str) -> DamagedVolumeError:
    return DamagedVolumeError(f"the text of the LVM metadata is malformed: {what}")
