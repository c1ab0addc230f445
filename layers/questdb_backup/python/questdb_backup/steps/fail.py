"""FailBackup: the row of a run that ended with an error, told in the error's own words."""

import json
from typing import Any

from questdb_backup import errors
from questdb_backup.catalog import fail_run
from questdb_backup.catalog_store import read_catalog, update_catalog
from questdb_backup.errors import BackupToolError, PermanentError
from questdb_backup.questdb.base import Fence
from questdb_backup.services import Services
from questdb_backup.steps.complete import backup_to_json
from questdb_backup.steps.run import Run, progress_percent


def fail_backup(
    services: Services, run: Run, fence: Fence, error: dict[str, Any], release: dict[str, Any] | None
) -> dict[str, Any]:
    """Record ``backup failed``; give ``failed``, or ``complete`` and the backup where it is listed after all.

    The intent is cleared where the release is known to have happened, else it stays for the guard.
    """
    row = read_catalog(services.store, run.instance).row(run.backup_timestamp)
    complete = row is not None and row.manifest is not None
    if not complete:
        live = services.status.read(run.instance)
        told = live.error if live and live.run == run.backup_timestamp else None
        record_failure(services, run.instance, run.backup_timestamp, told or error_text(error))
    if release is not None or fence.db_now is None:
        services.status.record_fence(run.instance, run.backup_timestamp, run.token, Fence())
    services.clones.clear()
    backup = backup_to_json(run.instance, row) if row is not None and complete else None
    return {"outcome": "complete" if complete else "failed", "backup": backup}


def record_failure(services: Services, instance: str, run: str, text: str) -> None:
    """Set the row to ``backup failed`` with the text, and count it. A complete row stays."""
    percent = progress_percent(services.status.read(instance), run)
    update_catalog(
        services.store, instance, lambda before: fail_run(before, run, text, services.now(), percent)
    )
    services.metrics.add("BackupFailed", 1, "Count")


def error_text(error: dict[str, Any]) -> str:
    """The innermost message of a state's error, word for word.

    A Lambda's Cause is JSON with ``errorMessage``; a failed Map's Cause holds its child's the same way.
    """
    name, cause = str(error.get("Error", "")), str(error.get("Cause", ""))
    try:
        value = json.loads(cause)
    except ValueError:
        return cause or name or "unknown error"
    while isinstance(value, dict):
        if isinstance(value.get("errorMessage"), str) and value["errorMessage"]:
            return str(value["errorMessage"])
        inner = value.get("Cause") or value.get("cause")
        if not isinstance(inner, str):
            break
        try:
            value = json.loads(inner)
        except ValueError:
            return inner
    return cause or name


def as_error(name: str, text: str) -> BackupToolError:
    """The exception of a class name and its text, as far as `errors` knows the class."""
    fact, _, hint = text.partition(". Hint: ")
    known = getattr(errors, name, None)
    if isinstance(known, type) and issubclass(known, BackupToolError):
        return known(fact, hint)
    return PermanentError(f"{name}: {fact}" if not hint else fact, hint)
