"""The staging directory ``ROOT/.restore_staging``: what it is for, its plan, what is done of it.

    restore.json   instance, backup, digest of the manifest, and the execution that owns it; written first
    plan.jsonl     the units of work, and plan.index: see `plan`
    done/          the units that are done: see `marks`
    placing.json   the files are being put in place: undone by the next step that finds it
    placed.json    the database is in place, this directory is of no more use
    failed.json    why the last restore into it ended
    tree/          the files, as they are to stand in the root

A directory of that name without our ``restore.json`` is somebody else's and is refused.
"""

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from questdb_backup.errors import BackupToolError, ConfigurationError, RestoreFailedError
from questdb_backup.restore.contents import STAGING, Piece
from questdb_backup.restore.files import SafeTree, Trees, names_in, wrapped
from questdb_backup.restore.marks import DONE, Marks
from questdb_backup.restore.plan import PlanFiles
from questdb_backup.restore.request import Restore
from questdb_backup.restore.small_files import TEMPORARY
from questdb_backup.restore.system import locked

TREE = "tree"
_IDENTITY, _LOCK = "restore.json", "lock"
_PLACING, _PLACED, _FAILED = "placing.json", "placed.json", "failed.json"
_PRODUCT, _FORMAT = "questdb-backup restore", 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """What a staging directory is for, and whose it is."""

    instance: str
    backup_timestamp: str
    manifest_digest: str
    execution: str

    def same_backup(self, restore: Restore) -> bool:
        """Whether the restore is of the very backup that the directory holds."""
        return (self.instance, self.backup_timestamp, self.manifest_digest) == (
            restore.instance,
            restore.backup_timestamp,
            restore.manifest_digest,
        )


