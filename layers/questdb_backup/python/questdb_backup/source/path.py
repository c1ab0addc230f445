"""The source on this host: a server root under a checkpoint, or a frozen copy that holds its own."""

import errno
import os
import stat
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from questdb_backup.questdb.features import counts_squashes, rebuilds_indexes
from questdb_backup.source.base import EntryKind, PlannedGroup, PlannedTable, Tree, TreeEntry
from questdb_backup.source.listing import CHECKPOINT, DB, list_needed, read_whole
from questdb_backup.source.rest import root_group
from questdb_backup.source.state import is_torn, load_table
from questdb_backup.source.tables import TablePlanner

_LINKED_FOLDERS = {".checkpoint": 1, DB: 3}
"""How deep symlinks to other volumes may stand: ``.checkpoint``; ``db``, its tables and their partitions."""


class LocalTree:
    """Tree on a directory of this host.

    QuestDB puts tables on other volumes (IN VOLUME) and attaches partitions by symlink: such links to
    directories are followed. Any other path that leads out of the root raises PermissionError.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)

    def entries(self, path: str) -> list[TreeEntry]:
        """As Tree says; an entry that vanishes meanwhile is left out."""
        with os.scandir(self._resolve(path)) as found:
            listed = [entry for entry in map(_listed, found) if entry is not None]
        return sorted(listed, key=lambda entry: entry.name)

    def stat(self, path: str) -> TreeEntry:
        """As Tree says."""
        return _entry(path.rpartition("/")[2], Path(self._resolve(path)).stat())

    def read_link(self, path: str) -> str:
        """As Tree says. Raise OSError where the path is no symlink."""
        parent, _, name = path.rpartition("/")
        return str(Path(self._resolve(parent), name).readlink())

    def read(self, path: str, offset: int, length: int) -> bytes:
        """As Tree says."""
        descriptor = os.open(self._resolve(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read_fully(descriptor, offset, length)
        finally:
            os.close(descriptor)

    def _resolve(self, path: str) -> str:
        """The absolute path. Raise PermissionError where it is none within the root, or a link leads out."""
        parts = path.split("/") if path else []
        if any(part in ("", ".", "..") for part in parts):
            raise PermissionError(errno.EPERM, "not a path below the root", path)
        real = os.path.realpath("/".join((self._root, *parts)))
        if not _holds(self._root, real) and not self._is_linked_folder(parts, real):
            raise PermissionError(errno.EPERM, "a symlink leads out of the root", path)
        return real

    def _is_linked_folder(self, parts: list[str], real: str) -> bool:
        depth = _LINKED_FOLDERS.get(parts[0], 0) if parts else 0
        folders = (os.path.realpath("/".join((self._root, *parts[:n]))) for n in range(1, depth + 1))
        return any(Path(folder).is_dir() and _holds(folder, real) for folder in folders)


class CheckpointSource:
    """Source on any tree that holds a checkpoint.

    ``server_version`` decides what the version can do; None is an unknown one. ``lists_indexes``
    includes the files of indexes; by default where recovery by that version cannot make them anew.
    Signatures are given where the version counts squashes.
    """

    def __init__(self, tree: Tree, *, server_version: str | None, lists_indexes: bool | None = None) -> None:
        self._tree = tree
        self._signs = counts_squashes(server_version)
        self._lists_indexes = not rebuilds_indexes(server_version) if lists_indexes is None else lists_indexes

    @property
    def tree(self) -> Tree:
        """As Source says."""
        return self._tree

    def tables(self) -> Iterator[PlannedTable]:
        """As Source says."""
        for name in self._table_names():
            yield load_table(self._tree, name).describe(self._tree)

    def groups(self) -> Iterator[PlannedGroup]:
        """As Source says; the root's own group comes last, because ``_tab_index.d`` must be read late."""
        planner = TablePlanner(
            tree=self._tree,
            links=frozenset(self._links),
            mat_views=self._mat_view_definitions,
            signs=self._signs,
            lists_indexes=self._lists_indexes,
        )
        for name in self._table_names():
            yield from planner.groups(load_table(self._tree, name))
        yield root_group(self._tree)

    def torn_tables(self) -> list[str]:
        """As Source says."""
        return [name for name in self._table_names() if is_torn(self._tree, name)]

    def _table_names(self) -> list[str]:
        entries = list_needed(self._tree, CHECKPOINT)
        return [entry.name for entry in entries if entry.kind is EntryKind.DIRECTORY]

    @cached_property
    def _links(self) -> set[str]:
        """Tables on other volumes."""
        return {entry.name for entry in list_needed(self._tree, DB) if entry.kind is EntryKind.SYMLINK}

    @cached_property
    def _mat_view_definitions(self) -> bytes:
        """The definitions of all materialized views; the names of their base tables are in there."""
        found = []
        for name in self._table_names():
            if any(entry.name == "_mv" for entry in list_needed(self._tree, f"{CHECKPOINT}/{name}")):
                found.append(read_whole(self._tree, f"{CHECKPOINT}/{name}/_mv"))
        return b"".join(found)


def _holds(folder: str, real: str) -> bool:
    return real == folder or real.startswith(folder.rstrip("/") + "/")


def _listed(found: os.DirEntry[str]) -> TreeEntry | None:
    try:
        return _entry(found.name, found.stat(follow_symlinks=False))
    except FileNotFoundError:
        return None


def _entry(name: str, found: os.stat_result) -> TreeEntry:
    mode = found.st_mode
    if stat.S_ISREG(mode):
        return TreeEntry(name, EntryKind.FILE, found.st_size, stat.S_IMODE(mode))
    kind = (
        EntryKind.DIRECTORY
        if stat.S_ISDIR(mode)
        else EntryKind.SYMLINK
        if stat.S_ISLNK(mode)
        else EntryKind.OTHER
    )
    return TreeEntry(name, kind, 0, stat.S_IMODE(mode))


def _read_fully(descriptor: int, offset: int, length: int) -> bytes:
    parts = []
    while length > 0 and (part := os.pread(descriptor, length, offset)):
        parts.append(part)
        offset, length = offset + len(part), length - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
