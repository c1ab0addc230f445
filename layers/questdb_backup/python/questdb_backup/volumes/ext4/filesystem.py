"""An ext2, ext3 or ext4 file system on a device, its journal replayed in memory."""

import errno
import os
from collections.abc import Iterable, Iterator
from functools import partial

from questdb_backup.errors import UnsupportedVolumeError
from questdb_backup.source.base import EntryKind
from questdb_backup.volumes.base import Device, Extent, Node
from questdb_backup.volumes.ext4.block_pointers import BlockPointers
from questdb_backup.volumes.ext4.blocks import Blocks, Overlay
from questdb_backup.volumes.ext4.damage import damaged
from questdb_backup.volumes.ext4.directories import DirectoryFormat
from questdb_backup.volumes.ext4.extent_tree import ExtentTree, only_run
from questdb_backup.volumes.ext4.features import Compatible, Incompatible
from questdb_backup.volumes.ext4.inline_data import inline_content, inline_parts
from questdb_backup.volumes.ext4.inodes import EXTENTS, INLINE_DATA, Inode, Inodes
from questdb_backup.volumes.ext4.journal import replay
from questdb_backup.volumes.ext4.runs import Run, cut, merged
from questdb_backup.volumes.ext4.superblock import (
    ROOT_INODE,
    SUPERBLOCK_OFFSET,
    SUPERBLOCK_SIZE,
    Superblock,
    parse_superblock,
)
from questdb_backup.volumes.known_names import KnownNames

_SHORT_LINK = 60
_LONGEST_LINK = 4096
_INLINE_PARENT = 4
"""Bytes of an inline directory before its entries: the parent's number."""


class Ext4FileSystem:
    """FileSystem of ext4, ext3 or ext2. It is for one thread; memory is that of a few MiB of metadata."""

    def __init__(self, superblock: Superblock, blocks: Blocks, *, was_dirty: bool) -> None:
        self._superblock = superblock
        self._blocks = blocks
        self._was_dirty = was_dirty
        self._inodes = Inodes(superblock, blocks)
        self._known = KnownNames(self._names)
        self._format = DirectoryFormat(
            superblock.block_size,
            has_checksums=superblock.has_checksums,
        )
        root = self._inodes.get(ROOT_INODE)
        if root.node.kind is not EntryKind.DIRECTORY:
            raise damaged("the root inode is no directory")
        self._root = root.node

    @classmethod
    def open(cls, device: Device) -> "Ext4FileSystem":
        """Read the superblock, and replay the journal where the file system was not unmounted.

        Raise DamagedVolumeError where the kernel would refuse the mount, UnsupportedVolumeError for features
        that are not read, an external journal and live fast commits.
        """
        superblock = parse_superblock(device.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE), device.size)
        _refuse_external_journal(superblock)
        blocks = Blocks(device, superblock.block_size)
        if not superblock.needs_recovery:
            return cls(superblock, blocks, was_dirty=False)
        blocks = Blocks(device, superblock.block_size, _replayed(superblock, blocks))
        after = parse_superblock(blocks.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE), device.size)
        if after.block_size != superblock.block_size:
            raise damaged("the journal holds a superblock with another block size")
        return cls(after, blocks, was_dirty=True)

    @property
    def kind(self) -> str:
        """As FileSystem says."""
        return "ext4"

    @property
    def label(self) -> str:
        """As FileSystem says."""
        return self._superblock.label

    @property
    def uuid(self) -> str:
        """As FileSystem says."""
        return str(self._superblock.uuid)

    @property
    def was_dirty(self) -> bool:
        """As FileSystem says."""
        return self._was_dirty

    @property
    def device(self) -> Device:
        """As FileSystem says: the device as it is, under the replayed journal."""
        return self._blocks.device

    @property
    def root(self) -> Node:
        """As FileSystem says."""
        return self._root

    def entries(self, folder: Node) -> Iterator[tuple[str, Node]]:
        """As FileSystem says."""
        for name, number in self._names(folder):
            node = self._inodes.child(number).node
            if node.kind is EntryKind.DIRECTORY and number in (ROOT_INODE, folder.number):
                raise damaged(f"directory {folder.number} contains itself or the root")
            yield os.fsdecode(name), node

    def find(self, folder: Node, name: str) -> Node | None:
        """As FileSystem says; of names that fold to one case each is another."""
        number = self._known.find(folder, os.fsencode(name))
        return None if number is None else self._inodes.child(number).node

    def read_link(self, node: Node) -> str:
        """As FileSystem says. Raise OSError where it is no symlink."""
        if node.kind is not EntryKind.SYMLINK:
            raise OSError(errno.EINVAL, f"inode {node.number} is not a symlink")
        inode = self._inodes.get(node.number)
        inode.refuse_encrypted()
        if not 0 < inode.size <= min(_LONGEST_LINK, self._superblock.block_size):
            raise damaged(f"symlink {node.number} is {inode.size} bytes long")
        target = self._link_target(inode)
        if len(target) != inode.size or b"\0" in target:
            raise damaged(f"symlink {node.number} has a target that cannot be one")
        return os.fsdecode(target)

    def extents(self, node: Node) -> Iterator[Extent]:
        """As FileSystem says; blocks whose bytes are in the journal come as ``data``."""
        if node.kind is not EntryKind.FILE:
            return
        inode = self._inodes.get(node.number)
        inode.refuse_encrypted()
        if inode.flags & INLINE_DATA:
            if content := inline_content(inode):
                yield Extent(0, len(content), 0, content)
            return
        width, size, overlay = self._superblock.block_size, inode.size, self._blocks.overlay
        for run in runs_of(inode, self._superblock, self._blocks, self._inodes):
            if overlay.within(run.block, run.length):
                yield from self._extents_of(run, size)
            else:
                start = run.start * width
                yield Extent(start, min(run.length * width, size - start), run.block * width)

    def _names(self, folder: Node) -> Iterator[tuple[bytes, int]]:
        if folder.kind is not EntryKind.DIRECTORY:
            raise NotADirectoryError(errno.ENOTDIR, f"inode {folder.number} is not a directory")
        inode = self._inodes.get(folder.number)
        inode.refuse_encrypted()
        if inode.flags & INLINE_DATA:
            first, second = inline_parts(inode)
            yield from self._format.entries(first, inode.number, _INLINE_PARENT)
            yield from self._format.entries(second, inode.number)
            return
        seed = self._inodes.seed(inode.number, inode.node.generation)
        for block in self._directory_blocks(inode):
            raw = self._blocks.block(block)
            self._format.check(raw, inode.number, seed)
            yield from self._format.entries(raw, inode.number)

    def _directory_blocks(self, inode: Inode) -> Iterator[int]:
        count, rest = divmod(inode.size, self._superblock.block_size)
        if rest or not 0 < count <= self._superblock.block_count:
            raise damaged(f"directory {inode.number} has a size of {inode.size} bytes")
        following = 0
        for start, first, length in runs_of(inode, self._superblock, self._blocks, self._inodes):
            if start != following:
                break
            following += length
            yield from range(first, first + length)
        if following != count:
            raise damaged(f"directory {inode.number} has a hole at block {following}")

    def _link_target(self, inode: Inode) -> bytes:
        if inode.flags & INLINE_DATA:
            return inline_content(inode)
        if inode.size < _SHORT_LINK and not inode.flags & EXTENTS:
            return inode.block_map[: inode.size]
        runs = runs_of(inode, self._superblock, self._blocks, self._inodes)
        return b"".join(self._blocks.block(run.block) for run in runs)[: inode.size]

    def _extents_of(self, run: Run, size: int) -> Iterator[Extent]:
        """The extents of a run: what the journal holds of it comes apart."""
        width = self._superblock.block_size
        shift = run.start - run.block
        at, end = run.block, run.block + run.length
        for block in self._blocks.overlay.within(run.block, run.length):
            if at < block:
                yield Extent((at + shift) * width, (block - at) * width, at * width)
            start = (block + shift) * width
            data = self._blocks.overlay.read(block)[: size - start]
            yield Extent(start, len(data), 0, data)
            at = block + 1
        if at < end:
            start = (at + shift) * width
            yield Extent(start, min((end - at) * width, size - start), at * width)


