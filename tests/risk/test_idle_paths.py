"""A risk of nothing is said to be one: no path filled an order, or limits cut the leverage."""

import pytest

import backtest as bt
from backtest import paths as models
from backtest.strategies import Constant
from tests.kit import make_venue
from tests.risk.accounts import free_account, free_venue, still_market

CALM = models.GBM(volatility=0.5)


def draw(market=None, count=20):
    """Return paths of half a day."""
    return bt.simulate_paths(market or still_market(), CALM, paths=count, horizon="12h")


@pytest.mark.parametrize("names", [(), ("A", "B")])
def test_a_risk_without_a_fill_says_so(names):
    """A band of 100 turns around no position: the probability of 0 means nothing."""
    sample = {name: bt.Market.sample(bars=60, seed=k) for k, name in enumerate(names)}
    market = bt.Markets(sample) if names else still_market()
    terms = {"venue": make_venue(), "account": free_account(max_leverage=20.0, band=100.0)}
    policy = Constant(leverage=5.0)
    with pytest.warns(bt.NoFillWarning, match="on any of 20 paths, so nothing can be liquidated"):
        risk = bt.liquidation_risk(draw(market), policy, **terms, compile=False)
    assert "band" in risk.settings["no_fill"]
    assert "! No order was filled on any path: " in risk.summary()


GIVEN = {"probability": 0.5, "horizon": "3h", "models": [CALM], "paths": 40, "compile": False}


def test_the_largest_leverage_is_one_that_can_be_opened():
    """20x up to a notional of 10,000, 4x above: 4,000 can open 4x, or 4 / (1 + 0.01 * 4) at a cost.

    It was 20, at a probability of 0, although 3.85x was held.
    """
    brackets = [
        bt.Bracket(floor=0.0, cap=10_000.0, maintenance_rate=0.005, max_leverage=20.0),
        bt.Bracket(floor=10_000.0, cap=1e9, maintenance_rate=0.01, max_leverage=4.0),
    ]
    venue = free_venue().override(brackets=brackets)
    account = free_account(capital=4_000.0)
    found = bt.max_leverage(still_market(), venue=venue, account=account, **GIVEN)
    assert found.leverage == pytest.approx(4.0)
    dear = venue.override({"fees.taker": 0.006, "slippage.rate": 0.004})
    found = bt.max_leverage(still_market(), venue=dear, account=account, **GIVEN)
    assert found.leverage == pytest.approx(4.0 / 1.04)
    assert found.table.loc["gbm", "is_limited"]
