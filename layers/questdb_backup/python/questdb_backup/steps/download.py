"""DownloadPartitions: one unit of work, from the packs into the staging directory."""

from typing import Any

from questdb_backup.errors import PermanentError, RestoreFailedError
from questdb_backup.restore.download import UnitDownload
from questdb_backup.restore.request import Restore
from questdb_backup.restore.staging import Staging
from questdb_backup.restore.threads import shared_threads
from questdb_backup.services import Services


def download_partitions(services: Services, restore: Restore, unit: int) -> dict[str, Any]:
    """Bring back one unit, every chunk verified; a unit that is done already is left alone.

    On AWS, where another machine goes on with the restore, it is durable when this returns.
    Raise DamagedBackupError naming the object and the file, RestoreFailedError where the staging
    directory has passed to another restore, StorageFullError.
    """
    with open_staging(restore) as staging, staging.lock(exclusive=False):
        staging.require(restore)
        if not staging.is_done(unit):
            _bring_back(services, staging, restore, unit)
    return {}


def _bring_back(services: Services, staging: Staging, restore: Restore, unit: int) -> None:
    try:
        with shared_threads() as threads, staging.trees() as trees:
            UnitDownload(services.store, restore.instance, trees, threads).run(staging.unit(unit))
    except PermanentError as error:
        staging.record_failure({"error": str(error)})  # a failed Map does not tell what its child said
        raise
    staging.mark_done(unit, durable=services.config.stack_id is not None)


def open_staging(restore: Restore) -> Staging:
    """The restore's staging directory. Raise RestoreFailedError where it is gone."""
    staging = Staging.find(restore.target)
    if staging is None:
        raise RestoreFailedError(
            f"the staging directory of {restore.root} has vanished", "start the restore again"
        )
    return staging
