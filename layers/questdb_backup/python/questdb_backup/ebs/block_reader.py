"""What a worker reads snapshots with: blocks are fetched ahead by many threads, and each only once."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from questdb_backup.chunker import WINDOW_BYTES
from questdb_backup.ebs.base import BLOCK_BYTES, DirectApi
from questdb_backup.ebs.listed import ListedBlocks, block_parts, clusters
from questdb_backup.ebs.reading_order import Key, ReadingOrder
from questdb_backup.ebs.spill import SpillFile

logger = logging.getLogger("questdb_backup")

MEMORY_BYTES = 128 << 20
CLOSE_SECONDS = 5.0
_FIRST_SWEEP = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderCounters:
    """What a reader did, in blocks; ``fetched`` counts each time, ``distinct`` each block."""

    fetched: int
    distinct: int
    spilled: int


@dataclass(slots=True)
class _Held:
    """What is known of a block: its bytes, or their slot in the spill file, or neither: it is zeros."""

    data: bytes | None
    slot: int = -1
    read_at: int = -1
    """How many bytes had been given out when it was last read; -1 before that."""


class BlockReader:
    """Reads blocks of snapshots in an order that is known before. It is a context manager.

    Half of the memory is for blocks that are fetched ahead. The other half keeps those that were read,
    for as long as they are wanted again, or may be (``reread``); what does not fit waits in a spill file.
    So no block is fetched twice, unless that file cannot be written. Reading in another order works,
    but is slow. Any thread may read.

    Args:
        api: the direct APIs.
        wanted: snapshot ids and block indexes in the order of reading; a block again where it is come
            back to.
        threads: how many fetch ahead.
        memory: bytes.
        spill: the folder of the spill file; None: the host's directory for temporary files.
        reread: so many bytes may be read over again, counted back from the last byte read.
    """

    def __init__(
        self,
        api: DirectApi,
        wanted: Iterable[Key],
        *,
        threads: int = 16,
        memory: int = MEMORY_BYTES,
        spill: Path | None = None,
        reread: int = WINDOW_BYTES,
    ) -> None:
        self._api = api
        self._order = ReadingOrder(wanted)
        self._threads = [
            threading.Thread(target=self._work, name="block", daemon=True) for _ in range(threads)
        ]
        self._most_ahead = max(1, memory // BLOCK_BYTES // 2)
        self._most_behind = max(1, memory // BLOCK_BYTES - self._most_ahead)
        self._reread = reread
        self._blocks = self._listed(api)

        lock = threading.Lock()
        self._arrived = threading.Condition(lock)
        """Where readers wait for a block that is being fetched."""
        self._room = threading.Condition(lock)
        """Where threads wait until more may be fetched ahead."""
        self._held: dict[Key, _Held] = {}
        self._behind: OrderedDict[Key, _Held] = OrderedDict()
        """Those in memory that were read or passed over, the longest ago first."""
        self._ahead = 0
        """How many in memory were not."""
        self._spilled: dict[Key, _Held] = {}
        self._sweep_at = _FIRST_SWEEP
        self._fetching: set[Key] = set()
        self._failed: dict[Key, BaseException] = {}
        self._spill = SpillFile(spill)
        self._closed = False
        self._given = 0
        self._seen: set[Key] = set()
        self._fetches = 0
        self._spills = 0

    def __enter__(self) -> "BlockReader":
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def counters(self) -> ReaderCounters:
        """So far."""
        with self._arrived:
            return ReaderCounters(fetched=self._fetches, distinct=len(self._seen), spilled=self._spills)

    def read(self, snapshot_id: str, offset: int, buffer: memoryview) -> None:
        """Fill the buffer with the volume's bytes from ``offset`` on.

        Raise SnapshotError, VolumeUnavailableError, OSError where the spill file cannot be read.
        """
        done = 0
        for index, first, last in block_parts(offset, len(buffer)):
            part = buffer[done : done + last - first]
            key = snapshot_id, index
            while not self._give(key, first, part):
                self._fetch(key)
            done += last - first

    def close(self) -> None:
        """Stop the threads and let all blocks go.

        A thread that waits for an answer ends when it has come; after 5 seconds it is left to that.
        """
        with self._arrived:
            self._closed = True
            self._arrived.notify_all()
            self._room.notify_all()
        until = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))
        with self._arrived:
            for blocks in (self._held, self._behind, self._spilled):
                blocks.clear()
            self._spill.close()

    def _listed(self, api: DirectApi) -> dict[str, ListedBlocks]:
        wanted: dict[str, list[int]] = {}
        for snapshot_id, index in self._order.distinct:
            wanted.setdefault(snapshot_id, []).append(index)
        return {name: ListedBlocks(api, name, clusters(indexes)) for name, indexes in wanted.items()}

    # Fetching: `_next` gives a key to one thread, `_fetch` gets it, `_settle` keeps it.

    def _work(self) -> None:
        while (key := self._next()) is not None:
            self._fetch(key)

    def _next(self) -> Key | None:
        with self._room:
            while not self._closed:
                if not self._failed and self._ahead + len(self._fetching) < self._most_ahead:
                    key = self._order.next(self._is_known)
                    if key is not None:
                        self._fetching.add(key)
                        return key
                self._room.wait()
            return None

    def _is_known(self, key: Key) -> bool:
        return key in self._held or key in self._fetching

    def _fetch(self, key: Key) -> None:
        """Get a block that is marked as being fetched; what goes wrong is raised where it is read."""
        snapshot_id, index = key
        try:
            found: bytes | BaseException | None = self._blocks_of(snapshot_id).fetch(index)
        except BaseException as error:
            found = error
        self._settle(key, found)

    def _blocks_of(self, snapshot_id: str) -> ListedBlocks:
        with self._arrived:
            if snapshot_id not in self._blocks:
                self._blocks[snapshot_id] = ListedBlocks(self._api, snapshot_id, clusters(()))
            return self._blocks[snapshot_id]

    def _settle(self, key: Key, found: bytes | BaseException | None) -> None:
        with self._arrived:
            self._fetching.discard(key)
            if isinstance(found, BaseException):
                self._failed[key] = found
            elif not self._closed:
                self._keep(key, found)
            self._arrived.notify_all()

    def _keep(self, key: Key, data: bytes | None) -> None:
        self._held[key] = _Held(data)
        if data is None:
            self._room.notify()
            return
        self._ahead += 1
        self._seen.add(key)
        self._fetches += 1

    # Reading.

    def _give(self, key: Key, first: int, part: memoryview) -> bool:
        """Fill the part; False where the caller has to fetch the block, which is marked for it."""
        with self._arrived:
            while key in self._fetching and not self._closed:
                self._arrived.wait()
            if self._closed:
                raise ValueError("the reader is closed")
            held = self._held.get(key)
            if held is None:
                self._raise_failure(key)
                self._fetching.add(key)
                return False
            self._advance(key, held)
            self._given += len(part)
            if held.slot >= 0:
                self._spill.read_into(held.slot, first, part)
                return True
            data = held.data
            self._make_room()
        part[:] = bytes(len(part)) if data is None else memoryview(data)[first : first + len(part)]
        return True

    def _raise_failure(self, key: Key) -> None:
        error = self._failed.pop(key, None)
        if error is not None:
            self._room.notify_all()
            raise error

    def _advance(self, key: Key, held: _Held) -> None:
        """The block is read now; what lies before it in the order will not be waited for."""
        for passed in self._order.advance(key, is_recent=self._is_recent(held)):
            self._put_behind(passed)
        self._put_behind(key)
        held.read_at = self._given

    def _put_behind(self, key: Key) -> None:
        held = self._held.get(key)
        if held is None or held.data is None:
            return
        if key not in self._behind:
            self._ahead -= 1
            self._room.notify()
        self._behind[key] = held
        self._behind.move_to_end(key)

    def _is_recent(self, held: _Held) -> bool:
        return held.read_at >= 0 and self._given - held.read_at <= self._reread

    def _is_spent(self, key: Key, held: _Held) -> bool:
        return held.read_at >= 0 and not self._is_recent(held) and self._order.is_past(key)

    # Keeping.

    def _make_room(self) -> None:
        while len(self._behind) > self._most_behind:
            key, held = self._behind.popitem(last=False)
            if self._is_spent(key, held):
                del self._held[key]
            else:
                self._put_away(key, held)

    def _put_away(self, key: Key, held: _Held) -> None:
        assert held.data is not None, "it is in memory"
        if len(self._spilled) >= self._sweep_at:
            self._sweep()
        try:
            held.slot = self._spill.put(held.data)
        except OSError as error:
            logger.warning("a block that is wanted again will be fetched again: it cannot be kept: %s", error)
            del self._held[key]
            return
        held.data = None
        self._spilled[key] = held
        self._spills += 1

    def _sweep(self) -> None:
        """Free the slots of blocks that are not wanted any more; each sweep is paid for by as many spills."""
        for key, held in [*self._spilled.items()]:
            if self._is_spent(key, held):
                self._spill.free(held.slot)
                del self._spilled[key], self._held[key]
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._spilled))
