"""The checkpoint's ``_txn``: row counts, versions and the table of partitions.

Offsets from QuestDB's ``core/src/main/java/io/questdb/cairo/TxReader.java`` and ``TableUtils.java``
(``TX_BASE_OFFSET_*``, ``TX_OFFSET_*``; 8.1.4 to 9.3.4). Little endian. Read only the copy in
``.checkpoint``: the live file changes in place.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from questdb_backup.questdb.layout import UnknownLayout, check, unpack

ROWS_MASK = (1 << 44) - 1
_PARQUET = 1 << 61
_VERSION = struct.Struct("<q")
_AREA = struct.Struct("<iii")
_AREA_A, _AREA_B = 8, 32
_RECORD = struct.Struct("<11q3i2q")
_RECORD_SIZE = 132
_SYMBOL = struct.Struct("<ii")
_COUNT = struct.Struct("<i")
_ENTRY = struct.Struct("<4q")


@dataclass(frozen=True, slots=True)
class Partition:
    """An entry of the table of partitions.

    ``size_word``: rows in bits 0-43, the squash counter (9.3.4) in bits 44-59, flags above it.
    ``last_word``: the file's size for parquet.
    """

    timestamp: int
    size_word: int
    name_txn: int
    last_word: int

    @property
    def rows(self) -> int:
        """Committed rows."""
        return self.size_word & ROWS_MASK

    @property
    def is_parquet(self) -> bool:
        """Whether the rows are in ``data.parquet``."""
        return bool(self.size_word & _PARQUET)


@dataclass(frozen=True, slots=True)
class Txn:
    """The committed state of a table; ``symbol_counts`` in the order of the live symbol columns."""

    txn: int
    transient_rows: int
    fixed_rows: int
    structure_version: int
    column_version: int
    truncate_version: int
    seq_txn: int
    symbol_counts: tuple[int, ...]
    _entries: bytes
    _partitioned: bool

    @property
    def rows(self) -> int:
        """Committed rows of the table."""
        return self.fixed_rows + self.transient_rows

    @property
    def last_timestamp(self) -> int:
        """The start of the last partition, 0 without one."""
        at = len(self._entries) - _ENTRY.size
        return int(_ENTRY.unpack_from(self._entries, at)[0]) if self._partitioned and at >= 0 else 0

    def partitions(self) -> Iterator[Partition]:
        """The partitions in time order, one at a time.

        The last one's rows are the transient rows, its other bits stay. A table without partitions
        has one, ``default``.
        """
        if not self._partitioned:
            yield Partition(0, self.transient_rows, -1, -1)
            return
        last = len(self._entries) - _ENTRY.size
        for offset in range(0, len(self._entries), _ENTRY.size):
            partition = Partition(*_ENTRY.unpack_from(self._entries, offset))
            if offset == last:
                word = partition.size_word & ~ROWS_MASK | self.transient_rows
                partition = Partition(partition.timestamp, word, partition.name_txn, partition.last_word)
            yield partition


def parse_txn(data: bytes, *, partitioned: bool) -> Txn:
    """Parse a ``_txn`` file.

    Raise UnknownLayout where a length, the order of the partitions, or the sum of their rows is not
    what this layout has: an entry of another stride then never passes for one of this.
    """
    (version,) = unpack(_VERSION, data, 0, "_txn")
    base, symbols_size, partitions_size = unpack(_AREA, data, _AREA_B if version & 1 else _AREA_A, "_txn")
    check(base >= 64 and symbols_size >= 0 and symbols_size % 8 == 0, f"_txn: area {base}, {symbols_size}")
    check(partitions_size >= 0 and partitions_size % _ENTRY.size == 0, f"_txn: partitions {partitions_size}")
    record = unpack(_RECORD, data, base, "_txn")
    txn, transient, fixed, _, _, structure, _, _, column, truncate, seq_txn = record[:11]
    check(txn == version, f"_txn: version {version} with txn {txn}")
    check(0 <= transient <= ROWS_MASK and fixed >= 0, f"_txn: {fixed} + {transient} rows")
    counts = _symbol_counts(data, base + _RECORD_SIZE, symbols_size)
    start = base + _RECORD_SIZE + symbols_size + 4
    entries = data[start : start + partitions_size]
    check(len(entries) == partitions_size, "_txn ends within its partitions")
    parsed = Txn(txn, transient, fixed, structure, column, truncate, seq_txn, counts, entries, partitioned)
    if partitioned:
        (stored,) = unpack(_COUNT, data, start - 4, "_txn")
        check(stored == partitions_size, f"_txn: partitions of {stored} and {partitions_size} bytes")
        _check_partitions(parsed)
    return parsed


def _symbol_counts(data: bytes, start: int, size: int) -> tuple[int, ...]:
    counts = tuple(unpack(_SYMBOL, data, start + at, "_txn")[0] for at in range(0, size, _SYMBOL.size))
    check(all(count >= 0 for count in counts), "_txn: a negative symbol count")
    return counts


def _check_partitions(txn: Txn) -> None:
    previous, rows, count = -(1 << 63), 0, 0  # a week of 1970 starts before it
    for partition in txn.partitions():
        if partition.timestamp <= previous:
            raise UnknownLayout(f"_txn: partition {partition.timestamp} after {previous}")
        if partition.size_word < 0 or partition.name_txn < -1:
            raise UnknownLayout(f"_txn: partition {partition}")
        if partition.is_parquet and not 0 < partition.last_word < 1 << 44:
            raise UnknownLayout(f"_txn: parquet {partition}")
        previous, rows, count = partition.timestamp, rows + partition.rows, count + 1
    check(rows == txn.rows, f"_txn: {rows} rows in {count} partitions, {txn.rows} in the table")
