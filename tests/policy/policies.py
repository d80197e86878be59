"""Short runs of policies, in plain Python and compiled."""

from typing import Annotated, Any, NamedTuple

import backtest as bt
from backtest import Choice, Range

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT", at="latest")
MARKET = bt.Market.sample(bars=300)


def live(policy: bt.Policy, **settings: Any) -> bt.Result:
    """Run on the sample, in plain Python unless told otherwise."""
    settings = {"account": bt.Account(), "compile": False, **settings}
    return bt.run(settings.pop("market", MARKET), policy, venue=VENUE, **settings)


class Mixed(bt.Policy):
    """One parameter of each kind."""

    target: Annotated[float, Range(0.1, 2.0, "turns")] = 1.0
    count: Annotated[int, Range(1, 9)] = 3
    mode: Annotated[str, Choice("low", "high")] = "low"
    is_on: bool = True

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return a leverage that depends on all four."""
        scale = 2.0 if self.mode == "high" else 1.0
        return self.target * scale / self.count if self.is_on else 0.0


class Seen(NamedTuple):
    """What the policy below remembers."""

    bars: float
    highest: float


class Remembering(bt.Policy):
    """Count the bars, and keep the highest close."""

    def start(self) -> Seen:
        """Return nothing seen."""
        return Seen(0.0, 0.0)

    def leverage(self, bar: bt.Bar, account: bt.AccountView, memory: Seen) -> tuple[float, Seen]:
        """Return the close over the highest, and more memories."""
        highest = max(memory.highest, bar.close)
        return bar.close / highest, Seen(memory.bars + 1.0, highest)
