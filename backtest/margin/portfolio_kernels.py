"""Margin of the cross positions of a portfolio, in functions that also compile.

Arrays have one row per instrument, group or collateral, in the order in which they were given, and
are padded on the right. Values ``u`` are those of one contract in the settlement currency
(:mod:`backtest.margin.brackets`). :mod:`backtest.margin.requirement_rule` builds the records.

All instruments of a group move together. In row k the group loses
``l_gk = -w_k sum_i q_i (u_i(P_i (1 + m_k)) - u_i(P_i))``, which is the notional times m for a
linear contract and times m / (1 + m) for an inverse one, so that a group is its two net notionals.
Collateral that cancels risk in the group is a linear part of it. With its own worst row for each
group the loss is ``sum_g max(0, max_k l_gk)``; with the same row for all groups of a product
``max(0, max_k sum_g (l_gk if l_gk > 0 else offset l_gk))``, products summed.

Between two waypoints every u and every collateral price moves on a straight line. The distance to
failure ``D = M - level R`` is then concave and piecewise linear between the places where the
smaller side of a group changes (which matters with a pair contingency only): it fails in between
only if it fails at the end, at one root.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from backtest.core import BoolArray, FloatArray, IntArray
from backtest.core.kernels import inlined
from backtest.core.units import TOLERANCE
from backtest.margin.brackets import MarginRules, compute_initial


class BracketTables(NamedTuple):
    """The bracket rules of n instruments: :class:`MarginRules` with one row for each.

    Levels have shape (n, K); row i uses the first ``counts[i]``.
    """

    counts: IntArray
    floors: FloatArray
    caps: FloatArray
    rates: FloatArray
    amounts: FloatArray
    leverages: FloatArray
    close_fees: FloatArray
    takers: FloatArray
    sizes: FloatArray
    settings: FloatArray
    are_inverse: BoolArray
    are_isolated: BoolArray
    are_valued_at_entry: BoolArray
    multipliers: FloatArray
    initial_multipliers: FloatArray


class ScenarioTables(NamedTuple):
    """The scenarios of G groups of instruments, and what is added to their worst loss.

    ``moves`` and ``weights`` have shape (G, K); a group with fewer rows repeats its last one.
    ``members`` has the instruments sorted by group, those of group g from ``starts[g]`` up to
    ``starts[g + 1]``. ``products`` is the product of each group, of ``n_products``. ``nets``, of
    shape (G, 2), and ``losses``, of shape (G, K), are room for one evaluation.
    """

    moves: FloatArray
    weights: FloatArray
    members: IntArray
    starts: IntArray
    products: IntArray
    n_products: int
    offset: float
    factor: float
    minimum: float
    contingency: float
    pair_contingency: float
    initial_factor: float
    initial_contingency: float
    nets: FloatArray
    losses: FloatArray


class CollateralTables(NamedTuple):
    """The rates of C collateral assets, in marginal tiers of their value, of shape (C, T).

    Row c uses the first ``counts[c]``. ``groups`` is the group whose risk the asset cancels, or -1.
    """

    counts: IntArray
    floors: FloatArray
    caps: FloatArray
    rates: FloatArray
    groups: IntArray
    slippages: FloatArray


class SpotTables(NamedTuple):
    """Which of n instruments are spot legs, and the haircut of each."""

    has_any: bool
    are_spot: BoolArray
    haircuts: FloatArray


class PortfolioRules(NamedTuple):
    """All rules of a portfolio. ``own`` counts its rule in :data:`OWN_RULES` from 1, 0 for none."""

    brackets: BracketTables
    scenarios: ScenarioTables
    collateral: CollateralTables
    has_scenarios: bool
    level: float
    spot: SpotTables
    own: int = 0


class Holdings(NamedTuple):
    """What an account holds, and the prices at which it is valued.

    ``quantities`` (signed contracts), ``entries`` and ``values`` (u at the entry and now, NaN where
    nothing is held) have shape (n,); ``amounts`` (a debt is negative) and ``prices`` of collateral
    (C,).
    """

    quantities: FloatArray
    entries: FloatArray
    values: FloatArray
    amounts: FloatArray
    prices: FloatArray


OWN_RULES: list[Callable[[PortfolioRules, Holdings, bool], float]] = []
"""The requirements of the user's own in this process."""


