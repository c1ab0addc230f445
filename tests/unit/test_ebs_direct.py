"""boto3 against the stand-in where AWS is slow, wrong, or asks to wait."""

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from questdb_backup.ebs import direct
from questdb_backup.ebs.base import BLOCK_BYTES, Block
from questdb_backup.ebs.direct import CHECKSUM_ATTEMPTS, PATIENCE_SECONDS, BotoDirectApi, DirectCounters
from questdb_backup.errors import (
    BackupToolError,
    ConfigurationError,
    SnapshotError,
    VolumeUnavailableError,
)
from standin.ebs import EbsStandin, Paging
from tests.support.direct_standin import client, make_volume, take_snapshot, write_blocks

_random = random.Random(2)
BLOCKS = {index: _random.randbytes(BLOCK_BYTES) for index in (*range(4), 40, 41, *range(1000, 1008))}


@dataclass
class Time:
    """Passes only by sleeping."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EbsStandin, str]]:
    folder = tmp_path_factory.mktemp("ebs")
    with EbsStandin(folder / "cloud", frozen_clock=True) as server:
        volume = make_volume(server, folder / "volume.img", 1)
        write_blocks(folder / "volume.img", BLOCKS)
        yield server, take_snapshot(server, volume)


@pytest.fixture
def server(cloud: tuple[EbsStandin, str]) -> Iterator[EbsStandin]:
    server, _ = cloud
    server.calls.clear()
    yield server
    server.faults.clear()
    server.paging.page_cap, server.paging.empty_every = Paging().page_cap, Paging().empty_every


@pytest.fixture
def snapshot(cloud: tuple[EbsStandin, str]) -> str:
    return cloud[1]


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def api(server: EbsStandin, time: Time) -> Iterator[BotoDirectApi]:
    with closing(opened(server, time)) as api:
        yield api


def opened(server: EbsStandin, time: Time, *, rate: float | None = None) -> BotoDirectApi:
    def open_client(connections: int) -> Any:
        return client(server, "ebs", connections=connections)

    return BotoDirectApi(rate=rate, open_client=open_client, monotonic=time, sleep=time.sleep)


def listed(api: BotoDirectApi, snapshot: str) -> dict[int, Block]:
    return {block.index: block for block in api.list_blocks(snapshot, 0, 2048)}


@pytest.fixture
def block(api: BotoDirectApi, snapshot: str) -> Block:
    return listed(api, snapshot)[40]


def spoil(server: EbsStandin, fault: str, times: int | None) -> None:
    faults, get = server.faults, "GetSnapshotBlock"
    match fault:
        case "checksum":
            faults.wrong_checksum(times=times)
        case "torn":
            faults.truncate(times=times)
        case "reset":
            faults.cut(get, times=times)
        case "down":
            faults.fail(get, "InternalServerException", status=500, times=times)
        case _:
            faults.throttle(get, fault, times=times)


THROTTLES = {"RESOURCE_LEVEL_THROTTLE": 5.0, "ACCOUNT_THROTTLED": 15.0, "DEPENDENCY_REQUEST_THROTTLED": 30.0}


def longest_pause(least: float, bound: float) -> float:
    assert least == 0, "full jitter begins at nothing"
    return bound


@pytest.mark.parametrize("fault", ["checksum", "torn", "reset", "down", *THROTTLES])
def test_a_block_that_fails_twice_is_fetched_a_third_time(
    server: EbsStandin, api: BotoDirectApi, snapshot: str, block: Block, fault: str
) -> None:
    spoil(server, fault, 2)
    assert api.get_block(snapshot, block) == BLOCKS[40]
    counters = api.counters
    assert (counters.get_requests, counters.blocks, counters.bytes) == (3, 1, BLOCK_BYTES)
    assert counters.retries == 2
    assert server.calls.count("GetSnapshotBlock") == 3  # the SDK sends nothing by itself


@pytest.mark.parametrize("fault", ["checksum", "torn", "reset", "down"])
def test_a_block_that_always_fails_is_named(
    server: EbsStandin, api: BotoDirectApi, snapshot: str, block: Block, fault: str
) -> None:
    spoil(server, fault, None)
    with pytest.raises(VolumeUnavailableError, match=f"block 40 of {snapshot}"):
        api.get_block(snapshot, block)
    attempts = CHECKSUM_ATTEMPTS if fault == "checksum" else direct.ATTEMPTS
    assert server.calls.count("GetSnapshotBlock") == attempts
    assert api.counters.blocks == 0


def test_a_block_of_another_length_is_not_taken(
    server: EbsStandin, api: BotoDirectApi, snapshot: str, block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "BLOCK_BYTES", 2 * BLOCK_BYTES)
    with pytest.raises(VolumeUnavailableError, match=f"{BLOCK_BYTES} bytes"):
        api.get_block(snapshot, block)


@pytest.mark.parametrize(("reason", "most"), THROTTLES.items())
def test_a_throttle_is_waited_for_as_long_as_its_reason_wants(
    server: EbsStandin,
    api: BotoDirectApi,
    snapshot: str,
    block: Block,
    time: Time,
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
    most: float,
) -> None:
    monkeypatch.setattr(random, "uniform", longest_pause)
    spoil(server, reason, None)
    began = time.now
    with pytest.raises(VolumeUnavailableError, match=reason):
        api.get_block(snapshot, block)
    assert time.slept == sorted(time.slept)
    assert time.slept[1] == pytest.approx(2 * time.slept[0])
    assert time.slept[-1] == most
    assert PATIENCE_SECONDS - most <= time.now - began <= PATIENCE_SECONDS < 900
    assert api.counters.throttled_seconds == pytest.approx(sum(time.slept))


def test_the_first_pause_depends_on_the_reason(
    server: EbsStandin,
    api: BotoDirectApi,
    snapshot: str,
    block: Block,
    time: Time,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "uniform", longest_pause)
    for reason in THROTTLES:
        spoil(server, reason, 1)
        api.get_block(snapshot, block)
    assert time.slept == sorted(set(time.slept))


def test_pauses_are_spread_from_nothing_to_their_bound(
    server: EbsStandin, api: BotoDirectApi, snapshot: str, block: Block, time: Time
) -> None:
    server.faults.throttle("GetSnapshotBlock", "ACCOUNT_THROTTLED", times=30)
    for _ in range(10):
        api.get_block(snapshot, block)
    assert len(set(time.slept)) == len(time.slept)
    assert 0 <= min(time.slept) <= max(time.slept) <= THROTTLES["ACCOUNT_THROTTLED"]


@pytest.mark.parametrize("reason", THROTTLES)
def test_a_listing_is_throttled_too(
    server: EbsStandin, api: BotoDirectApi, snapshot: str, reason: str
) -> None:
    server.faults.throttle("ListSnapshotBlocks", reason, times=2)
    assert list(listed(api, snapshot)) == sorted(BLOCKS)
    assert api.counters.list_requests == 3
    assert api.counters.throttled_seconds > 0


def test_one_request_lists_what_fits_a_page_and_asks_for_no_more_than_the_range(
    server: EbsStandin, api: BotoDirectApi, snapshot: str
) -> None:
    assert [block.index for block in api.list_blocks(snapshot, 1000, 1030)] == [*range(1000, 1008)]
    list(api.list_blocks(snapshot, 0, 700))
    list(api.list_blocks(snapshot, 0, 1 << 25))
    asked = [call.parameters["maxResults"] for call in server.calls.all("ListSnapshotBlocks")]
    assert asked == ["100", "700", "10000"]
    assert api.counters.list_requests == 3


def test_the_size_comes_with_any_listing(server: EbsStandin, api: BotoDirectApi, snapshot: str) -> None:
    listed(api, snapshot)
    assert api.volume_size(snapshot) == api.volume_size(snapshot) == 1 << 30
    assert api.counters.list_requests == 1


def test_pages_that_are_empty_end_nothing(server: EbsStandin, api: BotoDirectApi, snapshot: str) -> None:
    server.paging.page_cap, server.paging.empty_every = 3, 2
    assert list(listed(api, snapshot)) == sorted(BLOCKS)


def test_a_listing_whose_page_has_expired_goes_on_where_it_stood(
    server: EbsStandin, api: BotoDirectApi, snapshot: str
) -> None:
    server.paging.page_cap, server.paging.empty_every = 3, 3
    found = []
    for block in api.list_blocks(snapshot, 0, 2048):
        found.append(block.index)
        server.clock.advance(1801)  # page tokens live for an hour
    assert found == sorted(BLOCKS)
    assert server.calls.errors("ValidationException") > 0


def test_pages_that_expire_at_once_end_the_listing(
    server: EbsStandin, api: BotoDirectApi, snapshot: str
) -> None:
    server.paging.page_cap = 3
    server.faults.fail(
        "ListSnapshotBlocks",
        "ValidationException",
        status=400,
        reason="INVALID_PAGE_TOKEN",
        skip=1,
        times=None,
    )
    with pytest.raises(VolumeUnavailableError, match=snapshot):
        listed(api, snapshot)


def test_the_own_rate_limit_counts_requests(server: EbsStandin, snapshot: str, time: Time) -> None:
    with closing(opened(server, time, rate=10.0)) as api:
        block = listed(api, snapshot)[40]
        began = time.now
        for _ in range(5):
            api.get_block(snapshot, block)
        assert time.now - began == pytest.approx(0.4, abs=0.01)  # each pays for the one before
        assert api.counters.limited_seconds == pytest.approx(0.4, abs=0.01)


def test_counters_tell_what_came_after(api: BotoDirectApi, snapshot: str, block: Block) -> None:
    before = api.counters
    api.get_block(snapshot, block)
    assert api.counters.since(before) == DirectCounters(get_requests=1, blocks=1, bytes=BLOCK_BYTES)


def test_a_snapshot_that_is_not_seen_yet_is_waited_for_a_minute(
    server: EbsStandin, api: BotoDirectApi, snapshot: str, time: Time
) -> None:
    unseen = ("ListSnapshotBlocks", "ResourceNotFoundException", "The snapshot was not found")
    server.faults.fail(*unseen, status=404, reason="SNAPSHOT_NOT_FOUND", times=3)
    assert api.volume_size(snapshot) > 0
    assert len(time.slept) == 3
    server.faults.fail(*unseen, status=404, reason="SNAPSHOT_NOT_FOUND", times=None)
    with pytest.raises(SnapshotError, match="not found"):
        list(api.list_blocks(snapshot, 0, 10))
    assert sum(time.slept) >= direct.UNSEEN_SECONDS


def test_a_base_that_is_gone_is_not_waited_for(
    server: EbsStandin, api: BotoDirectApi, snapshot: str, time: Time
) -> None:
    with pytest.raises(SnapshotError, match="snap-0123456789abcdef0"):
        list(api.list_changed("snap-0123456789abcdef0", snapshot))
    assert (server.calls.count("ListChangedBlocks"), time.slept) == (1, [])


def test_a_list_of_changes_that_takes_too_long_for_a_step_is_given_up(
    server: EbsStandin, api: BotoDirectApi, snapshot: str, time: Time
) -> None:
    server.paging.page_cap = 1
    server.faults.run("ListChangedBlocks", lambda: time.sleep(110.0), times=None)
    with pytest.raises(SnapshotError, match="more than 300 s"):
        list(api.list_changed(snapshot, snapshot))
    assert server.calls.count("ListChangedBlocks") == 3


def test_the_lists_of_changes_of_several_volumes_share_that_time(
    server: EbsStandin, api: BotoDirectApi, snapshot: str, time: Time
) -> None:
    server.faults.run("ListChangedBlocks", lambda: time.sleep(160.0), times=None)
    plan = api.counting()
    for _ in range(2):
        assert list(plan.list_changed(snapshot, snapshot)) == []
    with pytest.raises(SnapshotError, match="more than 300 s"):
        list(plan.list_changed(snapshot, snapshot))
    assert list(api.counting().list_changed(snapshot, snapshot)) == []


@pytest.mark.parametrize(
    ("code", "status", "reason", "expected"),
    [
        ("AccessDeniedException", 403, "UNAUTHORIZED_ACCOUNT", SnapshotError),
        ("ResourceNotFoundException", 404, "SNAPSHOT_NOT_FOUND", SnapshotError),
        ("ValidationException", 400, "INVALID_SNAPSHOT_ID", SnapshotError),
        ("ServiceQuotaExceededException", 402, "DEPENDENCY_SERVICE_QUOTA_EXCEEDED", SnapshotError),
        ("UnrecognizedClientException", 403, None, ConfigurationError),
        ("ExpiredTokenException", 403, None, ConfigurationError),
        ("ConcurrentLimitExceededException", 400, None, VolumeUnavailableError),
        ("InternalServerException", 500, None, VolumeUnavailableError),
    ],
)
def test_a_refusal_has_its_error(
    server: EbsStandin,
    api: BotoDirectApi,
    snapshot: str,
    block: Block,
    code: str,
    status: int,
    reason: str | None,
    expected: type[BackupToolError],
) -> None:
    server.faults.fail("GetSnapshotBlock", code, "said so", status=status, reason=reason, times=None)
    with pytest.raises(expected, match="said so") as told:
        api.get_block(snapshot, block)
    assert code in told.value.fact
    if expected is not VolumeUnavailableError:
        assert server.calls.count("GetSnapshotBlock") == 1


def test_without_a_region_the_settings_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="region"):
        BotoDirectApi()


def test_without_credentials_the_settings_are_told(
    server: EbsStandin, snapshot: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with closing(BotoDirectApi(threads=1)) as api, pytest.raises(ConfigurationError, match="credentials"):
        api.volume_size(snapshot)


def test_the_environment_leads_to_the_server(
    server: EbsStandin, snapshot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    with closing(BotoDirectApi(threads=2)) as api:
        assert api.volume_size(snapshot) == 1 << 30
