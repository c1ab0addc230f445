"""Pressure stall information of Linux: how long tasks had to wait for a resource.

The format is that of the kernel's ``Documentation/accounting/psi.rst``: ``/proc/pressure/io`` has a line
``some avg10=1.23 avg60=0.50 avg300=0.10 total=123456``; the averages in percent, the total in microseconds.
The averages lag by seconds, so shares are made from two totals.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger("questdb_backup")

RESOURCES = ("io", "memory", "cpu")
_PRESSURE = Path("/proc/pressure")
_TASKS = Path("/proc/self/task")


@dataclass(frozen=True, slots=True)
class Stall:
    """How long some task waited: as a share of the last ten seconds, and in seconds since the start."""

    avg10: float
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PressureSample:
    """What the kernel says at one moment; a resource that it does not tell of is missing."""

    stalls: Mapping[str, Stall] = field(default_factory=dict)
    own_cpu_wait: float = 0.0
    """Seconds that the threads of this process have waited for a processor."""


def parse_stall(text: str) -> Stall:
    """The ``some`` line of a pressure file. Raise ValueError where there is none."""
    for line in text.splitlines():
        kind, *words = line.split()
        if kind == "some":
            values = dict(word.partition("=")[::2] for word in words)
            if "avg10" in values and "total" in values:
                return Stall(float(values["avg10"]) / 100, float(values["total"]) / 1e6)
    raise ValueError(f"no pressure in: {text!r}")


def shares(before: PressureSample, now: PressureSample, seconds: float) -> dict[str, float]:
    """How much of the time between two samples some task waited, 0 to 1, by resource.

    The waits of this process are taken off those for a processor. Threads may wait at the same time, so
    this is the least that others have waited, not all of it.
    """
    if seconds <= 0:
        return {}
    own = {"cpu": max(0.0, now.own_cpu_wait - before.own_cpu_wait)}
    return {
        name: min(1.0, max(0.0, stall.total - before.stalls[name].total - own.get(name, 0.0)) / seconds)
        for name, stall in now.stalls.items()
        if name in before.stalls
    }


class PressureReader:
    """Reads this host's pressure. Kernels and containers without it: said once, then nothing is known."""

    def __init__(self, pressure: Path = _PRESSURE, tasks: Path = _TASKS) -> None:
        self._pressure = pressure
        self._tasks = tasks
        self._missing: set[str] = set()

    def read(self) -> PressureSample:
        """The figures of this moment."""
        stalls = {name: stall for name in RESOURCES if (stall := self._stall(name)) is not None}
        return PressureSample(stalls=stalls, own_cpu_wait=self._own_cpu_wait())

    def _stall(self, name: str) -> Stall | None:
        if name in self._missing:
            return None
        try:
            return parse_stall((self._pressure / name).read_text())
        except (OSError, ValueError) as error:
            if not self._missing:
                logger.warning(
                    "the pressure of this host is not known (%s): only WAL lag and backup.read.limit hold a"
                    " backup down",
                    error,
                )
            self._missing.add(name)
            return None

    def _own_cpu_wait(self) -> float:
        """From ``schedstat``: nanoseconds on a processor, nanoseconds waiting for one, time slices."""
        waited = 0
        for task in self._tasks.glob("*/schedstat"):
            try:
                waited += int(task.read_text().split()[1])
            except (OSError, ValueError, IndexError):
                continue  # the thread has ended, or the kernel does not count
        return waited / 1e9
