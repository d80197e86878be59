"""sensitivity(): against hand-computed growth, of several against one, and its refusals."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import paths as models
from backtest.risk.variations import scale_moves
from tests.risk.accounts import Hold, free_account, free_venue


def rising(rate: float = 0.001) -> bt.Market:
    """Return 30 days of a price that rises by 0.1 % a day, with one settlement a day."""
    index = pd.date_range("2023-01-01", periods=31, freq="1D", tz="UTC")
    close = 100 * 1.001 ** np.arange(31)
    opens = np.concatenate([[100.0], close[:-1]])
    frame = pd.DataFrame({"open": opens, "high": close, "low": opens, "close": close}, index=index)
    frame.loc[index[0], ["high", "low"]] = 100.0
    funding = pd.DataFrame({"rate": rate}, index=index)
    return bt.Market.from_frames(frame, funding=funding)


TERMS = {"account": free_account(), "compile": False}


def test_twice_the_funding_eats_the_rise():
    # a long earns 0.1 % a day of its entry and pays rate * price: with half the rise paid as
    # funding, doubling the rate eats about all of it
    found = bt.sensitivity(
        rising(0.0005), Hold(2.0), venue=free_venue(), **TERMS, factors=["funding"]
    )
    table = found.table.loc["funding"]
    assert found.base > 0.0
    assert table.loc[0.5, "change_of_growth"] > 0.0 > table.loc[2.0, "change_of_growth"]
    assert table.loc[2.0, "growth"] == pytest.approx(0.0, abs=0.1 * found.base)
    assert table["p_ruin"].isna().all()


def test_costs_that_are_0_change_nothing():
    found = bt.sensitivity(
        rising(), Hold(2.0), venue=free_venue(), **TERMS, factors=["fees", "slippage"]
    )
    assert (found.table["change_of_growth"] == 0.0).all()


@pytest.mark.slow
def test_only_what_applies_is_changed_by_default():
    found = bt.sensitivity(rising(), Hold(2.0), venue=free_venue(), **TERMS)
    assert "rates" not in found.table.index.get_level_values("factor")
    charged = free_venue(interest_on="balance", cash_rate=0.02)
    one = bt.sensitivity(rising(), Hold(0.0), venue=charged, **TERMS, factors=["rates"])
    # nothing held: the account earns 2 % a year, and 3 % with 100 bp more
    assert one.table.loc[("rates", 0.01), "growth"] == pytest.approx(0.0304, abs=1e-3)


def test_volatility_scales_moves_and_keeps_their_mean():
    market = bt.Market.sample(bars=500)
    wild = scale_moves(market, 1.5)
    before, after = (np.diff(np.log(each.close)) for each in (market, wild))
    assert after.std() == pytest.approx(1.5 * before.std())
    assert after.mean() == pytest.approx(before.mean(), abs=1e-12)
    assert np.all(wild.low <= np.minimum(wild.open, wild.close) * (1 + 1e-12))
    assert np.all(wild.high >= np.maximum(wild.open, wild.close) * (1 - 1e-12))


def test_ruin_is_that_of_paths():
    market = bt.Market.sample(bars=300)
    drawn = bt.simulate_paths(market, models.GBM, paths=60, horizon="1d")
    found = bt.sensitivity(
        market, Hold(50.0), venue=free_venue(), paths=drawn, factors=["volatility"],
        account=free_account(ruin_at=0.5), compile=False,
    )  # fmt: skip
    ruin = found.table["p_ruin"]
    assert ((ruin >= 0.0) & (ruin <= 1.0)).all()
    assert ruin.iloc[1] >= ruin.iloc[0]


@pytest.mark.parametrize(
    ("factors", "words"),
    [(["feees"], "did you mean 'fees'"), ([], "list of names"), ("fees", "list of names"),
     (["rates"], "factors with an effect .* got 'rates'"),
     (["correlation"], "got 'correlation'")],
)  # fmt: skip
def test_bad_factors_are_refused(factors, words):
    with pytest.raises(bt.ParameterError, match=words):
        bt.sensitivity(rising(), Hold(2.0), venue=free_venue(), **TERMS, factors=factors)
