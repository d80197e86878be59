"""Short sweeps, in plain Python."""

from typing import Annotated, Any

import numpy as np

import backtest as bt
from backtest import Choice, Range
from tests.kit import ask_test

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
ACCOUNT = bt.Account()
MARKET = bt.Market.sample(bars=400)
LEAN = bt.Venue.simple(
    taker=5e-4, slippage=1e-4, maintenance_rate=0.005, max_leverage=100, liquidation_fee=0.0125
)
CRASH = LEAN.override({"liquidation.mode": "takeover"})
"""A venue where a liquidation in cross margin takes all."""
MONEY = ("price_pnl", "fees", "slippage", "impact", "funding", "interest", "final_equity")


class Modes(bt.Policy):
    """Parameters of every kind; the scale matters in two modes, its power with one kind."""

    mode: Annotated[str, Choice("plain", "scaled", "both")] = "plain"
    scale: Annotated[float, Range(0.5, 2.0, log=True, when=("mode", ("scaled", "both")))] = 1.0
    kind: Annotated[str, Choice("x", "y", when=("mode", "both"))] = "x"
    count: Annotated[int, Range(1, 4, "turns", when=("kind", "y"))] = 2
    is_on: bool = True

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        return self.scale * self.count if self.is_on else 0.0


def run(policy: Any, sets: Any, **settings: Any) -> bt.Sweep:
    given = {"venue": VENUE, "account": ACCOUNT, "compile": False, **settings}
    return ask_test("sweep", given.pop("market", MARKET), policy, sets, **given)


def are_equal(name: str, one: float, other: float, capital: float) -> bool:
    """Return whether a measure of a row is that of its run: to 1e-9, money of the capital."""
    least = 1e-9 * capital if name in MONEY else 1e-12
    return bool(np.isclose(one, other, rtol=1e-9, atol=least, equal_nan=True))
