"""A bar of one position in which prices move and its own order fills: nothing else acts.

Such a bar is *quiet*. Its other steps, those of :mod:`.bar`, have nothing to do, so a few tests and
one valuation take their place; a bar that may not be quiet is left to :func:`.bar.process_bar`,
which gives a quiet bar the same numbers. The notional of a position lies in a bracket of the
margin table, which is kept from bar to bar, since it rarely changes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from backtest import margin
from backtest.account import bar as bars
from backtest.account import fills, money
from backtest.account import position as p
from backtest.account import records as r
from backtest.account.equity_floors import CAUTION
from backtest.account.money import Wallet
from backtest.core import FloatArray
from backtest.core.kernels import inlined
from backtest.core.units import TOLERANCE


class One(NamedTuple):
    """The only position, and what stays the same of it while its bars are quiet.

    ``level`` is that of its margin test: 1 if it is isolated, else that of the pool.
    """

    wallet: Wallet
    position: r.PositionState
    quote: r.Quote
    plan: r.OrderPlan
    size: float
    is_inverse: bool
    is_isolated: bool
    has_stop: bool
    level: float


class Prices(NamedTuple):
    """Prices of the market, of shape (n_bars,), and the largest leverage by date."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    mark_open: FloatArray
    mark_high: FloatArray
    mark_low: FloatArray
    mark_close: FloatArray
    limit: FloatArray


class InitialBracket(NamedTuple):
    """Initial margin of notionals over ``above`` and up to ``most``: N * multiplier / leverage."""

    leverage: float
    multiplier: float
    above: float
    most: float


def may_be_quiet(terms: r.Terms, feed: r.MarketFeed, state: r.AccountState) -> bool:
    """Return whether the account has one position whose bars may be quiet."""
    if len(state.positions) != 1 or not bars.may_use_fast_path(terms, feed, state):
        return False
    rules = terms.rules
    is_plain = rules.own == 0 and not rules.has_scenarios and not rules.spot.has_any
    is_plain = is_plain and not rules.brackets.are_valued_at_entry[0]
    return bool(is_plain and terms.max_gross_leverage == math.inf and not terms.has_floor)


@inlined
def pick_prices(feed: r.MarketFeed) -> Prices:
    return Prices(
        open=feed.open[:, 0],
        high=feed.high[:, 0],
        low=feed.low[:, 0],
        mark_open=feed.mark_open[:, 0],
        mark_high=feed.mark_high[:, 0],
        mark_low=feed.mark_low[:, 0],
        mark_close=feed.mark_close[:, 0],
        limit=feed.limit[:, 0],
    )


def find_quiet_end(bar: r.AccountBar, t: int, stop: int) -> int:
    """Return the bar from t to stop up to which no payment, listing or delisting is due."""
    feed, state = bar.feed, bar.state
    if feed.span[0, 0] >= t:
        return t
    end = min(stop, feed.span[0, 1] - feed.ends[0])
    flow, event = state.cursor[r.FLOW_NEXT], state.cursor[r.FUNDING_NEXT]
    if flow < len(feed.flow_bar):
        end = min(end, feed.flow_bar[flow])
    if event < len(feed.funding_bar):
        end = min(end, feed.funding_bar[event])
    return int(end)


@inlined
def find_initial_bracket(terms: r.Terms, notional: float) -> InitialBracket:
    """Return the bracket of initial margin in which a notional lies."""
    tables = terms.rules.brackets
    x = tables.initial_multipliers[0]
    if tables.settings[0] > 0.0:
        setting = min(tables.settings[0], tables.leverages[0, 0] / x)
        return InitialBracket(setting, 1.0, -1.0, math.inf)
    above, k = -1.0, 1
    while k < tables.counts[0] and notional > tables.caps[0, k - 1]:
        above = tables.caps[0, k - 1]
        k += 1
    most = tables.caps[0, k - 1] if k < tables.counts[0] else math.inf
    return InitialBracket(tables.leverages[0, k - 1], x, above, most)


@inlined
def follow_bracket(
    terms: r.Terms, bracket: margin.MarginBracket, notional: float
) -> margin.MarginBracket:
    """Return the bracket of a notional, if it may be another one than it was."""
    if bracket.above < notional <= bracket.most:
        return bracket
    return margin.find_bracket(terms.rules.brackets, 0, notional)


@inlined
def follow_initial_bracket(
    terms: r.Terms, initial: InitialBracket, notional: float
) -> InitialBracket:
    """Return the same of the bracket of initial margin."""
    if initial.above < notional <= initial.most:
        return initial
    return find_initial_bracket(terms, notional)


@inlined
def compute_in_bracket(terms: r.Terms, bracket: margin.MarginBracket, notional: float) -> float:
    """Return the maintenance margin of a notional, which need not lie in the bracket."""
    if bracket.above < notional <= bracket.most:
        return bracket.rate * notional - bracket.amount
    return float(margin.find_maintenance(terms.rules.brackets, 0, notional))


