"""What a requirement and a liquidation come from: shares by instrument, flows, and rules.

The Euler share of a position is its part of the requirement R by how R changes with it; the shares
add up to R. A *cause* of a liquidation is what a part of the account needs, less what it gained in
the bar; the causes add up to -D, what is missing.
"""

from __future__ import annotations

from backtest import margin
from backtest.account import balance, options
from backtest.account import records as r
from backtest.account.events import Event
from backtest.account.forced_options import compute_option_notional
from backtest.account.margin_calls import compute_pool_needed
from backtest.account.money import MONEY, compute_gain, total, total_from_outside
from backtest.core import FloatArray
from backtest.core.kernels import of_options

OF_COLLATERAL, OF_FLOWS, OF_RULES = range(3)
"""Causes beside instruments: their owners in the log are n and these, of n instruments."""


def log_causes(bar: r.AccountBar, t: int) -> None:
    """Log what a liquidation of the pool comes from: one row in the log for each cause.

    Called before anything is closed or marked. A cause is money, in the ``value`` of its row,
    positive where it brings the pool nearer to failing:

    - of an instrument, and of the collateral: what it needs (the level of liquidation times its
      Euler share of the requirement, the part of it that it brings) less what it gained in this
      bar;
    - of flows: interest paid, less what was paid in;
    - of the rules, the last row, with the other sign: what the pool has over the level times the
      requirement. The report finds from it what no other row explains.

    Writes ``scratch.shares`` first, which the rows read.
    """
    state = bar.state
    n_instruments = len(state.positions)
    # Where nobody reads a log, or one position is the only cause.
    is_only_cause = n_instruments == 1 and len(state.priced) + len(state.options.targets) == 0
    if len(bar.log.entries) == 0 or is_only_cause:
        return

    needed = measure_shares(bar)
    level = bar.terms.rules.level
    for i in range(n_instruments):
        log_cause(bar, t, i)

    # Collateral: costs and losses of price that the bar has entered, then the change of price since
    # it was last marked (``priced``), and its share, which stands after those of the instruments.
    # The ledger's last row is that of the account.
    of_account = bar.ledger[len(bar.ledger) - 1]
    cause = of_account.conversion - of_account.collateral_pnl
    for c in range(len(state.held.amounts)):
        cause -= state.held.amounts[c] * (state.held.prices[c] - state.priced[c])
        cause += level * bar.scratch.shares[n_instruments + c]
    log_cause_of_account(bar, t, OF_COLLATERAL, cause)

    taken_out = total(bar.ledger, MONEY.interest) - total_from_outside(bar.ledger)
    log_cause_of_account(bar, t, OF_FLOWS, taken_out)

    excess = balance.compute_pool(bar.terms, state) - level * needed
    log_cause_of_account(bar, t, OF_RULES, excess)


def log_cause(bar: r.AccountBar, t: int, i: int) -> None:
    """Log what instrument i adds to the causes of a liquidation: its need less its gain, money.

    Its need is the level of liquidation times its share of the requirement (``scratch.shares``,
    which must be written before). Its gain is that of the whole bar: what the ledger has booked,
    and what position and options made since they were last marked. An isolated position needs
    nothing of the pool: its row has 0. The row also has the contracts held, and their profit since
    the entry.
    """
    terms = bar.terms
    position = bar.state.positions[i]
    quantity = position.quantity
    cause = 0.0
    profit = 0.0
    if not r.is_isolated(terms, i):
        gain = compute_gain(bar.ledger, i)
        if r.is_held(bar.state, i):
            gain += quantity * (position.value - position.marked)
            profit = quantity * (position.value - position.entry)

        # Options count with their underlying.
        for k in range(len(bar.state.options.targets)):
            if terms.options.instruments[k] == i:
                gain = add_option_gain(bar.state, k, gain)
        cause = terms.rules.level * bar.scratch.shares[i] - gain

    r.log_event(bar.log, t, i, Event.CAUSED, cause, quantity, profit)


def add_option_gain(state: r.AccountState, k: int, gain: float) -> float:
    """Return a gain of the bar, money, with what option k gained in it: first what is booked."""
    sums = state.options
    gain += sums.profits[k] - sums.fees[k] - sums.slippage[k] - sums.losses[k]
    quantity = sums.positions.quantities[k]
    if quantity != 0.0:
        gain += quantity * (sums.positions.marks[k] - sums.priced[k])
    return gain


