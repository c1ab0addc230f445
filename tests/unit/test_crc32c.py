"""CRC-32C against the examples of RFC 3720 and the bit by bit definition."""

import random

import pytest

from questdb_backup.volumes.crc32c import crc32c, raw_crc32c

MASK = 0xFFFFFFFF


def by_bits(data: bytes, crc: int) -> int:
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_the_published_examples(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum
    assert raw_crc32c(data, MASK) == checksum ^ MASK


def test_every_length_gives_what_the_definition_gives() -> None:
    chance = random.Random(1)
    for length in [*range(300), 511, 512, 1023, 1024, 1500, 2047, 4096, 9001]:
        data, seed = chance.randbytes(length), chance.getrandbits(32)
        assert raw_crc32c(data, seed) == by_bits(data, seed), length


@pytest.mark.parametrize("length", [(1 << 16) - 1, 1 << 16, (1 << 16) + 1, 200_003])
def test_long_data_gives_what_its_pieces_give_one_after_the_other(length: int) -> None:
    chance = random.Random(length)
    data = chance.randbytes(length)
    crc, at = 0, 0
    while at < length:
        piece = chance.randint(1, 9000)
        crc = crc32c(data[at : at + piece], crc)
        at += piece
    assert crc32c(data) == crc


def test_one_flipped_bit_is_seen_wherever_it_is() -> None:
    data = random.Random(2).randbytes(5000)
    whole = crc32c(data)
    for bit in range(0, 40_000, 997):
        other = bytearray(data)
        other[bit // 8] ^= 1 << bit % 8
        assert crc32c(bytes(other)) != whole