def ask_own(rules: PortfolioRules, held: Holdings, is_initial: bool) -> float:
    """Ask a requirement of the user's own; compiled code, which has none, replaces this."""
    return OWN_RULES[rules.own - 1](rules, held, is_initial)


@inlined
def pick_rules(tables: BracketTables, i: int) -> MarginRules:
    count: int = tables.counts[i]
    levels: Any = tables
    return MarginRules(
        floors=levels.floors[i, :count],
        caps=levels.caps[i, :count],
        rates=levels.rates[i, :count],
        amounts=levels.amounts[i, :count],
        leverages=levels.leverages[i, :count],
        close_fee=tables.close_fees[i],
        taker=tables.takers[i],
        size=tables.sizes[i],
        setting=tables.settings[i],
        is_inverse=tables.are_inverse[i],
        is_isolated=tables.are_isolated[i],
        is_valued_at_entry=tables.are_valued_at_entry[i],
        multiplier=tables.multipliers[i],
        initial_multiplier=tables.initial_multipliers[i],
    )


@inlined
def is_spot_leg(rules: PortfolioRules, i: int) -> bool:
    return bool(rules.spot.has_any and rules.spot.are_spot[i])


@inlined
def is_in_pool(rules: PortfolioRules, held: Holdings, i: int) -> bool:
    return held.quantities[i] != 0.0 and not rules.brackets.are_isolated[i]


def compute_value_at_rate(tables: CollateralTables, c: int, value: float) -> float:
    """Return what a value of collateral c counts for, money: its part in each tier at its rate.

    A debt, a negative value, counts in full.
    """
    if value < 0.0:
        return value

    # Each tier counts the part of the value that lies in it.
    counted = 0.0
    for k in range(tables.counts[c]):
        if value > tables.floors[c, k]:
            in_tier = min(value, tables.caps[c, k]) - tables.floors[c, k]
            counted += tables.rates[c, k] * in_tier
    return counted


def compute_collateral_value(tables: CollateralTables, held: Holdings) -> float:
    """Return what all collateral counts for: its value at its rates, debts in full."""
    total = 0.0
    for c in range(len(held.amounts)):
        if held.amounts[c] != 0.0:
            total += compute_value_at_rate(tables, c, held.amounts[c] * held.prices[c])
    return total


def compute_full_value(held: Holdings) -> float:
    """Return the value of all collateral, without haircuts."""
    total = 0.0
    for c in range(len(held.amounts)):
        if held.amounts[c] != 0.0:
            total += held.amounts[c] * held.prices[c]
    return total


def compute_gain_rate(is_inverse: bool, move: float) -> float:
    """Return the gain of a contract per unit of its notional in a move of the price."""
    if is_inverse:
        return move / (1.0 + move)
    return move


def compute_move_loss(linear: float, inverse: float, move: float, weight: float) -> float:
    """Return what net notionals, money, lose in a move of the price, times the scenario's weight.

    ``move`` is a fraction. The notional of linear contracts gains ``move`` times itself, that of
    inverse ones move / (1 + move). Negative for a gain.
    """
    gain = linear * move
    if inverse != 0.0:
        gain += inverse * (move / (1.0 + move))
    return -weight * gain


@inlined
def compute_exposure(held: Holdings, i: int) -> float:
    """Return the notional of instrument i with the sign of its position."""
    exposure: float = held.quantities[i] * abs(held.values[i])
    return exposure


def fill_nets(rules: PortfolioRules, held: Holdings) -> None:
    """Write the net notionals of each group, linear and inverse, into ``scenarios.nets``.

    Of shape (groups, 2), money with the sign of the position. They are apart, as a move of the
    price changes their values by different shares. ``members`` has the instruments group by group,
    those of group g from place ``starts[g]`` up to ``starts[g + 1]``.
    """
    tables = rules.scenarios
    for g in range(len(tables.products)):
        linear = 0.0
        inverse = 0.0
        for place in range(tables.starts[g], tables.starts[g + 1]):
            i = tables.members[place]
            if is_in_pool(rules, held, i):
                if rules.brackets.are_inverse[i]:
                    inverse += compute_exposure(held, i)
                else:
                    linear += compute_exposure(held, i)
        tables.nets[g, 0] = linear
        tables.nets[g, 1] = inverse

    # Collateral that cancels risk is a linear part of its group.
    for c in range(len(held.amounts)):
        group = rules.collateral.groups[c]
        if group >= 0 and held.amounts[c] != 0.0:
            tables.nets[group, 0] += held.amounts[c] * held.prices[c]


