"""Codec, packs, shards and units: what is stored can be read back, and damage is found."""

import os
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from questdb_backup.codec import CHUNK_BYTES, Codec, Encoded, decode, digest_of, encode
from questdb_backup.errors import DamagedBackupError, StorageFullError, UnsupportedFormatError
from questdb_backup.manifest import Entry, Group, safe_path
from questdb_backup.packs import ChunkRef, PackWriter, read_index
from questdb_backup.shards import ShardCutter, merge_groups
from questdb_backup.source.base import EntryKind, PlannedFile, PlannedGroup
from questdb_backup.stores.base import Data
from questdb_backup.unit_cutting import cut_units, unit_limit
from questdb_backup.units import Unit, UnitGroup, decode_unit, encode_unit


@given(st.binary(max_size=5000), st.integers(1, 22))
def test_a_chunk_decodes_to_what_it_was(plain: bytes, level: int) -> None:
    chunk = encode(plain, level)
    assert decode(chunk.codec, chunk.stored, chunk.plain_length, chunk.digest) == plain
    assert len(chunk.stored) <= len(plain)


def test_zeros_store_nothing_and_noise_stores_itself() -> None:
    assert encode(bytes(CHUNK_BYTES), 5).codec is Codec.ZERO
    noise = os.urandom(1000)
    assert encode(noise, 5) == Encoded(digest_of(noise), Codec.RAW, noise, 1000)


