"""The planner's devices: the bytes, each block once, tokens in windows."""

import random
import threading

import pytest

from questdb_backup.ebs.base import BLOCK_BYTES
from questdb_backup.ebs.blocks import BaseDevice, SnapshotDevice
from questdb_backup.errors import DamagedVolumeError, VolumeUnavailableError
from questdb_backup.volumes.base import Stretch
from tests.support.memory_direct_api import MemoryDirectApi
from tests.unit.ebs_blocks.conftest import GIB, MIB, SNAPSHOT, image_bytes, noise, snapshot_of


def test_a_device_gives_the_bytes_and_zeros_where_nothing_was_written() -> None:
    api = snapshot_of(0, 1, 7)
    device = SnapshotDevice(api, SNAPSHOT)
    assert device.size == GIB
    for offset, length in (
        (0, 1),
        (BLOCK_BYTES - 3, 6),
        (BLOCK_BYTES, 3 * BLOCK_BYTES),
        (0, 4 * MIB),
        (5, 0),
    ):
        assert device.read(offset, length) == image_bytes((0, 1, 7), offset, length)
    assert list(device.locate(5, 6)) == [Stretch(5, 6)]


def test_a_device_refuses_what_is_not_within_it() -> None:
    device = SnapshotDevice(snapshot_of(0), SNAPSHOT)
    for offset, length in ((GIB - 1, 2), (-1, 1), (0, -1)):
        with pytest.raises(DamagedVolumeError):
            device.read(offset, length)
        with pytest.raises(DamagedVolumeError):
            list(device.locate(offset, length))


def test_a_device_fetches_a_block_once_and_none_that_it_need_not() -> None:
    api = snapshot_of(*range(64))
    device = SnapshotDevice(api, SNAPSHOT)
    for _ in range(3):
        for offset in range(10 * BLOCK_BYTES, 12 * BLOCK_BYTES, 4096):
            device.read(offset, 512)
    device.read(500 * BLOCK_BYTES, 4 * BLOCK_BYTES)  # never written
    assert api.gets == {(SNAPSHOT, 10): 1, (SNAPSHOT, 11): 1}
    assert (device.fetched, device.fetches) == (2, 2)


def test_a_device_keeps_the_blocks_that_were_used_last() -> None:
    api = snapshot_of(*range(8))
    device = SnapshotDevice(api, SNAPSHOT, cache_blocks=2)
    for index in (0, 1, 0, 2, 0, 1):
        device.read(index * BLOCK_BYTES, 1)
    assert api.gets == {(SNAPSHOT, 0): 1, (SNAPSHOT, 1): 2, (SNAPSHOT, 2): 1}
    assert (device.fetched, device.fetches) == (3, 4)


def test_a_device_lists_the_tokens_of_a_window_once() -> None:
    api = snapshot_of(0, 4095, 4096, 30_000, gib=16)
    device = SnapshotDevice(api, SNAPSHOT)
    for index in (4095, 0, 17, 30_000, 4096, 4095, 30_001):
        device.read(index * BLOCK_BYTES, 1)
    assert api.lists == [(SNAPSHOT, 0, 4096), (SNAPSHOT, 28_672, 32_768), (SNAPSHOT, 4096, 8192)]


def test_a_device_keeps_no_more_tokens_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("questdb_backup.ebs.listed.MOST_TOKENS", 3)
    api = snapshot_of(0, 1, 2, 5000, 5001, gib=8)
    device = SnapshotDevice(api, SNAPSHOT)
    for index in (0, 5000, 5001, 1):
        device.read(index * BLOCK_BYTES, 1)
    assert [first for _, first, _ in api.lists] == [0, 4096, 0]


def test_a_device_lists_again_what_has_expired() -> None:
    api = snapshot_of(0, 1, 2)
    device = SnapshotDevice(api, SNAPSHOT)
    device.read(0, 1)
    api.expire_tokens()
    assert device.read(0, 3 * BLOCK_BYTES) == image_bytes((0, 1, 2), 0, 3 * BLOCK_BYTES)
    assert len(api.lists) == 2


def test_tokens_that_expire_at_once_end_the_reading() -> None:
    api = snapshot_of(0)
    api.before_get = lambda _snapshot_id, _index: api.expire_tokens()
    with pytest.raises(VolumeUnavailableError, match="block 0 of snap-1"):
        SnapshotDevice(api, SNAPSHOT).read(0, 1)


def test_many_threads_read_a_device_and_fetch_each_block_once() -> None:
    api = snapshot_of(*range(32))
    api.before_get = lambda _snapshot_id, _index: threading.Event().wait(0.002)  # so that threads meet
    device = SnapshotDevice(api, SNAPSHOT)
    together = threading.Barrier(8)
    wrong: list[int] = []

    def look(seed: int) -> None:
        places = list(range(32))
        random.Random(seed).shuffle(places)
        together.wait()
        wrong.extend(index for index in places if device.read(index * BLOCK_BYTES, 9) != noise(index)[:9])

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert set(api.gets.values()) == {1}
    assert len(api.lists) == 1


def test_the_base_is_read_from_the_later_snapshot_where_nothing_has_changed() -> None:
    old = {index: noise(index) for index in range(6)}
    new = {**old, 1: noise(101), 7: noise(7)}
    del new[4]
    api = MemoryDirectApi()
    api.add("snap-old", 1, old)
    api.add("snap-new", 2, new)
    later = SnapshotDevice(api, "snap-new")
    changed = set(api.list_changed("snap-old", "snap-new"))
    base = BaseDevice(later, SnapshotDevice(api, "snap-old"), changed)
    assert base.size == GIB
    assert base.read(100, 8 * BLOCK_BYTES) == image_bytes(range(6), 100, 8 * BLOCK_BYTES)
    later.read(0, 4 * BLOCK_BYTES)
    assert set(api.gets) == {
        *(("snap-new", index) for index in (0, 1, 2, 3, 5)),
        *(("snap-old", index) for index in (1, 4)),
    }
    assert set(api.gets.values()) == {1}
    assert list(base.locate(3, 4)) == [Stretch(3, 4)]
    with pytest.raises(DamagedVolumeError):
        base.read(GIB, 1)