def compute_product_loss(tables: ScenarioTables, product: int, k: int) -> float:
    """Return the loss of a product in row k: losses in full, gains by ``offset``."""
    total = 0.0
    for g in range(len(tables.products)):
        if tables.products[g] == product:
            loss = tables.losses[g, k]
            total += find_counted_share(tables, loss) * loss
    return total


@inlined
def find_counted_share(tables: ScenarioTables, loss: float) -> float:
    """Return the share of a group's loss that counts in its product; less of a gain."""
    if loss > 0.0:
        return 1.0
    return tables.offset


def find_product_row(tables: ScenarioTables, product: int) -> int:
    """Return the scenario (a row of the rule) in which a product loses most; -1 if in none.

    A product is several groups, whose losses in one scenario are added. Reads
    ``scenarios.losses``.
    """
    worst = 0.0
    row = -1

    # Of equal rows the first counts, for the shares of the positions too.
    for k in range(tables.moves.shape[1]):
        loss = compute_product_loss(tables, product, k)
        if loss > worst:
            worst = loss
            row = k
    return row


def compute_scenario_loss(rules: PortfolioRules, held: Holdings) -> float:
    """Return the worst loss of the pool in the scenarios: money.

    Of each product, the loss in the scenario that is worst for it; then summed. Writes the loss of
    each group in each scenario into ``scenarios.losses``, of shape (groups, scenarios), and its net
    notionals into ``scenarios.nets``.
    """
    tables = rules.scenarios
    fill_nets(rules, held)
    for g in range(len(tables.products)):
        linear = tables.nets[g, 0]
        inverse = tables.nets[g, 1]
        for k in range(tables.moves.shape[1]):
            move = tables.moves[g, k]
            tables.losses[g, k] = compute_move_loss(linear, inverse, move, tables.weights[g, k])

    total = 0.0
    for product in range(tables.n_products):
        row = find_product_row(tables, product)
        if row >= 0:
            total += compute_product_loss(tables, product, row)
    return total


def compute_gross(rules: PortfolioRules, held: Holdings) -> float:
    """Return the gross notional of the pool."""
    total = 0.0
    for i in range(len(held.quantities)):
        if is_in_pool(rules, held, i):
            total += abs(held.quantities[i] * held.values[i])
    return total


def compute_side(rules: PortfolioRules, held: Holdings, g: int, side: float) -> float:
    """Return the notional, without sign, of the longs (side 1) or shorts (-1) of group g: money."""
    starts = rules.scenarios.starts
    total = 0.0
    for place in range(starts[g], starts[g + 1]):
        i = rules.scenarios.members[place]
        if is_in_pool(rules, held, i):
            total += max(0.0, side * compute_exposure(held, i))
    return total


def compute_tested_notional(rules: PortfolioRules, held: Holdings, i: int) -> float:
    """Return the notional whose maintenance margin counts: at the entry, or at the value now."""
    value = held.values[i]
    if rules.brackets.are_valued_at_entry[i]:
        value = held.entries[i]
    notional: float = abs(held.quantities[i]) * abs(value)
    return notional


@inlined
def scale_rate(rate: float, multiplier: float, close_fee: float) -> float:
    return min(1.0, multiplier * rate + close_fee)


class MarginBracket(NamedTuple):
    """Maintenance margin of notionals over ``above`` and up to ``most``: rate * N - amount."""

    rate: float
    amount: float
    above: float
    most: float


@inlined
def find_bracket(tables: BracketTables, i: int, notional: float) -> MarginBracket:
    """Return the row of the margin table of instrument i in which a notional lies.

    The maintenance margin there is rate * notional - amount, for notionals over ``above`` and up to
    ``most``. Rates are those of the table, times the multiplier of this bar, plus the fee of
    closing where the venue adds it.
    """
    multiplier = tables.multipliers[i]
    fee = tables.close_fees[i]
    rate = scale_rate(tables.rates[i, 0], multiplier, fee)
    amount = 0.0
    above = -1.0  # below every notional, as that of a flat position is 0

    # At the floor of a bracket both rates must give the same margin. That determines its amount.
    k = 1
    while k < tables.counts[i] and notional > tables.floors[i, k]:
        next_rate = scale_rate(tables.rates[i, k], multiplier, fee)
        amount += tables.floors[i, k] * (next_rate - rate)
        rate = next_rate
        above = tables.floors[i, k]
        k += 1

    most = math.inf
    if k < tables.counts[i]:
        most = tables.floors[i, k]
    return MarginBracket(rate=rate, amount=amount, above=above, most=most)


