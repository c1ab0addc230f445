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
    found = store.read(keys.catalog(instance))
    return decode_catalog(found.data) if found else Catalog(instance=instance)


def update_catalog(store: ObjectStore, instance: str, change: Callable[[Catalog], Catalog]) -> Catalog:
    """Swap in what ``change`` makes of the newest catalog; give that.

    ``change`` may run many times, must be pure, and must treat its own earlier effect as done (the
    response of a swap can be lost). Whatever it raises passes. Raise StoreUnavailableError where
    other writers win every time.
    """
    key = keys.catalog(instance)
    for attempt in range(_ATTEMPTS):
        found = store.read(key)
        before = decode_catalog(found.data) if found else Catalog(instance=instance)
        after = change(before)
        if found and after == before:
            return after
        try:
            store.replace(key, encode_catalog(after), found.version if found else None)
        except PreconditionFailedError:
            time.sleep(random.uniform(0, min(1.0, 0.01 * 2**attempt)))
            continue
        return after
    raise StoreUnavailableError(f"{key} was changed by others {_ATTEMPTS} times in a row", "try again")
