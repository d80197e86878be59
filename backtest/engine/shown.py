"""What policies are shown of the account and of the bar at a close, as numbers in one array.

A policy that runs compiled reads its account and its bar from memory. So what it may see is written
into :attr:`Deciders.shown` and :attr:`Deciders.bar` before it is asked: first the totals, which all
policies see, then what only the policy of one instrument sees, or the overlay.

====================  ==============================================================================
word                  what it is, and its unit
====================  ==============================================================================
t                     bar of the market
k                     bar that policies see; the same as t, unless they decide on longer bars
shown                 the account that a policy sees, an entry a field of its view
overlay               the policy of the whole account, asked after those of the instruments
wallet, reserve       money in the account, and money outside it: settlement currency
ratio                 margin needed over margin that backs: at 1 a pool fails
====================  ==============================================================================
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest import account as a
from backtest import margin

if TYPE_CHECKING:
    from backtest.core import FloatArray, IntArray
    from backtest.engine.closes import CloseFacts

(
    SHOWN_EQUITY, SHOWN_PEAK, SHOWN_DRAWDOWN, SHOWN_LEVERAGE, SHOWN_POSITION, SHOWN_ENTRY,
    SHOWN_WALLET, SHOWN_RESERVE, SHOWN_MAINTENANCE, SHOWN_RATIO, SHOWN_PRICE, SHOWN_SINCE,
    SHOWN_SINCE_STOP, SHOWN_DAYS, SHOWN_GROSS, SHOWN_NET, SHOWN_POOL_RATIO,
) = range(17)  # fmt: skip
"""Entries of ``Deciders.shown``.

