"""The blocks of a snapshot by index: their tokens are listed by ranges, where and when they are needed."""

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from questdb_backup.ebs.base import BLOCK_BYTES, Block, DirectApi
from questdb_backup.errors import TokenExpiredError, VolumeUnavailableError

MOST_TOKENS = 150_000
"""So many are kept, about 30 MiB; those of the range that was not asked for longest go first."""
GAP_BLOCKS = 256
"""Wanted blocks that are closer are listed together: a longer page costs less than another request."""
RANGE_BLOCKS = 10_000
"""What one List request can give at most."""
_ATTEMPTS = 3

Span = tuple[int, int]
"""First index, and the one behind the last."""


def block_parts(offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """The blocks that these bytes of a volume lie in: index, and the first and last byte within it."""
    end = offset + length
    while offset < end:
        index, first = divmod(offset, BLOCK_BYTES)
        last = min(BLOCK_BYTES, first + end - offset)
        yield index, first, last
        offset += last - first


def windows(size: int) -> Callable[[int], Span]:
    """The span of an index where a volume's blocks are cut into spans of that many."""

    def window(index: int) -> Span:
        first = index // size * size
        return first, first + size

    return window


def clusters(indexes: Iterable[int]) -> Callable[[int], Span]:
    """The span of an index where only these are wanted: neighbours together; any other index alone."""
    spans: list[Span] = []
    for index in sorted(set(indexes)):
        if spans and index - spans[-1][1] < GAP_BLOCKS and index - spans[-1][0] < RANGE_BLOCKS:
            spans[-1] = spans[-1][0], index + 1
        else:
            spans.append((index, index + 1))

    def cluster(index: int) -> Span:
        at = bisect_right(spans, (index, RANGE_BLOCKS << 32)) - 1
        return spans[at] if at >= 0 and index < spans[at][1] else (index, index + 1)

    return cluster


class ListedBlocks:
    """Fetches blocks of one snapshot; ``span_of`` says what to list for an index. For many threads."""

    def __init__(self, api: DirectApi, snapshot_id: str, span_of: Callable[[int], Span]) -> None:
        self._api = api
        self._snapshot_id = snapshot_id
        self._span_of = span_of
        self._tokens: OrderedDict[Span, dict[int, str]] = OrderedDict()
        self._kept = 0
        self._lock = threading.Lock()
        self._listing = threading.Lock()

    def fetch(self, index: int) -> bytes | None:
        """The block's bytes; None where it was never written. A token that has expired is listed anew.

        Raise SnapshotError, VolumeUnavailableError.
        """
        expired: TokenExpiredError | None = None
        for _ in range(_ATTEMPTS):
            block = self._find(index)
            if block is None:
                return None
            try:
                return self._api.get_block(self._snapshot_id, block)
            except TokenExpiredError as error:
                expired = error
                self._forget(block)
        raise VolumeUnavailableError(
            f"the token of block {index} of {self._snapshot_id} expires as soon as it is listed"
        ) from expired

    def _find(self, index: int) -> Block | None:
        span = self._span_of(index)
        tokens = self._known(span)
        if tokens is None:
            with self._listing:  # one thread lists, the others find what it found
                tokens = self._known(span)
                if tokens is None:
                    tokens = self._list(span)
        token = tokens.get(index)
        return None if token is None else Block(index, token)

    def _known(self, span: Span) -> dict[int, str] | None:
        with self._lock:
            tokens = self._tokens.get(span)
            if tokens is not None:
                self._tokens.move_to_end(span)
            return tokens

    def _list(self, span: Span) -> dict[int, str]:
        tokens = {block.index: block.token for block in self._api.list_blocks(self._snapshot_id, *span)}
        with self._lock:
            self._tokens[span] = tokens
            self._kept += len(tokens)
            while self._kept > MOST_TOKENS and len(self._tokens) > 1:
                _, dropped = self._tokens.popitem(last=False)
                self._kept -= len(dropped)
        return tokens

    def _forget(self, block: Block) -> None:
        """Drop what was listed with the block, unless another thread has listed it again meanwhile."""
        span = self._span_of(block.index)
        with self._lock:
            if self._tokens.get(span, {}).get(block.index) == block.token:
                self._kept -= len(self._tokens.pop(span))
