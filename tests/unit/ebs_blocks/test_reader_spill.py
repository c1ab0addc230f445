"""The workers' reader where blocks are come back to: they are not fetched again."""

import errno
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from questdb_backup.chunker import WINDOW_BYTES
from questdb_backup.ebs.base import BLOCK_BYTES
from questdb_backup.ebs.block_reader import BlockReader
from questdb_backup.ebs.spill import SpillFile
from tests.unit.ebs_blocks.conftest import MIB, SNAPSHOT, blocks_of, image_bytes, noise, read, snapshot_of


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
