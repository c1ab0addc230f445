"""Throttle by the pressure on the host and the WAL lag of the server: looks around, decides, holds down."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from questdb_backup.gentle.base import format_rate
from questdb_backup.gentle.bucket import TokenBucket
from questdb_backup.gentle.decision import (
    Decision,
    Figures,
    LagHistory,
    Limits,
    Pace,
    add_lags,
    decide,
    next_full,
)
from questdb_backup.gentle.pressure import PressureSample, shares

logger = logging.getLogger("questdb_backup")

LOOK_SECONDS = 1.0
LAG_SECONDS = 3.0
LAG_RETRY_SECONDS = 60.0
_LAG_COST = 20
"""The server spends a twentieth of its time on the question at most, however many tables it has."""
_IDLE_SECONDS = 60.0
_TELL_SECONDS = 10.0
_TELL_AGAIN_SECONDS = 60.0

LagReader = Callable[[], Mapping[str, int] | None]


@dataclass(slots=True)
class _Seen:
    """What the last look saw; made anew where reading begins."""

    at: float
    pressure: PressureSample
    taken: int
    waited: float
    cpu_at_start: float
    lags: LagHistory | None = None
    lag_due: float = 0.0


class PressureThrottle:
    """Throttle that follows `decide`.

    No thread of its own: whoever takes or waits looks around when it is time, one at a time. What is told
    in the log is told every ten seconds at most. After a minute without reading everything begins anew,
    since what was usual at the start of one backup need not be at that of the next.
    """

    def __init__(
        self,
        *,
        pressure: Callable[[], PressureSample],
        lags: LagReader,
        limits: Limits,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._pressure = pressure
        self._lags = lags
        self._limits = limits
        self._monotonic = monotonic
        self._sleep = sleep
        self._bucket = TokenBucket(monotonic=monotonic, sleep=self._pause)
        self._looking = threading.Lock()
        self._seen: _Seen | None = None
        self._full = 0.0
        self._decision = Decision(rate=None)
        self._told = _Told(monotonic)

    def take(self, nbytes: int) -> float:
        """As Throttle says."""
        self._look()
        return self._bucket.take(nbytes)

    @property
    def throttled_seconds(self) -> float:
        """As Throttle says."""
        return self._bucket.waited_seconds

    @property
    def held_down(self) -> str | None:
        """As Throttle says."""
        return describe(self._decision)

    def _pause(self, seconds: float) -> None:
        self._sleep(seconds)
        self._look()

    def _look(self) -> None:
        """Decide anew where it is time for it and no other thread does so."""
        if self._seen is not None and self._monotonic() - self._seen.at < LOOK_SECONDS:
            return
        if not self._looking.acquire(blocking=False):
            return
        try:
            self._look_now()
        finally:
            self._looking.release()

    def _look_now(self) -> None:
        seen, now = self._seen, self._monotonic()
        if seen is None or now - seen.at > _IDLE_SECONDS:
            self._begin()
        elif now - seen.at >= LOOK_SECONDS:
            self._decide(self._measure(seen))

    def _begin(self) -> None:
        pressure = self._pressure()
        cpu = pressure.stalls.get("cpu")
        self._full = 0.0
        self._apply(Decision(rate=None))
        self._seen = seen = _Seen(
            at=self._monotonic(),
            pressure=pressure,
            taken=self._bucket.taken,
            waited=self._bucket.waited_seconds,
            cpu_at_start=cpu.avg10 if cpu else 0.0,
        )
        self._sample_lags(seen)

    def _measure(self, seen: _Seen) -> Figures:
        """The figures since the last look; full speed is measured where nobody waited."""
        now, pressure = self._monotonic(), self._pressure()
        seconds = now - seen.at
        share = shares(seen.pressure, pressure, seconds)
        taken, waited = self._bucket.taken, self._bucket.waited_seconds
        self._full = next_full(self._full, (taken - seen.taken) / seconds, was_held=waited > seen.waited)
        seen.at, seen.pressure, seen.taken, seen.waited = now, pressure, taken, waited
        self._sample_lags(seen)
        return Figures(
            io=share.get("io"),
            memory=share.get("memory"),
            cpu=share.get("cpu"),
            cpu_at_start=seen.cpu_at_start,
            lag=seen.lags.lag if seen.lags else None,
        )

    def _sample_lags(self, seen: _Seen) -> None:
        began = self._monotonic()
        if began < seen.lag_due:
            if seen.lags and seen.lags.lag:
                seen.lags = replace(seen.lags, lag=replace(seen.lags.lag, is_new=False))
            return
        lags = self._lags()
        cost = self._monotonic() - began
        if lags is not None:
            seen.lags = add_lags(seen.lags, lags)
        elif seen.lags is not None:
            seen.lags = replace(seen.lags, lag=None)
        pause = LAG_RETRY_SECONDS if lags is None else max(LAG_SECONDS, _LAG_COST * cost)
        seen.lag_due = began + cost + pause

    def _decide(self, figures: Figures) -> None:
        pace = Pace(rate=self._bucket.rate, full=self._full)
        self._apply(decide(figures, pace, self._limits))

    def _apply(self, decision: Decision) -> None:
        self._decision = decision
        self._bucket.rate = decision.rate
        self._told.tell(decision)


class _Told:
    """Tells the log that reading is held down, and that it no longer is."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._is_held = False
        self._at: float | None = None

    def tell(self, decision: Decision) -> None:
        """Log a reason where it is news or has not been told for a minute; and the end of it once."""
        now, is_held = self._monotonic(), decision.rate is not None and bool(decision.reasons)
        if not is_held and (decision.rate is not None or not self._is_held):
            return
        pause = _TELL_AGAIN_SECONDS if is_held and self._is_held else _TELL_SECONDS
        if self._at is not None and now - self._at < pause:
            return
        self._is_held, self._at = is_held, now
        if is_held:
            logger.warning("the backup is held down to %s", describe(decision))
        else:
            logger.warning("the backup is not held down any more")


def describe(decision: Decision) -> str | None:
    """``4.0 MiB/s: the WAL of trades is 900 transactions behind``; None without a limit."""
    if decision.rate is None:
        return None
    why = ", ".join(decision.reasons) or "rising again"
    return f"{format_rate(decision.rate)}: {why}"
