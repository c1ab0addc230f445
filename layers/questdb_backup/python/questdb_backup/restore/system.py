"""Three things of Linux that Python does not offer, each with what to do where it is missing."""

import ctypes
import errno
import fcntl
import functools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from questdb_backup.errors import RestoreFailedError

_NO_REPLACE = 1  # RENAME_NOREPLACE of linux/fs.h
_AT_FDCWD = -100
_NOT_HERE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}
_LOCK_SECONDS = 20.0


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def rename_without_replacing(old: Path, new: Path) -> None:
    """Rename; raise FileExistsError where anything is under the new name.

    File systems without the flag (NFS) get a look before the rename, which cannot close the race.
    """
    call = getattr(_libc(), "renameat2", None)
    if call is not None:
        if call(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), _NO_REPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in _NOT_HERE:
            raise OSError(number, os.strerror(number), str(old), None, str(new))
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
    old.rename(new)


def sync_file_system(descriptor: int) -> None:
    """Make everything written to the file system of an open directory durable: files and directories.

    One call for a unit of thousands of files, in place of one fsync for each.
    """
    call = getattr(_libc(), "syncfs", None)
    if call is None:
        os.sync()
    elif call(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def locked(name: str, folder: int, *, exclusive: bool) -> Iterator[None]:
    """Hold an advisory lock on a file of the open directory; the kernel frees it when the process dies.

    Raise RestoreFailedError where another restore holds it for `_LOCK_SECONDS`.
    """
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        _wait(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, _LOCK_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int, kind: int, seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while True:
        try:
            return fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > give_up:
                raise RestoreFailedError(
                    "another restore into this root is running", "wait for it, or stop it first"
                ) from error
            time.sleep(0.05)
        except OSError as error:
            if error.errno in {*_NOT_HERE, errno.ENOLCK}:
                return None  # this file system has no locks: the owner in restore.json has to do
            raise
