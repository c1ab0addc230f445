"""The sample data that other tests rest on: digests must see a change, and must not see an order."""

import pytest

from tests.integration.conftest import NewServer
from tests.support.sample_data import Writer, create_sample_tables, settle, table_digests

pytestmark = pytest.mark.integration

ROWS = 2000


@pytest.mark.parametrize("version", ["8.1.4", "9.1.0", "9.3.4"])
def test_digests_are_equal_after_a_restart_and_see_every_change(new_server: NewServer, version: str) -> None:
    server = new_server(version)
    create_sample_tables(server, ROWS)
    before = table_digests(server)
    views = {"trades_1h"} if version.startswith("9") else set()
    assert set(before) == {"trades", "sensors", "logs", "ledger", "instruments"} | views
    assert before["trades"][0] == ROWS
    server.stop()
    server.start()
    assert table_digests(server) == before

    server.execute("update instruments set name = 'changed' where id = 7")
    settle(server)
    after = table_digests(server)
    assert {name for name in before if before[name] != after[name]} == {"instruments"}
    changed = {
        old[0]
        for old, new in zip(before["instruments"][1:], after["instruments"][1:], strict=True)
        if old != new
    }
    assert changed == {"name", "*"}


def test_digests_do_not_depend_on_the_order_of_rows_but_see_values_that_change_places(
    new_server: NewServer,
) -> None:
    server = new_server()
    for name, rows in (("a", "(1, 'x'), (2, 'y')"), ("b", "(2, 'y'), (1, 'x')"), ("c", "(1, 'y'), (2, 'x')")):
        server.execute(f"create table {name} (n int, s varchar)")
        server.execute(f"insert into {name} values {rows}")
    digests = table_digests(server)
    assert digests["a"] == digests["b"]
    assert digests["a"][:3] == digests["c"][:3]
    assert digests["a"][3] != digests["c"][3]


def test_the_writer_writes_in_order_and_out_of_order_until_stopped(new_server: NewServer) -> None:
    server = new_server()
    create_sample_tables(server, ROWS)
    before = table_digests(server)
    with Writer(server) as writer:
        writer.wait_batches(12)
    settle(server)
    after = table_digests(server)
    assert {name for name in before if before[name] != after[name]} == {"trades", "sensors", "trades_1h"}
    assert after["trades"][0] == ROWS + 100 * ((writer.batches + 1) // 2)
    assert after["sensors"][0] == ROWS + 10 * ((writer.batches + 2) // 4)
