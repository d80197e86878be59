"""The measures of a run against an independent computation from its tables."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.measures import find_cost_rates
from tests.scenes import (
    NAN,
    TRADES,
    YEAR,
    Follow,
    account_of,
    is_,
    market_of,
    measured,
    play,
    series,
    venue_of,
    walk,
)


def measure(result: bt.Result, periods: float = YEAR) -> dict[str, float]:
    """Return the measures of §7 from the tables alone."""
    bars, returns = result.bars, result.returns.to_numpy()
    hours = (bars.index[1] - bars.index[0]) / pd.Timedelta("1h")
    years = len(bars) * hours / 24 / YEAR
    unit = np.array([1.0, *bars["unit"]])
    bars_held = np.full(len(returns), 24 / hours)
    bars_held[0] -= 1  # bar 0 earns no interest
    free = (1 + result.venue.cash_rate * hours / 24 / YEAR) ** bars_held - 1
    excess = returns - free
    peak = np.maximum.accumulate(unit)
    fall = 1 - unit / peak
    trough = int(np.argmax(fall))
    top = int(np.flatnonzero(unit[: trough + 1] == peak[trough])[-1])
    back = np.flatnonzero(unit[trough:] >= peak[trough])
    end = trough + int(back[0]) if back.size else len(bars)
    losses = np.sort(-returns)
    tail = {}
    for level in (95, 99):
        var = losses[math.ceil(level / 100 * (len(losses) - 1))]
        tail |= {f"var_{level}": var, f"es_{level}": losses[losses >= var].mean()}
    traded = result.events[result.events["kind"].isin(TRADES)]
    cagr = unit[-1] ** (1 / years) - 1
    near = np.abs(bars["mark"] / bars["liquidation_price"] - 1) <= 0.1
    return (
        tail
        | {
            "total_return": unit[-1] - 1,
            "cagr": cagr,
            "volatility": returns.std(ddof=1) * math.sqrt(periods),
            "sharpe": excess.mean() / excess.std(ddof=1) * math.sqrt(periods),
            "sortino": excess.mean()
            / math.sqrt(np.mean(np.minimum(excess, 0) ** 2))
            * math.sqrt(periods),
            "max_drawdown": fall.max(),
            "drawdown_days": (end - top) * hours / 24,
            "recovered": float(back.size > 0),
            "calmar": cagr / fall.max(),
            "turnover": traded["amount"].sum() / bars["equity"].mean() / years,
            "mean_leverage": bars["leverage"].abs().mean(),
            "peak_leverage": bars["leverage"].abs().max(),
            "gross_over_cap": 0.0,  # of several positions: tests/portfolio/test_gross_cap.py
            "peak_margin_ratio": bars["margin_ratio"].max(),
            "near_liquidation_share": near.mean(),
            "final_equity": bars["equity"].iloc[-1],
            "liquidations": float((result.events["kind"] == "liquidation").sum()),
            "stops": float((result.events["kind"] == "stop").sum()),
            "margin_calls": float((result.events["kind"] == "margin_call").sum()),
        }
        | {name: bars[name].sum() for name in ("price_pnl", "fees", "slippage", "funding")}
    )


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_measures_equal_an_independent_computation(seed, inverse):
    result = measured(seed, inverse=inverse)
    expected = measure(result)
    found = {name: result.metrics[name] for name in expected}
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-10)


def test_costs_a_year_are_over_the_mean_equity():
    result = measured(1)
    rates, bars = find_cost_rates(result.tally, result.span), result.bars
    years = len(bars) / 24 / YEAR
    for name in ("fees", "slippage", "funding"):
        assert rates[name] == is_(bars[name].sum() / bars["equity"].mean() / years, 1e-9), name
    assert rates["fees"] > 0.0


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_measures_hold_with_liquidations_near_misses_and_bad_days(seed):
    result = measured(seed, leverage=9.0, liquidated=True)
    expected = measure(result)
    found = {name: result.metrics[name] for name in expected}
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-10)


def test_the_sampling_period_and_the_sessions_scale_the_ratios():
    bars = walk(24 * 20, seed=8, sigma=0.006)
    market = market_of(*bars)
    for sampling, calendar, periods in (("1d", "252", 252.0), ("4h", "365", 6 * YEAR)):
        result = bt.run(
            market, Follow(), venue=venue_of(), account=account_of(), sampling=sampling,
            calendar=calendar, compile=False,
        )  # fmt: skip
        expected = measure(result, periods)
        for name in ("sharpe", "sortino", "volatility", "var_95", "es_95"):
            assert result.metrics[name] == is_(expected[name], 1e-9), name
        assert len(result.returns) == (20 if sampling == "1d" else 120)


def test_daily_returns_are_those_of_the_last_closes_of_the_days():
    result = measured(1)
    unit = result.bars["unit"]
    ends = np.array([1.0, *unit[unit.index.hour == 23]])
    assert result.returns.to_numpy() == is_(ends[1:] / ends[:-1] - 1)


def test_a_deviation_of_zero_gives_nan_and_not_infinity():
    metrics = play(*[100] * 96, targets=1.0).metrics
    assert math.isnan(metrics["sharpe"])
    assert math.isnan(metrics["sortino"])
    assert metrics["max_drawdown"] == 0.0
    assert metrics["recovered"] == 1.0
    assert math.isnan(metrics["calmar"])


def test_the_drawdown_runs_from_its_peak_to_its_recovery():
    # 1x by the day: peak at the close of day 2, trough on day 4, back at the peak on day 6
    closes = [100, 100, 120, 110, 90, 100, 120, 130]
    bars = [(a, max(a, b), min(a, b), b) for a, b in zip([100, *closes], closes, strict=False)]
    metrics = play(*bars, targets=(1.0, NAN), interval="1d").metrics
    assert metrics["max_drawdown"] == is_(0.25)
    assert metrics["drawdown_days"] == is_(4.0)
    assert metrics["recovered"] == 1.0


def test_ruin_is_dated_and_later_returns_are_zero():
    result = play(100, 100, 80, *[90.0] * 5, targets=(10.0, 1.0), interval="1d")
    metrics = result.metrics
    assert metrics["ruined"] == 1.0
    assert metrics["ruin_time"] == is_(3.0)
    assert metrics["time_to_first_liquidation"] == is_(3.0)
    assert metrics["cagr"] == -1.0
    assert math.isnan(metrics["leverage_decay"])
    assert result.returns.tolist() == [0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert metrics["max_drawdown"] == 1.0
    assert metrics["recovered"] == 0.0


def test_returns_after_ruin_are_zero_also_where_wealth_is_left_and_earns():
    # ruined on day 2 with 500 of wealth in the reserve; a deposit on day 3 earns 0.1 % a day
    account = account_of(flows=series({72: 1000.0}), reserve=500.0, margin_call=0.8, top_up_to=0.5)
    venue = venue_of(interest_on="balance", cash_rate=0.365)
    result = play(
        100, 100, 10, *[100] * 3, targets=10.0, venue=venue, account=account, interval="1d"
    )
    assert result.metrics["ruined"] == 1.0
    assert result.returns.tolist()[3:] == [0.0, 0.0, 0.0]


def test_wealth_counts_the_reserve():
    account = account_of(margin_call=0.8, top_up_to=0.5, reserve=500.0)
    result = play(100, (100, 100, 95.5, 95.5), 95.5, targets=(10.0, NAN), account=account)
    # 1,500 of wealth lose 450; the top-up moves 405 within it
    assert result.bars["unit"].tolist() == [1.0, is_(1050 / 1500), is_(1050 / 1500)]
    assert result.metrics["total_return"] == is_(-0.3)
