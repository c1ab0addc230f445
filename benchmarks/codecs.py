"""Speed and size of each codec choice, by kind of column, against plain Zstandard at the same level.

Usage: ``python benchmarks/codecs.py [--level 5] [--chunks 6] [--threads 2] [--only price]``. The columns are
made up, after the shape of market data, sensors and logs; ``share`` is what each takes of a database with
40 million trades, 12 million sensor rows and 3 million log lines, in MB. MB/s are logical bytes by a thread's
CPU time, encoding with its verification; the last lines are wall time of several threads.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from questdb_backup.codec import CHUNK_BYTES, Encoded, decode, digest_of, encode

Array = NDArray[Any]
Make = Callable[[np.random.Generator, int], Array | bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """``share`` in MB; ``make(random, size)`` gives at least ``size`` bytes."""

    name: str
    column_type: str | None
    share: float
    make: Make


def price(random: np.random.Generator, size: int) -> Array:
    """Five instruments, each with its own random walk, in cents."""
    rows = size // 8
    instrument = random.choice(5, rows, p=[0.35, 0.25, 0.2, 0.15, 0.05])
    prices = np.empty(rows)
    for index, start in enumerate((62000.0, 3300.0, 150.0, 0.55, 580.0)):
        its = instrument == index
        prices[its] = start * np.exp(np.cumsum(random.normal(0, 1e-5, int(its.sum()))))
    return np.round(prices, 2)


def timestamps(random: np.random.Generator, size: int) -> Array:
    steps: Array = np.cumsum(random.exponential(20_000, size // 8).astype("i8"))
    return steps + 1_700_000_000_000_000


def ticks(_: np.random.Generator, size: int) -> Array:
    times: Array = np.repeat(np.arange(size // 800 + 1), 100) * 10_000_000
    return times + 1_700_000_000_000_000


def sensor(decimals: int) -> Make:
    def make(random: np.random.Generator, size: int) -> Array:
        rows = size // 8
        wave = 20 + 5 * np.sin(np.arange(rows) / 5000)
        values: Array = np.round(wave * 10 ** (1 - decimals) + random.normal(0, 2, rows), decimals)
        return values

    return make


def keys(count: int, *, cyclic: bool = False) -> Make:
    def make(random: np.random.Generator, size: int) -> Array:
        rows = size // 4
        values: Array = np.arange(rows) % count if cyclic else random.integers(0, count, rows)
        return values.astype("i4")

    return make


def lines(random: np.random.Generator, size: int) -> list[bytes]:
    forms = (b"connection accepted from %d", b"request %d finished in %d ms", b"disk usage at %d percent")
    picks, numbers = random.integers(0, 3, size), random.integers(0, 100_000, (size, 2)).tolist()
    return [
        forms[pick] % tuple(pair[: forms[pick].count(b"%")])
        for pick, pair in zip(picks.tolist(), numbers, strict=True)
    ]


def varchar(random: np.random.Generator, size: int) -> bytes:
    return b"".join(lines(random, size // 20))


def varchar_entries(random: np.random.Generator, size: int) -> Array:
    """Length and flags, the text's first six bytes, its offset."""
    texts = lines(random, size // 16)
    lengths = np.array([len(text) for text in texts], "u8")
    entries = np.zeros((len(texts), 16), "u1")
    entries[:, :4] = (lengths << 4 | 1).astype("u4").view("u1").reshape(-1, 4)
    entries[:, 4:10] = np.frombuffer(b"".join(text[:6] for text in texts), "u1").reshape(-1, 6)
    offsets = (np.cumsum(lengths) - lengths).astype("u8")
    entries[:, 10:] = offsets.view("u1").reshape(-1, 8)[:, :6]
    return entries


def string_offsets(random: np.random.Generator, size: int) -> Array:
    return np.cumsum(4 + 2 * random.integers(5, 40, size // 8))


def uuids(random: np.random.Generator, size: int) -> Array:
    values = np.frombuffer(random.bytes(size), "u1").reshape(-1, 16).copy()
    values[:, 7] = values[:, 7] & 15 | 0x40
    values[:, 15] = values[:, 15] & 0x3F | 0x80
    return values


def arrays(random: np.random.Generator, size: int) -> Array:
    """A shape word, then five elements."""
    values = np.round(random.normal(100, 5, (size // 48 + 1, 6)), 2)
    values.view("i8")[:, 0] = 5
    return values


def of(draw: Callable[[np.random.Generator, int], Array], dtype: str) -> Make:
    return lambda random, size: draw(random, size // np.dtype(dtype).itemsize).astype(dtype)


def with_nulls(make: Make) -> Make:
    def nulled(random: np.random.Generator, size: int) -> Array:
        values = np.asarray(make(random, size))
        return np.where(random.random(len(values)) < 0.05, np.nan, values)

    return nulled


def kinds() -> Iterator[Kind]:
    def kind(name: str, column_type: str | None, share: float, make: Make) -> Kind:
        return Kind(name=name, column_type=column_type, share=share, make=make)

    yield kind("sensor, integer", "double", 484, sensor(0))
    yield kind("sensor, 1 decimal", "double", 484, sensor(1))
    yield kind("sensor symbol", "symbol", 387, keys(100, cyclic=True))
    yield kind("trade timestamp", "timestamp", 320, timestamps)
    yield kind("trade price", "double", 320, price)
    yield kind("trade amount", "double", 320, of(lambda r, n: np.round(r.lognormal(-3, 1.5, n), 8), "f8"))
    yield kind("log text", "varchar", 184, varchar)
    yield kind("trade symbol", "symbol", 160, keys(5))
    yield kind("trade side", "symbol", 160, keys(2))
    yield kind("sensor timestamp", "timestamp", 97, ticks)
    yield kind("log uuid", "uuid", 48, uuids)
    yield kind("log text entries", "aux", 48, varchar_entries)
    yield kind("log long", "long", 24, of(lambda r, n: r.integers(0, 5000, n), "i8"))
    yield kind("log int", "int", 12, of(lambda r, n: r.poisson(200, n), "i4"))
    yield kind("log ipv4", "ipv4", 12, of(lambda r, n: r.integers(0, 1 << 24, n) + 0x0A000000, "u4"))
    yield kind("sensor, nulls", "double", 0, with_nulls(sensor(1)))
    yield kind("ms in us", "timestamp", 0, lambda r, n: timestamps(r, n) // 1000 * 1000)
    yield kind("date", "date", 0, of(lambda r, n: r.integers(0, 400, n) * 86_400_000, "i8"))
    yield kind("average", "double", 0, lambda r, n: price(r, n) / 3)
    yield kind("float, 2 decimals", "float", 0, of(lambda r, n: np.round(r.normal(20, 3, n), 2), "f4"))
    yield kind(
        "decimal64", "decimal64", 0, of(lambda r, n: 6_200_000 + np.cumsum(r.integers(-99, 99, n)), "i8")
    )
    yield kind("boolean", "boolean", 0, of(lambda r, n: r.random(n) < 0.1, "i1"))
    yield kind("short", "short", 0, of(lambda r, n: r.integers(0, 400, n), "i2"))
    yield kind(
        "long256", "long256", 0, of(lambda r, n: (np.arange(n) % 4 == 0) * r.integers(0, 1 << 60, n), "i8")
    )
    yield kind("string offsets", "aux", 0, string_offsets)
    yield kind("double[]", "double[]", 0, arrays)
    yield kind("full precision", "double", 0, of(lambda r, n: r.random(n), "f8"))
    yield kind("full random walk", "double", 0, of(lambda r, n: np.cumsum(r.normal(0, 1, n)), "f8"))
    yield kind("float, full", "float", 0, of(lambda r, n: r.normal(20, 3, n), "f4"))
    yield kind("random long", "long", 0, of(lambda r, n: r.integers(-(1 << 63), (1 << 63) - 1, n), "i8"))
    yield kind("noise", "binary", 0, lambda r, n: r.bytes(n))


def chunks(kind: Kind, count: int) -> list[bytes]:
    made = kind.make(np.random.default_rng(1), count * CHUNK_BYTES)
    data = made if isinstance(made, bytes) else made.tobytes()
    return [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)][:count]


def seconds(work: Callable[[], object]) -> float:
    """CPU time of this thread, the least of three."""
    times = []
    for _ in range(3):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return min(times)


def open_all(encoded: list[Encoded]) -> None:
    for chunk in encoded:
        decode(chunk.codec, chunk.stored, chunk.plain_length, chunk.digest)


def zstd_verified(plain: list[bytes], level: int) -> int:
    compressor, decompressor = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()
    frames = [compressor.compress(chunk) for chunk in plain]
    for chunk, frame in zip(plain, frames, strict=True):
        if digest_of(decompressor.decompress(frame)) != digest_of(chunk):
            raise ValueError("Zstandard does not give back what it got")
    return sum(map(len, frames))


def row(kind: Kind, plain: list[bytes], level: int) -> tuple[float, float]:
    """Print a kind's line; give what its share takes: stored MB, seconds of CPU."""
    encoded = [encode(chunk, level, None, kind.column_type) for chunk in plain]
    size, stored = sum(map(len, plain)), sum(len(chunk.stored) for chunk in encoded) or 1
    zstd_size = zstd_verified(plain, level)
    took = seconds(lambda: [encode(chunk, level, None, kind.column_type) for chunk in plain])
    opened, zstd_took = seconds(lambda: open_all(encoded)), seconds(lambda: zstd_verified(plain, level))
    codecs = ", ".join(f"{codec} {count}" for codec, count in Counter(c.codec for c in encoded).items())
    print(
        f"{kind.name:18} {kind.share:5.0f} {size / took / 1e6:7.0f} {size / opened / 1e6:7.0f}"
        f" {size / stored:8.2f} | {size / zstd_took / 1e6:7.0f} {size / zstd_size:8.2f} | {codecs}",
        flush=True,
    )
    return kind.share * stored / size, kind.share * 1e6 * took / size


def wall(work: list[tuple[bytes, str | None]], level: int, threads: int) -> None:
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda item: encode(item[0], level, None, item[1]), work))
    took = time.perf_counter() - start
    print(f"{threads} threads: {sum(len(plain) for plain, _ in work) / took / 1e6:.0f} MB/s, wall time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--level", type=int, default=5)
    parser.add_argument("--chunks", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    print("kind               share   MB/s  decode    ratio |" + f" zstd-{options.level}    ratio | codecs")
    totals, work = [], []
    for kind in kinds():
        if options.only in kind.name:
            plain = chunks(kind, options.chunks)
            totals.append(row(kind, plain, options.level))
            if kind.share:
                # As many chunks of each as its share has: what the threads do is a small database.
                count = max(1, round(kind.share / 12))
                work += [(plain[index % len(plain)], kind.column_type) for index in range(count)]
    shares = sum(kind.share for kind in kinds() if options.only in kind.name)
    stored, took = (sum(column) for column in zip(*totals, strict=True))
    if shares:
        print(
            f"shares: {shares:.0f} MB as {stored:.0f} MB, {shares / took:.0f} MB/s by CPU time of one thread"
        )
        for threads in (1, options.threads):
            wall(work, options.level, threads)


if __name__ == "__main__":
    main()
