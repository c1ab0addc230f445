"""QuestDB's column types: the code in ``_meta`` and how a column of it lies on disk.

The low byte of the code is the tag; the bits above it hold what some types need: a geohash's bits, a
decimal's precision and scale, an array's element and dimensions, a timestamp's unit. The numbers come
from QuestDB's ``core/src/main/java/io/questdb/cairo/ColumnType.java`` (9.3.4; the tags that can be
stored are the same since 8.1), the lengths of variable-size columns from ``StringTypeDriver``,
``BinaryTypeDriver``, ``VarcharTypeDriver`` and ``arr/ArrayTypeDriver`` beside it.
"""

import struct
from dataclasses import dataclass
from enum import StrEnum

from questdb_backup.questdb.layout import UnknownLayout, check

SYMBOL = 12
TIMESTAMP_NS = 1 << 18 | 8

_ARRAY = 27
_DESIGNATED = 1 << 17
_OFFSET_48 = (1 << 48) - 1
_VARCHAR_LENGTH = (1 << 28) - 1
_LONGEST_VECTOR = 1 << 40
"""QuestDB takes a longer data vector for damage too."""


class Storage(StrEnum):
    """How a column lies on disk: one ``.d`` file, or ``.d`` with an index ``.i`` beside it."""

    FIXED = "fixed"
    STRING = "string"
    """``.i`` has n + 1 offsets of 8 bytes; the last one is the length of ``.d`` (STRING, BINARY)."""
    VARCHAR = "varchar"
    """``.i`` has n entries of 16 bytes, short text within them."""
    ARRAY = "array"
    """``.i`` has n entries of 16 bytes: offset (48 bits), length in bytes."""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """``name`` in lower case; ``width`` is bytes of a row in ``.d``, 0 for a variable size."""

    code: int
    name: str
    storage: Storage
    width: int

    @property
    def is_symbol(self) -> bool:
        """Whether ``.d`` holds keys of a symbol table."""
        return self.code == SYMBOL

    def aux_size(self, rows: int) -> int:
        """The bytes of ``.i`` that so many rows need; 0 for a fixed width."""
        if self.storage is Storage.FIXED:
            return 0
        return 8 * (rows + 1) if self.storage is Storage.STRING else 16 * rows

    def last_aux(self, rows: int) -> tuple[int, int]:
        """Offset and length of the entry of ``.i`` that tells the length of ``.d``; ``rows`` > 0."""
        return (8 * rows, 8) if self.storage is Storage.STRING else (16 * (rows - 1), 16)

    def data_size(self, rows: int, last_aux: bytes = b"") -> int:
        """The bytes of ``.d`` that so many rows need; ``last_aux`` as `last_aux` says, where rows > 0.

        Raise ValueError where the entry cannot be one (zeros where the file was never written).
        """
        if self.storage is Storage.FIXED:
            return self.width * rows
        if rows == 0:
            return 0
        size = _DATA_SIZES[self.storage](last_aux)
        least = 4 * rows if self.storage is Storage.STRING else 0
        if not least <= size <= _LONGEST_VECTOR:
            raise ValueError(f"a data length of {size} for {rows} rows")
        return size


def _string_size(entry: bytes) -> int:
    (end,) = struct.unpack("<q", entry)
    return int(end)


def _varchar_size(entry: bytes) -> int:
    header, offset = struct.unpack("<I4xQ", entry)
    if header == 0:
        raise ValueError("an empty entry")
    short = header & 0b101  # null, or held within the entry
    return int(offset >> 16) + (0 if short else (header >> 4) & _VARCHAR_LENGTH)


def _array_size(entry: bytes) -> int:
    offset, size = struct.unpack("<Qi4x", entry)
    return int(offset & _OFFSET_48) + int(size)


_DATA_SIZES = {
    Storage.STRING: _string_size,
    Storage.VARCHAR: _varchar_size,
    Storage.ARRAY: _array_size,
}

_PLAIN = {
    1: ("boolean", 1),
    2: ("byte", 1),
    3: ("short", 2),
    4: ("char", 2),
    5: ("int", 4),
    6: ("long", 8),
    7: ("date", 8),
    8: ("timestamp", 8),
    9: ("float", 4),
    10: ("double", 8),
    SYMBOL: ("symbol", 4),
    13: ("long256", 32),
    19: ("uuid", 16),
    24: ("long128", 16),
    25: ("ipv4", 4),
}
_GEOHASHES = {14: ("geobyte", 1), 15: ("geoshort", 2), 16: ("geoint", 4), 17: ("geolong", 8)}
_DECIMALS = {
    28: ("decimal8", 1),
    29: ("decimal16", 2),
    30: ("decimal32", 4),
    31: ("decimal64", 8),
    32: ("decimal128", 16),
    33: ("decimal256", 32),
}
_VARIABLE = {
    11: ("string", Storage.STRING),
    18: ("binary", Storage.STRING),
    26: ("varchar", Storage.VARCHAR),
}

WIDTHS = dict((*_PLAIN.values(), *_GEOHASHES.values(), *_DECIMALS.values(), ("timestamp_ns", 8)))
"""Bytes of a row by the type's name, of the types with a fixed width."""


def column_type(code: int) -> ColumnType:
    """The type of a code in ``_meta``.

    Geohashes and decimals are named after what stores them (``geoint``, ``decimal64``), arrays after
    their element (``double[]``). Raise UnknownLayout for a code that no known version stores.
    """
    tag, extra = code & 0xFF, code & ~0xFF
    if code == TIMESTAMP_NS or code == TIMESTAMP_NS | _DESIGNATED:
        return ColumnType(TIMESTAMP_NS, "timestamp_ns", Storage.FIXED, 8)
    if code == 8 | _DESIGNATED:
        return column_type(8)
    if tag in _PLAIN and not extra:
        name, width = _PLAIN[tag]
        return ColumnType(code, name, Storage.FIXED, width)
    if tag in _VARIABLE and not extra:
        name, storage = _VARIABLE[tag]
        return ColumnType(code, name, storage, 0)
    return _parametric_type(code, tag)


def _parametric_type(code: int, tag: int) -> ColumnType:
    if tag in _GEOHASHES and code > 0:
        name, width = _GEOHASHES[tag]
        bits = code >> 8 & 0xFF
        # One bit of the storage is kept for null.
        check(8 * width // 2 <= bits < 8 * width if width > 1 else 1 <= bits <= 7, f"geohash of {bits} bits")
        return ColumnType(code, name, Storage.FIXED, width)
    if tag in _DECIMALS and 0 < code < 1 << 24:
        name, width = _DECIMALS[tag]
        return ColumnType(code, name, Storage.FIXED, width)
    if tag == _ARRAY and 0 < code < 1 << 19:
        element = _PLAIN.get(code >> 8 & 0x3F, ("undefined", 0))[0]
        return ColumnType(code, f"{element}[]", Storage.ARRAY, 0)
    raise UnknownLayout(f"column type {code}")
