"""The catalogs as `check` reads them: each whole, missing or damaged, none of which is an error here."""

from dataclasses import dataclass

from questdb_backup import keys
from questdb_backup.catalog import Catalog, decode_catalog
from questdb_backup.errors import DamagedBackupError, UnsupportedFormatError
from questdb_backup.stores.base import ObjectStore

REBUILD = "`questdb-backup check --rebuild --dry-run` shows what can be made anew"


@dataclass(frozen=True, slots=True)
class Look:
    """One reading. Without a ``catalog``: ``version`` None says that there is no object, ``error`` why."""

    catalog: Catalog | None
    version: str | None = None
    error: str | None = None


def look_at(store: ObjectStore, instance: str) -> Look:
    """Read the catalog of an instance. Raise UnsupportedFormatError: a newer version must judge it."""
    key = keys.catalog(instance)
    found = store.read(key)
    if found is None:
        return Look(None, None, f"{key} is missing from {store.location}")
    try:
        catalog = decode_catalog(found.data, f"{key} in {store.location}")
    except UnsupportedFormatError:
        raise
    except DamagedBackupError as error:
        return Look(None, found.version, error.fact)
    if catalog.instance != instance:
        return Look(None, found.version, f"{key} is the catalog of '{catalog.instance}'")
    return Look(catalog, found.version)
