"""The server root that is to be made: what may stand there, and what may not."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from questdb_backup.errors import ConfigurationError, StorageFullError, TargetNotEmptyError
from questdb_backup.restore.contents import TRIGGER
from questdb_backup.restore.files import names_in, wrapped

_EARLY_START = frozenset({".data_id", "_tab_index.d"})
_NO_CHECKPOINT = frozenset({"_checkpoint_meta.d"})


def check_root(root: Path) -> None:
    """Raise ConfigurationError unless the root is a directory, or can be made one."""
    with wrapped(str(root)):
        if os.path.lexists(root) and not root.is_dir():
            raise ConfigurationError(f"{root} is not a directory", "name a directory with --root")
        if not root.exists() and not root.parent.is_dir():
            raise ConfigurationError(
                f"{root} cannot be made: {root.parent} does not exist", "mount the disk or make the folder"
            )


def make_root(root: Path) -> None:
    """Make the root where it is missing."""
    with wrapped(str(root)), suppress(FileExistsError):
        root.mkdir()


def check_database(root: Path, *, unfinished: bool) -> None:
    """Raise TargetNotEmptyError where a database, or its checkpoint, is in the root.

    An empty ``db/`` is none. With an ``unfinished`` staging directory of ours beside it, neither is
    what a server leaves that was started too early. Raise ConfigurationError where ``db`` can never be
    put in place.
    """
    database = root / "db"
    if database.is_symlink() or (database.exists() and not database.is_dir()):
        raise ConfigurationError(
            f"{database} is not a directory of its own", "remove it: restore puts the directory in place"
        )
    if os.path.ismount(database):
        raise ConfigurationError(
            f"{database} is a mount point, nothing can be renamed to it",
            f"mount the volume at {root} (the server root), not at its db directory",
        )
    found = names_in(database) if database.is_dir() else set()
    if found and not (unfinished and found <= _EARLY_START):
        raise _not_empty(f"{database} has {len(found)} entries, say {min(found)}")
    for name in (TRIGGER, ".checkpoint"):
        if os.path.lexists(root / name) and not _is_leftover(root / name):
            raise _not_empty(f"{root / name} is there; remove it if its database is gone")


def _not_empty(why: str) -> TargetNotEmptyError:
    return TargetNotEmptyError(
        "The local database is not empty.", f"{why}; restore into a new root: a database is never overwritten"
    )


def _is_leftover(checkpoint: Path) -> bool:
    """Whether CHECKPOINT RELEASE left the directory behind: then nothing in it is of any use."""
    if checkpoint.name == TRIGGER or checkpoint.is_symlink() or not checkpoint.is_dir():
        return False
    return names_in(checkpoint) <= _NO_CHECKPOINT


def remove_early_start(root: Path) -> None:
    """Remove what a server that was started too early left in ``db/``; `check_database` has allowed it."""
    database = root / "db"
    if not database.is_dir() or not names_in(database):
        return
    with wrapped(str(database)):
        for name in _EARLY_START:
            (database / name).unlink(missing_ok=True)
        database.rmdir()


def check_space(root: Path, needed: int) -> None:
    """Raise StorageFullError where the file system of the root has less than ``needed`` bytes free."""
    place = root if root.exists() else root.parent
    with wrapped(str(place)):
        free = shutil.disk_usage(place).free
    if free < needed:
        raise StorageFullError(
            f"{place} has {free} bytes free, the restore needs {needed}", "free space or restore elsewhere"
        )
