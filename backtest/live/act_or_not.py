"""What speaks against acting on a decision."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base import format_duration, format_hours, format_percent, format_price, format_time
from backtest.live.decision import Caution
from backtest.live.next_bar import find_price
from backtest.market import find_clock

if TYPE_CHECKING:
    from backtest.engine import Setup
    from backtest.live.facts import Completed
    from backtest.live.filled_bar import Filled
    from backtest.live.next_bar import Stated
    from backtest.live.snapshot import AccountSnapshot

BY_MARGIN = ("initial_margin", "venue_leverage", "wallet", "margin_call", "max_gross_leverage")
"""Limits that belong to margin, not to a choice of the account."""

FAR, TOO_FAR = 0.1, 0.5
"""Moves from the last price that are named, and that look like a slip of the pen."""

MOST_FUNDING = 0.05
"""A larger rate of one settlement is likely a percentage: venues cap it below."""


def find_old_data(setup: Setup, now: int | None) -> Iterator[Caution]:
    """Yield that the market ends more than a bar before now."""
    end, interval = int(setup.markets.time[-1]) + setup.markets.interval, setup.markets.interval
    if now is not None and now - end > interval:
        text = (
            f"the data end at {format_time(end)}, {format_hours(now - end)} ago, "
            f"more than a bar of {format_duration(interval)}"
        )
        yield Caution(text, stops=True)
    if now is not None and now < end:
        text = f"the last bar closes at {format_time(end)}, after now, {format_time(now)}"
        yield Caution(text, stops=True)


def find_wait(setup: Setup) -> Iterator[Caution]:
    """Yield that policies do not decide at the last close."""
    markets = setup.markets
    if not find_clock(markets).is_at_close(markets.n_bars - 1):
        every = format_duration(markets.decide)
        yield Caution(f"policies decide every {every}, not at the last close", stops=False)


def find_slips(setup: Setup, stated: Stated) -> Iterator[Caution]:
    """Yield stated prices far from the last ones, and rates of funding over those of venues."""
    for name, market in setup.markets.items():
        last = (float(market.close[-1]), float(market.mark_close[-1]))
        stated_prices = find_price(market, name, stated)
        for word, price, known in zip(("price", "mark"), stated_prices, last, strict=True):
            move = price / known - 1.0
            if abs(move) > FAR and (word == "price" or name in stated.mark):
                text = (
                    f"the {word} {format_price(price)} of {name} is {format_percent(abs(move))} "
                    f"{'over' if move > 0.0 else 'under'} the last one, {format_price(known)}"
                )
                yield Caution(text, stops=abs(move) > TOO_FAR)
    for name, frame in stated.funding.items():
        largest = float(frame["rate"].abs().max()) if len(frame) else 0.0
        if largest > MOST_FUNDING:
            text = f"the funding of {name} is {format_percent(largest)} of the notional, as stated"
            yield Caution(text, stops=True)


def find_cold_columns(setup: Setup) -> Iterator[Caution]:
    """Yield the columns of policies that are not known at the last close."""
    for policy in setup.observed:
        last = policy.market.n_bars - 1
        cold = [name for name, values in policy.columns.items() if np.isnan(values[last])]
        if cold:
            text = (
                f"{type(policy.policy).__name__} does not know {', '.join(cold)} after "
                f"{last + 1:,} bars: the warm-up is too short, or the data have a gap"
            )
            yield Caution(text, stops=True)


def find_other_account(setup: Setup, snapshot: AccountSnapshot) -> Iterator[Caution]:
    """Yield positions outside the markets, other margin modes, and another time."""
    names = setup.markets.names
    others = [n for n, x in snapshot.positions.items() if n not in names and x.quantity != 0.0]
    if others:
        yield Caution(
            f"the snapshot has positions in {', '.join(others)}, which are not in the market "
            f"({', '.join(names)})",
            stops=True,
        )
    for name, held in snapshot.positions.items():
        if name not in names or held.mode is None:
            continue
        wanted = setup.account.for_instrument(name).margin
        if held.mode != wanted:
            text = f"{name} is held in {held.mode} margin, the account says {wanted}"
            yield Caution(text, stops=True)
    end = int(setup.markets.time[-1]) + setup.markets.interval
    if snapshot.time is not None and snapshot.time.value < end - setup.markets.interval:
        text = f"the snapshot is of {format_time(snapshot.time.value)}, before the last bar"
        yield Caution(text, stops=True)


def find_assumed(completed: Completed) -> Iterator[Caution]:
    """Yield what was assumed; it stops where a policy reads it."""
    for text in completed.texts:
        yield Caution(text, stops=completed.is_read)


def find_margin(setup: Setup, ratio: float) -> Iterator[Caution]:
    """Yield a margin ratio over the call."""
    call = setup.account.margin_call or 1.0
    if ratio >= call:
        text = (
            f"the margin ratio {format_percent(ratio)} is over the call at {format_percent(call)}"
        )
        yield Caution(text, stops=True)


def find_blocked(setup: Setup, filled: Filled, leverage: Any) -> Iterator[Caution]:
    """Yield positions that are closed by force at the price, and orders that margin cut to 0."""
    for i, name in enumerate(setup.markets.names):
        if filled.is_forced(i):
            text = f"{name} is stopped or liquidated at this price, which drops the decision"
            yield Caution(text, stops=True)
        cut = filled.cuts[i]
        if cut is None or filled.sum_fills(i) != 0.0 or math.isnan(leverage[name]):
            continue
        causes = [cause for cause in cut.cuts if cause in BY_MARGIN]
        if causes:
            yield Caution(f"the order of {name} was cut to 0 by {', '.join(causes)}", stops=True)
