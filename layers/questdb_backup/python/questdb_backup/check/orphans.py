"""`check --remove-orphans`: what nothing alive names gets a tombstone, and prune deletes it after the grace.

Nothing is deleted here. A tombstone of orphans is named ``orphans.<token>.<n>`` so that it can never be
taken for a backup's.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice

from questdb_backup import keys
from questdb_backup.catalog import Catalog, Tombstone
from questdb_backup.catalog_store import read_catalog
from questdb_backup.check.catalogs import look_at
from questdb_backup.check.inventory import Inventory
from questdb_backup.check.judging import Place, Sorter, Views, judge
from questdb_backup.check.lease import Holding, held_lease
from questdb_backup.check.report import InstanceReport
from questdb_backup.check.store import PREFIX, grace_of
from questdb_backup.clock import add_seconds
from questdb_backup.errors import DamagedBackupError
from questdb_backup.services import Services

NAMES_PER_TOMBSTONE = 10_000
_INLINE_NAMES = 100


def remove_orphans(services: Services, instance: str, *, dry_run: bool = False) -> InstanceReport:
    """Tombstone every orphan whose grace is over; give what was found, the orphans being those.

    Raise DamagedBackupError where they cannot be told from what is needed (the catalog or a listed manifest
    is lost), BackupInProgressError, LeaseLostError.
    """
    _need_catalog(services, instance)
    if dry_run:
        return _remove(services, instance, None)
    with held_lease(services, instance) as holding:
        return _remove(services, instance, holding)


def _remove(services: Services, instance: str, holding: Holding | None) -> InstanceReport:
    store = services.store
    with Inventory() as inventory:
        before = read_catalog(store, instance)
        inventory.take(store.list(PREFIX), holding.keep if holding else lambda: None)
        views = Views(before=before, after=read_catalog(store, instance))
        grace = grace_of(services, before)
        report = judge(store, inventory, instance, views, grace)
        if not report.judged:
            raise DamagedBackupError(
                f"the orphans of '{instance}' cannot be told from what is needed: {report.problems[0]}",
                "mend that first; nothing was removed",
            )
        if holding:
            _bury(holding, _orphans(inventory, instance, Sorter(views, grace)), grace.seconds)
        return report


def _orphans(inventory: Inventory, instance: str, sorter: Sorter) -> Iterator[str]:
    for item, why in inventory.with_reasons(instance):
        if sorter.place(item, why) is Place.ORPHAN:
            yield item.key


def _need_catalog(services: Services, instance: str) -> None:
    """A lease would make an empty catalog where there is none."""
    look = look_at(services.store, instance)
    if look.catalog is None:
        raise DamagedBackupError(look.error or "", "`questdb-backup check --rebuild` makes it anew")


def _bury(holding: Holding, doomed: Iterator[str], grace_seconds: float) -> None:
    number = 0
    while names := list(islice(doomed, NAMES_PER_TOMBSTONE)):
        holding.keep()
        holding.update(partial(_with, _tombstone(holding, names, number, grace_seconds)))
        number += 1


def _with(stone: Tombstone, catalog: Catalog) -> Catalog:
    if any(known.removed == stone.removed for known in catalog.tombstones):
        return catalog
    return replace(catalog, tombstones=(*catalog.tombstones, stone))


def _tombstone(holding: Holding, names: list[str], number: int, grace_seconds: float) -> Tombstone:
    """Many names stand in an object of their own, durable before the catalog names it."""
    services, now = holding.services, holding.services.now()
    removed, names_key = f"orphans.{holding.token}.{number}", None
    if len(names) > _INLINE_NAMES:
        names_key = keys.tombstone(holding.instance, removed, holding.token)
        services.store.create(names_key, json.dumps(names).encode())
    return Tombstone(
        removed=removed,
        created_at=now,
        delete_after=add_seconds(now, grace_seconds),
        names=() if names_key else tuple(names),
        names_key=names_key,
    )
