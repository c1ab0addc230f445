"""Abort of the running backup, as ``BACKUP ABORT``."""

from collections.abc import Callable
from typing import Any

from questdb_backup.catalog_store import read_catalog
from questdb_backup.instances import find_instance
from questdb_backup.services import Services

REASON = "aborted by BACKUP ABORT"


def abort_backup(
    services: Services, stop: Callable[[str, str], bool], reason: str = REASON
) -> dict[str, Any]:
    """Stop the running backup of this deployment: ``aborted``, or ``not running``.

    The request is recorded first, so that whoever ends the run knows why; ``stop`` is given the run's
    holder and the reason, and tells whether there was such an execution. The guard, which sees every
    execution's end, releases the checkpoint and fails the row.
    """
    instance = find_instance(services)
    if instance is None:
        return _answer("not running", None)
    catalog = read_catalog(services.store, instance)
    live = services.status.read(instance)
    lease = catalog.lease if catalog.lease and catalog.lease.purpose == "backup" else None
    run, holder = (live.run, live.holder) if live else (lease.run, lease.holder) if lease else (None, None)
    row = catalog.row(run) if run else None
    if holder is None or (row is not None and row.manifest is not None):
        return _answer("not running", None)
    services.status.request_abort(instance, reason)
    return _answer("aborted", run) if stop(holder, reason) else _answer("not running", None)


def _answer(status: str, backup_timestamp: str | None) -> dict[str, Any]:
    return {"status": status, "backup_timestamp": backup_timestamp}
