"""Changes of tables that a backup could take for no change, each with a table of its own, in SQL.

A trap's tables have four whole days from 2024-01-01 on, of a row every five minutes. Its steps run between
two backups; the second one must hold what they left.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.support.questdb_server import QuestDBServer

DAYS = 4
ROWS = 288
"""Of a day."""
WAL = "wal"
PLAIN = "bypass wal"

Step = str | Callable[[QuestDBServer, str], None]
"""A statement with ``{t}`` for the table, or a function of the server and the table's name."""


def columns(rows: int = DAYS * ROWS, start: str = "2024-01-01") -> str:
    """A select of random rows, one every five minutes."""
    return (
        "select rnd_int() a, rnd_double() d, rnd_symbol('x', 'y', 'z', null) s, rnd_varchar(1, 40, 2) v,"
        f" timestamp_sequence('{start}', 300000000L) ts from long_sequence({rows})"
    )


def create(mode: str = WAL, *, index: bool = False, more: str = "") -> str:
    """A statement that makes a trap's table."""
    indexed = ", index(s)" if index else ""
    return f"create table {{t}} as ({columns()}){indexed} timestamp(ts) partition by day {mode} {more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """Tables of one name are made, and changed by ``steps``, each of which is applied before the next.

    ``same_rows``: the steps leave all values as they were. ``gone``: no table of that name is left;
    ``leaves`` are the names of tables that are there instead.
    """

    name: str
    make: tuple[str, ...]
    steps: tuple[Step, ...]
    same_rows: bool = False
    leaves: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables to compare."""
        return self.leaves or (self.name,)

    def prepare(self, server: QuestDBServer) -> None:
        """Make the tables."""
        for statement in self.make:
            server.execute(statement.format(t=self.name))

    def spring(self, server: QuestDBServer) -> None:
        """Run the steps."""
        for step in self.steps:
            if isinstance(step, str):
                server.execute(step.format(t=self.name))
            else:
                step(server, self.name)
            server.wait_applied()


def _row(moment: str, value: int = 1) -> str:
    return f"insert into {{t}} values ({value}, 0.5, 'x', 'late', '{moment}')"


def _both(name: str, *steps: Step, index: bool = False, same_rows: bool = False) -> Iterator[Trap]:
    """The same trap with and without WAL."""
    for mode in (WAL, PLAIN):
        full = f"{name}_{mode.split()[0]}"
        yield Trap(name=full, make=(create(mode, index=index),), steps=steps, same_rows=same_rows)


def directory_of(server: QuestDBServer, table: str) -> str:
    """The name of a table's directory below ``db``."""
    ((name,),) = server.execute(f"select directoryName from tables() where table_name = '{table}'")
    return str(name)


def _change_detached(server: QuestDBServer, table: str) -> None:
    """Offer the detached day again with other bytes in it: equal rows, another content."""
    folder = server.root / "db" / directory_of(server, table)
    detached = folder / "2024-01-02.detached"
    column = detached / "a.d"
    column.write_bytes(bytes(255 - byte for byte in column.read_bytes()))
    detached.rename(folder / "2024-01-02.attachable")


def _offer_detached(server: QuestDBServer, table: str) -> None:
    folder = server.root / "db" / directory_of(server, table)
    (folder / "2024-01-02.detached").rename(folder / "2024-01-02.attachable")


def _upsert(start: str, rows: int) -> str:
    return f"insert into {{t}} {columns(rows, start)}"


DETACH = "alter table {t} detach partition list '2024-01-02'"
ATTACH = "alter table {t} attach partition list '2024-01-02'"
DEDUP = "dedup upsert keys(ts)"
TO_PARQUET = "alter table {t} convert partition to parquet list '2024-01-02'"
TO_NATIVE = "alter table {t} convert partition to native list '2024-01-02'"


def _rows() -> Iterator[Trap]:
    yield from _both("append_to_older", _row("2024-01-02T23:57"))
    yield from _both("out_of_order", _row("2024-01-02T11:00:30"))
    yield from _both("out_of_order_in_last", _row("2024-01-04T11:00:30"))
    yield from _both("update", "update {t} set a = 7, v = 'u' where ts in '2024-01-02T05'")
    yield from _both("update_last", "update {t} set a = 7, v = 'u' where ts in '2024-01-04T05'")
    yield from _both(
        "update_of_index",
        "update {t} set s = 'y' where ts in '2024-01-02' and s = 'x'",
        "update {t} set s = 'new' where ts in '2024-01-03' and s = 'z'",
        index=True,
    )
    yield from _both("truncate", "truncate table {t}", f"insert into {{t}} {columns()}")
    yield from _both(
        "truncate_symbols", "truncate table {t} keep symbol maps", f"insert into {{t}} {columns()}"
    )
    yield from _both(
        "drop_partition",
        "alter table {t} drop partition list '2024-01-02'",
        _upsert("2024-01-02", ROWS),
    )
    yield from _both(
        "drop_last_partition",
        "alter table {t} drop partition list '2024-01-04'",
        _upsert("2024-01-04", ROWS),
    )
    yield from _both("ttl", "alter table {t} set ttl 2 days", _row("2024-01-05T12:00"))


