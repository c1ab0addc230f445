"""A server root on volumes that nobody has mounted, as a tree: paths, symlinks, and where files lie."""

import errno
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from questdb_backup.source.base import EntryKind, TreeEntry
from questdb_backup.source.local_tree import LINKED_FOLDERS
from questdb_backup.units import DiskExtent
from questdb_backup.volumes.base import Extent, FileSystem, Node

_KNOWN_FOLDERS = 4096
_LISTED_FOLDERS = 16
_MOST_LINKS = 40
"""As in the kernel: a path that leads through more symlinks is a circle."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """A file system of the snapshots, and the place of its volume in `Unit.volumes`."""

    files: FileSystem
    volume: int


@dataclass(frozen=True, slots=True)
class _Place:
    """A node, and its path from the top of its file system."""

    mounted: Mounted
    path: tuple[str, ...]
    node: Node

    def is_below(self, other: "_Place") -> bool:
        return self.mounted is other.mounted and self.path[: len(other.path)] == other.path


class VolumeTree:
    """Tree on a server root inside a file system. It is for one thread.

    ``server_root`` is its path from the top of the file system. ``mounts`` tells what the server's host
    has mounted where, by absolute path: tables on other volumes (IN VOLUME) and attached partitions stand
    behind symlinks, and their targets are followed there. Any other path that leads out of the
    root raises PermissionError.
    """

    def __init__(
        self, mounted: Mounted, server_root: str, mounts: Mapping[str, Mounted] | None = None
    ) -> None:
        self._mounts = {path.rstrip("/") or "/": found for path, found in (mounts or {}).items()}
        self._listed: OrderedDict[tuple[int, int], dict[str, Node]] = OrderedDict()
        self._folders: dict[str, _Place] = {}
        self._last: tuple[str, Mounted, Node, tuple[Extent, ...]] | None = None
        top = _Place(mounted, (), mounted.files.root)
        parts = tuple(part for part in server_root.split("/") if part)
        self._root = top
        self._root = self._walk(top, parts)

    def entries(self, path: str) -> list[TreeEntry]:
        """As Tree says."""
        place = self._resolve(path)
        return [_entry(name, node) for name, node in sorted(self._list(place).items())]

    def stat(self, path: str) -> TreeEntry:
        """As Tree says."""
        return _entry(path.rpartition("/")[2], self._resolve(path).node)

    def read_link(self, path: str) -> str:
        """As Tree says. Raise OSError where the path is no symlink."""
        parent, _, name = path.rpartition("/")
        folder = self._resolve(parent)
        node = self._child(folder, name)
        if node.kind is not EntryKind.SYMLINK:
            raise OSError(errno.EINVAL, "not a symlink", path)
        return folder.mounted.files.read_link(node)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """As Tree says."""
        mounted, node, extents = self._extents(path)
        length = max(0, min(length, node.size - offset))
        found = bytearray(length)
        for extent in extents:
            first, last = max(offset, extent.start), min(offset + length, extent.start + extent.length)
            if first < last:
                skipped, size = first - extent.start, last - first
                if extent.data is None:
                    data = mounted.files.device.read(extent.offset + skipped, size)
                else:
                    data = extent.data[skipped : skipped + size]
                found[first - offset : last - offset] = data
        return bytes(found)

    def read_into(self, path: str, offset: int, buffer: memoryview) -> int:
        """As Tree says."""
        data = self.read(path, offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def extents(self, path: str) -> Iterator[DiskExtent]:
        """Where a file's bytes are on the volumes, in order; what no extent covers is zeros."""
        mounted, _, extents = self._extents(path)
        for extent in extents:
            if extent.data is not None:
                yield DiskExtent(extent.start, extent.length, mounted.volume, 0, extent.data)
                continue
            start = extent.start
            for stretch in mounted.files.device.locate(extent.offset, extent.length):
                yield DiskExtent(start, stretch.length, mounted.volume, stretch.offset)
                start += stretch.length

    def _extents(self, path: str) -> tuple[Mounted, Node, tuple[Extent, ...]]:
        if self._last is None or self._last[0] != path:
            place = self._resolve(path)
            if place.node.kind is not EntryKind.FILE:
                raise OSError(errno.EISDIR, "not a file", path)
            extents = tuple(place.mounted.files.extents(place.node))
            self._last = path, place.mounted, place.node, extents
        return self._last[1:]

    def _resolve(self, path: str) -> _Place:
        """Where a path is, every symlink followed that may be.

        Raise FileNotFoundError, NotADirectoryError, and PermissionError where a symlink leads out.
        """
        if not path:
            return self._root
        known = self._folders.get(path)
        if known is not None:
            return known
        parent, _, name = path.rpartition("/")
        if name in ("", ".", "..") or path[0] == "/":
            raise PermissionError(errno.EPERM, "not a path below the root", path)
        folder = self._resolve(parent)
        place = _below(folder, name, self._child(folder, name, path))
        if place.node.kind is EntryKind.SYMLINK:
            place = self._follow(path, place)
        if place.node.kind is EntryKind.DIRECTORY:
            if len(self._folders) >= _KNOWN_FOLDERS:
                self._folders.clear()
            self._folders[path] = place
        return place

    def _follow(self, path: str, link: _Place) -> _Place:
        """What a symlink leads to: anything below the root, or below what `LINKED_FOLDERS` lets out."""
        target = self._target(link, _MOST_LINKS)
        if target.is_below(self._root):
            return target
        parts = path.split("/")
        if len(parts) <= LINKED_FOLDERS.get(parts[0], 0) and target.node.kind is EntryKind.DIRECTORY:
            return target
        if any(target.is_below(folder) for folder in self._let_out(parts)):
            return target
        raise PermissionError(errno.EPERM, "a symlink leads out of the root", path)

    def _let_out(self, parts: list[str]) -> Iterator[_Place]:
        """The folders on the way to a path that stand behind a symlink of their own."""
        for depth in range(1, LINKED_FOLDERS.get(parts[0], 0) + 1):
            if depth < len(parts):
                yield self._resolve("/".join(parts[:depth]))

    def _target(self, link: _Place, links: int) -> _Place:
        if links == 0:
            raise OSError(errno.ELOOP, "too many symlinks", "/".join(link.path))
        text = link.mounted.files.read_link(link.node)
        parts = tuple(part for part in text.split("/") if part not in ("", "."))
        if not text.startswith("/"):
            start = _Place(link.mounted, (), link.mounted.files.root)
            return self._walk(start, _normal((*link.path[:-1], *parts), text), links - 1)
        mounted, rest = self._mount_of(text)
        start = _Place(mounted, (), mounted.files.root)
        return self._walk(start, _normal(rest, text), links - 1)

    def _mount_of(self, target: str) -> tuple[Mounted, tuple[str, ...]]:
        """The file system that is mounted on the longest part of an absolute path, and the rest."""
        parts = [part for part in target.split("/") if part not in ("", ".")]
        for length in range(len(parts), -1, -1):
            mounted = self._mounts.get("/" + "/".join(parts[:length]))
            if mounted is not None:
                return mounted, tuple(parts[length:])
        raise PermissionError(
            errno.EPERM,
            f"the symlink leads to {target}, and it is not known which volume is mounted there (name it:"
            " ebs.mounts)",
        )

    def _walk(self, start: _Place, parts: tuple[str, ...], links: int = _MOST_LINKS) -> _Place:
        """A path from the top of a file system, links followed wherever they lead."""
        place = start
        for index, part in enumerate(parts):
            place = _below(place, part, self._child(place, part))
            if place.node.kind is EntryKind.SYMLINK:
                place = self._target(place, links)
                if place.node.kind is not EntryKind.DIRECTORY and index + 1 < len(parts):
                    raise NotADirectoryError(errno.ENOTDIR, "not a directory", "/".join(parts))
        return place

    def _child(self, folder: _Place, name: str, path: str | None = None) -> Node:
        if folder.node.kind is not EntryKind.DIRECTORY:
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", "/".join(folder.path))
        listed = self._listed.get(_key(folder))
        node = listed.get(name) if listed is not None else folder.mounted.files.find(folder.node, name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path or "/".join((*folder.path, name)))
        return node

    def _list(self, folder: _Place) -> dict[str, Node]:
        """A directory's nodes; those that were listed last are remembered, because their files come next."""
        if folder.node.kind is not EntryKind.DIRECTORY:
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", "/".join(folder.path))
        key = _key(folder)
        found = self._listed.get(key)
        if found is None:
            found = self._listed[key] = dict(folder.mounted.files.entries(folder.node))
            if len(self._listed) > _LISTED_FOLDERS:
                self._listed.popitem(last=False)
        return found


def _key(place: _Place) -> tuple[int, int]:
    return id(place.mounted), place.node.number


def _below(folder: _Place, name: str, node: Node) -> _Place:
    return _Place(folder.mounted, (*folder.path, name), node)


def _normal(parts: tuple[str, ...], text: str) -> tuple[str, ...]:
    """The path without ``..``. Raise PermissionError where it climbs above the file system's top."""
    found: list[str] = []
    for part in parts:
        if part != "..":
            found.append(part)
        elif found:
            found.pop()
        else:
            raise PermissionError(errno.EPERM, f"the symlink's target {text} leads out of its volume")
    return tuple(found)


def _entry(name: str, node: Node) -> TreeEntry:
    size = node.size if node.kind is EntryKind.FILE else 0
    return TreeEntry(name, node.kind, size, node.mode)


def parse_mounts(items: Iterable[str]) -> dict[str, str]:
    """``/mnt/a=vol-1``, ``/mnt/b=/dev/sdg`` by path. Raise ValueError where one is malformed."""
    found = {}
    for item in items:
        path, equals, volume = item.partition("=")
        if not equals or not path.startswith("/") or not volume:
            raise ValueError(f"'{item}' is not PATH=VOLUME")
        found[os.path.normpath(path)] = volume
    return found
