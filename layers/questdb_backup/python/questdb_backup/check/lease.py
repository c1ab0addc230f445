"""The instance's lease for as long as `check` changes something."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from questdb_backup.catalog import Catalog, drop_lease, renew, require_lease
from questdb_backup.catalog_store import read_catalog, update_catalog
from questdb_backup.clock import seconds_between
from questdb_backup.services import Services
from questdb_backup.steps.lock import take_lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A lease in force."""

    services: Services
    instance: str
    token: int

    def keep(self) -> None:
        """Renew the lease when half of its term is over. Raise LeaseLostError."""
        services, now, term = self.services, self.services.now(), self.services.config.lease_seconds
        lease = require_lease(read_catalog(services.store, self.instance), self.token)
        if seconds_between(now, lease.expires_at) <= term / 2:
            self.update(lambda before: renew(before, self.token, now=now, term_seconds=term, progress=None))

    def update(self, change: Callable[[Catalog], Catalog]) -> Catalog:
        """Change the catalog while the lease is ours. Raise LeaseLostError."""

        def checked(before: Catalog) -> Catalog:
            require_lease(before, self.token)
            return change(before)

        return update_catalog(self.services.store, self.instance, checked)


@contextmanager
def held_lease(services: Services, instance: str) -> Iterator[Holding]:
    """Take the lease and give it back. Raise BackupInProgressError where another run has it."""
    token = take_lease(services, instance, f"check:{uuid.uuid4().hex}", "check")
    try:
        yield Holding(services=services, instance=instance, token=token)
    finally:
        update_catalog(
            services.store,
            instance,
            lambda before: drop_lease(before, token, "the check ended", services.now()),
        )
