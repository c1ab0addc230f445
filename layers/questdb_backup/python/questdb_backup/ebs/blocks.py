"""Snapshots as devices for the planner, which fetches no block that it does not look at."""

import threading
from collections import OrderedDict
from collections.abc import Container, Iterator

from questdb_backup.ebs.base import BLOCK_BYTES, DirectApi
from questdb_backup.ebs.block_reader import BlockReader
from questdb_backup.ebs.listed import ListedBlocks, block_parts, windows
from questdb_backup.volumes.base import Stretch, check_range

__all__ = ["BaseDevice", "BlockReader", "SnapshotDevice"]

CACHE_BLOCKS = 192
"""96 MiB."""
WINDOW_BLOCKS = 4096
"""Tokens are listed for 2 GiB of the volume at a time."""
_GATES = 64
_ZEROS = bytes(BLOCK_BYTES)


class SnapshotDevice:
    """Device on a snapshot: blocks are kept while they are used, absent ones are zeros. For many threads.

    Args:
        api: the direct APIs.
        snapshot_id: a completed snapshot.
        cache_blocks: how many blocks are kept, 512 KiB each.
    """

    def __init__(self, api: DirectApi, snapshot_id: str, *, cache_blocks: int = CACHE_BLOCKS) -> None:
        self._api = api
        self._snapshot_id = snapshot_id
        self._most = cache_blocks
        self._blocks = ListedBlocks(api, snapshot_id, windows(WINDOW_BLOCKS))
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._gates = [threading.Lock() for _ in range(_GATES)]
        self._seen = bytearray()
        self._size = -1
        self._fetches = 0
        self._fetched = 0

    @property
    def snapshot_id(self) -> str:
        """Which snapshot it is."""
        return self._snapshot_id

    @property
    def size(self) -> int:
        """As Device says."""
        if self._size < 0:
            self._size = self._api.volume_size(self._snapshot_id)
        return self._size

    @property
    def fetched(self) -> int:
        """How many blocks were fetched, each counted once."""
        return self._fetched

    @property
    def fetches(self) -> int:
        """How often a block was fetched: more than `fetched` where the cache was too small."""
        return self._fetches

    def read(self, offset: int, length: int) -> bytes:
        """As Device says. Raise SnapshotError, VolumeUnavailableError too."""
        check_range(offset, length, self.size)
        parts = [self._block(index)[first:last] for index, first, last in block_parts(offset, length)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def locate(self, offset: int, length: int) -> Iterator[Stretch]:
        """As Device says."""
        check_range(offset, length, self.size)
        yield Stretch(offset, length)

    def _block(self, index: int) -> bytes:
        data = self._cached(index)
        if data is None:
            with self._gates[index % _GATES]:  # one thread fetches, the others find what it fetched
                data = self._cached(index) or self._fetch(index)
        return data

    def _cached(self, index: int) -> bytes | None:
        with self._lock:
            data = self._cache.get(index)
            if data is not None:
                self._cache.move_to_end(index)
            return data

    def _fetch(self, index: int) -> bytes:
        data = self._blocks.fetch(index)
        if data is None:
            return _ZEROS
        with self._lock:
            self._count(index)
            self._cache[index] = data
            while len(self._cache) > self._most:
                self._cache.popitem(last=False)
        return data

    def _count(self, index: int) -> None:
        self._fetches += 1
        at, bit = index >> 3, 1 << (index & 7)
        if at >= len(self._seen):
            self._seen.extend(bytes(at + 1 - len(self._seen)))
        if not self._seen[at] & bit:
            self._seen[at] |= bit
            self._fetched += 1


class BaseDevice:
    """Device on an earlier snapshot of a volume, next to a later one that is read as well.

    Blocks that have not changed between the two are read of the later one, which keeps them already.

    Args:
        later: the device of the later snapshot.
        base: the device of the earlier one.
        changed: indexes of the blocks that were written, or went, between the two.
    """

    def __init__(self, later: SnapshotDevice, base: SnapshotDevice, changed: Container[int]) -> None:
        self._later = later
        self._base = base
        self._changed = changed

    @property
    def size(self) -> int:
        """As Device says."""
        return self._base.size

    def read(self, offset: int, length: int) -> bytes:
        """As Device says. Raise SnapshotError, VolumeUnavailableError too."""
        check_range(offset, length, self.size)
        parts = [
            self._device_of(index).read(index * BLOCK_BYTES + first, last - first)
            for index, first, last in block_parts(offset, length)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def locate(self, offset: int, length: int) -> Iterator[Stretch]:
        """As Device says."""
        return self._base.locate(offset, length)

    def _device_of(self, index: int) -> SnapshotDevice:
        kept = index not in self._changed and (index + 1) * BLOCK_BYTES <= self._later.size
        return self._later if kept else self._base
