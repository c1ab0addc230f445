"""How fast a backup may read a live root: a pure function of what was seen.

No figure of the kernel tells who suffers: a backup that waits for its own reads makes I/O pressure on
an idle host, and a low-priority thread that waits for a processor makes processor pressure that harms
nobody. Slowing down for these alone would make every backup slow. So there are three rules:

- *WAL lag* is the witness: transactions that a table has committed but not applied, above the fewest of
  this run. Beyond its limit it counts alone; while it shrinks again, the rate is kept as it is.
- *I/O and memory pressure* count only where some table falls behind as well, by a tenth of that limit.
  They make the throttle react early, they never do it alone.
- *Processor pressure* counts without the waits of this process, which the kernel tells, and only above
  what it was when the reading began: a server that is always short of processors is no reason to crawl.

The rate is halved at each look with a reason, and grows by a tenth of the full speed at each calm one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_SLOWER = 0.5
_STEP_SHARE = 0.1
_LEAST_STEP = float(1 << 20)
_WITNESS_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """The table that has fallen behind the most, in transactions: at the last sample, and ``before`` it."""

    table: str
    growth: int
    before: int = 0
    is_new: bool = True
    """This sample was not decided upon yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was seen in one period. Shares are of its time, 0 to 1; None is not known."""

    io: float | None = None
    memory: float | None = None
    cpu: float | None = None
    """Others only: the waits of this process are taken off."""
    cpu_at_start: float = 0.0
    lag: Lag | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where a figure becomes a reason; rates in bytes per second."""

    io: float = 0.2
    memory: float = 0.1
    cpu: float = 0.4
    """Above the share at the start."""
    wal_lag: int = 200
    least_rate: float = float(4 << 20)
    least_share: float = 0.05

    def floor(self, full: float) -> float:
        """The least rate: it always remains, so that a backup ends."""
        return max(self.least_rate, full * self.least_share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast it goes: ``rate`` is the limit, None without one; ``full`` the speed without, 0 not known."""

    rate: float | None = None
    full: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The new rate in bytes per second, None without a limit; and what speaks against going faster."""

    rate: float | None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Finding:
    text: str
    slower: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LagHistory:
    """How far tables are behind: ``base`` has the fewest transactions of each since the start."""

    base: Mapping[str, int] = field(default_factory=dict)
    lag: Lag | None = None


def decide(figures: Figures, pace: Pace, limits: Limits) -> Decision:
    """The rate for the next period."""
    findings = tuple(_findings(figures, limits))
    reasons = tuple(finding.text for finding in findings)
    if any(finding.slower for finding in findings):
        return Decision(rate=_slower(pace, limits), reasons=reasons)
    if findings:
        return Decision(rate=pace.rate, reasons=reasons)
    return Decision(rate=_faster(pace))


def add_lags(history: LagHistory | None, lags: Mapping[str, int]) -> LagHistory:
    """Take in a sample: transactions behind, of the tables that are; None is the first sample."""
    if history is None:
        return LagHistory(base=dict(lags), lag=Lag(table="", growth=0))
    base = {table: min(least, lags.get(table, 0)) for table, least in history.base.items()}
    growth = {table: behind - base.get(table, 0) for table, behind in lags.items()}
    worst = max(growth, key=lambda table: growth[table], default="")
    before = history.lag.growth if history.lag else 0
    return LagHistory(base=base, lag=Lag(table=worst, growth=growth.get(worst, 0), before=before))


def next_full(full: float, speed: float, *, was_held: bool) -> float:
    """The full speed, after a period in which ``speed`` was measured; a period with waits tells nothing."""
    if was_held or speed <= 0:
        return full
    return speed if full <= 0 else 0.7 * full + 0.3 * speed


def _findings(figures: Figures, limits: Limits) -> Iterator[_Finding]:
    yield from _lag_findings(figures.lag, limits)
    yield from _pressure_findings(figures, limits)
    cpu, start = figures.cpu, figures.cpu_at_start
    if cpu is not None and cpu > start + limits.cpu:
        yield _Finding(f"others wait for a processor {cpu:.0%} of the time ({start:.0%} at the start)")


def _lag_findings(lag: Lag | None, limits: Limits) -> Iterator[_Finding]:
    if lag is not None and lag.growth > limits.wal_lag:
        # A sample is halved upon once: the next one tells whether that was enough.
        yield _Finding(
            f"the WAL of {lag.table} is {lag.growth} transactions behind",
            slower=lag.is_new and lag.growth >= lag.before,
        )


def _pressure_findings(figures: Figures, limits: Limits) -> Iterator[_Finding]:
    lag = figures.lag
    if lag is None or lag.growth < lag.before or lag.growth <= limits.wal_lag * _WITNESS_SHARE:
        return
    for what, share, limit in (
        ("I/O", figures.io, limits.io),
        ("memory", figures.memory, limits.memory),
    ):
        if share is not None and share > limit:
            yield _Finding(
                f"{what} pressure is {share:.0%} while {lag.table} falls behind ({lag.growth} transactions)",
                slower=lag.is_new,
            )


def _slower(pace: Pace, limits: Limits) -> float:
    return max(limits.floor(pace.full), _SLOWER * (pace.full if pace.rate is None else pace.rate))


def _faster(pace: Pace) -> float | None:
    if pace.rate is None or pace.rate >= pace.full:
        return None
    return pace.rate + max(_STEP_SHARE * pace.full, _LEAST_STEP)
