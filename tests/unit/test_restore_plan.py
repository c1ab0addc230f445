"""The cut of a restore: each shard and each pack is somebody's, once, however they are mixed."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from questdb_backup.errors import RestoreFailedError
from questdb_backup.manifest import ShardRef, TableRef
from questdb_backup.restore import contents
from questdb_backup.restore.contents import Piece, cut_restore
from questdb_backup.restore.staging import Staging


def shard(number: int, packs: dict[str, int], *, size: int = 1 << 20, files: int = 3) -> ShardRef:
    return ShardRef(
        key=f"shard{number}",
        digest=str(number),
        plain_size=100,
        first="",
        last="",
        groups=1,
        files=files,
        bytes=size,
        closed=True,
        packs=packs,
    )


def tables(*shards: ShardRef) -> list[TableRef]:
    return [TableRef(table=f"t{n}", name=f"t{n}", kind="wal", shards=(it,)) for n, it in enumerate(shards)]


def cut(*shards: ShardRef, workers: int = 2) -> list[list[Piece]]:
    return list(cut_restore(tables(*shards), sum(it.bytes for it in shards), workers))


needs = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 64 << 20), max_size=5)


@given(st.lists(st.tuples(needs, st.integers(0, 600 << 20), st.integers(0, 9_000)), max_size=12))
def test_every_shard_is_owned_once_and_every_part_of_a_pack_is_wanted_once(
    drawn: list[tuple[dict[str, int], int, int]],
) -> None:
    shards = [shard(n, packs, size=size, files=files) for n, (packs, size, files) in enumerate(drawn)]
    pieces = [piece for unit in cut(*shards) for piece in unit]
    assert Counter(piece.shard.key for piece in pieces if piece.owned) == Counter(it.key for it in shards)
    wanted = Counter((piece.shard.key, pack) for piece in pieces for pack in piece.packs)
    assert wanted == Counter((it.key, pack) for it in shards for pack in it.packs)
    assert all(piece.packs_in_all == len(shards[int(piece.shard.digest)].packs) for piece in pieces)


def test_a_pack_that_many_tables_share_is_read_by_one_unit() -> None:
    full = [shard(n, {f"full{n // 4}": 8 << 20, "daily": 1000}, size=60 << 20) for n in range(100)]
    units = cut(*full)
    assert len(units) > 4
    readers = Counter(pack for unit in units for pack in {pack for piece in unit for pack in piece.packs})
    assert set(readers.values()) == {1}


def test_a_unit_has_no_more_shards_and_files_than_a_worker_can_do() -> None:
    few = cut(*(shard(n, {"one": 10}, size=10) for n in range(5_000)))
    assert [len(unit) for unit in few] == [2_000, 2_000, 1_000]
    many = cut(*(shard(n, {"one": 10}, size=10, files=15_000) for n in range(6)))
    assert [len(unit) for unit in many] == [2, 2, 2]


def test_what_compresses_to_nothing_is_still_cut() -> None:
    units = cut(*(shard(n, {"one": 10}, size=1 << 30) for n in range(10)))
    assert len(units) > 2


def test_units_grow_so_that_any_backup_has_few_enough_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_UNITS_BEFORE_DOUBLING", 10)
    units = cut(*(shard(n, {f"p{n}": 1 << 20}, size=512 << 20) for n in range(1_000)))
    sizes = [len(unit) for unit in units]
    assert sizes[:10] == [1] * 10
    assert sizes[10:20] == [2] * 10
    assert len(units) < 80


def test_a_unit_is_found_by_its_number_as_it_stands_in_the_plan(tmp_path: Path) -> None:
    units = cut(*(shard(n, {f"p{n}": 1 << 20, "é": 5}, size=300 << 20) for n in range(20)))
    with Staging(tmp_path, make=True) as staging:
        staging.lay_out(units)
        assert [staging.unit(number) for number in range(len(units))] == list(staging.units())
        assert [piece.packs for piece in staging.unit(3)] == [piece.packs for piece in units[3]]
        assert staging.progress() == (0, sum(piece.bytes for unit in units for piece in unit))
        with pytest.raises(RestoreFailedError, match=f"has no unit {len(units)}"):
            staging.unit(len(units))


def test_a_plan_that_was_not_written_to_its_end_is_none(tmp_path: Path) -> None:
    with Staging(tmp_path, make=True) as staging:
        (staging.path / "plan.jsonl").write_text("[]\n")
        assert not staging.has_plan()
