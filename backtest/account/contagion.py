"""Contagion: what brought the cross positions near failure, and who closed because of it.

``D = M - level R`` falls by an instrument's loss, its funding and costs, and by what its part of
the requirement grows; by the collateral; by flows and interest. What is left over is due to rules.
The falls are summed since the last high of the unit value, and a cause has ``max(fall, 0) / sum``
of a liquidation of the pool. The bar of the liquidation is logged here; what came before follows
from the record (:mod:`backtest.engine.run_closes`).
"""

from __future__ import annotations

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
    total,
)
from backtest.account.portfolio_records import (
    AccountBar,
    AccountState,
    Scratch,
    Terms,
    is_held,
    is_isolated,
)
from backtest.venue import compute_counted_rate, compute_portfolio_requirement, fill_shares

CAUSED = 20
"""Kind of the entries in the log that give a cause of a liquidation and where it stands."""
OF_COLLATERAL, OF_FLOWS, OF_RULES = range(3)


def log_causes(bar: AccountBar, t: int) -> None:
    """Log where each cause stands before a liquidation of the pool.

    Of an instrument and the collateral, level times the Euler share less what it gained in this
    bar; of flows what they took; and last D.
    """
    terms, state, scratch, ledger, log = bar.terms, bar.state, bar.scratch, bar.ledger, bar.log
    n, last = len(state.margin), ledger.shape[1] - 1
    if len(log.entries) == 0 or has_one_cause(state):
        return
    needed, level = measure_shares(terms, state, scratch), terms.rules.level
    for i in range(n):
        stand, profit, held = 0.0, 0.0, state.held.quantities[i]
        if not is_isolated(terms, i):
            gain = ledger[PRICE_PNL, i] - ledger[FUNDING, i] - ledger[FEES, i] - ledger[LOSS, i]
            gain -= ledger[SLIPPAGE, i] + ledger[IMPACT, i]
            if is_held(state, i):
                gain += held * (state.held.values[i] - state.marked[i])
                profit = held * (state.held.values[i] - state.held.entries[i])
            gain += sum_option_gains(terms, state, i)
            stand = level * scratch.shares[i] - gain
        note(log, t, i, CAUSED, stand, held, profit)
    assets = ledger[CONVERSION, last] - ledger[COLLATERAL_PNL, last]
    for c in range(len(state.held.amounts)):
        assets -= state.held.amounts[c] * (state.held.prices[c] - state.priced[c])
        assets += level * scratch.shares[n + c]
    note(log, t, n + OF_COLLATERAL, CAUSED, assets, 0.0, 0.0)
    flows = total(ledger, INTEREST) - total(ledger, FLOWS) - total(ledger, TOP_UP)
    note(log, t, n + OF_FLOWS, CAUSED, flows, 0.0, 0.0)
    left = compute_pool(terms, state) - level * needed
    note(log, t, n + OF_RULES, CAUSED, left, 0.0, 0.0)


def has_one_cause(state: AccountState) -> bool:
    return len(state.margin) == 1 and len(state.priced) + len(state.options.targets) == 0


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