@inlined
def value_one(one: One, prices: FloatArray, t: int) -> float:
    """Return a price of bar t as a value u."""
    return margin.compute_value(one.size, one.is_inverse, prices[t])


@inlined
def open_quietly(one: One, prices: Prices, t: int) -> float:
    """Write what decides whether an order fills at the open; return the equity there."""
    quote = one.quote
    opened = value_one(one, prices.open, t)
    quote.is_listed = 1.0
    quote.open = opened
    quote.fill = opened
    quote.limit = r.at(prices.limit, t)
    return compute_equity_of_one(one, opened)


@inlined
def compute_equity_of_one(one: One, value: float) -> float:
    """Return the equity of an account of one position, at a value u."""
    equity, position = one.wallet.cash, one.position
    if one.is_isolated:
        isolated = position.margin
        if position.quantity != 0.0:
            isolated += position.quantity * (value - position.entry)
        return equity + isolated
    if position.quantity != 0.0:
        equity += position.quantity * value
    return equity


@inlined
def is_quiet_alone(
    terms: r.Terms,
    rules: r.InstrumentRules,
    one: One,
    prices: Prices,
    bracket: margin.MarginBracket,
    t: int,
) -> bool:
    """Return whether no price of bar t can liquidate or stop the position; a bound.

    Backing less requirement is concave in the price, so it is least at an extreme.
    """
    position = one.position
    quantity = position.quantity
    if quantity == 0.0:
        return True
    if not prices.low[t] <= prices.open[t] <= prices.high[t]:
        return False
    if not prices.mark_low[t] <= prices.mark_open[t] <= prices.mark_high[t]:
        return False

    backing = one.wallet.cash
    if one.is_isolated:
        backing = position.margin - quantity * position.entry
    at_low = quantity * value_one(one, prices.mark_low, t)
    at_high = quantity * value_one(one, prices.mark_high, t)
    gross = max(abs(at_low), abs(at_high))
    at_low -= one.level * compute_in_bracket(terms, bracket, abs(at_low))
    at_high -= one.level * compute_in_bracket(terms, bracket, abs(at_high))
    if not backing + min(at_low, at_high) > CAUTION * gross:
        return False

    if not one.has_stop:
        return True
    held = r.Position(quantity, position.entry, position.margin, position.marked)
    low, high = value_one(one, prices.low, t), value_one(one, prices.high, t)
    return not p.is_stopped(rules, held, p.find_adverse(held, low, high))


@inlined
def is_sound_alone(terms: r.Terms, one: One, equity: float) -> bool:
    """Return whether equity, wallet and the test of ruin at the close need nothing done."""
    wallet = one.wallet
    is_held = one.position.quantity != 0.0
    is_backed_by_cash = one.is_isolated or not is_held
    if equity < 0.0 or (is_backed_by_cash and wallet.cash < 0.0):
        return False
    if not is_held or wallet.is_ruined != 0.0:
        return True
    wealth, paid_in = equity + wallet.reserve, wallet.paid_in
    is_under = wealth <= terms.ruin_at * paid_in * (1.0 + TOLERANCE)
    return not (is_under or equity <= p.NOTHING_LEFT * paid_in * (1.0 + TOLERANCE))


def fill_at_open(bar: r.AccountBar, t: int, equity: float) -> None:
    """Fill what the last close decided, in a bar whose steps before the fills do nothing.

    Of its quote :func:`open_quietly` has written the open; the rest that fills read is that of
    the last close, and margins that stay the same.
    """
    r.read_known(bar.feed, bar.quotes.instruments[0], t, 0)
    money.clear_ledger(bar.ledger)
    bar.state.wallet.pool_failed = 0.0
    bar.log.step[0] = 5
    fills.fill_decisions(bar, t, equity)
    bar.log.step[0] = 8


def finish_at_close(bar: r.AccountBar, t: int, before: float) -> None:
    """Take an account of some equity ``before`` from its fills at the open through the bar."""
    bars.set_quotes(bar.terms, bar.feed, bar.quotes, t)
    bars.finish_bar(bar, t, before, before + bar.state.wallet.reserve)


@inlined
def close_quietly(one: One, close: float, equity: float) -> float:
    """Mark the account at the close of a quiet bar; return the profit of the position."""
    wallet, position = one.wallet, one.position
    one.quote.mark_close = close
    position.value = close
    profit = 0.0
    if position.quantity != 0.0:
        profit += position.quantity * (close - position.marked)
        position.marked = close
    position.since += 1.0
    position.since_stop += 1.0

    wealth = wallet.equity + wallet.reserve
    wallet.pool_failed = 0.0
    wallet.since_pool += 1.0
    wallet.equity = equity
    if p.has_wealth(wealth, 0.0) and wallet.is_ruined == 0.0:
        wallet.unit = wallet.scale * (equity + wallet.reserve)
    wallet.peak = max(wallet.unit, wallet.peak)
    return profit
