"""The workers' reader: the bytes in any order, ahead of the reading, each block once."""

import random
import threading
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from questdb_backup.ebs.base import BLOCK_BYTES
from questdb_backup.ebs.block_reader import BlockReader
from tests.unit.ebs_blocks.conftest import MIB, SNAPSHOT, blocks_of, image_bytes, noise, read, snapshot_of


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


def test_without_threads_the_reader_fetches_when_it_is_asked() -> None:
    api = snapshot_of(*range(10))
    reader = BlockReader(api, blocks_of(0, 10 * BLOCK_BYTES), threads=0)
    assert api.gets.total() == 0
    assert read(reader, 0, 10 * BLOCK_BYTES) == image_bytes(range(10), 0, 10 * BLOCK_BYTES)
    reader.close()


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
