"""The close of a bar: exposure, margin and failing prices of an account, and its tally.

====================  ==============================================================================
word                  what it is, and its unit
====================  ==============================================================================
gross                 notional of all positions at their marks, without signs: money
backing, needed       money that backs the cross positions, and the margin that they need
worst_...             the two of that margin pool, cross or isolated, which is nearest to failing
excess                backing less what is needed: D of the pool, money
failure               the contract value at which a position's margin pool fails, others fixed
near                  within :data:`NEAR` of the close; far is not
====================  ==============================================================================
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest import account as a
from backtest import margin, results
from backtest.account import records as r
from backtest.account.equity_floors import CAUTION
from backtest.account.money import CARRIED_ROWS
from backtest.core.kernels import inlined, of_options
from backtest.core.structs import view_numbers
from backtest.core.units import TOLERANCE
from backtest.results.tally import FARTHEST, NEAR

if TYPE_CHECKING:
    from backtest.account.money import Money, Wallet
    from backtest.core import FloatArray
    from backtest.results.tally import Tally

LEAST_RATIO = 1.0 / (1.0 + NEAR) - TOLERANCE
MOST_RATIO = 1.0 / (1.0 - NEAR) + TOLERANCE
"""A contract value is near if its ratio to the mark is between the two, inverse or not."""
NOT_NEAR, IS_NEAR, MAY_BE_NEAR = range(3)
"""Whether a position fails at a near price: no, yes, or not known without a search."""


class CloseFacts(NamedTuple):
    """What is counted and shown of the margin at a close; the words stand above."""

    gross: float
    backing: float
    needed: float
    worst_backing: float
    worst_needed: float
    is_near: bool
    initial: float


class MarginUse(NamedTuple):
    """Margin that a pool or an isolated position needs, and what backs it: money.

    It fails where it needs more than backs it, so the one with the larger ratio is the worse.
    """

    needed: float
    backing: float


class Counting(NamedTuple):
    """What bars are counted with; log returns of the marks have shape (n_bars, n)."""

    clock: results.Clock
    log_returns: FloatArray
    tally: Tally


class QuietBar(NamedTuple):
    """The contracts held in a quiet bar, their mark values and profit, and what the account has."""

    quantity: float
    mark_before: float
    mark: float
    profit: float
    equity: float
    unit: float


@inlined
def count_bar(
    bar: a.AccountBar,
    counting: Counting,
    marks_before: FloatArray,
    equity_before: float,
    is_quiet: bool,
    close: CloseFacts,
    t: int,
) -> None:
    """Add bar t of an account to the tally of its run, from which the measures are computed.

    ``marks_before`` are the contract values of the positions at the last close, ``equity_before``
    is the equity there. In a bar that ``is_quiet`` only prices moved: its money is their profit.

    The order matters: ``tally.inverse`` is 1 / equity at the last close until :func:`count_close`,
    which comes last, writes that of this one.
    """
    wallet = bar.state.wallet
    clock = counting.clock
    tally = counting.tally
    money = bar.scratch.money
    unit = wallet.unit
    equity = wallet.equity

    results.add_free(clock, tally, t)
    if clock.ends_sample[t] != 0.0:
        results.finish_sample(tally, unit)

    # Log growth is per unit of the equity that the bar began with: that of the last close, whose
    # inverse the tally still has, and what was paid in since.
    inverse_base = tally.inverse
    is_forced = False
    if is_quiet:
        tally.money.price_pnl += money.price_pnl
    else:
        paid_in = money.flows + money.top_up
        if paid_in != 0.0:
            inverse_base = results.invert(equity_before + paid_in)
        is_forced = money.liquidations + money.stops + money.take_profits > 0.0
        add_money(tally, money, inverse_base)
        note_firsts(tally, money, wallet, t)

    # Decay compares what is held with its move over the whole bar. Where a position was closed by
    # force inside the bar (a liquidation, a stop, a take-profit), it did not make that move.
    if not is_forced:
        add_decay(bar, counting, marks_before, inverse_base, t)
    count_close(tally, unit, equity, close, bar.terms.max_gross_leverage, t)


@inlined
def count_close(
    tally: Tally, unit: float, equity: float, close: CloseFacts, cap: float, t: int
) -> None:
    """Add the close of bar t to the tally: drawdown, margin, leverage and equity.

    ``unit`` is the unit value of the account, ``equity`` its money, ``cap`` the largest gross
    leverage that it allows. Leverage is per unit of the equity at this close, whose inverse is
    written into ``tally.inverse`` for the next bar.
    """
    tally.inverse = results.invert(equity)
    results.mark_drawdown(tally, unit, t)

    # The peak is the largest share of its backing that a margin pool needed: a pair.
    leverage = close.gross * tally.inverse
    tally.peak_needed, tally.peak_backing = results.raise_ratio(
        tally.peak_needed,
        tally.peak_backing,
        close.worst_needed,
        close.worst_backing,
        close.gross > 0.0,
    )
    tally.near += 1.0 if close.is_near else 0.0
    tally.over_cap += 1.0 if is_over_cap(leverage, cap) else 0.0

    tally.leverage += leverage
    tally.peak_leverage = max(tally.peak_leverage, leverage)
    tally.initial += close.initial
    tally.initial_share += close.initial * tally.inverse
    tally.bars += 1.0
    tally.equity += equity


@inlined
def add_money(tally: Tally, money: Money, base: float) -> None:
    """Add the money of a bar to that of the run, and its costs of holding to the log growth."""
    of_run = view_numbers(tally.money)
    of_bar = view_numbers(money)
    for term in CARRIED_ROWS:
        tally.carry += of_bar[term] * base
    for term in range(len(of_run)):
        of_run[term] += of_bar[term]


@inlined
def note_firsts(tally: Tally, money: Money, wallet: Wallet, t: int) -> None:
    """Write bar t where it is the first of its kind."""
    tally.first_liquidation = find_first(tally.first_liquidation, money.liquidations > 0.0, t)
    tally.ruin = find_first(tally.ruin, wallet.is_ruined != 0.0, t)
    tally.first_ambiguous = find_first(tally.first_ambiguous, money.ambiguous_bars > 0.0, t)
    tally.first_both = find_first(tally.first_both, money.both_reached > 0.0, t)


@inlined
def find_first(first: float, is_so: bool, t: int) -> float:
    """Return the first bar of its kind: bar t if it is so and none was before."""
    if is_so and first < 0.0:
        return float(t)
    return first


@inlined
def add_decay(
    bar: a.AccountBar, counting: Counting, marks_before: FloatArray, inverse_base: float, t: int
) -> None:
    """Add the volatility decay of what was held through bar t to the tally.

    Decay is the log growth of what is held, less that of its moves one by one: log(1 + sum of
    leverage * return) - sum of leverage * log return. The second sum is added as ``drift``. The
    factor of the first, ``growth``, is multiplied into a product whose logarithm is taken later.

    ``inverse_base`` is 1 / the equity that the bar began with, ``marks_before`` are the contract
    values of the last close.
    """
    # Fills at the close come after the move: what was carried through the bar made it.
    held = bar.scratch.carried if bar.terms.fill == r.LATE else bar.state.held.quantities

    drift = 0.0
    growth = 1.0
    for i in range(len(marks_before)):
        # NaN of an instrument that was not listed at both closes.
        log_return = counting.log_returns[t, i]
        if held[i] != 0.0 and not math.isnan(log_return):
            contracts_per_equity = held[i] * inverse_base
            drift += contracts_per_equity * (abs(marks_before[i]) * log_return)
            move = bar.quotes.instruments[i].mark_close - marks_before[i]
            growth += contracts_per_equity * move
    multiply_decay(counting.tally, drift, growth)


@inlined
def multiply_decay(tally: Tally, drift: float, growth: float) -> None:
    """Add the drift of a bar to the tally, and multiply the product of growth factors by its own.

    A bar that lost all, whose growth is not over 0, has no logarithm, so it is left out.
    """
    product = tally.decay_product
    if growth > 0.0:
        tally.decay_held += drift
        product *= growth
    tally.decay_log, tally.decay_product = results.fold_product(tally.decay_log, product)


@inlined
def count_quietly(counting: Counting, quiet: QuietBar, close: CloseFacts, t: int) -> None:
    """Add a bar of one position in which only prices moved to the tally, as :func:`count_bar` does.

    It is a shortcut, on values that compiled code keeps in registers: it leaves out what such a bar
    never has, events and money other than the profit of prices. Sums are made in the same order, so
    both are equal to the last bit: a change of one is a change of both.
    """
    clock = counting.clock
    tally = counting.tally
    results.add_free(clock, tally, t)
    if clock.ends_sample[t] != 0.0:
        results.finish_sample(tally, quiet.unit)
    tally.money.price_pnl += quiet.profit

    # Decay, as :func:`add_decay` has it: the log growth of the moves one by one (drift), and the
    # factor of what is held (growth). Until the close is counted, the tally has 1 / the equity of
    # the last close, with which the bar began. A NaN is an instrument that was not listed then.
    drift = 0.0
    growth = 1.0
    log_return = counting.log_returns[t, 0]
    if quiet.quantity != 0.0 and not math.isnan(log_return):
        contracts_per_equity = quiet.quantity * tally.inverse
        drift += contracts_per_equity * (abs(quiet.mark_before) * log_return)
        growth += contracts_per_equity * (quiet.mark - quiet.mark_before)

    multiply_decay(tally, drift, growth)
    # One position has no cap of gross leverage here: :func:`.is_one_plain` asks for none.
    count_close(tally, quiet.unit, quiet.equity, close, cap=math.inf, t=t)


@inlined
def is_over_cap(leverage: float, cap: float) -> bool:
    return leverage > cap * (1.0 + TOLERANCE)


def look_at_close(bar: a.AccountBar, has_prices: bool) -> CloseFacts:
    """Measure exposure, margin and failing prices of the account at the close of a bar.

    The account must be marked at the close. Returns the facts of the close: money. Writes into
    ``bar.scratch.walk`` of each position its failing price: the contract value at which its margin
    pool (or its own margin, if it is isolated) no longer suffices, other prices fixed; NaN if there
    is none.

    A failing price costs a search. With ``has_prices`` all are searched, else only those that a
    bound lets be near the close.
    """
    terms = bar.terms
    state = bar.state

    # The pool of cross positions, and the worst of it and the isolated positions. An empty pool
    # needs nothing of a backing of 1.
    pool = MarginUse(needed=0.0, backing=1.0)
    worst = pool
    if a.count_cross(terms, state) > 0:
        needed = a.compute_pool_needed(bar, len(state.positions))
        pool = MarginUse(needed=needed, backing=a.compute_pool(terms, state))
        worst = pick_worse(worst, pool)

    # Of each position that is held.
    initial = a.compute_needed(terms, state, is_initial=True)
    gross = 0.0
    for i in range(len(state.positions)):
        if not a.is_held(state, i):
            continue
        mark = bar.quotes.instruments[i].mark_close
        gross += abs(state.positions[i].quantity) * abs(mark)

        # An isolated position has posted its initial margin, and may be the worst.
        if a.is_isolated(terms, i):
            initial += state.positions[i].margin
            needed = a.compute_pool_needed(bar, i)
            backing = a.compute_pool_backing(terms, state, i)
            worst = pick_worse(worst, MarginUse(needed=needed, backing=backing))

    # The prices at which instruments fail: of each, held or not, as its walk must have one.
    excess = pool.backing - pool.needed
    is_near = False
    for i in range(len(state.positions)):
        fails_near = write_failure(bar, i, excess, has_prices)
        is_near = is_near or fails_near

    return CloseFacts(
        gross=gross,
        backing=pool.backing,
        needed=pool.needed,
        worst_backing=worst.backing,
        worst_needed=worst.needed,
        is_near=is_near,
        initial=initial,
    )


@inlined
def pick_worse(worst: MarginUse, other: MarginUse) -> MarginUse:
    """Return the one of two margin pools that is nearer to failing: with the larger ratio."""
    needed, backing = results.raise_ratio(
        worst.needed, worst.backing, other.needed, other.backing, is_held=True
    )
    return MarginUse(needed=needed, backing=backing)


@inlined
def write_failure(bar: a.AccountBar, i: int, excess: float, has_prices: bool) -> bool:
    """Write the contract value at which instrument i fails; return whether it is near the close.

    An instrument fails where its margin pool no longer has the margin that it needs, other prices
    fixed. The value is written into ``bar.scratch.walk[i].failure``: NaN, and not near, if there is
    none. It costs a search, so it is sought only where a bound lets it be near, or with
    ``has_prices``. ``excess`` is what the pool has over its requirement: money.
    """
    walk = bar.scratch.walk[i]
    walk.failure = math.nan
    # A price that moves no margin pool makes none fail.
    if not moves_a_pool(bar.terms, bar.state, i):
        return False
    if not has_prices and is_surely_far(bar, i, excess):
        return False

    value = find_failure_value(bar, i, excess)
    walk.failure = value
    # Values of inverse contracts are negative, and the larger the price, the nearer to 0: so the
    # ratio of their prices is the inverse of that of their values.
    mark = bar.quotes.instruments[i].mark_close
    price_ratio = value / mark if mark > 0.0 else mark / value
    return LEAST_RATIO <= price_ratio <= MOST_RATIO  # False if there is none: NaN


@inlined
def find_nearness(
    terms: a.Terms, one: a.One, bracket: margin.MarginBracket, backing: float, needed: float
) -> int:
    """Return whether a near price makes the one position of an account fail, as bounds show it.

    The answer is NOT_NEAR, IS_NEAR or MAY_BE_NEAR; near is within the fraction :data:`NEAR` of the
    close. ``bracket`` is the row of the margin table in which the position lies, ``backing`` the
    money behind it at the close, and ``needed`` its requirement there.

    Only the farthest near price on the losing side is tried. That is enough: the requirement rises
    faster and faster with the notional, so what is left over it is concave in the price. Where it
    is over 0 at the close and there, it is over 0 at all prices between. Where it is over 0 at the
    close and under 0 there, the position fails at one price between.
    """
    # A long loses as the price falls, a short as it rises. Ratios are those of prices to the mark.
    quantity = one.position.quantity
    value = one.position.value
    price_ratio = LEAST_RATIO - TOLERANCE
    if quantity < 0.0:
        price_ratio = MOST_RATIO + TOLERANCE
    farthest = value / price_ratio if one.is_inverse else value * price_ratio

    # What would be left there of the backing, over the requirement: money.
    notional = abs(quantity * farthest)
    left = backing + quantity * (farthest - value)
    left -= one.level * a.compute_in_bracket(terms, bracket, notional)

    # Less than CAUTION of the larger notional may be rounding, and also the TOLERANCE by which the
    # price tried is beyond the near ones. A NaN says nothing: MAY_BE_NEAR.
    rounding = CAUTION * max(notional, abs(quantity * value))
    if left > rounding:
        return NOT_NEAR
    if left < -rounding and backing - needed > rounding:
        return IS_NEAR
    return MAY_BE_NEAR


@inlined
def look_at_one_close(
    bar: a.AccountBar,
    one: a.One,
    bracket: margin.MarginBracket,
    initial: a.InitialBracket,
    notional: float,
) -> CloseFacts:
    """Measure exposure and margin of an account of one position at a close, by a shortcut.

    The answer is that of :func:`look_at_close`, which is called itself if bounds do not show
    whether a price near the close makes the position fail. Otherwise no failing price is searched:
    NaN is written as ``walk[0].failure``, which nobody reads then.

    ``notional`` is that of the position at its mark: money. The rows of the margin table in which
    it lies are ``bracket`` (maintenance) and ``initial``.
    """
    position = one.position
    bar.scratch.walk[0].failure = math.nan
    # Nothing is held. An isolated position may still have margin posted.
    if position.quantity == 0.0:
        posted = position.margin if one.is_isolated else 0.0
        return report_no_margin(gross=0.0, initial=posted)

    # What backs the position: all money of the account, or what it has posted, and its profit.
    backing = one.wallet.cash + position.quantity * position.value
    if one.is_isolated:
        backing = position.margin + position.quantity * (position.value - position.entry)
    needed = one.level * (bracket.rate * notional - bracket.amount)

    # A cheap bound first, as :func:`is_far` has it, then a closer one. A near price lowers the
    # backing by at most FARTHEST - 1 of the notional, and raises the requirement, whose rates are
    # under 1, by at most level times as much. NaN is never far.
    largest_move = (FARTHEST - 1.0) * (1.0 + one.level) * notional
    is_near = False
    is_surely_far = backing - needed > largest_move
    if not is_surely_far:
        nearness = find_nearness(bar.terms, one, bracket, backing, needed)
        if nearness == MAY_BE_NEAR:
            return look_at_close(bar, has_prices=False)
        is_near = nearness == IS_NEAR

    worst_needed, worst_backing = results.raise_ratio(0.0, 1.0, needed, backing, is_held=True)
    posted = notional * initial.multiplier / initial.leverage
    # Beside an isolated position the pool is empty: it needs nothing of a backing of 1.
    if one.is_isolated:
        backing = 1.0
        needed = 0.0
        posted = position.margin
    return CloseFacts(
        gross=notional,
        backing=backing,
        needed=needed,
        worst_backing=worst_backing,
        worst_needed=worst_needed,
        is_near=is_near,
        initial=posted,
    )


def measure_gross(bar: a.AccountBar) -> CloseFacts:
    """Return the gross notional at the close, and no margin."""
    state = bar.state
    gross = 0.0
    for i in range(len(state.positions)):
        if a.is_held(state, i):
            gross += abs(state.positions[i].quantity) * abs(bar.quotes.instruments[i].mark_close)
    return report_no_margin(gross=gross, initial=0.0)


@inlined
def report_no_margin(gross: float, initial: float) -> CloseFacts:
    """Return a close without a margin requirement: nothing needed, of a backing of 1."""
    return CloseFacts(
        gross=gross,
        backing=1.0,
        needed=0.0,
        worst_backing=1.0,
        worst_needed=0.0,
        is_near=False,
        initial=initial,
    )


def moves_a_pool(terms: a.Terms, state: a.AccountState, i: int) -> bool:
    """Return whether the price of instrument i moves a margin pool: that of all, or its own."""
    # A pool of options is moved by each of their underlyings, held or not.
    if a.must_value_options(terms, state) and not a.is_isolated(terms, i):
        return a.is_moved_by(terms, state, i)
    return a.is_held(state, i)


def is_surely_far(bar: a.AccountBar, i: int, excess: float) -> bool:
    """Return whether a bound shows that no price of instrument i near the close fails its pool.

    Near are prices of which the close is within the fraction :data:`NEAR`. ``excess`` is what the
    pool of cross positions has over its requirement: money. False: the price must be searched.
    With options the answer comes from trials of prices, which use the scratch of the bar (its walk
    and its segment); the account itself stays as it is.
    """
    terms = bar.terms
    state = bar.state
    if a.must_value_options(terms, state) and not a.is_isolated(terms, i):
        return a.probe_near_segments(bar, i, excess)

    position = state.positions[i]
    notional = abs(position.quantity) * abs(position.value)
    return is_far(terms, state, i, notional, excess)


@inlined
def is_far(terms: a.Terms, state: a.AccountState, i: int, notional: float, excess: float) -> bool:
    """Return whether a bound shows that no price near the close liquidates instrument i.

    A move of the price by a share x of itself lowers the backing by at most x times the notional.
    It raises the requirement, whose rates are under 1, by at most level * x * notional. Near is a
    share up to FARTHEST - 1. ``notional`` is that of the position, ``excess`` what the pool has
    over its requirement: money; an isolated position has an excess of its own.
    """
    level = terms.rules.level
    if a.is_isolated(terms, i):
        level = 1.0
        position = state.positions[i]
        profit = position.quantity * (position.value - position.entry)
        excess = position.margin + profit - margin.find_own_maintenance(terms.rules, state.held, i)
    return excess > (FARTHEST - 1.0) * (1.0 + level) * notional


def find_failure_value(bar: a.AccountBar, i: int, excess: float) -> float:
    """Return the contract value at which the margin pool of an instrument fails; NaN if none.

    Other prices are fixed. ``excess`` is what the pool has over its requirement now: money. Where
    the requirement has a closed form it is solved; else the price is searched.
    """
    terms = bar.terms
    state = bar.state
    # An isolated position has a pool of its own: no cash backs it, only its margin.
    if a.is_isolated(terms, i):
        balances = a.Balances(0.0, a.pick_position(state, i))
        rules = a.by_reference(a.pick_instrument(terms, i))
        return a.compute_root(rules, balances, bar.quotes.instruments[i].multiplier)

    # A cross position fails with its pool, whose requirement comes from options, from the margin
    # table of each position, or from scenarios.
    if a.must_value_options(terms, state):
        return find_failure_with_options(bar, i, excess)
    if not terms.rules.has_scenarios and terms.rules.level == 1.0:
        return find_failure_by_brackets(bar, i, excess)
    return search_failure(bar, i)


def search_failure(bar: a.AccountBar, i: int) -> float:
    """Return the contract value of instrument i at which the cross pool fails, by a search.

    It is for pools whose requirement has no closed form. The price of one instrument is walked away
    from the close, other prices fixed. So the walk begins with the contract values and prices at
    the close, which are written into the scratch of the bar.
    """
    state = bar.state
    held = state.held
    for j in range(len(state.positions)):
        bar.scratch.walk[j].mark = held.values[j]
    for c in range(len(held.prices)):
        bar.scratch.assets[c].price = held.prices[c]

    price_ratio = margin.find_failure_ratio(a.find_segment(bar), i)
    # ``price_ratio`` is the failing price over the mark. The value of an inverse contract is in
    # proportion to the inverse of its price.
    value = state.positions[i].value
    if bar.terms.rules.brackets.are_inverse[i]:
        return float(value / price_ratio)
    return float(value * price_ratio)


@of_options(returns=math.nan)
def find_failure_with_options(bar: a.AccountBar, i: int, excess: float) -> float:
    """Return the contract value of instrument i at which a pool with options fails, or NaN.

    Such a pool may fail as the price falls and as it rises: the nearer price counts. ``excess`` is
    what the pool has over its requirement: money.
    """
    terms = bar.terms
    # The requirement is rounded: an excess within its rounding is none.
    needed = a.compute_pool(terms, bar.state) - excess
    sure_excess = excess - TOLERANCE * abs(needed)

    # The third argument says whether prices rise; rules of options are called without keywords.
    value_down = a.find_value_with_options(bar, i, False, sure_excess)
    value_up = a.find_value_with_options(bar, i, True, sure_excess)
    if math.isnan(value_up):
        return value_down
    if math.isnan(value_down):
        return value_up

    # Contract values of inverse contracts are no measure of distance, so prices are compared.
    size = terms.rules.brackets.sizes[i]
    is_inverse = terms.rules.brackets.are_inverse[i]
    price = margin.compute_price(size, is_inverse, bar.state.positions[i].value)
    fall = price - margin.compute_price(size, is_inverse, value_down)
    rise = margin.compute_price(size, is_inverse, value_up) - price
    return value_down if fall < rise else value_up


def find_failure_by_brackets(bar: a.AccountBar, i: int, excess: float) -> float:
    """Return the contract value of instrument i at which the cross pool fails, in closed form.

    It is for pools whose requirement is the sum of their positions' margins. ``excess`` is backing
    less requirement of the pool: money. With other prices fixed, only the value of this position
    (quantity * contract value) and its own margin change with its price. The excess without these
    two is the base, the money that backs this position alone. It fails where base + quantity *
    value equals its own margin at that value.
    """
    terms = bar.terms
    held = bar.state.held
    quantity = held.quantities[i]
    # A coin that is held backs by its value less a haircut, which is a share of it: the pool moves
    # with its price as if there were fewer coins.
    if a.is_spot(terms, i) and quantity > 0.0:
        quantity *= 1.0 - terms.rules.spot.haircuts[i]

    own_margin = margin.find_own_maintenance(terms.rules, held, i)
    base = excess + own_margin - quantity * bar.state.positions[i].value
    return margin.compute_liquidation_value(
        a.pick_margin(terms, i),
        quantity,
        held.entries[i],
        base,
        bar.quotes.instruments[i].multiplier,
    )
