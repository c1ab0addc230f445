"""Hostile partition tables and LVM metadata: a right answer or a named refusal, in bounded memory."""

import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.volumes.layout import Part, open_parts, probe
from questdb_backup.volumes.lvm_text import parse_metadata
from tests.support import made_disks as made
from tests.support.made_disks import MIB, device, linear, lvm_disk, lvm_text
from tests.support.memory_files import MemoryDevice

MOST_READ = 16 << 20
MOST_MEMORY = 8 << 20

TEXT = lvm_text(
    {
        "data": linear((0, 2), (5, 1), (3, 1)),
        "other": linear((2, 1)),
        "snap": linear((7, 1)),
        "snapshot0": made.segment(0, 2, 'type = "snapshot"\norigin = "other"\ncow_store = "snap"'),
    },
    hidden=["snapshot0"],
)
DISKS: dict[str, tuple[Callable[[], bytearray], list[tuple[int, int]]]] = {
    "gpt": (lambda: made.gpt_disk({1: (2048, 64), 2: (4096, 64), 5: (5000, 64)}), [(440, 700), (-512, 100)]),
    "gpt 4k": (lambda: made.gpt_disk({1: (200, 64)}, sector=4096), [(440, 80), (4096, 100), (8192, 200)]),
    "mbr": (made.logical_disk, [(440, 72), (4096 * 512 + 440, 72), (6144 * 512 + 440, 72)]),
    "lvm": (lambda: lvm_disk(TEXT, size=2 * MIB), [(512, 200), (4096, 100), (4608, 1200)]),
    "zfs": (lambda: made.zfs_disk("tank"), [(16 << 10, 100)]),
}
"""How each disk is made, and the ranges (offset, length) that are hit."""


class WatchedDevice(MemoryDevice):
    """Fails a test whose reader asks for endlessly much."""

    asked = 0

    def read(self, offset: int, length: int) -> bytes:
        self.asked += length + 64
        assert self.asked < MOST_READ, "it reads on and on"
        return super().read(offset, length)


class HugeDevice(WatchedDevice):
    """A petabyte, zeros behind its data: what a table claims is not cut by the disk's end."""

    @property
    def size(self) -> int:
        return 1 << 50

    def read(self, offset: int, length: int) -> bytes:
        self.asked += length + 64
        assert self.asked < MOST_READ, "it reads what a table claims"
        return bytes(self.data[offset : offset + length]).ljust(length, b"\0")


def check(disk: bytearray) -> tuple[Part, ...]:
    parts = open_parts(WatchedDevice(disk))
    for part in parts:
        if part.device is not None and part.size:
            assert part.refused or part.files or part.what == "lvm2"
            part.device.read(part.size - 1, 1)
            assert sum(stretch.length for stretch in part.device.locate(0, part.size)) == part.size
        else:
            assert part.refused
    return parts


@contextmanager
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


def summary(parts: tuple[Part, ...]) -> list[tuple[str, int | None, int]]:
    return [(part.where, part.offset, part.size) for part in parts]


