"""The plan of a small root made by hand: every rule of what is listed, and every error."""

import shutil
import struct
from pathlib import Path

import pytest

from questdb_backup.errors import SourceFileError
from questdb_backup.source import wal
from questdb_backup.source.base import PlannedFile, PlannedGroup, PlannedTable
from questdb_backup.source.path import CheckpointSource, LocalTree
from questdb_backup.source.state import load_table
from questdb_backup.source.tables import TablePlanner
from tests.support.planned import planned_groups
from tests.support.questdb_files import DAY, INT, START, OneTable, make_cv, make_log, make_meta, make_txn

LIVE, SAVED = "db/t~9", ".checkpoint/db/t~9"
VERSION = "9.3.4"


@pytest.fixture
def table(tmp_path: Path) -> OneTable:
    return OneTable(tmp_path / "root").write()


def source(
    table: OneTable, version: str | None = VERSION, lists_indexes: bool | None = None
) -> CheckpointSource:
    return CheckpointSource(LocalTree(table.root), server_version=version, lists_indexes=lists_indexes)


def groups(table: OneTable, version: str | None = VERSION) -> list[PlannedGroup]:
    return list(planned_groups(source(table, version)))


def planned(table: OneTable, version: str | None = VERSION) -> dict[str, PlannedFile]:
    return {file.path: file for group in groups(table, version) for file in group.files}


def the_table(table: OneTable) -> PlannedTable:
    (found,) = source(table).tables()
    return found


def test_a_table_comes_before_its_partitions_and_the_root_comes_last(table: OneTable) -> None:
    assert [(group.table, group.partition) for group in groups(table)] == [
        ("t~9", ""),
        ("t~9", f"{START + (1 << 63):020d}"),
        ("t~9", f"{START + DAY + (1 << 63):020d}"),
        ("", ""),
    ]


def test_columns_have_the_lengths_that_their_rows_need(table: OneTable) -> None:
    files = planned(table)
    found = {path.rpartition("/")[2]: file for path, file in files.items() if "/2024-01-02.5/" in path}
    assert {name: (file.size, file.column_type) for name, file in found.items()} == {
        "ts.d": (16, "timestamp"),
        "n.d": (8, "int"),
        "s.d": (8, "symbol"),
        "text.d": (16, "string"),
        "text.i": (24, "aux"),
        "v.d": (40, "varchar"),
        "v.i": (32, "aux"),
    }
    assert all(file.exact for file in found.values())


def test_symbols_need_a_header_and_the_texts_that_are_counted(table: OneTable) -> None:
    files = planned(table)
    assert (files[f"{LIVE}/s.o"].size, files[f"{LIVE}/s.c"].size) == (64, 14)
    assert f"{LIVE}/s.k" not in files


def test_a_torn_offset_takes_the_texts_whole(table: OneTable) -> None:
    table.put(f"{LIVE}/s.o", bytes(64) + struct.pack("<3q", 0, 6, 15))
    file = planned(table)[f"{LIVE}/s.c"]
    assert (file.size, file.exact, file.required) == (114, False, True)


@pytest.mark.parametrize("at_once", [1, 1 << 18])
def test_only_what_is_pending_of_the_wal_is_listed(
    table: OneTable, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal, "_RECORDS_AT_ONCE", at_once)
    files = planned(table)
    assert [path for path in files if "/wal" in path] == [
        f"{LIVE}/wal2",
        f"{LIVE}/wal2/7",
        f"{LIVE}/wal2/7/_event",
    ]
    assert files[f"{LIVE}/txn_seq/_txnlog"].size == 76 + 2 * 28
    assert files[f"{LIVE}/txn_seq/_txnlog"].exact
    assert f"{LIVE}/txn_seq/_meta" not in files


def test_every_wal_is_listed_where_the_log_is_not_known(table: OneTable) -> None:
    table.put(f"{LIVE}/txn_seq/_txnlog", make_log(((1, 0, 0), (2, 7, 0)), version=1))
    files = planned(table)
    assert {path for path in files if path.endswith("_event")} == {
        f"{LIVE}/wal1/0/_event",
        f"{LIVE}/wal2/7/_event",
        f"{LIVE}/wal2/8/_event",
    }
    assert the_table(table).txnlog_record is None


def test_every_wal_is_listed_where_a_materialized_view_reads_the_table(table: OneTable) -> None:
    view = ".checkpoint/db/mv~10"
    for name in ("_meta", "_txn", "_cv", "txn_seq/_meta", "txn_seq/_txn"):
        table.put(f"{view}/{name}", table.files[f"{SAVED}/{name}"])
    table.put(f"{view}/_mv", b"\1\0\0\0" + "t".encode("utf-16-le"))
    shutil.copytree(table.root / LIVE, table.root / "db" / "mv~10")
    files = planned(table)
    assert not files[f"{LIVE}/wal1/0/_event"].required
    assert files[f"{LIVE}/wal2/7/_event"].required
    assert [found.kind for found in source(table).tables()] == ["mat view", "wal"]


