"""``Result.counted_in``: an account in coins at the marks of a market."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import backtest as bt
from tests.kit import check_refused
from tests.scenes import Follow, market_of, venue_of

COIN = venue_of(contract={"kind": "inverse", "settles": "BTC"})
PRICES = (100.0, 100.0, 125.0, 100.0)


def live(leverage: float, venue: bt.Venue = COIN, **given: Any) -> bt.Result:
    """Run an account of 1 coin of 100 dollars that trades at the second open."""
    terms = {"account": bt.Account(capital=1.0), "sampling": "1h", "compile": False}
    market = given.pop("market", None) or market_of(*PRICES, targets=[leverage, np.nan])
    return bt.run(market, Follow(), venue=venue, **terms, **given)


@pytest.mark.parametrize(("leverage", "equity"), [
    (0.0, [100.0, 100.0, 125.0, 100.0]),  # the coin
    (2.0, [100.0, 100.0, 175.0, 100.0]),  # 1 + 2 (1 - 100 / 125) = 1.4 coins, of 125
])  # fmt: skip
def test_the_equity_in_coins_counts_at_the_mark(leverage: float, equity: list[float]):
    run = live(leverage)
    found = run.counted_in(market_of(*PRICES))
    assert found.bars["equity"].tolist() == pytest.approx(equity)
    top = max(equity)
    assert found.returns.tolist() == pytest.approx([0.0, 0.0, top / 100.0 - 1.0, 100.0 / top - 1.0])
    assert found.bars["drawdown"].tolist() == pytest.approx([0.0, 0.0, 0.0, 1.0 - 100.0 / top])
    assert found.metrics["total_return"] == pytest.approx(0.0)
    assert found.metrics["max_drawdown"] == pytest.approx(1.0 - 100.0 / top)
    assert found.metrics["volatility"] == pytest.approx(
        np.std(found.returns, ddof=1) * np.sqrt(365 * 24)
    )
    assert {*found.metrics} <= {*run.metrics}


def test_a_short_of_all_coins_is_worth_the_same_dollars():
    """Shorter bars of the market serve as well: the mark of a close is that of its last bar."""
    found = live(1.0, signal=-1.0).counted_in(
        market_of(*np.repeat(PRICES, 2).tolist(), interval="30m")
    )
    assert found.bars["equity"].tolist() == pytest.approx([100.0] * 4)
    assert found.metrics["max_drawdown"] == pytest.approx(0.0)


def test_at_prices_that_stand_still_the_measures_are_those_of_the_run():
    """At 2 dollars a coin, with no interest on cash: all returns stay."""
    run = live(2.0)
    found = run.counted_in(market_of(*[2.0] * 4))
    for name in ("total_return", "cagr", "volatility", "sharpe", "sortino", "max_drawdown",
                 "calmar", "var_95", "es_99"):  # fmt: skip
        np.testing.assert_allclose(found.metrics[name], run.metrics[name], err_msg=name)
    assert found.metrics["final_equity"] == pytest.approx(2.0 * run.metrics["final_equity"])


def test_a_resumed_run_counts_from_the_mark_before_it():
    market = market_of(*PRICES, targets=[2.0, np.nan])
    whole = live(2.0, market=market).counted_in(market)
    later = live(2.0, market=market, resume=live(2.0, market=market.prefix(2))).counted_in(market)
    assert later.returns.tolist() == pytest.approx(whole.returns.tolist()[2:])


@pytest.mark.parametrize(("make", "words"), [
    (lambda: live(1.0, venue_of()).counted_in(market_of(*PRICES)),
     "needs an account in coins"),
    (lambda: live(1.0).counted_in(dataclasses.replace(market_of(*PRICES), instrument="ETHUSDT")),
     "coin of the account, BTC, got 'ETH'"),
    (lambda: live(1.0).counted_in(market_of(*PRICES[:3])), "none at 2024-01-01 04"),
    (lambda: live(1.0).counted_in(100.0), "must be a Market"),
])  # fmt: skip
def test_bad_input_is_refused(make: Any, words: str):
    check_refused(make, words, kind=bt.BacktestError)
