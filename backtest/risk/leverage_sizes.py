"""The sizes that searches of leverage try, and the policies that hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from backtest import core, engine
from backtest.engine import AnyPolicy, Conditions
from backtest.policies import Combinator, Policy
from backtest.risk.paths import Paths
from backtest.risk.scenarios import fix_margin_tables
from backtest.venue import find_newest


class HoldOnce(Policy):
    size: Annotated[float, core.Range(0.0, 1000.0, "x of equity")] = 1.0

    def leverage(self, bar: Any, account: Any) -> float:  # noqa: ARG002 - the signature of a formula
        if account.position != 0.0 or account.bars_since_liquidation < 1e300:
            return math.nan
        return self.size


class Scaled(Combinator):
    factor: Annotated[float, core.Range(0.0, 1000.0, "times")] = 1.0

    def combine(self, bar: Any, account: Any, asked: Any) -> Any:  # noqa: ARG002 - as above
        return self.factor * asked[0]


def choose_grid(policy: AnyPolicy | None, test: Conditions, paths: Paths) -> core.FloatArray:
    """Return the leverages, or factors on those of a policy, that a search scans, increasing."""
    if policy is not None:
        return np.geomspace(0.1, 20.0, 16)
    account = test.account
    venues = [*engine.read_venues(test.venue, paths.markets).values()]
    most = min(1000.0, *(max(row.max_leverage for row in each.brackets) for each in venues))
    if len(venues) == 1:
        (own,) = fix_margin_tables({"": venues[0]}, paths.calendar.time[0]).values()
        cost = find_newest(own.fees.taker) + find_newest(own.slippage.rate)
        held = (
            min(row.cap / account.capital, row.max_leverage / (1.0 + cost * row.max_leverage))
            for row in own.brackets
        )
        most = min(most, max(held))
    limits = [*core.list_values(account.max_leverage), *core.list_values(account.venue_leverage)]
    most = min([most, *(each for each in limits if isinstance(each, int | float))])
    return np.geomspace(min(0.5, 0.5 * most), most, 16)


def scale_policy(policy: AnyPolicy | None, size: float) -> AnyPolicy:
    scaled: Any = Scaled  # a combinator takes its policies first
    if isinstance(policy, Mapping):
        return {name: scaled(each, factor=size) for name, each in policy.items()}
    return HoldOnce(size=size) if policy is None else scaled(policy, factor=size)