def test_the_root_keeps_configuration_and_identity_and_nothing_else(table: OneTable) -> None:
    root = groups(table)[-1]
    assert [file.path for file in root.files] == [
        ".checkpoint",
        ".checkpoint/db",
        ".checkpoint/db/_checkpoint_meta.d",
        ".checkpoint/db/tables.d.0",
        "conf",
        "conf/server.conf",
        "db",
        "db/.data_id",
        "db/_tab_index.d",
    ]


def test_what_the_checkpoint_does_not_refer_to_is_left_out(table: OneTable) -> None:
    files = planned(table)
    for path in (f"{LIVE}/2024-01-05", f"{LIVE}/_txn", f"{LIVE}/_todo_", "db/tables.d.0", "log", "import"):
        assert path not in files
    assert f"{LIVE}.lock" in files


def test_a_table_is_described_with_its_proof_of_descent(table: OneTable) -> None:
    record = table.files[f"{LIVE}/txn_seq/_txnlog"][76 + 28 : 76 + 56].hex()
    assert the_table(table) == PlannedTable(
        table="t~9", name="t", kind="wal", last_txn=2, txnlog_record=record, rows=5
    )


def test_index_files_are_listed_for_servers_that_cannot_make_them_anew(table: OneTable) -> None:
    for version in ("9.1.0", None):
        files = planned(table, version)
        assert files[f"{LIVE}/s.k"].required
        index = files[f"{LIVE}/2024-01-01/s.v"]
        assert (index.size, index.exact, index.required) == (96, False, True)
    assert not [path for path in planned(table) if path.endswith((".k", ".v"))]
    assert [
        path
        for group in planned_groups(source(table, lists_indexes=True))
        for path in [file.path for file in group.files]
        if path.endswith("2024-01-01/s.k")
    ]


class TestSignature:
    def test_only_partitions_of_a_server_that_counts_squashes_have_one(self, table: OneTable) -> None:
        signed = [group.signature is not None for group in groups(table)]
        assert signed == [False, True, True, False]
        for version in ("9.3.0", "9.1.0", None):
            assert {group.signature for group in groups(table, version)} == {None}

    @pytest.mark.parametrize(
        ("transient", "fixed", "entries", "changed"),
        [
            (2, 3, ((START, 3, -1, -1), (START + DAY, 0, 5, -1)), (False, False)),
            (2, 3, ((START, 3, -1, -1), (START + DAY, 1, 5, -1)), (False, False)),
            (1, 3, ((START, 3, -1, -1), (START + DAY, 0, 5, -1)), (False, True)),
            (2, 3, ((START, 3, -1, -1), (START + DAY, 1 << 44, 5, -1)), (False, True)),
            (2, 3, ((START, 3 | 1 << 44, -1, -1), (START + DAY, 0, 5, -1)), (True, False)),
            (2, 3, ((START, 3, -1, 77), (START + DAY, 0, 5, -1)), (True, False)),
            (2, 2, ((START, 2, -1, -1), (START + DAY, 0, 5, -1)), (True, False)),
        ],
    )
    def test_any_bit_of_an_entry_but_the_stale_rows_of_the_last_counts(
        self,
        table: OneTable,
        transient: int,
        fixed: int,
        entries: tuple[tuple[int, int, int, int], ...],
        changed: tuple[bool, bool],
    ) -> None:
        before = [group.signature for group in groups(table)[1:3]]
        txn = make_txn(transient=transient, fixed=fixed, seq_txn=1, symbols=(2,), partitions=entries)
        table.put(f"{SAVED}/_txn", txn)
        after = [group.signature for group in groups(table)[1:3]]
        assert tuple(one != other for one, other in zip(before, after, strict=True)) == changed

    def test_a_column_version_counts_for_its_partition_only(self, table: OneTable) -> None:
        before = [group.signature for group in groups(table)[1:3]]
        table.put(f"{SAVED}/_cv", make_cv([(START, 1, 8, 0)]))
        (table.root / LIVE / "2024-01-01" / "n.d").rename(table.root / LIVE / "2024-01-01" / "n.d.8")
        after = [group.signature for group in groups(table)[1:3]]
        assert [one == other for one, other in zip(before, after, strict=True)] == [False, True]

    def test_a_partition_behind_a_symlink_has_none(self, table: OneTable) -> None:
        partition = table.root / LIVE / "2024-01-01"
        away = partition.rename(table.root.parent / "away")
        partition.symlink_to(away)
        found = groups(table)[1]
        assert (found.signature, found.files[0].link) == (None, str(away))
        assert groups(table)[2].signature is not None


