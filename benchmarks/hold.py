"""How long a backup holds the checkpoint as the database grows: python -m benchmarks.hold [DAYS ...].

A WAL table with days of a million rows, 4, 16 and 64 of them by default, is backed up into a new store
while rows are written to its last day. CREATE itself grows with what the server has to sync; what counts is
the time from there to the release, and how much is read in it.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from tests.support.questdb_server import QuestDBServer

ROWS_A_DAY = 1_000_000
_COMMAND = Path(sys.executable).with_name("questdb-backup")
_CREATE = (
    "create table trades (ts timestamp, symbol symbol, price double, amount double, id long)"
    " timestamp(ts) partition by day wal"
)
_DAY = (
    "insert into trades select timestamp_sequence('2024-01-01T00:00:00.000000Z'::timestamp"
    " + {day} * 86400000000L, 86400), rnd_symbol('BTC-USD','ETH-USD'), rnd_double(), rnd_double(), rnd_long()"
    " from long_sequence({rows})"
)


def grow(connection: "psycopg.Connection[object]", first: int, last: int) -> None:
    """Write whole days, and wait until they are applied."""
    for day in range(first, last):
        connection.execute(_DAY.format(day=day, rows=ROWS_A_DAY).encode())
    while True:
        row = connection.execute("select count() from trades").fetchone()
        if isinstance(row, tuple) and row[0] >= last * ROWS_A_DAY:
            return
        time.sleep(0.2)


def back_up(server: QuestDBServer, place: Path) -> dict[str, float]:
    """One first backup into a new store; its counters."""
    place.mkdir()
    where = f"fs::root={place / 'store'};atomic_write_dir={place / 'atomic'};"
    command = [str(_COMMAND), "backup", "--root", str(server.root), "--dsn", server.dsn, "--json"]
    done = subprocess.run(
        [*command, "--object-store", where, "--throttle", "off"], check=True, capture_output=True, text=True
    )
    counters: dict[str, float] = json.loads(done.stdout)
    return counters


def main() -> None:
    """Print a line for each size."""
    sizes = [int(word) for word in sys.argv[1:]] or [4, 16, 64]
    print(f"{'days':>5} {'stored in all MB':>17} {'read MB':>9} {'checkpoint held s':>18}")
    with tempfile.TemporaryDirectory(prefix="questdb-backup-hold-") as name:
        place = Path(name)
        with (
            QuestDBServer(place / "root") as server,
            psycopg.connect(server.dsn, autocommit=True) as connection,
        ):
            connection.execute(_CREATE.encode())
            before = 0
            for number, days in enumerate(sizes):
                grow(connection, before, days)
                before = days
                counters = back_up(server, place / f"{number}")
                print(
                    f"{days:>5} {counters['bytes'] / 1e6:>17.0f} {counters['bytes_read'] / 1e6:>9.0f}"
                    f" {counters['checkpoint_held_seconds']:>18.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
