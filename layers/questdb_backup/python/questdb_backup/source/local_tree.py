"""A directory of this host as a tree: what a symlink may lead to, and reads that cost one call each."""

import errno
import os
import stat
from functools import lru_cache
from operator import attrgetter
from pathlib import Path

from questdb_backup.source.base import EntryKind, TreeEntry
from questdb_backup.source.reflink import reflink

LINKED_FOLDERS = {".checkpoint": 1, "db": 3}
"""How deep symlinks to other volumes may stand: ``.checkpoint``; ``db``, its tables and their partitions."""
_NO_PARTS = frozenset(("", ".", ".."))
_KNOWN_FOLDERS = 4096
_OPEN_FILES = 64
_IS_LINK = (errno.ELOOP, errno.EMLINK)
"""What an open that follows no link answers to one; EMLINK on FreeBSD."""
_KINDS = {stat.S_IFDIR: EntryKind.DIRECTORY, stat.S_IFLNK: EntryKind.SYMLINK}


class LocalTree:
    """Tree on a directory of this host, for many threads at once.

    QuestDB puts tables on other volumes (IN VOLUME) and attaches partitions by symlink: such links to
    directories are followed. Any other path that leads out of the root raises PermissionError.

    It is made for one plan or one unit of work: where a directory is, and the files that were read
    last, are remembered as long as it lives.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._folders: dict[str, str] = {"": self._root}
        self._open = lru_cache(maxsize=_OPEN_FILES)(_OpenFile)

    def entries(self, path: str) -> list[TreeEntry]:
        """As Tree says; an entry that vanishes meanwhile is left out."""
        near = self._known_folder(path)
        try:
            return _list(near or self._resolve(path))
        except OSError:
            if near is None:
                raise
        self._forget(path)
        return _list(self._resolve(path))

    def stat(self, path: str) -> TreeEntry:
        """As Tree says."""
        name = path.rpartition("/")[2]
        if (near := self._unless_link(path)) is not None:
            try:
                found = os.lstat(near)
                if not stat.S_ISLNK(found.st_mode):
                    return _entry(name, found)
            except OSError:
                self._forget(path)
        return _entry(name, Path(self._resolve(path)).stat())

    def read_link(self, path: str) -> str:
        """As Tree says. Raise OSError where the path is no symlink."""
        parent, _, name = path.rpartition("/")
        return str(Path(self._resolve(parent), name).readlink())

    def read(self, path: str, offset: int, length: int) -> bytes:
        """As Tree says. The file stays open for the next read, as long as few others are read."""
        return self._opened(path).read(offset, length)

    def read_into(self, path: str, offset: int, buffer: memoryview) -> int:
        """As Tree says."""
        return self._opened(path).read_into(offset, buffer)

    def clone(self, path: str, target: Path) -> None:
        """Make a new file that shares the blocks of one (FICLONE).

        Raise FileNotFoundError where there is no such file; OSError where it cannot be cloned, and
        FileExistsError where something is at ``target``.
        """
        file = self._opened(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.clone(target)

    def _opened(self, path: str) -> "_OpenFile":
        if (near := self._unless_link(path)) is not None:
            try:
                return self._open(near)
            except OSError as error:
                if error.errno not in _IS_LINK:
                    self._forget(path)
        return self._open(self._resolve(path))

    def _unless_link(self, path: str) -> str | None:
        """Where the path is, unless its last part is a symlink. None where only `_resolve` can tell.

        What stands in a folder that may be read may be read too, if it is no symlink: so only folders
        have to be resolved, and each of them once.
        """
        parent, _, name = path.rpartition("/")
        if name in _NO_PARTS or path[0] == "/":
            return None
        folder = self._known_folder(parent)
        return None if folder is None else f"{folder}/{name}"

    def _known_folder(self, path: str) -> str | None:
        if (real := self._folders.get(path)) is not None:
            return real
        try:
            near = self._unless_link(path)
            if near is None:
                return None
            real = self._resolve(path) if stat.S_ISLNK(os.lstat(near).st_mode) else near
        except OSError:
            return None
        if len(self._folders) >= _KNOWN_FOLDERS:
            self._folders = {"": self._root}
        self._folders[path] = real
        return real

    def _forget(self, path: str) -> None:
        """It is not where it was: a partition was attached anew, a table dropped."""
        while path:
            self._folders.pop(path, None)
            path = path.rpartition("/")[0]

    def _resolve(self, path: str) -> str:
        """The absolute path. Raise PermissionError where it is none within the root, or a link leads out."""
        parts = path.split("/") if path else []
        if not _NO_PARTS.isdisjoint(parts):
            raise PermissionError(errno.EPERM, "not a path below the root", path)
        real = os.path.realpath("/".join((self._root, *parts)))
        if not _holds(self._root, real) and not self._is_linked_folder(parts, real):
            raise PermissionError(errno.EPERM, "a symlink leads out of the root", path)
        return real

    def _is_linked_folder(self, parts: list[str], real: str) -> bool:
        depth = LINKED_FOLDERS.get(parts[0], 0) if parts else 0
        folders = (os.path.realpath("/".join((self._root, *parts[:n]))) for n in range(1, depth + 1))
        return any(Path(folder).is_dir() and _holds(folder, real) for folder in folders)


class _OpenFile:
    """A file that is open for reading: until nobody refers to it any more, and a read under way does."""

    __slots__ = ("_descriptor",)

    def __init__(self, real: str) -> None:
        self._descriptor = -1
        self._descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer where the file ends."""
        parts = []
        while length > 0 and (part := os.pread(self._descriptor, length, offset)):
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def clone(self, target: Path) -> None:
        """Make a new file of the same blocks."""
        with target.open("xb") as file:
            reflink(self._descriptor, file.fileno())

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill the buffer; give how many bytes, fewer where the file ends."""
        done = 0
        while done < len(buffer) and (got := os.preadv(self._descriptor, [buffer[done:]], offset + done)):
            done += got
        return done


def _holds(folder: str, real: str) -> bool:
    return real == folder or real.startswith(folder.rstrip("/") + "/")


def _list(real: str) -> list[TreeEntry]:
    with os.scandir(real) as found:
        listed = [entry for entry in map(_listed, found) if entry is not None]
    return sorted(listed, key=attrgetter("name"))


def _listed(found: os.DirEntry[str]) -> TreeEntry | None:
    try:
        return _entry(found.name, found.stat(follow_symlinks=False))
    except FileNotFoundError:
        return None


def _entry(name: str, found: os.stat_result) -> TreeEntry:
    mode = found.st_mode
    if stat.S_ISREG(mode):
        return TreeEntry(name, EntryKind.FILE, found.st_size, stat.S_IMODE(mode))
    kind = _KINDS.get(stat.S_IFMT(mode), EntryKind.OTHER)
    return TreeEntry(name, kind, 0, stat.S_IMODE(mode))
