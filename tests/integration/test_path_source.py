"""A copy of exactly the planned bytes, restored by a real server, has every row of the checkpoint."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from questdb_backup.errors import SourceFileError
from questdb_backup.source.base import EntryKind, PlannedGroup, PlannedTable
from questdb_backup.source.path import CheckpointSource, LocalTree
from tests.support import table_zoo
from tests.support.planned import planned_groups
from tests.support.questdb_server import QuestDBServer

pytestmark = pytest.mark.integration

REBUILD = {"QDB_CAIRO_CHECKPOINT_RECOVERY_REBUILD_COLUMN_INDEXES": "true"}
PENDING = "pending"


@dataclass(frozen=True)
class Copied:
    """A source server (running, its checkpoint released) and the root that was copied from its plan."""

    server: QuestDBServer
    root: Path
    expected: dict[str, str]
    groups: list[PlannedGroup]
    tables: list[PlannedTable]


def _copy(source: CheckpointSource, target: Path) -> list[PlannedGroup]:
    """Copy what is planned and not a byte more."""
    groups = []
    for group in planned_groups(source):
        groups.append(group)
        for file in group.files:
            path = target / file.path
            if file.kind is EntryKind.DIRECTORY:
                path.mkdir(parents=True, exist_ok=True)
                continue
            data = source.tree.read(file.path, 0, file.size)
            assert not file.exact or len(data) == file.size
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return groups


def _go_on(server: QuestDBServer) -> None:
    """What users do while a backup reads: rows in and out of order, updates, changes of tables, drops."""
    plain = "rnd_int() a, rnd_symbol('new', 'newer') s, 'v' v"
    for name in ("split", "deduped", "base", "elsewhere"):
        server.execute(f"insert into {name} (a, s, v, ts) {table_zoo.rows(plain, '11m', 200, '2024-01-02')}")
    server.execute("alter table base add column surprise int")
    server.execute("update elsewhere set a = 1")
    server.execute("alter table split drop column v")
    server.execute("alter table split drop column s")
    server.execute("alter table types_week_wal drop partition list '2024-W01'")
    server.execute("truncate table types_day_wal")
    server.execute("drop table types_hour_wal")
    server.execute("rename table types_month_wal to renamed")
    table_zoo.wait_applied_but(server, PENDING)


def _leave_pending(server: QuestDBServer) -> None:
    """A WAL table with acknowledged transactions, one a change of structure, that are not applied."""
    columns = "(a int, s symbol, v varchar, ts timestamp)"
    server.execute(f"create table pending {columns} timestamp(ts) partition by day wal")
    for day in ("2024-01-01", "2024-01-02"):
        server.execute("insert into pending " + table_zoo.rows("1 a, 'one' s, 'v' v", "1m", 100, day))
    server.wait_applied()
    server.execute("alter table pending suspend wal")
    late = table_zoo.rows("2 a, 'two' s, 'w' v", "1m", 50, "2024-01-01T01:00")
    server.execute(f"insert into pending {late}")
    server.execute("alter table pending add column late int")
    later = table_zoo.rows("3 a, 'three' s, 'x' v, 4 late", "1m", 50, "2024-01-03")
    server.execute(f"insert into pending (a, s, v, late, ts) {later}")


def _let_a_view_lag(server: QuestDBServer) -> None:
    """Rows that the view with manual refreshes does not know yet."""
    plain = "rnd_int() a, 'x' s, 'v' v, 't' t"
    server.execute("insert into base " + table_zoo.rows(plain, "1m", 50, "2024-01-03"))
    server.wait_applied()


def _back_up(server: QuestDBServer, target: Path) -> Copied:
    table_zoo.fill(server)
    _let_a_view_lag(server)
    _leave_pending(server)
    expected = table_zoo.digests(server)
    server.execute("checkpoint create")
    try:
        _go_on(server)
        source = CheckpointSource(LocalTree(server.root), server_version=server.version)
        assert source.torn_tables() == []
        groups = _copy(source, target)
        tables = list(source.tables())
    finally:
        server.execute("checkpoint release")
    server.execute("alter table pending resume wal")
    server.wait_applied()
    expected[PENDING] = table_zoo.digests(server)[PENDING]
    (target / "_restore").touch()
    return Copied(server=server, root=target, expected=expected, groups=groups, tables=tables)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copied]:
    home = tmp_path_factory.mktemp("path-source")
    with QuestDBServer(home / "source", env=table_zoo.settings(home / "volume")) as server:
        yield _back_up(server, home / "copy")


@pytest.fixture(scope="module")
def restored(copied: Copied) -> Iterator[QuestDBServer]:
    root = shutil.copytree(copied.root, copied.root.with_name("restored"))
    with QuestDBServer(root, env=REBUILD) as server:
        server.execute("alter table pending resume wal")
        server.wait_applied()
        yield server


def test_every_table_has_the_rows_of_the_checkpoint(copied: Copied, restored: QuestDBServer) -> None:
    assert table_zoo.digests(restored) == copied.expected
    assert len(copied.expected) > 30


def test_every_layout_is_known(copied: Copied) -> None:
    kinds = {table.name: table.kind for table in copied.tables}
    assert set(kinds.values()) == {"wal", "non-wal", "view", "mat view"}
    assert (kinds["view"], kinds["mat_view"], kinds[PENDING]) == ("view", "mat view", "wal")


def test_the_zoo_holds_what_it_is_meant_to(copied: Copied) -> None:
    paths = {file.path for group in copied.groups for file in group.files}
    names = {path.rpartition("/")[2] for path in paths}
    links = {file.path for group in copied.groups for file in group.files if file.link}
    types = {file.column_type for group in copied.groups for file in group.files}
    assert {"2024-01-04T110000-000001.2", "data.parquet", "default", "2024-W01", "2024-01-01T05"} <= names
    assert any(name.startswith("2024-W02-7T200000-000000001") for name in names)
    assert links == {"db/elsewhere", "db/linked/2024-01-02.2"}
    assert {"long128", "uuid", "ipv4", "geoint", "decimal256", "double[]", "timestamp_ns", "binary"} <= types
    assert any("/wal1/" in path for path in paths if "/pending" in path)


def test_the_copy_has_the_same_plan_as_its_source(copied: Copied) -> None:
    again = CheckpointSource(LocalTree(copied.root), server_version=copied.server.version)
    assert list(again.tables()) == copied.tables
    sizes = {file.path: file.size for group in planned_groups(again) for file in group.files}
    wanted = {file.path: file.size for group in copied.groups for file in group.files if file.exact}
    assert wanted.items() <= sizes.items()


def test_a_file_of_any_kind_that_is_one_byte_short_fails_the_plan(copied: Copied) -> None:
    chosen = {
        file.column_type or Path(file.path).name: file
        for group in copied.groups
        for file in group.files
        if file.exact and file.size and not file.path.startswith(".checkpoint")
    }
    assert len(chosen) > 30
    source = CheckpointSource(LocalTree(copied.root), server_version=copied.server.version)
    for file in chosen.values():
        path = copied.root / file.path
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        try:
            with pytest.raises(SourceFileError) as caught:
                list(planned_groups(source))
        finally:
            path.write_bytes(whole)
        assert file.path in caught.value.fact


def test_indexes_answer_as_the_rows_do(restored: QuestDBServer) -> None:
    for name in ("changed_wal", "changed_bypass", "changed_wal_day", "changed_bypass_day", "parquet"):
        by_index = f"select count() from {name} where s = 'x'"
        by_scan = f"select count() from (select s::varchar s from {name}) where s = 'x'"
        ((count,),) = restored.execute(by_index)
        assert count > 0
        assert [(count,)] == restored.execute(by_scan)


def test_tables_take_rows_after_the_restore(copied: Copied, restored: QuestDBServer) -> None:
    names = [table.name for table in copied.tables if table.kind in ("wal", "non-wal") and table.rows]
    names = [name for name in names if name in copied.expected and name != "deduped"]
    before = {name: _count(restored, name) for name in names}
    for name in names:
        columns = restored.execute(f"select \"column\" from table_columns('{name}')")
        listed = ", ".join(f'"{column}"' for (column,) in columns)
        restored.execute(f'insert into "{name}" ({listed}) select {listed} from "{name}" limit -1')
    restored.execute("insert into never_filled values (1, 's', 'v', 't')")
    restored.execute("insert into never_filled_wal values (1, 's', '2024-01-01')")
    restored.execute("insert into truncated (c_int, c_symbol, ts) values (1, 's', '2024-01-01')")
    restored.wait_applied()
    assert {name: _count(restored, name) for name in names} == {name: n + 1 for name, n in before.items()}
    assert [_count(restored, name) for name in ("never_filled", "never_filled_wal", "truncated")] == [1, 1, 1]


def test_a_materialized_view_goes_on_from_where_it_was(restored: QuestDBServer) -> None:
    restored.execute("refresh materialized view mat_view_manual incremental")
    restored.wait_applied()
    wanted = restored.execute("select ts, s, count() n from base sample by 1h order by ts, s")
    deadline = time.monotonic() + 60
    while restored.execute("select * from mat_view_manual order by ts, s") != wanted:
        assert time.monotonic() < deadline, restored.log_tail()
        time.sleep(0.1)
    statuses = restored.execute("select view_status from materialized_views()")
    assert set(statuses) == {("valid",)}
    assert "full refresh" not in restored.log.read_text(errors="replace")


def test_an_older_server_is_restored_with_its_index_files(tmp_path: Path) -> None:
    with QuestDBServer(tmp_path / "source", "9.1.0", table_zoo.settings(tmp_path / "volume")) as server:
        copied = _back_up(server, tmp_path / "copy")
    assert {group.signature for group in copied.groups} == {None}
    with QuestDBServer(copied.root, "9.1.0") as restored:
        restored.execute("alter table pending resume wal")
        restored.wait_applied()
        assert table_zoo.digests(restored) == copied.expected
        test_indexes_answer_as_the_rows_do(restored)


def _count(server: QuestDBServer, name: str) -> int:
    ((count,),) = server.execute(f'select count() from "{name}"')
    return int(count)
