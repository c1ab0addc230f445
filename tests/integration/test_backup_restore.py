"""What is restored is what the checkpoint held: real servers, the real workflow, every row compared."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from questdb_backup.errors import VersionMismatchError
from tests.integration.conftest import NewServer
from tests.support import table_zoo
from tests.support.live import (
    back_up,
    checkpoint,
    command,
    fs_store,
    options_for,
    restore,
    restored,
    wait_until,
)
from tests.support.questdb_server import QuestDBServer
from tests.support.sample_data import Writer, settle, table_digests

pytestmark = pytest.mark.integration

PENDING = "pending"


_WRITTEN = "('trades', 'sensors', 'trades_1h')"
_BEHIND = f"select count() from wal_tables() where writerTxn <> sequencerTxn and name not in {_WRITTEN}"


class Changes:
    """One statement at each call, which is before a read of the copy; it is applied before the read.

    The tables of the writer, who never rests, are not waited for.
    """

    def __init__(self, server: QuestDBServer, statements: list[str]) -> None:
        self._server = server
        self._left: Iterator[str] = iter(statements)
        self.done: list[str] = []

    def __call__(self, _path: str) -> None:
        statement = next(self._left, None)
        if statement is not None:
            self._server.execute(statement)
            wait_until(lambda: self._server.execute(_BEHIND) == [(0,)], f"applied: {statement}")
            self.done.append(statement)


def _new_table(server: QuestDBServer, name: str) -> None:
    server.execute(f"create table {name} as ({ROWS}), index(s) timestamp(ts) partition by day wal")


ROWS = (
    "select rnd_int() a, rnd_symbol('x', 'y', null) s, rnd_varchar(1, 40, 2) v,"
    " timestamp_sequence('2024-03-01', 200000000L) ts from long_sequence(2000)"
)
ROW = "'z', 'written later', '2024-03-02T01:02:03'"
STATEMENTS = [
    "alter table changing add column added double",
    f"insert into changing (a, s, v, ts, added) values (1, {ROW}, 1.5)",
    "alter table changing drop column v",
    "update changing set a = 7 where s = 'x'",
    "alter table changing rename column s to renamed",
    "alter table changing alter column a type varchar",
    "alter table changing drop partition list '2024-03-01'",
    "insert into changing (a, renamed, ts) select 'n', 'n', ts - 1 from changing",
    "drop table doomed",
    "rename table moved to elsewhere",
    f"insert into elsewhere (a, s, v, ts) values (2, {ROW})",
    "truncate table emptied",
    f"create table newcomer as ({ROWS}) timestamp(ts) partition by day wal",
    f"create table doomed as ({ROWS}) timestamp(ts) partition by hour wal",
    f"insert into ledger_twin (a, s, v, ts) values (3, {ROW})",
    "alter table ledger_twin add column added int",
]


@pytest.fixture
def changing(sampled: QuestDBServer) -> Iterator[list[str]]:
    """Tables that the statements above change; gone afterwards."""
    names = ["changing", "doomed", "moved", "emptied"]
    for name in names:
        _new_table(sampled, name)
    sampled.execute(f"create table ledger_twin as ({ROWS}) timestamp(ts) partition by day bypass wal")
    settle(sampled)
    yield names
    for name in (*names, "ledger_twin", "elsewhere", "newcomer"):
        sampled.execute(f"drop table if exists {name}")


@pytest.mark.usefixtures("changing")
def test_the_restored_database_equals_the_checkpoint_whatever_is_written_and_changed_during_the_copy(
    sampled: QuestDBServer, tmp_path: Path
) -> None:
    noted: dict[str, tuple[Any, ...]] = {}
    changes, store = Changes(sampled, STATEMENTS), fs_store(tmp_path)
    first, during = (Writer(sampled, seed=n, pause_seconds=0.1) for n in (1, 2))

    def rest() -> None:
        first.stop()
        settle(sampled)

    def note() -> None:
        noted.update(table_digests(sampled))
        during.start()
        for _ in STATEMENTS[::2]:
            changes("")  # half of them before the plan is made, the others between the reads

    first.start()
    first.wait_batches(8)
    try:
        back_up(options_for(sampled, store), before=rest, after=note, on_read=changes, settles=False)
    finally:
        during.stop()
    assert (changes.done, first.failure, during.failure) == (STATEMENTS, None, None)
    assert during.batches > 8
    assert not checkpoint(sampled)[0]
    now = table_digests(sampled)
    changed = {name for name in noted if noted[name] != now.get(name)}
    assert changed > {"changing", "doomed", "moved", "emptied", "ledger_twin", "trades", "sensors"}
    with restored(store, tmp_path / "restored") as server:
        assert table_digests(server) == noted


def test_transactions_that_were_acknowledged_but_not_applied_at_the_checkpoint_are_there_after_a_restore(
    sampled: QuestDBServer, tmp_path: Path
) -> None:
    store = fs_store(tmp_path)
    _new_table(sampled, PENDING)
    sampled.wait_applied()
    sampled.execute(f"alter table {PENDING} suspend wal")
    sampled.execute(f"insert into {PENDING} (a, s, v, ts) values (1, {ROW})")
    sampled.execute(f"alter table {PENDING} add column late int")
    sampled.execute(f"insert into {PENDING} (a, s, v, ts, late) values (2, {ROW}, 3)")
    late: list[int] = []

    def write_more(_path: str) -> None:
        """Beyond the checkpoint: must not come back."""
        if not late:
            sampled.execute(f"insert into {PENDING} (a, s, v, ts, late) values (9, {ROW}, 9)")
            late.append(1)

    back_up(options_for(sampled, store), on_read=write_more, settles=False)
    sampled.execute(f"drop table {PENDING}")
    restore(store, tmp_path / "restored")
    with QuestDBServer(tmp_path / "restored") as server:
        if server.execute(f"select suspended from wal_tables() where name = '{PENDING}'") == [(True,)]:
            server.execute(f"alter table {PENDING} resume wal")
        settle(server)
        assert server.execute(f"select a, late from {PENDING} where s = 'z' order by a") == [
            (1, None),
            (2, 3),
        ]
        assert server.execute(f"select count() from {PENDING}") == [(2002,)]


def test_tables_of_every_kind_come_back_with_every_row(new_server: NewServer, tmp_path: Path) -> None:
    source = new_server(env=table_zoo.settings(tmp_path / "volume"))
    table_zoo.fill(source)
    noted, store = table_zoo.digests(source), fs_store(tmp_path)
    first = back_up(options_for(source, store))
    second = back_up(options_for(source, store))
    assert second["tables"] == first["tables"] >= len(noted)
    assert second["bytes_reused"] > 0.9 * second["bytes_read"]
    source.stop()
    with restored(store, tmp_path / "restored") as server:
        assert table_zoo.digests(server) == noted


@pytest.mark.parametrize("version", ["8.1.4", "9.1.0"])
def test_an_older_server_s_indexes_answer_right_after_the_restore_and_after_a_write(
    new_server: NewServer, tmp_path: Path, version: str
) -> None:
    source, store = new_server(version), fs_store(tmp_path)
    _new_table(source, "indexed")
    source.wait_applied()
    noted: dict[str, tuple[Any, ...]] = {}
    days = ("2024-03-01", "2024-03-03", "2024-03-05", "2024-03-09")
    writes = [f"insert into indexed values (1, 'x', 'v', '{day}T05:06:07')" for day in days] * 5
    changes = Changes(source, writes)
    options = options_for(source, store)
    back_up(options, after=lambda: noted.update(table_digests(source)), on_read=changes, settles=False)
    assert changes.done == writes
    source.stop()
    with restored(store, tmp_path / "restored", version=version, server_version=version) as server:
        assert table_digests(server) == noted
        _assert_index_agrees(server)
        for day in ("2024-03-01", "2024-03-04", "2024-03-09"):
            server.execute(f"insert into indexed values (1, 'x', 'v', '{day}T05:06:07')")
        settle(server)
        assert server.execute("select count() from indexed") == [(2003,)]
        _assert_index_agrees(server)


def _assert_index_agrees(server: QuestDBServer) -> None:
    for symbol in ("x", "y"):
        ((by_index,),) = server.execute(f"select count() from indexed where s = '{symbol}'")
        ((by_scan,),) = server.execute(
            f"select count() from (select s::varchar s from indexed) where s = '{symbol}'"
        )
        assert by_index == by_scan > 0


def test_a_restore_for_another_major_version_is_refused_unless_it_is_forced(
    sampled: QuestDBServer, tmp_path: Path
) -> None:
    store, target = fs_store(tmp_path), tmp_path / "restored"
    back_up(options_for(sampled, store))
    with pytest.raises(VersionMismatchError, match="have different major versions"):
        restore(store, target, server_version="8.1.4")
    told = command("restore", "--root", str(target), "--server-version", "8.1.4", store=store)
    assert (told.returncode, told.stdout) == (1, "")
    assert "QuestDB 8.1.4 and the backup's 9.3.4 have different major versions" in told.stderr
    assert not target.exists()
    forced = command("restore", "--root", str(target), "--server-version", "8.1.4", "--force", store=store)
    assert forced.returncode == 0, forced.stderr
    assert "forced" in forced.stdout
    assert (target / "_restore").exists()


def _copy_live(root: Path, copy: Path) -> None:
    """What a volume's snapshot would have; files that the checkpoint does not need may vanish meanwhile."""
    told = subprocess.run(["cp", "-a", str(root), str(copy)], capture_output=True, text=True, check=False)
    lines = told.stderr.splitlines()
    assert all(line.endswith("No such file or directory") for line in lines), told.stderr


def test_a_frozen_copy_is_backed_up_without_a_server_and_restored(
    sampled: QuestDBServer, tmp_path: Path
) -> None:
    store, copy, target = fs_store(tmp_path), tmp_path / "copy", tmp_path / "restored"
    settle(sampled)
    sampled.execute("checkpoint create")
    try:
        noted = table_digests(sampled)
        with Writer(sampled) as writer:
            writer.wait_batches(4)
        _copy_live(sampled.root, copy)
    finally:
        sampled.execute("checkpoint release")
    # nobody listens there: a frozen copy must not ask any server
    nowhere = ["--dsn", "host=127.0.0.1 port=1 connect_timeout=1"]
    told = command(
        "backup", "--frozen", "--server-version", "9.3.4", "--root", str(copy), *nowhere, store=store
    )
    assert told.returncode == 0, told.stderr
    refused = command("restore", "--root", str(target), "--server-version", "9.2.3", "--dry-run", store=store)
    assert "is older than 9.3.4" in refused.stderr
    with restored(store, target, server_version="9.3.4") as server:
        assert table_digests(server) == noted
