"""The liquidation of the cross positions and of options, whole or in steps, and what caused it."""

from __future__ import annotations

import math

from backtest import margin
from backtest.account import balance, liquidation, options
from backtest.account import records as r
from backtest.account.events import Event
from backtest.account.money import MONEY, compute_gain, total
from backtest.account.order_limits import hide_others, show_others
from backtest.account.payments import compute_pool_needed, drop_after_pool_failure
from backtest.core import FloatArray
from backtest.core.kernels import of_options
from backtest.core.units import TOLERANCE

SLIPPAGE, STEP, FULL_BELOW = (
    r.NUMBERS.index(name) for name in ("liquidation_slippage", "step", "full_below")
)


def price_forced(terms: r.Terms, state: r.AccountState, k: int, side: float) -> float:
    """Return the price at which a liquidation trades an option on a side."""
    own, worsening = state.options, 0.0
    if side > 0.0:
        worsening = terms.numbers[terms.options.instruments[k], SLIPPAGE]
    elif own.has_quotes[k] == 1 and math.isnan(own.bids[k]):
        return 0.0
    if not math.isnan(own.half_spreads[k]):
        worsening += own.half_spreads[k]
    return options.price_by_volatility(terms, state, k, side, worsening)


def force_option(bar: r.AccountBar, k: int, traded: float) -> tuple[float, float]:
    """Trade an option by force; return the loss from its mark, and the fee asked."""
    terms, state = bar.terms, bar.state
    price = price_forced(terms, state, k, 1.0 if traded > 0.0 else -1.0)
    held, mark = state.options.positions.quantities[k], state.options.positions.marks[k]
    options.trade_option(state, bar.ledger, k, held + traded, price)
    return traded * (price - mark), abs(traded) * options.compute_option_fee(terms, state, k, price)


def book_forced(bar: r.AccountBar, t: int, k: int, traded: float, loss: float) -> None:
    """Enter the loss of an option that was liquidated into ledger and log."""
    state, mark = bar.state, bar.state.options.positions.marks[k]
    state.options.losses[k] += loss
    bar.ledger[len(bar.ledger) - 1].liquidation_loss += loss
    owner = options.name_option(state, k)
    r.log_event(bar.log, t, owner, Event.LIQUIDATED, mark, traded, abs(traded) * mark, loss)


@of_options(returns=(0.0, 0.0))
def close_options_of_pool(bar: r.AccountBar) -> tuple[float, float]:
    """Close options of a failed pool; return the fees asked, and the premiums traded."""
    own, asked, gross = bar.state.options, 0.0, 0.0
    for k in range(len(own.targets)):
        own.added[k], own.prices[k], own.kept[k] = 0.0, 0.0, 0.0
    for side in (1.0, -1.0):
        for k in range(len(own.targets)):
            traded = size_close(bar.terms, bar.state, k, side)
            if traded != 0.0:
                before = own.traded[k]
                own.added[k] = traded
                own.prices[k], own.kept[k] = force_option(bar, k, traded)
                asked += own.kept[k]
                gross += own.traded[k] - before if own.kept[k] > 0.0 else 0.0
    return asked, gross


def size_close(terms: r.Terms, state: r.AccountState, k: int, side: float) -> float:
    """Return the signed contracts of an option that closing trades on a side."""
    held = state.options.positions.quantities[k]
    if side > 0.0:
        return -held if held < 0.0 else 0.0
    missing = -balance.compute_balance(terms, state)
    if not (held > 0.0 and missing > 0.0):
        return 0.0
    price = price_forced(terms, state, k, side)
    return float(-missing / price if price * held > missing else -held)


@of_options(returns=None)
def end_close(bar: r.AccountBar, t: int, asked: float, paid: float) -> None:
    """Charge closed options the fees that the account can pay, and book their losses."""
    own = bar.state.options
    share = 1.0 if asked == paid else paid / asked
    for k in range(len(own.targets)):
        if own.added[k] != 0.0:
            fee = own.kept[k] * share
            bar.state.wallet.cash -= fee
            book_forced(bar, t, k, own.added[k], own.prices[k] + fee)
            own.added[k] = 0.0


