"""The throttle and the WAL: tables that fall behind, and how often the server is asked for it."""

from collections.abc import Mapping

import pytest

from questdb_backup.gentle.decision import Limits
from questdb_backup.gentle.throttle import LAG_RETRY_SECONDS
from tests.unit.gentle.conftest import MIB, Host


def test_a_table_that_falls_behind_slows_reading_down_until_it_has_caught_up() -> None:
    host = Host(lag=5)
    host.read(5.0)
    host.lag = 5000
    host.read(20.0)
    assert host.throttle.held_down == "5.0 MiB/s: the WAL of trades is 4995 transactions behind"
    host.lag = 5
    host.read(25.0)
    assert host.throttle.held_down is None


def test_the_server_is_asked_every_three_seconds_at_most() -> None:
    host = Host()
    host.read(30.0)
    gaps = [later - earlier for earlier, later in zip(host.asked, host.asked[1:], strict=False)]
    assert 8 <= len(gaps) <= 10
    assert min(gaps) >= 3.0


def test_a_server_with_many_tables_is_asked_seldom() -> None:
    host = Host()
    slow = host._lags

    def lags() -> Mapping[str, int] | None:
        host.clock.now += 1.0
        return slow()

    host.throttle._lags = lags
    host.read(100.0)
    assert 3 <= len(host.asked) <= 6


def test_a_server_that_does_not_tell_its_lag_is_asked_once_a_minute() -> None:
    host = Host(lag=None)
    assert host.read(2 * LAG_RETRY_SECONDS + 5.0) == pytest.approx(100.0 * MIB)
    assert len(host.asked) == 3


def test_the_next_backup_begins_anew() -> None:
    host = Host(lag=0)
    host.read(5.0)
    host.lag = 5000
    host.read(10.0)
    assert host.throttle.held_down
    host.clock.now += 3600.0
    assert host.read(5.0) == pytest.approx(100.0 * MIB)


def test_a_lag_that_shrinks_before_anything_was_held_down_is_not_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = Host()
    host.read(2.5)
    host.lag, host.throttle._limits = 150, Limits(wal_lag=100_000)
    host.read(3.0)
    host.lag, host.throttle._limits = 120, Limits(wal_lag=100)
    host.read(3.0)
    assert host.throttle.held_down is None
    assert caplog.records == []
