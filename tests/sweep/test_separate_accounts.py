"""One set scored in several markets, in an account of its own in each."""

import numpy as np
import pytest

import backtest as bt
from backtest.sweep.pooled_evaluator import PooledEvaluator
from tests.kit import check_refused

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
SETS = {"leverage": [0.5, 2.0, 60.0]}
POOLS = {"mean": np.mean, "median": np.median, "worst": np.min}


def make_markets(**bars: int) -> dict[str, bt.Market]:
    return {name: bt.Market.sample(bars=n, seed=k) for k, (name, n) in enumerate(bars.items())}


MARKETS = make_markets(BTC=400, ETH=480, LTC=360)


def sweep(market, **more):
    terms = {"venue": VENUE, "account": bt.Account(), "compile": False, **more}
    return bt.sweep(market, bt.strategies.Constant, SETS, **terms)


@pytest.fixture(scope="module")
def alone():
    return {name: sweep(market).table for name, market in MARKETS.items()}


@pytest.mark.parametrize("pool", POOLS)
def test_a_row_pools_the_rows_of_each_market(pool, alone):
    found = sweep(MARKETS, accounts="separate", pool=pool).table
    joined = POOLS[pool]
    for name in ("sharpe", "total_return", "cagr"):
        expected = joined([table[name] for table in alone.values()], axis=0)
        np.testing.assert_allclose(found[name], expected, rtol=1e-15)
    for market, table in alone.items():
        assert found[f"sharpe {market}"].tolist() == table["sharpe"].tolist()
        assert found[f"ruined {market}"].tolist() == table["ruined"].tolist()


def test_a_mapping_of_markets_is_decided_as_slowly_as_markets():
    """``decide`` was ignored for a plain mapping."""
    slow = {"accounts": "separate", "decide": "4h"}
    found = [
        sweep(given, **slow).table["sharpe"].tolist() for given in (MARKETS, bt.Markets(MARKETS))
    ]
    assert found[0] == found[1]


@pytest.mark.slow
def test_rows_hold_the_runs_of_each_market(alone):
    found = sweep(bt.Markets(MARKETS), accounts="separate")
    runs = found.replay(1)
    assert {name: run.metrics["sharpe"] for name, run in runs.items()} == {
        name: table["sharpe"].iloc[1] for name, table in alone.items()
    }
    named = {name: found.manifest[name] for name in ("accounts", "pool")}
    assert named == {"accounts": "separate", "pool": "mean"}
    assert "(mean of 3 markets)" in found.verdict


def test_settings_and_signals_may_be_tables_by_market():
    account = bt.Account(stop_loss={"BTC": 0.01, "ETH": 0.02, "LTC": 0.5})
    signal = {"BTC": 1.0, "ETH": -1.0, "LTC": 0.5}
    found = sweep(MARKETS, account=account, signal=signal, accounts="separate").table
    for name, market in MARKETS.items():
        own = sweep(market, account=account.for_instrument(name), signal=signal[name]).table
        assert found[f"sharpe {name}"].tolist() == own["sharpe"].tolist()


def test_returns_are_the_mean_on_the_days_that_all_have():
    names = {"A": MARKETS["BTC"].slice(0, 240), "B": MARKETS["BTC"].slice(48, 400)}
    evaluator = PooledEvaluator(
        bt.Markets(names), bt.strategies.Constant, venue=VENUE, account=bt.Account(), compile=False
    )
    sets = {"leverage": np.array([1.0])}
    rows = evaluator.evaluate(sets, returns=True)
    runs = evaluator.replay({"leverage": 1.0})
    series = [run.returns.to_numpy() for run in runs.values()]
    assert [len(each) for each in series] == [10, 15]  # days: 0 to 9, and 2 to 16
    expected = 0.5 * (series[0][2:] + series[1][:8])
    np.testing.assert_array_equal(rows.returns[:, 0], expected)


@pytest.mark.slow
def test_copies_of_a_market_count_as_one():
    """The deflated Sharpe ratio of four copies is that of one, as are trials and scores."""
    terms = {"venue": VENUE, "account": bt.Account(), "trials": 40, "seed": 1}
    market = bt.Market.sample(bars=1_500)
    one = bt.tune(market, bt.strategies.VolTarget, **terms).verdict
    copies = dict.fromkeys("ABCD", market)
    found = bt.tune(copies, bt.strategies.VolTarget, accounts="separate", **terms).verdict
    np.testing.assert_allclose(
        [found.deflated_sharpe, found.effective_trials, found.score, found.holdout_score],
        [one.deflated_sharpe, one.effective_trials, one.score, one.holdout_score],
        rtol=1e-9,
    )


@pytest.mark.parametrize(("more", "problem"), [
    ({"accounts": "apart"}, "accounts must be one of shared, separate, got 'apart'"),
    ({"pool": "best"}, "pool must be one of mean, median, worst, got 'best'"),
    ({"signal": {"BTC": 1.0}}, "one for each; ETH has none"),
    ({"overlay": bt.strategies.VolTarget()}, "overlay needs accounts='shared'"),
    ({"market": MARKETS["BTC"]}, "accounts='separate' needs several markets"),
])  # fmt: skip
def test_what_separate_accounts_do_not_take_is_one_error(more, problem):
    given = {"accounts": "separate", "market": MARKETS, **more}
    check_refused(lambda: sweep(given.pop("market"), **given), problem, bt.ParameterError)