@of_options(returns=None)
def end_forfeit(bar: r.AccountBar, t: int, rate: float) -> None:
    """Write options off, each with its share of the loss."""
    own = bar.state.options
    for k in range(len(own.targets)):
        held, mark = own.positions.quantities[k], own.positions.marks[k]
        if held != 0.0:
            own.traded[k] += abs(held * mark)
            book_forced(bar, t, k, -held, rate * abs(held * mark))
            options.release(bar.state, k)


def compute_option_notional(state: r.AccountState, k: int) -> float:
    positions = state.options.positions
    unit = 1.0 if positions.are_coin[k] else positions.indices[k]
    return float(abs(positions.quantities[k]) * positions.sizes[k] * unit)


def size_option_step(terms: r.Terms, state: r.AccountState, k: int) -> float:
    """Return the signed contracts of an option that a step of a liquidation trades."""
    i, held = terms.options.instruments[k], state.options.positions.quantities[k]
    notional, share = compute_option_notional(state, k), terms.numbers[i, STEP]
    is_whole = (
        terms.modes[i] != r.PARTIAL
        or not share > 0.0
        or notional <= terms.numbers[i, FULL_BELOW] * (1.0 + TOLERANCE)
        or abs(held) <= 1e-9 * abs(state.options.started[k])
        or balance.compute_pool(terms, state) <= TOLERANCE * notional
    )
    return float(-held if is_whole else -held * share)


def may_step(terms: r.Terms, state: r.AccountState, k: int) -> bool:
    positions = state.options.positions
    held = positions.quantities[k]
    if held <= 0.0 or margin.compute_counted_rate(terms.options.rules, positions, k) < 1.0:
        return bool(held != 0.0)
    for i in range(len(state.positions)):
        if r.is_held(state, i) and not r.is_isolated(terms, i):
            return False
    count = 0
    for j in range(len(state.options.targets)):
        count += 1 if positions.quantities[j] < 0.0 else 0
    return count == 0


@of_options(returns=None)
def take_option_step(bar: r.AccountBar, t: int, k: int) -> None:
    """Trade a step of option k, and book it."""
    traded = size_option_step(bar.terms, bar.state, k)
    cost, asked = force_option(bar, k, traded)
    fee = liquidation.cap_fee(asked, balance.compute_pool(bar.terms, bar.state))
    bar.state.wallet.cash -= fee
    book_forced(bar, t, k, traded, cost + fee)


@of_options(returns=-1)
def choose_option_step(bar: r.AccountBar, least: float, best: float) -> int:
    """Return the option whose step ranks best, -1 if none beats what is given."""
    terms, state, own, chosen = bar.terms, bar.state, bar.state.options, -1
    positions = own.positions
    for k in range(len(own.targets)):
        if may_step(terms, state, k):  # tries a step, and undoes it
            held, cash = positions.quantities[k], state.wallet.cash
            before, traded = balance.compute_excess(terms, state), size_option_step(terms, state, k)
            price = price_forced(terms, state, k, 1.0 if traded > 0.0 else -1.0)
            size = compute_option_notional(state, k)
            state.wallet.cash -= traded * price
            positions.quantities[k] = held + traded
            asked = abs(traded) * options.compute_option_fee(terms, state, k, price)
            fee = liquidation.cap_fee(asked, balance.compute_pool(terms, state))
            gain = balance.compute_excess(terms, state) - fee - before
            positions.quantities[k], state.wallet.cash = held, cash
            if gain > least:
                relief, loss = gain / (size * abs(traded / held)), positions.marks[k] - own.paid[k]
                if terms.order == r.OPTIONS_LAST:
                    delta = margin.compute_option_delta(positions, k)
                    size = abs(held * delta) * positions.indices[k]
                needed = compute_requirement_of_option(bar, k)
                place = 1.0 * (len(state.positions) + k)
                score = rank(terms, relief, -held * loss, needed, size, place)
                if score > best:
                    chosen, best = k, score
    return chosen


