"""Time that passes only by sleeping, and a host whose figures a test sets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from questdb_backup.gentle.decision import Limits
from questdb_backup.gentle.pressure import PressureSample, Stall
from questdb_backup.gentle.throttle import PressureThrottle

MIB = 1 << 20


@dataclass
class Clock:
    """Time that passes only by sleeping; ``on_sleep`` sees each sleep."""

    now: float = 100.0
    slept: list[float] = field(default_factory=list)
    on_sleep: Callable[[], object] = lambda: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.on_sleep()


class Host:
    """A host with figures that a test sets, and a throttle on it."""

    def __init__(self, lag: int | None = 0) -> None:
        self.clock = Clock()
        self.cpu = 0.0
        """Share of the time that passes."""
        self.lag = lag
        self.asked: list[float] = []
        self._stalled, self._at = 0.0, self.clock.now
        self.throttle = PressureThrottle(
            pressure=self._pressure,
            lags=self._lags,
            limits=Limits(),
            monotonic=self.clock,
            sleep=self.clock.sleep,
        )

    def _pressure(self) -> PressureSample:
        self._stalled += (self.clock.now - self._at) * self.cpu
        self._at = self.clock.now
        return PressureSample(stalls={"cpu": Stall(self.cpu, self._stalled)})

    def _lags(self) -> Mapping[str, int] | None:
        self.asked.append(self.clock.now)
        return None if self.lag is None else {"trades": self.lag}

    def read(self, seconds: float, speed: float = 100.0 * MIB) -> float:
        """Read in pieces of 1 MiB, each taking its time; give the bytes per second."""
        began, count = self.clock.now, 0
        while self.clock.now - began < seconds:
            self.throttle.take(MIB)
            self.clock.now += MIB / speed
            count += 1
        return count * MIB / (self.clock.now - began)
