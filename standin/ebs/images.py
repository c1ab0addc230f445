"""Volumes and snapshots as image files: clones, which blocks were written, which differ, reads.

A clone is a reflink where the file system shares extents (XFS with reflink, btrfs): an atomic
point in time of a file that others go on writing, as an EBS snapshot is. Elsewhere it is a sparse copy,
which is a point in time only while nobody writes.
"""

import errno
import os
import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from questdb_backup.source.reflink import reflink

BLOCK_BYTES = 512 << 10
"""The block size of the EBS direct APIs."""

_NOT_HERE = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS}
_PROBE_BYTES = 4096
_ZEROS = bytes(BLOCK_BYTES)


def clone(source: Path, target: Path) -> bool:
    """Make ``target`` (new) equal to ``source``; True where it was atomic (a reflink)."""
    with source.open("rb") as old, target.open("xb") as new:
        try:
            reflink(old.fileno(), new.fileno())
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            _copy_sparsely(old.fileno(), new.fileno())
            return False
    return True


def shares_extents(folder: Path) -> bool:
    """Whether clones from this folder into itself are atomic."""
    source, target = folder / ".reflink-a", folder / ".reflink-b"
    try:
        source.write_bytes(_ZEROS[:_PROBE_BYTES])
        return clone(source, target)
    finally:
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)


def _copy_sparsely(old: int, new: int) -> None:
    size = os.fstat(old).st_size
    os.truncate(new, size)
    for start, end in data_ranges(old, size):
        while start < end:
            done = os.copy_file_range(old, new, min(end - start, 64 << 20), start, start)
            if done == 0:
                break
            start += done


def data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """The byte ranges that are not holes, ascending."""
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        at = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        yield start, at


class Image:
    """An image file that does not change any more: a snapshot's content.

    The file is opened for each read, so nothing has to be closed and it may go at any time: reads raise
    FileNotFoundError then.
    """

    def __init__(self, path: Path, before: "Image | None") -> None:
        """``before`` is the content that this one was written over, if any."""
        self.path = path
        self._before = before
        self._lock = threading.Lock()
        self._written: Sequence[int] | None = None

    def remove(self) -> None:
        """Delete the file; what was written stays known, for snapshots that came later."""
        self.written()
        self.path.unlink(missing_ok=True)

    def block(self, index: int) -> bytes:
        """The block's bytes; zeros past the end."""
        with _opened(self.path) as descriptor:
            return _block(descriptor, index)

    def has(self, index: int) -> bool:
        """Whether the block was written."""
        written = self.written()
        at = bisect_left(written, index)
        return at < len(written) and written[at] == index

    def written(self) -> Sequence[int]:
        """Indexes of the blocks that were ever written and not trimmed, ascending.

        These are the blocks with bytes outside holes, without those of nothing but zeros that the
        content before did not have either: an allocation alone is not a write.
        """
        with self._lock:
            if self._written is None:
                had = frozenset(self._before.written()) if self._before else frozenset()
                with _opened(self.path) as descriptor:
                    found = [at for at in _allocated(descriptor) if at in had or not _is_zero(descriptor, at)]
                self._written = array("L", found)
                self._before = None
            return self._written


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _allocated(descriptor: int) -> Iterator[int]:
    following = 0
    for start, end in data_ranges(descriptor, os.fstat(descriptor).st_size):
        first = max(following, start // BLOCK_BYTES)
        following = -(-end // BLOCK_BYTES)
        yield from range(first, following)


def _block(descriptor: int, index: int) -> bytes:
    data = os.pread(descriptor, BLOCK_BYTES, index * BLOCK_BYTES)
    return data if len(data) == BLOCK_BYTES else data + _ZEROS[len(data) :]


def _is_zero(descriptor: int, index: int) -> bool:
    head = os.pread(descriptor, _PROBE_BYTES, index * BLOCK_BYTES)
    return head == _ZEROS[: len(head)] and _block(descriptor, index) == _ZEROS


def changed(first: Image, second: Image) -> Sequence[int]:
    """Indexes of the blocks that only one of the two has, or that differ; ascending."""
    old, new = frozenset(first.written()), frozenset(second.written())
    with _opened(first.path) as before, _opened(second.path) as after:
        differing = [index for index in old & new if _block(before, index) != _block(after, index)]
    return array("L", sorted([*(old ^ new), *differing]))
