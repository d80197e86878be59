"""Pairs of small accounts, and rules of transfers for tests."""

import math
from typing import Any

import pandas as pd

import backtest as bt
from tests import scenes
from tests.kit import Once

START = pd.Timestamp("2024-01-01", tz="UTC")
RATE = 0.05


class Script(bt.TransferRule):
    """Send from a to b what is said, at some hours since the start."""

    amounts: dict[str, float]
    sender: str = "a"
    receiver: str = "b"

    def transfer(self, time, accounts):
        """Return the amount of this hour."""
        hour = str(int((time - START) / pd.Timedelta("1h")))
        amount = self.amounts.get(hour, 0.0)
        return {(self.sender, self.receiver): amount} if amount else {}


class EqualRatios(bt.TransferRule):
    """Bring both accounts to one margin ratio at each close."""

    def transfer(self, time, accounts):
        """Return what the account with more backing than its share sends."""
        (one, first), (other, second) = accounts.items()
        needed = first.requirement + second.requirement

        if needed == 0.0:
            return {}
        backing = first.backing + second.backing
        excess = first.backing - first.requirement * (backing / needed)

        if excess > 0.0:
            return {(one, other): excess}
        return {(other, one): -excess} if excess < 0.0 else {}


def venue(rate: float = RATE) -> bt.Venue:
    """Return a venue without costs whose initial rate is its maintenance rate."""
    return scenes.venue_of(brackets=[scenes.bracket(leverage=1.0 / rate, rate=rate)])


def make_test(*bars: Any, capital: float = 100.0, rate: float = RATE, **terms: Any) -> bt.Backtest:
    """Return a test of hourly bars, (open, high, low, close) or one price."""
    account = terms.pop("account", scenes.account_of(capital=capital))
    market = terms.pop("market", None) or scenes.market_of(*bars)
    return bt.Backtest(market, venue=venue(rate), account=account, **terms)


def move(*closes: float) -> list[tuple[float, float, float, float]]:
    """Return bars that go straight from each close to the next; the first stands still."""
    opens = [closes[0], *closes[:-1]]
    return [(a, max(a, b), min(a, b), b) for a, b in zip(opens, closes, strict=True)]


def hold(level: float) -> bt.Policy:
    """Return a policy that buys once."""
    return Once(level=level)


def run(tests: dict[str, bt.Backtest], policies: Any, **terms: Any) -> Any:
    """Run accounts in plain Python."""
    return bt.Accounts(tests, **{"every": "1h", **terms}).run(policies, compile=False)


def same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-12)
