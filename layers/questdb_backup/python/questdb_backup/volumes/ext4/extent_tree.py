"""Extent trees: chapter "The Contents of inode.i_block", section "Extent Tree"."""

import struct
from collections.abc import Callable, Iterable, Iterator

from questdb_backup.volumes.crc32c import raw_crc32c
from questdb_backup.volumes.ext4.blocks import Blocks
from questdb_backup.volumes.ext4.damage import damaged
from questdb_backup.volumes.ext4.runs import Run
from questdb_backup.volumes.ext4.superblock import Superblock

_HEADER = struct.Struct("<4H4x")
"""eh_magic, eh_entries, eh_max, eh_depth."""
_EXTENT = struct.Struct("<IHHI")
"""ee_block, ee_len, ee_start_hi, ee_start_lo."""
_INDEX = struct.Struct("<IIH2x")
"""ei_block, ei_leaf_lo, ei_leaf_hi."""
_ROOT_OF_ONE = struct.Struct("<4H4xIHHI")
_MOST_IN_ROOT = 4
_MAGIC = 0xF30A
_DEEPEST = 5
_LONGEST_WRITTEN = 0x8000
"""An extent with a greater ee_len was allocated, but never written."""


def only_run(block_map: bytes) -> Run | None:
    """The run of a file that lies together, as most do; None where that is not all that the root tells."""
    magic, entries, most, depth, start, count, high, low = _ROOT_OF_ONE.unpack_from(block_map)
    is_one = magic == _MAGIC and entries == 1 <= most <= _MOST_IN_ROOT and depth == 0
    return Run(start, high << 32 | low, count) if is_one and 0 < count <= _LONGEST_WRITTEN else None


class ExtentTree:
    """The extents of one file; ``seed`` gives the one of its checksums.

    The blocks rise throughout, so no node can be met twice.
    """

    def __init__(self, superblock: Superblock, blocks: Blocks, number: int, seed: Callable[[], int]) -> None:
        self._superblock = superblock
        self._blocks = blocks
        self._what = f"the extent tree of inode {number}"
        self._seed = seed
        self._next = 0

    def runs(self, root: bytes) -> Iterable[Run]:
        """The written extents below the root in an inode, in order."""
        entries, depth = self._header(root)
        if depth > _DEEPEST:
            raise damaged(f"{self._what} is {depth} levels deep")
        return self._below(root, entries, depth) if depth else self._leaf(root, entries)

    def _header(self, node: bytes) -> tuple[int, int]:
        magic, entries, most, depth = _HEADER.unpack_from(node)
        if magic != _MAGIC or entries > most or _HEADER.size + most * _EXTENT.size > len(node):
            raise damaged(f"{self._what} has a node that is none")
        return entries, depth

    def _below(self, node: bytes, entries: int, depth: int) -> Iterator[Run]:
        for at in range(_HEADER.size, _HEADER.size + entries * _INDEX.size, _INDEX.size):
            start, low, high = _INDEX.unpack_from(node, at)
            self._rise(start, start)
            child = self._child(high << 32 | low)
            child_entries, child_depth = self._header(child)
            if child_depth != depth - 1 or (not child_entries and child_depth):
                raise damaged(f"{self._what} has a node of another depth than its place")
            if child_depth:
                yield from self._below(child, child_entries, child_depth)
            else:
                yield from self._leaf(child, child_entries)

    def _leaf(self, node: bytes, entries: int) -> list[Run]:
        found: list[Run] = []
        for at in range(_HEADER.size, _HEADER.size + entries * _EXTENT.size, _EXTENT.size):
            start, count, high, low = _EXTENT.unpack_from(node, at)
            is_written = count <= _LONGEST_WRITTEN
            length = count if is_written else count - _LONGEST_WRITTEN
            block = high << 32 | low
            if not length:
                raise damaged(f"{self._what} has an extent of no blocks")
            self._rise(start, start + length)
            self._superblock.check_blocks(block, length, self._what)
            if is_written:
                found.append(Run(start, block, length))
        return found

    def _rise(self, start: int, following: int) -> None:
        if start < self._next:
            raise damaged(f"{self._what} is out of order at block {start}")
        self._next = following

    def _child(self, block: int) -> bytes:
        self._superblock.check_blocks(block, 1, self._what)
        node = self._blocks.block(block)
        if self._superblock.has_checksums:
            end = _HEADER.size + int.from_bytes(node[4:6], "little") * _EXTENT.size
            if raw_crc32c(node[:end], self._seed()) != int.from_bytes(node[end : end + 4], "little"):
                raise damaged(f"{self._what} has a node that fails its checksum, at block {block}")
        return node
