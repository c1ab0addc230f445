"""An advisory lock on a file, between threads, processes and, over NFS, hosts."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from questdb_backup.errors import ConfigurationError, StoreUnavailableError

WAIT_SECONDS = 60.0  # what the lock protects takes milliseconds
_POLL_SECONDS = 0.005
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of the file, which is made and never removed (removing it would break the lock).

    The kernel gives the lock back when its process ends, however it ends.

    Raises:
        StoreUnavailableError: another process held it for `WAIT_SECONDS`.
        ConfigurationError: the file system has no locks.
        OSError: the file cannot be made or opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _wait(descriptor, path)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child would keep it past the close
    finally:
        os.close(descriptor)


def _wait(descriptor: int, path: Path) -> None:
    give_up = time.monotonic() + WAIT_SECONDS
    while not _try(descriptor, path):
        if time.monotonic() > give_up:
            raise StoreUnavailableError(
                f"the lock '{path}' is held by another process",
                "see with lsof, or on the file server, who holds it",
            )
        time.sleep(_POLL_SECONDS)


def _try(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        fact = f"the file system of '{path}' has no file locks ({error.strerror})"
        raise ConfigurationError(fact, "mount it with locks") from error
    return True
