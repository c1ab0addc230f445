"""Many small objects at a time: each waits for its store, and a store far away takes its time."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from questdb_backup.stores.base import ObjectStore

_AT_ONCE = 8


class ParallelWrites:
    """Creates objects, some at a time; when the block is left without an error, all of them are stored.

    An error comes out of a later `create` or of the end of the block.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="write")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> "ParallelWrites":
        return self

    def create(self, key: str, data: bytes) -> None:
        """Create an object that is not there yet, as the store's `create` does."""
        self._waiting.append(self._pool.submit(self._store.create, key, data))
        while len(self._waiting) > 2 * _AT_ONCE:
            self._waiting.popleft().result()

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        while kind is None and self._waiting:
            self._waiting.popleft().result()
