"""A server root on volumes that nobody has mounted, as a tree: paths, symlinks, and where files lie."""

import errno
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from questdb_backup.errors import ConfigurationError, SourceFileError
from questdb_backup.source.base import EntryKind, TreeEntry
from questdb_backup.source.local_tree import LINKED_FOLDERS
from questdb_backup.stretches import within
from questdb_backup.units import DiskExtent
from questdb_backup.volumes.base import Extent, Node
from questdb_backup.volumes.mounts import Mounted, Mounts, UnknownMountError

_KNOWN_FOLDERS = 4096
_LISTED_FOLDERS = 16
_MOST_LINKS = 40
"""As in the kernel: a path that leads through more symlinks is a circle."""


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
    behind symlinks, and their targets are followed there. Where one of these leads to an unknown place,
    ConfigurationError is raised, and SourceFileError where nothing is at a known one: neither may be
    left out as other links that lead out of the root are, which raise PermissionError.
    """

    def __init__(
        self, mounted: Mounted, server_root: str, mounts: Mapping[str, Mounted] | None = None
    ) -> None:
        self._mounts = Mounts(mounts or {})
        self._listed: OrderedDict[tuple[int, int], dict[str, Node]] = OrderedDict()
        self._folders: dict[str, _Place] = {}
        self._shifts: dict[int, int | None] = {}
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

    def changed_at(self, path: str) -> float:
        """When the path's inode was changed last, by the clock of its host; symlinks followed."""
        return self._resolve(path).node.changed_at

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
        for extent, first, last in within(extents, offset, offset + length):
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

    def extents(self, path: str) -> tuple[DiskExtent, ...]:
        """Where a file's bytes are on the volumes, in order; what no extent covers is zeros."""
        mounted, node = self._file(path)
        volume, shift = mounted.volume, self._shift(mounted)
        if shift is not None:
            return tuple(
                [
                    DiskExtent(start, length, volume, 0 if data else shift + offset, data)
                    for start, length, offset, data in mounted.files.extents(node)
                ]
            )
        locate = mounted.files.device.locate
        found: list[DiskExtent] = []
        for extent in mounted.files.extents(node):
            start = extent.start
            if extent.data is not None:
                found.append(DiskExtent(start, extent.length, volume, 0, extent.data))
                continue
            for stretch in locate(extent.offset, extent.length):
                found.append(DiskExtent(start, stretch.length, volume, stretch.offset))
                start += stretch.length
        return tuple(found)

    def _shift(self, mounted: Mounted) -> int | None:
        """Where a file system begins on its disk; None where it is in several pieces."""
        known = self._shifts.get(id(mounted), -1)
        if known == -1:
            device = mounted.files.device
            first, *others = device.locate(0, device.size)
            known = self._shifts[id(mounted)] = None if others else first.offset
        return known

    def _extents(self, path: str) -> tuple[Mounted, Node, tuple[Extent, ...]]:
        if self._last is None or self._last[0] != path:
            mounted, node = self._file(path)
            self._last = path, mounted, node, tuple(mounted.files.extents(node))
        return self._last[1:]

    def _file(self, path: str) -> tuple[Mounted, Node]:
        """A file's node; most are in a folder that was listed a moment ago."""
        parent, _, name = path.rpartition("/")
        folder = self._folders.get(parent)
        listed = None if folder is None else self._listed.get(_key(folder))
        node = None if listed is None else listed.get(name)
        if folder is not None and node is not None and node.kind is EntryKind.FILE:
            return folder.mounted, node
        place = self._resolve(path)
        if place.node.kind is not EntryKind.FILE:
            raise OSError(errno.EISDIR, "not a file", path)
        return place.mounted, place.node

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
        parts = path.split("/")
        may_lead_out = len(parts) <= LINKED_FOLDERS.get(parts[0], 0)
        target = self._linked_folder(path, link) if may_lead_out else self._target(link, _MOST_LINKS)
        if target.is_below(self._root) or (may_lead_out and target.node.kind is EntryKind.DIRECTORY):
            return target
        if any(target.is_below(folder) for folder in self._let_out(parts)):
            return target
        raise PermissionError(errno.EPERM, "a symlink leads out of the root", path)

    def _linked_folder(self, path: str, link: _Place) -> _Place:
        """The target of a link that may lead out. Raise as the class says."""
        text = link.mounted.files.read_link(link.node)
        try:
            return self._target(link, _MOST_LINKS)
        except UnknownMountError as error:
            raise ConfigurationError(
                f"{path} is a link to {text}, and it is not known which volume is mounted at"
                f" {error.filename} or above",
                "name it by the parameter VolumeMounts, say /mnt/ssd=/dev/sdg; it must be among the volumes"
                " that are snapshotted",
            ) from error
        except (FileNotFoundError, NotADirectoryError) as error:
            if not text.startswith("/"):
                raise
            raise SourceFileError(
                f"{path} is a link to {text}, and nothing is there on the volume that VolumeMounts names",
                "see at which path the host has mounted it, and correct the parameter",
            ) from error

    def _let_out(self, parts: list[str]) -> Iterator[_Place]:
        """The folders on the way to a path that stand behind a symlink of their own."""
        for depth in range(1, LINKED_FOLDERS.get(parts[0], 0) + 1):
            if depth < len(parts):
                yield self._resolve("/".join(parts[:depth]))

    def _target(self, link: _Place, links: int) -> _Place:
        if links == 0:
            raise OSError(errno.ELOOP, "too many symlinks", "/".join(link.path))
        text = link.mounted.files.read_link(link.node)
        mounted, path = self._mounts.resolve(link.mounted, link.path[:-1], text)
        return self._walk(_Place(mounted, (), mounted.files.root), path, links - 1)

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


def _entry(name: str, node: Node) -> TreeEntry:
    size = node.size if node.kind is EntryKind.FILE else 0
    return TreeEntry(name, node.kind, size, node.mode)
