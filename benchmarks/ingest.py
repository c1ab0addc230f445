"""Measure what a backup costs ingestion: rows a second into a real QuestDB, with and without one.

Rows go in by ILP over TCP, paced or as fast as the server takes them, and count when they are applied. In
each round there is a stretch without a backup, one with a full backup that goes at full speed
(``--throttle off --nice 0 --io-priority none``), and one with a full backup by the defaults; the order
changes from round to round. The command is run as a user would run it.

    python benchmarks/ingest.py --rows 4000000 --rounds 3 --rate 100000
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from questdb_backup.gentle.wal_lag import WalLag
from tests.support.questdb_server import QuestDBServer, free_port

FULL_SPEED = ("--throttle", "off", "--nice", "0", "--io-priority", "none")
VARIANTS: dict[str, tuple[str, ...] | None] = {
    "no backup": None,
    "backup at full speed": FULL_SPEED,
    "backup by default": (),
}
_ROWS_PER_SEND = 2000
_SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD")


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What one stretch of ingestion saw: rows applied a second, the worst lag, the backup's result."""

    rows_per_second: float
    seconds: float
    lag: int
    backup: dict[str, Any] | None
    warnings: str


class Writer(threading.Thread):
    """Sends rows by ILP until it is left; ``rate`` 0 is as fast as the server takes them."""

    def __init__(self, port: int, rate: int) -> None:
        super().__init__(name="writer")
        self._port, self._rate = port, rate
        self._stop_asked = threading.Event()
        lines = (
            f"ingest,symbol={_SYMBOLS[row % 4]} price={row * 1.37},amount={row * 7}i,size={row % 97}.5\n"
            for row in range(_ROWS_PER_SEND)
        )
        self._block = "".join(lines).encode()

    def run(self) -> None:
        """Send until it is left."""
        due = time.monotonic()
        with socket.create_connection(("127.0.0.1", self._port)) as connection:
            while not self._stop_asked.is_set():
                connection.sendall(self._block)
                if self._rate:
                    due = max(due + _ROWS_PER_SEND / self._rate, time.monotonic() - 1.0)
                    self._stop_asked.wait(max(0.0, due - time.monotonic()))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop_asked.set()
        self.join()


class LagWatch(threading.Thread):
    """Notes the worst lag of the ingested table, once a second."""

    def __init__(self, server: QuestDBServer) -> None:
        super().__init__(name="lag")
        self._lags = WalLag(lambda: server.dsn)
        self._stop_asked = threading.Event()
        self.worst = 0

    def run(self) -> None:
        """Look until it is left."""
        while not self._stop_asked.wait(1.0):
            self.worst = max(self.worst, (self._lags.read() or {}).get("ingest", 0))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop_asked.set()
        self.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--rows", type=int, default=4_000_000, help="rows that are there before, ~75 bytes each"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="of the stretches without a backup")
    parser.add_argument("--rate", type=int, default=0, help="rows a second; 0: as fast as it goes")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="questdb-backup-ingest-"))
    try:
        run(folder, arguments)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def run(folder: Path, arguments: argparse.Namespace) -> None:
    with started(folder) as (server, port):
        create_history(server, arguments.rows)
        server.execute(
            "create table ingest (symbol symbol, price double, amount long, size double, timestamp timestamp)"
            " timestamp(timestamp) partition by hour wal"
        )
        found: dict[str, list[Stretch]] = {name: [] for name in VARIANTS}
        with Writer(port, arguments.rate):
            time.sleep(5.0)
            for number in range(arguments.rounds):
                names = list(VARIANTS)
                for name in names[number % 3 :] + names[: number % 3]:
                    found[name].append(stretch(server, folder, VARIANTS[name], arguments.seconds))
                    say(name, found[name][-1])
    report(found)


@contextmanager
def started(folder: Path) -> Iterator[tuple[QuestDBServer, int]]:
    """A server that takes ILP, and the port of it."""
    port = free_port()
    env = {"QDB_LINE_TCP_ENABLED": "true", "QDB_LINE_TCP_NET_BIND_TO": f"127.0.0.1:{port}"}
    with QuestDBServer(folder / "root", env=env) as server:
        yield server, port


