"""A store that counts what goes through it: the request budget, and the proof that a verb lists nothing."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

from questdb_backup.stores.base import Data, ObjectStore, StoredObject, Versioned

PAGE = 1000  # keys of one S3 list page and of one S3 delete request


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestCounts:
    """Requests as S3 bills them, failed ones too, and the bytes of the objects that moved."""

    get: int = 0
    put: int = 0
    list: int = 0
    delete: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    @property
    def requests(self) -> int:
        """Requests of every kind."""
        return self.get + self.put + self.list + self.delete

    def __sub__(self, earlier: "RequestCounts") -> "RequestCounts":
        """What came after an earlier reading."""
        return RequestCounts(
            **{f.name: getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)}
        )


class CountingStore:
    """Give every call on to ``inner`` and count it first. Retries inside the adapter are not seen."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._counts = RequestCounts()

    @property
    def counts(self) -> RequestCounts:
        """The counts so far; take two and subtract."""
        with self._lock:
            return self._counts

    @property
    def location(self) -> str:
        """The inner store's."""
        return self._inner.location

    def address(self, key: str) -> tuple[str, str]:
        """The inner store's; no request."""
        return self._inner.address(key)

    def get(self, key: str) -> bytes:
        """Count one get."""
        self._add(get=1)
        return self._count_read(self._inner.get(key))

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Count one get."""
        self._add(get=1)
        return self._count_read(self._inner.get_range(key, offset, length))

    def read(self, key: str) -> Versioned | None:
        """Count one get."""
        self._add(get=1)
        found = self._inner.read(key)
        self._count_read(found.data if found else b"")
        return found

    def create(self, key: str, data: Data) -> None:
        """Count one put."""
        self._add(put=1, bytes_written=len(data))
        self._inner.create(key, data)

    def replace(self, key: str, data: bytes, expected: str | None) -> str:
        """Count one put."""
        self._add(put=1, bytes_written=len(data))
        return self._inner.replace(key, data, expected)

    def delete(self, keys: Iterable[str]) -> None:
        """Count one delete for each thousand keys."""
        doomed = list(keys)
        self._add(delete=-(-len(doomed) // PAGE))
        self._inner.delete(doomed)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Count one list at the call, and one for each further page that is taken."""
        self._add(list=1)
        return self._count_pages(self._inner.list(prefix))

    def _count_pages(self, found: Iterator[StoredObject]) -> Iterator[StoredObject]:
        for number, item in enumerate(found):
            if number and number % PAGE == 0:
                self._add(list=1)
            yield item

    def _count_read(self, data: bytes) -> bytes:
        self._add(bytes_read=len(data))
        return data

    def _add(self, **more: int) -> None:
        with self._lock:
            now = self._counts
            self._counts = replace(now, **{name: getattr(now, name) + n for name, n in more.items()})
