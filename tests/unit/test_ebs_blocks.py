"""Snapshots as devices, and the workers' reader: each block once, whatever comes between."""

import errno
import itertools
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from questdb_backup.chunker import WINDOW_BYTES
from questdb_backup.ebs.base import BLOCK_BYTES
from questdb_backup.ebs.block_reader import BlockReader
from questdb_backup.ebs.blocks import BaseDevice, SnapshotDevice
from questdb_backup.ebs.direct import BotoDirectApi
from questdb_backup.ebs.listed import GAP_BLOCKS, RANGE_BLOCKS, clusters
from questdb_backup.ebs.reading_order import ReadingOrder
from questdb_backup.ebs.spill import SpillFile
from questdb_backup.errors import DamagedVolumeError, SnapshotError, VolumeUnavailableError
from questdb_backup.volumes.base import Stretch
from standin.ebs import EbsStandin, Paging
from tests.support.direct_standin import client, make_volume, take_snapshot, write_blocks
from tests.support.memory_direct_api import MemoryDirectApi

SNAPSHOT = "snap-1"
GIB = 1 << 30
MIB = 1 << 20

_random = random.Random(3)
_NOISE = _random.randbytes(BLOCK_BYTES)


def noise(index: int) -> bytes:
    """A block that no other index has."""
    return index.to_bytes(8, "big") + _NOISE[index % 999 + 8 :] + _NOISE[: index % 999]


class Noise(Mapping[int, bytes]):
    """Blocks of noise under these indexes, made when they are asked for."""

    def __init__(self, indexes: Iterable[int]) -> None:
        self._indexes = frozenset(indexes)

    def __getitem__(self, index: int) -> bytes:
        if index not in self._indexes:
            raise KeyError(index)
        return noise(index)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indexes)

    def __len__(self) -> int:
        return len(self._indexes)


def snapshot_of(*indexes: int, gib: int = 1) -> MemoryDirectApi:
    api = MemoryDirectApi()
    api.add(SNAPSHOT, gib, Noise(indexes))
    return api


def image_bytes(api_blocks: Sequence[int], offset: int, length: int) -> bytes:
    parts = []
    while length:
        index, first = divmod(offset, BLOCK_BYTES)
        part = (noise(index) if index in api_blocks else bytes(BLOCK_BYTES))[first : first + length]
        parts.append(part)
        offset, length = offset + len(part), length - len(part)
    return b"".join(parts)


def blocks_of(offset: int, length: int) -> list[tuple[str, int]]:
    return [(SNAPSHOT, index) for index in range(offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES))]


def read(reader: BlockReader, offset: int, length: int, snapshot_id: str = SNAPSHOT) -> bytes:
    data = bytearray(b"?" * length)
    reader.read(snapshot_id, offset, memoryview(data))
    return bytes(data)


def reader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "block"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert reader_threads() == []


# The planner's devices


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


# What is listed together


def test_neighbours_are_listed_together_and_far_blocks_alone() -> None:
    span = clusters([5000, 0, 10, 10 + GAP_BLOCKS, 4000])
    assert [span(index) for index in (0, 10, 10 + GAP_BLOCKS, 4000, 5000)] == [
        *[(0, 11 + GAP_BLOCKS)] * 3,
        (4000, 4001),
        (5000, 5001),
    ]
    assert span(4500) == (4500, 4501)  # wanted by nobody


def test_no_span_is_longer_than_one_request_can_list() -> None:
    span = clusters(range(0, 3 * RANGE_BLOCKS, 100))
    assert max(end - first for first, end in map(span, range(0, 3 * RANGE_BLOCKS, 100))) <= RANGE_BLOCKS


@given(st.sets(st.integers(0, 40_000), max_size=60))
def test_every_wanted_block_is_in_its_span_and_no_two_spans_meet(indexes: set[int]) -> None:
    span = clusters(indexes)
    spans = sorted({span(index) for index in indexes})
    assert all(span(index)[0] <= index < span(index)[1] for index in indexes)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


