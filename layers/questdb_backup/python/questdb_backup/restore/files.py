"""Reading and writing below a directory that a hostile manifest cannot lead out of.

Every path is walked part by part from an open directory, without following a symlink; what is opened
is a plain file with one name, or the restore ends.
"""

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from questdb_backup.errors import DamagedBackupError, RestoreFailedError, StorageFullError
from questdb_backup.page_cache import LEAST_BYTES, let_go

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_IN_THE_WAY = {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENXIO, errno.ENAMETOOLONG}
_KEPT_OPEN = 32
_DEEPEST = 64


def names_in(folder: int | Path) -> set[str]:
    """The names in a directory, given by its path or open."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


@contextmanager
def wrapped(path: str) -> Iterator[None]:
    """Give the operating system's errors our names.

    Raise StorageFullError, DamagedBackupError (something is in the way), RestoreFailedError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError(
                f"'{path}' cannot be written: {error.strerror}",
                "free space on the target, then start the same restore again: it goes on where it stopped",
            ) from error
        if error.errno in _IN_THE_WAY:
            raise DamagedBackupError(
                f"'{path}' cannot be placed, a symlink or another file is in its way: {error.strerror}",
                "the backup names one path in two ways, or somebody else writes to the staging directory",
            ) from error
        raise RestoreFailedError(
            f"'{path}' cannot be written: {error.strerror}", "check the target's disk and permissions"
        ) from error


class SafeTree:
    """Files below one open directory, for one thread; several of them may write one file.

    Close it, or use it as a context manager.
    """

    def __init__(self, name: str, parent: int) -> None:
        with wrapped(name):
            self._base = os.open(name, _FOLDER, dir_fd=parent)
        self._folders: OrderedDict[str, int] = OrderedDict()
        self._files: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> "SafeTree":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close everything that is open."""
        for kept in (self._files, self._folders):
            while kept:
                _close(kept.popitem()[1])
        if self._base >= 0:
            os.close(self._base)
            self._base = -1

    def make_folder(self, path: str) -> None:
        """Make the directory and the ones above it, where they are not there."""
        with wrapped(path):
            self._folder(path, make=True)

    def make_file(self, path: str, size: int, mode: int) -> None:
        """Make the file with its final size, all of it holes; what is in it already stays.

        The owner may always read and write it until `set_mode`.
        """
        with wrapped(path):
            self._file(path, size, mode)

    def write(self, path: str, size: int, mode: int, offset: int, data: bytes) -> None:
        """Write bytes of a file, which is made where it is not open, as by `make_file`."""
        with wrapped(path):
            descriptor = self._file(path, size, mode)
            rest, at = memoryview(data), offset
            while rest:
                written = os.pwrite(descriptor, rest, at)
                rest, at = rest[written:], at + written
            if len(data) >= LEAST_BYTES:
                let_go(descriptor, offset, len(data))

    def stat(self, path: str) -> os.stat_result | None:
        """What is at the path, itself a symlink or not; None where nothing is."""
        parent, _, name = path.rpartition("/")
        with wrapped(path):
            try:
                return os.stat(name, dir_fd=self._folder(parent, make=False), follow_symlinks=False)
            except FileNotFoundError:
                return None

    def set_mode(self, path: str, mode: int) -> None:
        """Set the permission bits. The path was found to be no symlink."""
        parent, _, name = path.rpartition("/")
        with wrapped(path):
            os.chmod(name, mode, dir_fd=self._folder(parent, make=False))

    def _file(self, path: str, size: int, mode: int) -> int:
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        parent, _, name = path.rpartition("/")
        descriptor = os.open(name, _FILE, mode | 0o600, dir_fd=self._folder(parent, make=True))
        _keep(self._files, path, descriptor)
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
            raise OSError(errno.EEXIST, "it is no plain file with one name")
        if info.st_size != size:
            os.ftruncate(descriptor, size)
        if stat.S_IMODE(info.st_mode) != mode | 0o600:
            os.fchmod(descriptor, mode | 0o600)
        return descriptor

    def _folder(self, path: str, *, make: bool) -> int:
        """The open directory. Only the last `_KEPT_OPEN` stay open, so use it before asking for the next."""
        if path == "":
            return self._base
        if path in self._folders:
            self._folders.move_to_end(path)
            return self._folders[path]
        if path.count("/") > _DEEPEST:
            raise OSError(errno.ENAMETOOLONG, f"more than {_DEEPEST} directories deep")
        parent, _, name = path.rpartition("/")
        above = self._folder(parent, make=make)
        if make:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=above)
        return _keep(self._folders, path, os.open(name, _FOLDER, dir_fd=above))


class Trees:
    """The trees of several threads that fill one directory; each takes one for a while.

    Close it, or use it as a context manager, when no thread has one.
    """

    def __init__(self, name: str, parent: int) -> None:
        self._where = (name, parent)
        self._free: list[SafeTree] = []

    def __enter__(self) -> "Trees":
        return self

    def __exit__(self, *_: object) -> None:
        while self._free:
            self._free.pop().close()

    @contextmanager
    def one(self) -> Iterator[SafeTree]:
        """A tree for this thread; it keeps open what it was used for last."""
        try:
            tree = self._free.pop()
        except IndexError:
            tree = SafeTree(*self._where)
        try:
            yield tree
        finally:
            self._free.append(tree)


def _keep(kept: OrderedDict[str, int], path: str, descriptor: int) -> int:
    kept[path] = descriptor
    if len(kept) > _KEPT_OPEN:
        _close(kept.popitem(last=False)[1])
    return descriptor


def _close(descriptor: int) -> None:
    let_go(descriptor)  # what was begun to be written is written by now
    os.close(descriptor)


def count_files(name: str, parent: int) -> int:
    """The plain files below a directory. Raise DamagedBackupError where anything else is there."""
    files = 0
    with wrapped(name):
        for folder, folders, names, descriptor in os.fwalk(name, dir_fd=parent, onerror=_raise):
            files += len(names)
            for entry in (*folders, *names):
                mode = os.stat(entry, dir_fd=descriptor, follow_symlinks=False).st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    raise DamagedBackupError(
                        f"'{folder}/{entry}' in the staging directory is neither a file nor a directory",
                        "somebody else writes there; remove it and start the restore again",
                    )
    return files


def _raise(error: OSError) -> None:
    raise error
