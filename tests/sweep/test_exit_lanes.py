"""Fill modes and stops in a sweep: a row is its run."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.sweep.set_evaluator import Evaluator, Rows
from tests.cases import make_exit_case
from tests.sweep.test_lanes import Remembers, Scaled, assert_rows_are_runs

BARS, SETS, EVERY = 1_000, 512, 64
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
SIGNAL = np.where(np.arange(BARS) // 170 % 2 == 0, 1.0, -0.7)


def make_market() -> bt.Market:
    """Return the sample with a range and a target that changes size."""
    market = bt.Market.sample(bars=BARS)
    moves = pd.Series(np.abs(market.close - market.open))
    level = np.array([3.0, 8.0, 0.5])[np.arange(BARS) // 50 % 3]
    return market.with_columns(width=moves.rolling(14).mean().to_numpy(), target=level)


def check(sets: dict[str, np.ndarray], venue: bt.Venue, account: bt.Account) -> Rows:
    """Hold rows of a sweep to their runs; return all rows."""
    evaluator = Evaluator(make_market(), Remembers, venue=venue, account=account, signal=SIGNAL)
    rows = evaluator.evaluate(sets, returns=True)
    assert rows.done.all()
    assert_rows_are_runs(evaluator, sets, rows, every=EVERY)
    return rows


def draw_stops(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """Draw sets of leverages and stops, some of them tight."""
    return {
        "scale": rng.uniform(0.2, 6.0, n),
        "account.stop_loss.multiple": rng.uniform(2.0, 30.0, n),
        "account.take_profit": rng.uniform(0.01, 0.2, n),
        "account.trailing_stop": rng.uniform(0.01, 0.2, n),
        "account.equity_stop": rng.uniform(0.05, 0.6, n),
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["next_open", "next_close"])
def test_rows_with_stops_are_their_runs(mode):
    """512 sets over four kinds of stops at once."""
    account = bt.Account(
        fill=mode,
        stop_loss=bt.Multiple(4.0, "width"),
        take_profit=0.05,
        trailing_stop=0.05,
        equity_stop=0.2,
    )
    rows = check(draw_stops(np.random.default_rng(1), SETS), VENUE, account)
    assert rows.metrics["stops"].min() >= 1.0
    assert rows.metrics["take_profits"].sum() > SETS


@pytest.mark.slow
def test_rows_with_fills_at_the_same_close_are_their_runs():
    """512 sets over leverage and band, with funding, interest and a stop-loss."""
    rng = np.random.default_rng(2)
    sets = {
        "scale": rng.uniform(0.2, 9.0, SETS),
        "account.band": rng.uniform(0.0, 0.5, SETS),
        "account.stop_loss": rng.uniform(0.02, 0.5, SETS),
    }
    venue = VENUE.override(interest_on="loan", borrow_rate=0.08, cash_rate=0.02)
    rows = check(sets, venue, bt.Account(fill="same_close", stop_loss=0.1))
    assert rows.metrics["stops"].sum() > 100.0
    assert (rows.metrics["interest"] != 0.0).all()
    assert (rows.metrics["funding"] != 0.0).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_row_is_its_run_in_random_cases(seed):
    """Random markets, venues and accounts, with fill modes and stops of every kind."""
    case = make_exit_case(seed).for_engine(bt)
    account, venue = case["account"], case["venue"]
    rng = np.random.default_rng(seed)
    sets = {
        "scale": np.r_[1.0, rng.uniform(0.2, 3.0, 3)],
        "account.band": np.r_[account.band, rng.uniform(0.0, 0.5, 3)],
    }
    policy = Scaled if seed % 2 else Remembers
    evaluator = Evaluator(
        case["market"], policy, venue=venue, account=account, signal=case["signal"]
    )
    rows = evaluator.evaluate(sets, returns=True)
    assert rows.done.all()
    assert_rows_are_runs(evaluator, sets, rows)