# How far the reading has come


def test_a_step_back_is_no_leap_to_where_the_block_is_wanted_next() -> None:
    a, b, c, d = ((SNAPSHOT, index) for index in range(4))
    order = ReadingOrder([a, b, b, c, d, a])
    for key in (a, b):
        assert order.advance(key, is_recent=False) == []
    assert order.advance(a, is_recent=True) == ()
    assert order.next({a, b}.__contains__) == c
    assert order.advance(c, is_recent=False) == []
    assert [order.is_past(key) for key in (a, b, c, d)] == [False, True, False, False]


def test_what_is_left_out_is_passed_over() -> None:
    a, b, c, d = ((SNAPSHOT, index) for index in range(4))
    order = ReadingOrder([a, b, c, d, a])
    order.advance(a, is_recent=False)
    assert order.advance(d, is_recent=False) == [b, c]
    assert order.next(lambda _key: False) == d
    assert order.is_past(b)
    assert order.advance(a, is_recent=True) == []  # the very next one may be a read over again: no harm
    assert not order.is_past(a)
    assert order.advance((SNAPSHOT, 9), is_recent=False) == ()
    assert order.is_past((SNAPSHOT, 9))


# The workers' reader


def test_a_reader_gives_the_bytes_in_order_each_block_once(tmp_path: Path) -> None:
    api = snapshot_of(*range(0, 60))
    with BlockReader(api, blocks_of(0, 64 * BLOCK_BYTES), threads=4, spill=tmp_path) as reader:
        for offset in range(0, 64 * BLOCK_BYTES, 3 * MIB):
            length = min(3 * MIB, 64 * BLOCK_BYTES - offset)
            assert read(reader, offset, length) == image_bytes(range(60), offset, length)
        assert (reader.counters.fetched, reader.counters.distinct, reader.counters.spilled) == (60, 60, 0)
    assert set(api.gets.values()) == {1}
    assert len(api.lists) == 1


def test_a_reader_lists_only_the_ranges_that_are_wanted() -> None:
    api = snapshot_of(*range(0, 20_000), gib=16)
    wanted = [(SNAPSHOT, index) for index in (3, 5, 15_000, 15_100, 9_000)]
    with BlockReader(api, wanted, threads=3) as reader:
        for _, index in wanted:
            assert read(reader, index * BLOCK_BYTES, 4) == noise(index)[:4]
    assert sorted(api.lists) == [(SNAPSHOT, 3, 6), (SNAPSHOT, 9_000, 9_001), (SNAPSHOT, 15_000, 15_101)]


def test_a_reader_fetches_in_parallel_as_many_as_it_has_threads() -> None:
    api = snapshot_of(*range(16))
    together = threading.Barrier(4, timeout=30)
    api.before_get = lambda _snapshot_id, _index: together.wait()  # passes only when four are there
    with BlockReader(api, blocks_of(0, 16 * BLOCK_BYTES), threads=4) as reader:
        # The reading begins behind the last block, so that this thread does not fetch itself.
        while reader.counters.fetched < 16:
            threading.Event().wait(0.001)
        assert read(reader, 0, 16 * BLOCK_BYTES) == image_bytes(range(16), 0, 16 * BLOCK_BYTES)


def test_a_reader_fetches_ahead_no_more_than_its_memory_holds() -> None:
    api = snapshot_of(*range(64))
    with BlockReader(api, blocks_of(0, 64 * BLOCK_BYTES), threads=8, memory=16 * BLOCK_BYTES) as reader:
        for index in range(64):
            read(reader, index * BLOCK_BYTES, BLOCK_BYTES)
            assert api.gets.total() <= index + 1 + 8
    assert api.gets.total() == 64


