"""Decisions, venues, random paths and expectations of the tests of the accounting rules.

Unless a test says otherwise: 1,000 of capital, a price of 100, one bracket of 16x and 5 %
maintenance, no costs. The decision of bar 0 fills at the open of bar 1. NaN leaves the position
alone.
"""

import math

import numpy as np
import pytest

from tests.scenes import NAN, account_of, play, series, venue_of

ONCE = (1.0, NAN)
TEN = (10.0, NAN)
FEE = {"taker": 0.001, "maker": 0.001}
YEAR = 365.0
LP = 90 / 0.95
"""Where 10x long from 100 is liquidated: -9000 + 100 P = 0.05 x 100 P, P = 94.7368."""


def is_(value, rel=1e-12):
    """Equal but for the last bits."""
    return pytest.approx(value, rel=rel, abs=1e-9)


def slip(rate=0.01, **more):
    return venue_of(slippage={"rate": rate, **more})


def coin_venue(**changes):
    """One contract is one dollar, settled in the coin."""
    return venue_of(contract={"kind": "inverse"}, **changes)


def dies(**liquidation):
    """A venue with other rules of liquidation."""
    return venue_of(liquidation=liquidation)


def walk(n, *, seed=0, sigma=0.01, gap=0.0, price=100.0):
    """Return a random path of bars: each opens at the last close, or a gap away from it."""
    rng = np.random.default_rng(seed)
    moves = sigma * rng.standard_normal(n)
    gaps = gap * rng.standard_normal(n)
    close = price * np.exp(np.cumsum(moves + gaps))
    start = close / np.exp(moves)
    wick = np.exp(0.3 * sigma * np.abs(rng.standard_normal((2, n))))
    high, low = np.maximum(start, close) * wick[0], np.minimum(start, close) / wick[1]
    return [tuple(map(float, bar)) for bar in zip(start, high, low, close, strict=True)]


def measured(seed, *, leverage=3.0, inverse=False, liquidated=False, **market):
    """Return a run of a month with costs, funding, interest and flows."""
    bars = walk(24 * 30, seed=seed, sigma=0.006 if not liquidated else 0.008)
    stamps = [(h + 0.0, 0.0003 * math.cos(h)) for h in range(8, 24 * 30, 8)]
    venue = venue_of(
        contract={"kind": "inverse"} if inverse else {},
        fees={"taker": 0.0004, "maker": 0.0004},
        slippage={"rate": 0.0002},
        # the traded notional of a liquidation is the one at its price: no worsening here
        liquidation={"fee": 0.01, "slippage": 0.0},
        interest_on="balance",
        cash_rate=0.04,
    )
    account = account_of(band=0.3, flows=series({24 * 10: 300.0, 24 * 20 + 5.5: -200.0}))
    targets = [leverage, *[NAN] * 23] * 30 if liquidated else leverage
    return play(*bars, targets=targets, venue=venue, account=account, funding=stamps, **market)
