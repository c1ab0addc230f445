"""An object store in this process's memory: the twin that shows the contract in its smallest form."""

import itertools
import threading
from collections.abc import Iterable, Iterator

from questdb_backup.errors import ObjectExistsError, ObjectNotFoundError, PreconditionFailedError
from questdb_backup.stores.base import Data, StoredObject, Versioned
from questdb_backup.stores.keys import check_key, check_prefix, check_range


class MemoryObjectStore:
    """One lock around a dictionary; versions count up and are never given twice."""

    def __init__(self, location: str = "memory://") -> None:
        self._location = location
        self._lock = threading.Lock()
        self._versions = itertools.count(1)
        self._objects: dict[str, Versioned] = {}

    @property
    def location(self) -> str:
        """For messages."""
        return self._location

    def address(self, key: str) -> tuple[str, str]:
        """No bucket."""
        return "", key

    def get(self, key: str) -> bytes:
        """The whole object."""
        found = self.read(key)
        if found is None:
            raise ObjectNotFoundError(f"'{key}' is not in {self._location}")
        return found.data

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Some bytes of the object, fewer where it ends."""
        check_range(key, offset, length)
        return self.get(key)[offset : offset + length]

    def read(self, key: str) -> Versioned | None:
        """The object with its version, or None."""
        with self._lock:
            return self._objects.get(check_key(key))

    def create(self, key: str, data: Data) -> None:
        """Write an object that is not there yet."""
        with self._lock:
            found = self._objects.get(check_key(key))
            if found is None:
                self._store(key, data)
            elif found.data != data:
                raise ObjectExistsError(f"'{key}' is in {self._location} already, with other bytes")

    def replace(self, key: str, data: bytes, expected: str | None) -> str:
        """Compare-and-swap; the new version."""
        with self._lock:
            found = self._objects.get(check_key(key))
            if (found.version if found else None) != expected:
                raise PreconditionFailedError(f"'{key}' in {self._location} was changed by another writer")
            return self._store(key, data)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove what is there."""
        doomed = [check_key(key) for key in keys]
        with self._lock:
            for key in doomed:
                self._objects.pop(key, None)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object under the prefix, as it was when the listing began."""
        with self._lock:
            found = [(key, len(item.data)) for key, item in self._objects.items()]
        check_prefix(prefix)
        return (StoredObject(key, size) for key, size in found if key.startswith(prefix))

    def _store(self, key: str, data: Data) -> str:
        version = str(next(self._versions))
        self._objects[key] = Versioned(bytes(data), version)
        return version
