"""How fast a backup may read: what counts as a reason, and what the rate does then."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from questdb_backup.gentle.decision import (
    Decision,
    Figures,
    Lag,
    LagHistory,
    Limits,
    Pace,
    add_lags,
    decide,
    next_full,
)

MIB = 1 << 20
LIMITS = Limits(wal_lag=200)
FULL = 200.0 * MIB


def lag(growth: int, before: int = 0, *, is_new: bool = True) -> Lag:
    return Lag(table="trades", growth=growth, before=before, is_new=is_new)


def decided(pace: Pace | None = None, **figures: Any) -> Decision:
    return decide(Figures(**figures), pace or Pace(full=FULL), LIMITS)


@pytest.mark.parametrize(
    "figures",
    [
        {},
        {"io": 1.0, "memory": 1.0},
        {"io": 1.0, "memory": 1.0, "lag": lag(0)},
        {"io": 1.0, "memory": 1.0, "lag": lag(20)},
        {"io": 1.0, "lag": lag(150, 160)},
        {"cpu": 0.4},
        {"cpu": 0.9, "cpu_at_start": 0.6},
        {"lag": lag(200)},
        {"io": 0.2, "memory": 0.1, "lag": lag(150)},
    ],
)
def test_what_harms_nobody_holds_nothing_down(figures: dict[str, Any]) -> None:
    assert decided(**figures) == Decision(rate=None)


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        ({"lag": lag(201)}, "the WAL of trades is 201 transactions behind"),
        (
            {"io": 0.5, "lag": lag(21)},
            "I/O pressure is 50% while trades falls behind (21 transactions)",
        ),
        (
            {"memory": 0.11, "lag": lag(21)},
            "memory pressure is 11% while trades falls behind (21 transactions)",
        ),
        (
            {"cpu": 0.72, "cpu_at_start": 0.3},
            "others wait for a processor 72% of the time (30% at the start)",
        ),
    ],
)
def test_each_reason_halves_the_full_speed_and_says_why(figures: dict[str, Any], reason: str) -> None:
    assert decided(**figures) == Decision(rate=FULL / 2, reasons=(reason,))


def test_several_reasons_halve_once_and_are_all_told() -> None:
    decision = decided(Pace(rate=100.0 * MIB, full=FULL), io=0.9, memory=0.9, cpu=0.9, lag=lag(300))
    assert decision.rate == 50.0 * MIB
    assert len(decision.reasons) == 4


@pytest.mark.parametrize("lag_now", [lag(300, 301), lag(300, is_new=False)])
def test_a_lag_that_shrinks_or_was_acted_upon_keeps_the_rate(lag_now: Lag) -> None:
    decision = decided(Pace(rate=50.0 * MIB, full=FULL), lag=lag_now)
    assert decision.rate == 50.0 * MIB
    assert decision.reasons == ("the WAL of trades is 300 transactions behind",)


def test_an_old_sample_of_the_lag_does_not_make_io_pressure_count_twice() -> None:
    decision = decided(Pace(rate=50.0 * MIB, full=FULL), io=0.9, lag=lag(100, is_new=False))
    assert decision.rate == 50.0 * MIB
    assert decision.reasons


def test_the_least_rate_remains_however_long_the_trouble_lasts() -> None:
    pace = Pace(full=FULL)
    for _ in range(20):
        pace = Pace(rate=decided(pace, cpu=1.0).rate, full=FULL)
    assert pace.rate == FULL / 20

    assert decide(Figures(cpu=1.0), Pace(rate=5.0 * MIB, full=10.0 * MIB), LIMITS).rate == 4.0 * MIB
    assert decide(Figures(cpu=1.0), Pace(), LIMITS).rate == 4.0 * MIB


def test_when_it_is_calm_the_rate_climbs_back_in_steps_to_no_limit() -> None:
    rates: list[float | None] = [FULL / 20]
    while rates[-1] is not None:
        rates.append(decided(Pace(rate=rates[-1], full=FULL)).rate)
    assert rates[1] == FULL / 20 + FULL / 10
    assert 10 <= len(rates) <= 13


def test_a_full_speed_that_was_never_measured_does_not_keep_the_limit() -> None:
    assert decided(Pace(rate=4.0 * MIB, full=0.0)).rate is None


@given(
    io=st.none() | st.floats(0, 1),
    memory=st.none() | st.floats(0, 1),
    cpu=st.none() | st.floats(0, 1),
    start=st.floats(0, 1),
    growth=st.integers(-1000, 100_000),
    before=st.integers(-1000, 100_000),
    is_new=st.booleans(),
    rate=st.none() | st.floats(4 * MIB, 1e12),
    full=st.floats(0, 1e12),
)
def test_no_figures_ever_stop_a_backup_or_hold_it_down_without_a_word(
    io: float | None,
    memory: float | None,
    cpu: float | None,
    start: float,
    growth: int,
    before: int,
    is_new: bool,
    rate: float | None,
    full: float,
) -> None:
    figures = Figures(
        io=io, memory=memory, cpu=cpu, cpu_at_start=start, lag=lag(growth, before, is_new=is_new)
    )
    decision = decide(figures, Pace(rate=rate, full=full), LIMITS)
    assert decision.rate is None or decision.rate >= 4 * MIB
    slower = decision.rate is not None and (rate is None or decision.rate < rate)
    assert bool(decision.reasons) or not slower


def test_the_lag_is_that_of_the_table_that_fell_behind_the_most_since_the_start() -> None:
    history = add_lags(None, {"catching_up": 9000, "trades": 3})
    assert history.lag is not None
    assert history.lag.growth == 0
    history = add_lags(history, {"catching_up": 8990, "trades": 50, "new": 7})
    assert history.lag == Lag(table="trades", growth=47, before=0)
    history = add_lags(history, {"catching_up": 9001, "trades": 10})
    assert history.lag == Lag(table="catching_up", growth=11, before=47)


def test_a_table_that_was_behind_at_the_start_is_measured_from_its_best() -> None:
    history = add_lags(None, {"trades": 5000})
    history = add_lags(history, {})
    history = add_lags(history, {"trades": 300})
    assert history.lag == Lag(table="trades", growth=300, before=0)


def test_a_sample_without_any_lag_is_calm() -> None:
    history = add_lags(add_lags(LagHistory(), {"trades": 400}), {})
    assert history.lag == Lag(table="", growth=0, before=400)


def test_the_full_speed_is_learnt_only_where_nobody_waited() -> None:
    assert next_full(0.0, 100.0, was_held=False) == 100.0
    assert next_full(100.0, 200.0, was_held=False) == pytest.approx(130.0)
    assert next_full(100.0, 5.0, was_held=True) == 100.0
    assert next_full(100.0, 0.0, was_held=False) == 100.0