@inlined
def find_maintenance(tables: BracketTables, i: int, notional: float) -> float:
    bracket = find_bracket(tables, i, notional)
    return bracket.rate * notional - bracket.amount


def find_own_maintenance(rules: PortfolioRules, held: Holdings, i: int) -> float:
    """Return the maintenance margin of instrument i by its brackets."""
    return find_maintenance(rules.brackets, i, compute_tested_notional(rules, held, i))


def find_bracket_amount(rules: PortfolioRules, held: Holdings, i: int) -> float:
    """Return what the bracket of a position takes off its rate times the notional."""
    return find_bracket(rules.brackets, i, compute_tested_notional(rules, held, i)).amount


def combine_scenarios(
    rules: PortfolioRules, held: Holdings, loss: float, is_initial: bool
) -> float:
    """Return the margin that a scenario rule asks of the pool, given its worst loss: money.

    With the factor and the contingency of initial or of maintenance margin it is::

        max(factor * loss, minimum * gross) + contingency * gross + pair_contingency * offset

    ``gross`` is the notional of all positions without sign, ``offset`` what longs and shorts of
    the same group offset of it.
    """
    tables = rules.scenarios
    gross = compute_gross(rules, held)
    offset = 0.0
    if tables.pair_contingency > 0.0:
        for g in range(len(tables.products)):
            longs = compute_side(rules, held, g, 1.0)
            shorts = compute_side(rules, held, g, -1.0)
            offset += min(longs, shorts)

    factor = tables.factor
    contingency = tables.contingency
    if is_initial:
        factor = tables.initial_factor
        contingency = tables.initial_contingency
    at_least = max(factor * loss, tables.minimum * gross)
    return at_least + contingency * gross + tables.pair_contingency * offset


def compute_portfolio_requirement(rules: PortfolioRules, held: Holdings, is_initial: bool) -> float:
    """Return the margin that the pool of cross positions needs: money.

    Its maintenance margin, or with ``is_initial`` its initial margin: by a rule of the user's own,
    by scenarios, or the sum of the brackets of its positions.
    """
    if rules.own > 0:
        return ask_own(rules, held, is_initial)
    if rules.has_scenarios:
        return combine_scenarios(rules, held, compute_scenario_loss(rules, held), is_initial)

    total = 0.0
    if not is_initial:
        for i in range(len(held.quantities)):
            if is_in_pool(rules, held, i):
                total += find_own_maintenance(rules, held, i)
        return total

    tables = rules.brackets
    for i in range(len(held.quantities)):
        if is_in_pool(rules, held, i):
            notional = abs(held.quantities[i] * abs(held.values[i]))
            multiplier = tables.initial_multipliers[i]
            total += compute_initial(pick_rules(tables, i), notional, multiplier)
    # The backing lacks the haircuts already, so that an order does not pay them twice.
    return total - compute_haircuts(rules, held)


def compute_haircut(rules: PortfolioRules, held: Holdings, i: int) -> float:
    """Return what of a long spot leg backs nothing; 0 of any other position."""
    if not is_spot_leg(rules, i) or not held.quantities[i] > 0.0:
        return 0.0
    return float(rules.spot.haircuts[i] * (held.quantities[i] * held.values[i]))


def compute_haircuts(rules: PortfolioRules, held: Holdings) -> float:
    """Return the haircuts of all spot legs."""
    total = 0.0
    if rules.spot.has_any:
        for i in range(len(held.quantities)):
            total += compute_haircut(rules, held, i)
    return total


def compute_portfolio_backing(rules: PortfolioRules, held: Holdings, cash: float) -> float:
    """Return what backs the pool: full backing less the haircuts of spot legs."""
    backing = compute_full_backing(rules, held, cash)
    if rules.spot.has_any:
        backing -= compute_haircuts(rules, held)
    return backing


def compute_full_backing(rules: PortfolioRules, held: Holdings, cash: float) -> float:
    """Return cash, positions at their values, and collateral at its rates.

    ``cash`` is without the entries of the positions, so that values count, and not profits.
    """
    total = cash
    for i in range(len(held.quantities)):
        if is_in_pool(rules, held, i):
            total += held.quantities[i] * held.values[i]
    return total + compute_collateral_value(rules.collateral, held)


