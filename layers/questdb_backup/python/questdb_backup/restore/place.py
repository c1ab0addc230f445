"""Putting a verified staging tree in place, and taking it back.

The order: other files, ``.checkpoint``, ``_restore``, and ``db`` last, without replacing anything. A
server that is started on the way finds no database instead of a torn one, and whatever fails on the way
leaves the root as it was.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from questdb_backup.errors import DamagedBackupError, RestoreFailedError, TargetNotEmptyError
from questdb_backup.folders import sync_folder
from questdb_backup.instances import NAME_FILE
from questdb_backup.restore.contents import RESERVED, TRIGGER
from questdb_backup.restore.files import names_in, wrapped
from questdb_backup.restore.server_conf import set_rebuild
from questdb_backup.restore.staging import TREE, Staging
from questdb_backup.restore.system import rename_without_replacing
from questdb_backup.restore.target import check_database
from questdb_backup.services import logger

_SHOWN = 5


def take_back(staging: Staging) -> None:
    """Undo a placing that a step died in: ``_restore`` first, then ``.checkpoint``."""
    if not staging.is_placing() or staging.is_placed():
        return
    root, tree = staging.path.parent, staging.path / TREE
    with wrapped(str(root)):
        (root / TRIGGER).unlink(missing_ok=True)
        if not (tree / ".checkpoint").exists() and (root / ".checkpoint").exists():
            (root / ".checkpoint").rename(tree / ".checkpoint")
        (tree / NAME_FILE).unlink(missing_ok=True)
        sync_folder(root)
    staging.end_placing()


def check_whole(staging: Staging) -> None:
    """Raise DamagedBackupError unless there is a database and a checkpoint for it."""
    tree = staging.path / TREE
    for name in ("db", ".checkpoint/db"):
        if (tree / name).is_symlink() or not (tree / name).is_dir():
            raise DamagedBackupError(
                f"the backup has no {name}", "QuestDB could not open it; take another one"
            )


def place(staging: Staging, instance_name: str | None, *, rebuild_indexes: bool = True) -> list[str]:
    """Put everything in place; give notes for the user.

    ``instance_name`` is written into the database, if any. Raise TargetNotEmptyError where a database
    has appeared meanwhile: then nothing is placed, or nothing stays placed.
    """
    root = staging.path.parent
    check_database(root, unfinished=False)
    staging.begin_placing()
    placing = _Placing(root, staging.path / TREE, rebuild_indexes)
    try:
        with wrapped(str(root)):
            placing.place_others()
            placing.place_database(instance_name)
    except BaseException:
        if placing.undo():
            staging.end_placing()
        raise
    return placing.notes()


class _Placing:
    """One placing, with what it takes to undo it."""

    def __init__(self, root: Path, tree: Path, rebuild_indexes: bool) -> None:
        self._root = root
        self._tree = tree
        self._rebuild_indexes = rebuild_indexes
        self._undo: list[Callable[[], object]] = []
        self._kept: list[str] = []
        self._notes: list[str] = []

    def undo(self) -> bool:
        """Take back what was placed, last things first; give whether all of it is back."""
        whole = True
        for act in reversed(self._undo):
            try:
                act()
            except OSError as error:
                logger.warning("a part of the restore could not be taken back: %s", error)
                whole = False
        return whole

    def notes(self) -> list[str]:
        """What the user should know."""
        if not self._kept:
            return self._notes
        more = f" and {len(self._kept) - _SHOWN} more" if len(self._kept) > _SHOWN else ""
        kept = f"kept what the root has already: {', '.join(self._kept[:_SHOWN])}{more}"
        return [kept, *self._notes]

    def place_others(self) -> None:
        """Configuration and whatever else is neither the database nor its checkpoint."""
        for path in sorted(self._tree.iterdir()):
            if path.name not in {"db", ".checkpoint", *RESERVED}:
                self._place_other(path.name)
        edit = set_rebuild(self._root, self._tree, rebuild=self._rebuild_indexes)
        self._undo.append(edit.undo)
        edit.apply()
        if edit.note:
            self._notes.append(edit.note)
        sync_folder(self._root)

    def _place_other(self, name: str) -> None:
        """One path below the tree: what is in the root already is never overwritten."""
        source, target = self._tree / name, self._root / name
        if source.is_dir() and (target.is_dir() or not os.path.lexists(target)):
            if not target.exists():
                target.mkdir()
                self._undo.append(target.rmdir)
                target.chmod(stat.S_IMODE(source.stat().st_mode))
            for child in sorted(names_in(source)):
                self._place_other(f"{name}/{child}")
            sync_folder(target)
        elif os.path.lexists(target):
            if name != "conf/server.conf" and not _is_same(source, target):
                self._kept.append(name)
        elif name != "conf/server.conf":
            _link_or_copy(source, target)
            self._undo.append(target.unlink)

    def place_database(self, instance_name: str | None) -> None:
        """``.checkpoint``, ``_restore``, then ``db`` without replacing."""
        root, tree = self._root, self._tree
        old, aside = root / ".checkpoint", tree.with_name("checkpoint.before")
        if old.exists():  # found to be empty of use by check_database
            old.rename(aside)
            self._undo.append(lambda: aside.rename(old))
        self._move(".checkpoint")
        trigger = root / TRIGGER
        os.close(os.open(trigger, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        self._undo.append(lambda: trigger.unlink(missing_ok=True))
        if instance_name is not None:
            name_file = tree / NAME_FILE
            name_file.write_text(instance_name + "\n")
            self._undo.append(lambda: name_file.unlink(missing_ok=True))
            _sync_file(name_file)
        sync_folder(root)
        try:
            with suppress(FileNotFoundError):
                (root / "db").rmdir()
            self._move("db")
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise TargetNotEmptyError(
                    "The local database is not empty.", f"{root}/db has appeared during the restore"
                ) from error
            raise RestoreFailedError(f"{root}/db cannot be put in place: {error.strerror}") from error
        self._undo.clear()
        sync_folder(root)

    def _move(self, name: str) -> None:
        source, target = self._tree / name, self._root / name
        rename_without_replacing(source, target)
        self._undo.append(lambda: target.rename(source))


def _is_same(source: Path, target: Path) -> bool:
    """Whether the root has the very file: a link of an earlier try, or equal bytes."""
    if not target.is_file() or not source.is_file():
        return False
    if source.samefile(target):
        return True
    return source.stat().st_size == target.stat().st_size and source.read_bytes() == target.read_bytes()


def _link_or_copy(source: Path, target: Path) -> None:
    """Let the file appear in the root and stay in the tree, so that another try finds it again."""
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:
        with source.open("rb") as old, target.open("xb") as new:
            shutil.copyfileobj(old, new)
        shutil.copymode(source, target)
        _sync_file(target)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