The first N_SHOWN stand in the order of :class:`backtest.policies.AccountView`; the ratio of the
pool is a step on the way to that of a position, and is not shown.
"""
N_SHOWN = 16
SETTING = 17
"""Entry of ``shown`` into which a policy writes the venue leverage that it decides."""
PART, WHOLE = 1, 2
"""What a policy reads of the account: PART of it, without its margin, or the WHOLE of it."""
OPEN, HIGH, LOW, CLOSE, MARK_CLOSE, VOLUME, FUNDING = range(7)
"""Entries of ``Deciders.bar``; ``seen_bars`` has the first six of longer bars."""
MARGIN_NUMBERS = (
    "close_fee", "taker", "size", "setting", "is_inverse", "is_isolated", "is_valued_at_entry",
    "multiplier", "initial_multiplier",
)  # fmt: skip
"""Entries of ``Deciders.margin``: the fields of ``MarginRules`` that are no column of a table."""


class Deciders(NamedTuple):
    """The policies: those of the n instruments, and last the overlay.

    Parameters, columns and memory of the policies are flat arrays; those of policy i begin at
    ``params_at[i]``, ``columns_at[i]`` and ``memory_at[i]``. One number follows the memory: the
    highest unit value at a decision, where policies do not decide at each close.

    Code
        ``methods`` are called in plain Python; compiled code calls ``addresses``.
    Columns
        Those of policy i are ``lengths[i]`` apart. Bar k is its bar ``k - firsts[i]``, and it is
        asked from its bar ``known[i]`` on, before which some column has had no value yet.
    What a policy reads
        ``asks`` is 1 if there is a policy, ``wants_price`` if it reads the liquidation price,
        ``wants_table`` if it reads the brackets, ``wants_bar`` if it reads anything of the bar but
        its columns, ``sets_margin`` if it decides the venue leverage. ``wants_account`` is 0 if it
        reads nothing of the account, else :data:`PART` or :data:`WHOLE`.
    Longer bars
        Where policies do not decide at each close, ``rows`` says which longer bar closes there, as
        :class:`backtest.market.clock.PolicyClock` does; ``seen_time`` has the opens of the longer
        bars, ``seen_bars`` of shape (6, bars, n) their prices and volume.
    What they are shown
        ``shown`` is the view of the account and ``bar`` that of the bar; ``index_bars`` has a bar
        of the whole market for the overlay. ``margin`` and ``levels`` are room for the margin rules
        that a policy sees, ``width`` is the most brackets. ``tradable`` of shape (bars, n) is 1
        where an order may fill. ``interval`` is the length of a bar and ``start`` (1,) when the
        account began, ns.
    """

    methods: Any
    addresses: IntArray
    params: FloatArray
    params_at: IntArray
    columns: FloatArray
    columns_at: IntArray
    lengths: IntArray
    firsts: IntArray
    known: IntArray
    memory: FloatArray
    memory_at: IntArray
    asks: IntArray
    wants_price: IntArray
    wants_table: IntArray
    wants_account: IntArray
    wants_bar: IntArray
    sets_margin: IntArray
    index_bars: FloatArray
    rows: IntArray
    seen_time: IntArray
    seen_bars: FloatArray
    tradable: IntArray
    shown: FloatArray
    bar: FloatArray
    margin: FloatArray
    levels: FloatArray
    width: int
    interval: int
    start: IntArray


def sees_longer_bars(deciders: Deciders) -> bool:
    """Return whether policies decide on longer bars than those of the market."""
    return len(deciders.rows) > 1


def show_account_totals(
    bar: a.AccountBar, deciders: Deciders, close: CloseFacts, days: float
) -> None:
    """Write what all policies see of the whole account at a close into ``deciders.shown``.

    ``shown`` is an array with a number for each field of the account that policies read. ``close``
    has exposure and margin at that close; ``days`` counts from the start of the account.
    """
    state = bar.state
    shown = deciders.shown
    wallet = state.wallet
    equity = wallet.equity
    unit = wallet.unit

    # The drawdown is one of the unit value, which deposits do not move. A policy that decides on
    # longer bars measures it from the highest unit value at its own closes.
    peak = wallet.peak
    if sees_longer_bars(deciders):
        peak = deciders.memory[-1]
    shown[SHOWN_EQUITY] = equity
    shown[SHOWN_PEAK] = equity * (peak / unit if unit != 0.0 else math.inf)
    shown[SHOWN_DRAWDOWN] = 1.0 - unit / peak

    shown[SHOWN_WALLET] = a.compute_balance(bar.terms, state)
    shown[SHOWN_RESERVE] = wallet.reserve
    shown[SHOWN_DAYS] = days

    # An account without equity has no leverage.
    shown[SHOWN_GROSS] = 0.0
    shown[SHOWN_NET] = 0.0
    if equity > 0.0:
        shown[SHOWN_GROSS] = close.gross / equity
        shown[SHOWN_NET] = sum_net_notional(bar) / equity

    shown[SHOWN_POOL_RATIO] = 0.0
    if close.needed > 0.0:
        shown[SHOWN_POOL_RATIO] = close.needed / close.backing if close.backing > 0.0 else math.inf


def sum_net_notional(bar: a.AccountBar) -> float:
    """Return the notional of all positions at their marks, long less short."""
    net = 0.0
    for i in range(len(bar.state.positions)):
        if a.is_held(bar.state, i):
            mark = abs(bar.quotes.instruments[i].mark_close)
            net += bar.state.positions[i].quantity * mark
    return net


def show_position(bar: a.AccountBar, deciders: Deciders, i: int) -> None:
    """Write what the policy of instrument i sees of its own position into ``deciders.shown``.

    ``shown`` is an array with a number for each field of the account that policies read. Those of
    the whole account are written before (:func:`show_account_totals`). Fields that cost time are
    only written if the policy reads them: its margin (``wants_account``) and its liquidation price
    (``wants_price``); else they are 0 and NaN.
    """
    terms = bar.terms
    state = bar.state
    shown = deciders.shown
    position = state.positions[i]

    shown[SHOWN_RATIO] = shown[SHOWN_POOL_RATIO]
    if a.is_isolated(terms, i):
        shown[SHOWN_RATIO] = a.compute_pool_ratio(bar, i)
    shown[SHOWN_SINCE] = position.since
    shown[SHOWN_SINCE_STOP] = position.since_stop

    # An empty position has no entry, and no price that liquidates it.
    shown[SHOWN_LEVERAGE] = 0.0
    shown[SHOWN_POSITION] = 0.0
    shown[SHOWN_ENTRY] = math.nan
    shown[SHOWN_MAINTENANCE] = 0.0
    shown[SHOWN_PRICE] = math.nan
    if not a.is_held(state, i):
        return

    # The overlay of the account scales what the policy decided by a factor. The policy is shown
    # what it asked for, so leverage and margin are divided by it; without a factor, by 1.
    factor = position.factor if position.factor > 0.0 else 1.0
    equity = state.wallet.equity
    if equity > 0.0:
        mark = abs(bar.quotes.instruments[i].mark_close)
        shown[SHOWN_LEVERAGE] = position.quantity * mark / equity / factor
    if deciders.wants_account[i] == WHOLE:
        shown[SHOWN_MAINTENANCE] = margin.find_own_maintenance(terms.rules, state.held, i) / factor

    brackets = terms.rules.brackets
    size = brackets.sizes[i]
    is_inverse = brackets.are_inverse[i]
    shown[SHOWN_POSITION] = position.quantity
    shown[SHOWN_ENTRY] = margin.compute_price(size, is_inverse, position.entry)
    if deciders.wants_price[i] == 1:
        shown[SHOWN_PRICE] = margin.compute_price(size, is_inverse, bar.scratch.walk[i].failure)


def show_account(deciders: Deciders, state: a.AccountState, close: CloseFacts) -> None:
    """Write what the overlay, the policy of the whole account, sees beside the totals.

    It is written into ``deciders.shown``, in the place of what a policy sees of its position.
    Leverage is the net one of the account, margin that of the pool, and bars since a stop those of
    the last stop of any position. The overlay has no position, entry or liquidation price: NaN.
    """
    shown = deciders.shown
    shown[SHOWN_LEVERAGE] = shown[SHOWN_NET]
    shown[SHOWN_RATIO] = shown[SHOWN_POOL_RATIO]
    shown[SHOWN_MAINTENANCE] = close.needed

    shown[SHOWN_POSITION] = math.nan
    shown[SHOWN_ENTRY] = math.nan
    shown[SHOWN_PRICE] = math.nan

    shown[SHOWN_SINCE] = state.wallet.since_pool
    shown[SHOWN_SINCE_STOP] = math.inf
    for i in range(len(state.positions)):
        shown[SHOWN_SINCE_STOP] = min(shown[SHOWN_SINCE_STOP], state.positions[i].since_stop)


def show_bar(bar: a.AccountBar, deciders: Deciders, i: int, t: int, k: int) -> None:
    """Write the prices that the policy of instrument i sees at a close into ``deciders.bar``.

    They are those of bar t of the market or, where policies decide on longer bars, of their bar k.
    The last rate of funding is that of the market in both cases.
    """
    seen = deciders.bar
    seen[FUNDING] = bar.state.positions[i].last_funding
    if sees_longer_bars(deciders):
        for field in range(FUNDING):
            seen[field] = deciders.seen_bars[field, k, i]
        return

    feed = bar.feed
    seen[OPEN] = feed.open[t, i]
    seen[HIGH] = feed.high[t, i]
    seen[LOW] = feed.low[t, i]
    seen[CLOSE] = feed.close[t, i]
    seen[MARK_CLOSE] = feed.mark_close[t, i]
    seen[VOLUME] = feed.volume[t, i]


def show_index_bar(deciders: Deciders, k: int) -> None:
    """Write bar k of the whole market, which the overlay sees, into deciders.bar."""
    for field in range(len(deciders.bar)):
        deciders.bar[field] = deciders.index_bars[field, k]
