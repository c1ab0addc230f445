"""Snapshots of noise, and what a device or a reader must give of them; no test leaves a thread."""

import random
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pytest

from questdb_backup.ebs.base import BLOCK_BYTES
from questdb_backup.ebs.block_reader import BlockReader
from tests.support.memory_direct_api import MemoryDirectApi

SNAPSHOT = "snap-1"
GIB = 1 << 30
MIB = 1 << 20

_NOISE = random.Random(3).randbytes(BLOCK_BYTES)


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
