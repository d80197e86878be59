"""Growth less that of constant leverage at equal risk, by market and pooled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.judgement.accounts import JudgedAccount
from backtest.results import Result, Sampled, compare_pairs
from backtest.results.result import Lack
from backtest.search.compare import LEAST_SAMPLES, sample_returns
from backtest.search.equal_risk import (
    ScaledAccount,
    explain_distance,
    measure_market,
    read_decisions,
)

POOLED = "pooled"
CONFIDENCE = 0.95
LONGEST = 1_000.0
"""Years beyond which it is not said how many a difference would take to show."""
COLUMNS = (
    "difference",
    "low",
    "high",
    "p_value",
    "n",
    "years",
    "years_needed",
    "growth",
    "constant_growth",
    "held_growth",
    "max_drawdown",
    "constant_drawdown",
    "held_drawdown",
    "constant_leverage",
    "why",
)


class DailyGrowth(NamedTuple):
    """Log growth by sampling period, from the first decision on; Series by the same times.

    ``constant`` is that of constant leverage, whose excess returns are scaled to the volatility of
    the account.
    """

    own: pd.Series[float]
    constant: pd.Series[float]
    per_year: float

    @property
    def difference(self) -> pd.Series[float]:
        return self.own - self.constant


def explain_lack(account: JudgedAccount) -> str:
    """Return why there is no constant leverage at the risk of an account; empty if there is."""
    benchmark = account.benchmark
    if isinstance(benchmark, Lack):
        return benchmark.why
    return explain_distance(benchmark)


def measure_daily(account: JudgedAccount, benchmark: ScaledAccount) -> DailyGrowth:
    """Return the log returns of an account, and of constant leverage at exactly its volatility.

    They are those of sampling periods from the first decision of the policy on.
    """
    result = account.result
    sampled = sample_returns({"policy": result, "constant": benchmark.result})
    own, constant = sampled.returns

    # Up to 1 % of volatility that is left over would favor the side with more of it.
    excess = constant - sampled.free
    spread = float(np.std(excess, ddof=1))
    ratio = 1.0
    if spread > 0.0:
        ratio = float(np.std(own - sampled.free, ddof=1)) / spread
    scaled = sampled.free + ratio * excess
    if benchmark.result is result:  # itself, to the last bit
        scaled = own

    return DailyGrowth(
        own=count_growth(result, own),
        constant=count_growth(result, scaled),
        per_year=sampled.per_year,
    )


def count_growth(result: Result, returns: core.FloatArray) -> pd.Series[float]:
    """Return the log growth by sampling period, from the first decision of an account on.

    Before it the account holds nothing, and there is nothing to compare.
    """
    decided = int(read_decisions(result).first.min())
    times = pd.DatetimeIndex(result.returns.index)
    is_counted = times.as_unit("ns").asi8 + result.interval > decided
    return pd.Series(np.log1p(returns), times)[is_counted]


def measure_growth(result: Result) -> float:
    """Return the mean log growth a year of an account from its first decision on; -inf if ruined.

    It is that of :func:`measure_daily`, of an account without a benchmark.
    """
    if result.metrics["ruined"]:
        return -math.inf
    sampled = sample_returns({"policy": result})
    (own,) = sampled.returns
    return float(count_growth(result, own).mean()) * sampled.per_year


def test_difference(
    difference: pd.Series[float],
    per_year: float,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """Return the mean of a series of log growth a year, with its 95 % interval and n.

    It is the bootstrap of ``bt.compare``, in blocks of time.
    """
    n = len(difference)
    years = n / per_year
    row: dict[str, Any] = {"n": n, "years": years}
    if n < LEAST_SAMPLES:
        counted = core.count_nouns(n, "return")
        return row | {"why": f"{counted}, under {LEAST_SAMPLES} are too few"}

    # The difference stands as the returns of a series, which is compared with one of zeros.
    nothing = np.zeros(n)
    returns = np.vstack([np.expm1(difference.to_numpy()), nothing])
    drawn = compare_pairs(
        Sampled(returns, nothing, per_year=per_year, periods=per_year),
        np.array([[0, 1]]),
        "log_growth",
        confidence=CONFIDENCE,
        draws=draws,
        rng=np.random.default_rng(seed),
    )

    gap = float(drawn.difference[0])
    high = float(drawn.high[0])
    return row | {
        "difference": gap,
        "low": float(drawn.low[0]),
        "high": high,
        "p_value": float(drawn.p_value[0]),
        "years_needed": count_years_needed(gap, high - gap, years),
        "why": "",
    }


def count_years_needed(gap: float, half: float, years: float) -> float:
    """Return after how many years an interval as noisy as this one leaves 0; NaN beyond 1,000."""
    if gap == 0.0 or not math.isfinite(half):
        return math.nan

    needed = years * (half / gap) ** 2
    if needed > LONGEST:
        return math.nan
    return needed


def describe_no_difference(n: int, per_year: float) -> dict[str, Any]:
    """Return the row of a difference that is exactly 0, of n sampling periods."""
    return {
        "difference": 0.0,
        "low": 0.0,
        "high": 0.0,
        "p_value": 1.0,
        "n": n,
        "years": n / per_year,
    }


def describe_account(account: JudgedAccount, daily: DailyGrowth | None) -> dict[str, Any]:
    """Return growth and worst drawdown of an account, its constant leverage and its market."""
    result = account.result
    held = measure_market(result)
    with np.errstate(divide="ignore"):  # an account that was ruined has -inf
        growth = float(np.log1p(result.metrics["cagr"]))
        held_growth = float(np.log1p(held["cagr"]))
    row = {
        "growth": growth,
        "held_growth": held_growth,
        "max_drawdown": float(result.metrics["max_drawdown"]),
        "held_drawdown": held["max_drawdown"],
    }

    benchmark = account.benchmark
    if daily is None or isinstance(benchmark, Lack):
        return row
    return row | {
        "growth": float(daily.own.mean()) * daily.per_year,
        "constant_growth": float(daily.constant.mean()) * daily.per_year,
        "constant_drawdown": float(benchmark.result.metrics["max_drawdown"]),
        "constant_leverage": float(benchmark.result.metrics["mean_leverage"]),
    }


def judge_growth(
    account: JudgedAccount,
    draws: int,
    seed: int,
) -> tuple[dict[str, Any], DailyGrowth | None]:
    """Return the row of one market, and its daily growth; None where nothing can be compared."""
    why = explain_lack(account)
    benchmark = account.benchmark
    if why or isinstance(benchmark, Lack):
        row = describe_account(account, None)
        row["why"] = why
        return row, None

    daily = measure_daily(account, benchmark)
    if benchmark.result is account.result:
        difference = describe_no_difference(len(daily.own), daily.per_year)
        difference["why"] = "it is constant leverage"
    else:
        difference = test_difference(daily.difference, daily.per_year, draws, seed)
    return describe_account(account, daily) | difference, daily


def pool_growth(
    daily_growth: Mapping[str, DailyGrowth],
    draws: int,
    seed: int,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the pooled row, and the daily differences by market and pooled.

    A day counts once: its difference is the mean of those of the markets that there are on it. So
    what markets have in common is resampled together, in the same blocks of time.
    """
    by_market = {name: daily.difference for name, daily in daily_growth.items()}
    table = pd.DataFrame(by_market).sort_index()
    pooled = table.mean(axis=1)
    table[POOLED] = pooled
    if not daily_growth:
        return {"why": "no market could be tested"}, table

    per_year = float(np.mean([daily.per_year for daily in daily_growth.values()]))
    if pooled.to_numpy().any():
        row = test_difference(pooled, per_year, draws, seed)
    else:
        # All markets are of constant leverage itself.
        row = describe_no_difference(len(table), per_year)
        row["why"] = ""
    return row, table
