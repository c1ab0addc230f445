"""One suite for every `DirectApi`: the twin in memory, and boto3 against the stand-in server."""

import random
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from questdb_backup.ebs.base import BLOCK_BYTES, Block, DirectApi
from questdb_backup.ebs.direct import BotoDirectApi
from questdb_backup.errors import SnapshotError, TokenExpiredError
from standin.ebs import EbsStandin, Paging
from tests.support.direct_standin import client, make_volume, take_snapshot, write_blocks
from tests.support.memory_direct_api import MemoryDirectApi

GIB = 1 << 30
BLOCK_TOKEN_SECONDS = 7 * 86_400

_random = random.Random(1)
FIRST = {index: _random.randbytes(BLOCK_BYTES) for index in (0, 1, 2, 9, 500, 2047)}
SECOND = {**FIRST, 1: _random.randbytes(BLOCK_BYTES), 3: _random.randbytes(BLOCK_BYTES)}
OTHER = {7: _random.randbytes(BLOCK_BYTES)}


@dataclass(frozen=True, kw_only=True)
class Snapshots:
    """Two snapshots of one volume of a GiB, one of another volume, and what reads them."""

    api: DirectApi
    first: str
    second: str
    other: str
    unknown: str
    expire_tokens: Callable[[], object]


def in_memory() -> Snapshots:
    api = MemoryDirectApi()
    api.add("snap-a", 1, FIRST)
    api.add("snap-b", 1, SECOND)
    api.add("snap-c", 1, OTHER, lineage="vol-2")
    return Snapshots(
        api=api,
        first="snap-a",
        second="snap-b",
        other="snap-c",
        unknown="snap-d",
        expire_tokens=api.expire_tokens,
    )


@contextmanager
def on_the_standin(folder: Path, paging: Paging) -> Iterator[Snapshots]:
    with EbsStandin(folder / "cloud", frozen_clock=True, paging=paging) as server:
        image, other = folder / "volume.img", folder / "other.img"
        volume, other_volume = make_volume(server, image, 1), make_volume(server, other, 1)
        write_blocks(image, FIRST)
        first = take_snapshot(server, volume)
        write_blocks(image, {index: SECOND[index] for index in (1, 3)})
        second = take_snapshot(server, volume)
        write_blocks(other, OTHER)
        with closing(BotoDirectApi(unseen_seconds=0.0, open_client=partial(_client, server))) as api:
            yield Snapshots(
                api=api,
                first=first,
                second=second,
                other=take_snapshot(server, other_volume),
                unknown="snap-0123456789abcdef0",
                expire_tokens=lambda: server.clock.advance(BLOCK_TOKEN_SECONDS + 1),
            )


def _client(server: EbsStandin, connections: int) -> Any:
    return client(server, "ebs", connections=connections)


PAGINGS = {"whole pages": Paging(), "short and empty pages": Paging(page_cap=2, empty_every=2)}


@pytest.fixture(scope="module", params=["memory", *PAGINGS])
def snapshots(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Snapshots]:
    if request.param == "memory":
        yield in_memory()
    else:
        with on_the_standin(tmp_path_factory.mktemp("ebs"), PAGINGS[request.param]) as opened:
            yield opened


def listed(snapshots: Snapshots, snapshot_id: str, first: int = 0, end: int = 2048) -> dict[int, Block]:
    return {block.index: block for block in snapshots.api.list_blocks(snapshot_id, first, end)}


def test_the_volume_has_its_size(snapshots: Snapshots) -> None:
    assert snapshots.api.volume_size(snapshots.first) == GIB


def test_the_written_blocks_are_listed_in_order(snapshots: Snapshots) -> None:
    assert list(listed(snapshots, snapshots.first)) == sorted(FIRST)
    assert list(listed(snapshots, snapshots.second)) == sorted(SECOND)


@pytest.mark.parametrize(
    ("first", "end"),
    [(0, 1), (1, 10), (2, 9), (3, 9), (10, 500), (500, 501), (501, 2047), (2047, 2048), (5, 5)],
)
def test_only_the_blocks_of_a_range_are_listed(snapshots: Snapshots, first: int, end: int) -> None:
    assert list(listed(snapshots, snapshots.first, first, end)) == [
        index for index in sorted(FIRST) if first <= index < end
    ]


def test_a_block_has_the_bytes_that_were_written(snapshots: Snapshots) -> None:
    for snapshot_id, blocks in ((snapshots.first, FIRST), (snapshots.second, SECOND)):
        for index, block in listed(snapshots, snapshot_id).items():
            assert snapshots.api.get_block(snapshot_id, block) == blocks[index]


def test_the_blocks_that_changed_are_listed_in_order(snapshots: Snapshots) -> None:
    assert list(snapshots.api.list_changed(snapshots.first, snapshots.second)) == [1, 3]
    assert list(snapshots.api.list_changed(snapshots.second, snapshots.first)) == [1, 3]
    assert list(snapshots.api.list_changed(snapshots.first, snapshots.first)) == []


def test_snapshots_of_two_volumes_are_not_compared(snapshots: Snapshots) -> None:
    with pytest.raises(SnapshotError):
        list(snapshots.api.list_changed(snapshots.first, snapshots.other))


def test_a_snapshot_that_is_not_there_is_told(snapshots: Snapshots) -> None:
    block = listed(snapshots, snapshots.first)[0]
    for ask in (
        lambda: snapshots.api.volume_size(snapshots.unknown),
        lambda: listed(snapshots, snapshots.unknown),
        lambda: list(snapshots.api.list_changed(snapshots.first, snapshots.unknown)),
        lambda: list(snapshots.api.list_changed(snapshots.unknown, snapshots.first)),
        lambda: snapshots.api.get_block(snapshots.unknown, block),
    ):
        with pytest.raises(SnapshotError, match=snapshots.unknown):
            ask()


def test_an_expired_token_is_told_and_a_new_one_helps(snapshots: Snapshots) -> None:
    old = listed(snapshots, snapshots.first)[9]
    snapshots.expire_tokens()
    with pytest.raises(TokenExpiredError):
        snapshots.api.get_block(snapshots.first, old)
    new = listed(snapshots, snapshots.first, 9, 10)[9]
    assert snapshots.api.get_block(snapshots.first, new) == FIRST[9]


def test_a_token_is_good_for_its_own_block_only(snapshots: Snapshots) -> None:
    blocks = listed(snapshots, snapshots.first)
    with pytest.raises(TokenExpiredError):
        snapshots.api.get_block(snapshots.first, Block(2, blocks[9].token))
    with pytest.raises(TokenExpiredError):
        snapshots.api.get_block(snapshots.second, blocks[9])


def test_a_counting_view_counts_from_zero_and_reads_the_same(snapshots: Snapshots) -> None:
    block = listed(snapshots, snapshots.first)[9]
    before = snapshots.api.requests
    view = snapshots.api.counting()
    assert view.requests == {"list_requests": 0, "get_requests": 0}
    assert view.get_block(snapshots.first, block) == FIRST[9]
    assert view.requests == {"list_requests": 0, "get_requests": 1}
    assert [each.index for each in view.list_blocks(snapshots.first, 0, 1)] == [0]
    assert view.requests["list_requests"] in (1, 2)  # an empty page may come before
    assert view.requests["get_requests"] == 1
    assert snapshots.api.requests == before
