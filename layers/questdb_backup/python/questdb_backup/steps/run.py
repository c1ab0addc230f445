"""The run as it travels through the workflow's state, and what every step checks of it."""

from dataclasses import asdict, dataclass
from typing import Any

from questdb_backup.catalog import Catalog, renew, require_lease
from questdb_backup.catalog_store import read_catalog, update_catalog
from questdb_backup.clock import seconds_between
from questdb_backup.errors import TransientError
from questdb_backup.services import Services, logger
from questdb_backup.status.base import LiveRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One backup run: instance, backup_timestamp, fencing token."""

    instance: str
    backup_timestamp: str
    token: int
    data_id: str | None = None

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Run":
        """From the workflow's state."""
        return cls(**value)

    def to_json(self) -> dict[str, Any]:
        """To the workflow's state."""
        return asdict(self)


def check_lease(services: Services, run: Run) -> Catalog:
    """The catalog, where the run still holds the lease; renews it when half of its term is over.

    Raise LeaseLostError: a worker that slept through its run's end must not write any more.
    """
    catalog = read_catalog(services.store, run.instance)
    lease = require_lease(catalog, run.token)
    term = services.config.lease_seconds
    if seconds_between(services.now(), lease.expires_at) > term / 2:
        return catalog
    return renew_lease(services, run)


def renew_lease(services: Services, run: Run) -> Catalog:
    """Renew the lease and carry the progress over into the catalog. Raise LeaseLostError."""
    now, term = services.now(), services.config.lease_seconds
    percent = progress_percent(services.status.read(run.instance), run.backup_timestamp)
    catalog = update_catalog(
        services.store,
        run.instance,
        lambda before: renew(before, run.token, now=now, term_seconds=term, progress=percent),
    )
    lease = require_lease(catalog, run.token)
    services.status.renew(run.instance, run.backup_timestamp, run.token, lease.expires_at)
    return catalog


def keep_lease(services: Services, instance: str, live: LiveRun) -> None:
    """What the process of a run on one machine does beside its steps: renew when half of the term is over.

    A store that does not answer is met again at the next look. Raise LeaseLostError.
    """
    if seconds_between(services.now(), live.expires_at) > services.config.lease_seconds / 2:
        return
    try:
        renew_lease(services, Run(instance=instance, backup_timestamp=live.run, token=live.token))
    except TransientError as error:
        logger.warning("the lease could not be renewed yet: %s", error)


def progress_percent(live: LiveRun | None, backup_timestamp: str) -> int | None:
    """0 to 99 while the run is live; None where the status does not know it."""
    if live is None or live.run != backup_timestamp:
        return None
    if live.total_bytes <= 0:
        return 0
    return max(0, min(99, live.done_bytes * 100 // live.total_bytes))
