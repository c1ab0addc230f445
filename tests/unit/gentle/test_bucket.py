"""The token bucket, and the fixed limit that it gives; throttles in a chain."""

import threading
import time

import pytest

from questdb_backup.gentle.base import Chain, NoThrottle
from questdb_backup.gentle.bucket import ReadLimit, TokenBucket
from tests.unit.gentle.conftest import MIB, Clock


def bucket(clock: Clock, rate: float | None) -> TokenBucket:
    return TokenBucket(rate, monotonic=clock, sleep=clock.sleep)


def test_a_bucket_lets_so_many_bytes_through_in_a_second() -> None:
    clock = Clock()
    limited = bucket(clock, 1000.0)
    began = clock.now
    for _ in range(100):
        limited.take(100)
    assert clock.now - began == pytest.approx(9.9)  # the last read is paid for by the next one
    assert limited.taken == 10_000
    assert limited.waited_seconds == pytest.approx(9.9)


def test_a_read_larger_than_the_bucket_passes_and_the_next_one_pays() -> None:
    clock = Clock()
    limited = bucket(clock, 1000.0)
    assert limited.take(5000) == 0.0
    assert limited.take(1) == pytest.approx(5.0)
    assert max(clock.slept) <= 0.25


def test_a_bucket_saves_up_a_quarter_of_a_second_and_no_more() -> None:
    clock = Clock()
    limited = bucket(clock, 1000.0)
    clock.now += 3600.0
    assert limited.take(250) == 0.0
    assert limited.take(250) == 0.0
    assert limited.take(1) == pytest.approx(0.25)


def test_a_new_rate_reaches_who_waits_already() -> None:
    clock = Clock()
    limited = bucket(clock, 1.0)
    limited.take(1000)

    def free() -> None:
        limited.rate = None

    clock.on_sleep = free
    assert limited.take(1) == 0.25
    assert limited.take(1 << 40) == 0.0


def test_a_bucket_without_a_rate_never_waits_and_leaves_no_debt() -> None:
    clock = Clock()
    limited = bucket(clock, None)
    assert limited.take(1 << 50) == 0.0
    limited.rate = 1000.0
    assert limited.take(1) == 0.0
    assert clock.slept == []


def test_threads_share_one_rate() -> None:
    limited = TokenBucket(4_000_000.0)
    began = time.monotonic()
    threads = [threading.Thread(target=lambda: [limited.take(100_000) for _ in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limited.taken == 2_000_000
    assert time.monotonic() - began >= 0.4


def test_a_fixed_limit_says_what_it_is() -> None:
    clock = Clock()
    limit = ReadLimit(bucket(clock, 2.0 * MIB))
    assert limit.take(4 * MIB) == 0.0
    assert limit.take(1) == pytest.approx(2.0)
    assert limit.throttled_seconds == pytest.approx(2.0)
    assert limit.held_down == "backup.read.limit is 2.0 MiB/s"


def test_a_chain_waits_for_each_and_adds_up() -> None:
    clock = Clock()
    chain = Chain(NoThrottle(), ReadLimit(bucket(clock, 100.0)), ReadLimit(bucket(clock, 50.0)))
    assert chain.take(100) == 0.0
    assert chain.take(1) == pytest.approx(2.0)
    assert chain.throttled_seconds == pytest.approx(2.0)
    assert chain.held_down == "backup.read.limit is 0.0 MiB/s; backup.read.limit is 0.0 MiB/s"
    assert Chain(NoThrottle()).held_down is None
