"""The throttle under pressure: how far it slows reading down, for how long, and what the log tells."""

import logging
import threading
import time

import pytest

from questdb_backup.gentle.decision import Limits
from questdb_backup.gentle.pressure import PressureSample
from questdb_backup.gentle.throttle import PressureThrottle
from tests.unit.gentle.conftest import MIB, Host


def test_on_a_calm_host_nothing_waits() -> None:
    host = Host()
    assert host.read(30.0) == pytest.approx(100.0 * MIB)
    assert host.throttle.throttled_seconds == 0.0
    assert host.throttle.held_down is None


def test_pressure_slows_reading_down_within_two_seconds_to_a_rate_that_remains() -> None:
    host = Host()
    host.read(10.0)
    host.cpu = 0.9
    host.read(2.0)
    assert host.read(1.0) < 60.0 * MIB
    host.read(10.0)
    assert host.read(20.0) == pytest.approx(5.0 * MIB, rel=0.1)
    assert host.throttle.throttled_seconds > 10.0
    assert host.throttle.held_down == (
        "5.0 MiB/s: others wait for a processor 90% of the time (0% at the start)"
    )
    assert max(host.clock.slept) <= 0.25


def test_when_the_pressure_is_over_reading_is_fast_again_within_seconds() -> None:
    host = Host()
    host.read(5.0)
    host.cpu = 0.9
    host.read(20.0)
    host.cpu = 0.0
    host.read(15.0)
    assert host.read(5.0) == pytest.approx(100.0 * MIB)
    assert host.throttle.held_down is None


def test_a_host_that_was_busy_at_the_start_is_no_reason() -> None:
    host = Host()
    host.cpu = 0.9
    assert host.read(20.0) == pytest.approx(100.0 * MIB)


def test_the_log_tells_at_most_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    host.read(5.0)
    for _ in range(12):
        host.cpu = 0.9
        host.read(2.0)
        host.cpu = 0.0
        host.read(12.0)
        assert len(caplog.records) <= 1 + (host.clock.now - 105.0) / 10.0
    assert len(caplog.records) >= 4
    assert caplog.records[0].levelno == logging.WARNING
    assert caplog.records[0].getMessage().startswith("the backup is held down to 50.0 MiB/s: others wait")


def test_the_log_tells_a_long_trouble_once_a_minute_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    host.read(5.0)
    host.cpu = 0.9
    host.read(150.0)
    assert len(caplog.records) == 3
    host.cpu = 0.0
    host.read(60.0)
    assert caplog.records[3].getMessage() == "the backup is not held down any more"
    assert len(caplog.records) == 4


def test_threads_may_look_and_wait_at_the_same_time() -> None:
    throttle = PressureThrottle(
        pressure=PressureSample, lags=lambda: {"trades": 10}, limits=Limits(), monotonic=time.monotonic
    )
    threads = [threading.Thread(target=lambda: [throttle.take(MIB) for _ in range(100)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert throttle._bucket.taken == 800 * MIB
