"""sensitivity() of several instruments: against one, and the correlations it makes."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import paths as models
from backtest.risk.sensitivity import VariedTerms, change_correlation
from tests.risk.accounts import Hold, free_account, free_venue
from tests.risk.test_panel_paths import two_markets

TERMS = {"account": free_account(), "compile": False}
TWINS = {"A": 0.5, "B": 0.5}


def days(seed: int = 0) -> bt.Market:
    """Return 40 days with funding at each open."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2023-01-01", periods=41, freq="1D", tz="UTC")
    close = 100 * np.exp(np.cumsum(0.004 + 0.02 * rng.standard_normal(41)))
    opens = np.concatenate([[100.0], close[:-1]])
    high, low = np.maximum(opens, close) * 1.01, np.minimum(opens, close) * 0.99
    frame = pd.DataFrame({"open": opens, "high": high, "low": low, "close": close}, index=index)
    return bt.Market.from_frames(frame, funding=pd.DataFrame({"rate": 0.0005}, index=index))


@pytest.mark.slow
def test_the_same_market_twice_at_half_the_size_has_the_sensitivity_of_one():
    chosen = {"factors": ["funding", "volatility"], "venue": free_venue(), **TERMS}
    one = bt.sensitivity(days(), Hold(1.5), **chosen)
    two = bt.sensitivity(bt.Markets(dict.fromkeys(TWINS, days())), Hold(1.5), **chosen)
    assert two.base == pytest.approx(one.base, rel=1e-9)
    both = (each.table["growth"].to_numpy() for each in (one, two))
    assert np.allclose(*both, rtol=1e-9)
    even = (each.table["break_even"].to_numpy() for each in (one, two))
    assert np.allclose(*even, rtol=1e-5, equal_nan=True)


@pytest.mark.slow
def test_a_signal_rule_of_several_is_varied():
    """It was for one instrument only."""
    markets = two_markets(120)
    terms = {"venue": free_venue(), **TERMS}
    found = bt.sensitivity(
        markets, Hold(2.0), signal="ma-cross:5:20", factors=["signal.fast"], **terms
    )
    changed = bt.run(markets, Hold(2.0), signal="ma-cross:10:20", **terms)
    row = found.table.loc[("signal.fast", 2.0)]
    assert row["value"] == 10.0
    assert row["growth"] == changed.metrics["cagr"]


@pytest.mark.parametrize("step", [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_correlations_are_moved_and_means_and_volatilities_stay(step):
    markets = two_markets(300)
    late = markets["ETHUSDT"].slice(50, 300)
    given = bt.Markets({"BTCUSDT": markets["BTCUSDT"], "ETHUSDT": late})
    changed = change_correlation(
        VariedTerms(given, dict.fromkeys(given, free_venue())), step
    ).market
    moves = [
        [np.diff(np.log(each[name].close[-250:])) for name in given] for each in (given, changed)
    ]
    before, after = (np.corrcoef(each)[0, 1] for each in moves)
    wanted = before + step * (1.0 - before) if step > 0.0 else (1.0 + step) * before
    assert after == pytest.approx(wanted, abs=1e-9)
    for old, new in zip(*moves, strict=True):
        assert np.mean(new) == pytest.approx(np.mean(old), abs=1e-12)
        assert np.std(new) == pytest.approx(np.std(old), rel=1e-9)
    for name in given:
        market = changed[name]
        for prefix in ("", "mark_"):
            high, low = getattr(market, f"{prefix}high"), getattr(market, f"{prefix}low")
            for end in ("open", "close"):
                assert (high >= getattr(market, prefix + end)).all()
                assert (low <= getattr(market, prefix + end)).all()
    assert np.array_equal(changed["BTCUSDT"].close[:50], given["BTCUSDT"].close[:50])
    if step == 0.0:
        assert np.allclose(changed["ETHUSDT"].high, late.high, rtol=1e-9)


@pytest.mark.slow
def test_ruin_is_that_of_paths_of_the_changed_markets():
    markets = two_markets(150)
    paths = bt.simulate_paths(markets, models.Stationary(block=6.0), paths=4, horizon="6h")
    found = bt.sensitivity(
        markets, Hold(1.0), venue=free_venue(), **TERMS, signal={"BTCUSDT": 0.5, "ETHUSDT": -0.5},
        factors=["correlation"], paths=paths,
    )  # fmt: skip
    table = found.table.loc["correlation"]
    assert list(table.index) == [-0.5, 0.5]
    assert table["p_ruin"].notna().all()
    assert found.settings["paths"]["model"]["name"] == "Stationary"