def compute_requirement_of_option(bar: r.AccountBar, k: int) -> float:
    """Return the requirement of option k alone, 0 if no step ranks by it; restores the account."""
    terms, state, scratch, own = bar.terms, bar.state, bar.scratch, bar.state.options
    if terms.order != r.LARGEST_REQUIREMENT:
        return 0.0
    for i in range(len(state.positions)):
        position = state.positions[i]
        scratch.walk[i].quantity_aside, position.quantity = position.quantity, 0.0
    for j in range(len(own.targets)):
        own.before[j] = own.positions.quantities[j]
        own.positions.quantities[j] = own.before[j] if j == k else 0.0
    found = balance.compute_with_options(terms, state, False)
    for i in range(len(state.positions)):
        state.positions[i].quantity = scratch.walk[i].quantity_aside
    for j in range(len(own.targets)):
        own.positions.quantities[j] = own.before[j]
    return found


PARTS = 16
"""Places at which a segment is tested."""
HALVINGS = 60
"""Steps of bisection: beyond the last digit."""
DOWN, UP = (1.0, 0.88, 0.7, 0.5, 0.3, 0.1), (1.0, 1.12, 1.3, 1.5, 1.7, 1.9)
"""Ratios of the price between which a liquidation price is searched."""


def find_segment(bar: r.AccountBar) -> margin.Segment:
    """Return the pool on the segment that the walk has before it."""
    state, scratch = bar.state, bar.scratch
    start = margin.Waypoint(scratch.mark, scratch.price)
    end = margin.Waypoint(scratch.mark_end, scratch.price_end)
    return margin.Segment(bar.terms.rules, state.held, state.wallet.cash, start, end)


def value_on_segment(bar: r.AccountBar, place: float) -> None:
    """Write the values and marks of positions and options at a part of the segment."""
    segment = find_segment(bar)
    margin.move_holdings(segment.held, segment.start, segment.end, place)
    options.price_options(bar.terms, bar.state, segment.held.values)


def compute_left(bar: r.AccountBar, place: float) -> float:
    """Return D = M - level R less rounding at a place; the pool fails at 0."""
    value_on_segment(bar, place)
    return balance.compute_caution(bar.terms, bar.state)


@of_options(returns=0.0)
def find_place_with_options(bar: r.AccountBar) -> float:
    """Return at which part of the segment a pool with options fails; 2 if it does not."""
    left = compute_left(bar, 0.0)
    return 0.0 if left <= 0.0 else follow_segment(bar, left)[0]


def follow_segment(bar: r.AccountBar, left: float) -> tuple[float, float]:
    """Return where D first falls to 0, and a lower bound of D at the end if it does not (2)."""
    bound, sound = bound_fall(bar), 0.0
    for part in range(1, PARTS + 1):
        place = part / PARTS
        strike = find_strike(bar, sound, place)
        while strike < place:
            strike_left = compute_left(bar, strike)
            if strike_left <= 0.0:
                return bisect_place(bar, sound, strike), 0.0
            sound, left = strike, strike_left
            strike = find_strike(bar, sound, place)
        if left > bound * (place - sound):
            continue
        tested = compute_left(bar, place)
        if tested <= 0.0:
            return bisect_place(bar, max(sound, (part - 1) / PARTS), place), 0.0
        sound, left = place, tested
    return 2.0, left - bound * (1.0 - sound)


def bisect_place(bar: r.AccountBar, sound: float, failing: float) -> float:
    """Return the first part of the segment that fails, between a sound and a failing one."""
    for _ in range(HALVINGS):
        middle = 0.5 * (sound + failing)
        if compute_left(bar, middle) <= 0.0:
            failing = middle
        else:
            sound = middle
    return failing


