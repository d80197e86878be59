"""Policies, venues and markets that tests of paths share, so that they compile once."""

import math
from typing import Annotated, Any

import numpy as np

import backtest as bt
from tests.kit import make_venue, market_of


class Hold(bt.Policy):
    lever: Annotated[float, bt.Range(0, 200, "turns")] = 10.0

    def leverage(self, bar, account):
        if account.position != 0.0 or account.bars_since_liquidation < 1e9:
            return math.nan
        return self.lever


def free_venue(**terms: Any) -> bt.Venue:
    """Return a venue without costs; maintenance 0.5 %, up to 200x."""
    return make_venue(maintenance_rate=0.005, max_leverage=200, **terms)


def free_account(**terms: Any) -> bt.Account:
    return bt.Account(**{"capital": 1000.0, "max_leverage": 200, **terms})


def still_market(freq: str = "1h") -> bt.Market:
    """Return two bars at 100."""
    return market_of(np.full(2, 100.0), freq, start="2023-01-01")


def liquidation_distance(lever: float) -> float:
    """Return ln(liquidation price / price) of a long: ln((L - 1) / (L (1 - 0.005)))."""
    return math.log((lever - 1.0) / (lever * 0.995))
