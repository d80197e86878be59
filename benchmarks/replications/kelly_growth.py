"""Growth at fractions of the Kelly leverage, Thorp (2006), against runs on random walks.

    python benchmarks/replications/kelly_growth.py [--years 60] [--seed 0]

With drift mu and volatility sigma known, leverage c mu / sigma^2 grows wealth by
(c - c^2 / 2) SR^2 a year (in logarithms), SR = mu / sigma: half of Kelly has three quarters of the
full growth, twice of it none, and full Kelly the most. Pairs of hourly walks with mirrored noise
are swept over c; what is left of chance is the realised variance's error, sqrt(2 / bars) of the
drag. Each walk has four years at most: an account at 1e-9 of its capital is ruined and trades no
more, which a single walk of sixty years at 2.25 Kelly reaches.

Source: Thorp (2006), The Kelly Criterion in Blackjack, Sports Betting and the Stock Market,
Handbook of Asset and Liability Management 1, section 7.
"""

from __future__ import annotations

import math

import numpy as np
from comparison import Row, run
from paths import FREE, YEAR, FloatArray, market_of, mirrored_walks

import backtest as bt
from backtest.strategies import Constant

MU, SIGMA = 0.6, 0.6
FRACTIONS = np.round(np.arange(0.25, 2.26, 0.05), 2)
WALK = 4
"""Most years of a walk."""
SHOWN = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.25)


def grow(years: int, seed: int) -> FloatArray:
    """Return log growth a year at each fraction, the mean of all years of mirrored walks."""
    lengths = [min(WALK, years - begun) for begun in range(0, years, WALK)]
    pieces = [each * grow_once(each, seed + k) for k, each in enumerate(lengths)]
    return np.sum(pieces, axis=0) / years


def grow_once(years: int, seed: int) -> FloatArray:
    """Return log growth a year at each fraction, the mean of two mirrored walks."""
    n_bars = years * YEAR + 2  # nothing trades in the first bar
    sets = {"leverage": FRACTIONS * MU / SIGMA**2}
    growth = []
    for close in mirrored_walks(n_bars, MU, SIGMA, seed):
        sweep = bt.Backtest(market_of(close), venue=FREE, account=bt.Account(capital=1.0)).sweep(
            Constant, sets, metrics="core"
        )
        growth.append(np.log(sweep.table["final_equity"].to_numpy()) / years)
    return np.mean(growth, axis=0)


def replicate(years: int = 60, seed: int = 0) -> list[Row]:
    """Return growth as a share of full Kelly's, and the fraction where it is highest."""
    full = 0.5 * (MU / SIGMA) ** 2
    share = grow(years, seed) / full
    error = math.sqrt(2.0 / (years * YEAR))  # of the drag c^2, which both walks share
    rows = [
        Row(
            f"growth at {c:g} Kelly / full",
            float(share[np.argmin(np.abs(FRACTIONS - c))]),
            2.0 * c - c**2,
            3.0 * c**2 * error
            + 3.0 * c**4 * full / YEAR,  # and what rebalancing by the hour leaves
        )
        for c in SHOWN
    ]
    best = float(FRACTIONS[np.argmax(share)])
    # growth near its top is 1 - (c - 1)^2 and its noise c^2 error: the top moves by 3 errors
    return [*rows, Row("fraction of highest growth", best, 1.0, 0.05 + 3.0 * error)]


def main() -> None:
    """Print the comparison."""
    facts = {"mu": MU, "sigma": SIGMA, "bars_a_year": YEAR}
    run("Kelly growth, Thorp (2006)", replicate, against="formula", **facts)


if __name__ == "__main__":
    main()
