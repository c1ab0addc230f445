"""Sample tables of several kinds, digests of their contents, and a writer that never rests: all in SQL."""

import hashlib
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import psycopg

from tests.support.questdb_server import QuestDBServer

START = "2024-01-01T00:00:00.000000Z"
DAYS = 5
_SYSTEM = ("sys.", "telemetry", "_query_trace")


def create_sample_tables(server: QuestDBServer, rows: int) -> None:
    """Make tables of ``rows`` rows each (two have fewer), over `DAYS` days; return when all is applied.

    ``trades`` by day, ``sensors`` by hour and ``logs`` by day use WAL; ``ledger`` is partitioned without WAL,
    ``instruments`` is a reference table without either. ``trades_1h`` is a materialized view on trades, where
    the server has such.
    """
    step = max(1, DAYS * 86_400_000_000 // rows)  # microseconds
    ts = f"timestamp_sequence('{START}', {step}) ts"
    server.execute(
        f"create table trades as (select {ts}, rnd_symbol('BTC-USD', 'ETH-USD', 'SOL-USD', null) symbol,"
        " rnd_symbol('buy', 'sell') side, rnd_double() * 1000 price, rnd_long(1, 1000000, 2) amount"
        f" from long_sequence({rows})), index(symbol) timestamp(ts) partition by day wal"
    )
    server.execute(
        f"create table sensors as (select {ts}, rnd_int(0, 500, 0) sensor, rnd_float(2) temperature,"
        " rnd_short() raw, rnd_geohash(20) place,"
        " rnd_date(to_date('2020', 'yyyy'), to_date('2021', 'yyyy'), 2) calibrated"
        f" from long_sequence({rows})) timestamp(ts) partition by hour wal"
    )
    server.execute(
        f"create table logs as (select {ts}, rnd_uuid4() id, rnd_ipv4() host, rnd_boolean() failed,"
        " rnd_varchar(1, 60, 3) message, rnd_str(1, 20, 3) origin, rnd_char() level, rnd_byte() code"
        f" from long_sequence({rows})) timestamp(ts) partition by day wal"
    )
    server.execute(
        f"create table ledger as (select {ts}, rnd_long256() hash, rnd_bin(1, 40, 3) body, rnd_int() entry"
        f" from long_sequence({max(1, rows // 4)})) timestamp(ts) partition by day bypass wal"
    )
    server.execute(
        "create table instruments as (select x::int id, rnd_symbol('spot', 'future') kind,"
        f" rnd_str(3, 8, 0) name from long_sequence({max(1, min(rows, 1000))}))"
    )
    if has_materialized_views(server):
        server.execute(
            "create materialized view trades_1h as (select ts, symbol, avg(price) price,"
            " sum(amount) amount from trades sample by 1h) partition by month"
        )
    settle(server)


def has_materialized_views(server: QuestDBServer) -> bool:
    """Materialized views came with 8.3."""
    return tuple(int(part) for part in server.version.split(".")[:2]) >= (8, 3)


def settle(server: QuestDBServer, timeout: float = 120.0) -> None:
    """Wait until all that was committed is applied and has reached the materialized views."""
    deadline = time.monotonic() + timeout
    server.wait_applied(timeout)
    while has_materialized_views(server) and (behind := _stale_views(server)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"materialized views are not up to date: {behind}")
        time.sleep(0.05)
    server.wait_applied(timeout)


def _stale_views(server: QuestDBServer) -> list[tuple[Any, ...]]:
    return server.execute(
        "select view_name, view_status, refresh_base_table_txn, base_table_txn from materialized_views()"
        " where refresh_base_table_txn <> base_table_txn or view_status <> 'valid'"
    )


def table_digests(server: QuestDBServer) -> dict[str, tuple[Any, ...]]:
    """What each user table holds, whatever the order of its rows.

    The row count, then ``(column, type, values that are not null, digest)`` for each column and, as ``*``,
    for whole rows (without BINARY). A digest is the sum, modulo 2**256, of the SHA-256 of the values' texts.
    The server computes it, or this does where that has no ``sha256``: compare servers of one version only.
    """
    names = [str(row[0]) for row in server.execute("select table_name from tables()")]
    return {name: _digest(server, name) for name in sorted(names) if not name.startswith(_SYSTEM)}


def _digest(server: QuestDBServer, table: str) -> tuple[Any, ...]:
    columns = [
        (str(name), str(kind))
        for name, kind in server.execute(f"select \"column\", type from table_columns('{table}')")
    ]
    try:
        return _digest_on_server(server, table, columns)
    except psycopg.Error as error:
        if "sha256" not in str(error) and "matching function" not in str(error):
            raise
        return _digest_here(server, table, columns)


def _digest_on_server(server: QuestDBServer, table: str, columns: list[tuple[str, str]]) -> tuple[Any, ...]:
    texts = [f'"{name}"' if kind == "BINARY" else f'"{name}"::varchar' for name, kind in columns]
    whole = ", '|', ".join(text for text in texts if text.endswith("varchar"))
    hashes = [*(f"sha256({text})" for text in texts), f"sha256(concat({whole})::varchar)"]
    sums = ", ".join(f"sum(concat('0x', {digest})::long256)" for digest in hashes)
    counts = ", ".join(f'count("{name}")' for name, _ in columns)
    row = server.execute(f'select count(), {counts}, {sums} from "{table}"')[0]
    found = zip(
        [*columns, ("*", "row")], [*row[1 : len(columns) + 1], row[0]], row[len(columns) + 1 :], strict=True
    )
    return (row[0], *((name, kind, count, digest) for (name, kind), count, digest in found))


def _digest_here(server: QuestDBServer, table: str, columns: list[tuple[str, str]]) -> tuple[Any, ...]:
    rows = server.execute(f'select * from "{table}"')
    found = []
    for index, (name, kind) in enumerate(columns):
        values = [row[index] for row in rows if row[index] is not None]
        found.append((name, kind, len(values), _sum_of_hashes(values)))
    return (len(rows), *found, ("*", "row", len(rows), _sum_of_hashes(rows)))


def _sum_of_hashes(values: list[Any]) -> str:
    digests = (hashlib.sha256(repr(value).encode()).digest() for value in values)
    return hex(sum(int.from_bytes(digest) for digest in digests) % 2**256)


class Writer(threading.Thread):
    """Writes until stopped: rows in order and out of order into trades and sensors, and updates of sensors.

    ``batches`` counts the statements that the server has acknowledged. A failure ends the thread; leaving the
    context raises it. ``pause_seconds`` is between two statements.
    """

    def __init__(self, server: QuestDBServer, *, seed: int = 1, pause_seconds: float = 0.01) -> None:
        super().__init__(name="writer", daemon=True)
        self.batches = 0
        self.failure: psycopg.Error | None = None
        self._dsn = server.dsn
        self._random = random.Random(seed)
        self._pause = pause_seconds
        self._stop_asked = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        if self.failure is not None and exc[0] is None:
            raise self.failure

    def run(self) -> None:
        """The thread's body."""
        steps: list[Callable[[int], str]] = [_in_order, self._out_of_order, _in_order, self._update]
        try:
            with psycopg.connect(self._dsn, autocommit=True, prepare_threshold=None) as connection:
                while not self._stop_asked.wait(self._pause):
                    connection.execute(steps[self.batches % len(steps)](self.batches).encode())
                    self.batches += 1
        except psycopg.Error as error:
            self.failure = error

    def stop(self) -> None:
        """Ask the thread to end, and wait for it."""
        self._stop_asked.set()
        self.join()

    def wait_batches(self, count: int, timeout: float = 60.0) -> None:
        """Wait until so many more statements have been acknowledged."""
        goal, deadline = self.batches + count, time.monotonic() + timeout
        while self.batches < goal and self.failure is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.batches} of {goal} statements after {timeout} s")
            time.sleep(0.01)
        if self.failure is not None:
            raise self.failure

    def _out_of_order(self, _number: int) -> str:
        """Ten rows at random moments of the sample's days."""
        seconds = self._random.randrange(DAYS * 86_400)
        return (
            f"insert into sensors select dateadd('s', {seconds}, timestamp_sequence('{START}', 1000000)) ts,"
            " rnd_int(0, 500, 0), rnd_float(2), rnd_short(), rnd_geohash(20), null from long_sequence(10)"
        )

    def _update(self, _number: int) -> str:
        return (
            f"update sensors set sensor = {self._random.randrange(500)}"
            f" where sensor = {self._random.randrange(500)}"
        )


def _in_order(number: int) -> str:
    """A hundred rows after all that are there."""
    return (
        f"insert into trades select dateadd('s', {number * 100}, timestamp_sequence("
        f"dateadd('d', {DAYS}, '{START}'::timestamp), 1000000)) ts,"
        " rnd_symbol('BTC-USD', 'ETH-USD', 'NEW-USD'), rnd_symbol('buy', 'sell'), rnd_double() * 1000,"
        " rnd_long(1, 1000000, 2) from long_sequence(100)"
    )