def find_strike(bar: r.AccountBar, after: float, before: float) -> float:
    """Return the first part in between at which a price crosses a strike, with `worst` only."""
    terms, scratch, crossed = bar.terms, bar.scratch, before
    brackets, positions = terms.rules.brackets, bar.state.options.positions
    for k in range(len(positions.strikes) if terms.intrabar == r.WORST else 0):
        i = terms.options.instruments[k]
        size, step = brackets.sizes[i], scratch.walk[i].mark_end - scratch.walk[i].mark
        if positions.quantities[k] == 0.0 or step == 0.0:
            continue
        value = size * positions.strikes[k]
        if brackets.are_inverse[i]:
            value = -size / positions.strikes[k]
        place = (value - scratch.walk[i].mark) / step
        if after * (1.0 + TOLERANCE) < place < crossed:
            crossed = place
    return crossed


def bound_fall(bar: r.AccountBar) -> float:
    """Return an upper bound of how far D can fall on the whole segment."""
    terms, state, scratch, packed, fall = bar.terms, bar.state, bar.scratch, bar.terms.rules, 0.0
    positions = state.options.positions
    pool = margin.OptionPool(packed, state.held, positions, terms.options.rules)
    for i in range(len(state.positions)):
        if r.is_held(state, i) and not r.is_isolated(terms, i):
            change = scratch.walk[i].mark_end - scratch.walk[i].mark
            gain = 0.0 if r.is_spot(terms, i) else max(state.positions[i].quantity * change, 0.0)
            fall += abs(change) * margin.bound_linear_slope(packed, state.held, i) - 2.0 * gain
    for c in range(len(state.held.amounts)):
        if state.held.amounts[c] != 0.0:
            step = abs(scratch.assets[c].price_end - scratch.assets[c].price)
            fall += step * margin.bound_asset_slope(packed, state.held, c)
    for k in range(len(state.options.targets)):
        if positions.quantities[k] != 0.0:
            start = options.find_index(terms, k, scratch.mark)
            end = options.find_index(terms, k, scratch.mark_end)
            low, step = min(start, end), abs(end - start)
            if terms.rules.brackets.are_inverse[terms.options.instruments[k]]:
                step *= max(start, end) / low  # prices move fastest at the higher end
            gains = positions.quantities[k] * positions.signs[k] * (end - start) > 0.0
            slope = margin.bound_option_slope(pool, k, low, gains)
            fall += step * slope if step > 0.0 else 0.0
    return fall + TOLERANCE * abs(fall)


@of_options(returns=(0.0, 0.0))
def sum_options_on(
    terms: r.Terms, state: r.AccountState, i: int, values: FloatArray
) -> tuple[float, float]:
    """Return what options on instrument i are worth at some values u, and their notional."""
    worth, notional, is_priced, positions = 0.0, 0.0, False, state.options.positions
    for k in range(len(state.options.targets)):
        if positions.quantities[k] != 0.0 and terms.options.instruments[k] == i:
            if not is_priced:
                options.price_options(terms, state, values)
                is_priced = True
            worth += positions.quantities[k] * positions.marks[k]
            notional += compute_option_notional(state, k)
    return worth, notional


@of_options(returns=False)
def is_moved_by(terms: r.Terms, state: r.AccountState, i: int) -> bool:
    is_any = r.is_held(state, i)
    for k in range(len(state.options.targets)):
        is_on = terms.options.instruments[k] == i
        is_any = is_any or (is_on and state.options.positions.quantities[k] != 0.0)
    return bool(is_any)


def aim_at_ratios(terms: r.Terms, scratch: r.Scratch, i: int, step: int) -> None:
    """Write the segment between two ratios of the price of instrument i."""
    first, second = DOWN[max(step, 0)], DOWN[max(step, 0) + 1]
    if step < 0:
        first, second = UP[-step - 1], UP[-step]
    base = margin.Waypoint(scratch.value_aside, scratch.price_aside)
    margin.aim(terms.rules, base, i, first, margin.Waypoint(scratch.mark, scratch.price))
    margin.aim(terms.rules, base, i, second, margin.Waypoint(scratch.mark_end, scratch.price_end))


def begin_search(state: r.AccountState, scratch: r.Scratch) -> None:
    """Keep the values u and prices from before a search."""
    for i in range(len(state.positions)):
        scratch.walk[i].value_aside = state.positions[i].value
    for c in range(len(state.held.prices)):
        scratch.assets[c].price_aside = state.held.prices[c]


