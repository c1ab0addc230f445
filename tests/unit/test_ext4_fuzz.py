"""Damaged ext4 images end in a clear error or in the right answer, in bounded time; seeds are fixed.

``EXT4_FUZZ_IMAGES=5000 pytest -s tests/unit/test_ext4_fuzz.py`` for a long run; the default takes seconds.
"""

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import FrameType

import pytest

from questdb_backup.errors import DamagedVolumeError, UnsupportedVolumeError
from questdb_backup.source.base import EntryKind
from questdb_backup.volumes.base import Node
from questdb_backup.volumes.ext4.blocks import Blocks
from questdb_backup.volumes.ext4.filesystem import Ext4FileSystem, runs_of
from questdb_backup.volumes.ext4.inodes import Inodes
from questdb_backup.volumes.ext4.superblock import parse_superblock
from tests.support.ext4_images import (
    BytesDevice,
    debugfs,
    fixture_bytes,
    make_image,
    make_tree,
    needs_e2fsprogs,
)
from tests.support.volume_views import View, digest_of

IMAGES = int(os.environ.get("EXT4_FUZZ_IMAGES", "40"))
"""Damaged images of each base."""
_CPU_SECONDS = 30.0
"""Of one image; a walk takes some hundredths of one."""
_MOST_READ = 1 << 29
_MOST_DIGESTED = 1 << 20
_MOST_ENTRIES = 20_000
_SECTOR = 512

Region = tuple[int, int]
Patch = tuple[int, bytes]


class TookTooLongError(Exception):
    """A damaged image took more processor time than it may."""