def test_a_flipped_bit_a_short_frame_and_a_bomb_are_refused() -> None:
    chunk = encode(b"price" * 1000, 5)
    flipped = bytearray(chunk.stored)
    flipped[len(flipped) // 2] ^= 1
    for stored in (bytes(flipped), chunk.stored[:-1], b""):
        with pytest.raises(DamagedBackupError):
            decode(chunk.codec, stored, chunk.plain_length, chunk.digest)
    with pytest.raises(DamagedBackupError):
        decode(chunk.codec, chunk.stored, chunk.plain_length - 1, chunk.digest)
    with pytest.raises(UnsupportedFormatError):
        decode("brotli", chunk.stored, chunk.plain_length, chunk.digest)


def test_packs_hold_their_chunks_where_the_references_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("questdb_backup.packs.PACK_BYTES", 3000)
    packs: dict[str, bytes] = {}
    writer = PackWriter(lambda number: f"p{number}", partial(_keep, packs))
    plains = [os.urandom(1000) for _ in range(7)] + [bytes(50)]
    refs = [writer.add(encode(plain, 5)) for plain in plains]
    writer.flush()
    assert sorted(packs) == ["p0", "p1", "p2"]
    for ref, plain in zip(refs, plains, strict=True):
        stored = packs[ref.pack][ref.offset : ref.offset + ref.stored] if ref.pack else b""
        assert decode(ref.codec, stored, ref.plain, ref.digest) == plain
    indexed = [ref for name in packs for ref in read_index(packs[name], name)]
    assert indexed == [ref for ref in refs if ref.pack]
    assert all(writer.packs[name].digest == digest_of(data) for name, data in packs.items())


def _keep(packs: dict[str, bytes], name: str, data: Data) -> None:
    """As a store does: the memory is used again."""
    packs[name] = bytes(data)


def test_the_error_of_a_store_comes_out_though_it_still_refers_to_the_pack() -> None:
    def refuse(_name: str, data: Data) -> None:
        with memoryview(data) as whole:
            rest = whole[1:]
            raise StorageFullError(f"{len(rest)} bytes have no room")

    def write() -> None:
        with PackWriter(lambda number: f"p{number}", refuse) as writer:
            writer.add(encode(os.urandom(1000), 5))
            writer.flush()

    with pytest.raises(StorageFullError, match="have no room"):
        write()


def test_an_index_of_many_small_chunks_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("questdb_backup.packs._ROOM", 8192)
    monkeypatch.setattr("questdb_backup.packs.PACK_BYTES", 8000)
    packs: dict[str, bytes] = {}
    with PackWriter(lambda number: f"p{number}", partial(_keep, packs)) as writer:
        refs = [writer.add(encode(os.urandom(8), 5)) for _ in range(2500)]
        writer.flush()
    assert [len(packs[name]) > 8192 for name in sorted(packs)] == [True, True, True]
    assert [ref for name in sorted(packs) for ref in read_index(packs[name], name)] == refs
    assert all(writer.packs[name].digest == digest_of(data) for name, data in packs.items())


@pytest.mark.parametrize("path", ["", "/etc/passwd", "a/../b", "..", "a//b", "./a", "a/", "a\0b", "x" * 256])
def test_paths_that_could_leave_the_root_are_refused(path: str) -> None:
    with pytest.raises(DamagedBackupError, match="unsafe path"):
        safe_path(path)


def _group(partition: str, chunks: int = 1) -> Group:
    refs = tuple(ChunkRef("p", i, 1, 1, digest_of(f"{partition}{i}".encode()), "raw") for i in range(chunks))
    return Group(
        table="t",
        partition=partition,
        signature=None,
        entries=(Entry(path=f"db/t/{partition}/c.d", kind="f", mode=0o644, size=chunks, chunks=refs),),
    )


def _shards(partitions: list[int], known: dict[str, str] | None = None) -> list[str]:
    cutter = ShardCutter(write=lambda digest, _plain: digest, known=known or {})
    shards = [cutter.add(_group(f"{number:020d}")) for number in partitions]
    return [shard.key for shard in [*shards, cutter.finish()] if shard]


def test_a_changed_partition_renews_one_shard_and_a_dropped_one_too() -> None:
    before = _shards(list(range(500)))
    assert len(before) > 5
    assert len(set(before) - set(_shards([*range(200), *range(201, 500)]))) == 1
    assert len(set(_shards(list(range(501)))) - set(before)) == 1


def test_known_shards_are_shared_and_not_written() -> None:
    written = _shards(list(range(100)))
    assert _shards(list(range(100)), {key: f"old/{key}" for key in written}) == [f"old/{k}" for k in written]


def _planned(path: str, size: int) -> PlannedFile:
    return PlannedFile(path=path, kind=EntryKind.FILE, mode=0o640, size=size, exact=True)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 40 << 20), max_size=5)), max_size=8),
    st.integers(1, 16),
)
def test_units_cover_every_byte_once_and_stay_within_their_size(
    groups: list[tuple[int, list[int]]], limit: int
) -> None:
    limit <<= 20
    planned = [
        PlannedGroup(
            table="t",
            partition=f"{index:020d}",
            signature=None,
            files=tuple(_planned(f"{index}/{n}", size) for n, size in enumerate(sizes)),
        )
        for index, (_, sizes) in enumerate(groups)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("questdb_backup.unit_cutting.UNIT_BYTES", limit)
        units = list(cut_units(planned))
    covered: dict[str, int] = {}
    for unit in units:
        parts = [item for item in unit if isinstance(item, UnitGroup)]
        assert len(parts) == len(unit)
        assert sum(group.bytes for group in parts) <= limit
        for group in parts:
            for piece in group.files:
                assert piece.start == covered.get(piece.file.path, 0)
                covered[piece.file.path] = piece.file.size
    assert covered == {file.path: file.size for group in planned for file in group.files}


def test_no_unit_is_larger_than_what_a_worker_that_is_held_down_can_read() -> None:
    planned = [PlannedGroup(table="t", partition="1", signature=None, files=(_planned("x.d", 700 << 20),))]
    for largest, sizes in ((300 << 20, [300, 300, 100]), (None, [512, 188]), (1, [1] * 700)):
        units = list(cut_units(planned, largest=largest))
        assert [Unit(number=0, items=items).bytes >> 20 for items in units] == sizes
    assert [unit_limit(number, 600 << 20) >> 20 for number in (999, 1000, 9999)] == [512, 600, 600]


def test_a_unit_is_read_back_as_it_was_written() -> None:
    group = PlannedGroup(table="t", partition="", signature="s", files=(_planned("db/t/x.c", 10),))
    (share,) = cut_units([group])
    unit = Unit(number=3, base=(), items=share)
    assert decode_unit(encode_unit(unit)) == unit
    assert isinstance(unit.items[0], UnitGroup)


def test_pieces_of_one_file_become_one_entry_again() -> None:
    left, right = _group("1", 2), _group("1", 3)
    (merged,) = merge_groups([left, right])
    assert isinstance(merged, Group)
    assert merged.entries[0].size == 5
    assert merged.entries[0].chunks == left.entries[0].chunks + right.entries[0].chunks
    assert list(merge_groups([left, _group("2")])) == [left, _group("2")]
