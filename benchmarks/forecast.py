"""How the forecast of liquidation scores by its two settings on 2020 and 2021. Prints JSON, too.

    python benchmarks/forecast.py FOLDER [--from DAY] [--to DAY]

FOLDER holds hourly bars and mark prices of BTCUSDT. Only 2020 and 2021 are read: the settings in
``backtest/features/liquidation_forecast.py`` (degrees of freedom, and half-life of the volatility)
were chosen on these years, later ones are for judging them. At each close it is forecast whether
the mark will touch a level within a day: 5, 7, 10 and 20 % away, above and below. The log score of
a forecast p is ln p where it was touched and ln(1 - p) where not; higher is better. The table has
the means over closes and levels, times 1000, and after them how far each is behind the best, in
standard errors of the difference: of sums over whole weeks, which hardly overlap.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys

import numpy as np
import pandas as pd

import backtest as bt
from backtest.base import BoolArray, FloatArray
from backtest.features import ewma_volatility, touch_probability

HALF_LIVES = (1, 2, 3, 5, 10, 20)
"""Days."""
DEGREES = (3.0, 4.0, 5.0, 6.0, 8.0, math.inf)
DISTANCES = (0.05, 0.07, 0.10, 0.20)
BARS = 24
WEEK = 7 * 24


def find_outcomes(market: bt.Market) -> dict[float, BoolArray]:
    """Return by the logarithmic distance of a level whether it was touched within a day."""
    outcomes = {}
    for distance, side in itertools.product(DISTANCES, (1.0, -1.0)):
        signed = math.log1p(-side * distance)
        price = market.mark_close * math.exp(signed)
        low, high = pd.Series(market.mark_low), pd.Series(market.mark_high)
        fallen = low.rolling(BARS).min().shift(-BARS).to_numpy() <= price
        risen = high.rolling(BARS).max().shift(-BARS).to_numpy() >= price
        outcomes[signed] = (fallen if side > 0.0 else risen)[:-BARS]
    return outcomes


def score(sigma: FloatArray, degrees: float, outcomes: dict[float, BoolArray]) -> FloatArray:
    """Return the mean log score over the levels at each close."""
    scores = []
    with np.errstate(divide="ignore"):
        for distance, touched in outcomes.items():
            p = touch_probability(
                distance, sigma[: len(touched)], 1.0 / 365.0, degrees_of_freedom=degrees
            )
            scores.append(np.log(np.where(touched, p, 1.0 - p)))
    return np.asarray(np.mean(scores, axis=0))


def find_gap(best: FloatArray, other: FloatArray) -> float:
    """Return how far a score is behind the best, in standard errors of the difference."""
    gap = best - other
    weeks = gap[: len(gap) // WEEK * WEEK].reshape(-1, WEEK).mean(axis=1)
    error = weeks.std(ddof=1) / math.sqrt(len(weeks))
    return float(gap.mean() / error) if error > 0.0 else 0.0


def judge(market: bt.Market) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return log scores times 1000, and how far each is behind the best, by half-life and degrees.

    All are compared at the closes at which the slowest knows a volatility for a week.
    """
    outcomes = find_outcomes(market)
    found = {}
    for days, degrees in itertools.product(HALF_LIVES, DEGREES):
        sigma = ewma_volatility(market, days * 24.0)
        sigma[:WEEK] = np.nan
        found[days, degrees] = score(sigma, degrees, outcomes)[WEEK:]
    best = max(found.values(), key=np.mean)
    means = pd.Series({key: 1000.0 * each.mean() for key, each in found.items()})
    gaps = pd.Series({key: find_gap(best, each) for key, each in found.items()})
    for table in (means, gaps):
        table.index.names = ["half-life, days", "degrees"]
    return means.unstack(), gaps.unstack()


def main() -> None:
    """Score every pair of settings and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder")
    parser.add_argument("--from", dest="start", default="2020-01-01")
    parser.add_argument("--to", dest="end", default="2022-01-01")
    wanted = parser.parse_args()
    market = bt.Market.load(wanted.folder, between=(wanted.start, wanted.end))
    means, gaps = judge(market)
    sys.stdout.write(f"{market}\n\nlog score x 1000\n{means.round(2).to_string()}\n\n")
    sys.stdout.write(f"behind the best, in standard errors\n{gaps.round(1).to_string()}\n")
    report = {"log_score": json.loads(means.to_json()), "behind": json.loads(gaps.to_json())}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
