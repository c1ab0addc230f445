"""The SQL of the data sets: which tables, how their values are drawn, and what changes in a day.

At scale 1.0 a data set has the sizes that its docstring names; below that fewer days of about the same
density, down to the few days that the change needs. QuestDB evaluates a random function anew at each use,
so what is used twice is drawn into a table first.
"""

# ruff: noqa: D102 - the contracts stand on the base class

from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import ClassVar

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY_MICROS = 86_400_000_000
_TICK_SECONDS = 10
_TICKS = 86_400 // _TICK_SECONDS
_RUNNING = "rows between unbounded preceding and current row"


def stamp(days: float) -> str:
    """QuestDB's literal of the moment ``days`` after the start of the data."""
    return f"'{(START + timedelta(days=days)).strftime('%Y-%m-%dT%H:%M:%S.%fZ')}'"


def irregular(start: float, days: float, rows: int) -> str:
    """A sequence of ``rows`` timestamps with exponential gaps, in whole microseconds, over about ``days``."""
    gap = days * DAY_MICROS / max(rows, 1) * 0.995
    return f"timestamp_sequence({stamp(start)}, 1 + (-ln(1 - rnd_double()) * {gap})::long)"


class DataSet(ABC):
    """One data set at one scale: statements to run in order.

    ``aggregates`` are, per table, what is compared between the checkpoint and a restored server.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    aggregates: ClassVar[dict[str, tuple[str, ...]]]

    def __init__(self, scale: float) -> None:
        self.scale = scale

    @abstractmethod
    def load(self) -> Iterator[str]:
        """Make the tables and fill them."""

    @abstractmethod
    def settle(self) -> Iterator[str]:
        """The last rows before the first checkpoint.

        They are written after a restart of the server, so that the tables that are written to, and only
        those, have pages allocated ahead, as on a server that runs.
        """

    @abstractmethod
    def change(self) -> Iterator[str]:
        """What happens between the two checkpoints: a day's worth, about 1 %."""

    def days(self, at_full_scale: int, least: int) -> int:
        """How many days a table spans at this scale."""
        return max(least, round(at_full_scale * self.scale))


