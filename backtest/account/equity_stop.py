"""The equity stop of an account with several positions: all of them close together.

It acts where the equity, with every position at its last price and the collateral at its mark, is a
fraction under its highest at a close. The only position of an account without collateral has it by
the rule of a single one (:mod:`backtest.account.exits`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account.exits import USED_UP
from backtest.account.option_holdings import holds_options
from backtest.account.option_walk import HALVINGS, PARTS, value_on_segment
from backtest.account.portfolio_balance import count_open
from backtest.account.portfolio_records import (
    CASH,
    HIGHEST,
    AccountState,
    MarketBar,
    Scratch,
    Terms,
    is_held,
    is_isolated,
)
from backtest.base.units import TOLERANCE
from backtest.venue import compute_options_value

if TYPE_CHECKING:
    from backtest.base import FloatArray

CAUTION = 1e-9
"""Share of the gross notional that a quiet bar must leave: more than rounding."""


def compute_last_equity(
    terms: Terms, state: AccountState, values: FloatArray, prices: FloatArray
) -> float:
    equity = state.wallet[CASH]
    for i in range(len(state.margin)):
        if is_held(state, i):
            moved = values[i] - state.held.entries[i] if is_isolated(terms, i) else values[i]
            equity += state.held.quantities[i] * moved + state.margin[i]
    for c in range(len(state.held.amounts)):
        equity += state.held.amounts[c] * prices[c]
    if holds_options(state):
        equity += compute_options_value(state.options.positions)
    return float(equity)


def compute_stop_level(terms: Terms, state: AccountState) -> float:
    return float((1.0 - terms.equity_stop) * state.wallet[HIGHEST])


def is_drawn(terms: Terms, state: AccountState, values: FloatArray, prices: FloatArray) -> bool:
    level = compute_stop_level(terms, state) * (1.0 + TOLERANCE)
    return count_open(state) > 0 and compute_last_equity(terms, state, values, prices) <= level


def find_stop_on_segment(terms: Terms, state: AccountState, scratch: Scratch) -> float:
    if terms.equity_stop == 0.0:
        return 2.0
    if holds_options(state):
        return find_stop_with_options(terms, state, scratch)
    if is_drawn(terms, state, scratch.last, scratch.price):
        return 0.0
    if not is_drawn(terms, state, scratch.last_end, scratch.price_end):
        return 2.0
    start = compute_last_equity(terms, state, scratch.last, scratch.price)
    end = compute_last_equity(terms, state, scratch.last_end, scratch.price_end)
    place = (start - compute_stop_level(terms, state)) / (start - end)
    return float(min(max(place, 0.0), 1.0))


def compute_drawn(terms: Terms, state: AccountState, scratch: Scratch, place: float) -> float:
    value_on_segment(terms, state, scratch, place)
    values, prices = scratch.failure, state.held.prices
    for i in range(len(values)):
        start, end = scratch.last[i], scratch.last_end[i]
        values[i] = end if place == 1.0 else start + place * (end - start)
    equity = compute_last_equity(terms, state, values, prices)
    return equity - compute_stop_level(terms, state) * (1.0 + TOLERANCE)


def find_stop_with_options(terms: Terms, state: AccountState, scratch: Scratch) -> float:
    if compute_drawn(terms, state, scratch, 0.0) <= 0.0:
        return 0.0
    for part in range(1, PARTS + 1):
        if compute_drawn(terms, state, scratch, part / PARTS) <= 0.0:
            sound, failing = (part - 1) / PARTS, part / PARTS
            for _ in range(HALVINGS):
                middle = 0.5 * (sound + failing)
                if compute_drawn(terms, state, scratch, middle) <= 0.0:
                    failing = middle
                else:
                    sound = middle
            return failing
    return 2.0


def is_drawdown_near(terms: Terms, state: AccountState, quotes: MarketBar) -> bool:
    least, gross = state.wallet[CASH], abs(state.wallet[HIGHEST])
    for i in range(len(state.margin)):
        if is_held(state, i):
            held = state.held.quantities[i]
            low, high = held * quotes.low[i], held * quotes.high[i]
            ends = min(held * quotes.open[i], held * quotes.close[i])
            least += min(low, high, ends) + state.margin[i]
            gross += max(abs(low), abs(high))
            if is_isolated(terms, i):
                least -= held * state.held.entries[i]
    for c in range(len(state.held.amounts)):
        low, high = quotes.asset_mark_low[c], quotes.asset_mark_high[c]
        ends = min(quotes.asset_mark_open[c], quotes.asset_mark_close[c])
        least += min(state.held.amounts[c] * min(low, ends), state.held.amounts[c] * high)
    return not least > compute_stop_level(terms, state) + CAUTION * gross


def rescale_highest(state: AccountState, moved: float, equity: float) -> None:
    if moved != 0.0 and equity > 0.0:
        state.wallet[HIGHEST] = max(state.wallet[HIGHEST] * ((equity + moved) / equity), 0.0)


def follow_highest(terms: Terms, state: AccountState, equity: float) -> None:
    if terms.equity_stop == 0.0:
        return
    level = compute_stop_level(terms, state) * (1.0 + USED_UP)
    is_anew = count_open(state) == 0 and equity <= level
    state.wallet[HIGHEST] = equity if is_anew else max(state.wallet[HIGHEST], equity)
