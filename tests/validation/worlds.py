"""Small markets and procedures for tests of validations."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np

import backtest as bt
from tests.kit import bars_market, free_venue

VENUE = free_venue().override(
    fees=bt.Fees(taker=1e-3, maker=1e-3), brackets=[bt.Bracket(0.0, 1e12, 100.0, 0.005)]
)
ACCOUNT = bt.Account(capital=10_000.0)
TERMS: dict[str, Any] = {"venue": VENUE, "account": ACCOUNT}
POLICY = """
from typing import Annotated
import backtest as bt

class Held(bt.Policy):
    \"\"\"Hold a leverage.\"\"\"
    size: Annotated[float, bt.Range(0.1, 4.0)] = 1.0
    def leverage(self, bar, account):
        return self.size
"""
"""The file of a policy."""


class Lever(bt.Policy):
    size: Annotated[float, bt.Range(0.1, 4.0)] = 1.0
    window: Annotated[int, bt.Range(1, 48)] = 12

    def observe(self, market):
        rise = np.full(market.n_bars, np.nan)
        rise[self.window :] = market.close[self.window :] / market.close[: -self.window] - 1.0
        return {"rise": rise}

    def leverage(self, bar, account):
        return self.size if bar.rise > 0.0 else 0.5 * self.size


def read_all(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder, without those that may differ between equal results."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("provenance.json", "lock")
    }


def make_market(days: int, *, seed: int = 0, drift: float = 0.0, bars: int = 4) -> bt.Market:
    """Return a random walk with some bars a day; ``drift`` is per day."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(drift / bars, 0.01, days * bars)
    close = 100.0 * np.exp(np.cumsum(steps))
    opened = np.concatenate(([100.0], close[:-1]))
    high = np.maximum(opened, close) * 1.001
    low = np.minimum(opened, close) * 0.999

    terms = {"instrument": "RANDOM"}
    return bars_market(opened, close, f"{24 // bars}h", "2024-01-01", terms, high=high, low=low)
