"""The checkpoint's ``_cv``: which version of a column's files a partition has, and from which row.

From QuestDB's ``core/src/main/java/io/questdb/cairo/ColumnVersionReader.java`` and, for the choice
between records, ``TableReader.java`` (``reloadColumnAt``). Blocks of four i64: partition timestamp,
column index, name txn, column top; sorted by the first two.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from questdb_backup.questdb.layout import check, unpack

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


@dataclass(frozen=True, slots=True)
class ColumnVersions:
    """The parsed file; partitions without a record have none in ``_spans``."""

    _blocks: bytes
    _spans: dict[int, tuple[int, int]]

    def find(self, timestamp: int, column: int) -> ColumnVersion | None:
        """The column's version in the partition; None where the partition is older than the column."""
        default = self._record(_DEFAULT, column)
        record = self._record(timestamp, column)
        if record is None:
            if default is not None and default.top > timestamp:
                return None
            return ColumnVersion(default.name_txn if default else -1, 0)
        if record.name_txn == -1 and default is not None:
            return ColumnVersion(default.name_txn, record.top)
        return record

    def symbol_table_name_txn(self, column: int) -> int:
        """The suffix of a symbol column's table files, -1 for none."""
        record = self._record(_SYMBOL_TABLE, column) or self._record(_DEFAULT, column)
        return record.name_txn if record else -1

    def records(self, timestamp: int) -> bytes:
        """The partition's blocks as they are."""
        start, end = self._spans.get(timestamp, (0, 0))
        return self._blocks[start:end]

    def default_records(self) -> bytes:
        """The blocks that hold for partitions without one."""
        return self.records(_DEFAULT)

    def _record(self, timestamp: int, column: int) -> ColumnVersion | None:
        start, end = self._spans.get(timestamp, (0, 0))
        for offset in range(start, end, _BLOCK.size):
            _, index, name_txn, top = _BLOCK.unpack_from(self._blocks, offset)
            if index == column:
                return ColumnVersion(name_txn, top)
        return None


def parse_cv(data: bytes) -> ColumnVersions:
    """Parse a ``_cv`` file. Raise UnknownLayout where its lengths or its order are not this layout's."""
    (version,) = unpack(_VERSION, data, 0, "_cv")
    offset, size = unpack(_AREA, data, _AREA_B if version & 1 else _AREA_A, "_cv")
    check(size >= 0 and size % _BLOCK.size == 0, f"_cv: an area of {size} bytes")
    check(size == 0 or _HEADER_SIZE <= offset <= len(data) - size, f"_cv: an area at {offset} of {len(data)}")
    blocks = data[offset : offset + size] if size else b""
    return ColumnVersions(blocks, _spans(blocks))


def _spans(blocks: bytes) -> dict[int, tuple[int, int]]:
    spans: dict[int, tuple[int, int]] = {}
    previous = (_DEFAULT, -1)
    for number, (timestamp, column, name_txn, top) in enumerate(_BLOCK.iter_unpack(blocks)):
        check(previous < (timestamp, column), f"_cv: block {number} is out of order")
        check(name_txn >= -1, f"_cv: block {number} has the name txn {name_txn}")
        check(top >= 0 or timestamp <= _SYMBOL_TABLE, f"_cv: block {number} has the top {top}")
        previous = (timestamp, column)
        start, _ = spans.get(timestamp, (number * _BLOCK.size, 0))
        spans[timestamp] = (start, (number + 1) * _BLOCK.size)
    return spans