@of_options(returns=False)
def is_far_with_options(bar: r.AccountBar, i: int, excess: float) -> bool:
    """Return whether a bound shows that no price near by lets the pool fail."""
    begin_search(bar.state, bar.scratch)
    aim_at_ratios(bar.terms, bar.scratch, i, 0)
    fall = bound_fall(bar)
    aim_at_ratios(bar.terms, bar.scratch, i, -1)
    return excess > max(fall, bound_fall(bar))


@of_options(returns=0.0)
def find_value_with_options(bar: r.AccountBar, i: int, is_up: bool, left: float) -> float:
    """Return the value u of instrument i at which the pool fails, NaN if there is none."""
    state, scratch, value = bar.state, bar.scratch, math.nan
    begin_search(state, scratch)
    for k in range(len(DOWN) - 1):
        aim_at_ratios(bar.terms, scratch, i, -1 - k if is_up else k)
        if not left > 0.0:
            left = compute_left(bar, 0.0)
        place, left = follow_segment(bar, left) if left > 0.0 else (0.0, left)
        if place <= 1.0:
            value = scratch.walk[i].mark + place * (scratch.walk[i].mark_end - scratch.walk[i].mark)
            break
    for j in range(len(state.positions)):
        state.positions[j].value = scratch.walk[j].value_aside
    for c in range(len(state.held.prices)):
        state.held.prices[c] = scratch.assets[c].price_aside
    options.price_options(bar.terms, state, state.held.values)
    return float(value)


OF_COLLATERAL, OF_FLOWS, OF_RULES = range(3)


def log_causes(bar: r.AccountBar, t: int) -> None:
    """Log where each cause stands before a liquidation of the pool.

    Of an instrument and the collateral, level times the Euler share less what it gained in this
    bar; of flows what they took; and last D.
    """
    terms, state, scratch, ledger, log = bar.terms, bar.state, bar.scratch, bar.ledger, bar.log
    n, last = len(state.positions), len(ledger) - 1
    is_only_cause = n == 1 and len(state.priced) + len(state.options.targets) == 0
    if len(log.entries) == 0 or is_only_cause:
        return
    needed, level = measure_shares(bar), terms.rules.level
    own, options_held = state.options, state.options.positions.quantities
    for i in range(n):
        position = state.positions[i]
        stand, profit, held = 0.0, 0.0, position.quantity
        if not r.is_isolated(terms, i):
            gain = compute_gain(ledger, i)
            if r.is_held(state, i):
                gain += held * (position.value - position.marked)
                profit = held * (position.value - position.entry)
            for k in range(len(own.targets)):
                if terms.options.instruments[k] == i:
                    gain += own.profits[k] - own.fees[k] - own.slippage[k] - own.losses[k]
                    if options_held[k] != 0.0:
                        gain += options_held[k] * (own.positions.marks[k] - own.priced[k])
            stand = level * scratch.shares[i] - gain
        r.log_event(log, t, i, Event.CAUSED, stand, held, profit)
    assets = ledger[last].conversion - ledger[last].collateral_pnl
    for c in range(len(state.held.amounts)):
        assets -= state.held.amounts[c] * (state.held.prices[c] - state.priced[c])
        assets += level * scratch.shares[n + c]
    r.log_event(log, t, n + OF_COLLATERAL, Event.CAUSED, assets, 0.0, 0.0)
    flows = total(ledger, MONEY.interest) - total(ledger, MONEY.flows)
    flows -= total(ledger, MONEY.top_up)
    r.log_event(log, t, n + OF_FLOWS, Event.CAUSED, flows, 0.0, 0.0)
    left = balance.compute_pool(terms, state) - level * needed
    r.log_event(log, t, n + OF_RULES, Event.CAUSED, left, 0.0, 0.0)


def measure_shares(bar: r.AccountBar) -> float:
    """Write the Euler shares of the requirement R into ``scratch.shares``. Returns R."""
    terms, state = bar.terms, bar.state
    margin.fill_shares(terms.rules, state.held, bar.scratch.shares)
    needed = balance.compute_needed(terms, state, False)
    if options.holds_options(state):
        add_option_shares(bar, needed)
    return needed


