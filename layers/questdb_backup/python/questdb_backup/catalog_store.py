"""The catalog's home: read it, and change it by compare-and-swap."""

import random
import time
from collections.abc import Callable

from questdb_backup import keys
from questdb_backup.catalog import Catalog, decode_catalog, encode_catalog
from questdb_backup.errors import PreconditionFailedError, StoreUnavailableError
from questdb_backup.stores.base import ObjectStore

_ATTEMPTS = 30


def read_catalog(store: ObjectStore, instance: str) -> Catalog:
    """The catalog as it is now; an empty one where the instance has none yet."""
    return _read(store, instance)[0]


def update_catalog(store: ObjectStore, instance: str, change: Callable[[Catalog], Catalog]) -> Catalog:
    """Swap in what ``change`` makes of the newest catalog; give that.

    ``change`` may run many times, must be pure, and must treat its own earlier effect as done (the
    response of a swap can be lost). Whatever it raises passes. Raise StoreUnavailableError where
    other writers win every time.
    """
    key = keys.catalog(instance)
    for attempt in range(_ATTEMPTS):
        before, version = _read(store, instance)
        after = change(before)
        if version is not None and after == before:
            return after
        try:
            store.replace(key, encode_catalog(after), version)
        except PreconditionFailedError:
            time.sleep(random.uniform(0, min(1.0, 0.01 * 2**attempt)))
            continue
        return after
    raise StoreUnavailableError(f"{key} was changed by others {_ATTEMPTS} times in a row", "try again")


def _read(store: ObjectStore, instance: str) -> tuple[Catalog, str | None]:
    """The catalog and its version for a swap; an empty one and None where there is no such object."""
    key = keys.catalog(instance)
    found = store.read(key)
    if found is None:
        return Catalog(instance=instance), None
    return decode_catalog(found.data, f"{key} in {store.location}"), found.version
