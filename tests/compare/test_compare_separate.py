"""Comparisons of policies that each have an account of their own in every market."""

from pathlib import Path

import numpy as np
import pytest

import backtest as bt
from backtest.strategies import Constant, VolTarget
from tests.refusals import check_refused

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
MARKET = bt.Market.sample(bars=1_500, seed=1)
LATER = bt.Market.sample(bars=1_500, seed=2).slice(600, 1_500)
POLICIES = {"target": VolTarget(), "constant": Constant()}
TERMS = {"venue": VENUE, "account": bt.Account(), "compile": False, "draws": 99}


def compare(market, policies=POLICIES, **more):
    return bt.compare(market, policies, **{**TERMS, **more})


@pytest.mark.slow
def test_copies_of_a_market_compare_as_the_market():
    """Every measure, return and difference of two copies is that of the market alone."""
    one, two = compare(MARKET), compare({"A": MARKET, "B": MARKET}, accounts="separate")
    assert two.returns.equals(one.returns)
    assert two.table[one.table.columns].equals(one.table)
    assert two.pairs.equals(one.pairs)
    assert two.markets == ("A", "B")


def test_measures_are_means_and_returns_those_of_common_days(tmp_path: Path):
    done = compare({"A": MARKET, "B": LATER}, accounts="separate")
    runs = [bt.run(each, VolTarget(), venue=VENUE, account=bt.Account(), compile=False)
            for each in (MARKET, LATER)]  # fmt: skip
    row = done.table.loc["target"]
    assert row["sharpe"] == np.mean([run.metrics["sharpe"] for run in runs])
    assert row["sharpe B"] == runs[1].metrics["sharpe"]
    common = runs[0].returns.index.intersection(runs[1].returns.index)
    assert done.returns.index.equals(common)
    mean = (runs[0].returns[common] + runs[1].returns[common]) / 2.0
    np.testing.assert_allclose(done.returns["target"], mean, rtol=1e-15)
    loaded = bt.Comparison.load(done.save(tmp_path))
    assert loaded.summary() == done.summary()
    assert "an account of its own in each of 2 markets" in " ".join(done.summary().split())
    assert "In each market" in done.report(tmp_path / "page.html").read_text()


def test_ruins_are_counted():
    """Fifty-fold leverage is ruined in both markets, and the comparison says in how many."""
    wild = {"wild": Constant(leverage=50.0), "calm": Constant(leverage=0.5)}
    done = compare({"A": MARKET, "B": LATER}, wild, accounts="separate")
    assert done.table.loc["wild", "ruined"] == 2.0
    assert "wild was RUINED in 2 of 2 markets" in done.summary()


@pytest.mark.parametrize(("more", "problem"), [
    ({"equal_risk": True}, "equal_risk needs accounts='shared'"),
    ({"signal": {"A": 1.0}}, "one for each; B has none"),
])  # fmt: skip
def test_what_separate_accounts_do_not_take_is_one_error(more, problem):
    given = {"accounts": "separate", "market": {"A": MARKET, "B": LATER}, **more}
    check_refused(lambda: compare(given.pop("market"), **given), problem, bt.ParameterError)
