"""The sizes that searches of leverage try, and the policies that hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np

from backtest import core, engine
from backtest.engine import AnyPolicy, Conditions
from backtest.engine.target_cuts import WORDS
from backtest.policies import Combinator, Policy
from backtest.results import Result
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


CAPS = (
    "max_leverage",
    "max_gross_leverage",
    "margin_share",
    "initial_margin",
    "venue_leverage",
    "wallet",
    "participation",
)
"""Limits of venue and account on size: beyond them a larger size holds the same."""


class Cap(NamedTuple):
    """The limit that cut most decisions of a run: its cause in words, and their share of all.

    ``leverage`` is what it left of them on average, gross.
    """

    cause: str
    share: float
    leverage: float


def find_cap(result: Result) -> Cap | None:
    """Return the limit on size that cut most decisions of a run; None if none cut any."""
    rows = result.target_cut_rows
    of_account = [row for row in rows if row.get("instrument", "all") == "all"]
    capped = [row for row in of_account if row["cause"] in CAPS]
    if not capped:
        return None

    most = max(capped, key=lambda row: float(row["share"]))
    return Cap(
        WORDS[most["cause"]],
        float(most["share"]),
        abs(float(most["mean_held"])),
    )


def find_binding_factor(cap: Cap, result: Result) -> float:
    """Return the factor on the policy of an account from which a limit binds, about.

    That is where its largest gross leverage is what the limit leaves; NaN if it decided nothing.
    """
    target = result.quotes.signal * result.of_positions("target")
    decided = np.abs(target).sum(axis=1)  # gross leverage at each close
    highest = float(np.nanmax(decided, initial=0.0))
    if not highest > 0.0:
        return math.nan
    return cap.leverage / highest


def choose_grid(
    policy: AnyPolicy | None,
    test: Conditions,
    paths: Paths,
) -> core.FloatArray:
    """Return the leverages, or factors on those of a policy, that a search scans, increasing."""
    if policy is not None:
        return np.geomspace(0.1, 20.0, 16)

    account = test.account
    most = 1000.0
    by_instrument = engine.read_venues(test.venue, paths.markets)
    venues = [*by_instrument.values()]
    for venue in venues:
        most_of_venue = max(bracket.max_leverage for bracket in venue.brackets)
        most = min(most, most_of_venue)
    if len(venues) == 1:
        most_opened = find_most_opened(venues[0], account.capital, paths)
        most = min(most, most_opened)
    for limit in (
        *core.list_values(account.max_leverage),
        *core.list_values(account.venue_leverage),
    ):
        if isinstance(limit, int | float):
            most = min(most, limit)
    least = min(0.5, 0.5 * most)
    return np.geomspace(least, most, 16)


def find_most_opened(venue: Any, capital: float, paths: Paths) -> float:
    """Return the largest leverage at which a bracket opens a position, and its fill is paid."""
    start = paths.calendar.time[0]
    (venue,) = fix_margin_tables({"": venue}, start).values()
    fee = find_newest(venue.fees.taker)
    cost = fee + find_newest(venue.slippage.rate)
    most = 0.0
    for bracket in venue.brackets:
        largest = bracket.max_leverage
        paid = largest / (1.0 + cost * largest)
        within_cap = bracket.cap / capital
        most = max(most, min(within_cap, paid))
    return most


def scale_policy(policy: AnyPolicy | None, size: float) -> AnyPolicy:
    """Return a policy of a size: one position that is held, or a policy times a factor."""
    if policy is None:
        return HoldOnce(size=size)
    scaled: Any = Scaled  # a combinator takes its policies first
    if isinstance(policy, Mapping):
        parts = policy.items()
        return {name: scaled(part, factor=size) for name, part in parts}
    combined: Policy = scaled(policy, factor=size)
    return combined


def name_size(policy: AnyPolicy | None) -> str:
    """Return what a size is: the leverage of one position, or a factor on a policy."""
    if policy is None:
        return "leverage"
    return "factor"