def write_parts(
    bar: r.AccountBar, parts: FloatArray, withheld: FloatArray, requirement: float
) -> None:
    """Write each position's part of the requirement, and of the value of options that is withheld.

    ``requirement`` is that of the pool, to which the ``parts`` of cross positions add up; that of
    an isolated position is its own. Begins with the Euler shares in ``scratch.shares``, and takes
    from them what the brackets subtract, haircuts and ``withheld`` values, which lower the backing.
    """
    terms, held, shares = bar.terms, bar.state.held, bar.scratch.shares
    rules = terms.rules
    is_joint = rules.own > 0 or rules.has_scenarios
    if options.holds_options(bar.state):
        write_withheld(bar, withheld)

    total = 0.0
    for i in range(len(parts)):
        parts[i] = rules.level * shares[i] - margin.compute_haircut(rules, held, i) - withheld[i]
        if not is_joint and margin.is_in_pool(rules, held, i):
            parts[i] -= rules.level * margin.find_bracket_amount(rules, held, i)
        total += parts[i]

    # Under joint rules collateral has a share too, which is split as those of the positions are.
    for i in range(len(parts)):
        if r.is_isolated(terms, i):
            parts[i] = compute_pool_needed(bar, i)
        elif is_joint and total > 0.0:
            parts[i] *= requirement / total


@of_options(returns=None)
def write_withheld(bar: r.AccountBar, withheld: FloatArray) -> None:
    """Write the value of options that does not count as backing, by underlying."""
    terms, positions = bar.terms, bar.state.options.positions
    for k in range(len(bar.state.options.targets)):
        rate = 1.0 - margin.compute_counted_rate(terms.options.rules, positions, k)
        value = positions.quantities[k] * positions.marks[k]
        if positions.quantities[k] != 0.0:
            withheld[terms.options.instruments[k]] += rate * value


@of_options(returns=None)
def add_option_shares(bar: r.AccountBar, needed: float) -> None:
    """Add the parts of the requirement that options have to the shares of underlyings."""
    terms, state, positions, gross = bar.terms, bar.state, bar.state.options.positions, 0.0
    for k in range(len(state.options.targets)):
        gross += compute_option_notional(state, k) if positions.quantities[k] != 0.0 else 0.0
    rest = needed - margin.compute_portfolio_requirement(terms.rules, state.held, False)
    for k in range(len(state.options.targets)):
        if positions.quantities[k] != 0.0 and gross > 0.0:
            part = rest * (compute_option_notional(state, k) / gross)
            withheld = 1.0 - margin.compute_counted_rate(terms.options.rules, positions, k)
            part += withheld * positions.quantities[k] * positions.marks[k] / terms.rules.level
            bar.scratch.shares[terms.options.instruments[k]] += part


def close_part(bar: r.AccountBar, i: int, closed: float) -> tuple[float, float, float]:
    """Close contracts of a cross position; return the loss beyond u, the notional and the fee."""
    state, position = bar.state, bar.state.positions[i]
    rules, value = r.share(r.pick_instrument(bar.terms, i)), position.value
    filled = liquidation.find_fill(rules, value, closed, bar.quotes.instruments[i])
    state.wallet.cash += closed * filled
    quantity = position.quantity - closed
    entry = position.entry if quantity != 0.0 else 0.0
    r.put_position(state, i, r.Position(quantity, entry, 0.0, value))
    notional = abs(closed) * abs(filled)
    return closed * (value - filled), notional, rules.liquidation_fee * notional