@dataclass
class Reread:
    """As the chunker reads: windows, of which the last half is read again with the next one."""

    reader: BlockReader
    stretches: Sequence[tuple[int, int]]
    """Offset and length of the pieces of a file."""
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum(length for _, length in self.stretches)

    def window(self, start: int, length: int) -> bytes:
        parts, position = [], 0
        for offset, nbytes in self.stretches:
            first, last = max(start, position), min(start + length, position + nbytes)
            if first < last:
                parts.append(read(self.reader, offset + first - position, last - first))
            position += nbytes
        return b"".join(parts)

    def windows(self) -> Iterator[tuple[int, bytes]]:
        start = 0
        while start < self.size:
            length = min(WINDOW_BYTES, self.size - start)
            yield start, self.window(start, length)
            start += length if start + length == self.size else length // 2


def fragments(count: int, length: int) -> list[tuple[int, int]]:
    """Pieces of that length, each in another block, in no order."""
    indexes = list(range(count))
    random.Random(4).shuffle(indexes)
    return [(index * BLOCK_BYTES + 1000, length) for index in indexes]


@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize(
    ("stretches", "spills"),
    [([(0, 24 * MIB)], False), (fragments(300, 64 << 10), True), (fragments(600, 4 << 10), True)],
    ids=["whole", "fragments of 64 KiB", "fragments of 4 KiB"],
)
def test_what_is_read_over_again_is_not_fetched_again(
    tmp_path: Path, stretches: list[tuple[int, int]], spills: bool, threads: int
) -> None:
    api = snapshot_of(*range(1000))
    wanted = [key for offset, length in stretches for key in blocks_of(offset, length)]
    whole = b"".join(image_bytes(range(1000), *stretch) for stretch in stretches)
    with BlockReader(api, wanted, threads=threads, memory=32 * BLOCK_BYTES, spill=tmp_path) as reader:
        for start, window in Reread(reader, stretches).windows():
            assert window == whole[start : start + len(window)]
        assert (reader.counters.spilled > 0) is spills
    assert set(api.gets.values()) == {1}
    assert api.gets.total() == len(set(wanted))


def test_a_block_that_is_come_back_to_waits_on_disk(tmp_path: Path) -> None:
    api = snapshot_of(*range(100))
    order = [*range(10), *range(10, 100), *range(10)]
    with BlockReader(
        api,
        [(SNAPSHOT, index) for index in order],
        threads=4,
        memory=8 * BLOCK_BYTES,
        spill=tmp_path,
        reread=0,
    ) as reader:
        for index in order:
            assert read(reader, index * BLOCK_BYTES, BLOCK_BYTES) == noise(index)
        assert reader.counters.spilled < 20  # the ten, and hardly any other
    assert set(api.gets.values()) == {1}
    assert list(tmp_path.iterdir()) == []


def test_slots_of_the_spill_file_are_used_again(tmp_path: Path) -> None:
    api = snapshot_of(*range(400))
    spilled: set[int] = set()
    put = SpillFile.put

    def counted(self: SpillFile, data: bytes) -> int:
        spilled.add(slot := put(self, data))
        return slot

    pairs = [index for first in range(0, 400, 20) for index in (*range(first, first + 20),) * 2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpillFile, "put", counted)
        with BlockReader(
            api,
            [(SNAPSHOT, index) for index in pairs],
            threads=2,
            memory=8 * BLOCK_BYTES,
            spill=tmp_path,
            reread=0,
        ) as reader:
            for index in pairs:
                assert read(reader, index * BLOCK_BYTES, 99) == noise(index)[:99]
            assert reader.counters.spilled > 2 * len(spilled)
    assert set(api.gets.values()) == {1}


def test_a_full_disk_costs_fetches_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: SpillFile, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SpillFile, "put", full)
    api = snapshot_of(*range(60))
    order = [*range(60), *range(60)]
    with BlockReader(
        api, [(SNAPSHOT, index) for index in order], threads=4, memory=8 * BLOCK_BYTES, spill=tmp_path
    ) as reader:
        for index in order:
            assert read(reader, index * BLOCK_BYTES, 99) == noise(index)[:99]
        assert reader.counters.fetched > reader.counters.distinct == 60