def _dedup() -> Iterator[Trap]:
    make = (create(WAL, more=DEDUP),)
    squash = "alter table {t} squash partitions"
    for name, day in (("older", "2024-01-02"), ("last", "2024-01-04")):
        # The end of a day is split off, and joined again: the same rows under the same name.
        split, merged = _upsert(f"{day}T21:00", 36), _upsert(f"{day}T12:00", 2)
        yield Trap(name=f"dedup_split_{name}", make=make, steps=(split,))
        yield Trap(name=f"dedup_squash_{name}", make=make, steps=(split, squash))
        yield Trap(name=f"dedup_squash_twice_{name}", make=make, steps=(split, squash, split, squash))
        yield Trap(name=f"dedup_merge_{name}", make=make, steps=(merged,))
    yield Trap(name="dedup_whole_day", make=make, steps=(_upsert("2024-01-02", ROWS), squash))
    parts = (_row("2024-01-02T16:00:30"), _row("2024-01-02T17:00:30"), squash)
    yield from _both("split_and_squash", *parts)


def _structure() -> Iterator[Trap]:
    yield from _both("add_index", "alter table {t} alter column s add index", same_rows=True)
    yield from _both("drop_index", "alter table {t} alter column s drop index", index=True, same_rows=True)
    yield from _both("column_type", "alter table {t} alter column a type long")
    yield from _both("symbol_to_varchar", "alter table {t} alter column s type varchar")
    yield from _both("varchar_to_symbol", "alter table {t} alter column v type symbol")
    yield from _both("add_column", "alter table {t} add column late int", "update {t} set late = a")
    yield from _both(
        "drop_column",
        "alter table {t} drop column a",
        "alter table {t} add column a int",
        "update {t} set a = 5 where ts in '2024-01-02'",
    )
    yield from _both("rename_column", "alter table {t} rename column a to b")
    yield from _both(
        "swap_columns",
        "alter table {t} add column b int",
        "alter table {t} rename column a to c",
        "alter table {t} rename column b to a",
    )
    yield from _both("symbol_capacity", "alter table {t} alter column s symbol capacity 4096", same_rows=True)
    yield from _both(
        "set_param", "alter table {t} set param maxUncommittedRows = 7", _row("2024-01-03T01:00:30")
    )
    yield from _both("detach", DETACH)
    yield from _both("reattach", DETACH, _offer_detached, ATTACH, same_rows=True)
    yield from _both("attach_other_bytes", DETACH, _change_detached, ATTACH)
    yield from _both("parquet", TO_PARQUET, same_rows=True)
    yield from _both("parquet_and_back", TO_PARQUET, TO_NATIVE, same_rows=True)
    late = (_row("2024-01-02T11:00:30"),)
    yield from _both("parquet_changed", TO_PARQUET, *late)
    yield from _both("parquet_changed_and_back", TO_PARQUET, *late, TO_NATIVE)


def _whole_tables() -> Iterator[Trap]:
    for mode in (WAL, PLAIN):
        name = mode.split()[0]
        make, again = create(mode), ("drop table {t}", create(mode))
        yield Trap(name=f"made_anew_{name}", make=(make,), steps=again)
        yield Trap(
            name=f"renamed_{name}",
            make=(make,),
            steps=("rename table {t} to {t}_now", _row_into("{t}_now")),
            leaves=(f"renamed_{name}_now",),
        )
        yield Trap(
            name=f"swapped_{name}",
            make=(make, make.replace("{t}", "{t}_other")),
            steps=(
                "rename table {t} to {t}_aside",
                "rename table {t}_other to {t}",
                "rename table {t}_aside to {t}_other",
            ),
            leaves=(f"swapped_{name}", f"swapped_{name}_other"),
        )
    insert = _row("2024-01-02T11:00:30")
    yield Trap(
        name="not_partitioned",
        make=(f"create table {{t}} as ({columns(500)}) timestamp(ts)",),
        steps=("update {t} set a = 3 where s = 'x'", _row("2024-01-04")),
    )
    yield Trap(
        name="no_timestamp",
        make=(f"create table {{t}} as ({columns(500)})",),
        steps=("update {t} set a = 3 where s = 'x'", insert),
    )
    yield Trap(
        name="view_base",
        make=(
            create(WAL),
            "create materialized view {t}_1h as (select ts, s, sum(a) a, count() n from {t} sample by 1h)"
            " partition by day",
        ),
        steps=("update {t} set a = 11 where ts in '2024-01-02'", "refresh materialized view {t}_1h full"),
        leaves=("view_base", "view_base_1h"),
    )


def _row_into(table: str) -> str:
    return _row("2024-01-02T11:00:30").replace("{t}", table)


TRAPS = (*_rows(), *_dedup(), *_structure(), *_whole_tables())
