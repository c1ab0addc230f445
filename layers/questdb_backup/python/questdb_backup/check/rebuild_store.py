"""`check --rebuild` of a whole store: every catalog that is lost, and ``instances.json``."""

from dataclasses import dataclass
from typing import Any

from questdb_backup import keys
from questdb_backup.check.catalogs import look_at
from questdb_backup.check.inventory import Inventory
from questdb_backup.check.rebuild import Rebuilt, rebuild_catalog
from questdb_backup.check.store import PREFIX
from questdb_backup.errors import (
    DamagedBackupError,
    ObjectExistsError,
    PreconditionFailedError,
)
from questdb_backup.instances import Instance, encode_instances, read_instances
from questdb_backup.services import Services
from questdb_backup.stores.base import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildReport:
    """What `check --rebuild` made, or would make; ``named`` are the instances added to ``instances.json``."""

    instances: list[Rebuilt]
    named: list[str]
    dry_run: bool

    def to_json(self) -> dict[str, Any]:
        """The JSON of `check --rebuild`."""
        return {
            "dry_run": self.dry_run,
            "instances": [rebuilt.to_json() for rebuilt in self.instances],
            "named": self.named,
        }


def rebuild_store(services: Services, wanted: str | None, *, force: bool, dry_run: bool) -> RebuildReport:
    """Make anew what is lost or damaged of the catalogs and ``instances.json``.

    Without ``wanted`` every instance is looked at, and those whose catalog can be read are left alone
    unless ``force`` is given. Raise ObjectExistsError where there is nothing to do, and what
    `rebuild_catalog` raises.
    """
    store = services.store
    known, version = _known_instances(store)
    with Inventory() as inventory:
        inventory.take(store.list(PREFIX))
        found = inventory.instances() if wanted is None else [wanted]
        lost = [name for name in found if force or look_at(store, name).catalog is None]
        names = {entry.name for entry in known}
        missing = [name for name in found if name not in names]
        if not lost and not missing:
            raise ObjectExistsError(
                "every catalog is there and can be read",
                "nothing needs to be made anew; --force lists manifests again that a catalog does not know",
            )
        made = [
            rebuild_catalog(services, inventory, name, force=force, dry_run=dry_run)
            for name in lost
            if inventory.runs(name) or name == wanted
        ]
    if missing and not dry_run:
        _write_instances(store, [*known, *(_entry(store, name) for name in missing)], version)
    return RebuildReport(instances=made, named=missing, dry_run=dry_run)


def _known_instances(store: ObjectStore) -> tuple[list[Instance], str | None]:
    try:
        return read_instances(store)
    except DamagedBackupError:
        found = store.read(keys.INSTANCES)
        return [], found.version if found else None


def _entry(store: ObjectStore, name: str) -> Instance:
    """What can be known of an instance; not which stack it belongs to."""
    catalog = look_at(store, name).catalog
    return Instance(name=name, data_id=catalog.data_id if catalog else None)


def _write_instances(store: ObjectStore, instances: list[Instance], version: str | None) -> None:
    try:
        store.replace(keys.INSTANCES, encode_instances(instances), version)
    except PreconditionFailedError as error:
        raise PreconditionFailedError(
            f"{keys.INSTANCES} was written by another while it was made anew", "try again"
        ) from error
