"""What the settings make of it: which throttle, and how large a unit may be at its least rate."""

import math
from pathlib import Path

import pytest

from questdb_backup.gentle.base import Chain, NoThrottle, Throttle
from questdb_backup.gentle.bucket import ReadLimit, TokenBucket
from questdb_backup.gentle.build import LEAST_RATE, LEAST_RATE_PER_WORKER, largest_unit_bytes, open_throttle
from questdb_backup.gentle.throttle import PressureThrottle
from questdb_backup.local.bundle import read_definition
from questdb_backup.local.options import Options, Place
from tests.support.kit import Kit
from tests.unit.gentle.conftest import MIB


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
