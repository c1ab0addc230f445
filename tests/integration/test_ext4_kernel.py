"""The ext4 reader against the kernel: copies of volumes in use, whose journals have to be replayed."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from questdb_backup.errors import DamagedVolumeError, UnsupportedVolumeError
from questdb_backup.volumes.base import ImageDevice
from questdb_backup.volumes.ext4.filesystem import Ext4FileSystem
from questdb_backup.volumes.ext4.journal_superblock import HEADER, MAGIC
from tests.support.busy_volumes import BusyVolume, busy_volume, clone, reflink_folder, view_of_kernel
from tests.support.loop_mounts import needs_loop_mounts
from tests.support.volume_views import View, differences, view_of

pytestmark = needs_loop_mounts

COPIES = int(os.environ.get("VOLUME_COPIES", "2"))
"""Copies taken of each busy volume."""
TEARS = int(os.environ.get("VOLUME_TEARS", "8"))
"""Torn journals of each kind."""
MAKE = ("mke2fs", "-q", "-F", "-t", "ext4")
VARIANTS: dict[str, tuple[tuple[str, ...], str, bool]] = {
    "4k": ((*MAKE, "-b", "4096"), "", False),
    "1k": ((*MAKE, "-b", "1024"), "", False),
    "2k ^64bit": ((*MAKE, "-b", "2048", "-O", "^64bit"), "", False),
    "ext3": (("mke2fs", "-q", "-F", "-t", "ext3", "-b", "1024"), "", False),
    "no metadata_csum": ((*MAKE, "-O", "^metadata_csum"), "", False),
    "journal_checksum v1": ((*MAKE, "-O", "^metadata_csum,^64bit"), "journal_checksum", True),
    "data=journal": (MAKE, "data=journal", True),
    "data=journal 1k small": ((*MAKE, "-b", "1024", "-J", "size=8"), "data=journal", True),
    "inline_data": ((*MAKE, "-O", "inline_data", "-I", "512"), "", True),
    "bigalloc": ((*MAKE, "-O", "bigalloc", "-C", "16384"), "", False),
    "meta_bg": ((*MAKE, "-b", "1024", "-O", "meta_bg,^resize_inode"), "", False),
    "small journal": ((*MAKE, "-J", "size=4"), "", True),
    "small journal 1k": ((*MAKE, "-b", "1024", "-J", "size=1"), "", True),
    "small journal ext3": (("mke2fs", "-q", "-F", "-t", "ext3", "-J", "size=4"), "", True),
    "128-byte inodes": ((*MAKE, "-I", "128"), "", True),
    "rare features": ((*MAKE, "-O", "large_dir,ea_inode,orphan_file,metadata_csum_seed"), "", True),
    "fast_commit unused": ((*MAKE, "-O", "fast_commit", "-J", "size=16"), "", False),
}


@pytest.fixture(scope="module")
def outer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with reflink_folder(tmp_path_factory.mktemp("volumes")) as folder:
        yield folder


def read(image: Path, *, was_dirty: bool | None = None) -> View:
    with closing(ImageDevice(image)) as device:
        filesystem = Ext4FileSystem.open(device)
        assert was_dirty is None or filesystem.was_dirty is was_dirty
        return view_of(filesystem)


def copies_of(volume: BusyVolume) -> list[tuple[Path, set[str]]]:
    """Copies of a busy volume, each with the files that had to be durable before; then its writers stop."""
    copies, settled = [], set[str]()
    for number in range(COPIES):
        time.sleep(0.3)
        if number % 2 == 0:
            settled |= volume.settle().keys()
        copies.append((volume.snapshot(), settled.copy()))
    volume.stop.set()
    return copies


@pytest.mark.parametrize("variant", VARIANTS)
def test_copies_of_a_busy_volume_are_read_as_the_kernel_replays_them(outer: Path, variant: str) -> None:
    mkfs, options, fsync = VARIANTS[variant]
    with busy_volume(outer, mkfs, options=options, fsync=fsync) as volume:
        for image, settled in copies_of(volume):
            seen = view_of_kernel(image)
            assert seen is not None
            got = read(image, was_dirty=True)
            assert not differences(seen, got)
            assert settled <= got.keys()


def test_a_journal_that_was_gone_around_is_read_from_where_it_begins(outer: Path) -> None:
    with busy_volume(outer, (*MAKE, "-b", "1024", "-J", "size=1"), fsync=True) as volume:
        for number in range(6):
            time.sleep(0.4)
            volume.settle(number + 2)
        image = volume.snapshot()
        volume.stop.set()
        assert not differences(view_of_kernel(image) or {}, read(image))


@pytest.mark.parametrize(("variant", "least"), [("data=journal", 1), ("inline_data", 61)])
def test_bytes_that_are_not_in_blocks_of_their_own_come_with_the_extents(
    outer: Path, variant: str, least: int
) -> None:
    mkfs, options, fsync = VARIANTS[variant]
    with busy_volume(outer, mkfs, options=options, fsync=fsync) as volume:
        folder = volume.folder / "written"
        folder.mkdir()
        contents = {f"{size}.d": os.urandom(size) for size in (100, 5000)}
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        os.sync()
        volume.stop.set()
        with closing(ImageDevice(volume.snapshot())) as device:
            filesystem = Ext4FileSystem.open(device)
            found = filesystem.find(filesystem.root, "written")
            assert found is not None
            inside = [
                (name, extent.data)
                for name, node in filesystem.entries(found)
                for extent in filesystem.extents(node)
                if extent.data is not None
            ]
    assert any(len(data) >= least for _, data in inside)
    assert all(data in contents[name] for name, data in inside)


def test_a_live_fast_commit_is_refused_and_gone_once_it_was_committed(outer: Path) -> None:
    with busy_volume(outer, (*MAKE, "-O", "fast_commit", "-J", "size=16")) as volume:
        volume.stop.set()
        time.sleep(0.3)
        path = volume.folder / "appended"
        path.write_bytes(b"x" * 5000)
        os.sync()
        with path.open("ab") as file:
            file.write(b"y" * 15000)
            os.fsync(file.fileno())
        image = volume.snapshot()
        assert (view_of_kernel(image) or {})["appended"][1] == 20000
        with pytest.raises(UnsupportedVolumeError, match="fast commit"):
            read(image)
        (volume.folder / "other").mkdir()
        os.sync()
        image = volume.snapshot()
        assert not differences(view_of_kernel(image) or {}, read(image))


def journal_blocks(image: Path, block_size: int) -> list[int]:
    """Offsets of everything in an image that looks like a block of a log, by falling sequence numbers."""
    found = []
    with image.open("rb") as file:
        size = file.seek(0, 2)
        for at in range(0, size, block_size):
            file.seek(at)
            magic, kind, sequence = HEADER.unpack(file.read(HEADER.size))
            if magic == MAGIC and kind in (1, 2, 5):
                found.append((sequence, at))
    return [at for _, at in sorted(found, reverse=True)]


@pytest.mark.parametrize("how", ["zeroed", "flipped"])
@pytest.mark.parametrize("variant", ["small journal", "1k", "no metadata_csum", "journal_checksum v1"])
def test_a_torn_journal_is_read_as_the_kernel_replays_it_or_both_refuse(
    outer: Path, variant: str, how: str
) -> None:
    mkfs, options, _ = VARIANTS[variant]
    chance = random.Random(f"{variant} {how}")
    refused = 0
    with busy_volume(outer, mkfs, options=options, fsync=True) as volume:
        time.sleep(1)
        volume.settle()
        image = volume.snapshot()
        volume.stop.set()
        for _ in range(TEARS):
            refused += is_refused(image, chance, how, has_sums=variant != "no metadata_csum")
    print(f"{variant}, {how}: {refused} of {TEARS} refused")


def is_refused(image: Path, chance: random.Random, how: str, *, has_sums: bool) -> bool:
    """Tear a copy, and see whether both refuse it or both show the same.

    Damage that no checksum tells becomes metadata: there the kernel leaves out what it cannot read, or finds
    damage where no file is, so that one of both alone may refuse.
    """
    torn = clone(image, image.with_name("torn.img"))
    tear(torn, chance, how)
    seen = view_of_kernel(torn)
    try:
        got = read(torn)
    except DamagedVolumeError:
        assert seen is None or not has_sums
        return True
    assert seen is not None or not has_sums
    assert not differences(seen or got, got)
    return seen is None


def tear(image: Path, chance: random.Random, how: str) -> None:
    """Damage 1 to 12 blocks of the last transactions, or the data logged right behind their descriptors."""
    block_size = block_size_of(image)
    tail = journal_blocks(image, block_size)[:24]
    with image.open("rb+") as file:
        for _ in range(chance.choice((1, 1, 2, 12))):
            file.seek(chance.choice(tail) + block_size * chance.choice((0, 0, 0, 1, 2)))
            at = file.tell()
            block = bytearray(file.read(block_size))
            if how == "zeroed":
                block = bytearray(block_size)
            else:
                for _ in range(chance.choice((1, 9))):
                    block[chance.randrange(chance.choice((64, block_size)))] ^= 1 << chance.randrange(8)
            file.seek(at)
            file.write(block)


def block_size_of(image: Path) -> int:
    with image.open("rb") as file:
        file.seek(1024 + 0x18)
        return 1024 << int.from_bytes(file.read(4), "little")
