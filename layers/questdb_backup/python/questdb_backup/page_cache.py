"""The kernel's page cache belongs to the database: what a backup writes or reads once need not stay there.

It costs nothing to let it go, and often saves something: pages are taken again that are there, where a
virtual machine else asks its host for new ones; and a final sync finds little to do. posix_fadvise(2).
"""

import os
from contextlib import suppress

LEAST_BYTES = 256 << 10
"""Less is not worth a call."""


def let_go(descriptor: int, offset: int = 0, length: int = 0) -> None:
    """Begin to write what is dirty of a stretch (length 0: to the end), and drop what is clean.

    It waits for nothing, and does nothing where the system or the file system has no such call.
    """
    with suppress(AttributeError, OSError):
        os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)
