"""Sweeps under limits that change with time: every row equals its run bit for bit."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import VolTarget
from backtest.sweep.set_evaluator import Evaluator
from tests.sweep.test_lanes import assert_rows_are_runs

INF = np.inf
MARKET = bt.Market.sample(bars=1_200)
VENUE = bt.Venue.simple(
    taker=5e-4, slippage=1e-4, maintenance_rate=0.005, max_leverage=100, liquidation_fee=0.0125
)


def by_bar(*values: float) -> pd.Series:
    """Return values that change at even distances over the market."""
    bars = np.linspace(0, len(MARKET), len(values), endpoint=False).astype(int)
    return pd.Series(list(values), index=MARKET.times[bars])


def assert_sweep_is_runs(venue: bt.Venue, account: bt.Account, sets: dict, market=MARKET) -> None:
    """Compare every set of a sweep with its run."""
    evaluator = Evaluator(market, VolTarget, venue=venue, account=account)
    rows = evaluator.evaluate(sets, returns=True)
    assert rows.done.all()
    assert_rows_are_runs(evaluator, sets, rows)


def make_sets(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"target": rng.uniform(0.5, 2.0, n), "account.band": rng.uniform(0.0, 0.2, n)}


@pytest.mark.slow
def test_rows_under_two_multipliers_are_runs():
    venue = replace(
        VENUE, initial_multiplier=by_bar(1.0, 60.0, 1.0, 25.0), maintenance_multiplier=3.0
    )
    sets = make_sets(6) | {"venue.maintenance_multiplier": np.r_[3.0, 1.0, np.nan, 3.0, 1.0, 90.0]}
    assert_sweep_is_runs(venue, bt.Account(), sets)


LIMIT = by_bar(INF, 1.5, 0.0, 3.0, 0.7)


@pytest.mark.slow
def test_rows_under_a_limit_by_date_are_runs():
    """All sets share the series; a sweep over numbers replaces it by rows."""
    account = bt.Account(max_leverage=LIMIT)
    assert_sweep_is_runs(VENUE, account, make_sets(6))
    sets = make_sets(4) | {"account.max_leverage": np.r_[1.0, 2.0, INF, 0.5]}
    assert_sweep_is_runs(VENUE, account, sets)


@pytest.mark.slow
def test_rows_in_whole_ticks_are_runs():
    venue = VENUE.override({"contract.round_to_tick": True, "contract.tick": 25.0})
    sets = make_sets(6) | {"account.stop_loss": np.r_[0.02, 0.3, 0.01, 0.02, 0.05, 0.4]}
    assert_sweep_is_runs(venue, bt.Account(max_leverage=LIMIT), sets)


@pytest.mark.slow
def test_rows_under_fee_tiers_are_runs():
    tiers = [bt.FeeTier(3e4, 3e-4, 1e-4), bt.FeeTier(1e5, 1e-4, -1e-4)]
    venue = replace(VENUE, fees=replace(VENUE.fees, maker_share=0.3, tiers=tiers))
    sets = make_sets(6) | {
        "venue.fees.taker": np.r_[5e-4, 4e-4, 5e-4, 1e-3, 5e-4, 5e-4],
        "account.capital": np.r_[1e4, 1e4, 1e3, 1e5, 2e4, 1e4],
    }
    assert_sweep_is_runs(venue, bt.Account(), sets)
    assert_sweep_is_runs(venue, bt.Account(), make_sets(6))  # the same rates: another loop


@pytest.mark.slow
def test_512_rows_under_limits_are_runs():
    """Limits by date, both multipliers, stops and full rules, in blocks of several groups."""
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT").override(
        initial_multiplier=by_bar(1.0, 40.0, 1.0), maintenance_multiplier=by_bar(1.0, 2.0, 5.0)
    )
    rng = np.random.default_rng(2)
    n = 512
    sets = {
        "target": rng.uniform(0.3, 2.0, n),
        "half_life": rng.choice([24.0, 72.0], n),
        "account.stop_loss": rng.choice([0.02, 0.05, 0.3], n),
        "account.band": rng.uniform(0.0, 0.2, n),
    }
    evaluator = Evaluator(MARKET, VolTarget, venue=venue, account=bt.Account(max_leverage=LIMIT))
    rows = evaluator.evaluate(sets, returns=True)
    assert rows.done.all()
    assert_rows_are_runs(evaluator, sets, rows, every=16)


@pytest.mark.slow
def test_a_compiled_run_under_all_of_it_is_the_plain_one():
    """A limit by date, two multipliers, ticks and tiers: the same bits compiled and plain."""
    venue = VENUE.override(
        {
            "contract.round_to_tick": True,
            "contract.tick": 5.0,
            "fees.tiers": [bt.FeeTier(3e4, 3e-4, 1e-4), bt.FeeTier(1e5, 1e-4, -1e-4)],
        },
        initial_multiplier=by_bar(1.0, 60.0, 25.0),
        maintenance_multiplier=by_bar(1.0, 2.0, 5.0),
    )
    run = {"venue": venue, "account": bt.Account(max_leverage=LIMIT)}
    compiled = bt.run(MARKET, VolTarget(target=1.5), **run)
    plain = bt.run(MARKET, VolTarget(target=1.5), compile=False, **run)
    assert compiled.record.values.tobytes() == plain.record.values.tobytes()
    assert compiled.entries.tobytes() == plain.entries.tobytes()
    assert repr(compiled.metrics) == repr(plain.metrics)
    assert compiled.manifest["compiled"] == "yes"