def create_history(server: QuestDBServer, rows: int) -> None:
    """A table that was there before, so that the first backup has something to read."""
    server.execute(
        "create table history as (select timestamp_sequence('2024-01-01', 1000000) ts,"
        " rnd_symbol('a', 'b') kind, rnd_double() price, rnd_long() id, rnd_uuid4() trace,"
        " rnd_varchar(5, 40, 0) note"
        f" from long_sequence({rows})) timestamp(ts) partition by day wal"
    )
    server.wait_applied(600.0)


def stretch(server: QuestDBServer, folder: Path, flags: tuple[str, ...] | None, seconds: float) -> Stretch:
    """One stretch: until the backup has ended, or so many seconds without one."""
    settle(server)
    with LagWatch(server) as lag:
        before, began = applied(server), time.monotonic()
        backup, warnings = (None, "") if flags is None else back_up(server, folder, flags)
        if flags is None:
            time.sleep(seconds)
        passed, rows = time.monotonic() - began, applied(server) - before
    return Stretch(
        rows_per_second=rows / passed, seconds=passed, lag=lag.worst, backup=backup, warnings=warnings
    )


def applied(server: QuestDBServer) -> int:
    return int(server.execute("select count() from ingest")[0][0])


def settle(server: QuestDBServer) -> None:
    """Wait until the table has about caught up: a stretch must not pay for the one before."""
    lags, give_up = WalLag(lambda: server.dsn), time.monotonic() + 120.0
    while (lags.read() or {}).get("ingest", 0) > 5 and time.monotonic() < give_up:
        time.sleep(0.2)


def back_up(server: QuestDBServer, folder: Path, flags: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """A full backup into a store of its own, by the command; give its JSON, and what it told beside."""
    store = folder / "store"
    store.mkdir()
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("questdb-backup")),
            *("backup", "--json", "--root", str(server.root), "--dsn", server.dsn),
            *("--object-store", f"fs::root={store}/data;atomic_write_dir={store}/atomic;", *flags),
        ],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        start_new_session=True,  # as systemd and cron do
    )
    shutil.rmtree(store)
    if done.returncode != 0:
        raise RuntimeError(f"the backup failed: {done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result, done.stderr


def say(name: str, seen: Stretch) -> None:
    print(
        f"{name:<22} {seen.rows_per_second:>12,.0f} rows/s in {seen.seconds:5.1f} s, lag {seen.lag}",
        flush=True,
    )
    if seen.backup:
        counters = {key: seen.backup.get(key) for key in ("bytes_read", "bytes_stored", "throttled_seconds")}
        print(f"{'':<22} {counters}")
    for line in seen.warnings.splitlines():
        print(f"{'':<22} {line}")


def report(found: dict[str, list[Stretch]]) -> None:
    """The medians; a backup's megabytes a second are of what it has read."""
    print(f"\n{'':<22} {'rows/s':>12} {'of none':>8} {'worst lag':>10} {'backup':>9} {'read':>12}")
    base = median(found["no backup"], lambda each: each.rows_per_second)
    for name, all_of in found.items():
        rows = median(all_of, lambda each: each.rows_per_second)
        took, read = "", ""
        if all_of[0].backup:
            took = f"{median(all_of, lambda each: each.seconds):.1f} s"
            read = f"{median(all_of, _megabytes_per_second):.1f} MB/s"
        worst = max(each.lag for each in all_of)
        print(f"{name:<22} {rows:>12,.0f} {rows / base:>8.1%} {worst:>10} {took:>9} {read:>12}")


def _megabytes_per_second(seen: Stretch) -> float:
    return float((seen.backup or {}).get("bytes_read", 0)) / 1e6 / seen.seconds


def median(values: list[Stretch], of: Callable[[Stretch], float]) -> float:
    return statistics.median(of(each) for each in values)


if __name__ == "__main__":
    sys.exit(main())
