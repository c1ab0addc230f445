"""The token bucket, the kernel's figures, and the throttle that puts both to use."""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from questdb_backup.gentle.base import Chain, NoThrottle, Throttle
from questdb_backup.gentle.bucket import ReadLimit, TokenBucket
from questdb_backup.gentle.build import (
    LEAST_RATE,
    LEAST_RATE_PER_WORKER,
    largest_unit_bytes,
    open_throttle,
)
from questdb_backup.gentle.decision import Limits
from questdb_backup.gentle.pressure import PressureReader, PressureSample, Stall, parse_stall, shares
from questdb_backup.gentle.throttle import LAG_RETRY_SECONDS, PressureThrottle
from questdb_backup.local.bundle import read_definition
from questdb_backup.local.options import Options, Place
from tests.support.kit import Kit

MIB = 1 << 20
PSI = (
    "some avg10=12.50 avg60=1.00 avg300=0.10 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"
)


@dataclass
class Clock:
    """Time that passes only by sleeping; ``on_sleep`` sees each sleep."""

    now: float = 100.0
    slept: list[float] = field(default_factory=list)
    on_sleep: Callable[[], object] = lambda: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.on_sleep()


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


def test_the_some_line_of_a_pressure_file_is_read() -> None:
    assert parse_stall(PSI) == Stall(avg10=0.125, total=2.5)


@pytest.mark.parametrize(
    "text", ["", "full avg10=0.00 total=0\n", "some avg10=1.0\n", "some avg10=x total=1\n"]
)
def test_what_is_no_pressure_file_is_told_from_one(text: str) -> None:
    with pytest.raises(ValueError):
        parse_stall(text)


def write_pressure(folder: Path, **text: str) -> PressureReader:
    folder.mkdir(exist_ok=True)
    for name, each in text.items():
        (folder / name).write_text(each)
    task = folder / "tasks" / "7"
    task.mkdir(parents=True, exist_ok=True)
    (task / "schedstat").write_text("1 1500000000 3\n")
    return PressureReader(folder, folder / "tasks")


def test_the_pressure_of_all_three_and_the_own_waits_are_read(tmp_path: Path) -> None:
    sample = write_pressure(tmp_path, io=PSI, cpu=PSI, memory=PSI).read()
    assert dict(sample.stalls) == dict.fromkeys(("io", "memory", "cpu"), Stall(0.125, 2.5))
    assert sample.own_cpu_wait == 1.5


def test_a_host_without_pressure_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader = PressureReader(tmp_path / "none", tmp_path / "none")
    assert reader.read() == reader.read() == PressureSample()
    assert len(caplog.records) == 1
    assert "only WAL lag and backup.read.limit hold a backup down" in caplog.text


def test_one_missing_file_does_not_hide_the_others(tmp_path: Path) -> None:
    assert set(write_pressure(tmp_path, io=PSI, cpu="nonsense").read().stalls) == {"io"}


def sample(own: float = 0.0, **totals: float) -> PressureSample:
    return PressureSample(
        stalls={name: Stall(0.0, total) for name, total in totals.items()}, own_cpu_wait=own
    )


def test_shares_are_those_of_the_time_between_two_samples() -> None:
    before, now = sample(io=1.0, cpu=5.0, memory=2.0), sample(io=2.0, cpu=7.0, memory=2.0)
    assert shares(before, now, 2.0) == {"io": 0.5, "cpu": 1.0, "memory": 0.0}
    assert shares(before, now, 0.0) == {}
    assert shares(sample(), now, 2.0) == {}


def test_the_waits_of_this_process_are_no_pressure_on_others() -> None:
    assert shares(sample(cpu=5.0), sample(own=1.2, cpu=7.0), 2.0) == {"cpu": pytest.approx(0.4)}
    assert shares(sample(cpu=5.0), sample(own=9.0, cpu=7.0), 2.0) == {"cpu": 0.0}
    assert shares(sample(own=9.0, cpu=5.0), sample(own=1.0, cpu=6.0), 2.0) == {"cpu": 0.5}


