"""XFS snapshots of busy volumes, read by us and by the kernel, which recovers the log: both see the same."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from questdb_backup.errors import DamagedVolumeError, UnsupportedVolumeError
from questdb_backup.source.base import EntryKind
from questdb_backup.volumes.base import ImageDevice
from questdb_backup.volumes.xfs.filesystem import XfsFileSystem
from questdb_backup.volumes.xfs.log_bounds import find_bounds
from questdb_backup.volumes.xfs.log_records import LogRegion
from questdb_backup.volumes.xfs.superblock import read_superblock
from tests.support.busy_volumes import (
    BusyVolume,
    busy_volume,
    clone,
    mounted,
    reflink_folder,
    run,
    view_of_kernel,
)
from tests.support.loop_mounts import needs_loop_mounts
from tests.support.torn_logs import TEARS, Burst, burst_between, tear
from tests.support.volume_views import View, differences, view_of

pytestmark = needs_loop_mounts

_TEARS = int(os.environ.get("VOLUME_TEARS", "0"))
"""How many crashes of each variant; without it each kind of tear once, of small logs only."""
_SMALL_LOG = ("--unsupported", "-l", "size=6m")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How a volume is made, mounted and written to."""

    name: str
    mkfs: tuple[str, ...] = ()
    options: str = ""
    fsync: bool = False
    size: int = field(default=400 << 20)


_VARIANTS = (
    Variant(name="default"),
    Variant(name="default, many fsyncs", fsync=True),
    Variant(name="1k blocks", mkfs=("-b", "size=1024"), fsync=True),
    Variant(name="reflink and rmapbt", mkfs=("-m", "reflink=1,rmapbt=1"), fsync=True),
    Variant(name="4k sectors", mkfs=("-s", "size=4096"), fsync=True),
    Variant(name="nrext64", mkfs=("-i", "nrext64=1"), fsync=True),
    Variant(name="large inodes and directory blocks", mkfs=("-i", "size=2048", "-n", "size=16384")),
    Variant(name="logbsize=256k", options="logbsize=256k"),
    Variant(name="log stripe unit", mkfs=("-l", "su=256k"), options="logbsize=256k", fsync=True),
    Variant(name="old features", mkfs=("-m", "bigtime=0,finobt=0,inobtcount=0,reflink=0", "-i", "sparse=0")),
    Variant(name="wrapped log", mkfs=_SMALL_LOG, fsync=True),
    Variant(name="wrapped log, logbsize=256k", mkfs=_SMALL_LOG, options="logbsize=256k"),
    Variant(name="wrapped log, 1k blocks", mkfs=("-b", "size=1024", "-m", "rmapbt=1", *_SMALL_LOG)),
)
_TORN = _VARIANTS if _TEARS else _VARIANTS[-3:]


@pytest.fixture(scope="module")
def outer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with reflink_folder(tmp_path_factory.mktemp("xfs")) as folder:
        yield folder


def _ours(image: Path) -> View | None:
    """What we read; None where we refuse, as `view_of_kernel` gives None where the kernel does."""
    with closing(ImageDevice(image)) as device:
        try:
            return view_of(XfsFileSystem.open(device))
        except DamagedVolumeError:
            return None


def _agree(image: Path, what: str) -> View | None:
    expected, got = view_of_kernel(image, "nouuid"), _ours(image)
    assert (expected is None) == (got is None), (
        f"{what}: the kernel {'refuses' if expected is None else 'reads'} it"
    )
    if expected is not None and got is not None:
        assert differences(expected, got) == [], what
    return got


@pytest.mark.parametrize("variant", _VARIANTS, ids=lambda variant: variant.name)
def test_a_busy_volume_reads_as_the_kernel_reads_it(outer: Path, variant: Variant) -> None:
    mkfs = ("mkfs.xfs", "-q", "-f", *variant.mkfs)
    compared = 0
    with busy_volume(outer, mkfs, options=variant.options, size=variant.size, fsync=variant.fsync) as volume:
        time.sleep(0.5)
        settled = volume.settle()
        images = [volume.snapshot()]
        time.sleep(0.7)
        images.append(volume.snapshot())
        volume.stop.set()
        for number, image in enumerate(images):
            seen = _agree(image, f"{variant.name}, snapshot {number}")
            assert seen is not None
            assert settled.keys() <= seen.keys()
            compared += len(seen)
    print(f"{variant.name}: {compared} entries are as the kernel has them")


