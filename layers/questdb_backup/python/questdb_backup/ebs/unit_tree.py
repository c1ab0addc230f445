"""What a worker reads on the EBS route: stretches of snapshots, which its unit names."""

import errno
from contextlib import ExitStack
from types import TracebackType

from questdb_backup.ebs.base import BLOCK_BYTES, DirectApi
from questdb_backup.ebs.blocks import BlockReader
from questdb_backup.source.base import EntryKind, TreeEntry
from questdb_backup.stretches import within
from questdb_backup.units import DiskExtent, Unit

Wanted = tuple[str, int]
"""A snapshot's id and a block's index."""


class UnitTree:
    """Tree on the files of one unit, for the one thread that reads them in the unit's order.

    Its blocks are fetched ahead by other threads, each once. It is a context manager.

    Args:
        api: the direct APIs.
        unit: a unit of a plan out of snapshots.
        workers: how many read such units at once: they share what EBS lets through.
    """

    def __init__(self, api: DirectApi, unit: Unit, *, workers: int = 1) -> None:
        self._volumes = unit.volumes
        self._files: dict[str, tuple[int, list[DiskExtent]]] = {}
        for piece in unit.files_to_read():
            _, extents = self._files.get(piece.file.path, (0, []))
            extents.extend(piece.extents)
            self._files[piece.file.path] = piece.file.size, extents
        self._stack = ExitStack()
        self._api = api.counting(workers=workers)
        self._reader = BlockReader(self._api, wanted_blocks(unit))

    def __enter__(self) -> "UnitTree":
        self._stack.enter_context(self._reader)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def counters(self) -> dict[str, int]:
        """Requests, and blocks: ``blocks_fetched`` is more than ``blocks_needed`` where one came again."""
        blocks = self._reader.counters
        return {
            **self._api.requests,
            "blocks_fetched": blocks.fetched,
            "blocks_needed": blocks.distinct,
        }

    def entries(self, path: str) -> list[TreeEntry]:
        """A unit names files, not directories."""
        raise FileNotFoundError(errno.ENOENT, "a unit has no directories", path)

    def read_link(self, path: str) -> str:
        """A unit names no symlinks."""
        raise FileNotFoundError(errno.ENOENT, "a unit has no symlinks", path)

    def stat(self, path: str) -> TreeEntry:
        """As Tree says, of a file of the unit; the mode is not known."""
        size, _ = self._find(path)
        return TreeEntry(path.rpartition("/")[2], EntryKind.FILE, size, 0)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """As Tree says, of a file of the unit."""
        data = bytearray(length)
        with memoryview(data) as view:
            found = self.read_into(path, offset, view)
        return bytes(data[:found])

    def read_into(self, path: str, offset: int, buffer: memoryview) -> int:
        """As Tree says, of a file of the unit."""
        size, extents = self._find(path)
        length = max(0, min(len(buffer), size - offset))
        position = offset
        for extent, first, last in within(extents, offset, offset + length):
            _zero(buffer[position - offset : first - offset])
            self._fill(extent, first, buffer[first - offset : last - offset])
            position = last
        _zero(buffer[position - offset : length])
        return length

    def _fill(self, extent: DiskExtent, first: int, buffer: memoryview) -> None:
        skipped = first - extent.start
        if extent.data is not None:
            buffer[:] = extent.data[skipped : skipped + len(buffer)]
        else:
            self._reader.read(self._volumes[extent.volume], extent.offset + skipped, buffer)

    def _find(self, path: str) -> tuple[int, list[DiskExtent]]:
        try:
            return self._files[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "not a file of this unit", path) from None


def _zero(buffer: memoryview) -> None:
    buffer[:] = bytes(len(buffer))


def wanted_blocks(unit: Unit) -> list[Wanted]:
    """The blocks that the unit's files need, in the order in which they are read."""
    wanted: list[Wanted] = []
    for piece in unit.files_to_read():
        for extent in piece.extents:
            if extent.data is None:
                first, last = extent.offset // BLOCK_BYTES, (extent.offset + extent.length - 1) // BLOCK_BYTES
                name = unit.volumes[extent.volume]
                wanted += [
                    (name, index) for index in range(first, last + 1) if wanted[-1:] != [(name, index)]
                ]
    return wanted
