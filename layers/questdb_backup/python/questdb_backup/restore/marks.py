"""Which units of a restore are done, and who may believe it.

    done/<n>             the unit's files are whole and durable
    done/<n>.<process>   they are whole, and this very process has seen no error of what is not yet written

What a process wrote may be lost after it: the machine ends, or the disk goes and is mounted again with files
of the right size that hold zeros. So a mark with a process's id counts for that process alone, and no unit
has to wait for the disk. A sync makes durable marks of them.
"""

import errno
import functools
import os
import threading
import uuid
from contextlib import suppress

from questdb_backup.restore.files import names_in
from questdb_backup.restore.system import sync_file_system

DONE = "done"
_syncing = threading.Lock()


@functools.cache
def process_id() -> str:
    """What tells this process from every other, on any machine."""
    return uuid.uuid4().hex


class Marks:
    """The marks in an open staging directory."""

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._process = process_id()

    def done(self) -> set[int]:
        """Numbers of the units that are done."""
        ours = {name.removesuffix(f".{self._process}") for name in self._names()}
        return {int(name) for name in ours if name.isdecimal()}

    def has(self, number: int) -> bool:
        """Whether a unit is done."""
        names = (str(number), f"{number}.{self._process}")
        return any(self._is_there(f"{DONE}/{name}") for name in names)

    def add(self, number: int, *, durable: bool) -> None:
        """Say that a unit is whole. With ``durable`` sync first.

        Else one of the process's threads syncs, and the others go on meanwhile. Raise OSError.
        """
        if durable:
            sync_file_system(self._folder)
            self._make(f"{DONE}/{number}")
            return
        self._make(f"{DONE}/{number}.{self._process}")
        if _syncing.acquire(blocking=False):
            try:
                self.sync()
            finally:
                _syncing.release()

    def sync(self) -> None:
        """Make everything durable, and the marks that were there before too.

        Where that fails nobody knows what was lost: those marks are taken away. Raise OSError.
        """
        waiting = [name for name in self._names() if name.endswith(f".{self._process}")]
        try:
            sync_file_system(self._folder)
        except OSError:
            for name in waiting:
                with suppress(FileNotFoundError):
                    os.unlink(f"{DONE}/{name}", dir_fd=self._folder)
            raise
        for name in waiting:
            with suppress(FileNotFoundError):  # another thread's sync has seen it too
                old, new = f"{DONE}/{name}", f"{DONE}/{name.partition('.')[0]}"
                os.rename(old, new, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _make(self, name: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o600, dir_fd=self._folder))

    def _is_there(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _names(self) -> set[str]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(DONE, flags, dir_fd=self._folder)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return set()
        try:
            return names_in(descriptor)
        finally:
            os.close(descriptor)