@contextmanager
def bounded() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TookTooLongError(f"more than {_CPU_SECONDS} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, _CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def outcome(device: BytesDevice) -> View | None:
    """What is read of an image, symlink targets left out; None where it is refused."""
    device.most = device.bytes_read + _MOST_READ
    with bounded():
        try:
            return seen(Ext4FileSystem.open(device))
        except (DamagedVolumeError, UnsupportedVolumeError):
            return None


def seen(filesystem: Ext4FileSystem) -> View:
    view: View = {}
    waiting, met = [("", filesystem.root)], set[int]()
    while waiting:
        at, folder = waiting.pop()
        if folder.number in met or len(view) > _MOST_ENTRIES:
            raise DamagedVolumeError("a circle, which the reader of one directory cannot see")
        met.add(folder.number)
        for name, node in filesystem.entries(folder):
            path = f"{at}{name}"
            view[path] = (str(node.kind), node.size, content_of(filesystem, node))
            if node.kind is EntryKind.DIRECTORY:
                waiting.append((f"{path}/", node))
    return view


def content_of(filesystem: Ext4FileSystem, node: Node) -> str:
    if node.kind is EntryKind.SYMLINK:
        filesystem.read_link(node)
    if node.kind is not EntryKind.FILE:
        return ""
    if node.size <= _MOST_DIGESTED:
        return digest_of(filesystem, node)
    return f"{sum(extent.length for extent in islice(filesystem.extents(node), 1 << 20))} bytes mapped"


def metadata_of(content: bytes) -> list[Region]:
    """Sectors that are read to find the files, not of the files' own bytes and not empty."""
    device = BytesDevice(content)
    filesystem = Ext4FileSystem.open(device)
    data: set[int] = set()
    waiting = [filesystem.root]
    while waiting:
        for _, node in filesystem.entries(waiting.pop()):
            if node.kind is EntryKind.DIRECTORY:
                waiting.append(node)
            for extent in filesystem.extents(node):
                if extent.data is None:
                    data.update(
                        range(extent.offset // _SECTOR, -(-(extent.offset + extent.length) // _SECTOR))
                    )
    read = {
        sector
        for offset, length in device.reads
        for sector in range(offset // _SECTOR, -(-(offset + length) // _SECTOR))
    }
    regions = [(sector * _SECTOR, _SECTOR) for sector in sorted(read - data)]
    return [(at, size) for at, size in regions if any(content[at : at + size])]


def journal_sectors(content: bytes) -> set[int]:
    """Where the journal is: a commit that is lost there is an older state, and no damage."""
    superblock = parse_superblock(content[1024:2048], len(content))
    blocks = Blocks(BytesDevice(content), superblock.block_size)
    inodes = Inodes(superblock, blocks)
    runs = runs_of(inodes.get(superblock.journal_inode), superblock, blocks, inodes)
    width = superblock.block_size
    return {
        sector
        for run in runs
        for sector in range(run.block * width, (run.block + run.length) * width, _SECTOR)
    }


def flipped(content: bytes, regions: list[Region], chance: random.Random) -> list[Patch]:
    """Single bits, up to nine of them."""
    places = [
        at + chance.randrange(size) for at, size in chance.choices(regions, k=chance.choice((1, 1, 3, 9)))
    ]
    return [(at, bytes([content[at] ^ 1 << chance.randrange(8)])) for at in places]


def zeroed(_content: bytes, regions: list[Region], chance: random.Random) -> list[Patch]:
    """A sector, or a stretch of up to 64 KiB."""
    at, size = chance.choice(regions)
    return [(at, bytes(chance.choice((size, 1024, 4096, 65536))))]


def scrambled(_content: bytes, regions: list[Region], chance: random.Random) -> list[Patch]:
    """Random bytes in place of some."""
    at, size = chance.choice(regions)
    length = chance.choice((2, 4, 16, size, 4096))
    return [(at + chance.randrange(size), chance.randbytes(length))]


def extreme(_content: bytes, regions: list[Region], chance: random.Random) -> list[Patch]:
    """Numbers that overflow, that count backwards, or that lead to the start."""
    values = (0, 1, 2, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 11, 12)
    patches = []
    for at, size in chance.choices(regions, k=chance.choice((1, 4))):
        width = chance.choice((2, 4))
        value = (chance.choice(values) & (1 << 8 * width) - 1).to_bytes(
            width, chance.choice(("little", "big"))
        )
        patches.append((at + chance.randrange(0, size, width), value))
    return patches


def misplaced(content: bytes, regions: list[Region], chance: random.Random) -> list[Patch]:
    """One piece of metadata where another belongs: nodes that lead to themselves, entries of others."""
    size = chance.choice((8, 12, 16, 256, 512, 1024, 4096))
    (source, _), (target, _) = chance.choices(regions, k=2)
    shift = chance.randrange(0, _SECTOR, size) if size < _SECTOR else 0
    return [(target + shift, content[source + shift : source + shift + size])]


DAMAGE: tuple[Callable[[bytes, list[Region], random.Random], list[Patch]], ...] = (
    flipped,
    zeroed,
    scrambled,
    extreme,
    misplaced,
)


def clipped(patches: list[Patch], regions: list[Region]) -> list[Patch]:
    """What of the patches lies in the regions."""
    inside = {at for at, _ in regions}
    pieces = []
    for at, patch in patches:
        while patch:
            sector = at // _SECTOR * _SECTOR
            length = min(len(patch), sector + _SECTOR - at)
            if sector in inside:
                pieces.append((at, patch[:length]))
            at, patch = at + length, patch[length:]
    return pieces


def damaged_images(content: bytes, regions: list[Region], seed: str) -> Iterator[tuple[str, BytesDevice]]:
    chance = random.Random(seed)
    for number in range(IMAGES):
        damage = DAMAGE[number % len(DAMAGE)]
        device = BytesDevice(content)
        device.patches = clipped(damage(content, regions, chance), regions)
        where = ", ".join(f"{len(patch)} bytes at {at}" for at, patch in device.patches)
        yield f"image {number} of {seed}, {damage.__name__}: {where}", device


BASES: dict[str, tuple[str, ...]] = {
    "no metadata_csum": ("-b", "4096", "-O", "^metadata_csum"),
    "no checksums 1k": ("-b", "1024", "-O", "^metadata_csum,^uninit_bg,^64bit"),
    "ext3": ("-b", "1024"),
    "inline_data": ("-b", "1024", "-O", "inline_data,^metadata_csum,^uninit_bg"),
    "journal without checksums": ("-b", "1024", "-O", "^metadata_csum,^uninit_bg,^64bit"),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("fuzz"))


def base_image(tmp_path: Path, tree: Path, base: str) -> bytes:
    kind = "ext3" if base == "ext3" else "ext4"
    image = make_image(tmp_path / "image", tree, *BASES[base], kind=kind, size=12 << 20)
    if base.startswith("journal"):
        (tmp_path / "content").write_bytes(b"x" * 4096)
        writes = [f"journal_write -b {400 + n},{401 + n} {tmp_path / 'content'}" for n in range(6)]
        debugfs(image, "journal_open", *writes, "journal_write -r 402,403", "journal_close")
    return image.read_bytes()


@needs_e2fsprogs
@pytest.mark.parametrize("base", BASES)
def test_damage_that_no_checksum_tells_ends_in_an_error_or_in_bounded_time(
    tmp_path: Path, tree: Path, base: str
) -> None:
    content = base_image(tmp_path, tree, base)
    regions, refused = metadata_of(content), 0
    for what, device in damaged_images(content, regions, base):
        try:
            refused += outcome(device) is None
        except Exception as error:
            raise AssertionError(what) from error
    print(f"{base}: {IMAGES} damaged images, {refused} refused")
    assert 0 < refused < IMAGES or IMAGES < 20


@pytest.mark.parametrize("name", ["ext4_clean", "ext4_dirty"])
def test_damage_of_an_image_with_checksums_ends_in_an_error_or_in_the_right_answer(name: str) -> None:
    content = fixture_bytes(name)
    right = outcome(BytesDevice(content))
    log = journal_sectors(content)
    regions = [(at, size) for at, size in metadata_of(content) if at not in log]
    refused = 0
    for what, device in damaged_images(content, regions, name):
        try:
            found = outcome(device)
        except Exception as error:
            raise AssertionError(what) from error
        refused += found is None
        assert found in (None, right), what
    print(f"{name}: {IMAGES} damaged images, {refused} refused, all others right")
    assert refused


def test_damage_of_a_journal_ends_in_an_error_or_in_bounded_time() -> None:
    content = fixture_bytes("ext4_dirty")
    log = journal_sectors(content)
    regions = [(at, size) for at, size in metadata_of(content) if at in log]
    refused = 0
    for what, device in damaged_images(content, regions, "journal"):
        try:
            refused += outcome(device) is None
        except Exception as error:
            raise AssertionError(what) from error
    print(f"journal: {IMAGES} damaged images, {refused} refused")


def test_images_that_were_cut_short_are_refused() -> None:
    content = fixture_bytes("ext4_dirty")
    chance = random.Random(3)
    sizes = [0, 1, 1023, 1024, 2047, 2048, 4096, len(content) - 1]
    sizes += [chance.randrange(len(content)) for _ in range(IMAGES // 2)]
    for size in sizes:
        assert outcome(BytesDevice(content[:size])) is None
    print(f"cut short: {len(sizes)} images, all refused")


def test_a_device_of_random_bytes_is_refused() -> None:
    for seed in range(20):
        content = bytearray(random.Random(seed).randbytes(1 << 18))
        content[1024 + 0x38 : 1024 + 0x3A] = b"\x53\xef"
        assert outcome(BytesDevice(bytes(content))) is None
