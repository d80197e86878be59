"""When policies that trade options are asked: at each close, or where a roll may be due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base.units import YEAR_DAYS
from backtest.policy import orders_at_rolls, trades_nothing

if TYPE_CHECKING:
    from backtest.engine.deciders import Deciders
    from backtest.engine.option_chain import OptionChain
    from backtest.engine.portfolio_recording import RunTape


class Wait(NamedTuple):
    bar: int
    contracts: tuple[int, ...]


def find_next_stop(trader: Any, deciders: Deciders, t: int, stop: int) -> int:
    if trader is None:
        return stop
    waits = [trader.waits[each.i].bar if each.i in trader.waits else t for each in trader.trades]
    due = max(t, min(waits))
    if len(deciders.rows) == 1:
        return min(due + 1, stop)
    later = np.flatnonzero(deciders.rows[due:stop] >= 0)
    return min(due + int(later[0]) + 1, stop) if len(later) else stop


def find_lost(trader: Any, tape: RunTape, t: int, stop: int) -> int:
    if trader is None or not trader.waits:
        return -1
    kept = sorted({k for each in trader.waits.values() for k in each.contracts})
    held = tape.record.options.quantity[t - tape.cursor[1] : stop - 1 - tape.cursor[1], kept]
    lost = np.flatnonzero((held == 0.0).any(axis=1))
    return t + int(lost[0]) if len(lost) else -1


def wait_for_roll(
    trader: Any, trade: Any, chain: OptionChain, t: int, *, has_ordered: bool
) -> None:
    if not chain.rolled or not orders_at_rolls(trade.policy):
        return
    feed, due = trader.listed.feed, len(trader.markets.time)
    owners, names = trader.listed.legs.owners, trader.listed.names
    own = [k for k, (i, _) in owners.items() if i == trade.i and chain.quantity_of(k) != 0.0]
    if not own and trades_nothing(trade.policy):
        trader.waits[trade.i] = Wait(due, ())
    held = [chain.held(leg) for leg in chain.rolled]
    if has_ordered or not all(held) or has_chains(trader):
        return
    numbers = [trade.contracts[each.name] for each in held if each is not None]
    if {k for k in own if names[k] in chain} != {*numbers}:
        return  # what is left over is ordered to end
    for k, roll in zip(numbers, chain.rolled.values(), strict=True):
        days = np.round(YEAR_DAYS * feed.years_close[t + 1 :, k], 9)
        ends = np.flatnonzero(~(days > roll) | np.isnan(feed.volatilities_close[t + 1 :, k]))
        due = min(due, t + 1 + int(ends[0])) if len(ends) else due
    trader.waits[trade.i] = Wait(due, tuple(numbers))


def has_chains(trader: Any) -> bool:
    listing = trader.markets.listing
    return listing is not None and bool(listing.chains)
