"""Restore before the server starts, as QuestDB Enterprise does it: ``ROOT/_backup_restore`` asks for it.

For systemd's ExecStartPre or an init container. A restore that fails leaves ``.restore_failed/`` and
``_restore_failed``; while these are there, the next start is refused.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from questdb_backup.errors import (
    BackupToolError,
    ConfigurationError,
    RestoreFailedError,
    TargetNotEmptyError,
)
from questdb_backup.folders import sync_folder
from questdb_backup.restore.contents import FAILED_FILE, FAILED_FOLDER
from questdb_backup.restore.files import wrapped
from questdb_backup.restore.staging import Staging
from questdb_backup.restore_trigger import FILE_NAME, RestoreTrigger, parse_restore_trigger
from questdb_backup.services import Services
from questdb_backup.settings import Settings
from questdb_backup.steps.complete_restore import is_restored

RunRestore = Callable[[Services, dict[str, Any]], dict[str, Any]]


def restore_on_start(
    root: Path,
    settings: Settings,
    make_services: Callable[[str], Services],
    run: RunRestore,
    *,
    server_version: str | None = None,
) -> dict[str, Any] | None:
    """Do what ``ROOT/_backup_restore`` asks for; None where there is no such file.

    ``make_services`` is given the connection string of the object store, ``run`` executes the restore's
    state machine. The file is removed when the restore is done. Raise RestoreFailedError ("Failed
    restore directory found") while the marks of a failed restore are there, ConfigurationError for a
    file that cannot be understood, and whatever the restore failed with.
    """
    trigger = _read_trigger(root, settings)
    if trigger is None:
        return None
    _refuse_failed(root)
    if _finish(root):
        return _restored_already(root)
    services = make_services(trigger.object_store)
    try:
        result = run(services, _request(root, trigger, server_version))
    except TargetNotEmptyError:
        raise  # nothing was tried: a live root gets no marks of a failed restore
    except BackupToolError as error:
        if _finish(root):  # told to stop in its last step, which came to its end
            return _restored_already(root)
        _leave_marks(root, error)
        raise
    _remove(root)
    return result


def _restored_already(root: Path) -> dict[str, Any]:
    _remove(root)
    return {"root": str(root), "notes": ["an earlier start had restored it already"]}


def _read_trigger(root: Path, settings: Settings) -> RestoreTrigger | None:
    try:
        text = (root / FILE_NAME).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{root / FILE_NAME} cannot be read: {error.strerror}") from error
    return parse_restore_trigger(text, settings)


def _refuse_failed(root: Path) -> None:
    found = [name for name in (FAILED_FOLDER, FAILED_FILE) if os.path.lexists(root / name)]
    if found:
        raise RestoreFailedError(
            "Failed restore directory found",
            f"an earlier restore failed; see {root / found[0]}, repair the cause, then remove"
            f" {FAILED_FOLDER}/ and {FAILED_FILE} and start again",
        )


def _finish(root: Path) -> bool:
    """Whether the database was placed, and that was not said; what is left of the restore is removed."""
    staging = Staging.find(root)
    if staging is None:
        return is_restored(root)
    with staging:
        if staging.owner() is None or not staging.is_placed():
            return False
        staging.remove()
    return True


def _request(root: Path, trigger: RestoreTrigger, server_version: str | None) -> dict[str, Any]:
    asked = {
        "root": str(root),
        "instance": trigger.instance_name,
        "timestamp": trigger.restore_timestamp,
        "server_version": server_version,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _remove(root: Path) -> None:
    with wrapped(str(root / FILE_NAME)):
        (root / FILE_NAME).unlink(missing_ok=True)
        sync_folder(root)


def _leave_marks(root: Path, error: BackupToolError) -> None:
    """``_restore_failed`` lists the tables, ``.restore_failed/`` has a folder for each and the error."""
    tables = _failed_tables(root)
    with wrapped(str(root / FAILED_FOLDER)):
        folder = root / FAILED_FOLDER
        folder.mkdir(exist_ok=True)
        (folder / "error.txt").write_text(f"{error}\n", encoding="utf-8")
        for table in _safe_names(tables):
            (folder / table).mkdir(exist_ok=True)
        lines = "".join(f"{table}\n" for table in tables)
        (root / FAILED_FILE).write_text(lines, encoding="utf-8", errors="replace")
        sync_folder(root)


def _failed_tables(root: Path) -> list[str]:
    with contextlib.suppress(ConfigurationError):  # somebody else's staging directory: the error says so
        staging = Staging.find(root)
        if staging is None:
            return []
        with staging:
            return staging.failed_tables() if staging.owner() else []
    return []


def _safe_names(tables: Sequence[str]) -> list[str]:
    """The names come from a manifest: none may lead out of the folder."""
    return [
        table
        for table in tables
        if table not in (".", "..", "error.txt")
        and not set("/\0\n") & set(table)
        and len(table.encode(errors="replace")) < 256
    ]
