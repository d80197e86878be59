"""Sweeps under limits that change with time: every row equals its run bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

import backtest as bt
from backtest.strategies import VolTarget
from backtest.sweep.evaluator import Evaluator
from tests.sweep.test_lanes import assert_rows_are_runs

MARKET = bt.Market.sample(bars=1_200)
VENUE = bt.Venue.simple(
    taker=5e-4, slippage=1e-4, maintenance_rate=0.005, max_leverage=100, liquidation_fee=0.0125
)


def by_bar(*values: float) -> pd.Series:
    """Return values that change at even distances over the market."""
    bars = np.linspace(0, len(MARKET), len(values), endpoint=False).astype(int)
    return pd.Series(list(values), index=MARKET.index[bars])


def assert_sweep_is_runs(venue: bt.Venue, account: bt.Account, sets: dict, market=MARKET) -> None:
    """Compare every set of a sweep with its run."""
    evaluator = Evaluator(market, VolTarget, venue=venue, account=account)
    rows = evaluator.evaluate(sets, returns=True)
    assert rows.done.all()
    assert_rows_are_runs(evaluator, sets, rows)


def make_sets(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"target": rng.uniform(0.5, 2.0, n), "account.band": rng.uniform(0.0, 0.2, n)}


def test_rows_under_two_multipliers_are_runs():
    venue = replace(
        VENUE, initial_multiplier=by_bar(1.0, 60.0, 1.0, 25.0), maintenance_multiplier=3.0
    )
    sets = make_sets(6) | {"venue.maintenance_multiplier": np.r_[3.0, 1.0, np.nan, 3.0, 1.0, 90.0]}
    assert_sweep_is_runs(venue, bt.Account(), sets)


def test_rows_under_a_margin_of_open_interest_are_runs():
    rng = np.random.default_rng(1)
    market = MARKET.with_columns(oi=rng.uniform(0.0, 6e7, len(MARKET)))
    rising = bt.OpenInterestMargin(column="oi", lower=2e7, upper=5e7)
    assert_sweep_is_runs(
        replace(VENUE, open_interest_margin=rising), bt.Account(), make_sets(4), market
    )
