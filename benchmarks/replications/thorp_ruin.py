"""How often wealth ever falls to a share of its start, Thorp (2006), against runs on walks.

    python benchmarks/replications/thorp_ruin.py [--walks 400] [--years 6] [--seed 0]

At the fraction c of the Kelly leverage wealth ever falls to the share x of its start with
probability x^(2 / c - 1). Accounts are looked at once a bar, which misses falls inside one: the
level that counts is x exp(-0.5826 s sqrt(dt)), s the volatility of wealth and dt a bar. The
tolerance is three standard errors of the share of walks.

Source: Thorp (2006), The Kelly Criterion in Blackjack, Sports Betting and the Stock Market,
Handbook of Asset and Liability Management 1, section 7; Broadie, Glasserman and Kou (1997), A
Continuity Correction for Discrete Barrier Options, Mathematical Finance 7(4), for the level.
"""

from __future__ import annotations

import math

import numpy as np
from comparison import Row, run
from paths import live, market_of, walk

from backtest.strategies import Constant

MU, SIGMA, DAYS = 1.2, 0.6, 365
FRACTIONS = (0.5, 1.0, 1.5)
LEVELS = (0.8, 0.5)


def replicate(walks: int = 400, years: int = 6, seed: int = 0) -> list[Row]:
    """Return the share of accounts that ever fell to each level, at each fraction of Kelly."""
    rng = np.random.default_rng(seed)
    lowest = np.empty((walks, len(FRACTIONS)))
    for n in range(walks):
        noise = rng.standard_normal(years * DAYS)
        market = market_of(walk(noise, MU, SIGMA, DAYS), "1D")
        for k, c in enumerate(FRACTIONS):
            found = live(market, Constant(leverage=c * MU / SIGMA**2), compile=walks > 20)
            lowest[n, k] = found.bars["equity"].min()

    # Seen once a day, a level is as one that is 0.5826 deviations of a day lower.
    rows = []
    for k, c in enumerate(FRACTIONS):
        for x in LEVELS:
            level = x * math.exp(-0.5826 * c * MU / SIGMA / math.sqrt(DAYS))
            chance = level ** (2.0 / c - 1.0)
            error = math.sqrt(chance * (1.0 - chance) / walks)
            share = float(np.mean(lowest[:, k] <= x))
            rows.append(Row(f"ever at {x:g} of the start, {c:g} Kelly", share, chance, 3.0 * error))
    return rows


def main() -> None:
    """Print the comparison."""
    run("Falls of wealth, Thorp (2006)", replicate, against="formula")


if __name__ == "__main__":
    main()
