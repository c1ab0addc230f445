"""How fast units are stored out of a snapshot: python -m benchmarks.ebs_worker [SCALE].

A root of the data set "exchange" (SCALE 0.15 by default: about 550 MB), made by a real QuestDB, goes into an
ext4 image, which the stand-in serves from a process of its own. In turn, three times: all blocks that the
units need by nothing but boto3 (the raw rate); the same files by UploadPartitions from the page cache (the
codec's rate, source ``path``); and by UploadPartitions from the snapshot. Units go to a new folder each time.
The ratio is of the last rate to the lower one of the other two.

A function of 1,769 MB, as UploadPartitions is, has one processor ("Configure Lambda function memory" in the
AWS Lambda Developer Guide), and EBS takes nothing of it. So all three keep to one processor here, and the
stand-in to the others. "one after other" is the rate at which one processor would fetch, then store.

All this twice: with 100 ms for each block, which "Optimize performance for EBS direct APIs" in the Amazon
EBS User Guide counts with, and with none, which no network has: that shows what the processor can do.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ebs import MIB, read_bare_blocks, served_image
from benchmarks.generate import frozen_roots, size_of
from questdb_backup import keys
from questdb_backup.catalog import Catalog
from questdb_backup.ebs.base import BLOCK_BYTES, VolumeSnapshot
from questdb_backup.ebs.direct import BotoDirectApi
from questdb_backup.ebs.planning import open_snapshots
from questdb_backup.ebs.unit_tree import wanted_blocks
from questdb_backup.planner import Planner
from questdb_backup.services import Config, Services
from questdb_backup.source.path import CheckpointSource, LocalTree
from questdb_backup.status.memory import MemoryStatusStore
from questdb_backup.steps.lock import acquire_lock
from questdb_backup.steps.run import Run
from questdb_backup.steps.upload import upload_partitions
from questdb_backup.stores.open import open_store
from questdb_backup.units import decode_unit
from tests.support.busy_volumes import run

ROUNDS = 3
DEFAULT_SCALE = 0.15
VERSION = "9.3.4"
LATENCIES = (0.1, 0.0)
"""Seconds from a request to its block."""


def make_image(folder: Path, root: Path) -> Path:
    """An ext4 image with the root in it, as ``questdb``."""
    image = folder / "volume.img"
    with image.open("wb") as file:
        file.truncate(2 * size_of(root)["bytes"] + (1 << 30))
    (folder / "disk").mkdir()
    shutil.copytree(root, folder / "disk" / "questdb")
    run("mke2fs", "-q", "-t", "ext4", "-d", folder / "disk", image)
    shutil.rmtree(folder / "disk")
    return image


class Deployment:
    """A store and a run of its own; ``source`` is ``ebs`` or ``path``."""

    def __init__(self, folder: Path, source: str, root: Path) -> None:
        for name in ("store", "new"):
            (folder / name).mkdir(parents=True)
        text = f"fs::root={folder / 'store'};atomic_write_dir={folder / 'new'};"
        status = MemoryStatusStore()
        self.services = Services(
            config=Config(source=source, instance_name="quiet-river-stone", stack_id="stack"),
            make_store=lambda: open_store(text, max_connections=8),
            make_status=lambda: status,
            make_database=_none,
            make_source=lambda _: CheckpointSource(LocalTree(root), server_version=VERSION),
            make_direct=BotoDirectApi,
        )
        self.run = Run.from_json(acquire_lock(self.services, "benchmark", {})["run"])
        self.items: list[dict[str, Any]] = []

    def plan(self, snapshot_id: str | None) -> None:
        """Plan everything, out of the snapshot or the root."""
        services, run = self.services, self.run
        planner = Planner(services.store, run, Catalog(instance=run.instance), None, 1)
        if snapshot_id is None:
            self.items = planner.plan(services.make_source(None), {}, [])
            return
        volume = VolumeSnapshot(volume_id="vol-1", device="/dev/sdf", snapshot_id=snapshot_id)
        opened = open_snapshots(services, run, (volume,), None, frozenset(), VERSION)
        planner.read_from(opened.volumes, opened.locator.pieces)
        self.items = planner.plan(opened.origin, {}, [])

    def upload(self) -> None:
        """Store all units, one after the other, as each Lambda stores one."""
        for item in self.items:
            upload_partitions(self.services, self.run, item, 1, workers=1)

    def blocks(self) -> list[int]:
        """The blocks that the units read."""
        found: set[int] = set()
        for item in self.items:
            key = keys.unit(self.run.instance, self.run.backup_timestamp, item["unit"], item["attempt"])
            found.update(index for _, index in wanted_blocks(decode_unit(self.services.store.get(key))))
        return sorted(found)


def _none() -> Any:
    raise AssertionError("there is no server")


def seconds(work: Callable[[], None]) -> float:
    """How long it takes."""
    os.sync()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(folder: Path, root: Path, snapshot_id: str) -> list[tuple[float, float, float]]:
    """Rates in MiB/s of all rounds: raw, from the page cache, from the snapshot."""
    found = []
    for number in range(ROUNDS):
        stores = [folder / f"{source}{number}" for source in ("ebs", "path")]
        ebs, path = (
            Deployment(place, source, root) for place, source in zip(stores, ("ebs", "path"), strict=True)
        )
        ebs.plan(snapshot_id)
        path.plan(None)
        size = sum(item["bytes"] for item in ebs.items) / MIB
        blocks = ebs.blocks()
        took = seconds(partial(read_bare_blocks, snapshot_id, blocks))
        raw = len(blocks) * BLOCK_BYTES / MIB / took
        found.append((raw, size / seconds(path.upload), size / seconds(ebs.upload)))
        for place in stores:
            shutil.rmtree(place)
        _print(str(number + 1), *found[-1])
    return found


def main() -> None:
    """Print a line for each round, then the medians."""
    root = frozen_roots("exchange", float(sys.argv[1]) if sys.argv[1:] else DEFAULT_SCALE).roots[0]
    own, *others = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="questdb-backup-ebs-") as name:
        image = make_image(Path(name), root)
        for latency in LATENCIES:
            folder = Path(name) / f"{latency}"
            folder.mkdir()
            os.sched_setaffinity(0, {own, *others})
            with served_image(folder, image, {*others} or {own}, latency=latency) as snapshot_id:
                os.sched_setaffinity(0, {own})
                _report(latency, partial(measure, folder, root, snapshot_id))


def _report(latency: float, measured: Callable[[], list[tuple[float, float, float]]]) -> None:
    columns = ("round", "boto3 alone", "page cache", "one after other", "snapshot", "ratio")
    print(f"{latency * 1000:.0f} ms for a block, MiB/s")
    print("  ".join(f"{name:>11}" for name in columns))
    rates = measured()
    ratio = statistics.median(each[2] / min(each[:2]) for each in rates)
    raw, path, ebs = (statistics.median(column) for column in zip(*rates, strict=True))
    _print("median", raw, path, ebs, ratio)


def _print(name: str, raw: float, path: float, ebs: float, ratio: float | None = None) -> None:
    ratio = ebs / min(raw, path) if ratio is None else ratio
    both = 1 / (1 / raw + 1 / path)
    print(f"{name:>11}  {raw:>11.0f}  {path:>11.0f}  {both:>15.0f}  {ebs:>11.0f}  {ratio:>11.2f}", flush=True)


if __name__ == "__main__":
    main()
