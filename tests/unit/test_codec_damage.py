"""Damaged and hostile stored bytes: refused by name, without memory that they have no right to."""

import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec, standalone

from questdb_backup.codec import Codec, decode, digest_of
from questdb_backup.codecs import decimal, pco, shuffle
from questdb_backup.codecs.base import Plan
from questdb_backup.codecs.spec import Mode, Spec
from questdb_backup.errors import BackupToolError, DamagedBackupError

NUMBERS = np.cumsum(np.random.default_rng(3).integers(-50, 90, 5000)) * 7
FLOATS = np.round(np.random.default_rng(3).normal(20, 3, 5000), 2)


def floats_by(codec: Codec) -> bytes:
    plan = Plan(codec=codec, level=1, expected=0, dtype="f8", exponent=2)
    return decimal.pack(FLOATS.tobytes(), plan) or b""


STORED: list[tuple[str, Codec, Callable[[], bytes | None], bytes]] = [
    ("classic", Codec.PCO, lambda: pco.compress(NUMBERS, 4, Spec(delta=1)), NUMBERS.tobytes()),
    ("int mult", Codec.PCO, lambda: pco.compress(NUMBERS, 4, Spec(Mode.INT_MULT, 7)), NUMBERS.tobytes()),
    ("float mult", Codec.PCO, lambda: pco.compress(FLOATS, 4, Spec(Mode.FLOAT_MULT, 0.01)), FLOATS.tobytes()),
    ("shorts", Codec.PCO, lambda: pco.pack(FLOATS.tobytes(), "i2", 4, Spec()), FLOATS.tobytes()),
    ("bytes", Codec.PCO, lambda: pco.pack(FLOATS.tobytes(), "u1", 4, Spec()), FLOATS.tobytes()),
    ("decimal", Codec.PCO_DECIMAL, lambda: floats_by(Codec.PCO_DECIMAL), FLOATS.tobytes()),
    (
        "shuffled decimal",
        Codec.ZSTD_SHUFFLE_DECIMAL,
        lambda: floats_by(Codec.ZSTD_SHUFFLE_DECIMAL),
        FLOATS.tobytes(),
    ),
    *(
        (codec.value, codec, lambda width=width: shuffle.pack(FLOATS.tobytes(), width, 1), FLOATS.tobytes())
        for codec, width in shuffle.WIDTHS.items()
    ),
]


@pytest.mark.parametrize(
    ("codec", "make", "plain"), [row[1:] for row in STORED], ids=[row[0] for row in STORED]
)
def test_flipped_cut_and_lengthened_bytes_are_damage_or_harmless(
    codec: Codec, make: Callable[[], bytes | None], plain: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    stored, digest = make(), digest_of(plain)
    assert stored is not None
    assert decode(codec, stored, len(plain), digest) == plain
    chance = random.Random(5)
    for _ in range(150):
        bad = bytearray(stored)
        for _ in range(chance.choice((1, 1, 8))):
            bad[chance.randrange(chance.choice((40, len(bad))))] ^= 1 << chance.randrange(8)
        if chance.random() < 0.2:
            bad = bad[: chance.randrange(len(bad))]
        try:
            assert decode(codec, bytes(bad), len(plain), digest) == plain
        except BackupToolError:
            continue
    for length in (0, 1, len(plain) - 8, len(plain) - 1, len(plain) + 8, 64 << 20):
        with pytest.raises(DamagedBackupError, match=digest[:16]):
            decode(codec, stored, length, digest)
    capfd.readouterr()  # a panic of the library writes to stderr


def standalone_file(dtype: str = "i8", **config: Any) -> bytes:
    numbers = NUMBERS % 100 * 1_234_567 if "mode_spec" in config else NUMBERS
    return bytes(standalone.simple_compress(numbers.astype(dtype), ChunkConfig(**config)))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: b"", "no pco file|truncated"),
        (lambda: b"pco!", "truncated"),
        (lambda: b"pco!\x03\0", "truncated"),
        (lambda: b"PK\x03\x04" * 9, "no pco file"),
        (lambda: standalone_file(delta_spec=DeltaSpec.try_lookback()), "delta 2"),
        (lambda: standalone_file("i4", delta_spec=DeltaSpec.try_conv1(2)), "delta 3"),
        (lambda: standalone_file(mode_spec=ModeSpec.try_dict()), "mode 4"),
        (lambda: standalone_file(paging_spec=PagingSpec.equal_pages_up_to(2500)), "2500 numbers"),
        (lambda: pco.compress(NUMBERS, 4, Spec()) + b"\0", "not whole"),
        (lambda: pco.compress(NUMBERS.view("f8"), 4, Spec()), "digest"),
    ],
)
def test_pco_files_that_are_not_written_here_are_refused(make: Callable[[], bytes], says: str) -> None:
    plain = (NUMBERS + 1).tobytes()
    with pytest.raises(DamagedBackupError, match=says):
        decode(Codec.PCO, make(), len(plain), digest_of(plain))


def test_a_frame_of_fewer_bytes_is_refused() -> None:
    """The size in a frame's header is optional; without it only the bytes tell."""
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1001))
    for codec in (Codec.ZSTD, *shuffle.WIDTHS):
        with pytest.raises(DamagedBackupError, match="1001 of 4096"):
            decode(codec, frame, 4096, digest_of(bytes(4096)))


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"\x08\x02", "truncated"),
        (struct.pack("<BBq", 3, 2, 0), "3 bytes"),
        (struct.pack("<BBq", 8, 200, 0), "exponent 200"),
        (struct.pack("<BBq", 4, 2, 0), "stored as"),
        (struct.pack("<BBq", 4, 2, 1 << 40), "no room"),
        (struct.pack("<BBq", 8, 2, -(1 << 63)), "no room"),
    ],
)
def test_decimals_of_an_unknown_kind_are_refused(header: bytes, says: str) -> None:
    plain = FLOATS.tobytes()
    rest = floats_by(Codec.PCO_DECIMAL)[10:] if len(header) == 10 else b""
    with pytest.raises(DamagedBackupError, match=says):
        decode(Codec.PCO_DECIMAL, header + rest, len(plain), digest_of(plain))


BOMBS = """
import resource
from pathlib import Path
import numpy as np
from pcodec import ChunkConfig, DeltaSpec, standalone
from questdb_backup.codec import decode, digest_of
from questdb_backup.errors import DamagedBackupError

numbers = np.tile(np.arange(300), 9)
small = bytes(standalone.simple_compress(numbers, ChunkConfig(delta_spec=DeltaSpec.try_lookback())))
window = bytearray(small)
meta = small.index(b"\\x04\\x01\\x04") + 6
window[meta + 1] = window[meta + 1] & ~31 | 23  # a window of 2 ** 24 numbers
count = bytearray(standalone.simple_compress(numbers, ChunkConfig()))
count[meta - 3:meta] = b"\\xff" * 3
decode("pco", bytes(standalone.simple_compress(numbers, ChunkConfig(delta_spec=DeltaSpec.no_op()))),
       numbers.nbytes, digest_of(numbers.tobytes()))
hint = b"pco!\\x03\\x00" + bytes([63]) + b"\\xff" * 8 + small[meta - 6:]
most = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (96 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
for stored in (bytes(window), bytes(count), hint):
    for length in (8, numbers.nbytes, 1 << 20):
        try:
            decode("pco", stored, length, "0" * 64)
            raise SystemExit("it was taken")
        except DamagedBackupError:
            pass
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to limit the memory")
def test_a_bomb_is_refused_before_it_takes_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOMBS],
        env={"PYTHONPATH": ":".join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
