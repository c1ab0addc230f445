"""A token bucket that many threads take from, and whose rate may change at any moment."""

import threading
import time
from collections.abc import Callable

from questdb_backup.gentle.base import format_rate

SLICE_SECONDS = 0.25
"""No sleep is longer: a new rate, a stop of the process and the next look come through soon."""
_LEAST_PAUSE_SECONDS = 0.001


class TokenBucket:
    """Bytes per second, with debt: a read passes as soon as the earlier ones are paid for.

    So a read may be larger than what the bucket holds, and its cost is waited for by the next one. The
    bucket saves up a quarter of a second's bytes at most. ``rate`` None lets everything through.
    """

    def __init__(
        self,
        rate: float | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._rate = rate
        self._tokens = 0.0
        self._filled_at = monotonic()
        self._taken = 0
        self._waited = 0.0

    @property
    def rate(self) -> float | None:
        """Bytes per second, more than 0; None is no limit."""
        return self._rate

    @rate.setter
    def rate(self, rate: float | None) -> None:
        with self._lock:
            self._fill()
            self._rate = rate

    @property
    def taken(self) -> int:
        """Bytes that were let through."""
        return self._taken

    @property
    def waited_seconds(self) -> float:
        """What all threads have waited, added up; that of a thread that waits now is in it."""
        return self._waited

    def take(self, nbytes: int) -> float:
        """Wait until so many bytes may pass; give the seconds waited."""
        waited = 0.0
        while (pause := self._try(nbytes)) > 0:
            began = self._monotonic()
            self._sleep(min(pause, SLICE_SECONDS))
            passed = self._monotonic() - began
            waited += passed
            with self._lock:
                self._waited += passed
        return waited

    def _try(self, nbytes: int) -> float:
        """Let the bytes pass and give 0, else the seconds after which it is worth another try."""
        with self._lock:
            self._fill()
            if self._rate is None or self._tokens >= 0:
                self._tokens -= nbytes if self._rate is not None else 0.0
                self._taken += nbytes
                return 0.0
            return max(_LEAST_PAUSE_SECONDS, -self._tokens / self._rate)

    def _fill(self) -> None:
        now = self._monotonic()
        passed, self._filled_at = now - self._filled_at, now
        if self._rate is None:
            self._tokens = 0.0
        else:
            self._tokens = min(self._tokens + passed * self._rate, self._rate * SLICE_SECONDS)


class ReadLimit:
    """Throttle of a fixed rate: ``backup.read.limit``."""

    def __init__(self, bucket: TokenBucket) -> None:
        self._bucket = bucket

    def take(self, nbytes: int) -> float:
        """As Throttle says."""
        return self._bucket.take(nbytes)

    @property
    def throttled_seconds(self) -> float:
        """As Throttle says."""
        return self._bucket.waited_seconds

    @property
    def held_down(self) -> str | None:
        """As Throttle says."""
        rate = self._bucket.rate
        return f"backup.read.limit is {format_rate(rate)}" if rate else None
