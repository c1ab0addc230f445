"""Where a file is cut into chunks: at places that its content chooses, so that shifted rows match again.

A late row makes QuestDB write a partition anew with all rows behind it moved. Chunks cut at fixed
offsets would all differ from there on; cut before rows whose bytes hash to a mark, they find themselves
again. Rows are looked at as the column's type has them, eight bytes from the beginning of each.
"""

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from questdb_backup.questdb.column_types import WIDTHS

if TYPE_CHECKING:
    import numpy as np

    Words = np.ndarray[Any, np.dtype[np.uint64]]

MIN_CHUNK_BYTES = 1 << 19
MAX_CHUNK_BYTES = 1 << 21
WINDOW_BYTES = 1 << 22
"""What is read at a time."""

_MEAN_SEARCH_BYTES = 1 << 19
_STEP_BYTES = 1 << 18
_HASHED_BYTES = 8
_MULTIPLIER = 0x9E3779B97F4A7C15
_MARK = 1
"""Not 0: runs of zeros hash to it, and would be cut everywhere."""
_TEXT_MASK, _TEXT_MARK, _TEXT_BITS = 31, 5, 5


ReadInto = Callable[[int, memoryview], int]


def row_width(column_type: str | None) -> int:
    """Bytes from row to row: a column's own; 16 for an index of offsets; 1 for text; 0 for no column."""
    if column_type is None:
        return 0
    return 16 if column_type == "aux" else WIDTHS.get(column_type, 1)


def chunks(
    read_into: ReadInto, take: Callable[[int], memoryview], start: int, end: int, width: int
) -> Iterator[memoryview]:
    """The bytes from ``start`` to ``end`` in chunks; fewer where the file ends before.

    Each has `MIN_CHUNK_BYTES` to `MAX_CHUNK_BYTES`, the last one may have less. ``width`` as `row_width`
    gives it: chunks begin at a row. ``read_into(offset, buffer)`` tells how many bytes there were;
    ``take(length)`` gives the buffers, of which the chunks are views; the one before is untouched by then.
    """
    rest = memoryview(b"")
    while start < end:
        window = take(min(WINDOW_BYTES, end - start))
        kept = len(rest)
        window[:kept] = rest
        found = kept + read_into(start + kept, window[kept:])
        last = found < len(window) or start + found == end
        done = 0
        for cut in _cuts(window[:found], width, last=last):
            yield window[done:cut]
            done = cut
        start, rest = (end, rest) if last else (start + done, window[done:])


def _cuts(window: memoryview, width: int, *, last: bool) -> Iterator[int]:
    """Where the chunks of the window end; where it is not the last one, its rest goes into the next."""
    done = 0
    while done < len(window) and (last or len(window) - done >= MAX_CHUNK_BYTES):
        done += find_cut(window[done : done + MAX_CHUNK_BYTES], width)
        yield done


def find_cut(window: memoryview, width: int) -> int:
    """How many bytes the first chunk of ``window`` has; ``window`` is at most `MAX_CHUNK_BYTES`."""
    if len(window) <= MIN_CHUNK_BYTES:
        return len(window)
    if width == 0:
        return min(len(window), 2 * MIN_CHUNK_BYTES)
    for begin in range(MIN_CHUNK_BYTES, len(window) - _HASHED_BYTES, _STEP_BYTES):
        end = min(begin + _STEP_BYTES, len(window) - _HASHED_BYTES)
        found = _text_cut(window, begin, end) if width == 1 else _row_cut(window, begin, end, width)
        if found is not None:
            return found
    return len(window)


def _row_cut(window: memoryview, begin: int, end: int, width: int) -> int | None:
    import numpy as np

    rows: Words = np.ndarray(((end - begin) // width,), "<u8", window, begin, (width,))
    return _first_mark(rows, begin, width, _bits(width))


def _text_cut(window: memoryview, begin: int, end: int) -> int | None:
    """As for rows of one byte, but only places with one of a few letters are hashed: that costs little."""
    import numpy as np

    letters = np.frombuffer(window, np.uint8, end - begin, begin)
    places = np.flatnonzero((letters & _TEXT_MASK) == _TEXT_MARK)
    every: Words = np.ndarray((end - begin,), "<u8", window, begin, (1,))
    hit = _first_mark(every[places], 0, 1, _bits(1) - _TEXT_BITS)
    return None if hit is None else begin + int(places[hit])


def _first_mark(words: "Words", begin: int, width: int, bits: int) -> int | None:
    import numpy as np

    hashed = (words * np.uint64(_MULTIPLIER)) >> np.uint64(64 - bits)
    marks = np.flatnonzero(hashed == _MARK)
    return begin + int(marks[0]) * width if len(marks) else None


@functools.cache
def _bits(width: int) -> int:
    """So many bits that a mark comes once in `_MEAN_SEARCH_BYTES`."""
    return (_MEAN_SEARCH_BYTES // width).bit_length() - 1