@given(
    st.lists(
        st.tuples(st.integers(0, 30 * BLOCK_BYTES), st.integers(0, 3 * BLOCK_BYTES)), min_size=1, max_size=30
    ),
    st.sets(st.integers(0, 33)),
    st.integers(2, 12),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
@settings(max_examples=150, deadline=None)
def test_any_stretches_are_read_as_the_image_has_them_each_block_once(
    stretches: list[tuple[int, int]],
    written: set[int],
    memory_blocks: int,
    threads: int,
    chance: random.Random,
) -> None:
    api = snapshot_of(*written)
    wanted = [key for offset, length in stretches for key in blocks_of(offset, length) if length]
    skipped = [stretch for stretch in stretches if chance.random() < 0.1]
    with BlockReader(api, wanted, threads=threads, memory=memory_blocks * BLOCK_BYTES) as reader:
        for offset, length in stretches:
            if (offset, length) in skipped:
                continue
            while length:
                part = min(length, chance.randrange(1, 2 * BLOCK_BYTES))
                assert read(reader, offset, part) == image_bytes(sorted(written), offset, part)
                offset, length = offset + part, length - part
    assert set(api.gets.values()) <= {1}
    assert set(api.gets) <= set(wanted)
    if not skipped:
        assert set(api.gets) == {(name, index) for name, index in wanted if index in written}


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.lists(st.integers(0, 60), max_size=60))
@settings(max_examples=100, deadline=None)
def test_another_order_than_the_promised_one_is_served_too(promised: list[int], order: list[int]) -> None:
    api = snapshot_of(*range(50))
    with BlockReader(
        api, [(SNAPSHOT, index) for index in promised], threads=2, memory=4 * BLOCK_BYTES
    ) as reader:
        for index in order:
            assert read(reader, index * BLOCK_BYTES + 5, 99) == image_bytes(
                range(50), index * BLOCK_BYTES + 5, 99
            )


def test_many_threads_read_with_one_reader() -> None:
    api = snapshot_of(*range(80))
    wrong: list[int] = []

    def look(part: int) -> None:
        for index in range(part, 80, 4):
            if read(reader, index * BLOCK_BYTES, BLOCK_BYTES) != noise(index):
                wrong.append(index)

    with BlockReader(api, blocks_of(0, 80 * BLOCK_BYTES), threads=3, memory=16 * BLOCK_BYTES) as reader:
        threads = [threading.Thread(target=look, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert set(api.gets.values()) == {1}


def test_two_snapshots_are_read_side_by_side() -> None:
    api = snapshot_of(0, 1)
    api.add("snap-2", 1, {0: noise(70), 1: noise(71)}, lineage="vol-2")
    order = [(SNAPSHOT, 0), ("snap-2", 0), (SNAPSHOT, 1), ("snap-2", 1)]
    with BlockReader(api, order, threads=2) as reader:
        found = [read(reader, index * BLOCK_BYTES, 8, name) for name, index in order]
    assert found == [noise(index)[:8] for index in (0, 70, 1, 71)]


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


def test_without_threads_the_reader_fetches_when_it_is_asked() -> None:
    api = snapshot_of(*range(10))
    reader = BlockReader(api, blocks_of(0, 10 * BLOCK_BYTES), threads=0)
    assert api.gets.total() == 0
    assert read(reader, 0, 10 * BLOCK_BYTES) == image_bytes(range(10), 0, 10 * BLOCK_BYTES)
    reader.close()


# Through boto3, with everything that goes wrong on the way


WRITTEN = sorted({*range(0, 90), *range(700, 740), *_random.sample(range(2048), 30)})


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
