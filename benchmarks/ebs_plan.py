"""What a plan out of a snapshot costs, by the number of files: python -m benchmarks.ebs_plan [files ...].

A root of one table with ten columns, a few rows in each file, goes into an ext4 image: by the kernel where
this host can loop-mount, else by ``mke2fs -d``, which scatters directories more. The stand-in serves a
snapshot of it from a process of its own; a fresh process finds the root and plans a first backup as the
step PlanBackup does: blocks come over HTTP, units go to a folder. ``plan``: from the first request to the
last unit. ``process``: with the interpreter's start and all imports. Seven times; the medians are printed,
and the least of the plan: what others do on the machine only ever adds to it.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.ebs import served_image
from benchmarks.scale import COLUMNS, make_root
from tests.support.busy_volumes import mounted
from tests.support.busy_volumes import run as run_command
from tests.support.loop_mounts import lacking

DEFAULT_FILES = (5_500, 55_000)
SIZE = 4 << 30
"""Of the volume, sparse."""
ROUNDS = 7


def make_image(folder: Path, files: int) -> Path:
    """An ext4 image with such a root in it."""
    disk, image = folder / "disk", folder / "volume.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    if not lacking():
        run_command("mke2fs", "-q", "-t", "ext4", image)
        with mounted(image, disk) as root:
            _fill(root, files)
        return image
    _fill(disk, files)
    run_command("mke2fs", "-q", "-t", "ext4", "-N", str(2 * files), "-d", disk, image)
    shutil.rmtree(disk)
    return image


def _fill(disk: Path, files: int) -> None:
    make_root(disk / "questdb", files // COLUMNS)
    for path in (disk / "questdb/db").glob("*/*/*.d"):
        path.write_bytes(os.urandom(path.stat().st_size))


def plan(snapshot_id: str, store: Path) -> dict[str, Any]:
    """Plan the root in the snapshot; give what it took. For a process of its own."""
    from questdb_backup.catalog import Catalog
    from questdb_backup.ebs.base import VolumeSnapshot
    from questdb_backup.ebs.direct import BotoDirectApi
    from questdb_backup.ebs.planning import open_snapshots
    from questdb_backup.planner import Planner
    from questdb_backup.services import Config, Services
    from questdb_backup.steps.run import Run
    from questdb_backup.stores.open import open_store

    def none(*_: object) -> Any:
        raise AssertionError("a plan does not ask for it")

    services = Services(
        config=Config(source="ebs", stack_id="stack"),
        make_store=lambda: open_store(f"fs::root={store};atomic_write_dir={store}.new;", max_connections=8),
        make_status=none,
        make_database=none,
        make_source=none,
        make_direct=BotoDirectApi,
    )
    run = Run(instance="quiet-river-stone", backup_timestamp="2026-01-01T00:00:00.000000Z", token=1)
    services.direct.counting()
    services.store.read("nothing")
    began, used = time.perf_counter(), time.process_time()
    volume = VolumeSnapshot(volume_id="vol-1", device="/dev/sdf", snapshot_id=snapshot_id)
    opened = open_snapshots(services, run, (volume,), None, frozenset(), "9.3.4")
    torn = opened.origin.torn_tables()
    planner = Planner(services.store, run, Catalog(instance=run.instance), None, 1)
    planner.read_from(opened.volumes, opened.locator.pieces)
    planner.plan(opened.origin, {}, [])
    spent = time.process_time() - used
    assert not torn
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall": time.perf_counter() - began,
        "plan": spent,
        "process": usage.ru_utime + usage.ru_stime,
        "memory": usage.ru_maxrss * 1024,
        **opened.api.requests,
    }


def run(files: int, folder: Path) -> dict[str, float]:
    """Everything for one number of files: the medians, and the least of the plan."""
    image, store = make_image(folder, files), folder / "store"
    rounds: list[dict[str, float]] = []
    with served_image(folder, image) as snapshot_id:
        for _ in range(ROUNDS):
            for path in (store, Path(f"{store}.new")):
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir()
            command = [sys.executable, "-m", "benchmarks.ebs_plan", "--plan", snapshot_id, str(store)]
            rounds.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    medians = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    return {**medians, "least": min(each["plan"] for each in rounds)}


def main() -> None:
    """Print a line for each size."""
    if sys.argv[1:2] == ["--plan"]:
        print(json.dumps(plan(sys.argv[2], Path(sys.argv[3]))))
        return
    sizes = [int(word) for word in sys.argv[1:]] or list(DEFAULT_FILES)
    columns = ("files", "plan CPU s", "least", "wall s", "process CPU s", "peak RSS MB", "lists", "gets")
    print("  ".join(f"{name:>7}" for name in columns))
    for files in sizes:
        folder = Path(tempfile.mkdtemp(prefix="questdb-backup-plan-"))
        try:
            found = run(files, folder)
        finally:
            shutil.rmtree(folder)
        print(
            f"{files:>7,}  {found['plan']:>10.2f}  {found['least']:>7.2f}  {found['wall']:>7.2f}"
            f"  {found['process']:>13.2f}  {found['memory'] / 1e6:>11.0f}  {found['list_requests']:>7.0f}"
            f"  {found['get_requests']:>7.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
