"""Which blocks of a snapshot hold what, as the kernel tells of a mounted copy: by FIEMAP."""

import fcntl
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from questdb_backup.ebs.base import BLOCK_BYTES
from questdb_backup.manifest import Manifest, read_shard
from questdb_backup.stores.base import ObjectStore
from tests.support.busy_volumes import clone, mounted

_FS_IOC_FIEMAP = 0xC020660B
_HEAD = struct.Struct("=QQ4I")
"""fm_start, fm_length, fm_flags, fm_mapped_extents, fm_extent_count, fm_reserved."""
_EXTENT = struct.Struct("=3Q16xI12x")
"""fe_logical, fe_physical, fe_length, fe_flags."""
_MOST_EXTENTS = 4000
_LAST, _INLINE, _UNWRITTEN = 0x1, 0x200, 0x800
_SYNC = 0x1

Run = tuple[int, int, int]
"""Byte of the file, byte of the volume, length."""


def runs_of(path: Path, size: int) -> Iterator[Run]:
    """Where the written part of a file's first ``size`` bytes lies."""
    with path.open("rb") as file:
        start = 0
        while start < size:
            request = bytearray(_HEAD.size + _MOST_EXTENTS * _EXTENT.size)
            _HEAD.pack_into(request, 0, start, size - start, _SYNC, 0, _MOST_EXTENTS, 0)
            fcntl.ioctl(file, _FS_IOC_FIEMAP, request)
            count = _HEAD.unpack_from(request)[3]
            if not count:
                return
            for number in range(count):
                logical, physical, length, flags = _EXTENT.unpack_from(
                    request, _HEAD.size + number * _EXTENT.size
                )
                if logical < size and not flags & (_INLINE | _UNWRITTEN):
                    yield logical, physical, min(length, size - logical)
                start = logical + length
            if flags & _LAST:
                return


def blocks_of(runs: Iterable[Run]) -> set[int]:
    """The blocks that hold some of their bytes."""
    return {
        block
        for _, physical, length in runs
        for block in range(physical // BLOCK_BYTES, (physical + length - 1) // BLOCK_BYTES + 1)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A file as the manifest has it."""

    path: str
    size: int
    has_rows: bool
    """Whether it is of a partition of the table that is looked at."""


def stored_files(store: ObjectStore, manifest: Manifest, table: str) -> Iterator[Stored]:
    """Every file of a backup; ``table`` is the name of the one that is looked at."""
    for known in manifest.tables:
        for shard in known.shards:
            for group in read_shard(store, shard):
                has_rows = known.name == table and bool(group.partition)
                for entry in group.entries:
                    if entry.kind == "f":
                        yield Stored(path=entry.path, size=entry.size, has_rows=has_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskBlocks:
    """Blocks of one snapshot: ``files`` with rows of the table are in so many ``extents``."""

    rows: frozenset[int]
    """Those with rows of the table."""
    others: frozenset[int]
    """Those with bytes of all other files of the backup."""
    only_rows: frozenset[int]
    """Those without a byte that belongs to anything but files with rows: no metadata is there."""
    files: int
    extents: int

    @property
    def needed(self) -> frozenset[int]:
        """Those with bytes of any file of the backup."""
        return self.rows | self.others


@contextmanager
def _mounted_copy(image: Path) -> Iterator[Path]:
    with image.open("rb") as file:
        options = "nouuid" if file.read(4) == b"XFSB" else ""
    copy = clone(image, image.with_suffix(".seen"))
    try:
        with mounted(copy, image.with_suffix(".kernel"), options) as folder:
            yield folder
    finally:
        copy.unlink()


def disk_blocks(image: Path, root: str, files: Iterable[Stored]) -> DiskBlocks:
    """Ask the kernel where these files of the server root lie in a snapshot's image."""
    rows: set[int] = set()
    others: set[int] = set()
    filled: dict[int, int] = {}
    count = extents = 0
    with _mounted_copy(image) as folder:
        for stored in files:
            path = folder / root / stored.path
            found = blocks_of(runs_of(path, stored.size))
            if not stored.has_rows:
                others |= found
                continue
            rows |= found
            count += 1
            for _, physical, length in runs_of(path, path.stat().st_size):
                extents += 1
                _fill(filled, physical, length)
    full = frozenset(block for block, length in filled.items() if length == BLOCK_BYTES)
    return DiskBlocks(
        rows=frozenset(rows),
        others=frozenset(others),
        only_rows=full - others,
        files=count,
        extents=extents,
    )


def _fill(filled: dict[int, int], physical: int, length: int) -> None:
    while length > 0:
        block, within = divmod(physical, BLOCK_BYTES)
        part = min(length, BLOCK_BYTES - within)
        filled[block] = filled.get(block, 0) + part
        physical, length = physical + part, length - part