def has_position(rules: PortfolioRules, held: Holdings) -> bool:
    """Return whether the pool holds anything in any instrument."""
    for i in range(len(held.quantities)):  # noqa: SIM110 - numba compiles no generators
        if is_in_pool(rules, held, i):
            return True
    return False


def is_pool_failing(rules: PortfolioRules, held: Holdings, cash: float) -> bool:
    """Return whether the backing is at most ``level`` times the requirement; not without positions.

    A backing that equals it, give or take rounding, fails.
    """
    if not has_position(rules, held):
        return False

    required = compute_portfolio_requirement(rules, held, is_initial=False)
    needed = rules.level * required
    return compute_portfolio_backing(rules, held, cash) <= needed * (1.0 + TOLERANCE)


def fill_shares(rules: PortfolioRules, held: Holdings, shares: FloatArray) -> None:
    """Write into ``shares`` how much of the requirement R is due to each position and collateral.

    Money: first the n positions, then the C collaterals. The Euler share of a position is its
    quantity times dR / d quantity; these shares add up to R. Where R has a kink, the derivative is
    that of the lower bracket, or of the scenario that decides, the first of equal ones.

    A spot leg also has its haircut, divided by the level of liquidation, as readers multiply all
    shares by that level.
    """
    shares[:] = 0.0
    if rules.own > 0:
        fill_own_shares(rules, held, shares)
    elif rules.has_scenarios:
        fill_scenario_shares(rules, held, shares)
    else:
        for i in range(len(held.quantities)):
            if is_in_pool(rules, held, i):
                notional = compute_tested_notional(rules, held, i)
                shares[i] = find_bracket(rules.brackets, i, notional).rate * notional

    if rules.spot.has_any:
        for i in range(len(held.quantities)):
            shares[i] += compute_haircut(rules, held, i) / rules.level


def fill_own_shares(rules: PortfolioRules, held: Holdings, shares: FloatArray) -> None:
    """Write the Euler shares of a requirement of the user's own into ``shares``: money.

    The share of a position is quantity * dR / d quantity: what the requirement R changes by for a
    relative change of the quantity. Nothing is known of the user's rule, so the derivative is a
    central difference: R is asked for at quantities a small part, OWN_STEP, larger and smaller.
    Each quantity is put back.
    """
    for i in range(len(held.quantities)):
        if not is_in_pool(rules, held, i):
            continue

        quantity = held.quantities[i]
        held.quantities[i] = quantity * (1.0 + OWN_STEP)
        above = compute_portfolio_requirement(rules, held, is_initial=False)
        held.quantities[i] = quantity * (1.0 - OWN_STEP)
        below = compute_portfolio_requirement(rules, held, is_initial=False)
        held.quantities[i] = quantity

        shares[i] = (above - below) / (2.0 * OWN_STEP)


def fill_scenario_shares(rules: PortfolioRules, held: Holdings, shares: FloatArray) -> None:
    """Add the part of each instrument and collateral in a requirement by scenarios to ``shares``.

    Money; n instruments, then the collateral. The requirement is the sum of a risk and of charges::

        max(factor * worst loss, minimum * gross notional)
        contingency * gross notional + pair_contingency * what longs and shorts of a group offset

    Groups of instruments move together, and a product is several groups. The part of an instrument
    in the worst loss is what it loses in the scenario that is worst for its product; its part in
    the terms of gross notional is by its own notional. Where the minimum is the larger one, the
    loss has no part.
    """
    tables = rules.scenarios
    # Also writes ``tables.losses``, which :func:`find_product_row` reads.
    loss = compute_scenario_loss(rules, held)
    gross = compute_gross(rules, held)

    # What a unit of notional adds to the requirement, whatever its side.
    is_minimum = tables.minimum * gross > tables.factor * loss
    rate_of_gross = tables.contingency
    if is_minimum:
        rate_of_gross = tables.contingency + tables.minimum

    for g in range(len(tables.products)):
        # The scenario that decides for the group, -1 if its product loses in none; its move of the
        # price; and what a gain of 1 of money in it adds to the requirement, which is negative. A
        # group that gains in it counts by a smaller share (``find_counted_share``).
        row = find_product_row(tables, tables.products[g])
        added_by_gain = 0.0
        move = 0.0
        if row >= 0 and not is_minimum:
            counted = find_counted_share(tables, tables.losses[g, row])
            added_by_gain = -tables.factor * counted * tables.weights[g, row]
            move = tables.moves[g, row]

        for place in range(tables.starts[g], tables.starts[g + 1]):
            i = tables.members[place]
            if is_in_pool(rules, held, i):
                exposure = compute_exposure(held, i)
                gain = exposure * compute_gain_rate(rules.brackets.are_inverse[i], move)
                shares[i] += added_by_gain * gain + rate_of_gross * abs(exposure)

        # Collateral that cancels risk of the group gains too, and has no gross notional.
        for c in range(len(held.amounts)):
            if rules.collateral.groups[c] == g and held.amounts[c] != 0.0:
                gain_of_asset = held.amounts[c] * held.prices[c] * move
                shares[len(held.quantities) + c] += added_by_gain * gain_of_asset
        if tables.pair_contingency > 0.0:
            add_pair_shares(rules, held, g, shares)


