"""Codecs by column: every chunk comes back bit by bit, and the choice between them holds its promises."""

import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pcodec import standalone

from questdb_backup.codec import CHUNK_BYTES, Codec, Encoded, decode, digest_of, encode, pack
from questdb_backup.codecs import choice, decimal, frames, pco, shuffle
from questdb_backup.codecs.base import Plan
from questdb_backup.errors import DamagedBackupError
from questdb_backup.questdb.column_types import column_type

ARRAY_OF_DOUBLES = 27 | 10 << 8
CODES = [*range(1, 14), *range(18, 20), *range(24, 27), *range(28, 34), ARRAY_OF_DOUBLES, 1 << 18 | 8]
GEOHASHES = [14 | 5 << 8, 15 | 12 << 8, 16 | 20 << 8, 17 | 40 << 8]
TYPES = [column_type(code).name for code in [*CODES, *GEOHASHES]]
HINTS = [*TYPES, "aux", None, "a type of tomorrow"]

SPECIALS = (
    struct.pack("<Q", 0x7FF8_0000_0000_0000),  # QuestDB's null
    struct.pack("<Q", 0xFFF8_0000_0000_0001),  # a NaN with a payload
    struct.pack("<Q", 0x7FF0_0000_0000_0001),  # a signaling one
    struct.pack("<d", -0.0),
    struct.pack("<d", float("inf")),
    struct.pack("<d", float("-inf")),
    struct.pack("<d", 5e-324),
    struct.pack("<d", 1.7976931348623157e308),
    struct.pack("<q", -(1 << 63)),
    struct.pack("<q", (1 << 63) - 1),
    struct.pack("<i", -(1 << 31)) * 2,
    struct.pack("<f", -0.0) + struct.pack("<I", 0x7FC0_0000),
    struct.pack("<d", 0.1 + 0.2),
    struct.pack("<d", 62001.37),
)

Array = NDArray[Any]


def opened(chunk: Encoded) -> bytes:
    return bytes(decode(chunk.codec, chunk.stored, chunk.plain_length, chunk.digest))


def stored_by(values: Array | bytes, hint: str | None, level: int = 5) -> Encoded:
    """One chunk at most, encoded, and read back."""
    plain = (values if isinstance(values, bytes) else values.tobytes())[:CHUNK_BYTES]
    chunk = encode(plain, level, None, hint)
    assert opened(chunk) == plain
    assert len(chunk.stored) <= len(plain)
    return chunk


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def decimals(count: int = CHUNK_BYTES // 8, places: int = 2) -> Array:
    return np.round(rng().normal(62000, 40, count), places)


@st.composite
def columns(draw: st.DrawFn) -> bytes:
    """Bytes as columns have them: repeated and mixed values, special ones, and any length."""
    values = draw(
        st.lists(st.sampled_from(SPECIALS) | st.binary(min_size=1, max_size=40), min_size=1, max_size=8)
    )
    times = draw(st.integers(1, 3000))
    order = draw(st.randoms(use_true_random=False))
    picked = [values[order.randrange(len(values))] for _ in range(times)]
    return b"".join(picked)[: draw(st.integers(0, 30_000))]


@pytest.mark.parametrize("hint", HINTS)
@settings(max_examples=12, deadline=None)
@given(plain=columns(), level=st.sampled_from((1, 5, 9)))
def test_any_bytes_of_any_type_come_back(hint: str | None, plain: bytes, level: int) -> None:
    stored_by(plain, hint, level)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.decimals(-(10**6), 10**6, places=3).map(float)
        | st.floats(width=64)
        | st.sampled_from((-0.0, 0.1)),
        min_size=1,
        max_size=50,
    ),
    width=st.sampled_from((4, 8)),
)
@example(values=[float("nan")], width=8)
@example(values=[-0.0, float("nan"), 1.5], width=4)
@example(values=[2.0**31], width=4)
@example(values=[2.0**53, 1e300], width=8)
def test_decimals_are_the_floats_bit_by_bit_or_none(values: list[float], width: int) -> None:
    with np.errstate(over="ignore"):
        plain = np.array(values * 3, f"f{width}").tobytes()
    for codec in (Codec.PCO_DECIMAL, Codec.ZSTD_SHUFFLE_DECIMAL):
        plan = Plan(codec=codec, level=1, expected=0, dtype=f"f{width}", exponent=2)
        stored = decimal.pack(plain, plan)
        assert stored is None or decimal.unpack(codec, stored, len(plain)) == plain


