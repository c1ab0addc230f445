"""What was asked: every call with its outcome, and which blocks were fetched."""

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_KEPT = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request that arrived and was understood."""

    action: str
    parameters: Mapping[str, Any]
    moment: datetime
    """By the stand-in's clock."""
    error: str
    """The code of the error that was answered, ``cut`` for no answer, "" for a success."""


class CallLog:
    """Counters and the newest calls. Reading a counter while calls arrive is safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Count from nothing again."""
        with self._lock:
            self._counts: Counter[str] = Counter()
            self._errors: Counter[str] = Counter()
            self._calls: deque[Call] = deque(maxlen=_KEPT)
            self._blocks: Counter[tuple[str, int]] = Counter()
            self._block_bytes = 0

    def add(self, call: Call) -> None:
        """Record a call."""
        with self._lock:
            self._counts[call.action] += 1
            self._calls.append(call)
            if call.error:
                self._errors[call.error] += 1

    def add_block(self, snapshot_id: str, index: int, size: int) -> None:
        """Record a block that was sent whole."""
        with self._lock:
            self._blocks[snapshot_id, index] += 1
            self._block_bytes += size

    def count(self, action: str) -> int:
        """Calls of the action, failed ones too."""
        with self._lock:
            return self._counts[action]

    def errors(self, code: str) -> int:
        """Calls that were answered with this error code (or ``cut``)."""
        with self._lock:
            return self._errors[code]

    def counts(self) -> dict[str, int]:
        """Calls by action."""
        with self._lock:
            return dict(self._counts)

    def all(self, action: str | None = None) -> list[Call]:
        """The newest calls (the last 200,000), oldest first, of one action or all."""
        with self._lock:
            return [call for call in self._calls if action in (None, call.action)]

    @property
    def blocks_fetched(self) -> int:
        """Blocks sent, each time counted."""
        with self._lock:
            return self._blocks.total()

    @property
    def distinct_blocks(self) -> frozenset[tuple[str, int]]:
        """The blocks (snapshot, index) that were sent at least once."""
        with self._lock:
            return frozenset(self._blocks)

    @property
    def bytes_fetched(self) -> int:
        """Bytes of all blocks sent."""
        with self._lock:
            return self._block_bytes