class Staging(PlanFiles):
    """An open staging directory; all that it does goes through its descriptor."""

    def __init__(self, root: Path, *, make: bool = False) -> None:
        """Open it; raise FileNotFoundError where it is not there and not to be made."""
        self.path = root / STAGING
        if make:
            with wrapped(str(self.path)), suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except NotADirectoryError as error:
            raise self._foreign() from error
        self._marks = Marks(self._fd)

    @classmethod
    def find(cls, root: Path) -> "Staging | None":
        """The staging directory of a root, if there is one."""
        try:
            return cls(root)
        except FileNotFoundError:
            return None

    def __enter__(self) -> "Staging":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def owner(self) -> Owner | None:
        """What it is for; None for one that died before it was told.

        Raise ConfigurationError where it is not ours.
        """
        text = self._read(_IDENTITY)
        if text is None:
            if names_in(self._fd) - {_IDENTITY + TEMPORARY, _PLACED, _LOCK}:
                raise self._foreign()
            return None
        try:
            value = json.loads(text)
            if (value.pop("product"), value.pop("format")) != (_PRODUCT, _FORMAT):
                raise self._foreign()
            return Owner(**value)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._foreign() from error

    def _foreign(self) -> ConfigurationError:
        return ConfigurationError(
            f"{self.path} is not a staging directory of questdb-backup", "move it away, or restore elsewhere"
        )

    def is_owned_by(self, restore: Restore) -> bool:
        """Whether the directory is this very restore's."""
        owner = self.owner()
        return owner is not None and owner.same_backup(restore) and owner.execution == restore.execution

    def require(self, restore: Restore) -> None:
        """Raise RestoreFailedError where the directory has passed to another restore."""
        if not self.is_owned_by(restore):
            raise RestoreFailedError(
                f"{self.path} was taken over by another restore",
                "let that one finish, or start again after it",
            )

    def claim(self, restore: Restore) -> None:
        """Make the restore the owner."""
        value = {
            "product": _PRODUCT,
            "format": _FORMAT,
            "instance": restore.instance,
            "backup_timestamp": restore.backup_timestamp,
            "manifest_digest": restore.manifest_digest,
            "execution": restore.execution,
        }
        self._write(_IDENTITY, [json.dumps(value, indent=1) + "\n"])
        self._unlink(_FAILED)

    def lock(self, *, exclusive: bool) -> AbstractContextManager[None]:
        """Held shared by a worker, exclusive by what moves or removes the files. Raise RestoreFailedError."""
        return locked(_LOCK, self._fd, exclusive=exclusive)

    def lay_out(self, units: Iterable[list[Piece]]) -> None:
        """Write the plan and make what it needs, once."""
        for name in (TREE, DONE):
            with wrapped(name), suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=self._fd)
        if not self.has_plan():
            self.write_plan(units)

    def open_units(self) -> list[int]:
        """Numbers of the units that are not done."""
        finished = self._marks.done()
        return [number for number in range(len(self.unit_sizes())) if number not in finished]

    def progress(self) -> tuple[int, int]:
        """Bytes of the units that are done, and of all."""
        finished, sizes = self._marks.done(), self.unit_sizes()
        return sum(size for number, size in enumerate(sizes) if number in finished), sum(sizes)

    def bytes_open(self) -> int:
        """Bytes that units which are not done have to write."""
        done, total = self.progress()
        return total - done

    def bytes_staged(self) -> int:
        """Bytes on the disk that `clear` would free."""
        total = 0
        for _, _, names, descriptor in os.fwalk(".", dir_fd=self._fd):
            for name in names:
                total += os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_blocks * 512
        return total

    def is_done(self, number: int) -> bool:
        """Whether the unit's files are whole, and durable or this very process's."""
        return self._marks.has(number)

    def mark_done(self, number: int, *, durable: bool) -> None:
        """Say that the unit's files are whole; ``durable`` where other machines go on with the restore."""
        with wrapped(str(self.path)):
            self._marks.add(number, durable=durable)

    def sync(self) -> None:
        """Make all that was written durable."""
        with wrapped(str(self.path)):
            self._marks.sync()

    def tree(self) -> SafeTree:
        """The files, to be used by one thread."""
        return SafeTree(TREE, self._fd)

    def trees(self) -> Trees:
        """The files, for several threads."""
        return Trees(TREE, self._fd)

    @property
    def descriptor(self) -> int:
        """The open directory."""
        return self._fd

    def begin_placing(self) -> None:
        """Record that from now on files leave the tree."""
        self._write(_PLACING, ["{}\n"])

    def is_placing(self) -> bool:
        """Whether a step died, or failed, while it put files in place."""
        return self._has(_PLACING)

    def mark_placed(self) -> None:
        """Record that the database is in place."""
        self._write(_PLACED, ["{}\n"])

    def is_placed(self) -> bool:
        """Whether the database is in place, even where the step died before it could say so."""
        return self._has(_PLACED) or (
            self.is_placing() and not self._has(f"{TREE}/db") and os.path.lexists(self.path.parent / "db")
        )

    def end_placing(self) -> None:
        """Record that everything is back in the tree."""
        self._unlink(_PLACING)

    def record_failure(self, error: dict[str, Any]) -> None:
        """Keep why the restore ended."""
        self._write(_FAILED, [json.dumps(error, indent=1) + "\n"])

    def failure(self) -> str | None:
        """What was recorded of why the restore ended."""
        text = self._read(_FAILED)
        try:
            return str(json.loads(text)["error"]) if text else None
        except (ValueError, KeyError, TypeError):
            return None

    def failed_tables(self) -> list[str]:
        """Tables that are not restored: those of unfinished units, or all where only the last step failed."""
        if not self.has_plan():
            return []
        unfinished = set(self.open_units())
        names = {
            piece.table
            for number, unit in enumerate(self.units())
            if number in unfinished or not unfinished
            for piece in unit
        }
        return sorted(names - {""})

    def clear(self) -> None:
        """Remove everything; what it is for goes last, so that a death on the way leaves it ours."""
        with wrapped(str(self.path)):
            for name in sorted(names_in(self._fd) - {_IDENTITY, _PLACED, _LOCK}):
                info = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
                if info.st_mode & 0o170000 == 0o040000:
                    shutil.rmtree(name, dir_fd=self._fd)
                else:
                    self._unlink(name)
            self._unlink(_IDENTITY)
            self._unlink(_PLACED)

    def remove(self) -> None:
        """Remove the directory of a restore that is in place, with everything in it."""
        self.mark_placed()  # it may have been inferred, from what goes first
        self.clear()
        self._unlink(_LOCK)
        with wrapped(str(self.path)):
            self.path.rmdir()


def restore_progress(root: Path) -> tuple[int, int]:
    """Bytes that are done, and bytes in all, of the restore under way into a root.

    (0, 0) before its plan, while its files are removed, and where the directory is not ours.
    """
    with suppress(BackupToolError, OSError, ValueError, KeyError, TypeError):
        staging = Staging.find(root)
        if staging is None:
            return 0, 0
        with staging:
            if staging.owner() is None or not staging.has_plan():
                return 0, 0
            return staging.progress()
    return 0, 0
