"""What the parsers of QuestDB's files share: the error for an unknown layout, and checked reads."""

import struct
from typing import Any


class UnknownLayout(Exception):
    """The bytes are not of a layout that the parser knows; the table is copied whole, never guessed at."""


def unpack(form: struct.Struct, data: bytes, offset: int, what: str) -> tuple[Any, ...]:
    """Unpack at ``offset``. Raise UnknownLayout, naming ``what``, where the bytes end first."""
    if offset < 0 or offset + form.size > len(data):
        raise UnknownLayout(f"{what} needs {form.size} bytes at {offset} of {len(data)}")
    return form.unpack_from(data, offset)


def check(condition: bool, fact: str) -> None:
    """Raise UnknownLayout with the fact unless the condition holds."""
    if not condition:
        raise UnknownLayout(fact)


def read_string(data: bytes, offset: int, what: str) -> tuple[str, int]:
    """A QuestDB string, a length in UTF-16 units (i32) before its UTF-16LE text, and the offset behind it."""
    (length,) = unpack(_I32, data, offset, what)
    end = offset + 4 + 2 * length
    check(0 <= length <= 1 << 20 and end <= len(data), f"{what} has a length of {length} at {offset}")
    try:
        return data[offset + 4 : end].decode("utf-16-le"), end
    except UnicodeDecodeError as error:
        raise UnknownLayout(f"{what} is not UTF-16: {error}") from error


_I32 = struct.Struct("<i")
