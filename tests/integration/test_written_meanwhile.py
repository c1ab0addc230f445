"""A real server that goes on writing into files between the plan and their reading."""

from pathlib import Path

import psycopg
import pytest

from tests.support.live import back_up, fs_store, options_for, restored
from tests.support.questdb_server import QuestDBServer

pytestmark = pytest.mark.integration

EVENTS_OF_A_PAGE = 4096
"""``_event.i`` has 8 bytes for a transaction, and grows by 32 KiB."""


def test_pending_rows_of_a_segment_that_is_written_on_are_there_after_the_restore(tmp_path: Path) -> None:
    """The head of ``_event`` counts what was written since the plan; the server maps that of ``_event.i``."""
    with QuestDBServer(tmp_path / "root", env={"QDB_DEV_MODE_ENABLED": "true"}) as server:
        with psycopg.connect(server.dsn, autocommit=True) as client:
            client.execute("create table t (ts timestamp, k symbol) timestamp(ts) partition by day wal")
            client.execute("insert into t values ('2024-01-01', 'first')")
            server.wait_applied()
            client.execute("alter table t suspend wal")
            for number in range(20):
                client.execute(f"insert into t values ('2024-01-02', 'pending {number}')")
            written: list[str] = []

            def go_on(path: str) -> None:
                if path.endswith("/_event") and not written:
                    written.append(path)
                    for _ in range(EVENTS_OF_A_PAGE):
                        client.execute("insert into t values ('2024-01-03', 'later')")

            store = fs_store(tmp_path)
            back_up(options_for(server, store), on_read=go_on)
        assert written
    with restored(store, tmp_path / "restored") as server:
        assert server.execute("select count() from t where k like 'pending%'") == [(20,)]
        assert server.execute("select suspended from wal_tables()") == [(False,)]


def test_symbol_columns_may_begin_with_an_underscore(tmp_path: Path) -> None:
    """As files do that a table has beside its columns."""
    query = "select _id, _meta, count() from docs order by 1, 2"
    with QuestDBServer(tmp_path / "root") as server:
        server.execute(
            "create table docs (ts timestamp, _id symbol, _meta symbol index)"
            " timestamp(ts) partition by day wal"
        )
        server.execute("insert into docs values ('2024-01-01', 'a', 'b'), ('2024-01-02', 'c', 'd')")
        server.wait_applied()
        expected = server.execute(query)
        store = fs_store(tmp_path)
        back_up(options_for(server, store))
    with restored(store, tmp_path / "restored") as server:
        assert server.execute(query) == expected
        assert len(expected) == 2