def choose_step(bar: r.AccountBar) -> int:
    """Return the instrument, or n plus the option, whose step ranks best; -1 if none helps."""
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    least = TOLERANCE * terms.rules.level * balance.compute_needed(terms, state, False)
    chosen, best = -1, -math.inf
    for i in range(len(state.positions)):
        if r.is_held(state, i) and not r.is_isolated(terms, i):  # tries a step, and undoes it
            position, cash = r.pick_position(state, i), state.wallet.cash
            before = balance.compute_excess(terms, state)
            _, notional, asked = close_part(bar, i, liquidation.find_step(bar, i))
            fee = liquidation.cap_fee(asked, balance.compute_pool(terms, state))
            gain = balance.compute_excess(terms, state) - fee - before
            r.put_position(state, i, position)
            state.wallet.cash = cash
            if gain > least:
                held, size = position.quantity, abs(position.quantity * state.positions[i].value)
                loss, needed = state.positions[i].value - position.entry, 0.0
                if terms.order == r.LARGEST_REQUIREMENT:
                    hide_others(state, scratch, i, held)
                    needed = margin.compute_portfolio_requirement(terms.rules, state.held, False)
                    show_others(state, scratch)
                place = 1.0 * terms.ranks[i]
                score = rank(terms, gain / notional, -held * loss, needed, size, place)
                if score > best:
                    chosen, best = i, score
    if chosen >= 0 and terms.order == r.OPTIONS_LAST:
        return chosen
    k = choose_option_step(bar, least, best)
    return len(state.positions) + k if k >= 0 else chosen


def rank(
    terms: r.Terms, relief: float, loss: float, needed: float, notional: float, place: float
) -> float:
    """Return how a step ranks in the order of the account: the largest comes first."""
    if terms.order == r.LARGEST_LOSS:
        return loss
    if terms.order == r.LARGEST_REQUIREMENT:
        return needed
    if terms.order in (r.LARGEST_NOTIONAL, r.OPTIONS_LAST):
        return notional
    return -place if terms.order == r.BY_NAME else relief


MOST_STEPS = 100_000
"""Steps of a partial liquidation after which everything closes at once."""


def liquidate_pool(bar: r.AccountBar, t: int, is_alone: bool) -> None:
    """Liquidate the cross positions and options by the mode of the account (accounting 5)."""
    terms, state, scratch, ledger = bar.terms, bar.state, bar.scratch, bar.ledger
    options.price_options(terms, state, state.held.values)
    log_causes(bar, t)
    for i in range(len(state.positions)):
        scratch.walk[i].quantity_at_start = 0.0
        if r.is_held(state, i) and not r.is_isolated(terms, i):
            position = state.positions[i]
            scratch.walk[i].quantity_at_start = position.quantity
            balance.mark_to_ledger(state, i, position.value, ledger)
    for k in range(len(state.options.targets)):
        state.options.started[k] = state.options.positions.quantities[k]
    options.book_profits(state, ledger)
    ledger[len(ledger) - 1].liquidations += 1.0
    balance.mark_collateral(state, state.held.prices, ledger)
    if is_alone and not options.holds_options(state):
        for i in range(len(state.positions)):
            if r.is_held(state, i):  # as an isolated one with all cash
                own = r.Balances(state.wallet.cash, r.pick_position(state, i))
                left = liquidation.liquidate(bar, t, i, own, state.positions[i].value)
                balance.put_balances(terms, state, i, own, left)
    elif terms.liquidation_mode == r.TAKEOVER:
        forfeit_pool(bar, t)
    elif terms.liquidation_mode == r.CLOSE:
        close_pool(bar, t)
    else:
        reduce_pool(bar, t)
    can_sell = False
    for amount in state.held.amounts:
        can_sell = can_sell or amount > 0.0
    if state.wallet.cash < 0.0 and not can_sell and balance.count_cross(terms, state) == 0:
        balance.write_off(bar, t, -state.wallet.cash)
    drop_after_pool_failure(terms, state)