class Host:
    """A host with figures that a test sets, and a throttle on it."""

    def __init__(self, lag: int | None = 0) -> None:
        self.clock = Clock()
        self.cpu = 0.0
        """Share of the time that passes."""
        self.lag = lag
        self.asked: list[float] = []
        self._stalled, self._at = 0.0, self.clock.now
        self.throttle = PressureThrottle(
            pressure=self._pressure,
            lags=self._lags,
            limits=Limits(),
            monotonic=self.clock,
            sleep=self.clock.sleep,
        )

    def _pressure(self) -> PressureSample:
        self._stalled += (self.clock.now - self._at) * self.cpu
        self._at = self.clock.now
        return PressureSample(stalls={"cpu": Stall(self.cpu, self._stalled)})

    def _lags(self) -> Mapping[str, int] | None:
        self.asked.append(self.clock.now)
        return None if self.lag is None else {"trades": self.lag}

    def read(self, seconds: float, speed: float = 100.0 * MIB) -> float:
        """Read in pieces of 1 MiB, each taking its time; give the bytes per second."""
        began, count = self.clock.now, 0
        while self.clock.now - began < seconds:
            self.throttle.take(MIB)
            self.clock.now += MIB / speed
            count += 1
        return count * MIB / (self.clock.now - began)


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


@pytest.mark.parametrize(
    ("read_limit", "follows_pressure", "kind"),
    [
        (None, False, NoThrottle),
        (5 * MIB, False, ReadLimit),
        (None, True, PressureThrottle),
        (5 * MIB, True, Chain),
    ],
)
def test_the_settings_decide_which_throttle_it_is(
    read_limit: int | None, follows_pressure: bool, kind: type
) -> None:
    throttle = open_throttle(
        read_limit=read_limit,
        follows_pressure=follows_pressure,
        wal_lag=200,
        workers=2,
        conninfo=lambda: pytest.fail("nothing is opened yet"),
    )
    assert type(throttle) is kind


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize(
    ("read_limit", "follows_pressure"), [(MIB, False), (MIB, True), (90 * MIB, True), (None, True)]
)
def test_the_largest_unit_is_read_in_its_tasks_time_at_the_least_rate(
    read_limit: int | None, follows_pressure: bool, workers: int
) -> None:
    largest = largest_unit_bytes(read_limit=read_limit, follows_pressure=follows_pressure, workers=workers)
    least = max(LEAST_RATE, LEAST_RATE_PER_WORKER * workers) if follows_pressure else math.inf
    rate = min(least, math.inf if read_limit is None else read_limit)
    assert largest is not None
    states = read_definition("backup")["States"]["UploadPartitions"]["ItemProcessor"]["States"]
    assert largest * workers / rate <= 600 < states["UploadPartition"]["TimeoutSeconds"] / 1.5


def test_the_settings_of_a_root_give_the_largest_unit(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    flags = {"object-store": "s3::bucket=b;", "read-limit": "1M", "compression-threads": "4"}
    config = Place(Options(root=str(tmp_path), flags=dict(flags)), {}).services.config
    assert config.largest_unit_bytes == 600 * MIB // 4
    frozen = Options(root=str(tmp_path), source="frozen", flags={**flags, "read-limit": None})
    assert Place(frozen, {}).services.config.largest_unit_bytes is None


def test_a_unit_has_no_largest_size_where_nothing_holds_a_worker_down() -> None:
    assert largest_unit_bytes(read_limit=None, follows_pressure=False, workers=2) is None


def test_services_tell_what_holds_a_worker_down_and_make_no_throttle_for_it() -> None:
    kit = Kit()
    made: list[Throttle] = []

    def make() -> Throttle:
        made.append(ReadLimit(TokenBucket(2 * MIB)))
        return made[0]

    services = kit.make_services()
    services.make_throttle = make
    assert (services.held_down, made) == (None, [])
    services.throttle.take(1)
    assert services.held_down == "backup.read.limit is 2.0 MiB/s"
