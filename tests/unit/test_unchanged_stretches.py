"""What of a file is taken from the previous backup without being read: from extents and changed blocks."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from questdb_backup.ebs.base import BLOCK_BYTES
from questdb_backup.ebs.unchanged import ChangedBlocks, kept_stretches, unchanged_ranges
from questdb_backup.packs import ChunkRef
from questdb_backup.units import DiskExtent

STEP = BLOCK_BYTES // 4
"""The grid of these tests: a quarter of a block, so that extents begin and end within blocks."""
CELLS = 24


def chunk(plain: int, pack: str = "p") -> ChunkRef:
    return ChunkRef(pack, 0, plain, plain, "d", "raw")


def extents_of(cells: list[int | None]) -> list[DiskExtent]:
    """One extent per run of cells that lie one after the other on the disk; None is a hole."""
    found: list[DiskExtent] = []
    for index, cell in enumerate(cells):
        if cell is None:
            continue
        last = found[-1] if found else None
        if last and (last.start + last.length, last.offset + last.length) == (index * STEP, cell * STEP):
            found[-1] = DiskExtent(last.start, last.length + STEP, 0, last.offset)
        else:
            found.append(DiskExtent(index * STEP, STEP, 0, cell * STEP))
    return found


cell_lists = st.lists(st.one_of(st.none(), st.integers(0, CELLS)), min_size=1, max_size=CELLS)


@settings(max_examples=300, deadline=None)
@given(new=cell_lists, old=cell_lists, changed=st.sets(st.integers(0, CELLS // 4)))
def test_a_range_is_unchanged_exactly_where_map_and_blocks_are(
    new: list[int | None], old: list[int | None], changed: set[int]
) -> None:
    size = min(len(new), len(old))
    ranges = unchanged_ranges(extents_of(new), extents_of(old), [ChangedBlocks(sorted(changed))], size * STEP)
    found = {
        index
        for index in range(size)
        if any(first <= index * STEP and (index + 1) * STEP <= last for first, last in ranges)
    }
    expected = {
        index
        for index, (now, then) in enumerate(zip(new[:size], old[:size], strict=True))
        if now == then and (now is None or now // 4 not in changed)
    }
    assert found == expected
    assert all(first < last for first, last in ranges)
    assert all(left[1] < right[0] for left, right in pairwise(ranges))


def test_what_stands_in_an_inode_or_a_journal_counts_as_changed() -> None:
    inline = [DiskExtent(0, 10, 0, 0, b"0123456789")]
    assert unchanged_ranges(inline, inline, [ChangedBlocks([])], 10) == []


def test_the_same_place_of_another_volume_is_another_place() -> None:
    nothing = ChangedBlocks([])
    here, there = [DiskExtent(0, 10, 0, 4096)], [DiskExtent(0, 10, 1, 4096)]
    assert unchanged_ranges(here, here, [nothing, nothing], 10) == [(0, 10)]
    assert unchanged_ranges(here, there, [nothing, nothing], 10) == []


def test_one_byte_more_than_a_block_is_two_blocks() -> None:
    extent = [DiskExtent(0, BLOCK_BYTES + 1, 0, 0)]
    assert unchanged_ranges(extent, extent, [ChangedBlocks([1])], BLOCK_BYTES + 1) == [(0, BLOCK_BYTES)]
    assert unchanged_ranges(extent, extent, [ChangedBlocks([0])], BLOCK_BYTES + 1) == [
        (BLOCK_BYTES, BLOCK_BYTES + 1)
    ]


def test_a_chunk_is_kept_only_where_all_of_it_is_unchanged() -> None:
    chunks = [chunk(10), chunk(20), chunk(30), chunk(40)]
    assert list(kept_stretches(chunks, [(0, 100)], frozenset())) == [(0, tuple(chunks))]
    assert list(kept_stretches(chunks, [(1, 100)], frozenset())) == [(10, tuple(chunks[1:]))]
    assert list(kept_stretches(chunks, [(0, 99)], frozenset())) == [(0, tuple(chunks[:3]))]
    assert list(kept_stretches(chunks, [(0, 10), (30, 60)], frozenset())) == [
        (0, (chunks[0],)),
        (30, (chunks[2],)),
    ]
    assert list(kept_stretches(chunks, [], frozenset())) == []


def test_a_chunk_across_two_ranges_is_not_kept() -> None:
    assert list(kept_stretches([chunk(10), chunk(10)], [(0, 15), (16, 20)], frozenset())) == [
        (0, (chunk(10),))
    ]


def test_a_chunk_of_a_pack_that_is_given_up_is_stored_again() -> None:
    chunks = [chunk(10), chunk(10, "spent"), chunk(10)]
    assert list(kept_stretches(chunks, [(0, 30)], frozenset({"spent"}))) == [
        (0, (chunks[0],)),
        (20, (chunks[2],)),
    ]


def test_membership_of_changed_blocks() -> None:
    changed = ChangedBlocks([1, 5, 9])
    assert [index for index in range(11) if index in changed] == [1, 5, 9]
    assert len(changed) == 3
    assert list(changed.unchanged(0, 3 * BLOCK_BYTES)) == [
        (0, BLOCK_BYTES),
        (2 * BLOCK_BYTES, 3 * BLOCK_BYTES),
    ]