def add_pair_shares(rules: PortfolioRules, held: Holdings, g: int, shares: FloatArray) -> None:
    """Add the pair contingency of group g to the ``shares`` of its positions: money.

    That is a charge on what longs and shorts of a group offset, which is the smaller one of the two
    sides. So the positions of the smaller side bear it by notional. Where the sides are equal, each
    bears half.
    """
    tables = rules.scenarios
    longs = compute_side(rules, held, g, 1.0)
    shorts = compute_side(rules, held, g, -1.0)
    share_of_longs = 0.5
    if longs < shorts:
        share_of_longs = 1.0
    elif longs > shorts:
        share_of_longs = 0.0

    for place in range(tables.starts[g], tables.starts[g + 1]):
        i = tables.members[place]
        if is_in_pool(rules, held, i):
            exposure = compute_exposure(held, i)
            share_of_side = 1.0 - share_of_longs
            if exposure > 0.0:
                share_of_side = share_of_longs
            shares[i] += tables.pair_contingency * share_of_side * abs(exposure)


OWN_PARTS = 16
"""Places at which a segment is tested under a requirement of the user's own."""
OWN_STEP = 1e-6
"""The relative change of a quantity for its Euler share under such a requirement."""
MAX_STEPS = 100
"""Steps of false position; a portfolio needs about ten."""
SAME_ROOT = 1e-15
"""Two roots that differ by less than this part of them are one: it is below a bit of a double."""


class Waypoint(NamedTuple):
    """A value u of each instrument, shape (n,), and a price of each collateral, shape (C,)."""

    values: FloatArray
    prices: FloatArray


class Segment(NamedTuple):
    """A pool, with its cash, between two waypoints; what is ``held`` is valued where it stands."""

    rules: PortfolioRules
    held: Holdings
    cash: float
    start: Waypoint
    end: Waypoint


def move_holdings(held: Holdings, start: Waypoint, end: Waypoint, place: float) -> None:
    """Value ``held`` at a place between two waypoints: 0 is ``start``, 1 is ``end``.

    Writes the contract values of the instruments and the prices of the collateral, both of which
    move on straight lines.
    """
    # At the end itself: start + 1 * (end - start) may miss it by rounding.
    if place == 1.0:
        copy_waypoint(held, end)
        return

    for i in range(len(held.values)):
        step = end.values[i] - start.values[i]
        held.values[i] = start.values[i] + place * step
    for c in range(len(held.prices)):
        step = end.prices[c] - start.prices[c]
        held.prices[c] = start.prices[c] + place * step


def copy_waypoint(held: Holdings, waypoint: Waypoint) -> None:
    """Write the values and prices of a waypoint into ``held``."""
    for i in range(len(held.values)):
        held.values[i] = waypoint.values[i]
    for c in range(len(held.prices)):
        held.prices[c] = waypoint.prices[c]


def compute_distance_left(rules: PortfolioRules, held: Holdings, cash: float) -> float:
    """Return the distance to failure: backing less ``level`` times the requirement."""
    backing = compute_portfolio_backing(rules, held, cash)
    return backing - rules.level * compute_portfolio_requirement(rules, held, is_initial=False)


