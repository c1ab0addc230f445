"""Which units of a restore are done, and from when on that may be believed.

    done/<n>             the unit's files are whole and durable
    done/<n>.<boot id>   they are whole, and this very boot of the machine holds what is not yet written

What a process wrote outlives it, a machine's end it does not: so a mark with a boot id counts until the
machine is started again, and no unit has to wait for the disk. A sync makes durable marks of them.
"""

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path

from questdb_backup.restore.files import names_in
from questdb_backup.restore.system import sync_file_system

DONE = "done"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_syncing = threading.Lock()


def boot_id() -> str | None:
    """What tells this boot of the machine from every other; None where the system has no such thing."""
    try:
        return _BOOT_ID.read_text().strip() or None
    except OSError:
        return None


class Marks:
    """The marks in an open staging directory."""

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._boot = boot_id()

    def done(self) -> set[int]:
        """Numbers of the units that are done."""
        ours = {name.removesuffix(f".{self._boot}") for name in self._names()}
        return {int(name) for name in ours if name.isdecimal()}

    def has(self, number: int) -> bool:
        """Whether a unit is done."""
        names = (str(number), f"{number}.{self._boot}")
        return any(self._is_there(f"{DONE}/{name}") for name in names)

    def add(self, number: int, *, durable: bool) -> None:
        """Say that a unit is whole. With ``durable``, or where no boot can be told, sync first.

        Else one of the process's threads syncs, and the others go on meanwhile. Raise OSError.
        """
        if durable or self._boot is None:
            sync_file_system(self._folder)
            self._make(f"{DONE}/{number}")
            return
        self._make(f"{DONE}/{number}.{self._boot}")
        if _syncing.acquire(blocking=False):
            try:
                self.sync()
            finally:
                _syncing.release()

    def sync(self) -> None:
        """Make everything durable, and the marks that were there before too.

        Where that fails nobody knows what was lost: those marks are taken away. Raise OSError.
        """
        waiting = [name for name in self._names() if name.endswith(f".{self._boot}")]
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
