"""The checkpoint's ``_meta``: a table's columns and how it is partitioned.

Offsets from QuestDB's ``core/src/main/java/io/questdb/cairo/TableUtils.java`` (``META_OFFSET_*``,
``META_COLUMN_DATA_SIZE``, ``buildColumnListFromMetadataFile``; version 426, 8.1.4 to 9.3.4).
"""

import struct
from dataclasses import dataclass

from questdb_backup.questdb.column_types import TIMESTAMP_NS, ColumnType, column_type
from questdb_backup.questdb.layout import UnknownLayout, check, read_string, unpack
from questdb_backup.questdb.partitions import PartitionBy

_HEADER = struct.Struct("<6i2q?")
_COLUMN = struct.Struct("<iqi")
_COLUMNS_AT = 128
_COLUMN_SIZE = 32
_KNOWN_VERSION = 426
_INDEXED = 1
_MOST_COLUMNS = 1 << 17


@dataclass(frozen=True, slots=True)
class Column:
    """A live column. ``index`` is its place in the file, which ``_cv`` refers to; dropped ones keep theirs.

    ``symbol_rank`` counts the live symbol columns: the place of its count in ``_txn``; -1 for others.
    """

    index: int
    name: str
    type: ColumnType
    indexed: bool
    symbol_rank: int = -1


@dataclass(frozen=True, slots=True)
class TableMeta:
    """``columns`` are the live ones, in file order; ``nanos`` is the unit of the designated timestamp."""

    table_id: int
    partition_by: PartitionBy
    metadata_version: int
    wal_enabled: bool
    nanos: bool
    columns: tuple[Column, ...]

    @property
    def symbols(self) -> tuple[Column, ...]:
        """The live symbol columns, by rank."""
        return tuple(column for column in self.columns if column.type.is_symbol)


def parse_meta(data: bytes) -> TableMeta:
    """Parse a ``_meta`` file. Raise UnknownLayout for another version, an unknown type, an odd name."""
    count, by, timestamp, version, table_id, _, _, metadata_version, wal = unpack(_HEADER, data, 0, "_meta")
    check(version == _KNOWN_VERSION, f"_meta: version {version}")
    check(0 < count <= _MOST_COLUMNS and -1 <= timestamp < count, f"_meta: {count} columns, {timestamp}")
    columns = _columns(data, count)
    stamps = [column for column in columns if column.index == timestamp]
    check(bool(stamps) or timestamp == -1, f"_meta: column {timestamp} is no timestamp")
    try:
        partition_by = PartitionBy(by)
    except ValueError as error:
        raise UnknownLayout(f"_meta: partitions by {by}") from error
    nanos = bool(stamps) and stamps[0].type.code == TIMESTAMP_NS
    return TableMeta(table_id, partition_by, metadata_version, wal, nanos, columns)


def _columns(data: bytes, count: int) -> tuple[Column, ...]:
    columns: list[Column] = []
    names: set[str] = set()
    symbols = 0
    name_at = _COLUMNS_AT + count * _COLUMN_SIZE
    for index in range(count):
        name, name_at = read_string(data, name_at, "_meta: a column name")
        code, flags, _ = unpack(_COLUMN, data, _COLUMNS_AT + index * _COLUMN_SIZE, "_meta")
        if code < 0:
            continue
        check(0 < len(name) <= 255 and not {"/", "\0"} & set(name), f"_meta: the name {name!r}")
        check(name.lower() not in names, f"_meta: two columns {name!r}")
        names.add(name.lower())
        kind = column_type(code)
        columns.append(Column(index, name, kind, bool(flags & _INDEXED), symbols if kind.is_symbol else -1))
        symbols += kind.is_symbol
    return tuple(columns)
