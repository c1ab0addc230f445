"""The WAL lag that a real server tells, and that the throttle acts upon it."""

import logging

import pytest

from questdb_backup.gentle.decision import Limits
from questdb_backup.gentle.pressure import PressureSample
from questdb_backup.gentle.throttle import PressureThrottle
from questdb_backup.gentle.wal_lag import WalLag
from tests.integration.conftest import NewServer
from tests.support.questdb_server import QuestDBServer, free_port

pytestmark = pytest.mark.integration

_NOT_APPLYING = {"QDB_CAIRO_WAL_APPLY_ENABLED": "false", "QDB_DEV_MODE_ENABLED": "true"}


def insert(server: QuestDBServer, table: str, count: int) -> None:
    for _ in range(count):
        server.execute(f"insert into {table} values (now(), 1)")


def make(server: QuestDBServer, table: str) -> None:
    server.execute(f"create table {table} (ts timestamp, x long) timestamp(ts) partition by day wal")


def own(lags: dict[str, int] | None) -> dict[str, int]:
    """Without the server's own tables."""
    assert lags is not None
    return {table: lag for table, lag in lags.items() if not table.startswith(("sys.", "_"))}


@pytest.mark.parametrize("version", ["8.1.4", "9.1.0", "9.3.4"])
def test_the_lag_is_what_was_committed_and_not_applied(new_server: NewServer, version: str) -> None:
    server = new_server(version, env=_NOT_APPLYING)
    for table in ("behind", "idle", "suspended"):
        make(server, table)
    lags = WalLag(lambda: server.dsn)
    assert own(lags.read()) == {}
    insert(server, "behind", 3)
    insert(server, "suspended", 2)
    assert own(lags.read()) == {"behind": 3, "suspended": 2}
    server.execute("alter table suspended suspend wal")
    assert own(lags.read()) == {"behind": 3}


def test_a_server_that_falls_behind_holds_the_reading_down(new_server: NewServer) -> None:
    server = new_server(env=_NOT_APPLYING)
    make(server, "trades")
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    throttle = PressureThrottle(
        pressure=PressureSample,
        lags=WalLag(lambda: server.dsn).read,
        limits=Limits(wal_lag=2),
        monotonic=lambda: now,
        sleep=sleep,
    )
    throttle.take(1 << 20)
    insert(server, "trades", 3)
    now += 5.0
    throttle.take(1 << 20)
    assert throttle.held_down == "4.0 MiB/s: the WAL of trades is 3 transactions behind"


def test_a_server_that_is_down_is_told_of_once_and_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    lags = WalLag(lambda: f"host=127.0.0.1 port={free_port()} user=admin password=quest dbname=qdb")
    assert lags.read() is None
    assert lags.read() is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "the WAL lag is not known" in caplog.text
