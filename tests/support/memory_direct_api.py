"""The twin of the EBS direct APIs: snapshots are dictionaries of blocks."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from copy import copy

from questdb_backup.ebs.base import BLOCK_BYTES, Block
from questdb_backup.errors import SnapshotError, TokenExpiredError

GIB = 1 << 30


class MemoryDirectApi:
    """DirectApi in memory. ``before_get`` is called before each block is given; it may raise or wait."""

    def __init__(self) -> None:
        self._snapshots: dict[str, tuple[int, Mapping[int, bytes], str]] = {}
        self._lock = threading.Lock()
        self._era = 0
        self.before_get: Callable[[str, int], object] = lambda _snapshot_id, _index: None
        self.gets: Counter[tuple[str, int]] = Counter()
        self.lists: list[tuple[str, int, int]] = []
        self.entries = 0

    def add(self, snapshot_id: str, gib: int, blocks: Mapping[int, bytes], *, lineage: str = "vol-1") -> None:
        """A snapshot of a volume of that size."""
        self._snapshots[snapshot_id] = gib * GIB, blocks, lineage

    def expire_tokens(self) -> None:
        """Let all tokens given so far be refused."""
        self._era += 1

    def volume_size(self, snapshot_id: str) -> int:
        return self._find(snapshot_id)[0]

    def list_blocks(self, snapshot_id: str, first: int, end: int) -> Iterator[Block]:
        _, blocks, _ = self._find(snapshot_id)
        with self._lock:
            self.lists.append((snapshot_id, first, end))
        for index in sorted(blocks):
            if first <= index < end:
                self.entries += 1
                yield Block(index, self._token(snapshot_id, index))

    def list_changed(self, first_snapshot_id: str, second_snapshot_id: str) -> Iterator[int]:
        _, old, lineage = self._find(first_snapshot_id)
        _, new, other = self._find(second_snapshot_id)
        if lineage != other:
            raise SnapshotError(f"{first_snapshot_id} and {second_snapshot_id} are not related")
        yield from sorted(index for index in old.keys() | new.keys() if old.get(index) != new.get(index))

    def get_block(self, snapshot_id: str, block: Block) -> bytes:
        _, blocks, _ = self._find(snapshot_id)
        self.before_get(snapshot_id, block.index)
        if block.token != self._token(snapshot_id, block.index):
            raise TokenExpiredError(f"the token of block {block.index} of {snapshot_id} is not valid")
        with self._lock:
            self.gets[snapshot_id, block.index] += 1
        data = blocks[block.index]
        assert len(data) == BLOCK_BYTES
        return data

    def counting(self, *, workers: int = 1) -> "MemoryDirectApi":
        view = copy(self)
        view.gets, view.lists = Counter(), []
        return view

    @property
    def requests(self) -> dict[str, int]:
        return {"list_requests": len(self.lists), "get_requests": self.gets.total()}

    def _find(self, snapshot_id: str) -> tuple[int, Mapping[int, bytes], str]:
        if snapshot_id not in self._snapshots:
            raise SnapshotError(f"{snapshot_id} does not exist")
        return self._snapshots[snapshot_id]

    def _token(self, snapshot_id: str, index: int) -> str:
        return f"{snapshot_id}/{index}/{self._era}"
