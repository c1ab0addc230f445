"""What the reader makes of the order it is promised: spans to list together, how far the reading has come."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from questdb_backup.ebs.listed import GAP_BLOCKS, RANGE_BLOCKS, clusters
from questdb_backup.ebs.reading_order import ReadingOrder
from tests.unit.ebs_blocks.conftest import SNAPSHOT

# What is listed together


def test_neighbours_are_listed_together_and_far_blocks_alone() -> None:
    span = clusters([5000, 0, 10, 10 + GAP_BLOCKS, 4000])
    assert [span(index) for index in (0, 10, 10 + GAP_BLOCKS, 4000, 5000)] == [
        *[(0, 11 + GAP_BLOCKS)] * 3,
        (4000, 4001),
        (5000, 5001),
    ]
    assert span(4500) == (4500, 4501)  # wanted by nobody


def test_no_span_is_longer_than_one_request_can_list() -> None:
    span = clusters(range(0, 3 * RANGE_BLOCKS, 100))
    assert max(end - first for first, end in map(span, range(0, 3 * RANGE_BLOCKS, 100))) <= RANGE_BLOCKS


@given(st.sets(st.integers(0, 40_000), max_size=60))
def test_every_wanted_block_is_in_its_span_and_no_two_spans_meet(indexes: set[int]) -> None:
    span = clusters(indexes)
    spans = sorted({span(index) for index in indexes})
    assert all(span(index)[0] <= index < span(index)[1] for index in indexes)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


# How far the reading has come


def test_a_step_back_is_no_leap_to_where_the_block_is_wanted_next() -> None:
    a, b, c, d = ((SNAPSHOT, index) for index in range(4))
    order = ReadingOrder([a, b, b, c, d, a])
    for key in (a, b):
        assert order.advance(key, is_recent=False) == []
    assert order.advance(a, is_recent=True) == ()
    assert order.next({a, b}.__contains__) == c
    assert order.advance(c, is_recent=False) == []
    assert [order.is_past(key) for key in (a, b, c, d)] == [False, True, False, False]


def test_what_is_left_out_is_passed_over() -> None:
    a, b, c, d = ((SNAPSHOT, index) for index in range(4))
    order = ReadingOrder([a, b, c, d, a])
    order.advance(a, is_recent=False)
    assert order.advance(d, is_recent=False) == [b, c]
    assert order.next(lambda _key: False) == d
    assert order.is_past(b)
    assert order.advance(a, is_recent=True) == []  # the very next one may be a read over again: no harm
    assert not order.is_past(a)
    assert order.advance((SNAPSHOT, 9), is_recent=False) == ()
    assert order.is_past((SNAPSHOT, 9))
