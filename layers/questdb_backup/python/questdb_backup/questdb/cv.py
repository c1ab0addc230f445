"""The checkpoint's ``_cv``: which version of a column's files a partition has, and from which row.

From QuestDB's ``core/src/main/java/io/questdb/cairo/ColumnVersionReader.java`` and, for the choice
between records, ``TableReader.java`` (``reloadColumnAt``). Blocks of four i64: partition timestamp,
column index, name txn, column top; sorted by the first two.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from questdb_backup.questdb.layout import UnknownLayout, check, unpack

_DEFAULT = -(1 << 63)
_SYMBOL_TABLE = _DEFAULT + 1
_VERSION = struct.Struct("<q")
_AREA = struct.Struct("<qq")
_AREA_A, _AREA_B = 8, 24
_HEADER_SIZE = 40
_BLOCK = struct.Struct("<4q")


class ColumnVersion(NamedTuple):
    """``name_txn``: the suffix of the files, none for -1. ``top``: the partition's rows before the column."""

    name_txn: int
    top: int


_ORIGINAL = ColumnVersion(-1, 0)
_Records = dict[int, ColumnVersion]
"""By the column's index."""


class PartitionVersions(NamedTuple):
    """The records of the partition that begins at ``timestamp``, and those that hold where it has none."""

    timestamp: int
    own: _Records
    default: _Records

    def find(self, column: int) -> ColumnVersion | None:
        """The column's version in the partition; None where the partition is older than the column."""
        default = self.default.get(column)
        record = self.own.get(column)
        if default is None:
            return record or _ORIGINAL
        if record is None:
            return None if default.top > self.timestamp else ColumnVersion(default.name_txn, 0)
        return ColumnVersion(default.name_txn, record.top) if record.name_txn == -1 else record


@dataclass(frozen=True, slots=True)
class ColumnVersions:
    """The parsed file; partitions without a record have none in ``_spans``."""

    _blocks: bytes
    _spans: dict[int, tuple[int, int]]
    _default: _Records
    _symbol_tables: _Records

    def in_partition(self, timestamp: int) -> PartitionVersions:
        """The versions of the columns in one partition."""
        return PartitionVersions(timestamp, _parsed(self.records(timestamp)), self._default)

    def symbol_table_name_txn(self, column: int) -> int:
        """The suffix of a symbol column's table files, -1 for none."""
        record = self._symbol_tables.get(column) or self._default.get(column)
        return record.name_txn if record else -1

    def records(self, timestamp: int) -> bytes:
        """The partition's blocks as they are."""
        start, end = self._spans.get(timestamp, (0, 0))
        return self._blocks[start:end]

    def default_records(self) -> bytes:
        """The blocks that hold for partitions without one."""
        return self.records(_DEFAULT)


def parse_cv(data: bytes) -> ColumnVersions:
    """Parse a ``_cv`` file. Raise UnknownLayout where its lengths or its order are not this layout's."""
    (version,) = unpack(_VERSION, data, 0, "_cv")
    offset, size = unpack(_AREA, data, _AREA_B if version & 1 else _AREA_A, "_cv")
    check(size >= 0 and size % _BLOCK.size == 0, f"_cv: an area of {size} bytes")
    check(size == 0 or _HEADER_SIZE <= offset <= len(data) - size, f"_cv: an area at {offset} of {len(data)}")
    blocks = data[offset : offset + size] if size else b""
    spans = _spans(blocks)
    default, symbol_tables = (
        _parsed(blocks[slice(*spans.get(which, (0, 0)))]) for which in (_DEFAULT, _SYMBOL_TABLE)
    )
    return ColumnVersions(blocks, spans, default, symbol_tables)


def _parsed(blocks: bytes) -> _Records:
    return {index: ColumnVersion(name_txn, top) for _, index, name_txn, top in _BLOCK.iter_unpack(blocks)}


def _spans(blocks: bytes) -> dict[int, tuple[int, int]]:
    starts: dict[int, int] = {}
    previous = (_DEFAULT, -1)
    for number, (timestamp, column, name_txn, top) in enumerate(_BLOCK.iter_unpack(blocks)):
        if previous >= (timestamp, column):
            raise UnknownLayout(f"_cv: block {number} is out of order")
        if name_txn < -1 or (top < 0 and timestamp > _SYMBOL_TABLE):
            raise UnknownLayout(f"_cv: block {number} has the name txn {name_txn} and the top {top}")
        previous = (timestamp, column)
        starts.setdefault(timestamp, number * _BLOCK.size)
    ends = [*starts.values(), len(blocks)][1:]
    return {timestamp: (start, end) for (timestamp, start), end in zip(starts.items(), ends, strict=True)}