class TestColumns:
    def test_an_added_column_needs_rows_from_its_top_and_none_before(self, table: OneTable) -> None:
        minimum = -(1 << 63)
        table.put(f"{SAVED}/_cv", make_cv([(minimum, 1, 4, START + DAY), (START + DAY, 1, 4, 1)]))
        table.put(f"{LIVE}/2024-01-02.5/n.d.4", bytes(4))
        files = planned(table)
        assert files[f"{LIVE}/2024-01-02.5/n.d.4"].size == 4
        assert f"{LIVE}/2024-01-01/n.d" not in files

    def test_a_column_without_rows_may_lack_its_files(self, table: OneTable) -> None:
        table.put(f"{SAVED}/_cv", make_cv([(START + DAY, 3, 4, 2)]))
        assert not [path for path in planned(table) if "2024-01-02.5/text" in path]
        table.put(f"{LIVE}/2024-01-02.5/text.d.4", bytes(64))
        table.put(f"{LIVE}/2024-01-02.5/text.i.4", bytes(64))
        files = planned(table)
        sizes = [files[f"{LIVE}/2024-01-02.5/text.{kind}.4"].size for kind in "di"]
        assert sizes == [0, 8]
        assert not files[f"{LIVE}/2024-01-02.5/text.d.4"].exact

    def test_a_parquet_partition_has_its_committed_size_and_its_indexes(self, table: OneTable) -> None:
        parquet = (START, 3 | 1 << 61, 2, 50)
        txn = make_txn(
            transient=2, fixed=3, seq_txn=1, symbols=(2,), partitions=(parquet, (START + DAY, 0, 5, -1))
        )
        table.put(f"{SAVED}/_txn", txn)
        table.put(f"{LIVE}/2024-01-01.2/data.parquet", bytes(60))
        table.put(f"{LIVE}/2024-01-01.2/s.k", bytes(9))
        found = groups(table)[1].files
        assert [(file.path.rpartition("/")[2], file.size, file.exact) for file in found[1:]] == [
            ("data.parquet", 50, True),
            ("s.k", 9, False),
        ]
        table.put(f"{LIVE}/2024-01-01.2/data.parquet", bytes(49))
        with pytest.raises(SourceFileError, match="49 bytes, the checkpoint needs 50"):
            groups(table)

    def test_an_offset_that_was_never_written_fails(self, table: OneTable) -> None:
        table.put(f"{LIVE}/2024-01-01/v.i", bytes(200))
        with pytest.raises(SourceFileError, match=r"2024-01-01/v\.i gives an empty entry"):
            groups(table)


def test_every_exact_file_that_is_one_byte_short_or_missing_fails_the_plan(table: OneTable) -> None:
    exact = [file for file in planned(table).values() if file.exact and file.size]
    assert len(exact) > 20
    for file in exact:
        if file.path.startswith(".checkpoint"):
            continue
        path = table.root / file.path
        whole = path.read_bytes()
        path.write_bytes(whole[: file.size - 1])
        with pytest.raises(SourceFileError) as caught:
            groups(table)
        assert file.path in caught.value.fact
        path.unlink()
        with pytest.raises(SourceFileError) as caught:
            groups(table)
        assert file.path in caught.value.fact
        assert "missing" in caught.value.fact
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "path", [LIVE, f"{LIVE}/2024-01-01", f"{LIVE}/wal2/7", f"{LIVE}/txn_seq", ".checkpoint/db"]
)
def test_a_missing_directory_fails_the_plan(table: OneTable, path: str) -> None:
    shutil.rmtree(table.root / path)
    with pytest.raises(SourceFileError, match="missing"):
        groups(table)