def find_next_break(segment: Segment, place: float) -> float:
    """Return the next place of a segment, at most 1, that a search for failure must test.

    Up to there, what the pool has over its requirement is a concave function of the place. So a
    pool that holds at both ends holds between them. At such a break the function may bend up.
    """
    rules = segment.rules
    tables = rules.scenarios
    held = segment.held
    # Nothing is known of a requirement of the user's own: it is tested at several places.
    if rules.own > 0:
        return place + 1.0 / OWN_PARTS
    # Brackets and losses of scenarios have no break.
    if not rules.has_scenarios or tables.pair_contingency <= 0.0:
        return 1.0

    # The charge is on the smaller one of longs and shorts of a group. It breaks where they are
    # equal, so where the net of the group, which is linear in the place, crosses 0.
    nearest = 1.0
    for g in range(len(tables.products)):
        net_at_start = 0.0
        net_at_end = 0.0
        for order in range(tables.starts[g], tables.starts[g + 1]):
            i = tables.members[order]
            if is_in_pool(rules, held, i):
                net_at_start += held.quantities[i] * abs(segment.start.values[i])
                net_at_end += held.quantities[i] * abs(segment.end.values[i])

        is_crossing = net_at_start * net_at_end < 0.0
        if is_crossing:
            crossing = net_at_start / (net_at_start - net_at_end)
            # The crossing at the place itself, give or take rounding, was the last break.
            if place * (1.0 + TOLERANCE) < crossing < nearest:
                nearest = crossing
    return nearest


def find_failure(segment: Segment) -> float:
    """Return the first place of a segment, 0 to 1, at which the pool fails; NaN if it does not.

    Leaves what is held valued somewhere on the segment.
    """
    # ALONG: the search goes along the segment, not over the price of one instrument.
    sound = 0.0
    if is_failing_at(segment, ALONG, sound):
        return 0.0

    # From break to break. Between two of them what the pool has over its requirement is concave, so
    # a pool that holds at both holds between them.
    while sound < 1.0:
        next_break = find_next_break(segment, sound)
        if is_failing_at(segment, ALONG, next_break):
            return find_root(segment, ALONG, sound, next_break)
        sound = next_break
    return math.nan


ALONG = -1
"""In place of an instrument: the search goes along the segment, not over one price."""


def stand_at(segment: Segment, i: int, x: float) -> None:
    """Value the pool of a segment where a search stands.

    With ``i`` ALONG that is place ``x`` of the segment, 0 to 1. Else it is the start of the segment
    with the price of instrument i at ``x`` times what it was, which is written into its end.
    """
    place = x
    if i != ALONG:
        aim(segment.rules, segment.start, i, x, segment.end)
        place = 1.0
    move_holdings(segment.held, segment.start, segment.end, place)


def is_failing_at(segment: Segment, i: int, x: float) -> bool:
    stand_at(segment, i, x)
    return is_pool_failing(segment.rules, segment.held, segment.cash)


def compute_left_at(segment: Segment, i: int, x: float) -> float:
    stand_at(segment, i, x)
    return compute_distance_left(segment.rules, segment.held, segment.cash)


def find_root(segment: Segment, i: int, sound: float, failing: float) -> float:
    """Return where the pool begins to fail, between a ``sound`` and a ``failing`` place.

    With ``i`` ALONG the three are places on the segment, 0 to 1; else ratios of the price of
    instrument i to its price now. The pool fails where what it has over its requirement is 0.

    By false position with the halving of the Illinois method (Dowell and Jarratt 1971). A
    requirement of the user's own may jump or be infinite, so its root is found by bisection.
    """
    if segment.rules.own > 0:
        return bisect_root(segment, i, sound, failing)

    above = compute_left_at(segment, i, sound)
    below = compute_left_at(segment, i, failing)
    root = failing
    last_side = 0.0
    for _ in range(MAX_STEPS):
        # A line through both ends needs one over 0 and one under 0: it ends at a root, or at NaN.
        if not (below < 0.0 < above):
            break
        last_root = root
        root = failing - below * ((failing - sound) / (below - above))
        left = compute_left_at(segment, i, root)
        if left == 0.0 or abs(root - last_root) <= SAME_ROOT * root:
            break

        # Illinois: where the same end is replaced twice in a row, the height of the other is
        # halved. Else the root would be approached from one side, in ever smaller steps.
        if left > 0.0:
            sound = root
            above = left
            if last_side == 1.0:
                below *= 0.5
            last_side = 1.0
        else:
            failing = root
            below = left
            if last_side == -1.0:
                above *= 0.5
            last_side = -1.0
    return root


