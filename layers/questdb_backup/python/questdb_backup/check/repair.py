"""`check --repair`: the catalog learns which packs and shards are missing or damaged.

The next backup refers to none of them and stores what they held again, from the live root; so the newest
backup is whole whatever was lost. A pack that is whole again, or that no backup needs any more, is struck
off. Nothing else is changed.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

from questdb_backup import keys
from questdb_backup.catalog import Catalog
from questdb_backup.catalog_store import read_catalog
from questdb_backup.check.catalogs import look_at
from questdb_backup.check.health import health_of
from questdb_backup.check.inventory import Inventory, Name
from questdb_backup.check.judging import FAULTS, Views, judge
from questdb_backup.check.lease import Holding, held_lease
from questdb_backup.check.report import InstanceReport
from questdb_backup.check.store import PREFIX, grace_of
from questdb_backup.codec import digest_of
from questdb_backup.errors import ConfigurationError, DamagedBackupError, ObjectNotFoundError
from questdb_backup.manifest import read_shard
from questdb_backup.restore.point import read_point
from questdb_backup.services import Services
from questdb_backup.stores.base import ObjectStore
from questdb_backup.verify_shares import ReadData, due_share, is_in_share


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which packs are read whole beside those that are noted already: a share of all, and some by name."""

    share: ReadData | None = None
    packs: tuple[str, ...] = ()


def repair(
    services: Services, instance: str, wanted: Wanted, *, dry_run: bool = False
) -> tuple[InstanceReport, list[str], list[str]]:
    """Bring ``damaged_packs`` up to date; give what was found, the packs added there, those struck off.

    Raise DamagedBackupError where the catalog is lost, ConfigurationError for a pack that no backup has,
    BackupInProgressError, LeaseLostError.
    """
    look = look_at(services.store, instance)
    if look.catalog is None:
        raise DamagedBackupError(look.error or "", "`questdb-backup check --rebuild` makes it anew")
    if dry_run:
        return _look(services, instance, wanted, None)
    with held_lease(services, instance) as holding:
        report, added, struck = _look(services, instance, wanted, holding)
        if added or struck:
            holding.update(lambda before: _noted(before, added, struck))
        return report, added, struck


def _noted(catalog: Catalog, added: Iterable[str], struck: Iterable[str]) -> Catalog:
    names = ({*catalog.damaged_packs} | {*added}) - {*struck}
    return replace(catalog, damaged_packs=tuple(sorted(names)))


def _look(
    services: Services, instance: str, wanted: Wanted, holding: Holding | None
) -> tuple[InstanceReport, list[str], list[str]]:
    store = services.store
    keep = holding.keep if holding else lambda: None
    before = read_catalog(store, instance)
    with Inventory() as inventory:
        inventory.take(store.list(PREFIX), keep)
        views = Views(before=before, after=read_catalog(store, instance))
        report = judge(store, inventory, instance, views, grace_of(services, before))
        prefix = keys.pack(instance, "")
        noted = set(before.damaged_packs)
        share = due_share(before, wanted.share) if wanted.share else None
        packs = _to_read(inventory, prefix, share, {*wanted.packs}, noted)
        for batch in _batches(packs, 4 * services.config.max_concurrency):
            _read_whole(services, inventory, batch, report)
            keep()
        if wanted.share is not None:
            _read_shards(store, inventory, instance, views, report)
        bad = {key.removeprefix(prefix) for key, _ in inventory.damaged(prefix)}
        bad |= {key for key, _ in inventory.damaged(keys.shards(instance))}
        report.backups = health_of(store, inventory, instance, views.steady_rows())
    # Where a manifest cannot be read nobody knows any more what it needs: what is noted stays.
    added, struck = sorted(bad - noted), sorted(noted - bad) if report.judged else []
    report.damaged_packs = tuple(sorted((noted | bad) - {*struck}))
    return report, added, struck


def _to_read(
    inventory: Inventory, prefix: str, share: ReadData | None, asked: set[str], noted: set[str]
) -> Iterator[Name]:
    """Packs that backups need, in the order of their keys, as far as they are to be read."""
    unknown = set(asked)
    for name in inventory.named(prefix):
        pack = name.key.removeprefix(prefix)
        unknown.discard(pack)
        wanted = pack in asked or pack in noted or (share is not None and is_in_share(pack, share))
        if wanted and not inventory.is_damaged(name.key):
            yield name
    if unknown:
        raise ConfigurationError(
            f"no backup needs a pack '{sorted(unknown)[0]}'",
            "packs look like 20240824T123456.789123Z/0-0-0, as `verify` names them behind packs/",
        )


def _read_whole(services: Services, inventory: Inventory, batch: list[Name], report: InstanceReport) -> None:
    with ThreadPoolExecutor(services.config.max_concurrency, thread_name_prefix="check") as pool:
        for name, fault in zip(batch, pool.map(lambda one: _fault(services.store, one), batch), strict=True):
            if fault:
                inventory.damage(name.key, fault)
                report.damaged += 1
                report.problems.append(f"{name.key} {fault}; a backup needs it")


def _read_shards(
    store: ObjectStore, inventory: Inventory, instance: str, views: Views, report: InstanceReport
) -> None:
    """Read every shard of the newest backup: the next one would take them over unread."""
    for row in views.steady_rows()[-1:]:
        try:
            tables = read_point(store, instance, row).tables
        except FAULTS:
            return  # told by the look at the manifests
        for shard in (shard for table in tables for shard in table.shards):
            try:
                deque(read_shard(store, shard), maxlen=0)
            except FAULTS as error:
                if not inventory.is_damaged(shard.key):
                    inventory.damage(shard.key, "is damaged")
                    report.damaged += 1
                    report.problems.append(str(error))


def _fault(store: ObjectStore, name: Name) -> str | None:
    try:
        data = store.get(name.key)
    except ObjectNotFoundError:
        return "is missing"
    return None if digest_of(data) == name.digest else "does not match its digest"


def _batches(names: Iterator[Name], size: int) -> Iterator[list[Name]]:
    while batch := list(islice(names, size)):
        yield batch