def forfeit_pool(bar: r.AccountBar, t: int) -> None:
    """Write everything off, each position with its share of the loss: a takeover."""
    terms, state, ledger, log = bar.terms, bar.state, bar.ledger, bar.log
    n, lost, gross = len(state.positions), 0.0, 0.0
    for k in range(len(state.options.targets)):
        value = state.options.positions.quantities[k] * state.options.positions.marks[k]
        if value != 0.0:
            lost += value
            gross += abs(value)
    lost += state.wallet.cash
    for c in range(len(state.held.amounts)):
        amount, price = state.held.amounts[c], state.held.prices[c]
        lost += amount * price
        if amount != 0.0:
            left = abs(amount) * price
            r.log_event(log, t, n + c, Event.LIQUIDATED, price, -amount, left)
        state.held.amounts[c] = 0.0
    for i in range(len(state.positions)):
        if r.is_held(state, i) and not r.is_isolated(terms, i):
            position = state.positions[i]
            lost += position.quantity * position.value
            gross += abs(position.quantity * position.value)
    state.wallet.cash = min(lost, 0.0)
    loss = max(lost, 0.0)
    end_forfeit(bar, t, loss / gross if gross > 0.0 else 0.0)
    for i in range(len(state.positions)):
        if r.is_held(state, i) and not r.is_isolated(terms, i):
            position = state.positions[i]
            value = position.value
            notional = abs(position.quantity * value)
            share = loss * (notional / gross) if gross > 0.0 else 0.0
            ledger[i].liquidation_loss += share
            ledger[i].traded += notional
            r.log_liquidation(log, t, i, value, -position.quantity, share)
            r.put_position(state, i, r.Position(0.0, 0.0, 0.0, value))


def close_pool(bar: r.AccountBar, t: int) -> None:
    """Close everything at once; fees are at most what is left."""
    terms, state, scratch, ledger, log = bar.terms, bar.state, bar.scratch, bar.ledger, bar.log
    asked, gross = 0.0, 0.0
    for i in range(len(state.positions)):
        own = scratch.walk[i]
        own.notional_closed = 0.0
        if r.is_held(state, i) and not r.is_isolated(terms, i):
            own.quantity_closed = state.positions[i].quantity
            cost, notional, fee = close_part(bar, i, own.quantity_closed)
            own.cost_closed = cost
            own.notional_closed = notional
            own.fee_closed = fee
            asked += fee
            gross += notional
            ledger[i].traded += notional
    asked_of_options, premiums = close_options_of_pool(bar)
    asked, gross = asked + asked_of_options, gross + premiums
    balance.sell_collateral(bar, t, -balance.compute_balance(terms, state))
    left = max(balance.compute_balance(terms, state), 0.0) + balance.compute_proceeds(terms, state)
    is_all = asked * (1.0 + TOLERANCE) < left
    for i in range(len(state.positions)):
        own = scratch.walk[i]
        if own.notional_closed > 0.0:
            fee = own.fee_closed if is_all else left * (own.notional_closed / gross)
            state.wallet.cash -= fee
            loss = own.cost_closed + fee
            ledger[i].liquidation_loss += loss
            value = state.positions[i].marked
            r.log_liquidation(log, t, i, value, -own.quantity_closed, loss)
    paid = asked_of_options if is_all else left * (premiums / gross) if gross > 0.0 else 0.0
    end_close(bar, t, asked_of_options, paid)
    balance.sell_collateral(bar, t, -balance.compute_balance(terms, state))
    if not is_all and left > 0.0:
        state.wallet.cash = 0.0  # the shares of the fee add up to all that was left


def reduce_pool(bar: r.AccountBar, t: int) -> None:
    """Close in steps, the best first, until the pool holds."""
    terms, state, ledger = bar.terms, bar.state, bar.ledger
    for _ in range(MOST_STEPS):
        i = -1 if balance.compute_pool(terms, state) <= 0.0 else choose_step(bar)
        if i < 0:
            break
        if i < len(state.positions):
            closed = liquidation.find_step(bar, i)
            cost, notional, asked = close_part(bar, i, closed)
            fee = liquidation.cap_fee(asked, balance.compute_pool(terms, state))
            state.wallet.cash -= fee
            ledger[i].liquidation_loss += cost + fee
            ledger[i].traded += notional
            r.log_liquidation(bar.log, t, i, state.positions[i].value, -closed, cost + fee)
        else:
            take_option_step(bar, t, i - len(state.positions))
        if not balance.is_pool_short(terms, state):
            return
    close_pool(bar, t)
