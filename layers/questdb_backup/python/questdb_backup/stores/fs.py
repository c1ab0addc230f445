"""An object store in a folder: a disk, a mount, an NFS export.

A file is made in ``atomic_write_dir``, synced, and only then appears under its key, by a hard link (which
never overwrites) or by a rename; both folders are therefore on one mount. A crash leaves nothing but a
temporary file there, which an open of the store removes when it is a day old.
"""

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blake3 import blake3

from questdb_backup.errors import (
    BackupToolError,
    ConfigurationError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StorageFullError,
    StoreAccessDeniedError,
    StoreNotFoundError,
    StoreUnavailableError,
)
from questdb_backup.folders import sync_folder
from questdb_backup.page_cache import LEAST_BYTES, let_go
from questdb_backup.stores.base import Data, StoredObject, Versioned
from questdb_backup.stores.fs_lock import locked
from questdb_backup.stores.keys import check_key, check_prefix, check_range

_STALE_SECONDS = 24 * 3600
_OURS = "questdb-backup-"

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EROFS, errno.EACCES, errno.EPERM}
_IN_THE_WAY = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class FsObjectStore:
    """Objects are files below ``root``; the version of an object is the digest of its bytes.

    Args:
        root: the folder of the store; made when its parent is there.
        atomic_write_dir: where files and locks are made; on the mount of ``root``, never ``root`` itself.
        read_only: nothing is made or tidied up when the store is opened.

    Raises:
        StoreNotFoundError: a parent is missing, as it is while a mount is not there.
        ConfigurationError: the folders are on two mounts, or no folders.
    """

    def __init__(self, root: Path, atomic_write_dir: Path, *, read_only: bool = False) -> None:
        self._root = root
        self._atomic = atomic_write_dir
        self._synced: set[Path] = set()  # folders whose own entry is known to be durable
        self._root = self._open_folder(root)
        if read_only:
            return
        try:
            self._atomic = self._open_folder(atomic_write_dir)
        except StoreAccessDeniedError:
            return  # a store that is mounted read-only can be restored from; a write will say why it fails
        self._check_one_mount()
        self._remove_stale_files()

    @property
    def location(self) -> str:
        """``fs:///mnt/backups``."""
        return f"fs://{self._root}"

    def address(self, key: str) -> tuple[str, str]:
        """No bucket: a key is its path below the root."""
        return "", key

    def get(self, key: str) -> bytes:
        """The whole file."""
        path = self._path(key)
        with self._errors(key, writes=False):
            return path.read_bytes()

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Some bytes of the file, fewer where it ends."""
        check_range(key, offset, length)
        path = self._path(key)
        with self._errors(key, writes=False), path.open("rb") as file:
            available = os.fstat(file.fileno()).st_size - offset
            if available <= 0:
                return b""
            file.seek(offset)
            data = file.read(min(length, available))
            if length >= LEAST_BYTES:
                let_go(file.fileno(), offset, length)
            return data

    def read(self, key: str) -> Versioned | None:
        """The file with the digest of its bytes, or None."""
        try:
            data = self.get(key)
        except ObjectNotFoundError:
            return None
        return Versioned(data, _version(data))

    def create(self, key: str, data: Data) -> None:
        """Write a file that is not there yet, durable when this returns."""
        path = self._path(key)
        with self._errors(key, writes=True), self._temporary(data) as temporary:
            try:
                self._place(temporary, path, key)
            except FileExistsError as error:
                if path.read_bytes() != data:
                    raise ObjectExistsError(
                        f"'{key}' is in {self.location} already, with other bytes"
                    ) from error
            self._make_durable(path)

    def replace(self, key: str, data: bytes, expected: str | None) -> str:
        """Compare-and-swap under the lock of this key in ``atomic_write_dir``."""
        path = self._path(key)
        with self._errors(key, writes=True), self._temporary(data) as temporary, locked(self._lock_path(key)):
            found = self.read(key)
            if (found.version if found else None) != expected:
                raise PreconditionFailedError(f"'{key}' in {self.location} was changed by another writer")
            self._put(path, lambda: temporary.replace(path))
            self._make_durable(path)
        return _version(data)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove the files, then the folders that are empty by that."""
        folders = set()
        for key in keys:
            path = self._path(key)
            folders.add(path.parent)
            try:
                with self._errors(key, writes=False):
                    path.unlink()
            except ObjectNotFoundError:
                continue
        for folder in folders:
            self._remove_empty(folder)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every file whose key begins with the prefix, without ``atomic_write_dir``."""
        folder, _, _ = check_prefix(prefix).rpartition("/")
        pending = [self._root / folder]
        while pending:
            for entry in self._entries(pending.pop()):
                if entry.is_dir(follow_symlinks=False):
                    if entry.path != str(self._atomic):
                        pending.append(Path(entry.path))
                    continue
                key = entry.path[len(str(self._root)) :].lstrip("/")
                size = _size(entry)
                if size is not None and key.startswith(prefix):
                    yield StoredObject(key, size)

    def _entries(self, folder: Path) -> Iterable["os.DirEntry[str]"]:
        try:
            with self._errors(str(folder), writes=False), os.scandir(folder) as entries:
                return [*entries]
        except ObjectNotFoundError:
            return []

    def _path(self, key: str) -> Path:
        path = self._root / check_key(key)
        if self._atomic in (path, *path.parents):
            raise ConfigurationError(
                f"'{key}' would lie in atomic_write_dir '{self._atomic}'",
                "give atomic_write_dir another name",
            )
        return path

    def _open_folder(self, path: Path) -> Path:
        with self._errors(str(path), writes=True):
            if not path.parent.is_dir():
                raise StoreNotFoundError(
                    f"'{path}' cannot be made, its parent does not exist", "mount the disk or make the folder"
                )
            if not path.is_dir():
                with suppress(FileExistsError):  # another process was faster
                    path.mkdir()
        if not path.is_dir():
            raise ConfigurationError(f"'{path}' is not a folder", "name a folder for the object store")
        return path.resolve()

    def _check_one_mount(self) -> None:
        with self._errors(str(self._atomic), writes=True):
            if self._root.stat().st_dev != self._atomic.stat().st_dev:
                raise self._two_mounts()

    def _two_mounts(self) -> ConfigurationError:
        return ConfigurationError(
            f"root '{self._root}' and atomic_write_dir '{self._atomic}' are on two mounts",
            "put atomic_write_dir on the mount of root, say inside it",
        )

    def _remove_stale_files(self) -> None:
        oldest = time.time() - _STALE_SECONDS
        for path in self._atomic.glob(f"{_OURS}*.tmp"):
            with suppress(OSError):  # read-only, or removed by another process: neither matters here
                if path.lstat().st_mtime < oldest:
                    path.unlink()

    def _make_folder(self, folder: Path) -> None:
        """Make the folders from ``root`` down, each durable; never ``root``: it may be a lost mount.

        Nothing is put into a folder before it is durable: one that holds something is not synced again.
        """
        if folder == self._root or folder in self._synced:
            return
        if not folder.is_dir() or _is_empty(folder):
            self._make_folder(folder.parent)
            # Not exist_ok: where another removes it at that moment it says "exists" of what is gone.
            with suppress(FileExistsError):
                folder.mkdir()
            sync_folder(folder.parent)
        self._synced.add(folder)

    def _put(self, path: Path, put: Callable[[], object]) -> None:
        """Make the folder, and ``put`` the file there.

        Where another's `delete` removed the folder between, again under the lock of such removals.
        """
        try:
            self._make_folder(path.parent)
            put()
        except FileNotFoundError:
            self._synced.difference_update(path.parents)
            with locked(self._folders_lock):
                self._make_folder(path.parent)
                put()

    def _make_durable(self, path: Path) -> None:
        """Sync the folder of the file; another may have deleted both by now."""
        with suppress(FileNotFoundError):
            sync_folder(path.parent)

    def _remove_empty(self, folder: Path) -> None:
        """Remove the folder and those above it, as far as they are empty; never ``root``."""
        # It holds something, or is gone, or its lock is taken: it stays, and nobody misses it.
        with suppress(OSError, StoreUnavailableError):
            while folder != self._root and _is_empty(folder):
                with locked(self._folders_lock):
                    folder.rmdir()
                self._synced.discard(folder)
                folder = folder.parent

    @contextmanager
    def _temporary(self, data: Data) -> Iterator[Path]:
        path = self._atomic / f"{_OURS}{os.getpid()}-{os.urandom(8).hex()}.tmp"
        try:
            with path.open("xb", buffering=0) as file:
                _write_all(file.fileno(), data)
                os.fsync(file.fileno())
                if len(data) >= LEAST_BYTES:
                    let_go(file.fileno())
            yield path
        finally:
            with suppress(OSError):  # renamed, or what a later open removes
                path.unlink(missing_ok=True)

    def _place(self, temporary: Path, path: Path, key: str) -> None:
        """Let the file appear under its key. Raise FileExistsError where something is there."""
        try:
            self._put(path, lambda: os.link(temporary, path))
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            with locked(self._lock_path(key)):  # FAT, CIFS, some FUSE: every writer comes this way there
                if os.path.lexists(path):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
                self._put(path, lambda: temporary.replace(path))

    @property
    def _folders_lock(self) -> Path:
        """The lock under which empty folders are removed; taken after the lock of a key, never before."""
        return self._atomic / f"{_OURS}folders.lock"

    def _lock_path(self, key: str) -> Path:
        return self._atomic / f"{_OURS}{blake3(key.encode()).hexdigest(length=16)}.lock"

    @contextmanager
    def _errors(self, what: str, *, writes: bool) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._translated(error, what, writes) from error

    def _translated(self, error: OSError, what: str, writes: bool) -> BackupToolError:
        fact = f"{'writing' if writes else 'reading'} '{what}' in {self.location}: {error.strerror}"
        if error.errno in _FULL:
            return StorageFullError(fact, "free space or raise the quota, then run again")
        if error.errno in _DENIED:
            return StoreAccessDeniedError(fact, "give this user the right to it, or mount it writable")
        if error.errno == errno.EXDEV:
            return self._two_mounts()
        if error.errno == errno.ENOENT:
            for folder in (self._root, *((self._atomic,) if writes else ())):
                if not folder.is_dir():
                    return StoreNotFoundError(
                        f"'{folder}' does not exist", "mount the disk or make the folder"
                    )
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.EISDIR} and not writes:
            return ObjectNotFoundError(f"'{what}' is not in {self.location}")
        if error.errno in _IN_THE_WAY:
            return ObjectExistsError(fact, "something else is in the way of this key: look at it")
        self._synced.clear()  # a folder may have been removed under us: the next try makes it again
        return StoreUnavailableError(fact, "check the disk or the mount")


def _version(data: bytes) -> str:
    return blake3(data).hexdigest()


def _write_all(descriptor: int, data: Data) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _is_empty(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def _size(entry: "os.DirEntry[str]") -> int | None:
    """The size of a plain file; None for anything else, and for one that has vanished."""
    with suppress(FileNotFoundError):
        if entry.is_file(follow_symlinks=False):
            return entry.stat(follow_symlinks=False).st_size
    return None
