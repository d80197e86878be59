"""The pools of an account that settles in several currencies: one shown at a time.

Each currency has a cross pool of its own: cash, positions, margin calls, liquidation, collateral
and bad debt. The rules of one pool serve all of them. :func:`show_pool` puts the positions,
collateral and ledger of all other pools aside, and the money of one pool into the wallet, in its
currency. :func:`leave_pool` brings the rest back. Between the two an account has the shown pool
alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account.portfolio_ledger import COUNTS, N_TERMS, WIDTH
from backtest.account.portfolio_records import (
    CASH,
    DISTANCE,
    ELSEWHERE,
    EQUITY,
    IS_CONVERTING,
    PAID_IN,
    POOL_FAILED,
    RESERVE,
    SHOWN,
    SHOWN_ROW,
    SINCE_POOL,
    AccountBar,
    AccountState,
    Scratch,
    Terms,
    is_held,
    is_isolated,
)

if TYPE_CHECKING:
    from backtest.base import FloatArray

(
    OWN_CASH, OWN_SINCE, OWN_CONVERTING, OWN_FAILED, OWN_DISTANCE, OWN_RATIO, OWN_UNMET,
    OWN_CALLED_AT, OWN_CALLED, OWN_OPEN_CALL, OWN_FALLEN, OWN_FLOWS_FALLEN, OWN_RULES_FALLEN,
    OWN_RATE, OWN_EQUITY, OWN_BALANCE, OWN_BACKING, OWN_NEEDED, OWN_INITIAL, OWN_MOVED, OWN_FX,
    OWN_OPEN, FILL_RATE,
    NOW, WANTED, REST, ORDERED, NEED, SPARE,
) = range(29)  # fmt: skip
"""Columns of ``AccountState.pools``. The first 13 are what a pool has of its own while it is not
shown; of the one that is shown they hold what the account has. ``OWN_RATE`` is the price of the
currency at the last close, ``OWN_EQUITY`` to ``OWN_INITIAL`` are of then, and ``OWN_MOVED`` is what
transfers brought in the bar, ``OWN_FX`` what its rate gained, ``OWN_OPEN`` the price at its open.
The others are of a step of the bar."""
N_POOL = 29

MONEY = (CASH, SINCE_POOL, IS_CONVERTING, POOL_FAILED, DISTANCE)

(
    QUANTITY, MARGIN, PENDING, ISOLATED, LISTED, SINCE, SINCE_STOP, BEST, OPENED, FALLEN, SHARE,
    FAILURE, CARRIED, RESTS, LIMIT, THROUGH, FRESH, KIND,
) = range(18)  # fmt: skip
N_ASIDE = 18 + N_TERMS

REST_EQUITY, REST_RESERVE, REST_PAID_IN, SHOWN_RESERVE, SHOWN_PAID_IN = range(5)


def show_pool(bar: AccountBar, pool: int, rate: float) -> None:
    """Show one pool alone; ``rate`` is the price of its currency, by which totals are divided."""
    n, wallet, rest = len(bar.state.margin), bar.state.wallet, bar.scratch.at_rest
    for i in range(n):
        if bar.terms.pools[i] != pool:
            hide_instrument(bar, i)
    for c in range(len(bar.state.held.amounts)):
        if bar.terms.pools[n + c] != pool:
            bar.scratch.aside[QUANTITY, n + c] = bar.state.held.amounts[c]
            bar.scratch.aside[MARGIN, n + c] = bar.state.priced[c]
            bar.scratch.aside[SHARE, n + c] = bar.state.shares[n + c]
            bar.state.held.amounts[c], bar.state.shares[n + c] = 0.0, 0.0
    swap_pool(bar.state, bar.scratch, bar.ledger, pool)
    rest[REST_EQUITY], rest[REST_RESERVE] = wallet[EQUITY], wallet[RESERVE]
    rest[REST_PAID_IN] = wallet[PAID_IN]
    wallet[EQUITY] /= rate
    wallet[RESERVE] /= rate
    wallet[PAID_IN] /= rate
    rest[SHOWN_RESERVE], rest[SHOWN_PAID_IN] = wallet[RESERVE], wallet[PAID_IN]
    bar.state.cursor[SHOWN], bar.state.cursor[SHOWN_ROW] = pool, bar.log.written[0]


def leave_pool(bar: AccountBar, pool: int, rate: float) -> None:
    n, wallet, rest = len(bar.state.margin), bar.state.wallet, bar.scratch.at_rest
    wallet[EQUITY] = rest[REST_EQUITY]
    is_kept = wallet[RESERVE] == rest[SHOWN_RESERVE]
    wallet[RESERVE] = rest[REST_RESERVE] if is_kept else wallet[RESERVE] * rate
    is_kept = wallet[PAID_IN] == rest[SHOWN_PAID_IN]
    wallet[PAID_IN] = rest[REST_PAID_IN] if is_kept else wallet[PAID_IN] * rate
    wallet[ELSEWHERE] = 0.0
    swap_pool(bar.state, bar.scratch, bar.ledger, pool)
    for i in range(n):
        if bar.terms.pools[i] != pool:
            bring_back(bar, i)
    for c in range(len(bar.state.held.amounts)):
        if bar.terms.pools[n + c] != pool:
            bar.state.held.amounts[c] = bar.scratch.aside[QUANTITY, n + c]
            bar.state.priced[c] = bar.scratch.aside[MARGIN, n + c]
            bar.state.shares[n + c] = bar.scratch.aside[SHARE, n + c]
    if bar.log.is_on is not None:
        for row in range(
            bar.state.cursor[SHOWN_ROW], min(bar.log.written[0], len(bar.log.entries))
        ):
            if bar.log.entries[row, WIDTH - 1] == -1.0:
                bar.log.entries[row, WIDTH - 1] = -1.0 - pool
    bar.state.cursor[SHOWN] = 0


def hide_instrument(bar: AccountBar, i: int) -> None:
    aside, isolated = bar.scratch.aside, bar.terms.rules.brackets.are_isolated
    aside[QUANTITY, i], bar.state.held.quantities[i] = bar.state.held.quantities[i], 0.0
    aside[MARGIN, i], bar.state.margin[i] = bar.state.margin[i], 0.0
    aside[PENDING, i], bar.state.is_pending[i] = bar.state.is_pending[i], 0
    aside[ISOLATED, i], isolated[i] = 1.0 if isolated[i] else 0.0, False
    aside[LISTED, i], bar.quotes.is_listed[i] = bar.quotes.is_listed[i], 0
    aside[SINCE, i], aside[SINCE_STOP, i] = bar.state.since[i], bar.state.since_stop[i]
    aside[BEST, i], aside[OPENED, i] = bar.state.best[i], bar.state.opened[i]
    aside[FALLEN, i], bar.state.fallen[i] = bar.state.fallen[i], 0.0
    aside[SHARE, i], bar.state.shares[i] = bar.state.shares[i], 0.0
    aside[FAILURE, i], aside[CARRIED, i] = bar.scratch.failure[i], bar.scratch.carried[i]
    aside[RESTS, i], aside[LIMIT, i] = bar.scratch.wanted[i], bar.scratch.limit[i]
    aside[THROUGH, i], aside[FRESH, i] = bar.scratch.through[i], bar.scratch.fresh[i]
    aside[KIND, i] = bar.scratch.kind[i]
    for term in range(N_TERMS):
        aside[KIND + 1 + term, i], bar.ledger[term, i] = bar.ledger[term, i], 0.0


def bring_back(bar: AccountBar, i: int) -> None:
    aside = bar.scratch.aside
    bar.state.held.quantities[i], bar.state.margin[i] = aside[QUANTITY, i], aside[MARGIN, i]
    bar.state.is_pending[i] = 1 if aside[PENDING, i] != 0.0 else 0
    bar.terms.rules.brackets.are_isolated[i] = aside[ISOLATED, i] != 0.0
    bar.quotes.is_listed[i] = 1 if aside[LISTED, i] != 0.0 else 0
    bar.state.since[i], bar.state.since_stop[i] = aside[SINCE, i], aside[SINCE_STOP, i]
    bar.state.best[i], bar.state.opened[i] = aside[BEST, i], aside[OPENED, i]
    bar.state.fallen[i], bar.state.shares[i] = aside[FALLEN, i], aside[SHARE, i]
    bar.scratch.failure[i], bar.scratch.carried[i] = aside[FAILURE, i], aside[CARRIED, i]
    bar.scratch.wanted[i], bar.scratch.limit[i] = aside[RESTS, i], aside[LIMIT, i]
    bar.scratch.through[i], bar.scratch.fresh[i] = aside[THROUGH, i], aside[FRESH, i]
    bar.scratch.kind[i] = int(aside[KIND, i])
    for term in range(N_TERMS):
        bar.ledger[term, i] = aside[KIND + 1 + term, i]


def swap_pool(state: AccountState, scratch: Scratch, ledger: FloatArray, pool: int) -> None:
    n, own = len(state.margin), state.pools[pool]
    for k in range(len(MONEY)):
        own[k], state.wallet[MONEY[k]] = state.wallet[MONEY[k]], own[k]
    own[OWN_RATIO], state.ratio[n] = state.ratio[n], own[OWN_RATIO]
    own[OWN_UNMET], state.unmet[n] = state.unmet[n], own[OWN_UNMET]
    own[OWN_CALLED_AT], state.called_at[n] = state.called_at[n], own[OWN_CALLED_AT]
    for k in range(3):
        own[OWN_FALLEN + k], state.fallen[n + k] = state.fallen[n + k], own[OWN_FALLEN + k]
    is_called, is_open = own[OWN_CALLED] != 0.0, own[OWN_OPEN_CALL] != 0.0
    own[OWN_CALLED], own[OWN_OPEN_CALL] = state.is_called[n], state.is_call_open[n]
    state.is_called[n], state.is_call_open[n] = 1 if is_called else 0, 1 if is_open else 0
    for term in range(N_TERMS):
        mine = scratch.own_ledger[term, pool]
        scratch.own_ledger[term, pool] = ledger[term, n]
        ledger[term, n] = mine


def compute_own_equity(terms: Terms, state: AccountState, pool: int) -> float:
    """Return the equity of a pool in its currency, at the values being tested; none is shown."""
    n, equity = len(state.margin), state.pools[pool, OWN_CASH]
    for i in range(n):
        if terms.pools[i] == pool:
            moved = state.held.values[i]
            if is_isolated(terms, i):
                moved -= state.held.entries[i]
                equity += state.margin[i]
            if is_held(state, i):
                equity += state.held.quantities[i] * moved
    for c in range(len(state.held.amounts)):
        if terms.pools[n + c] == pool and state.held.amounts[c] != 0.0:
            equity += state.held.amounts[c] * state.held.prices[c]
    return float(equity)


def fold_ledger(bar: AccountBar, rates: FloatArray) -> None:
    """Bring the ledger of the bar to the currency of the account, at the rates of the open."""
    n = len(bar.state.margin)
    for term in range(N_TERMS):
        for i in range(n):
            if not is_count(term):
                bar.ledger[term, i] *= rates[bar.terms.pools[i]]
        for pool in range(bar.terms.n_pools):
            scale = 1.0 if is_count(term) else rates[pool]
            bar.ledger[term, n] += bar.scratch.own_ledger[term, pool] * scale


def is_count(term: int) -> bool:
    found = False
    for each in COUNTS:
        found = found or each == term
    return found
