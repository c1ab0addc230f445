"""XFS snapshots of busy volumes, read by us and by the kernel, which recovers the log: both see the same."""

import os
import random
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from questdb_backup.errors import DamagedVolumeError, UnsupportedVolumeError
from questdb_backup.volumes.base import ImageDevice
from questdb_backup.volumes.xfs.filesystem import XfsFileSystem
from questdb_backup.volumes.xfs.log_bounds import find_bounds
from questdb_backup.volumes.xfs.log_records import LogRegion, RecordHeader
from questdb_backup.volumes.xfs.superblock import SECTOR, read_superblock
from tests.support.busy_volumes import BusyVolume, busy_volume, clone, reflink_folder, run, view_of_kernel
from tests.support.loop_mounts import needs_loop_mounts
from tests.support.volume_views import View, differences, view_of

pytestmark = needs_loop_mounts

_TORN = int(os.environ.get("VOLUME_TEARS", "0"))
_IN_FLIGHT = 8
"""Records that Linux writes to a log at once."""
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


@pytest.mark.skipif(
    not _TORN,
    reason="SKIPPED, NOT TESTED: torn XFS logs of a live volume differ from run to run; `make soak` has them",
)
@pytest.mark.parametrize("variant", _VARIANTS[-3:], ids=lambda variant: variant.name)
def test_torn_last_writes_are_dropped_as_the_kernel_drops_them(outer: Path, variant: Variant) -> None:
    chance, refused = random.Random(variant.name), 0
    with busy_volume(
        outer, ("mkfs.xfs", "-q", "-f", *variant.mkfs), options=variant.options, size=variant.size, fsync=True
    ) as volume:
        image = _with_wrapped_log(volume)
        volume.stop.set()
        for number in range(_TORN):
            torn = clone(image, image.with_name(f"torn{number}.img"))
            what = _tear(torn, chance)
            refused += _agree(torn, f"{variant.name}: {what}") is None
            torn.unlink()
    print(f"{variant.name}: {_TORN} torn logs read as the kernel reads them, {refused} refused by both")


def _with_wrapped_log(volume: BusyVolume) -> Path:
    for _ in range(240):
        time.sleep(0.25)
        image = volume.snapshot()
        if _head_of(image).cycle > 1:
            return image
        image.unlink()
    pytest.fail("the log was not written round in a minute")


@dataclass(frozen=True)
class _Head:
    """Where a log begins on its volume, its blocks, and where in it the newest records are."""

    start: int
    blocks: int
    cycle: int
    newest: tuple[RecordHeader, ...]


def _head_of(image: Path) -> _Head:
    with closing(ImageDevice(image)) as device:
        superblock = read_superblock(device)
        log = LogRegion(device, superblock)
        bounds = find_bounds(log)
        assert bounds is not None, "the log is clean"
        records = log.records(bounds.tail, bounds.head, bounds.cycle, verify=False)
        newest = deque((record.header for record in records), maxlen=_IN_FLIGHT)
        return _Head(superblock.block_offset(superblock.log_start), log.blocks, bounds.cycle, tuple(newest))


def _tear(image: Path, chance: random.Random) -> str:
    """Zero or flip some of the last sectors that were written to the log, in records that may be in flight.

    Not the log's first and last sector: by their cycles the head is looked for, and a write leaves old ones.
    """
    head = _head_of(image)
    first = chance.choice(head.newest)
    begin, end = chance.randrange(first.position, first.end), head.newest[-1].end
    count = chance.randrange(1, min(end - begin, 70) + 1)
    flip = chance.random() < 0.5
    with image.open("rb+") as file:
        for position in range(begin, begin + count):
            block = position % head.blocks
            if block in (0, head.blocks - 1):
                continue
            file.seek(head.start + block * SECTOR)
            sector = file.read(SECTOR)
            file.seek(head.start + block * SECTOR)
            file.write(bytes(byte ^ 0x5A for byte in sector) if flip else bytes(SECTOR))
    return f"{count} of the last {end - begin} sectors {'flipped' if flip else 'zeroed'}"


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
