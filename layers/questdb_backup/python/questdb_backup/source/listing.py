"""Planned files from a tree: needed ones, with the error that names what is missing, and live ones."""

from collections.abc import Callable, Iterator

from questdb_backup.errors import SourceFileError
from questdb_backup.source.base import EntryKind, PlannedFile, Tree, TreeEntry

CHECKPOINT = ".checkpoint/db"
DB = "db"

_HINT = (
    "the checkpoint refers to it, so the disk lost it or the checkpoint is gone: see that the server was"
    " not restarted, check the table with a query over all its columns, and start the backup again"
)


def missing(path: str, size: int = 0) -> SourceFileError:
    """The error for a referenced path that is not there."""
    needs = f", the checkpoint needs {size} bytes of it" if size else ""
    return SourceFileError(f"{path} is missing{needs}", _HINT)


def too_short(path: str, found: int, needed: int) -> SourceFileError:
    """The error for a file that is shorter than the checkpoint's rows need."""
    return SourceFileError(f"{path} has {found} bytes, the checkpoint needs {needed}", _HINT)


def find(tree: Tree, path: str) -> TreeEntry | None:
    """The entry behind a path, symlinks followed; None where there is none."""
    try:
        return tree.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SourceFileError(f"{path} cannot be read: {error}") from error


def list_needed(tree: Tree, path: str) -> list[TreeEntry]:
    """The entries of a referenced directory. Raise SourceFileError where it cannot be listed."""
    try:
        return tree.entries(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing(path) from error
    except OSError as error:
        raise SourceFileError(f"{path} cannot be read: {error}") from error


def read_needed(tree: Tree, path: str, offset: int, length: int) -> bytes:
    """Exactly ``length`` bytes of a referenced file. Raise SourceFileError where it has fewer."""
    try:
        data = tree.read(path, offset, length)
    except FileNotFoundError as error:
        raise missing(path, offset + length) from error
    except OSError as error:
        raise SourceFileError(f"{path} cannot be read: {error}") from error
    if len(data) < length:
        raise too_short(path, offset + len(data), offset + length)
    return data


def read_some(tree: Tree, path: str, offset: int, length: int) -> bytes:
    """At most ``length`` bytes; nothing where the file ends before or is missing."""
    try:
        return tree.read(path, offset, length)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise SourceFileError(f"{path} cannot be read: {error}") from error


def read_whole(tree: Tree, path: str) -> bytes:
    """A referenced file's bytes. Raise SourceFileError where it is missing."""
    entry = find(tree, path)
    if entry is None:
        raise missing(path)
    return read_needed(tree, path, 0, entry.size)


def directory(tree: Tree, path: str, *, linked: bool = False, required: bool = True) -> PlannedFile:
    """A directory's entry; ``linked`` where a symlink stands there. Raise SourceFileError where missing."""
    entry = find(tree, path)
    if entry is None or entry.kind is not EntryKind.DIRECTORY:
        raise missing(path)
    link = tree.read_link(path) if linked else None
    return PlannedFile(
        path=path,
        kind=EntryKind.DIRECTORY,
        mode=entry.mode,
        size=0,
        exact=False,
        required=required,
        link=link,
    )


def needed_file(path: str, entry: TreeEntry | None, size: int, column_type: str | None = None) -> PlannedFile:
    """A file of which the checkpoint needs ``size`` bytes. Raise SourceFileError where it has fewer."""
    if entry is None or entry.kind is not EntryKind.FILE:
        raise missing(path, size)
    if entry.size < size:
        raise too_short(path, entry.size, size)
    return PlannedFile(
        path=path, kind=EntryKind.FILE, mode=entry.mode, size=size, exact=True, column_type=column_type
    )


def live_file(
    path: str, entry: TreeEntry, *, required: bool = False, column_type: str | None = None
) -> PlannedFile:
    """A file that the server may change meanwhile: what there is of it when it is read."""
    return PlannedFile(
        path=path,
        kind=EntryKind.FILE,
        mode=entry.mode,
        size=entry.size,
        exact=False,
        required=required,
        column_type=column_type,
        grows=True,
    )


def walk(
    tree: Tree,
    path: str,
    *,
    exact: bool = False,
    required: bool = False,
    linked: bool = False,
    follow: bool = False,
    skip: Callable[[str], bool] | None = None,
) -> Iterator[PlannedFile]:
    """A directory and all below it, names that ``skip`` takes left out at every depth.

    A symlink to a file is stored as that file, one to a directory only where ``follow`` is set and
    only right below ``path``; one that is broken or leads out of the root is left out. With
    ``required`` false a directory that vanishes meanwhile is left out too.
    """
    try:
        yield directory(tree, path, linked=linked, required=required)
        entries = list_needed(tree, path)
    except SourceFileError:
        if required:
            raise
        return
    for entry in entries:
        if skip is not None and skip(entry.name):
            continue
        below, is_link = f"{path}/{entry.name}", entry.kind is EntryKind.SYMLINK
        target = _behind(tree, below) if is_link else entry
        if target is None:
            continue
        if target.kind is EntryKind.FILE:
            yield _walked(below, target, exact=exact, required=required)
        elif target.kind is EntryKind.DIRECTORY and (follow or not is_link):
            yield from walk(tree, below, exact=exact, required=required, linked=is_link, skip=skip)


def _walked(path: str, entry: TreeEntry, *, exact: bool, required: bool) -> PlannedFile:
    return needed_file(path, entry, entry.size) if exact else live_file(path, entry, required=required)


def _behind(tree: Tree, path: str) -> TreeEntry | None:
    try:
        return tree.stat(path)
    except OSError:
        return None
