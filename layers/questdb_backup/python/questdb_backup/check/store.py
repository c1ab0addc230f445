"""The verb `check` without an option: list the store, compare, change nothing."""

from questdb_backup import keys
from questdb_backup.catalog import Catalog
from questdb_backup.check.catalogs import REBUILD, Look, look_at
from questdb_backup.check.health import health_of
from questdb_backup.check.inventory import Inventory
from questdb_backup.check.judging import Grace, Views, judge
from questdb_backup.check.report import InstanceReport, StoreReport
from questdb_backup.check.shapes import Kind
from questdb_backup.errors import DamagedBackupError
from questdb_backup.instances import read_instances
from questdb_backup.services import Services

PREFIX = f"{keys.PREFIX}/"


def check_store(services: Services, wanted: str | None = None) -> StoreReport:
    """Compare the store with its catalogs: every instance, or the one that is wanted.

    What is missing or damaged goes to the report. Raise StoreUnavailableError and the like where the store
    does not answer, UnsupportedFormatError for a catalog of a newer version.
    """
    report = StoreReport()
    names, error = known_instances(services)
    if error:
        report.problems.append(error)
    before = {name: look_at(services.store, name) for name in names}
    with Inventory() as inventory:
        inventory.take(services.store.list(PREFIX))
        found = inventory.instances()
        for name in sorted({*found, *names} if wanted is None else {wanted}):
            if name in found and name not in names and error is None:
                report.problems.append(
                    f"{keys.INSTANCES} does not name '{name}', which has objects; {REBUILD}"
                )
            report.instances.append(_instance(services, inventory, name, before.get(name)))
        report.foreign, report.objects, report.bytes = inventory.foreign, inventory.objects, inventory.bytes
    return report


def known_instances(services: Services) -> tuple[list[str], str | None]:
    """The names in ``instances.json``, and what is wrong with it."""
    try:
        return [known.name for known in read_instances(services.store)[0]], None
    except DamagedBackupError as error:
        return [], f"{error.fact}; {REBUILD}"


def _instance(services: Services, inventory: Inventory, name: str, before: Look | None) -> InstanceReport:
    after = look_at(services.store, name)
    if after.catalog is None:
        return _without_catalog(inventory, name, after)
    then = before.catalog if before and before.catalog else after.catalog
    grace = grace_of(services, after.catalog)
    views = Views(before=then, after=after.catalog)
    report = judge(services.store, inventory, name, views, grace)
    _tell_noted(inventory, name, report)
    report.backups = health_of(services.store, inventory, name, views.steady_rows())
    return report


def _tell_noted(inventory: Inventory, name: str, report: InstanceReport) -> None:
    """What an earlier look found damaged is, until `check --repair` has read it whole."""
    noted = {keys.pack(name, pack) for pack in report.damaged_packs}
    needed = {known.key for known in inventory.named(keys.pack(name, ""))}
    for key in sorted(noted & needed):
        if not inventory.is_damaged(key):
            inventory.damage(key, "was found damaged before")
            report.damaged += 1
            report.problems.append(
                f"{key} was found damaged before, and a backup needs it; `check --repair` reads it again"
            )


def grace_of(services: Services, catalog: Catalog) -> Grace:
    """How long leftovers stay, from now."""
    return Grace(now=services.now(), seconds=catalog.grace_seconds(services.config.grace_seconds))


def _without_catalog(inventory: Inventory, name: str, look: Look) -> InstanceReport:
    """Nothing can be judged, and nothing may be removed. An instance without objects never began."""
    report = InstanceReport(instance=name, judged=False)
    for item in inventory.items(name):
        if item.kind is not Kind.CATALOG:
            report.unjudged.add(item.key, item.size)
    if report.unjudged.objects or look.version is not None:
        report.problems.append(f"{look.error}; {REBUILD}")
    return report
