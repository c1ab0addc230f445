"""Retry: which retrier takes an error, and how long it waits."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from questdb_backup.engine.errors import matches


@dataclass(frozen=True, kw_only=True)
class Retrier:
    """One entry of a Retry field; times in seconds."""

    error_equals: tuple[str, ...]
    interval_seconds: int = 1
    max_attempts: int = 3
    backoff_rate: float = 2.0
    max_delay_seconds: int | None = None
    full_jitter: bool = False

    def delay(self, attempt: int) -> float:
        """Seconds before this retrier's attempt, counted from 0; with full jitter anything up to them."""
        longest = float("inf") if self.max_delay_seconds is None else float(self.max_delay_seconds)
        try:
            delay = min(self.interval_seconds * self.backoff_rate**attempt, longest)
        except OverflowError:
            delay = longest
        return random.uniform(0, delay) if self.full_jitter else delay


class RetryCounters:
    """The attempts of one visit of a state: each retrier counts its own."""

    def __init__(self, retriers: Sequence[Retrier]) -> None:
        self._retriers = retriers
        self._used = [0] * len(retriers)

    def next_delay(self, error_name: str) -> float | None:
        """Seconds before the next attempt, by the first retrier that takes the error; None for no more."""
        for index, retrier in enumerate(self._retriers):
            if matches(retrier.error_equals, error_name):
                attempt = self._used[index]
                if attempt >= retrier.max_attempts:
                    return None
                self._used[index] += 1
                return retrier.delay(attempt)
        return None
