"""The XFS reader: from a device to nodes and extents."""

import os
from collections.abc import Iterator
from uuid import UUID

from questdb_backup.errors import DamagedVolumeError, UnsupportedVolumeError
from questdb_backup.source.base import EntryKind
from questdb_backup.volumes.base import Device, Extent, Node
from questdb_backup.volumes.known_names import KnownNames
from questdb_backup.volumes.xfs.directories import Directories
from questdb_backup.volumes.xfs.extents import BlockMaps
from questdb_backup.volumes.xfs.inodes import REALTIME, InodeTable
from questdb_backup.volumes.xfs.log_replay import replay
from questdb_backup.volumes.xfs.overlay import ReplayedDevice
from questdb_backup.volumes.xfs.superblock import DAMAGE_HINT, Superblock, read_superblock
from questdb_backup.volumes.xfs.symlinks import Symlinks


class XfsFileSystem:
    """FileSystem on an XFS of version 5. It is for one thread."""

    def __init__(
        self, below: Device, replayed: ReplayedDevice, superblock: Superblock, *, was_dirty: bool
    ) -> None:
        self._below = below
        self._superblock = superblock
        self._was_dirty = was_dirty
        self._inodes = InodeTable(replayed, superblock)
        self._maps = BlockMaps(replayed, superblock)
        self._folders = Directories(replayed, superblock, self._maps)
        self._links = Symlinks(replayed, superblock, self._maps)
        self._known = KnownNames(self._names)
        self._parents: dict[int, int] = {superblock.root_inode: 0}
        self._root = self._inodes.node(superblock.root_inode)
        if self._root.kind is not EntryKind.DIRECTORY:
            raise DamagedVolumeError("XFS: the root is no directory", DAMAGE_HINT)

    @classmethod
    def open(cls, device: Device) -> "XfsFileSystem":
        """Read the superblock, replay the log in memory where it is dirty.

        Raise DamagedVolumeError; UnsupportedVolumeError for features that are not read, and for a log
        that a mount would have to finish by more than a replay.
        """
        superblock = read_superblock(device)
        replayed = ReplayedDevice(device)
        was_dirty = replay(replayed, superblock)
        if was_dirty:
            superblock = read_superblock(replayed, sealed=not replayed.is_patched(0, 512))
        return cls(device, replayed, superblock, was_dirty=was_dirty)

    @property
    def kind(self) -> str:
        """As FileSystem says."""
        return "xfs"

    @property
    def label(self) -> str:
        """As FileSystem says."""
        return self._superblock.label

    @property
    def uuid(self) -> str:
        """As FileSystem says."""
        return str(UUID(bytes=self._superblock.uuid))

    @property
    def was_dirty(self) -> bool:
        """As FileSystem says."""
        return self._was_dirty

    @property
    def device(self) -> Device:
        """As FileSystem says: the one below the replay, XFS never logs file data."""
        return self._below

    @property
    def root(self) -> Node:
        """As FileSystem says."""
        return self._root

    def entries(self, folder: Node) -> Iterator[tuple[str, Node]]:
        """As FileSystem says. A directory with two names raises DamagedVolumeError."""
        seen: set[int] = set()
        for name, number in self._names(folder):
            node = self._inodes.node(number)
            if node.kind is EntryKind.DIRECTORY:
                self._check_parent(folder.number, number, seen)
            yield os.fsdecode(name), node

    def find(self, folder: Node, name: str) -> Node | None:
        """As FileSystem says."""
        number = self._known.find(folder, os.fsencode(name))
        return None if number is None else self._inodes.node(number)

    def read_link(self, node: Node) -> str:
        """As FileSystem says."""
        return os.fsdecode(self._links.target(self._inodes.inode(node.number)))

    def extents(self, node: Node) -> Iterator[Extent]:
        """As FileSystem says. Raise UnsupportedVolumeError for a file on a realtime device."""
        if node.kind is not EntryKind.FILE:
            return
        inode = self._inodes.inode(node.number)
        if inode.flags & REALTIME:
            raise UnsupportedVolumeError(f"XFS: file {node.number} is on a realtime device")
        bits, size = self._superblock.block_bits, node.size
        for first, count, offset, written in self._maps.mappings(inode):
            start = first << bits
            if written and start < size:
                yield Extent(start, min(count << bits, size - start), offset)

    def _names(self, folder: Node) -> Iterator[tuple[bytes, int]]:
        if folder.kind is not EntryKind.DIRECTORY:
            raise NotADirectoryError(f"inode {folder.number}")
        return self._folders.entries(self._inodes.inode(folder.number))

    def _check_parent(self, folder: int, child: int, seen: set[int]) -> None:
        """Every directory has one parent and one name, so that a walk ends."""
        if child in seen or self._parents.setdefault(child, folder) != folder:
            raise DamagedVolumeError(f"XFS: directory {child} has two names", DAMAGE_HINT)
        seen.add(child)
