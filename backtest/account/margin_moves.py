"""Margin as a decision: the venue leverage of isolated positions, and the margin that follows it.

A policy asks for a setting, the venue leverage. It is cut to what the bracket of the position
allows, and the margin is brought to the notional at the entry / setting (accounting 3).
"""

from __future__ import annotations

import math

from backtest import margin
from backtest.account import balance
from backtest.account import position as p
from backtest.account import records as r
from backtest.account.events import Event
from backtest.account.fills import is_deciding, is_ending
from backtest.account.payments import compute_free
from backtest.core.units import TOLERANCE


def write_settings(terms: r.Terms, state: r.AccountState) -> None:
    """Write the venue leverages of positions into the margin tables."""
    for i in range(len(state.positions)):
        position = state.positions[i]
        if position.setting > 0.0:
            terms.rules.brackets.settings[i] = position.setting


def change_settings(bar: r.AccountBar, t: int) -> None:
    """Set the venue leverages that the policy asked for, and move margin to them (step 5).

    Called before any order. First all settings are chosen: they write into the walk of each
    instrument the margin to move. Then margins return to the wallet, and last margins are added:
    so what returned is free for what is added.
    """
    state = bar.state
    walk = bar.scratch.walk
    # Most policies never ask.
    if not is_any_asked(state):
        return

    balance.value_at(state, bar.quotes.fill, bar.quotes.asset_fill)
    for i in range(len(state.positions)):
        walk[i].margin_moved = 0.0
        walk[i].is_new_setting = 0.0
        # A NaN that was asked leaves everything as it is, as does cross margin. What has ended or
        # waits for no fill is not changed.
        if not (state.positions[i].asked > 0.0 and r.is_isolated(bar.terms, i)):
            continue
        if is_deciding(state, bar.quotes, i) and not is_ending(state, i):
            choose_setting(bar, i)

    for i in range(len(state.positions)):
        if walk[i].margin_moved < 0.0:
            return_margin(bar, t, i)
    for i in range(len(state.positions)):
        if walk[i].margin_moved > 0.0:
            post_margin(bar, t, i)


def is_any_asked(state: r.AccountState) -> bool:
    """Return whether a policy asked for the venue leverage of any position."""
    for i in range(len(state.positions)):  # noqa: SIM110 - numba compiles no generators
        if state.positions[i].asked > 0.0:
            return True
    return False


def choose_setting(bar: r.AccountBar, i: int) -> None:
    """Write the venue leverage of an isolated position, and the margin that it moves.

    The policy asks for ``position.asked``, infinite for the largest. The setting is what the
    brackets allow of that; it goes into the position and into the margin tables. For the moves that
    follow, the walk gets ``is_new_setting`` (1 or 0) and ``margin_moved``: money to post, negative
    to return. Both are 0 before this call, and stay so of a flat position.
    """
    position = bar.state.positions[i]
    walk = bar.scratch.walk[i]
    asked = position.asked
    # What is set already stays allowed, though the position has grown out of its bracket.
    largest_allowed = max(find_largest_setting(bar, i), position.setting)
    setting = min(asked, largest_allowed)
    walk.is_new_setting = 1.0 if setting != position.setting else 0.0
    position.setting = setting
    bar.terms.rules.brackets.settings[i] = setting
    if not r.is_held(bar.state, i):
        return

    # The money to move is that of what was asked for, not of the setting that is allowed of it:
    # what of it cannot move is then logged as refused. Infinity has no margin: the setting has.
    leverage = asked if asked < math.inf else setting
    entry_notional = abs(position.quantity * position.entry)
    change = entry_notional / leverage - position.margin
    # A smaller change is float rounding.
    if abs(change) > TOLERANCE * entry_notional:
        walk.margin_moved = change


def find_largest_setting(bar: r.AccountBar, i: int) -> float:
    """Return the largest leverage among the brackets that allow the notional of a position."""
    rules = r.pick_margin(bar.terms, i)
    quote = bar.quotes.instruments[i]
    notional = abs(bar.state.positions[i].quantity) * abs(quote.fill)

    # That of the last bracket, where the notional is over all caps. The multiplier of initial
    # margin divides the leverages of the table.
    largest: float = rules.leverages[len(rules.caps) - 1] / quote.initial
    for k in range(len(rules.caps)):
        if notional <= rules.caps[k]:
            largest = max(largest, rules.leverages[k] / quote.initial)
    return largest


def post_margin(bar: r.AccountBar, t: int, i: int) -> None:
    """Add margin to isolated position i from the wallet, as a lower venue leverage needs it.

    ``margin_moved`` of its walk is the money to add. The wallet gives what it has and nothing else
    needs. Writes margin, cash and log, and ``refused_adding``: 1 if a part could not move.
    """
    state = bar.state
    position = state.positions[i]
    wanted = bar.scratch.walk[i].margin_moved
    in_wallet = max(balance.compute_balance(bar.terms, state), 0.0)
    available = min(compute_free(bar.terms, state), in_wallet)
    moved = min(wanted, available)
    position.margin += moved
    state.wallet.cash -= moved
    log_move(bar, t, i, Event.MARGIN_ADDED, moved)

    refused = wanted - moved
    position.refused_adding = log_refused(bar, t, i, wanted, refused, position.refused_adding)


def return_margin(bar: r.AccountBar, t: int, i: int) -> None:
    """Return margin of position i to the wallet, down to what its new venue leverage needs.

    ``margin_moved`` of its walk is the money to return, as a negative number. Writes margin, cash
    and log; and into ``refused_returning``, 1 or 0, whether a part of it had to stay.
    """
    state = bar.state
    position = state.positions[i]
    quote = bar.quotes.instruments[i]
    setting = margin.compute_setting(r.pick_margin(bar.terms, i), quote.initial)

    # What must stay: the initial margin at the last price with the unrealized loss on top, and at
    # least the initial margin at the entry.
    profit = p.compute_profit(r.pick_position(state, i), quote.fill)
    needed_now = abs(position.quantity * quote.fill) / setting - profit
    needed = max(needed_now, abs(position.quantity * position.entry) / setting)

    wanted = abs(bar.scratch.walk[i].margin_moved)
    moved = min(wanted, max(position.margin - needed, 0.0))
    position.margin -= moved
    state.wallet.cash += moved
    log_move(bar, t, i, Event.MARGIN_RETURNED, moved)

    refused = wanted - moved
    position.refused_returning = log_refused(bar, t, i, wanted, refused, position.refused_returning)


def log_move(bar: r.AccountBar, t: int, i: int, kind: int, moved: float) -> None:
    """Log margin that moved between a position and the wallet, if any did."""
    if moved > 0.0:
        value = bar.quotes.instruments[i].fill
        r.log_event(bar.log, t, i, kind, value, quantity=0.0, amount=moved)


def log_refused(
    bar: r.AccountBar, t: int, i: int, wanted: float, refused: float, was_refused: float
) -> float:
    """Return 1 while a move of margin is refused, else 0; log the refusal when it begins.

    ``wanted`` and ``refused`` are money: what was to move, and what of it could not. A refusal
    begins in a bar in which the policy sets another venue leverage, and ends when nothing is
    refused any more. ``was_refused`` is the answer in the last bar: it goes on in between.
    """
    if refused <= TOLERANCE * wanted:
        return 0.0

    is_new_setting = bar.scratch.walk[i].is_new_setting == 1.0
    if is_new_setting and was_refused == 0.0:
        value = bar.quotes.instruments[i].fill
        r.log_event(bar.log, t, i, Event.MARGIN_REFUSED, value, quantity=0.0, amount=refused)
        return 1.0
    return was_refused
