"""Where files are cut: every byte once, at rows, and at the same rows again when others come before them."""

import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from questdb_backup import chunker
from questdb_backup.chunker import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES, chunks, row_width
from questdb_backup.codec import digest_of

MIB = 1 << 20


def cut(data: bytes, width: int, *, start: int = 0, end: int | None = None) -> list[bytes]:
    """The chunks; each is copied before the next one may take its memory."""
    buffer = memoryview(bytearray(chunker.WINDOW_BYTES))

    def read_into(offset: int, into: memoryview) -> int:
        found = data[offset : offset + len(into)]
        into[: len(found)] = found
        return len(found)

    whole = chunks(read_into, lambda length: buffer[:length], start, len(data) if end is None else end, width)
    return [bytes(chunk) for chunk in whole]


def rows(count: int, seed: int = 1) -> bytes:
    """Timestamps a few microseconds apart."""
    source, at, parts = random.Random(seed), 1_700_000_000_000_000, []
    for _ in range(count):
        at += source.randrange(1, 5_000)
        parts.append(at)
    return struct.pack(f"<{count}q", *parts)


def words(size: int) -> bytes:
    source = random.Random(3)
    vocabulary = [
        bytes(source.choices(b"abcdefghijklmnopqrstuvwxyz ", k=source.randrange(2, 12))) for _ in range(2000)
    ]
    return b" ".join(source.choices(vocabulary, k=size // 6))[:size]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5 * MIB), st.sampled_from([0, 1, 2, 4, 8, 16, 32]), st.integers(0, 3))
def test_chunks_are_the_file_and_keep_their_sizes(size: int, width: int, kind: int) -> None:
    data = (bytes(size), random.Random(size).randbytes(size), b"ab" * (size // 2), rows(size // 8))[kind]
    found = cut(data, width)
    assert b"".join(found) == data
    assert all(len(chunk) <= MAX_CHUNK_BYTES for chunk in found)
    assert all(len(chunk) >= MIN_CHUNK_BYTES for chunk in found[:-1])
    assert all(len(chunk) % max(width, 1) == 0 for chunk in found[:-1])


def test_a_file_that_ends_early_gives_what_there_is() -> None:
    data = rows(400_000)
    assert b"".join(cut(data, 8, end=len(data) + 5 * MIB)) == data
    assert cut(b"", 8, end=100) == []


def test_every_byte_is_read_once() -> None:
    data, blocks, reads = rows(4_000_000), [bytearray(chunker.WINDOW_BYTES) for _ in range(2)], []

    def take(length: int) -> memoryview:
        blocks.reverse()
        return memoryview(blocks[0])[:length]

    def read_into(offset: int, into: memoryview) -> int:
        into[:] = data[offset : offset + len(into)]
        reads.append(len(into))
        return len(into)

    assert b"".join(bytes(chunk) for chunk in chunks(read_into, take, 0, len(data), 8)) == data
    assert sum(reads) == len(data)
    assert len(reads) > len(data) // chunker.WINDOW_BYTES


def test_a_piece_begins_where_it_is_told() -> None:
    data = rows(400_000)
    assert b"".join(cut(data, 8, start=MIB, end=2 * MIB)) == data[MIB : 2 * MIB]


def _insert(data: bytes, at: int, more: bytes) -> bytes:
    return data[:at] + more + data[at:]


@pytest.mark.parametrize(
    ("data", "more", "width"),
    [
        (rows(2_000_000), rows(3, seed=9), 8),
        (random.Random(5).randbytes(16 * MIB), b"x" * 16, 16),
        (random.Random(6).randbytes(16 * MIB), b"abcd", 4),
        (words(16 * MIB), b"a late word", 1),
    ],
    ids=["timestamps", "uuids", "ints", "text"],
)
def test_rows_that_moved_are_found_again(data: bytes, more: bytes, width: int) -> None:
    before = {digest_of(chunk) for chunk in cut(data, width)}
    moved = cut(_insert(data, len(data) // 3 // width * width, more), width)
    new = [chunk for chunk in moved if digest_of(chunk) not in before]
    assert 1 <= len(new) <= 2
    assert len(moved) > 8


def test_an_append_changes_the_last_chunk_only() -> None:
    data = rows(1_000_000)
    before = cut(data, 8)
    assert cut(data + rows(1000, seed=2), 8)[: len(before) - 1] == before[:-1]


def test_what_is_no_column_is_cut_at_fixed_places() -> None:
    assert [len(chunk) for chunk in cut(bytes(5 * MIB // 2), 0)] == [MIB, MIB, MIB // 2]


def test_runs_of_zeros_are_cut_as_long_as_can_be() -> None:
    assert [len(chunk) for chunk in cut(bytes(6 * MIB), 8)] == [MAX_CHUNK_BYTES] * 3


def test_the_width_is_that_of_the_type() -> None:
    widths: Callable[[str | None], int] = row_width
    assert [widths(name) for name in ("double", "symbol", "uuid", "aux", "varchar", "double[]", None)] == [
        8,
        4,
        16,
        16,
        1,
        1,
        0,
    ]
