"""The workers' reader where something goes wrong: errors, closing, and all that boto3 meets on the way."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from questdb_backup.ebs.base import BLOCK_BYTES
from questdb_backup.ebs.block_reader import BlockReader
from questdb_backup.ebs.direct import BotoDirectApi
from questdb_backup.errors import SnapshotError, VolumeUnavailableError
from standin.ebs import EbsStandin, Paging
from tests.support.direct_standin import client, make_volume, take_snapshot, write_blocks
from tests.support.memory_direct_api import MemoryDirectApi
from tests.unit.ebs_blocks.conftest import (
    SNAPSHOT,
    blocks_of,
    image_bytes,
    noise,
    read,
    reader_threads,
    snapshot_of,
)


def fails_at(index: int, error: Callable[[], BaseException]) -> Callable[[str, int], None]:
    def before_get(_snapshot_id: str, asked: int) -> None:
        if asked == index:
            raise error()

    return before_get


def test_the_error_of_a_block_is_raised_where_that_block_is_read() -> None:
    api = snapshot_of(*range(20))
    api.before_get = fails_at(9, lambda: VolumeUnavailableError("block 9 of snap-1: no answer"))
    with BlockReader(api, blocks_of(0, 20 * BLOCK_BYTES), threads=4) as reader:
        for index in range(9):
            read(reader, index * BLOCK_BYTES, BLOCK_BYTES)
        with pytest.raises(VolumeUnavailableError, match="block 9"):
            read(reader, 9 * BLOCK_BYTES, BLOCK_BYTES)
        api.before_get = lambda _snapshot_id, _index: None
        assert read(reader, 9 * BLOCK_BYTES, 11 * BLOCK_BYTES) == image_bytes(
            range(20), 9 * BLOCK_BYTES, 11 * BLOCK_BYTES
        )
    assert set(api.gets.values()) == {1}


def test_a_snapshot_that_is_gone_is_told_by_the_first_read() -> None:
    with (
        BlockReader(MemoryDirectApi(), blocks_of(0, BLOCK_BYTES), threads=2) as reader,
        pytest.raises(SnapshotError, match=SNAPSHOT),
    ):
        read(reader, 0, 1)


def test_an_interrupt_while_a_block_is_fetched_ends_the_reading() -> None:
    api = snapshot_of(*range(4))
    api.before_get = fails_at(0, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt), BlockReader(api, [], threads=2) as reader:
        read(reader, 0, 1)


def test_closing_stops_the_threads_and_reading_afterwards_is_refused() -> None:
    api = snapshot_of(*range(100))
    with BlockReader(api, blocks_of(0, 100 * BLOCK_BYTES), threads=8, memory=8 * BLOCK_BYTES) as reader:
        read(reader, 0, 1)
        assert len(reader_threads()) == 8
    assert reader_threads() == []
    assert api.gets.total() < 20
    with pytest.raises(ValueError, match="closed"):
        read(reader, 0, 1)
    reader.close()


def test_a_reader_that_waits_is_woken_by_the_closing() -> None:
    api = snapshot_of(0)
    started, go_on = threading.Event(), threading.Event()

    def before_get(_snapshot_id: str, _index: int) -> None:
        started.set()
        go_on.wait(30)

    api.before_get = before_get
    told: list[str] = []

    def look() -> None:
        try:
            read(reader, 0, 1)
        except ValueError as error:
            told.append(str(error))

    with BlockReader(api, blocks_of(0, 1), threads=1) as reader:
        assert started.wait(30)
        waiting = threading.Thread(target=look)
        waiting.start()
        closing_thread = threading.Thread(target=reader.close)
        closing_thread.start()
        waiting.join(30)
        assert told == ["the reader is closed"]
        go_on.set()
        closing_thread.join()


# Through boto3, with everything that goes wrong on the way


WRITTEN = sorted({*range(0, 90), *range(700, 740), *random.Random(3).sample(range(2048), 30)})


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EbsStandin, str]]:
    folder = tmp_path_factory.mktemp("ebs")
    paging = Paging(page_cap=25, empty_every=3)
    with EbsStandin(folder / "cloud", frozen_clock=True, paging=paging) as server:
        volume = make_volume(server, folder / "volume.img", 1)
        write_blocks(folder / "volume.img", {index: noise(index) for index in WRITTEN})
        yield server, take_snapshot(server, volume)


def test_through_all_faults_the_bytes_are_right_and_each_block_comes_once(
    cloud: tuple[EbsStandin, str], tmp_path: Path
) -> None:
    server, snapshot_id = cloud
    faults, get = server.faults, "GetSnapshotBlock"
    faults.wrong_checksum(skip=3, times=2)
    faults.truncate(skip=20, times=2)
    faults.cut(get, skip=30, times=2)
    for place, reason in enumerate(
        ("ACCOUNT_THROTTLED", "RESOURCE_LEVEL_THROTTLE", "DEPENDENCY_REQUEST_THROTTLED")
    ):
        faults.throttle(get, reason, skip=40 + 5 * place, times=3)
    faults.throttle("ListSnapshotBlocks", skip=1)
    faults.run(get, lambda: server.clock.advance(8 * 86_400), skip=60)  # all block tokens expire

    def open_client(connections: int) -> Any:
        return client(server, "ebs", connections=connections)

    wanted = [(snapshot_id, index) for index in (*WRITTEN, *WRITTEN[:30])]
    with (
        closing(BotoDirectApi(threads=4, open_client=open_client, sleep=lambda _seconds: None)) as api,
        BlockReader(api, wanted, threads=4, memory=16 * BLOCK_BYTES, spill=tmp_path, reread=0) as reader,
    ):
        for _, index in wanted:
            assert read(reader, index * BLOCK_BYTES, BLOCK_BYTES, snapshot_id) == noise(index)
        counters = api.counters
    assert counters.blocks == len(WRITTEN)
    assert counters.bytes == len(WRITTEN) * BLOCK_BYTES
    assert counters.throttled_seconds > 0
    assert counters.retries == 2 + 2 + 2 + 9 + 1
    assert counters.get_requests == server.calls.count(get)
    assert server.calls.distinct_blocks == {(snapshot_id, index) for index in WRITTEN}
