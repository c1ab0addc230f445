"""The throttle that the settings ask for."""

from collections.abc import Callable

from questdb_backup.gentle.base import Chain, NoThrottle, Throttle
from questdb_backup.gentle.bucket import ReadLimit, TokenBucket
from questdb_backup.gentle.decision import Limits
from questdb_backup.gentle.pressure import PressureReader
from questdb_backup.gentle.throttle import PressureThrottle

LEAST_RATE = float(4 << 20)
LEAST_RATE_PER_WORKER = float(1 << 20)
UNIT_SECONDS = 600.0
"""Of the time that the task of a unit has; what is left is for the store."""


def largest_unit_bytes(*, read_limit: int | None, follows_pressure: bool, workers: int) -> int | None:
    """What one of so many workers can surely read in its task's time; None where nothing holds it down."""
    rates = [float(read_limit)] if read_limit is not None else []
    rates += [_least_rate(workers)] if follows_pressure else []
    return int(min(rates) / workers * UNIT_SECONDS) if rates else None


def open_throttle(
    *, read_limit: int | None, follows_pressure: bool, wal_lag: int, workers: int, conninfo: Callable[[], str]
) -> Throttle:
    """``read_limit`` in bytes per second, ``wal_lag`` in transactions; nothing is opened yet."""
    throttles: list[Throttle] = []
    if read_limit is not None:
        throttles.append(ReadLimit(TokenBucket(float(read_limit))))
    if follows_pressure:
        throttles.append(_pressure_throttle(wal_lag, workers, conninfo))
    if not throttles:
        return NoThrottle()
    return throttles[0] if len(throttles) == 1 else Chain(*throttles)


def _pressure_throttle(wal_lag: int, workers: int, conninfo: Callable[[], str]) -> PressureThrottle:
    from questdb_backup.gentle.wal_lag import WalLag

    return PressureThrottle(
        pressure=PressureReader().read,
        lags=WalLag(conninfo).read,
        limits=Limits(wal_lag=wal_lag, least_rate=_least_rate(workers)),
    )


def _least_rate(workers: int) -> float:
    return max(LEAST_RATE, LEAST_RATE_PER_WORKER * workers)
