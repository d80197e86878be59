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
    most = 1000.0
    venues = [*engine.read_venues(test.venue, paths.markets).values()]
    for venue in venues:
        most = min(most, max(bracket.max_leverage for bracket in venue.brackets))
    if len(venues) == 1:
        most = min(most, find_most_opened(venues[0], account.capital, paths))
    for limit in (
        *core.list_values(account.max_leverage),
        *core.list_values(account.venue_leverage),
    ):
        if isinstance(limit, int | float):
            most = min(most, limit)
    return np.geomspace(min(0.5, 0.5 * most), most, 16)


def find_most_opened(venue: Any, capital: float, paths: Paths) -> float:
    """Return the largest leverage at which a bracket opens a position, and its fill is paid."""
    (venue,) = fix_margin_tables({"": venue}, paths.calendar.time[0]).values()
    cost = find_newest(venue.fees.taker) + find_newest(venue.slippage.rate)
    most = 0.0
    for bracket in venue.brackets:
        paid = bracket.max_leverage / (1.0 + cost * bracket.max_leverage)
        most = max(most, min(bracket.cap / capital, paid))
    return most


def scale_policy(policy: AnyPolicy | None, size: float) -> AnyPolicy:
    """Return a policy of a size: one position that is held, or a policy times a factor."""
    if policy is None:
        return HoldOnce(size=size)
    scaled: Any = Scaled  # a combinator takes its policies first
    if isinstance(policy, Mapping):
        return {name: scaled(part, factor=size) for name, part in policy.items()}
    combined: Policy = scaled(policy, factor=size)
    return combined


def name_size(policy: AnyPolicy | None) -> str:
    """Return what a size is: the leverage of one position, or a factor on a policy."""
    if policy is None:
        return "leverage"
    return "factor"
