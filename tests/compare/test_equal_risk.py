"""Accounts compared at equal risk: each is run again at the scale that makes it so."""

import dataclasses
from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.features import bars_per_year, traded_returns
from backtest.strategies import Constant
from tests.compare.test_compare import compare, pick, run
from tests.kit import free_venue


@pytest.fixture(scope="module")
def plain():
    return compare()


class Feeling(bt.Policy):
    """Aims at a volatility of what it trades, as it was over four days."""

    target: Annotated[float, bt.Range(0.0, 10.0)] = 1.0

    def observe(self, market):
        deviation = pd.Series(traded_returns(market)).rolling(24).std().to_numpy()
        return {"sigma": deviation * np.sqrt(bars_per_year(market))}

    def leverage(self, bar, account):
        return min(self.target / bar.sigma, 20.0)


@pytest.mark.slow
def test_equal_risk_leaves_volatilities_equal(plain):
    """To a thousandth: lots of 0.001 BTC are some 20 of 10,000 money."""
    found = compare(equal_risk=True)
    target = plain.table["volatility"].min()
    np.testing.assert_allclose(found.table["volatility"], target, rtol=1e-3)
    assert found.table["scale"].max() == 1.0
    assert (found.table["scale"] > 0.0).all()
    np.testing.assert_array_equal(found.table["unscaled_volatility"], plain.table["volatility"])
    calmest = plain.table["volatility"].idxmin()
    assert found.table.loc[calmest, "fees"] == plain.table.loc[calmest, "fees"]
    assert "known only afterwards" in " ".join(found.notices)


@pytest.mark.slow
def test_a_policy_that_feels_what_it_trades_does_not_feel_the_scale():
    settings = {"venue": free_venue(), "account": bt.Account()}
    policies = {"bold": Feeling(target=1.0), "calm": Feeling(target=0.25)}
    found = compare(policies, equal_risk=True, **settings)
    volatility = found.table["volatility"]
    assert volatility["bold"] == pytest.approx(volatility["calm"], rel=1e-5)
    assert found.table.loc["bold", "scale"] == pytest.approx(0.25, rel=0.05)


@pytest.mark.slow
def test_an_account_that_holds_nothing_cannot_be_scaled():
    found_policies = {
        "none": Constant(leverage=0.0),
        "one": Constant(),
        "two": Constant(leverage=2.0),
    }
    with pytest.warns(UserWarning, match="its risk is not equal"):
        found = compare(found_policies, equal_risk=True)
    assert found.table.loc["none", "volatility"] == 0.0
    assert found.table.loc["two", "volatility"] == pytest.approx(
        found.table.loc["one", "volatility"], rel=2e-3
    )
    assert pick(found.differences, "one", "sharpe")["basis"] == "undefined"
    with pytest.raises(bt.ParameterError, match="all have a volatility of 0"):
        compare({"a": Constant(leverage=0.0), "b": Constant(leverage=0.0)}, equal_risk=True)


def test_neither_a_loaded_result_nor_a_walk_can_be_scaled(tmp_path):
    """A walk was run again with the parameters of its last span alone, without a word."""
    result = run(Constant(leverage=3.0))
    policy = {**result.manifest["policy"], "switches": []}
    walked = dataclasses.replace(result, manifest={**result.manifest, "policy": policy})
    loaded = bt.Result.load(result.save(tmp_path))
    for given, words in ((loaded, "was loaded"), (walked, "changed its parameters")):
        with pytest.raises(bt.ParameterError, match=f"'three' {words}"):
            compare({"one": Constant(), "three": given}, equal_risk=True)
