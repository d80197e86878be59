"""How far volatility lands from its target, with feedback and without. Prints a table.

    python benchmarks/feedback.py FOLDER... [--days 30] [--seed 1] [--count 20]

Each FOLDER holds hourly bars of BTCUSDT, ETHUSDT or LTCUSDT. In each window of ``days`` the
volatility of decided leverage times return, over the target, less one; printed are the root of its
mean square over all windows, and its mean, for each estimator and gain of ``VolTarget``. Costs,
lots and limits are left out: they are no part of the forecast. A difference in the root from gain 0
has a 95 % interval by a bootstrap of windows, the same of both.

``garch`` are ``count`` markets of four years by the hour: a GARCH(1,1) with normal noise at 60 % a
year, alpha 0.05 and beta 0.94, from ``seed`` on. Their bars have no range, so closes alone count.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import pandas as pd
from forecast_models import load_coins
from timing import read_flags

import backtest as bt
from backtest.core import FloatArray
from backtest.strategies import VolTarget

YEAR = 365 * 24
N_BARS = 4 * YEAR
VOLATILITY = 0.6
ALPHA = 0.05
BETA = 0.94
TARGET = 0.4
GAINS = (0.0, 0.001, 0.003, 0.01, 0.03)
ESTIMATORS = ("ewma", "parkinson")
SPAN = ("2020-01-10", "2024-01-01")
N_DRAWS = 2_000


def draw_garch(seed: int) -> bt.Market:
    """Return a market of four years whose variance follows a GARCH(1,1)."""
    noise = np.random.default_rng(seed).standard_normal(N_BARS)
    mean_variance = VOLATILITY**2 / YEAR
    variance = mean_variance
    returns = np.empty(N_BARS)
    for t in range(N_BARS):
        returns[t] = math.sqrt(variance) * noise[t]
        news = ALPHA * returns[t] ** 2
        variance = mean_variance * (1.0 - ALPHA - BETA) + news + BETA * variance

    close = 100.0 * np.exp(np.cumsum(returns))
    opens = np.concatenate([close[:1], close[:-1]])
    high = np.maximum(opens, close)
    low = np.minimum(opens, close)
    index = pd.date_range("2020-01-01", periods=N_BARS, freq="1h", tz="UTC")
    bars = pd.DataFrame({"open": opens, "high": high, "low": low, "close": close}, index=index)
    return bt.Market.from_frames(bars)


def measure_misses(market: bt.Market, policy: VolTarget, window: int) -> FloatArray:
    """Return realized over target volatility less one, of each window of bars, (n_windows,)."""
    sigma = policy.observe(market)["sigma"]
    leverage = (policy.target / sigma) ** policy.power
    earned = leverage[:-1] * (market.close[1:] / market.close[:-1] - 1.0)
    known = earned[np.isfinite(earned)]

    n_windows = len(known) // window
    squares = known[: n_windows * window].reshape(n_windows, window) ** 2
    realized: FloatArray = np.sqrt(YEAR * squares.mean(axis=1))
    return realized / policy.target - 1.0


def bound_difference(misses: FloatArray, plain: FloatArray) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % quantiles of the root mean square less that of gain 0."""
    drawn = np.random.default_rng(1).integers(0, len(plain), (N_DRAWS, len(plain)))
    roots = [np.sqrt((values[drawn] ** 2).mean(axis=1)) for values in (misses, plain)]
    low, high = np.quantile(roots[0] - roots[1], (0.025, 0.975))
    return float(low), float(high)


def print_rows(name: str, markets: list[bt.Market], estimator: str, window: int) -> None:
    """Print a row per gain."""
    plain = np.empty(0)
    for gain in GAINS:
        policy = VolTarget(target=TARGET, estimator=estimator, feedback=gain)
        misses = np.concatenate([measure_misses(market, policy, window) for market in markets])

        if gain == 0.0:
            plain = misses

        low, high = bound_difference(misses, plain)
        root = math.sqrt(float(np.mean(misses**2)))
        sys.stdout.write(
            f"| {name} | `{estimator}` | {gain:g} | {root:.3f} | {low:+.3f} to {high:+.3f} | "
            f"{float(misses.mean()):+.3f} |\n"
        )


def main() -> None:
    """Print the table."""
    flags = read_flags(__doc__, "folders", days=30, seed=1, count=20)
    window = 24 * flags.days
    sys.stdout.write("| market | estimator | gain | root mean square | less that of 0 | mean |\n")
    sys.stdout.write("|---|---|---|---|---|---|\n")

    drawn = [draw_garch(flags.seed + k) for k in range(flags.count)]
    print_rows("GARCH", drawn, "ewma", window)

    for coin in load_coins(flags.folders, SPAN):
        for estimator in ESTIMATORS:
            print_rows(coin.instrument, [coin], estimator, window)


if __name__ == "__main__":
    main()
