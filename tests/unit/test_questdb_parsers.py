"""The parsers of _txn, _cv, _meta and _txnlog."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from questdb_backup.questdb.cv import ColumnVersion, parse_cv
from questdb_backup.questdb.layout import UnknownLayout
from questdb_backup.questdb.meta import parse_meta
from questdb_backup.questdb.partitions import PartitionBy
from questdb_backup.questdb.txn import parse_txn
from questdb_backup.questdb.txnlog import log_size, parse_log_header, parse_seq_txn, segments
from tests.support.questdb_files import DAY, INT, START, SYMBOL, make_cv, make_log, make_meta, make_txn

SQUASHED = 3 << 44
PARQUET = 1 << 61
MIN = -(1 << 63)


class TestTxn:
    @given(
        version=st.integers(0, 1 << 40),
        counts=st.lists(st.integers(0, 1 << 31 - 1), max_size=4),
        rows=st.lists(st.integers(1, 1 << 30), max_size=5),
        base=st.integers(64, 4096),
    )
    def test_gives_back_what_was_written_in_either_area(
        self, version: int, counts: list[int], rows: list[int], base: int
    ) -> None:
        counts = [min(count, (1 << 31) - 1) for count in counts]
        last = rows[-1] if rows else 0
        entries = [(START + DAY * n, count, n, -1) for n, count in enumerate([*rows[:-1], 0][: len(rows)])]
        txn = parse_txn(
            make_txn(
                version=version,
                transient=last,
                fixed=sum(rows) - last,
                seq_txn=6,
                symbols=counts,
                partitions=entries,
                base=base,
            ),
            partitioned=True,
        )
        assert [partition.rows for partition in txn.partitions()] == rows
        assert txn.symbol_counts == tuple(counts)
        assert (txn.rows, txn.seq_txn, txn.txn) == (sum(rows), 6, version)

    def test_the_last_partition_has_the_transient_rows_and_keeps_its_other_bits(self) -> None:
        entries = ((START, 5, -1, -1), (START + DAY, 999 | SQUASHED | PARQUET, 2, 700))
        first, last = parse_txn(
            make_txn(transient=4, fixed=5, partitions=entries), partitioned=True
        ).partitions()
        assert (first.rows, first.is_parquet) == (5, False)
        assert (last.rows, last.is_parquet, last.size_word) == (4, True, 4 | SQUASHED | PARQUET)
        assert last.last_word == 700

    def test_a_table_without_partitions_has_one_called_default(self) -> None:
        (only,) = parse_txn(make_txn(transient=4), partitioned=False).partitions()
        assert (only.timestamp, only.rows, only.name_txn) == (0, 4, -1)

    @pytest.mark.parametrize(
        "partitions",
        [
            ((START + DAY, 5, -1, -1), (START, 0, -1, -1)),
            ((START, 5, -1, -1), (START, 0, -1, -1)),
            ((START, 6, -1, -1), (START + DAY, 0, -1, -1)),
            ((START, 5, -2, -1), (START + DAY, 0, -1, -1)),
            ((START, 5 | PARQUET, -1, 0), (START + DAY, 0, -1, -1)),
            ((START, 5 | MIN, -1, -1), (START + DAY, 0, -1, -1)),
            (),
        ],
    )
    def test_partitions_that_cannot_be_are_an_unknown_layout(
        self, partitions: tuple[tuple[int, int, int, int], ...]
    ) -> None:
        with pytest.raises(UnknownLayout):
            parse_txn(make_txn(transient=4, fixed=5, partitions=partitions), partitioned=True)

    def test_entries_of_eight_longs_are_an_unknown_layout(self) -> None:
        data = make_txn(
            transient=4,
            fixed=5,
            partitions=((START, 5, -1, -1), (0, 0, 0, 0), (START + DAY, 0, -1, -1), (0, 0, 0, 0)),
        )
        with pytest.raises(UnknownLayout):
            parse_txn(data, partitioned=True)

    def test_a_file_that_ends_anywhere_early_is_an_unknown_layout(self) -> None:
        data = make_txn(
            transient=4, fixed=5, symbols=(1, 2), partitions=((START, 5, 0, 0), (START + DAY, 0, 0, 0))
        )
        parse_txn(data, partitioned=True)
        for length in range(len(data)):
            with pytest.raises(UnknownLayout):
                parse_txn(data[:length], partitioned=True)

    def test_a_version_unlike_the_txn_is_an_unknown_layout(self) -> None:
        data = bytearray(make_txn(transient=4))
        data[64:72] = struct.pack("<q", 6)
        with pytest.raises(UnknownLayout):
            parse_txn(bytes(data), partitioned=False)


class TestColumnVersions:
    def test_a_column_without_records_is_in_every_partition_from_its_first_row(self) -> None:
        assert parse_cv(make_cv()).in_partition(START).find(3) == ColumnVersion(-1, 0)

    def test_an_added_column_is_missing_in_older_partitions(self) -> None:
        versions = parse_cv(make_cv([(MIN, 3, 7, START + DAY), (START + DAY, 3, 7, 40)]))
        assert versions.in_partition(START).find(3) is None
        assert versions.in_partition(START + DAY).find(3) == ColumnVersion(7, 40)
        assert versions.in_partition(START + 2 * DAY).find(3) == ColumnVersion(7, 0)

    def test_a_record_without_a_name_takes_the_default_one(self) -> None:
        versions = parse_cv(make_cv([(MIN, 3, 7, START + DAY), (START, 3, -1, 12)]))
        assert versions.in_partition(START).find(3) == ColumnVersion(7, 12)

    def test_a_symbol_table_has_a_version_of_its_own(self) -> None:
        versions = parse_cv(make_cv([(MIN, 1, 5, MIN), (MIN, 2, 6, MIN), (MIN + 1, 2, 9, 0)]))
        assert [versions.symbol_table_name_txn(column) for column in (0, 1, 2)] == [-1, 5, 9]

    def test_either_area_gives_the_same_records(self) -> None:
        blocks = [(MIN, 1, 5, MIN), (START, 1, 6, 3)]
        even, odd = parse_cv(make_cv(blocks, version=4)), parse_cv(make_cv(blocks, version=5))
        assert even.records(START) == odd.records(START) != b""
        assert even.default_records() == odd.default_records() != b""

    @pytest.mark.parametrize(
        "blocks",
        [
            [(START, 2, 1, 0), (START, 1, 1, 0)],
            [(START, 1, 1, 0), (START, 1, 1, 0)],
            [(START, 1, -2, 0)],
            [(START, 1, 1, -1)],
        ],
    )
    def test_records_that_cannot_be_are_an_unknown_layout(
        self, blocks: list[tuple[int, int, int, int]]
    ) -> None:
        with pytest.raises(UnknownLayout):
            parse_cv(make_cv(blocks))

    def test_a_file_that_ends_anywhere_early_is_an_unknown_layout(self) -> None:
        data = make_cv([(START, 1, 1, 0)])
        for length in range(len(data)):
            if length not in range(24, 40):  # the unused area of the header may be missing
                with pytest.raises(UnknownLayout):
                    parse_cv(data[:length])


class TestMeta:
    def test_dropped_columns_are_skipped_and_keep_their_place(self) -> None:
        columns = (
            ("ts", 1 << 18 | 8, 0),
            ("a", SYMBOL, 1),
            ("a", -SYMBOL, 0),
            ("ünï.x", INT, 0),
            ("b", SYMBOL, 0),
        )
        meta = parse_meta(make_meta(columns, by=5, timestamp=0, wal=True))
        assert [(column.index, column.name) for column in meta.columns] == [
            (0, "ts"),
            (1, "a"),
            (3, "ünï.x"),
            (4, "b"),
        ]
        assert [(column.name, column.symbol_rank, column.indexed) for column in meta.symbols] == [
            ("a", 0, True),
            ("b", 1, False),
        ]
        assert (meta.nanos, meta.partition_by, meta.wal_enabled) == (True, PartitionBy.WEEK, True)
        assert (meta.table_id, meta.metadata_version) == (9, 3)

    @pytest.mark.parametrize(
        "data",
        [
            make_meta((("a", INT, 0),), version=427),
            make_meta((("a", INT, 0),), by=6),
            make_meta((("a", 99, 0),)),
            make_meta((("a/../b", INT, 0),)),
            make_meta((("", INT, 0),)),
            make_meta((("a", INT, 0), ("A", INT, 0))),
            make_meta((("a", INT, 0),), timestamp=1),
            make_meta((("a", -INT, 0), ("b", INT, 0)), timestamp=0),
            make_meta(()),
        ],
    )
    def test_what_cannot_be_is_an_unknown_layout(self, data: bytes) -> None:
        with pytest.raises(UnknownLayout):
            parse_meta(data)

    def test_a_file_that_ends_anywhere_early_is_an_unknown_layout(self) -> None:
        data = make_meta((("a", INT, 0), ("b", SYMBOL, 0)))
        parse_meta(data)
        for length in range(len(data)):
            with pytest.raises(UnknownLayout):
                parse_meta(data[:length])


class TestTxnLog:
    @given(st.lists(st.tuples(*[st.integers(1, 1 << 30)] * 3), max_size=9), st.integers(0, 9))
    def test_gives_the_segments_of_any_range_of_transactions(
        self, records: list[tuple[int, int, int]], applied: int
    ) -> None:
        data = make_log(records)
        assert parse_log_header(data).max_txn == len(records)
        assert len(data) == log_size(len(records))
        applied = min(applied, len(records))
        assert list(segments(data[log_size(applied) :])) == [record[:2] for record in records[applied:]]

    def test_changes_of_structure_have_no_segment(self) -> None:
        assert list(segments(make_log(((-1, -1, -1), (4, 0, 2), (-2, -1, -1)))[76:])) == [(4, 0)]

    @pytest.mark.parametrize("record", [(0, 0, 0), (-3, 0, 0), (1, -1, 0), (1, 0, -1)])
    def test_impossible_records_are_an_unknown_layout(self, record: tuple[int, int, int]) -> None:
        with pytest.raises(UnknownLayout):
            list(segments(make_log((record,))[76:]))

    def test_a_log_in_parts_is_an_unknown_layout(self) -> None:
        with pytest.raises(UnknownLayout):
            parse_log_header(make_log((), version=1))

    def test_the_last_transaction_is_eight_bytes(self) -> None:
        assert parse_seq_txn(struct.pack("<q", 12)) == 12
        with pytest.raises(UnknownLayout):
            parse_seq_txn(b"1234567")
