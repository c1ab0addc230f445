"""The seams of the volume readers: a device gives bytes, a file system gives nodes and where their bytes lie.

Everything here is read-only. A device may be an image file, an EBS snapshot, a partition or a logical
volume of another device, or a device as it stands after its journal was replayed.
What there are hundreds of thousands of are named tuples: these are made in a third of the time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.source.base import EntryKind
from questdb_backup.stretches import within


class Stretch(NamedTuple):
    """``length`` bytes that lie together on a whole disk, from its byte ``offset`` on."""

    offset: int
    length: int


class Device(Protocol):
    """Random access to the bytes of a disk, or of a part of one."""

    @property
    def size(self) -> int:
        """Bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``.

        Raise DamagedVolumeError where that is not within the device, and whatever the disk behind it raises.
        """

    def locate(self, offset: int, length: int) -> Iterator[Stretch]:
        """Where these bytes lie on the whole disk, in order.

        Raise DamagedVolumeError where that is not within the device.
        """


class Extent(NamedTuple):
    """``length`` bytes of a file from its byte ``start`` on.

    They are at byte ``offset`` of the file system's device; or, where ``data`` is given, they are
    these bytes: inline in the inode, or in the journal only. What no extent covers is zeros.
    """

    start: int
    length: int
    offset: int
    data: bytes | None = None


class Node(NamedTuple):
    """An inode: ``mode`` is the permission bits, ``size`` bytes (0 for what is no file or symlink).

    ``number`` and ``generation`` are its identity: a number that is used again has another generation.
    ``changed_at`` is its ctime, seconds since the epoch by the clock of the host that had it mounted.
    """

    number: int
    generation: int
    kind: EntryKind
    mode: int
    size: int
    changed_at: float


class FileSystem(Protocol):
    """A file system as the kernel would show it after a mount, its journal or log replayed.

    Any damage raises DamagedVolumeError, any feature that is not read UnsupportedVolumeError; neither
    an endless loop nor another exception comes of hostile bytes.
    """

    @property
    def kind(self) -> str:
        """As the kernel names it: ``ext4`` (ext2 and ext3 too), ``xfs``."""

    @property
    def label(self) -> str:
        """The volume's label, "" where it has none."""

    @property
    def uuid(self) -> str:
        """The file system's UUID in its usual text form."""

    @property
    def was_dirty(self) -> bool:
        """Whether a journal or log was replayed: the snapshot was taken while it was mounted."""

    @property
    def device(self) -> Device:
        """Where the extents' offsets count from."""

    @property
    def root(self) -> Node:
        """The root directory."""

    def entries(self, folder: Node) -> Iterator[tuple[str, Node]]:
        """What is in a directory, ``.`` and ``..`` left out, in the order of the disk.

        Names are decoded as `os.fsdecode` does. Raise NotADirectoryError where it is none.
        """

    def find(self, folder: Node, name: str) -> Node | None:
        """The entry of that name; None where there is none."""

    def read_link(self, node: Node) -> str:
        """A symlink's target text."""

    def extents(self, node: Node) -> Iterator[Extent]:
        """Where a file's bytes are, in order, without overlaps, cut at the file's size.

        Holes and stretches that were allocated but never written are left out.
        """


def check_range(offset: int, length: int, size: int) -> None:
    """Raise DamagedVolumeError where the bytes are not within a device of that size."""
    if offset < 0 or length < 0 or offset + length > size:
        raise DamagedVolumeError(
            f"bytes {offset} to {offset + length} are not within the device of {size} bytes",
            "the volume was cut short, or its metadata is damaged",
        )


class ImageDevice:
    """Device on an image file, or a block device, of this host. Raise OSError where it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._size = self._file.seek(0, 2)

    @property
    def size(self) -> int:
        """As Device says."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """As Device says."""
        check_range(offset, length, self._size)
        self._file.seek(offset)
        parts = []
        while length > 0 and (part := self._file.read(length)):
            parts.append(part)
            length -= len(part)
        if length:
            raise DamagedVolumeError(f"the image ends {length} bytes before byte {offset + length}")
        return b"".join(parts)

    def locate(self, offset: int, length: int) -> Iterator[Stretch]:
        """As Device says."""
        check_range(offset, length, self._size)
        yield Stretch(offset, length)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Segment:
    """``length`` bytes of a device from its byte ``start`` on, at byte ``offset`` of the one below."""

    start: int
    length: int
    offset: int


class SegmentedDevice:
    """Device made of stretches of another one: a partition (one of them), a linear logical volume.

    ``segments`` are in order and leave no gap.
    """

    def __init__(self, below: Device, segments: tuple[Segment, ...]) -> None:
        self._below = below
        self._segments = segments
        self._size = segments[-1].start + segments[-1].length if segments else 0

    @property
    def size(self) -> int:
        """As Device says."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """As Device says."""
        parts = [self._below.read(at, n) for at, n in self._cut(offset, length)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def locate(self, offset: int, length: int) -> Iterator[Stretch]:
        """As Device says."""
        for at, n in self._cut(offset, length):
            yield from self._below.locate(at, n)

    def _cut(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        check_range(offset, length, self._size)
        for segment, first, last in within(self._segments, offset, offset + length):
            yield segment.offset + first - segment.start, last - first
