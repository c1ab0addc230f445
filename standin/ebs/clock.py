"""The stand-in's time: every delay, expiry and rate of EC2 is reckoned by it."""

import threading
import time
from datetime import UTC, datetime, timedelta

_START = datetime(2026, 1, 1, tzinfo=UTC)


class StandinClock:
    """Runs with the machine's clock, or stands still; ``advance`` moves either forward.

    Nothing waits for it: states are computed from it when somebody asks.
    """

    def __init__(self, *, frozen: bool = False) -> None:
        self._frozen = frozen
        self._ahead = 0.0
        self._lock = threading.Lock()

    def seconds(self) -> float:
        """Seconds since the epoch."""
        base = _START.timestamp() if self._frozen else time.time()
        with self._lock:
            return base + self._ahead

    def now(self) -> datetime:
        """The same moment, aware, UTC."""
        return datetime.fromtimestamp(self.seconds(), UTC)

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass at once."""
        with self._lock:
            self._ahead += seconds

    def after(self, seconds: float) -> datetime:
        """The moment so many seconds from now."""
        return self.now() + timedelta(seconds=seconds)