def log_cause_of_account(bar: r.AccountBar, t: int, cause: int, needed_less_gain: float) -> None:
    """Log a cause that is no instrument's, OF_COLLATERAL, OF_FLOWS or OF_RULES, with its money.

    The owners of causes are numbered in the log: the n instruments first, then these three.
    """
    owner = len(bar.state.positions) + cause
    r.log_event(bar.log, t, owner, Event.CAUSED, needed_less_gain, quantity=0.0, amount=0.0)


def measure_shares(bar: r.AccountBar) -> float:
    """Write the Euler shares of the pool's requirement R into ``scratch.shares``; return R.

    A share is the part of R, money, that an instrument or a collateral brings: instruments first,
    then collateral. They add up to R. Options count with their underlying.
    """
    margin.fill_shares(bar.terms.rules, bar.state.held, bar.scratch.shares)
    needed = balance.compute_needed(bar.terms, bar.state, is_initial=False)
    if options.holds_options(bar.state):
        add_option_shares(bar, needed)
    return needed


def write_parts(
    bar: r.AccountBar, parts: FloatArray, withheld: FloatArray, requirement: float
) -> None:
    """Write into ``parts`` how much of the maintenance margin is due to each instrument: money.

    The part of an isolated position is its own requirement. The parts of cross positions add up to
    ``requirement``, that of the pool. Each is the level of liquidation times the Euler share of the
    instrument, from ``scratch.shares``, which :func:`measure_shares` must have written. Shares also
    have what does not count as backing: the haircut of a spot leg, and the part of an option's
    value that backs nothing. That is no requirement, so it is taken off.

    ``parts`` and ``withheld`` have the shape (n instruments,). ``withheld`` must be 0, and gets the
    value of options that backs nothing.
    """
    terms = bar.terms
    rules = terms.rules
    held = bar.state.held
    # A requirement of scenarios or of the user's own is of all positions together, not their sum.
    is_joint = rules.own > 0 or rules.has_scenarios
    if options.holds_options(bar.state):
        write_withheld(bar, withheld)

    total_parts = 0.0
    for i in range(len(parts)):
        haircut = margin.compute_haircut(rules, held, i)
        parts[i] = rules.level * bar.scratch.shares[i] - haircut - withheld[i]
        # By brackets a share is rate * notional, but the requirement is rate * notional - amount.
        if not is_joint and margin.is_in_pool(rules, held, i):
            parts[i] -= rules.level * margin.find_bracket_amount(rules, held, i)
        total_parts += parts[i]

    # Under joint rules collateral has a share too, which no instrument shows. Scaling the parts so
    # that they add up to the requirement splits it among the positions.
    for i in range(len(parts)):
        if r.is_isolated(terms, i):
            parts[i] = compute_pool_needed(bar, i)
        elif is_joint and total_parts > 0.0:
            parts[i] *= requirement / total_parts


@of_options(returns=None)
def write_withheld(bar: r.AccountBar, withheld: FloatArray) -> None:
    """Add to ``withheld`` the value of options that does not back the pool: money, by underlying.

    ``withheld`` has a number for each instrument. How much of the mark of an option counts is a
    rule of margin.
    """
    rules = bar.terms.options.rules
    positions = bar.state.options.positions
    for k in range(len(bar.state.options.targets)):
        if positions.quantities[k] != 0.0:
            rate = 1.0 - margin.compute_counted_rate(rules, positions, k)
            value = positions.quantities[k] * positions.marks[k]
            withheld[bar.terms.options.instruments[k]] += rate * value


@of_options(returns=None)
def add_option_shares(bar: r.AccountBar, needed: float) -> None:
    """Add to ``scratch.shares`` what options bring to the requirement: money, by underlying.

    The shares of positions and collateral must stand there already. ``needed`` is the requirement
    of the whole pool. What it is over that of the positions alone is split among the options by
    notional.
    """
    terms = bar.terms
    state = bar.state
    positions = state.options.positions
    gross = 0.0
    for k in range(len(state.options.targets)):
        if positions.quantities[k] != 0.0:
            gross += compute_option_notional(state, k)
    if not gross > 0.0:
        return

    of_positions = margin.compute_portfolio_requirement(terms.rules, state.held, is_initial=False)
    of_options = needed - of_positions
    for k in range(len(state.options.targets)):
        if positions.quantities[k] == 0.0:
            continue
        share = of_options * (compute_option_notional(state, k) / gross)

        # The part of its value that does not count as backing weighs like a requirement. It is
        # money already, and readers multiply shares by the level: so it is divided by it here.
        withheld_rate = 1.0 - margin.compute_counted_rate(terms.options.rules, positions, k)
        share += withheld_rate * positions.quantities[k] * positions.marks[k] / terms.rules.level
        bar.scratch.shares[terms.options.instruments[k]] += share
