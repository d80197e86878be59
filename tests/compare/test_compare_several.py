"""A comparison of policies for several instruments has the numbers of their runs."""

import numpy as np
import pytest

import backtest as bt
from backtest.base.errors import ParameterError
from backtest.store import load_saved
from backtest.strategies import Constant, VolTarget
from tests.kit import compare_policies

MARKETS = bt.Markets({"A": bt.Market.sample(bars=480), "B": bt.Market.sample(bars=480, seed=1)})
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
TERMS = {"venue": VENUE, "account": bt.Account(), "sampling": "12h", "compile": False}
POLICIES = {"one": Constant(leverage=1), "two": Constant(leverage=2), "target": VolTarget()}


@pytest.mark.slow
def test_an_overlay_and_the_venues_of_each_are_part_of_the_terms():
    terms = {**TERMS, "venue": {"A": VENUE, "B": VENUE}}
    whole = compare_policies(MARKETS, POLICIES, draws=99, confidence=0.9, **TERMS)
    same = compare_policies(MARKETS, POLICIES, draws=99, confidence=0.9, **terms)
    assert same.manifest["venue"] == whole.manifest["venue"]
    np.testing.assert_array_equal(same.returns, whole.returns)
    half = Constant(leverage=0.5)
    scaled = compare_policies(MARKETS, POLICIES, overlay=half, draws=99, confidence=0.9, **TERMS)
    assert scaled.manifest["overlay"] == "Constant(leverage=0.5)"
    assert scaled.manifest["id"] != whole.manifest["id"]
    assert scaled.table.loc["one", "volatility"] < whole.table.loc["one", "volatility"]


class SignalVol(bt.Policy):
    """Hold less of an instrument with a larger weight, so that a scaled signal would be undone."""

    def observe(self, market):
        """Return the size of the signal."""
        return {"size": np.abs(np.broadcast_to(market.signal, market.n_bars))}

    def leverage(self, bar, account):
        """Return what makes size times leverage constant."""
        return 1.0 / bar.size


@pytest.mark.slow
def test_equal_risk_scales_the_positions_of_several():
    """Volatilities meet; neither policies nor the overlay see the scale."""
    markets, policies = MARKETS.prefix(240), {"calm": Constant(leverage=1), "bold": SignalVol()}
    given = {
        **TERMS, "sampling": "4h", "overlay": VolTarget(target=0.4, half_life=12),
        "draws": 99, "confidence": 0.9,
        "signal": {"A": 0.5, "B": 0.25},
    }  # fmt: skip
    done = compare_policies(markets, policies, equal_risk=True, **given)
    volatility = done.table["volatility"]
    assert volatility["bold"] == pytest.approx(volatility["calm"], rel=1e-3)
    assert done.table.loc["calm", "scale"] == 1.0
    assert 0.2 < done.table.loc["bold", "scale"] < 0.9
    one = bt.Markets({"A": markets["A"]})
    alone = {**given, "signal": 0.5, "overlay": None}
    single = compare_policies(markets["A"], policies, equal_risk=True, **alone)
    many = compare_policies(one, policies, equal_risk=True, **{**alone, "signal": {"A": 0.5}})
    np.testing.assert_array_equal(single.table["scale"], many.table["scale"])


@pytest.mark.filterwarnings("ignore:8 returns are too few:UserWarning")
def test_saved_runs_are_compared_without_running_again(tmp_path):
    """The numbers are those of bt.compare; another overlay or other data are refused."""
    markets, half = MARKETS.prefix(96), Constant(leverage=0.5)
    runs = [bt.run(markets, POLICIES[name], overlay=half, **TERMS) for name in ("one", "two")]
    loaded = [load_saved(each.save(tmp_path)) for each in runs]
    named = dict(zip(("one", "two"), loaded, strict=True))
    done = bt.compare(named, draws=99, confidence=0.9)
    policies = {name: POLICIES[name] for name in named}
    whole = compare_policies(markets, policies, overlay=half, draws=99, confidence=0.9, **TERMS)
    assert done.manifest["id"] == whole.manifest["id"]
    assert done.table.equals(whole.table)
    assert done.differences.equals(whole.differences)
    bare = bt.run(markets, POLICIES["two"], **TERMS)
    with pytest.raises(ParameterError, match="differs from one in overlay"):
        bt.compare({"one": loaded[0], "bare": bare})
    single = bt.run(markets["A"], POLICIES["two"], **TERMS)
    with pytest.raises(ParameterError, match="differs from one in market data"):
        bt.compare({"one": loaded[0], "single": single})


def test_accounts_are_marked_that_hang_on_the_way_inside_bars():
    account = bt.Account(take_profit=0.002, stop_loss=0.002)
    terms = {**TERMS, "account": account}
    results = {name: bt.run(MARKETS, policy, **terms) for name, policy in POLICIES.items()}
    counts = {name: each.metrics["both_reached"] for name, each in results.items()}
    done = bt.compare(results, draws=99)
    (told,) = [each for each in done.notices if each.startswith("Bars in which a take-profit")]
    assert counts["one"] > 0
    assert f"one {counts['one']:,.0f}, two {counts['two']:,.0f}" in told
    assert not any("hedge" in each for each in done.notices)
