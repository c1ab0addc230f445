"""Where a file is cut into chunks: at places that its content chooses, so that shifted rows match again.

A late row makes QuestDB write a partition anew with all rows behind it moved. Chunks cut at fixed
offsets would all differ from there on; cut before rows whose bytes hash to a mark, they find themselves
again. Rows are looked at as the column's type has them, eight bytes from the beginning of each.
"""

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from questdb_backup.questdb.column_types import WIDTHS

if TYPE_CHECKING:
    import numpy as np

    Words = np.ndarray[Any, np.dtype[np.uint64]]

MIN_CHUNK_BYTES = 1 << 19
MAX_CHUNK_BYTES = 1 << 21
_MEAN_SEARCH_BYTES = 1 << 19
_STEP_BYTES = 1 << 18
_WINDOW_BYTES = 8
_MULTIPLIER = 0x9E3779B97F4A7C15
_MARK = 1
"""Not 0: runs of zeros hash to it, and would be cut everywhere."""
_TEXT_MASK, _TEXT_MARK, _TEXT_BITS = 31, 5, 5


class Read(Protocol):
    """Reads ``length`` bytes at ``offset``; fewer where the file ends."""

    def __call__(self, offset: int, length: int) -> bytes:
        """Read."""


def row_width(column_type: str | None) -> int:
    """Bytes from row to row: a column's own; 16 for an index of offsets; 1 for text; 0 for no column."""
    if column_type is None:
        return 0
    return 16 if column_type == "aux" else WIDTHS.get(column_type, 1)


def chunks(read: Read, start: int, end: int, width: int) -> Iterator[bytes]:
    """The bytes from ``start`` to ``end`` in chunks; fewer where the file ends before.

    Each has `MIN_CHUNK_BYTES` to `MAX_CHUNK_BYTES`, the last one may have less. ``width`` as `row_width`
    gives it: chunks begin at a row.
    """
    rest = b""
    while start < end or rest:
        want = min(MAX_CHUNK_BYTES - len(rest), end - start)
        more = read(start, want) if want else b""
        start = start + len(more) if len(more) == want else end
        window = rest + more if rest else more
        cut = find_cut(window, width)
        rest = window[cut:]
        if cut:
            yield window[:cut] if rest else window


def find_cut(window: bytes, width: int) -> int:
    """How many bytes the first chunk of ``window`` has; ``window`` is at most `MAX_CHUNK_BYTES`."""
    if len(window) <= MIN_CHUNK_BYTES:
        return len(window)
    if width == 0:
        return min(len(window), 2 * MIN_CHUNK_BYTES)
    for begin in range(MIN_CHUNK_BYTES, len(window) - _WINDOW_BYTES, _STEP_BYTES):
        end = min(begin + _STEP_BYTES, len(window) - _WINDOW_BYTES)
        found = _text_cut(window, begin, end) if width == 1 else _row_cut(window, begin, end, width)
        if found is not None:
            return found
    return len(window) if len(window) < MAX_CHUNK_BYTES else MAX_CHUNK_BYTES


def _row_cut(window: bytes, begin: int, end: int, width: int) -> int | None:
    import numpy as np

    rows: Words = np.ndarray(((end - begin) // width,), "<u8", window, begin, (width,))
    return _first_mark(rows, begin, width, _bits(width))


def _text_cut(window: bytes, begin: int, end: int) -> int | None:
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
