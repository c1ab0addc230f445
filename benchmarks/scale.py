"""How time and memory grow with the number of files: python -m benchmarks.scale [files ...].

A root of one WAL table with ten columns, days as partitions, and sparse files with a few rows each goes
through the very commands of a user: a first backup, one with nothing changed, a restore's dry run, a
restore, a prune, for 10,000, 100,000 and 1,000,000 files by default.
"""

import os
import shutil
import struct
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.measure import Measured, measure
from tests.support.questdb_files import (
    DAY,
    START,
    TIMESTAMP,
    make_cv,
    make_log,
    make_meta,
    make_string,
    make_txn,
)

LONG = 6
COLUMNS = 10
ROWS = 100
DEFAULT_FILES = (10_000, 100_000, 1_000_000)
_COMMAND = Path(sys.executable).with_name("questdb-backup")


def make_root(root: Path, partitions: int) -> None:
    """A frozen root with so many partitions of `COLUMNS` files."""
    saved, live = root / ".checkpoint/db/t~9", root / "db/t~9"
    columns = (("ts", TIMESTAMP, 0), *((f"c{n}", LONG, 0) for n in range(1, COLUMNS)))
    entries = tuple((START + number * DAY, ROWS, -1, -1) for number in range(partitions))
    txn = make_txn(transient=ROWS, fixed=ROWS * (partitions - 1), seq_txn=2, symbols=(), partitions=entries)
    files = {
        saved / "_meta": make_meta(columns, timestamp=0, wal=True),
        saved / "_txn": txn,
        saved / "_cv": make_cv(),
        saved / "_name": make_string("t") + b"\0",
        saved / "txn_seq/_meta": b"meta",
        saved / "txn_seq/_txn": struct.pack("<q", 2),
        root / ".checkpoint/db/_checkpoint_meta.d": bytes(4),
        root / ".checkpoint/db/tables.d.0": b"registry",
        root / "db/_tab_index.d": bytes(8),
        root / "db/.data_id": bytes(range(16)),
        root / "db/.backup_instance_name": b"quiet-river-stone",
        live / "txn_seq/_txnlog": make_log(((1, 0, 0), (1, 0, 1))),
        live / "txn_seq/_meta": b"meta",
    }
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    day = datetime.fromtimestamp(START / 1e6, UTC)
    for number in range(partitions):
        folder = live / f"{day + timedelta(days=number):%Y-%m-%d}"
        folder.mkdir()
        for name, _, _ in columns:
            descriptor = os.open(folder / f"{name}.d", os.O_CREAT | os.O_WRONLY, 0o644)
            os.ftruncate(descriptor, 8 * ROWS)
            os.close(descriptor)


def run(files: int, place: Path) -> list[tuple[str, Measured]]:
    """Every command on a root of that many files, measured."""
    root, store = place / "root", place / "store"
    make_root(root, files // COLUMNS)
    for folder in (store, place / "temporary", place / "state", place / "out"):
        folder.mkdir()
    where = ["--object-store", f"fs::root={store};atomic_write_dir={place / 'temporary'};"]
    backup = [
        *(str(_COMMAND), "backup", "--frozen", "--root", str(root), "--server-version", "9.3.4"),
        *("--state", str(place / "state"), "--json", *where),
    ]
    restore = [str(_COMMAND), "restore", "--root", str(place / "restored"), "--json", *where]
    prune = [str(_COMMAND), "prune", "--cleanup-keep-latest-n", "1", "--json", *where]
    steps = (
        ("first backup", backup),
        ("nothing changed", backup),
        ("restore, dry run", [*restore, "--dry-run"]),
        ("restore", restore),
        ("prune", prune),
    )
    return [(name, measure(command, folder=place / "out")) for name, command in steps]


def main() -> None:
    """Print a line for each command and size."""
    sizes = [int(word) for word in sys.argv[1:]] or list(DEFAULT_FILES)
    print(f"{'files':>9}  {'command':<16} {'wall s':>8} {'CPU s':>8} {'CPU us/file':>12} {'peak RSS MB':>12}")
    for files in sizes:
        place = Path(tempfile.mkdtemp(prefix="questdb-backup-scale-"))
        try:
            for name, took in run(files, place):
                per_file = took.cpu_seconds / files * 1e6
                print(
                    f"{files:>9,}  {name:<16} {took.wall_seconds:>8.2f} {took.cpu_seconds:>8.2f}"
                    f" {per_file:>12.1f} {took.peak_rss / 1e6:>12.0f}",
                    flush=True,
                )
        finally:
            shutil.rmtree(place)


if __name__ == "__main__":
    main()
