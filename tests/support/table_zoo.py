"""Tables of every kind, and their contents as digests: for tests that copy or restore a server root."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.support.questdb_server import QuestDBServer

_TYPES = """
    rnd_boolean() c_boolean, rnd_byte() c_byte, rnd_short() c_short, rnd_char() c_char,
    rnd_int(0, 1000, 2) c_int, rnd_long(0, 1000, 2) c_long, rnd_date(0, 1000000000, 2) c_date,
    rnd_timestamp('2020', '2021', 2) c_timestamp, rnd_float(2) c_float, rnd_double(2) c_double,
    rnd_str(1, 30, 2) c_string, rnd_varchar(1, 40, 2) c_varchar, rnd_symbol(50, 1, 8, 2) c_symbol,
    rnd_symbol('a', 'b', null) "c sýmbol", rnd_long256() c_long256, rnd_geohash(5) c_geobyte,
    rnd_geohash(10) c_geoshort, rnd_geohash(20) c_geoint, rnd_geohash(40) c_geolong,
    rnd_bin(1, 40, 2) c_binary, rnd_uuid4() c_uuid, rnd_ipv4() c_ipv4, to_long128(x, x + 1) c_long128
"""
_TYPES_9 = """, rnd_double_array(1, 2) c_array, rnd_double_array(2) c_array_2d,
    rnd_timestamp('2020', '2021', 2)::timestamp_ns c_nanos
"""
_TYPES_9_3 = """, rnd_decimal(2, 1, 2) c_decimal8, rnd_decimal(4, 1, 2) c_decimal16,
    rnd_decimal(9, 2, 2) c_decimal32, rnd_decimal(18, 3, 2) c_decimal64,
    rnd_decimal(38, 4, 2) c_decimal128, rnd_decimal(70, 5, 2) c_decimal256
"""
_PLAIN = "rnd_int() a, rnd_symbol('x', 'y', 'z') s, rnd_varchar(1, 40, 2) v, rnd_str(1, 30, 2) t"
_INDEX = ", index(s)"
_STEPS = {"hour": "1m", "day": "20m", "week": "3h", "month": "12h", "year": "6d"}
ODD_NAME = "o dd näme 日本.dots"
WAIT = "wait"


def settings(volume: Path) -> dict[str, str]:
    """A server's settings: partitions are split early, there is a second volume, and WAL can be suspended."""
    volume.mkdir(parents=True, exist_ok=True)
    return {
        "QDB_CAIRO_O3_PARTITION_SPLIT_MIN_SIZE": "1000",
        "QDB_CAIRO_O3_LAST_PARTITION_MAX_SPLITS": "20",
        "QDB_CAIRO_VOLUMES": f"other -> {volume}",
        "QDB_DEV_MODE_ENABLED": "true",
        # Files of open tables are allocated by the page: 16 MiB each would make a zoo of gigabytes.
        "QDB_CAIRO_WRITER_DATA_APPEND_PAGE_SIZE": "65536",
        "QDB_CAIRO_SYSTEM_WRITER_DATA_APPEND_PAGE_SIZE": "65536",
        "QDB_CAIRO_WAL_WRITER_DATA_APPEND_PAGE_SIZE": "65536",
        "QDB_CAIRO_WRITER_DATA_INDEX_VALUE_APPEND_PAGE_SIZE": "65536",
        "QDB_CAIRO_WRITER_DATA_INDEX_KEY_APPEND_PAGE_SIZE": "65536",
        "QDB_CAIRO_O3_COLUMN_MEMORY_SIZE": "65536",
    }


def fill(server: QuestDBServer) -> None:
    """Make the tables; all that was committed is applied afterwards."""
    for statement in _statements(server.version):
        if statement == WAIT:
            server.wait_applied()
        else:
            server.execute(statement)
    server.wait_applied()
    _attach_by_link(server)


