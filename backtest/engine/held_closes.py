"""What follows from what an account held at closes: its margin, and the prices at which it fails.

The loop records what is held. What follows from it costs a search for each close, so it is computed
where somebody reads it, from the record: the account is put back as it stood at the close.

====================  ==============================================================================
word                  what it is, and its unit
====================  ==============================================================================
row                   row of the record; row 0 is bar ``first``
requirement           R, maintenance margin of the cross positions together: money
share                 part of R that a position, or a coin of collateral, needs: money
distance              backing less the level times R: money left until the pool fails
posted                initial margin of a position
====================  ==============================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest import account as a
from backtest import margin
from backtest.account import records as r
from backtest.account.options import holds_options
from backtest.engine.closes import look_at_close

if TYPE_CHECKING:
    from backtest.core import FloatArray
    from backtest.results.record import Closes, HeldAtCloses


def fill_closes(bar: a.AccountBar, held: HeldAtCloses, closes: Closes, first: int) -> None:
    """Compute margin, balances and failing prices of a finished run at its closes.

    The run has recorded what it held, ``held``, a row for each close; row 0 is bar ``first``. Each
    row is written into state and quotes of ``bar``, as the account stood then. What follows from it
    is read back into the same row of ``closes``.

    The order matters: shares of the requirement need the backing, and posted margins need the
    shares.
    """
    # Compiled code passes what is shared by its address, so that calls do not copy it.
    bar = a.by_reference(
        a.AccountBar(
            terms=a.by_reference(bar.terms),
            feed=a.by_reference(bar.feed),
            state=a.by_reference(bar.state),
            quotes=a.by_reference(bar.quotes),
            scratch=a.by_reference(bar.scratch),
            ledger=bar.ledger,
            log=a.by_reference(bar.log),
        )
    )
    for row in range(len(held.cash)):
        put_back(bar, held, row, first + row)
        write_balances(bar, closes, row)
        needed = write_shares(bar, closes, row)

        # A look writes the contract value at which each position fails into its walk.
        close = look_at_close(bar, has_prices=True)
        closes.requirement[row] = close.needed
        closes.initial[row] = close.initial
        for i in range(len(bar.state.positions)):
            closes.failure[row, i] = bar.scratch.walk[i].failure
        write_posted(bar, closes.posted[row], needed)


def put_back(bar: a.AccountBar, held: HeldAtCloses, row: int, t: int) -> None:
    """Put the account back as it stood at the close of bar t, from row ``row`` of ``held``.

    Writes what it held, and the marks of that close, into state and quotes of ``bar``. The values
    of options come last: they are computed from the prices written before.
    """
    feed = bar.feed
    state = bar.state
    state.wallet.cash = held.cash[row]
    for i in range(len(state.positions)):
        quote = bar.quotes.instruments[i]
        is_listed = feed.span[i, 0] <= t < feed.span[i, 1]
        if is_listed:
            r.read_mark_close(bar.terms, feed, quote, t, i)
            r.read_multipliers(bar.terms, feed, quote, t, i)

        position = state.positions[i]
        position.value = quote.mark_close
        position.quantity = held.quantity[row, i]
        position.entry = held.entry[row, i]
        position.margin = held.margin[row, i]

    for c in range(len(state.held.amounts)):
        state.held.amounts[c] = held.amounts[row, c]
        state.held.prices[c] = feed.asset_mark_close[c, t]
    for k in range(len(state.options.targets)):
        state.options.positions.quantities[k] = held.options[row, k]
    a.value_options_at_close(bar, t)


def write_balances(bar: a.AccountBar, closes: Closes, row: int) -> None:
    """Write backing, balance and collateral at a close into a row of ``closes``: money.

    Collateral is written at its full value, and with its haircut (``collateral_at_rate``).
    """
    terms = bar.terms
    state = bar.state
    closes.backing[row] = a.compute_pool(terms, state)
    closes.balance[row] = a.compute_balance(terms, state)
    closes.collateral[row] = margin.compute_full_value(state.held)
    at_rate = margin.compute_collateral_value(terms.rules.collateral, state.held)
    closes.collateral_at_rate[row] = at_rate


def write_shares(bar: a.AccountBar, closes: Closes, row: int) -> float:
    """Divide the margin requirement of the pool among positions and collateral; return it: money.

    Writes into a row of ``closes``. ``share`` and ``collateral_share`` say how much of the
    requirement each position and each coin needs; they add up to it (Euler allocation).
    ``distance`` is how far the pool is from failing, backing less requirement at the failing level.
    ``own`` is the part of that distance that each instrument has, and ``withheld`` the value of its
    options that backs nothing.

    The backing must be written before (:func:`write_balances`).
    """
    # Shares are measured into the scratch, from which the parts of instruments read them.
    needed: float = a.measure_shares(bar)
    needed_at_level = bar.terms.rules.level * needed
    closes.distance[row] = closes.backing[row] - needed_at_level
    a.write_parts(bar, closes.own[row], closes.withheld[row], needed_at_level)

    # The shares of coins stand after those of the positions.
    n = len(bar.state.positions)
    for i in range(n):
        closes.share[row, i] = bar.scratch.shares[i]
    for c in range(len(bar.state.held.amounts)):
        closes.collateral_share[row] += bar.scratch.shares[n + c]
    return needed


def write_posted(bar: a.AccountBar, posted: FloatArray, needed: float) -> None:
    """Write the initial margin of each position into ``posted``, of shape (n,): money.

    There are three cases. An isolated position has posted its own. A cross position needs that of
    its bracket. Where positions need margin together (options, or margin by scenarios), that of the
    pool is divided in proportion to their shares of the requirement, ``needed``, which
    :func:`write_shares` has written before.
    """
    terms = bar.terms
    state = bar.state
    rules = terms.rules
    is_joint = rules.own > 0 or rules.has_scenarios or holds_options(state)
    initial_of_pool = 0.0
    if is_joint:
        initial_of_pool = a.compute_needed(terms, state, is_initial=True)

    for i in range(len(state.positions)):
        position = state.positions[i]
        if a.is_isolated(terms, i):
            posted[i] = position.margin
        elif is_joint:
            share = bar.scratch.shares[i]
            posted[i] = initial_of_pool * share / needed if needed > 0.0 else 0.0
        else:
            # The margin of its own bracket; of a long spot leg, less what of it backs nothing.
            notional = abs(position.quantity * position.value)
            multiplier = rules.brackets.initial_multipliers[i]
            table = margin.pick_rules(rules.brackets, i)
            initial = margin.compute_initial(table, notional, multiplier)
            posted[i] = initial - margin.compute_haircut(rules, state.held, i)