@pytest.mark.parametrize(
    "hint", ["double", "float", "timestamp", "int", "short", "byte", "uuid", "long256", "aux"]
)
@pytest.mark.parametrize("cut", [0, 1, 3, 8, 4096, 4097])
def test_a_chunk_of_any_length_comes_back(hint: str, cut: int) -> None:
    plain = np.arange(CHUNK_BYTES // 8).tobytes()
    stored_by(plain[: len(plain) - cut], hint)
    stored_by(plain[:cut], hint)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("hint", ["double", "uuid", "varchar"])
def test_any_buffer_is_taken_and_bytes_are_given(kind: Callable[[bytes], Any], hint: str) -> None:
    for plain in (decimals(9000).tobytes(), rng().bytes(70_000), bytes(5000)):
        chunk = encode(kind(plain), 5, None, hint)
        assert type(chunk.stored) is bytes
        assert opened(chunk) == plain
        assert chunk.digest == digest_of(plain)


EXPECTED: list[tuple[str, str, Callable[[], Array | bytes], set[str], float]] = [
    ("prices", "double", decimals, {"pco-decimal", "zstd-shuffle-decimal"}, 4),
    (
        "prices with nulls and negative zeros",
        "double",
        lambda: np.where(
            rng().random(CHUNK_BYTES // 8) < 0.05, np.nan, np.round(rng().normal(0, 9, 1 << 17), 1)
        ),
        {"pco-decimal", "zstd-shuffle-decimal"},
        6,
    ),
    ("few that are no decimals", "double", lambda: np.append(decimals()[:-1], np.pi), {"pco"}, 3.5),
    ("thirds", "double", lambda: decimals() / 3, {"zstd"}, 2.5),
    (
        "floats",
        "float",
        lambda: decimals(CHUNK_BYTES // 4, 1).astype("f4") - 62000,
        {"zstd-shuffle4", "pco"},
        1.4,
    ),
    ("times", "timestamp", lambda: np.cumsum(rng().exponential(20_000, 1 << 17).astype("i8")), {"pco"}, 3.8),
    ("whole ms", "timestamp", lambda: np.cumsum(rng().integers(0, 90, 1 << 17)) * 1000, {"pco"}, 6),
    ("offsets", "aux", lambda: np.cumsum(rng().integers(4, 90, 1 << 17)), {"pco"}, 6),
    ("symbols", "symbol", lambda: rng().integers(0, 5, 1 << 18).astype("i4"), {"zstd-shuffle4", "pco"}, 10),
    ("shorts", "short", lambda: rng().integers(0, 400, 1 << 19).astype("i2"), {"pco"}, 1.7),
    ("text", "varchar", lambda: b"".join(b"request %d done\n" % i for i in range(60_000)), {"zstd"}, 4),
    ("noise", "binary", lambda: rng().bytes(CHUNK_BYTES), {"raw"}, 1),
    ("random numbers", "long", lambda: rng().bytes(CHUNK_BYTES), {"raw"}, 1),
]


@pytest.mark.parametrize(
    ("hint", "make", "codecs", "ratio"), [row[1:] for row in EXPECTED], ids=[r[0] for r in EXPECTED]
)
def test_each_kind_gets_a_codec_that_pays(
    hint: str, make: Callable[[], Array | bytes], codecs: set[str], ratio: float
) -> None:
    chunk = stored_by(make(), hint)
    assert chunk.codec in codecs
    assert chunk.plain_length / len(chunk.stored) >= ratio


@pytest.mark.parametrize("level", [1, 5])
@pytest.mark.parametrize("hint", ["double", "float", "long", "int", "uuid", "long256", "binary", "aux", None])
@pytest.mark.parametrize("source", ["noise", "full", "walk"])
def test_what_hardly_shrinks_is_within_a_hundredth_of_zstandard(
    hint: str | None, level: int, source: str
) -> None:
    values = {
        "noise": np.frombuffer(rng().bytes(CHUNK_BYTES), "f8"),
        "full": rng().random(CHUNK_BYTES // 8),
        "walk": np.cumsum(rng().normal(0, 1, CHUNK_BYTES // 8)),
    }[source]
    frame = zstandard.ZstdCompressor(level=level).compress(values.tobytes())
    assert len(stored_by(values, hint, level).stored) <= 1.01 * min(len(frame), CHUNK_BYTES)


def test_repeats_farther_away_than_the_sample_reaches_are_found() -> None:
    period = np.cumsum(rng().exponential(20_000, 30_000).astype("i8"))
    chunk = stored_by(np.tile(period, 5)[: CHUNK_BYTES // 8], "timestamp")
    assert len(chunk.stored) < period.nbytes / 2


@pytest.mark.parametrize("hint", ["long", "double", "uuid", "binary", None])
def test_noise_is_not_searched_at_a_high_level(hint: str | None) -> None:
    (plan,) = choice.plans(rng().bytes(CHUNK_BYTES), 19, hint)
    assert (plan.codec, plan.level) == (Codec.ZSTD, 1)


def test_a_chunk_that_changes_within_is_not_judged_by_one_end() -> None:
    half = CHUNK_BYTES // 16
    chunk = stored_by(np.concatenate([decimals(half), rng().random(half)]), "double")
    assert len(chunk.stored) < 0.8 * CHUNK_BYTES


@pytest.mark.parametrize("broken", [pco, decimal])
def test_a_codec_that_gives_back_something_else_is_passed_over(
    broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(*arguments: Any) -> Any:
        return np.zeros(arguments[-1] // 8, "i8") if broken is pco else bytes(arguments[-1])

    monkeypatch.setattr(broken, "decompress" if broken is pco else "unpack", lie)
    chunk = stored_by(decimals(), "double")
    assert chunk.codec in ({"pco", "zstd-shuffle8"} if broken is decimal else {"zstd-shuffle-decimal"})


def test_a_library_that_fails_on_the_sample_costs_the_size_and_not_the_backup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> Any:
        raise DamagedBackupError("pco refuses it: panicked")

    monkeypatch.setattr(pco, "search", fail)
    assert stored_by(decimals(), "double").codec in {"zstd", "zstd-shuffle8"}


def test_raw_is_the_last_resort_and_a_wrong_digest_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = decimals(9000).tobytes()
    with pytest.raises(DamagedBackupError, match="digest"):
        encode(plain, 5, digest_of(b"other bytes"), "double")

    def fail(*_: Any) -> Any:
        raise DamagedBackupError("broken")

    for module in (pco, decimal, frames):
        monkeypatch.setattr(module, "decompress" if module is pco else "unpack", fail)
    assert stored_by(plain, "double").codec is Codec.RAW


def read_by_a_stranger(codec: str, stored: bytes, plain: int) -> bytes:
    """What docs/FORMAT.md says of each codec, with the libraries alone."""
    if codec == "zero":
        return bytes(plain)
    if codec == "raw":
        return stored
    if codec == "zstd":
        return zstandard.decompress(stored)
    if codec == "pco":
        return bytes(standalone.simple_decompress(stored).tobytes())
    if codec in ("pco-decimal", "zstd-shuffle-decimal"):
        width, exponent, lowest = struct.unpack("<BBq", stored[:10])
        inner = "pco" if codec == "pco-decimal" else f"zstd-shuffle{width}"
        i = np.frombuffer(read_by_a_stranger(inner, stored[10:], plain), f"<i{width}")
        x = (i / 10.0**exponent).astype(f"<f{width}")
        x[i == lowest - 1], x[i == lowest - 2] = np.nan, -0.0
        return bytes(x.tobytes())
    width = int(codec.removeprefix("zstd-shuffle"))
    return np.frombuffer(zstandard.decompress(stored), "u1").reshape(width, -1).T.tobytes()


@pytest.mark.parametrize("codec", list(Codec))
def test_a_stranger_reads_each_codec_with_the_libraries_alone(codec: Codec) -> None:
    for values in (
        decimals(999, 1),
        np.array([1.5, np.nan, -0.0, -7.25] * 50, "f8"),
        decimals(512, 1).astype("f4"),
    ):
        plain = values.tobytes()[: values.nbytes // 32 * 32]
        plan = Plan(codec=codec, level=3, expected=0, dtype=values.dtype.str[1:], exponent=1)
        if codec in (Codec.ZERO, Codec.RAW):
            plain = bytes(len(plain)) if codec is Codec.ZERO else plain
            stored = b"" if codec is Codec.ZERO else plain
        else:
            stored = pack(plan, plain) or b""
            assert decode(codec, stored, len(plain), digest_of(plain)) == plain
        assert read_by_a_stranger(codec, stored, len(plain)) == plain


def test_threads_encode_at_the_same_time() -> None:
    work = [(row[2]()[: 1 << 16], row[1]) for row in EXPECTED] * 3
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda item: stored_by(*item), work))


def test_neither_numpy_nor_pcodec_is_loaded_before_a_column_needs_it() -> None:
    code = (
        "import sys, questdb_backup.codec as c;"
        "c.encode(b'text' * 9000, 5, None, 'varchar');"
        "sys.exit(len({'numpy', 'pcodec'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("highest", [0, 255, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, -1])
def test_long_values_are_put_together_whether_or_not_they_need_all_their_bytes(highest: int) -> None:
    values = np.append(np.arange(1000, dtype="<i8"), highest)
    stored = shuffle.pack(values.tobytes(), 8, 1)
    assert stored is not None
    assert bytes(shuffle.unpack(stored, 8, values.nbytes)) == values.tobytes()


def test_no_values_at_all_are_put_together_too() -> None:
    for width in shuffle.CODECS:
        assert len(shuffle.unpack(frames.pack(b"", 1), width, 0)) == 0