def _attach_by_link(server: QuestDBServer) -> None:
    """Put a partition of the table ``linked`` on another volume."""
    table = server.root / "db" / "linked"
    server.execute("alter table linked detach partition list '2024-01-02'")
    away = server.root.parent / "away" / "2024-01-02"
    away.parent.mkdir(exist_ok=True)
    (table / "2024-01-02.detached").rename(away)
    (table / "2024-01-02.attachable").symlink_to(away, target_is_directory=True)
    server.execute("alter table linked attach partition list '2024-01-02'")


def wait_applied_but(server: QuestDBServer, suspended: str) -> None:
    """Wait until every WAL table but the suspended one has applied what was committed."""
    behind = f"select count() from wal_tables() where writerTxn <> sequencerTxn and name <> '{suspended}'"
    deadline = time.monotonic() + 60
    while server.execute(behind) != [(0,)]:
        assert time.monotonic() < deadline, server.log_tail()
        time.sleep(0.05)


def tables(server: QuestDBServer) -> list[str]:
    """The names of all tables and views that users see."""
    return sorted(row[0] for row in server.execute("select table_name from tables()"))


def digests(server: QuestDBServer) -> dict[str, str]:
    """For each table its row count and a digest of its sorted rows as text."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        return {name: _digest(connection, name) for name in tables(server)}


def _digest(connection: psycopg.Connection, name: str) -> str:
    found = connection.execute(f"select \"column\", type from table_columns('{name}')".encode()).fetchall()
    # QuestDB sends a LONG128 over pgwire as a malformed message.
    wanted = ", ".join(f'"{column}"' for column, kind in found if kind != "LONG128")
    result = connection.execute(f'select {wanted} from "{name}"'.encode()).pgresult
    assert result is not None
    columns = range(result.nfields)
    cells = ([result.get_value(row, column) for column in columns] for row in range(result.ntuples))
    lines = sorted(b"\x1f".join(b"\x00" if cell is None else cell for cell in row) for row in cells)
    digest = hashlib.blake2b(b"\x1e".join(lines), digest_size=12).hexdigest()
    return f"{len(lines)}:{digest}"


def _table(name: str, select: str, partition_by: str, index: str = "") -> str:
    return f"create table {name} as ({select}){index} timestamp(ts) partition by {partition_by}"


def rows(columns: str, step: str, count: int, start: str = "2024-01-01T00:00", unit: str = "") -> str:
    """A select of random rows in order of time, the timestamp last."""
    stamp = f"dateadd('{step[-1]}', ({step[:-1]} * x)::int, '{start}'::timestamp{unit}) ts"
    return f"select {columns}, {stamp} from long_sequence({count})"


def _statements(version: str) -> Iterator[str]:
    newer = not version.startswith("8.")
    types = _TYPES + (_TYPES_9 if newer else "") + (_TYPES_9_3 if version >= "9.3" else "")
    yield from _every_type(types)
    for wal in ("wal", "bypass wal"):
        yield from _changed(f"changed_{wal.split()[0]}", wal)
    yield from _unusual()
    if newer:
        yield _table("nanos", rows(types, "20m", 300, unit="_ns"), "day wal")
        yield _table("nanos_week", rows(_PLAIN, "1m", 20000, unit="_ns"), "week")
        yield WAIT
        yield f"insert into nanos_week {rows(_PLAIN, '1s', 50, '2024-01-14T20:00:00.000000123', '_ns')}"
        yield from _views(version)
        yield from _parquet()


def _every_type(types: str) -> Iterator[str]:
    for by, step in _STEPS.items():
        for wal in ("wal", "bypass wal"):
            name = f"types_{by}_{wal.split()[0]}"
            yield _table(name, rows(types, step, 300), f"{by} {wal}")
    yield f"create table types_none as ({rows(types, '1m', 300)}) timestamp(ts)"
    yield f"create table no_timestamp as (select {types} from long_sequence(100))"
    yield _table(f'"{ODD_NAME}"', rows(types, "20m", 300), "day wal")
    yield _table("truncated", rows(types, "20m", 300), "day wal")
    yield "create table never_filled (a int, s symbol index, v varchar, t string)"
    yield "create table never_filled_wal (a int, s symbol, ts timestamp) timestamp(ts) partition by day wal"
    yield WAIT
    yield "truncate table truncated"


def _changed(name: str, wal: str) -> Iterator[str]:
    """Rows out of order, columns that come, go and change, updates."""
    yield _table(name, rows(_PLAIN, "1m", 20000), f"month {wal}", _INDEX)
    yield _table(f"{name}_day", rows(_PLAIN, "1m", 9000), f"day {wal}", _INDEX)
    yield WAIT
    for table in (name, f"{name}_day"):
        yield f"insert into {table} {rows(_PLAIN, '7s', 100, '2024-01-06T05:00:00.000001')}"
        yield WAIT
        yield f"alter table {table} add column added double"
        yield f"alter table {table} add column later symbol index"
        yield f"alter table {table} add column empty varchar"
        yield f"alter table {table} add column empty_text string"
        yield WAIT
        later = "rnd_int() a, 'n' s, 'v' v, 't' t, 1.5 added, rnd_symbol('p', 'q') later"
        columns = "a, s, v, t, added, later, ts"
        yield f"insert into {table} ({columns}) {rows(later, '13m', 50, '2024-01-04T03:00')}"
        yield f"insert into {table} ({columns}) {rows(later, '1m', 50, '2024-01-14T22:00')}"
        yield WAIT
        yield f"update {table} set a = 7, v = 'an update that is not inlined' where ts in '2024-01-03'"
        yield WAIT
        yield f"alter table {table} rename column t to renamed"
        yield f"alter table {table} drop column added"
        yield f"alter table {table} add column added int"
        yield f"alter table {table} alter column a type varchar"
        yield WAIT
        yield f"alter table {table} alter column v type symbol"
        yield WAIT
    yield f"alter table {name}_day drop partition list '2024-01-02'"
    yield f"alter table {name}_day detach partition list '2024-01-03'"


def _unusual() -> Iterator[str]:
    yield _table("deduped", rows(_PLAIN, "1m", 5000), "day wal dedup upsert keys(ts, s)")
    yield _table("elsewhere", rows(_PLAIN, "1m", 5000), "day bypass wal in volume 'other'")
    yield _table("linked", rows(_PLAIN, "1m", 5000), "day bypass wal")
    yield _table("split", rows(_PLAIN, "1m", 5000), "day wal")
    yield WAIT
    yield f"insert into split {rows(_PLAIN, '1s', 20, '2024-01-04T11:00:00.000001')}"
    yield WAIT
    yield f"insert into split {rows(_PLAIN, '1s', 20, '2024-01-04T11:10:00')}"
    yield f"insert into deduped {rows(_PLAIN, '1m', 700, '2024-01-02T05:00')}"
    yield f"insert into elsewhere {rows(_PLAIN, '1m', 100, '2024-01-02T05:00')}"


def _views(version: str) -> Iterator[str]:
    base = "select ts, s, count() n from base sample by 1h"
    yield _table("base", rows(_PLAIN, "1m", 5000), "day wal")
    yield WAIT
    yield f"create materialized view mat_view as ({base}) partition by day"
    yield f"create materialized view mat_view_manual refresh manual as ({base}) partition by day"
    yield "refresh materialized view mat_view_manual full"
    if version >= "9.3":
        yield "create view view as (select ts, s from base where a > 0)"
    yield WAIT


def _parquet() -> Iterator[str]:
    yield _table("parquet", rows(_PLAIN, "1m", 5000), "day wal", _INDEX)
    yield WAIT
    yield "alter table parquet convert partition to parquet where ts < '2024-01-03'"
    yield WAIT