def bisect_root(segment: Segment, i: int, sound: float, failing: float) -> float:
    """Return where the pool fails between two places, by bisection: see :func:`find_root`.

    The answer is the failing end of the smallest interval, so that the pool has failed there.
    """
    above = compute_left_at(segment, i, sound)
    below = compute_left_at(segment, i, failing)
    root = failing
    for _ in range(MAX_STEPS):
        # An end that already is a root, or has no sign, has no root beside it.
        if not (below < 0.0 < above):
            break

        # No number lies between the two ends.
        root = 0.5 * (sound + failing)
        if root in (sound, failing):
            stand_at(segment, i, failing)
            return failing

        left = compute_left_at(segment, i, root)
        if left == 0.0:
            break
        if left > 0.0:
            sound = root
            above = left
        else:
            failing = root
            below = left
    return root


NO_GROUP = -2
"""The group of an instrument that is in none; -1 is that of collateral without one."""


NEAR_ZERO = 1e-12
"""The lowest price that is searched, as a fraction of the price now."""
FAR_AWAY = 1e12
"""The highest price that is searched, as a multiple of the price now."""


def find_group(packed: PortfolioRules, i: int) -> int:
    """Return the number of the group of scenarios of instrument i; NO_GROUP without scenarios.

    ``members`` has the instruments group by group, those of group g from place ``starts[g]`` up to
    ``starts[g + 1]``.
    """
    tables = packed.scenarios
    if packed.has_scenarios:
        for g in range(len(tables.products)):
            for place in range(tables.starts[g], tables.starts[g + 1]):
                if tables.members[place] == i:
                    return g
    return NO_GROUP


def aim(packed: PortfolioRules, start: Waypoint, i: int, ratio: float, end: Waypoint) -> None:
    """Write into ``end`` what ``start`` becomes if the price of instrument i moves by a ratio.

    All instruments of its group of scenarios move by the same ratio, and so does collateral that
    cancels risk of the group; all else stays. Without scenarios, i moves alone. Contract values of
    inverse contracts, which are -size / price, move by 1 / ratio.
    """
    group = find_group(packed, i)
    inverse_ratio = 1.0 / ratio
    for j in range(len(start.values)):
        is_moved = j == i or (packed.has_scenarios and find_group(packed, j) == group)
        if not is_moved:
            end.values[j] = start.values[j]
        elif packed.brackets.are_inverse[j]:
            end.values[j] = start.values[j] * inverse_ratio
        else:
            end.values[j] = start.values[j] * ratio

    # Collateral that cancels risk moves with its group.
    for c in range(len(start.prices)):
        end.prices[c] = start.prices[c]
        if packed.collateral.groups[c] == group:
            end.prices[c] = start.prices[c] * ratio


def search_ratio(segment: Segment, i: int, first_end: float) -> float:
    """Return at which ratio of instrument i's price to its price now the pool fails; NaN if none.

    The search starts at 1, where the pool holds, and goes down if ``first_end`` is under 1, else
    up. It goes in stretches: to ``first_end``, to its square, to the square of that, and so on,
    until NEAR_ZERO or FAR_AWAY. In the first stretch at whose end the pool fails, the ratio is
    narrowed down.
    """
    # Inside a stretch what is left over the requirement is concave, so a pool that holds at both
    # ends holds between them. A requirement of the user's own need not be, so its stretches have
    # parts.
    parts = 1
    if segment.rules.own > 0:
        parts = OWN_PARTS

    # From the ratio of now, which holds, to the end of the first stretch, and on from there.
    holding_ratio = 1.0
    end = first_end
    while NEAR_ZERO <= end <= FAR_AWAY:
        step = (end - holding_ratio) / parts
        for k in range(1, parts + 1):
            # Counted from the end, so that the last part is exactly the end.
            ratio = end - (parts - k) * step
            if is_failing_at(segment, i, ratio):
                return find_root(segment, i, holding_ratio, ratio)
            holding_ratio = ratio
        end = end * end
    return math.nan


def find_failure_ratio(segment: Segment, i: int) -> float:
    """Return the nearest ratio of the price of i, down or up, at which the pool fails; or NaN.

    Leaves the holdings at the start of the segment.
    """
    if is_failing_at(segment, i, 1.0):
        return 1.0

    down = search_ratio(segment, i, first_end=0.5)
    up = search_ratio(segment, i, first_end=2.0)
    move_holdings(segment.held, segment.start, segment.end, 0.0)

    # Down where it is nearer. NaN is none: where ``down`` is NaN, the comparison is false.
    if math.isnan(up) or 1.0 - down < up - 1.0:
        return down
    return up
