"""A store for a verb that only looks: nothing is written, not even where its folder is not made yet."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Never

from questdb_backup.errors import StoreAccessDeniedError, StoreNotFoundError
from questdb_backup.stores.base import Data, ObjectStore, StoredObject, Versioned
from questdb_backup.stores.connection_string import FsLocation, parse_connection_string


def open_for_reading(text: str, *, max_connections: int) -> "ReadOnlyStore":
    """The object store that a ``backup.object.store`` value names, as `open_store` opens it for a backup.

    A folder that the first backup would make is an empty store. Raise ConfigurationError, and
    StoreNotFoundError where a backup could not make it either.
    """
    from questdb_backup.stores.open import open_store

    location = parse_connection_string(text)
    if not isinstance(location, FsLocation):
        return ReadOnlyStore(open_store(text, max_connections=max_connections))
    root, atomic = Path(location.root), Path(location.atomic_write_dir)
    if atomic.parent != root and not atomic.parent.is_dir():
        raise StoreNotFoundError(
            f"'{atomic}' cannot be made, its parent does not exist", "mount the disk or make the folder"
        )
    if root.parent.is_dir() and not root.exists():
        from questdb_backup.stores.memory import MemoryObjectStore

        return ReadOnlyStore(MemoryObjectStore(f"fs://{root}"))
    from questdb_backup.stores.fs import FsObjectStore

    return ReadOnlyStore(FsObjectStore(root, atomic, read_only=True))


class ReadOnlyStore:
    """Gives reads on to ``inner``; every write raises StoreAccessDeniedError."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner

    @property
    def location(self) -> str:
        """The inner store's."""
        return self._inner.location

    def address(self, key: str) -> tuple[str, str]:
        """The inner store's."""
        return self._inner.address(key)

    def get(self, key: str) -> bytes:
        """The inner store's."""
        return self._inner.get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """The inner store's."""
        return self._inner.get_range(key, offset, length)

    def read(self, key: str) -> Versioned | None:
        """The inner store's."""
        return self._inner.read(key)

    def create(self, key: str, data: Data) -> None:
        """Refused."""
        del data
        self._refuse(key)

    def replace(self, key: str, data: bytes, expected: str | None) -> str:
        """Refused."""
        del data, expected
        self._refuse(key)

    def delete(self, keys: Iterable[str]) -> None:
        """Refused."""
        self._refuse(", ".join(keys))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """The inner store's."""
        return self._inner.list(prefix)

    def _refuse(self, key: str) -> Never:
        raise StoreAccessDeniedError(f"'{key}' is not written: {self.location} was opened for reading only")