def spoil(disk: bytearray, ranges: list[tuple[int, int]], chance: random.Random) -> None:
    """Flip bits, write extreme numbers, or zero a stretch, once to four times."""
    for _ in range(chance.randint(1, 4)):
        start, length = chance.choice(ranges)
        at = start % len(disk) + chance.randrange(length)
        kind = chance.randrange(4)
        if kind == 0:
            disk[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            disk[at : at + 4] = chance.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\x80"])
        elif kind == 2:
            zeroed = chance.randint(1, 64)
            disk[at : at + zeroed] = bytes(zeroed)
        else:
            disk[at] = chance.randrange(256)


@pytest.mark.parametrize("name", DISKS)
def test_spoiled_tables_give_parts_and_reasons_only(name: str) -> None:
    make, ranges = DISKS[name]
    chance, whole = random.Random(f"spoiled {name}"), make()
    rounds, right, untouched = 150, 0, summary(probe(device(whole)))
    for _ in range(rounds):
        disk = bytearray(whole)
        spoil(disk, ranges, chance)
        with bounded_memory():
            found = summary(check(disk))
        right += found == untouched
        if name != "mbr":  # which has no checksum
            assert found == untouched or [where for where, _, _ in found] == ["whole disk"]
    assert right
    print(f"{name}: {rounds} spoiled disks, {right} read right, {rounds - right} refused")


@pytest.mark.parametrize("name", DISKS)
def test_a_disk_cut_anywhere_gives_parts_and_reasons_only(name: str) -> None:
    make, ranges = DISKS[name]
    whole = make()
    cuts = {start % len(whole) + step for start, length in ranges for step in range(0, length, 13)}
    cuts |= {0, 1, 511, 512, 513, 1023, 1024, 4095, 4096, 65536, MIB, len(whole) - 1}
    for cut in sorted(cuts):
        check(whole[: min(cut, len(whole))])
    print(f"{name}: cut at {len(cuts)} places")


def test_lvm_metadata_with_right_checksums_and_wrong_words_gives_parts_and_reasons_only() -> None:
    chance, rounds, damaged = random.Random(7), 400, 0
    for _ in range(rounds):
        raw = bytearray(TEXT.encode())
        for _ in range(chance.randint(1, 2)):
            at = chance.randrange(len(raw))
            raw[at : at + chance.choice([0, 1, 1, 8])] = chance.choice(
                [
                    b"",
                    b"{",
                    b"}",
                    b'"',
                    b"[",
                    b"]",
                    b"=",
                    b"\\",
                    b"9" * 30,
                    b"-1",
                    b"\xff",
                    b"\0",
                    b"#",
                    b"281474976710656",
                ]
            )
        parts = check(lvm_disk(bytes(raw), size=2 * MIB, areas=((4096, 64 << 10),)))
        damaged += any(part.refused and part.where == "whole disk" for part in parts)
    assert 0 < damaged < rounds
    print(f"lvm text: {rounds} changed texts, {damaged} refused whole")


def test_a_gpt_with_right_checksums_and_wrong_numbers_gives_parts_and_reasons_only() -> None:
    chance = random.Random(8)
    extremes = (0, 1, 33, 34, 4095, 8191, 8192, 1 << 31, 1 << 32, 1 << 55, 1 << 63, (1 << 64) - 1)
    for _ in range(200):
        disk = made.gpt_disk({})
        entries = bytearray(128 * 128)
        for number in range(4):
            entries[number * 128] = 1
            for at in (32, 40):
                entries[number * 128 + at : number * 128 + at + 8] = chance.choice(extremes).to_bytes(
                    8, "little"
                )
        disk[1024 : 1024 + len(entries)] = entries
        disk[512:604] = made.gpt_header(1, 8191, 2, bytes(entries))
        assert len(check(disk)) == 4


@pytest.mark.parametrize(
    "text",
    [
        "a {" * 100_000,
        "a = [" + "1," * 200_000,
        '"' + "x" * 500_000,
        "a = " + "9" * 500_000,
        "[" * 100_000,
        "a {}" * 100_000 + "}",
        "# " + "x" * 500_000 + "\n{",
        "\\" * 100_000,
        'a = "' + "\\" * 100_000,
    ],
    ids=range(9),
)
def test_a_text_that_is_made_to_be_slow_is_refused_soon(text: str) -> None:
    with pytest.raises(DamagedVolumeError) as refused:
        parse_metadata(text)
    assert len(refused.value.fact) < 400


def test_the_disks_are_read_right_where_nothing_is_spoiled() -> None:
    counts = {
        name: len([part for part in probe(device(make())) if part.device])
        for name, (make, _) in DISKS.items()
    }
    assert counts == {"gpt": 3, "gpt 4k": 1, "mbr": 4, "lvm": 3, "zfs": 1}


def test_sizes_that_metadata_claims_are_not_read_on_trust() -> None:
    gpt = made.gpt_disk({1: (2048, 64)})
    gpt[512:604] = made.gpt_header(1, 5000, 2, b"", count=1 << 16, entry_size=1 << 12)
    lvm = lvm_disk(TEXT, areas=((4096, 1 << 40),))
    location = 4096 + 40
    lvm[location + 8 : location + 16] = (1 << 39).to_bytes(8, "little")
    lvm[4096:4100] = made.lvm_crc(bytes(lvm[4100:4608])).to_bytes(4, "little")
    for disk, words in ((gpt, "GPT of the disk is damaged"), (lvm, "is not within its area")):
        (part,) = probe(HugeDevice(disk))
        assert words in str(part.refused)
