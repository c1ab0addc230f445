"""Clones of a root's files (FICLONE): they keep what the checkpoint has, so that it can be released at once.

A clone shares its blocks with the file until one of them is written to: XFS made with ``reflink=1`` (its
default), btrfs, bcachefs, and others make it in a moment, however large the file is. ioctl_ficlone(2).
"""

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from questdb_backup.clock import to_key
from questdb_backup.source.base import Tree
from questdb_backup.source.local_tree import LocalTree


class Clones(Protocol):
    """Keeps files of the root, as they are now, for one run."""

    def add(self, run: str, path: str) -> None:
        """Keep a file of the root. One that is not there is left out.

        Raise OSError where it cannot be cloned: mostly, the file system has no clones, or the file is on
        another one than the root.
        """

    def tree(self, run: str) -> Tree:
        """What the run has kept; any process of this host may read it."""

    def clear(self) -> None:
        """Remove all clones of this process, and those that a dead one left."""


class NoClones:
    """Clones where the files are not on this host."""

    def add(self, _run: str, _path: str) -> None:
        """Raise OSError."""
        raise OSError("files of this source are not cloned")

    def tree(self, _run: str) -> Tree:
        """There is none."""
        raise AssertionError("nothing was cloned")

    def clear(self) -> None:
        """Nothing is there."""


class FileClones:
    """Clones in ``folder``, which must be on the root's file system; one directory for each run.

    The process that makes them holds a lock on that directory, so that others see whether it lives.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._source = LocalTree(root)
        self._folder = folder
        self._locks: dict[str, int] = {}

    def add(self, run: str, path: str) -> None:
        """As Clones says."""
        place = self._place(run)
        if run not in self._locks:
            place.mkdir(mode=0o700, parents=True)
            self._locks[run] = _lock(place)
        with suppress(FileNotFoundError):
            self._source.clone(path, place / path)

    def tree(self, run: str) -> Tree:
        """As Clones says."""
        return LocalTree(self._place(run))

    def clear(self) -> None:
        """As Clones says."""
        for run, lock in [*self._locks.items()]:
            shutil.rmtree(self._place(run), ignore_errors=True)
            os.close(lock)
            del self._locks[run]
        with suppress(OSError):  # there are none, or they are another user's
            for place in self._folder.iterdir():
                _remove_dead(place)
            self._folder.rmdir()

    def _place(self, run: str) -> Path:
        return self._folder / to_key(run)


def _lock(place: Path) -> int:
    """Raise BlockingIOError where another process holds it, FileNotFoundError where one has removed it."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        place.stat()
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove_dead(place: Path) -> None:
    with suppress(BlockingIOError):  # its process lives
        lock = _lock(place)
        try:
            shutil.rmtree(place)
        finally:
            os.close(lock)