@pytest.mark.parametrize("big_time", [0, 1])
def test_times_of_replayed_inodes_are_as_the_kernel_has_them(outer: Path, big_time: int) -> None:
    """By them a plan tells whether the checkpoint in a snapshot is the one that was held."""
    mkfs = ("mkfs.xfs", "-q", "-f", "-m", f"bigtime={big_time}")
    with busy_volume(outer, mkfs, size=400 << 20, fsync=True) as volume:
        time.sleep(0.5)
        image = volume.snapshot()
        volume.stop.set()
        scratch = clone(image, image.with_suffix(".times"))
        with mounted(scratch, image.with_suffix(".seen"), "nouuid") as folder:
            expected = {str(path.relative_to(folder)): path.lstat().st_ctime for path in folder.rglob("*")}
        with closing(ImageDevice(image)) as device:
            files = XfsFileSystem.open(device)
            assert files.was_dirty
            got, waiting = dict[str, float](), [("", files.root)]
            while waiting:
                above, parent = waiting.pop()
                for name, node in files.entries(parent):
                    got[f"{above}{name}"] = node.changed_at
                    if node.kind is EntryKind.DIRECTORY:
                        waiting.append((f"{above}{name}/", node))
    assert got == pytest.approx(expected, abs=1e-6)
    assert len(got) > 10


def test_a_volume_that_was_just_grown_reads_as_the_kernel_reads_it(outer: Path) -> None:
    """Its superblock in place is the old one yet; the log has the new one, and inodes behind the old end."""
    image = outer / "grown.img"
    with image.open("wb") as file:
        file.truncate(900 << 20)
    run("mkfs.xfs", "-q", "-d", "size=400m", image)
    with mounted(image, outer / "grown") as folder:
        run("xfs_growfs", folder)
        for number in range(1500):
            parent = folder / f"{number % 50}"
            parent.mkdir(exist_ok=True)
            (parent / f"{number}.d").write_bytes(os.urandom(3000))
        os.sync()
        snapshot = clone(image, outer / "grown.snapshot")
        seen = _agree(snapshot, "grown")
        assert seen is not None
        assert len(seen) == 1550


@pytest.mark.parametrize("variant", _TORN, ids=lambda variant: variant.name)
def test_torn_last_writes_are_dropped_as_the_kernel_drops_them(outer: Path, variant: Variant) -> None:
    chance, kinds = random.Random(variant.name), tuple(TEARS)
    with busy_volume(
        outer, ("mkfs.xfs", "-q", "-f", *variant.mkfs), options=variant.options, size=variant.size, fsync=True
    ) as volume:
        burst = _burst(volume, around=set(_SMALL_LOG) <= set(variant.mkfs))
        volume.stop.set()
        for number in range(_TEARS or len(kinds)):
            kind = kinds[number % len(kinds)]
            torn = tear(burst, volume.image.with_name(f"torn{number}.img"), kind, chance)
            assert _agree(torn.image, f"{variant.name}: {torn.what}") is not None, torn.what
            assert _head_of(torn.image) == torn.head, torn.what
            torn.image.unlink()
    print(f"{variant.name}: {_TEARS or len(kinds)} torn logs read as the kernel reads them")


def _burst(volume: BusyVolume, *, around: bool) -> Burst:
    """What was written to a log in a moment; ``around``: around the log's end."""
    time.sleep(0.5)
    before = volume.snapshot()
    for _ in range(2000):
        time.sleep(0.01)
        after = volume.snapshot()
        burst = burst_between(before, after)
        if burst and len(burst.records) > 2 and (burst.edge or not around):
            return burst
        before.unlink()
        before = after
    pytest.fail("nothing was written around the log's end")


def _head_of(image: Path) -> int:
    with closing(ImageDevice(image)) as device:
        log = LogRegion(device, read_superblock(device))
        bounds = find_bounds(log)
        assert bounds is not None, "the log is clean"
        return bounds.cycle * log.blocks + bounds.head


def test_a_volume_that_was_unmounted_is_clean(outer: Path) -> None:
    with busy_volume(outer, ("mkfs.xfs", "-q", "-f", "-L", "quest"), size=400 << 20) as volume:
        time.sleep(0.5)
        volume.stop.set()
        kept = volume.image.with_name("unmounted.img.kept")
        volume.settle()
        run("umount", volume.folder)
        clone(volume.image, kept)
        run("mount", "-o", "loop", volume.image, volume.folder)
    image = kept.rename(kept.with_name("unmounted.img"))
    with closing(ImageDevice(image)) as device:
        filesystem = XfsFileSystem.open(device)
        assert (filesystem.was_dirty, filesystem.label, filesystem.kind) == (False, "quest", "xfs")
    assert _agree(image, "unmounted") is not None
    image.unlink()


def test_an_external_log_is_refused(outer: Path) -> None:
    image, log = outer / "external.img", outer / "external.log"
    for path, size in ((image, 400 << 20), (log, 80 << 20)):
        with path.open("wb") as file:
            file.truncate(size)
    run("mkfs.xfs", "-q", "-l", f"logdev={log},size=64m", image)
    with (
        closing(ImageDevice(image)) as device,
        pytest.raises(UnsupportedVolumeError, match="log on another device"),
    ):
        XfsFileSystem.open(device)
    image.unlink()
    log.unlink()
