"""Folders whose entries are durable: a file's own fsync does not cover its name (fsync(2))."""

import errno
import os
from pathlib import Path

_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
"""What file systems answer whose folders need no sync, or know none."""


def sync_folder(path: Path) -> None:
    """Make a folder's entries durable: new names, renames, removals. Raise OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)