class TestUnknownLayout:
    @pytest.fixture
    def unknown(self, table: OneTable) -> OneTable:
        table.put(f"{SAVED}/_meta", make_meta(table.columns, version=427, timestamp=0, wal=True))
        table.put(f"{LIVE}/_txn_scoreboard", bytes(10))
        table.put(f"{LIVE}/wal2/wal.lock", b"")
        return table

    def test_the_table_is_copied_whole_and_never_counts_as_unchanged(self, unknown: OneTable) -> None:
        own, _ = groups(unknown)
        assert own.signature is None
        files = {file.path: file for file in own.files}
        on_disk = {path for path in unknown.files if path.startswith((LIVE + "/", SAVED + "/"))}
        assert on_disk <= files.keys()
        assert f"{LIVE}/_txn_scoreboard" not in files
        assert f"{LIVE}/wal2/wal.lock" not in files
        live = files[f"{LIVE}/2024-01-01/n.d"]
        assert (live.exact, live.required, live.size) == (False, False, 76)
        assert files[f"{SAVED}/_txn"].exact
        assert [file.path for file in own.files].count(LIVE) == 1

    def test_it_is_described_as_unknown(self, unknown: OneTable) -> None:
        assert the_table(unknown) == PlannedTable(table="t~9", name="t", kind="unknown", last_txn=2)

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            (
                "_txn",
                make_txn(
                    transient=2,
                    fixed=99,
                    symbols=(2,),
                    partitions=((START, 3, -1, -1), (START + DAY, 0, 5, -1)),
                ),
            ),
            ("_txn", make_txn(transient=2, symbols=(2, 3), partitions=((START, 0, -1, -1),))),
            ("_txn", b"short"),
            ("_cv", b"short"),
            ("_lv", b"a live view"),
            ("_meta", make_meta((("ts", 99, 0),), timestamp=0, wal=True)),
            ("_meta", make_meta((("n", INT, 0),), wal=False)),
        ],
    )
    def test_any_file_that_does_not_parse_makes_the_table_unknown(
        self, table: OneTable, name: str, data: bytes
    ) -> None:
        table.put(f"{SAVED}/{name}", data)
        assert the_table(table).kind == "unknown"
        assert len(groups(table)) == 2

    def test_a_wal_table_that_says_it_is_none_is_unknown(self, table: OneTable) -> None:
        table.put(f"{SAVED}/_meta", make_meta(table.columns, timestamp=0, wal=False))
        assert the_table(table).kind == "unknown"


class TestTornTables:
    def test_a_whole_checkpoint_has_none(self, table: OneTable) -> None:
        assert source(table).torn_tables() == []

    @pytest.mark.parametrize("name", ["_meta", "_txn", "_cv", "txn_seq/_meta", "txn_seq/_txn"])
    def test_a_table_that_lacks_a_mandatory_file_is_torn(self, table: OneTable, name: str) -> None:
        (table.root / SAVED / name).unlink()
        assert source(table).torn_tables() == ["t~9"]

    def test_an_empty_directory_is_torn(self, table: OneTable) -> None:
        (table.root / ".checkpoint/db/gone~3/txn_seq").mkdir(parents=True)
        assert source(table).torn_tables() == ["gone~3"]

    def test_a_view_has_no_column_versions(self, table: OneTable) -> None:
        (table.root / SAVED / "_cv").unlink()
        table.put(f"{SAVED}/_view", b"definition")
        assert source(table).torn_tables() == []
        assert the_table(table).kind == "view"
        own, root = groups(table)
        names = {file.path for file in own.files}
        assert {f"{LIVE}/txn_seq/_txnlog", f"{SAVED}/_view", LIVE} <= names
        assert not [name for name in names if "/wal" in name]
        assert root.table == ""


def test_the_name_of_a_table_without_its_file_is_its_directorys(table: OneTable) -> None:
    (table.root / SAVED / "_name").unlink()
    assert the_table(table).name == "t"


def test_a_table_on_another_volume_is_listed_as_a_directory_with_its_link(table: OneTable) -> None:
    away = (table.root / LIVE).rename(table.root.parent / "elsewhere")
    (table.root / LIVE).symlink_to(away)
    files = planned(table)
    assert files[LIVE].link == str(away)
    assert files[f"{LIVE}/2024-01-01"].link is None
    assert files[f"{LIVE}/2024-01-01/n.d"].size == 12


def test_configuration_behind_a_link_is_stored_as_a_file_unless_it_leads_out(table: OneTable) -> None:
    conf = table.root / "conf"
    (conf / "linked.conf").symlink_to("server.conf")
    (table.root.parent / "secret").write_bytes(b"x")
    (conf / "out.conf").symlink_to(table.root.parent / "secret")
    (conf / "..data").symlink_to(".")
    names = [file.path for file in groups(table)[-1].files if file.path.startswith("conf/")]
    assert names == ["conf/linked.conf", "conf/server.conf"]


def test_a_table_that_is_dropped_before_the_checkpoint_has_nothing_settled(table: OneTable) -> None:
    tree = LocalTree(table.root)
    planner = TablePlanner(tree=tree, links=frozenset(), mat_views=b"", signs=True, lists_indexes=False)
    loaded = load_table(tree, "t~9")
    assert [outline.partition for outline in planner.settled(loaded)] == [f"{START + (1 << 63):020d}"]
    shutil.rmtree(table.root / "db/t~9")
    assert list(planner.settled(loaded)) == []
