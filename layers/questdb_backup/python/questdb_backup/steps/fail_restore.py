"""FailRestore: nothing is in place, and what is staged waits for another try."""

from typing import Any

from questdb_backup.restore.place import take_back
from questdb_backup.restore.request import Restore
from questdb_backup.restore.staging import Staging
from questdb_backup.services import Services, logger
from questdb_backup.steps.fail import error_text


def fail_restore(services: Services, restore: Restore, error: dict[str, Any]) -> dict[str, Any]:
    """Take back what may be half placed, and record why the restore ended; give how to go on.

    The staging directory stays, and so does one that has passed to another restore meanwhile.
    """
    services.metrics.add("RestoreFailed", 1, "Count")
    if not restore.root:
        return {"failed_tables": 0, "hint": "volumes that were made have the tag questdb-backup:restore"}
    staging = Staging.find(restore.target)
    if staging is None:
        return {"failed_tables": 0, "hint": "start the restore again"}
    with staging:
        if not staging.is_owned_by(restore):
            return {"failed_tables": 0, "hint": "another restore has taken the staging directory over"}
        with staging.lock(exclusive=True):
            take_back(staging)
        text = staging.failure() or error_text(error)
        staging.record_failure({"error": text})
        failed = staging.failed_tables()
    logger.info("the restore of %s failed: %s", restore.backup_timestamp, text)
    return {"error": text, "failed_tables": len(failed), "hint": how_to_go_on(restore.root)}


def how_to_go_on(root: str) -> str:
    """What to tell after a restore that did not finish."""
    return (
        f"nothing is in place; start the same restore again and it goes on where it stopped,"
        f" or remove {root}/.restore_staging"
    )
