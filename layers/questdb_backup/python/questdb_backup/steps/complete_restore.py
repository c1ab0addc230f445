"""CompleteRestore: the last check, then the files are put in place."""

import os
from pathlib import Path
from typing import Any

from questdb_backup.catalog import ManifestRef
from questdb_backup.errors import RestoreFailedError
from questdb_backup.manifest import Manifest, read_manifest
from questdb_backup.restore.check import check_tree
from questdb_backup.restore.contents import STAGING, TRIGGER
from questdb_backup.restore.place import check_whole, place, take_back
from questdb_backup.restore.point import check_manifest
from questdb_backup.restore.request import Restore
from questdb_backup.restore.staging import Staging
from questdb_backup.services import Services, logger
from questdb_backup.steps.download import open_staging
from questdb_backup.stores.base import ObjectStore


def complete_restore(services: Services, restore: Restore) -> dict[str, Any]:
    """Check that everything is there, place it, remove the staging directory; give the result.

    Doing it again is a success. Raise RestoreFailedError, TargetNotEmptyError, DamagedBackupError:
    then nothing is in place, and the staging directory waits for another try.
    """
    if is_restored(restore.target):
        return restore.result()
    with open_staging(restore) as staging:
        with staging.lock(exclusive=True):
            staging.require(restore)
            notes = [] if staging.is_placed() else _place(services, staging, restore)
        staging.remove()
    logger.info("restored %s of %s to %s", restore.backup_timestamp, restore.instance, restore.root)
    return restore.result(*notes, *_advice(restore))


def is_restored(root: Path) -> bool:
    """An earlier try got to its end, and only its answer was lost; no server was started since."""
    if (root / STAGING).exists():
        return False
    return (root / TRIGGER).exists() and (root / ".checkpoint" / "db").is_dir() and (root / "db").is_dir()


def _place(services: Services, staging: Staging, restore: Restore) -> list[str]:
    take_back(staging)
    missing = staging.open_units()
    if missing:
        raise RestoreFailedError(
            f"{len(missing)} units of the restore are not done, the first is {missing[0]}",
            "start the same restore again: it goes on where it stopped",
        )
    manifest = _manifest(services.store, restore)
    shards = (shard for table in manifest.tables for shard in table.shards)
    check_tree(services.store, staging, shards)
    check_whole(staging)
    staging.sync()
    name = restore.instance if restore.keep_instance else None
    return place(staging, name, rebuild_indexes=restore.rebuild_indexes)


def _manifest(store: ObjectStore, restore: Restore) -> Manifest:
    ref = ManifestRef(key=restore.manifest_key, digest=restore.manifest_digest, size=0)
    manifest = read_manifest(store, ref)
    check_manifest(manifest, ref.key)
    return manifest


def _advice(restore: Restore) -> list[str]:
    if os.geteuid() != 0:
        return []
    return [f"the files belong to root: give them to the server's user with chown -R USER {restore.root}"]
