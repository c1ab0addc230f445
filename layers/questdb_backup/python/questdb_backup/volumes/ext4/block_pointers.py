"""Block pointers of ext2 and ext3: chapter "The Contents of inode.i_block", "Direct/Indirect"."""

import struct
from collections.abc import Iterator

from questdb_backup.volumes.ext4.blocks import Blocks
from questdb_backup.volumes.ext4.damage import damaged
from questdb_backup.volumes.ext4.runs import Run
from questdb_backup.volumes.ext4.superblock import Superblock

_DIRECT = 12
_LEVELS = 3


class BlockPointers:
    """The blocks of one file by its pointers, singly, doubly and triply indirect ones."""

    def __init__(self, superblock: Superblock, blocks: Blocks, number: int) -> None:
        self._superblock = superblock
        self._blocks = blocks
        self._what = f"the block map of inode {number}"
        self._per_block = superblock.block_size // 4
        self._met: set[int] = set()

    def runs(self, block_map: bytes) -> Iterator[Run]:
        """The mapped blocks, in order."""
        pointers = struct.unpack("<15I", block_map)
        yield from self._data(pointers[:_DIRECT], 0)
        start, span = _DIRECT, self._per_block
        for pointer in pointers[_DIRECT : _DIRECT + _LEVELS]:
            if pointer:
                yield from self._indirect(pointer, start, span)
            start += span
            span *= self._per_block

    def _indirect(self, block: int, start: int, span: int) -> Iterator[Run]:
        """What a block of pointers maps, which stands for ``span`` blocks."""
        if block in self._met:
            raise damaged(f"{self._what} leads to its block {block} twice")
        self._met.add(block)
        self._superblock.check_blocks(block, 1, self._what)
        pointers = struct.unpack(f"<{self._per_block}I", self._blocks.block(block))
        if span == self._per_block:
            yield from self._data(pointers, start)
            return
        span //= self._per_block
        for at, pointer in enumerate(pointers):
            if pointer:
                yield from self._indirect(pointer, start + at * span, span)

    def _data(self, pointers: tuple[int, ...], start: int) -> Iterator[Run]:
        at, most = 0, len(pointers)
        while at < most:
            first, begin = pointers[at], at
            at += 1
            if not first:
                continue
            while at < most and pointers[at] == first + at - begin:
                at += 1
            self._superblock.check_blocks(first, at - begin, self._what)
            yield Run(start + begin, first, at - begin)
