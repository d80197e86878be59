"""The end of an account: bad debt, the test of ruin, and what ruin closes (section 5)."""

from __future__ import annotations

from backtest import margin
from backtest.account import balance, orders
from backtest.account import position as p
from backtest.account import records as r
from backtest.account.events import Event
from backtest.account.options import find_log_owner, trade_option
from backtest.core.units import TOLERANCE


def settle_debt(bar: r.AccountBar, t: int) -> None:
    """Write a negative equity off as bad debt, or a negative cash with nothing behind it.

    Called at the close of bar t, when the account is valued there. Writes cash, ledger and log.
    """
    terms = bar.terms
    state = bar.state
    unbacked = -state.wallet.cash if balance.is_unbacked(terms, state) else 0.0
    debt = max(unbacked, -balance.compute_account_equity(terms, state))
    if debt > 0.0:
        balance.write_off(bar, t, debt)


def is_account_ruined(bar: r.AccountBar, equity: float) -> bool:
    """Return whether an account is ruined at the close of a bar: too little is left of it.

    That is equity and reserve at the limit of the account, ``ruin_at`` of what was paid in; or next
    to no equity; or, of an account that holds nothing, less than the smallest order takes.
    ``equity`` is that at the close.
    """
    terms = bar.terms
    state = bar.state
    wealth = equity + state.wallet.reserve
    paid_in = state.wallet.paid_in

    if wealth <= terms.ruin_at * paid_in * (1.0 + TOLERANCE):
        return True
    if equity <= p.NOTHING_LEFT * paid_in * (1.0 + TOLERANCE):
        return True
    # What is held may still win: only a flat account can be too poor to order.
    if balance.count_open(state) > 0:
        return False
    return is_too_poor(bar, wealth)


def is_too_poor(bar: r.AccountBar, wealth: float) -> bool:
    """Return whether the wealth is too little for the smallest order of every listed instrument.

    ``wealth`` is equity and reserve: money. False as soon as one instrument could be traded, and
    where no instrument is listed.
    """
    is_any_listed = False
    for i in range(len(bar.quotes.instruments)):
        quote = bar.quotes.instruments[i]
        if quote.is_listed != 1:
            continue
        is_any_listed = True
        rules = r.by_reference(r.pick_instrument(bar.terms, i))
        limit = orders.find_limit(rules, quote)
        # Without lots and minimum any order passes. A leverage of 0 by date is a ban that may end.
        if not rules.has_rounding or (rules.has_limits and not limit > 0.0):
            return False

        largest_leverage = margin.compute_best_leverage(rules.margin, quote.initial)
        largest_leverage = min(largest_leverage, limit)
        smallest_order = max(rules.min_notional, rules.lot * abs(quote.mark_close))
        if not wealth * largest_leverage < smallest_order * (1.0 - TOLERANCE):
            return False
    return is_any_listed


def end_account(bar: r.AccountBar, t: int) -> None:
    """Close everything at the mark close without costs: the account is ruined.

    Writes positions, options, cash, ledger and log. Ruin is an event of each position that it
    closes; of an account that holds nothing it is one event, of the account.
    """
    state = bar.state
    if balance.count_open(state) == 0:
        owner = balance.NO_INSTRUMENT
        r.log_event(bar.log, t, owner, Event.RUINED, value=1.0, quantity=0.0, amount=0.0)

    for i in range(len(state.positions)):
        if r.is_held(state, i):
            end_position(bar, t, i)
    for k in range(len(state.options.targets)):
        if state.options.positions.quantities[k] != 0.0:
            end_option(bar, t, k)

    # What the positions have left the cash owing, and nothing backs, the venue bears.
    if balance.is_unbacked(bar.terms, state):
        balance.write_off(bar, t, -state.wallet.cash)


def end_position(bar: r.AccountBar, t: int, i: int) -> None:
    """Close a position at its mark close; writes cash, position, ledger and log.

    Its profit up to this price is in the ledger already: the account was marked before.
    """
    state = bar.state
    position = state.positions[i]
    quantity = position.quantity
    value = bar.quotes.instruments[i].mark_close
    notional = abs(quantity) * abs(value)
    r.log_event(bar.log, t, i, Event.RUINED, value, 0.0 - quantity, notional)
    bar.ledger[i].traded += notional

    # An isolated position gives back its margin and profit. The cash has paid for a cross one, so
    # it gets back the whole value.
    if r.is_isolated(bar.terms, i):
        profit = quantity * (value - position.entry)
        state.wallet.cash += position.margin + profit
    else:
        state.wallet.cash += quantity * value
    r.put_position(state, i, r.Position(quantity=0.0, entry=0.0, margin=0.0, marked=value))


def end_option(bar: r.AccountBar, t: int, k: int) -> None:
    """Close an option at its mark; writes cash, position, ledger and log."""
    options = bar.state.options
    quantity = options.positions.quantities[k]
    mark = options.positions.marks[k]
    trade_option(bar.state, bar.ledger, k, 0.0, mark)
    owner = find_log_owner(bar.state, k)
    r.log_event(bar.log, t, owner, Event.RUINED, mark, 0.0 - quantity, abs(quantity) * mark)