def runs_of(inode: Inode, superblock: Superblock, blocks: Blocks, inodes: Inodes) -> Iterable[Run]:
    """The written blocks of an inode up to its size, in order."""
    most = -(-inode.size // superblock.block_size)
    if not inode.flags & EXTENTS:
        return cut(merged(BlockPointers(superblock, blocks, inode.number).runs(inode.block_map)), most)
    if run := only_run(inode.block_map):
        superblock.check_blocks(run.block, run.length, "a file's only extent")
        return (run,) if run.start + run.length <= most else cut((run,), most)
    seed = partial(inodes.seed, inode.number, inode.node.generation)
    return cut(merged(ExtentTree(superblock, blocks, inode.number, seed).runs(inode.block_map)), most)


def _refuse_external_journal(superblock: Superblock) -> None:
    has_journal = Compatible.HAS_JOURNAL in superblock.compatible
    if Incompatible.JOURNAL_DEV in superblock.incompatible or (has_journal and superblock.journal_device):
        raise UnsupportedVolumeError(
            "ext4: the file system has its journal on another device",
            "give it one of its own (tune2fs -O ^has_journal, then tune2fs -j), or use the source `path`",
        )


def _replayed(superblock: Superblock, blocks: Blocks) -> Overlay:
    """Replay the journal as the inodes before it show it."""
    if Compatible.HAS_JOURNAL not in superblock.compatible:
        raise damaged("the superblock asks for a recovery, but there is no journal")
    inodes = Inodes(superblock, blocks)
    inode = inodes.get(superblock.journal_inode)
    if inode.node.kind is not EntryKind.FILE or inode.flags & INLINE_DATA or not inode.size:
        raise damaged("the journal's inode is no file")
    return replay(blocks.device, superblock, tuple(runs_of(inode, superblock, blocks, inodes)))