class Exchange(DataSet):
    """40 M trades (DAY), 12.1 M rows of sensors (HOUR), 3 M log lines, a reference table: about 4 GB."""

    name = "exchange"
    title = "trades with decimal prices, sensors of 19 columns, log lines, a reference table"
    aggregates: ClassVar = {
        "trades": ("sum((price * 100)::long)", "sum((amount * 100000000)::long)", "max(ts)"),
        "sensors": tuple(f"sum(count{n})" for n in range(5)) + tuple(f"sum(gauge{n})" for n in range(5)),
        "logs": ("sum(status)", "sum(bytes)", "sum(length(message))", "count_distinct(request)"),
        "instruments": ("sum(id)", "sum(price)"),
    }
    _ATTRIBUTES = ("region", "datacenter", "rack", "os", "arch", "team", "service")

    def __init__(self, scale: float) -> None:
        super().__init__(scale)
        self.trade_days = self.days(20, 4)
        self.trade_rows = round(40_000_000 * scale / self.trade_days)
        self.sensor_days = self.days(7, 2)
        self.hosts = max(1, round(12_096_000 * scale / self.sensor_days / _TICKS))
        self.log_days = self.days(7, 2)
        self.log_rows = round(3_000_000 * scale / self.log_days)

    def load(self) -> Iterator[str]:
        yield from self._tables()
        for day in range(self.trade_days - 1):
            yield from self._trades(day, 1, self.trade_rows)
        yield from self._trades(self.trade_days - 1, 0.98, self.trade_rows * 98 // 100)
        for day in range(self.sensor_days):
            last = day == self.sensor_days - 1
            yield self._sensors(day * _TICKS, _TICKS * 99 // 100 if last else _TICKS)
        for day in range(self.log_days):
            yield self._logs(day, 0.98 if day == self.log_days - 1 else 1, self.log_rows)

    def settle(self) -> Iterator[str]:
        yield from self._trades(self.trade_days - 0.02, 0.02, self.trade_rows * 2 // 100)
        done = (self.sensor_days - 1) * _TICKS + _TICKS * 99 // 100
        yield self._sensors(done, self.sensor_days * _TICKS - done)
        yield self._logs(self.log_days - 0.02, 0.02, self.log_rows * 2 // 100)
        yield "drop table draws"

    def change(self) -> Iterator[str]:
        """1 % more trades and sensors, two late bursts into old days, one symbol's amounts corrected."""
        yield from self._trades(
            self.trade_days, self.trade_days / 100, self.trade_days * self.trade_rows // 100
        )
        yield self._sensors(self.sensor_days * _TICKS, self.sensor_days * _TICKS // 100)
        late = max(200, round(2000 * self.scale))
        yield from self._trades(self.trade_days // 4 + 0.4, 0.002, late)
        yield from self._trades(self.trade_days // 2 + 0.7, 0.002, late)
        yield (
            "update trades set amount = (amount * 150000000)::long / 100000000.0 where symbol = 'BTC-USD'"
            f" and ts >= {stamp(self.trade_days - 2)} and ts < {stamp(self.trade_days - 1)}"
        )
        yield "drop table draws"

    def _tables(self) -> Iterator[str]:
        yield (
            "create table trades (ts timestamp, symbol symbol, side symbol, price double, amount double)"
            " timestamp(ts) partition by day wal"
        )
        symbols = "".join(f", {name} symbol" for name in ("host", *self._ATTRIBUTES))
        numbers = "".join(f", {kind}{n} double" for kind in ("count", "gauge") for n in range(5))
        yield f"create table sensors (ts timestamp{symbols}{numbers}) timestamp(ts) partition by hour wal"
        yield (
            "create table logs (ts timestamp, request uuid, client ipv4, service symbol, level symbol,"
            " status int, bytes long, cached boolean, message varchar) timestamp(ts) partition by day wal"
        )
        yield (
            "create table instruments as (select (x - 1)::int id, concat(rnd_str(3, 3, 0), '-USD')::symbol"
            " symbol, (1000 + rnd_double() * rnd_double() * 200000)::long / 100.0 price,"
            " rnd_str(8, 20, 0) name, 0.01 tick from long_sequence(40))"
        )
        yield "update instruments set symbol = 'BTC-USD', price = 64000.0 where id = 0"
        attributes = "".join(
            f", concat('{name}_', x * {n + 3} % {4 + 3 * n})::symbol {name}"
            for n, name in enumerate(self._ATTRIBUTES)
        )
        yield (
            f"create table hosts as (select (x - 1)::int id, concat('host_', x - 1)::symbol host{attributes}"
            f" from long_sequence({self.hosts}))"
        )

    @staticmethod
    def _trades(start: float, days: float, rows: int) -> Iterator[str]:
        """Prices of two decimals in a random walk per instrument, amounts of eight decimals.

        ``round(x, 2)`` of QuestDB is not always the double that is nearest to the decimal, as a client
        would send it; a whole number divided by a power of ten is.
        """
        yield "drop table if exists draws"
        yield (
            f"create table draws as (select {irregular(start, days, rows)} ts,"
            " (rnd_double() * rnd_double() * 40)::int id, rnd_symbol('buy', 'sell') side,"
            " rnd_double() + rnd_double() + rnd_double() - 1.5 step,"
            " 1 + (rnd_double() * rnd_double() * 50000000)::long amount"
            f" from long_sequence({rows}))"
        )
        yield (
            "insert into trades select ts, symbol, side, ((price + walk) * 100)::long / 100.0,"
            " amount / 100000000.0 from (select d.ts ts, i.symbol symbol, d.side side, i.price price,"
            f" sum(d.step * i.price / 50000) over (partition by d.id {_RUNNING}) walk, d.amount amount"
            f" from draws d join instruments i on d.id = i.id where d.ts < {stamp(start + days)})"
        )

    def _sensors(self, first_tick: int, ticks: int) -> str:
        """Every host at every tick; numbers walk between bounds, five whole and five with one decimal."""
        symbols = ", ".join(("host", *self._ATTRIBUTES))
        qualified = ", ".join(f"h.{name} {name}" for name in ("host", *self._ATTRIBUTES))
        walks = "".join(
            f", sum(rnd_int(-{width}, {width}, 0)) over (partition by h.id {_RUNNING}) w{n}"
            for n, width in enumerate((1, 1, 2, 3, 5, 1, 2, 4, 8, 12))
        )
        counts = "".join(
            f", abs((w{n}::long + 1000000 + id * {37 + n}) % 200 - 100)::double" for n in range(5)
        )
        gauges = "".join(
            f", abs((w{n}::long + 1000000 + id * {137 + n}) % 2000 - 1000) / 10.0" for n in range(5, 10)
        )
        start = int(START.timestamp()) + first_tick * _TICK_SECONDS
        return (
            f"insert into sensors select ts, {symbols}{counts}{gauges} from (select"
            f" ({start * 1_000_000} + (t.x - 1) * {_TICK_SECONDS * 1_000_000})::timestamp ts, h.id id,"
            f" {qualified}{walks} from long_sequence({ticks}) t cross join hosts h)"
        )

    @staticmethod
    def _logs(start: float, days: float, rows: int) -> str:
        rows = round(rows * min(days, 1)) if days >= 0.5 else rows
        return (
            f"insert into logs select * from (select {irregular(start, days, rows)} ts, rnd_uuid4() request,"
            " rnd_ipv4('10.20.0.0/16', 0) client, rnd_symbol('api', 'web', 'auth', 'billing', 'search')"
            " service, rnd_symbol('INFO', 'INFO', 'INFO', 'INFO', 'WARN', 'ERROR') level,"
            " (200 + rnd_int(0, 3, 0) * 100 + rnd_int(0, 4, 0))::int status, rnd_long(0, 65535, 0) bytes,"
            " rnd_boolean() cached, concat(rnd_str('GET', 'GET', 'POST', 'PUT'), ' /api/v1/',"
            " rnd_str('orders', 'trades', 'users', 'quotes', 'positions'), '/', rnd_int(1, 99999, 0),"
            " ' finished in ', rnd_int(1, 900, 0), ' ms, upstream ', rnd_str('a', 'b', 'c', 'd'),"
            " '.internal:8080')::varchar message"
            f" from long_sequence({rows})) where ts < {stamp(start + days)}"
        )


class Entropy(DataSet):
    """13 M rows of full-precision numbers and 2.5 M of random text: about 1.3 GB that hardly shrink."""

    name = "entropy"
    title = "full-precision doubles, Gaussian noise, random longs, UUIDs and texts, some nulls"
    aggregates: ClassVar = {
        "signals": ("sum(wave)", "sum(noise)", "count(noise)", "sum(ratio)", "sum(serial % 1000000)"),
        "texts": ("sum(length(body))", "count(body)", "sum(weight)", "count_distinct(id)"),
    }

    def __init__(self, scale: float) -> None:
        super().__init__(scale)
        self.span = self.days(10, 4)
        self.signal_rows = round(13_000_000 * scale / self.span)
        self.text_rows = round(2_500_000 * scale / self.span)

    def load(self) -> Iterator[str]:
        yield (
            "create table signals (ts timestamp, source symbol, wave double, noise double, mean double,"
            " ratio float, serial long, id uuid) timestamp(ts) partition by day wal"
        )
        yield (
            "create table texts (ts timestamp, id uuid, body varchar, token varchar, weight double,"
            " hash long256) timestamp(ts) partition by day wal"
        )
        for day in range(self.span):
            length = 0.98 if day == self.span - 1 else 1
            yield self._signals(day, length, round(self.signal_rows * length))
            yield self._texts(day, length, round(self.text_rows * length))

    def settle(self) -> Iterator[str]:
        yield self._signals(self.span - 0.02, 0.02, self.signal_rows // 50)
        yield self._texts(self.span - 0.02, 0.02, self.text_rows // 50)

    def change(self) -> Iterator[str]:
        """1 % more of both, two late bursts, one day's noise of one source corrected."""
        yield self._signals(self.span, self.span / 100, self.span * self.signal_rows // 100)
        yield self._texts(self.span, self.span / 100, self.span * self.text_rows // 100)
        late = max(200, round(2000 * self.scale))
        yield self._signals(self.span // 4 + 0.4, 0.002, late)
        yield self._signals(self.span // 2 + 0.7, 0.002, late)
        yield (
            f"update signals set noise = noise * 1.01 where source = 'a' and ts >= {stamp(self.span - 2)}"
            f" and ts < {stamp(self.span - 1)}"
        )

    @staticmethod
    def _signals(start: float, days: float, rows: int) -> str:
        return (
            f"insert into signals select * from (select {irregular(start, days, rows)} ts,"
            " rnd_symbol('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h') source,"
            " sin(x / 1000.0) * 50 + rnd_double() wave,"
            " case when rnd_int(0, 19, 0) = 0 then null else"
            " sqrt(-2 * ln(1 - rnd_double())) * cos(6.283185307179586 * rnd_double()) end noise,"
            " (rnd_double() + rnd_double() + rnd_double()) / 3 mean, rnd_float(10) ratio,"
            f" rnd_long() serial, rnd_uuid4() id from long_sequence({rows})) where ts < {stamp(start + days)}"
        )

    @staticmethod
    def _texts(start: float, days: float, rows: int) -> str:
        return (
            f"insert into texts select * from (select {irregular(start, days, rows)} ts, rnd_uuid4() id,"
            " rnd_varchar(5, 60, 3) body, rnd_varchar(1, 8, 10) token, rnd_double(5) weight,"
            f" rnd_long256() hash from long_sequence({rows})) where ts < {stamp(start + days)}"
        )


DATA_SETS: dict[str, type[DataSet]] = {kind.name: kind for kind in (Exchange, Entropy)}
