"""Contagion: what brought the cross positions near failure, and who closed because of it.

``D = M - level R`` falls by an instrument's loss, its funding and costs, and by what its part of
the requirement grows; by the collateral; by flows and interest. What is left over is due to rules.
The falls are summed since the last high of the unit value. A liquidation of the pool records
``max(fall, 0) / sum``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account.option_holdings import holds_options
from backtest.account.option_liquidation import compute_option_notional
from backtest.account.portfolio_balance import compute_needed, compute_pool
from backtest.account.portfolio_ledger import (
    COLLATERAL_PNL,
    CONVERSION,
    FEES,
    FLOWS,
    FUNDING,
    IMPACT,
    INTEREST,
    LOSS,
    PRICE_PNL,
    SLIPPAGE,
    TOP_UP,
    note,
)
from backtest.account.portfolio_records import (
    DISTANCE,
    AccountBar,
    AccountState,
    Scratch,
    Terms,
    is_held,
    is_isolated,
)
from backtest.venue import compute_counted_rate, compute_portfolio_requirement, fill_shares

if TYPE_CHECKING:
    from backtest.base import FloatArray

ROUNDING = 1e-12
"""Share of a fall that is rounding, and counts as none."""
CAUSED = 20
"""Kind of the entries in the log that give a cause of a liquidation and its share."""
OF_COLLATERAL, OF_FLOWS, OF_RULES = range(3)


def measure_falls(bar: AccountBar, falls: FloatArray) -> float:
    """Write what each cause took from D since the last close, at the values being tested.

    ``falls`` has shape (n + 3,). Returns D. ``scratch.shares`` are then the Euler shares of now.
    """
    terms, state, scratch, ledger = bar.terms, bar.state, bar.scratch, bar.ledger
    n = len(state.margin)
    needed = measure_shares(terms, state, scratch)
    level, explained = terms.rules.level, 0.0
    for i in range(n):
        falls[i] = 0.0
        if not is_isolated(terms, i):
            gain = ledger[PRICE_PNL, i] - ledger[FUNDING, i] - ledger[FEES, i] - ledger[LOSS, i]
            gain -= ledger[SLIPPAGE, i] + ledger[IMPACT, i]
            if is_held(state, i):
                change = state.held.values[i] - state.marked[i]
                gain += state.held.quantities[i] * change
            gain += sum_option_gains(terms, state, i)
            falls[i] = level * (scratch.shares[i] - state.shares[i]) - gain
            explained += falls[i]
    assets, last = 0.0, ledger.shape[1] - 1
    for c in range(len(state.held.amounts)):
        assets -= state.held.amounts[c] * (state.held.prices[c] - state.priced[c])
        assets += level * (scratch.shares[n + c] - state.shares[n + c])
    falls[n + OF_COLLATERAL] = assets - ledger[COLLATERAL_PNL, last] + ledger[CONVERSION, last]
    flows = 0.0
    for i in range(n + 1):
        flows += ledger[INTEREST, i] - ledger[FLOWS, i] - ledger[TOP_UP, i]
    falls[n + OF_FLOWS] = flows
    now = compute_pool(terms, state) - level * needed
    explained += falls[n + OF_COLLATERAL] + flows
    falls[n + OF_RULES] = state.wallet[DISTANCE] - now - explained
    return now


def measure_shares(terms: Terms, state: AccountState, scratch: Scratch) -> float:
    """Write the Euler shares of the requirement R into ``scratch.shares``. Returns R."""
    fill_shares(terms.rules, state.held, scratch.shares)
    needed = compute_needed(terms, state)
    if holds_options(state):
        add_option_shares(terms, state, scratch, needed)
    return needed


def add_option_shares(terms: Terms, state: AccountState, scratch: Scratch, needed: float) -> None:
    gross, positions = 0.0, state.options.positions
    for k in range(len(state.options.targets)):
        gross += compute_option_notional(state, k) if positions.quantities[k] != 0.0 else 0.0
    rest = needed - compute_portfolio_requirement(terms.rules, state.held)
    for k in range(len(state.options.targets)):
        if positions.quantities[k] != 0.0 and gross > 0.0:
            part = rest * (compute_option_notional(state, k) / gross)
            withheld = 1.0 - compute_counted_rate(terms.options.rules, positions, k)
            part += withheld * positions.quantities[k] * positions.marks[k] / terms.rules.level
            scratch.shares[terms.options.instruments[k]] += part


def sum_option_gains(terms: Terms, state: AccountState, i: int) -> float:
    own, gain = state.options, 0.0
    for k in range(len(own.targets)):
        if terms.options.instruments[k] == i:
            held, costs = own.positions.quantities[k], own.fees[k] + own.slippage[k]
            gain += own.profits[k] - costs - own.losses[k]
            if held != 0.0:
                gain += held * (own.positions.marks[k] - own.priced[k])
    return gain


def record_falls(bar: AccountBar, is_high: bool) -> None:
    state, scratch = bar.state, bar.scratch
    if len(bar.log.entries) == 0:
        return
    now = measure_falls(bar, scratch.falls)
    for k in range(len(state.fallen)):
        state.fallen[k] = 0.0 if is_high else state.fallen[k] + scratch.falls[k]
    for k in range(len(state.shares)):
        state.shares[k] = scratch.shares[k]
    state.wallet[DISTANCE] = now


def log_causes(bar: AccountBar, t: int) -> None:
    state, scratch, log = bar.state, bar.scratch, bar.log
    if len(log.entries) == 0:
        return
    n = len(state.margin)
    measure_falls(bar, scratch.falls)
    whole = 0.0
    for k in range(n + 3):
        scratch.falls[k] = max(scratch.falls[k] + state.fallen[k], 0.0)
        whole += scratch.falls[k]
    for k in range(n + 3):
        share = scratch.falls[k] / whole if whole > 0.0 else 0.0
        share = share if share > ROUNDING else 0.0
        if not whole > 0.0 and k == n + OF_RULES:
            share = 1.0
        profit = 0.0
        if k < n and is_held(state, k) and not is_isolated(bar.terms, k):
            change = state.held.values[k] - state.held.entries[k]
            profit = state.held.quantities[k] * change
        if share > 0.0 or profit > 0.0:
            note(log, t, k, CAUSED, share, state.held.quantities[k] if k < n else 0.0, profit)
