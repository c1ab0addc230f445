"""What a worker that reads a live root asks before each read."""

from typing import Protocol


class Throttle(Protocol):
    """Holds readers down. Any number of threads may use one."""

    def take(self, nbytes: int) -> float:
        """Ask to read so many bytes now; give the seconds that this call waited.

        Blocks as long as the rate that is allowed needs, sleeping at most a quarter of a second at a time.
        It never blocks for good: a least rate always remains, so every backup ends.
        """

    @property
    def throttled_seconds(self) -> float:
        """What all calls have waited, added up over all threads."""

    @property
    def held_down(self) -> str | None:
        """How fast and why, while reading is held down now; for people."""


class NoThrottle:
    """For sources that no server works on, and the twin for tests: nothing waits."""

    def take(self, nbytes: int) -> float:  # noqa: ARG002
        """Let it through."""
        return 0.0

    @property
    def throttled_seconds(self) -> float:
        """Nothing."""
        return 0.0

    @property
    def held_down(self) -> str | None:
        """Never."""
        return None


class Chain:
    """Several throttles, asked one after the other."""

    def __init__(self, *throttles: Throttle) -> None:
        self._throttles = throttles

    def take(self, nbytes: int) -> float:
        """As Throttle says."""
        return sum(throttle.take(nbytes) for throttle in self._throttles)

    @property
    def throttled_seconds(self) -> float:
        """As Throttle says."""
        return sum(throttle.throttled_seconds for throttle in self._throttles)

    @property
    def held_down(self) -> str | None:
        """As Throttle says."""
        told = [text for throttle in self._throttles if (text := throttle.held_down)]
        return "; ".join(told) or None


def format_rate(rate: float) -> str:
    """``12.5 MiB/s``."""
    return f"{rate / (1 << 20):.1f} MiB/s"
