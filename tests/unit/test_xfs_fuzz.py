"""Damaged and hostile XFS images: the right answer or a named refusal, in bounded time and memory."""

import lzma
import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from questdb_backup.errors import DamagedVolumeError, UnsupportedVolumeError
from questdb_backup.source.base import EntryKind
from questdb_backup.volumes.base import Extent
from questdb_backup.volumes.xfs.filesystem import XfsFileSystem
from questdb_backup.volumes.xfs.log_bounds import find_bounds
from questdb_backup.volumes.xfs.log_records import LogRegion
from questdb_backup.volumes.xfs.log_replay import replay
from questdb_backup.volumes.xfs.overlay import ReplayedDevice
from questdb_backup.volumes.xfs.superblock import read_superblock
from tests.support.memory_files import MemoryDevice

FOLDER = Path(__file__).parents[1] / "fixtures" / "filesystems"
MOST_READ = 256 << 20
MOST_MEMORY = 64 << 20
CHECKSUMS = ("directories", "extents", "inodes", "superblock", "symlinks")

Tree = dict[str, tuple[EntryKind, int, int, object]]
Range = tuple[int, int]


class WatchedDevice(ReplayedDevice):
    """Notes what is read of an image, and fails a test whose reader asks for endlessly much.

    What is written into it damages the image; ``cut`` shortens it.
    """

    def __init__(self, image: MemoryDevice, cut: int = 0) -> None:
        super().__init__(image)
        self.asked = 0
        self.ranges: set[Range] = set()
        self.undamaged = image
        self._size = image.size - cut

    @property
    def size(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        self.asked += length + 64
        assert self.asked < MOST_READ, "it reads on and on"
        self.ranges.add((offset, length))
        return super().read(offset, length)


def tree_of(filesystem: XfsFileSystem) -> Tree:
    """Everything that a file system tells without a file's content."""
    tree: Tree = {}
    waiting = [("", filesystem.root)]
    while waiting:
        at, folder = waiting.pop()
        for name, node in filesystem.entries(folder):
            value: list[Extent] | str = ""
            if node.kind is EntryKind.FILE:
                value = list(filesystem.extents(node))
            elif node.kind is EntryKind.SYMLINK:
                value = filesystem.read_link(node)
            tree[f"{at}{name}"] = (node.kind, node.mode, node.size, value)
            if node.kind is EntryKind.DIRECTORY:
                waiting.append((f"{at}{name}/", node))
    return tree


@dataclass
class Whole:
    """The image, what it holds, and which bytes are read to learn that: of the log, and of the rest."""

    image: MemoryDevice
    tree: Tree
    log: list[Range] = field(default_factory=list)
    rest: list[Range] = field(default_factory=list)


@pytest.fixture(scope="module")
def dirty() -> Whole:
    return _whole(MemoryDevice(bytearray(lzma.decompress((FOLDER / "xfs_dirty.img.xz").read_bytes()))))


@pytest.fixture(scope="module")
def replayed(dirty: Whole) -> Whole:
    """The image as it is after a mount, its log empty; its checksums are not renewed."""
    below = ReplayedDevice(dirty.image)
    superblock = read_superblock(below)
    replay(below, superblock)
    log_bytes = superblock.log_blocks * superblock.block_bytes
    below.write(superblock.block_offset(superblock.log_start), bytes(log_bytes))
    with pytest.MonkeyPatch.context() as patch:
        _trust_checksums(patch)
        return _whole(MemoryDevice(bytearray(below.read(0, below.size))))


def _whole(image: MemoryDevice) -> Whole:
    device = WatchedDevice(image)
    superblock = read_superblock(device)
    start = superblock.block_offset(superblock.log_start)
    end = start + superblock.log_blocks * superblock.block_bytes
    found = Whole(image, tree_of(XfsFileSystem.open(device)))
    for at, length in sorted(device.ranges):
        (found.log if start <= at < end else found.rest).append((at, length))
    return found


def _trust_checksums(patch: pytest.MonkeyPatch) -> None:
    """Let every checksum be right: hostile bytes come with right ones."""
    for module in CHECKSUMS:
        patch.setattr(f"questdb_backup.volumes.xfs.{module}.check_crc", lambda *_: None)
    patch.setattr("questdb_backup.volumes.xfs.log_records._is_whole", lambda *_: True)


def _hit(device: WatchedDevice, ranges: list[Range], chance: random.Random) -> None:
    """Flip, fill or move a few bytes of what is read."""
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at, length = chance.choice(ranges)
        at += chance.randrange(min(length, chance.choice((32, 200, 1 << 20))))
        count = min(chance.choice((1, 1, 1, 2, 4, 8, 64)), device.size - at)
        old = device.read(at, count)
        flipped = bytes(old[:-1]) + bytes([old[-1] ^ 1 << chance.randrange(8)])
        new = chance.choice((flipped, bytes(count), b"\xff" * count, chance.randbytes(count)))
        device.write(at, new)
    device.asked = 0


def _outcome(device: WatchedDevice) -> Tree | None:
    """What is read; None where it is refused. Anything else but the two named errors fails the test."""
    try:
        return tree_of(XfsFileSystem.open(device))
    except (DamagedVolumeError, UnsupportedVolumeError):
        return None


def _is_older(device: WatchedDevice) -> bool:
    """Whether the log ends earlier: a record at its head looks torn, and is dropped as a mount drops it."""
    intact = find_bounds(LogRegion(device.undamaged, read_superblock(device.undamaged)))
    damaged = find_bounds(LogRegion(device, read_superblock(device)))
    assert intact is not None
    return damaged is None or damaged.head < intact.head


@pytest.mark.parametrize("seed", range(30))
def test_damage_is_found_or_does_no_harm(dirty: Whole, seed: int) -> None:
    chance = random.Random(seed)
    device = WatchedDevice(dirty.image)
    _hit(device, dirty.log if seed % 2 else dirty.rest, chance)
    got = _outcome(device)
    assert got in (None, dirty.tree) or _is_older(device)


def test_an_image_that_was_cut_short_is_refused(dirty: Whole) -> None:
    for cut in (1, 4096, dirty.image.size // 2, dirty.image.size - 512, dirty.image.size):
        assert _outcome(WatchedDevice(dirty.image, cut)) is None


def _hostile(whole: Whole, ranges: list[Range], count: int, patch: pytest.MonkeyPatch) -> str:
    _trust_checksums(patch)
    outcomes: Counter[str] = Counter()
    with _bounded_memory():
        outcomes.update(_outcomes(whole, ranges, range(8)))
    outcomes.update(_outcomes(whole, ranges, range(8, count)))
    return f"{count} images: {dict(outcomes)}"


def _outcomes(whole: Whole, ranges: list[Range], seeds: range) -> Iterator[str]:
    for seed in seeds:
        device = WatchedDevice(whole.image)
        _hit(device, ranges, random.Random(f"hostile {seed}"))
        got = _outcome(device)
        yield "refused" if got is None else "as before" if got == whole.tree else "another tree"


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """Fail where much memory is taken; for a few cases only, as watching it takes long."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


def test_hostile_metadata_with_right_checksums_ends_in_an_answer_or_a_refusal(
    replayed: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(_hostile(replayed, replayed.rest, 150, monkeypatch))


def test_hostile_logs_with_right_checksums_end_in_an_answer_or_a_refusal(
    dirty: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(_hostile(dirty, dirty.log, 12, monkeypatch))
