"""One file's bytes in another without a copy of them: FICLONE, ioctl_ficlone(2)."""

import fcntl

_FICLONE = 0x40049409
"""linux/fs.h: _IOW(0x94, 9, int)."""


def reflink(source: int, target: int) -> None:
    """Let an open file, new and empty, share the blocks of another: both are descriptors.

    Raise OSError where they cannot be shared: mostly, the file system has no clones, or there are two.
    """
    fcntl.ioctl(target, _FICLONE, source)
