"""The one factory of object stores."""

from pathlib import Path

from questdb_backup.stores.base import ObjectStore
from questdb_backup.stores.connection_string import FsLocation, parse_connection_string


def open_store(text: str, *, max_connections: int) -> ObjectStore:
    """The object store that a ``backup.object.store`` value names.

    Args:
        text: the connection string.
        max_connections: connections kept open to an S3 store, at least the threads that use it.

    Raises:
        ConfigurationError: the text is wrong, before anything is opened.
        StoreNotFoundError: the folder of an ``fs`` store is not there and cannot be made.
    """
    location = parse_connection_string(text)
    if isinstance(location, FsLocation):
        from questdb_backup.stores.fs import FsObjectStore

        return FsObjectStore(Path(location.root), Path(location.atomic_write_dir))
    from questdb_backup.stores.s3 import S3ObjectStore

    return S3ObjectStore(location, max_connections=max_connections)
