"""What a stranger writes after docs/FORMAT.md decodes each codec that there is."""

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from questdb_backup.codecs import decimal, frames, pco, shuffle
from questdb_backup.codecs.base import Codec, Plan
from questdb_backup.codecs.spec import CLASSIC
from questdb_backup.sealed import seal
from tests.support import by_hand

_random = random.Random(5)
NUMBERS = struct.pack("<4096q", *(_random.randrange(1000) for _ in range(4096)))
NAN = struct.unpack("<d", struct.pack("<Q", by_hand.NULLS[8]))[0]
PRICES = struct.pack("<4096d", NAN, -0.0, *(_random.randrange(99999) / 100 for _ in range(4094)))
RECORDS = bytes(_random.randrange(4) for _ in range(16_384))


def as_decimals(codec: Codec) -> Callable[[], bytes | None]:
    return lambda: decimal.pack(PRICES, Plan(codec=codec, level=5, expected=1.0, dtype="f8", exponent=2))


CASES: dict[Codec, tuple[bytes, Callable[[], bytes | None]]] = {
    Codec.ZERO: (bytes(5000), lambda: b""),
    Codec.RAW: (RECORDS, lambda: RECORDS),
    Codec.ZSTD: (RECORDS, lambda: frames.pack(RECORDS, 3)),
    Codec.ZSTD_SHUFFLE_4: (RECORDS, lambda: shuffle.pack(RECORDS, 4, 3)),
    Codec.ZSTD_SHUFFLE_8: (RECORDS, lambda: shuffle.pack(RECORDS, 8, 3)),
    Codec.ZSTD_SHUFFLE_16: (RECORDS, lambda: shuffle.pack(RECORDS, 16, 3)),
    Codec.ZSTD_SHUFFLE_32: (RECORDS, lambda: shuffle.pack(RECORDS, 32, 3)),
    Codec.PCO: (NUMBERS, lambda: pco.pack(NUMBERS, "i8", 4, CLASSIC)),
    Codec.PCO_DECIMAL: (PRICES, as_decimals(Codec.PCO_DECIMAL)),
    Codec.ZSTD_SHUFFLE_DECIMAL: (PRICES, as_decimals(Codec.ZSTD_SHUFFLE_DECIMAL)),
}


@pytest.mark.parametrize("codec", Codec)
def test_the_script_decodes_each_codec(codec: Codec) -> None:
    plain, pack = CASES[codec]
    stored = pack()
    assert stored is not None
    assert by_hand.decode(codec, stored, len(plain)) == plain


def test_the_script_reads_a_sealed_document_and_refuses_it_with_another_byte(tmp_path: Path) -> None:
    path = tmp_path / "catalog.json"
    path.write_bytes(seal({"rows": [1]}))
    assert by_hand.read_sealed(path)["rows"] == [1]
    path.write_bytes(path.read_bytes().replace(b"1\n ]", b"3\n ]"))
    with pytest.raises(by_hand.Damaged, match="not the bytes of"):
        by_hand.read_sealed(path)


def test_the_script_refuses_a_codec_that_it_does_not_know() -> None:
    with pytest.raises(by_hand.Damaged, match="codec lz4 is unknown"):
        by_hand.decode("lz4", b"", 0)
