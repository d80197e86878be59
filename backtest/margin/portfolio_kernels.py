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
    """Return the value of collateral c after the haircuts of its tiers; debt counts in full."""
    if value < 0.0:
        return value
    counted = 0.0
    for k in range(tables.counts[c]):
        if value > tables.floors[c, k]:
            counted += tables.rates[c, k] * (min(value, tables.caps[c, k]) - tables.floors[c, k])
    return counted


def compute_collateral_value(tables: CollateralTables, held: Holdings) -> float:
    total = 0.0
    for c in range(len(held.amounts)):
        if held.amounts[c] != 0.0:
            total += compute_value_at_rate(tables, c, held.amounts[c] * held.prices[c])
    return total


def compute_full_value(held: Holdings) -> float:
    total = 0.0
    for c in range(len(held.amounts)):
        if held.amounts[c] != 0.0:
            total += held.amounts[c] * held.prices[c]
    return total


def compute_gain_rate(is_inverse: bool, move: float) -> float:
    return move / (1.0 + move) if is_inverse else move


def compute_move_loss(linear: float, inverse: float, move: float, weight: float) -> float:
    gain = linear * move
    if inverse != 0.0:
        gain += inverse * (move / (1.0 + move))
    return -weight * gain


@inlined
def compute_exposure(held: Holdings, i: int) -> float:
    exposure: float = held.quantities[i] * abs(held.values[i])
    return exposure


def fill_nets(rules: PortfolioRules, held: Holdings) -> None:
    tables = rules.scenarios
    for g in range(len(tables.products)):
        linear, inverse = 0.0, 0.0
        for place in range(tables.starts[g], tables.starts[g + 1]):
            i = tables.members[place]
            if is_in_pool(rules, held, i):
                if rules.brackets.are_inverse[i]:
                    inverse += compute_exposure(held, i)
                else:
                    linear += compute_exposure(held, i)
        tables.nets[g, 0], tables.nets[g, 1] = linear, inverse
    for c in range(len(held.amounts)):
        if rules.collateral.groups[c] >= 0 and held.amounts[c] != 0.0:
            tables.nets[rules.collateral.groups[c], 0] += held.amounts[c] * held.prices[c]


def compute_product_loss(tables: ScenarioTables, product: int, k: int) -> float:
    total = 0.0
    for g in range(len(tables.products)):
        if tables.products[g] == product:
            loss = tables.losses[g, k]
            total += (1.0 if loss > 0.0 else tables.offset) * loss
    return total


def find_product_row(tables: ScenarioTables, product: int) -> int:
    worst, row = 0.0, -1
    for k in range(tables.moves.shape[1]):
        loss = compute_product_loss(tables, product, k)
        if loss > worst:
            worst, row = loss, k
    return row


def compute_scenario_loss(rules: PortfolioRules, held: Holdings) -> float:
    fill_nets(rules, held)
    tables, total = rules.scenarios, 0.0
    for g in range(len(tables.products)):
        for k in range(tables.moves.shape[1]):
            linear, inverse = tables.nets[g, 0], tables.nets[g, 1]
            move, weight = tables.moves[g, k], tables.weights[g, k]
            tables.losses[g, k] = compute_move_loss(linear, inverse, move, weight)
    for product in range(tables.n_products):
        k = find_product_row(tables, product)
        total += compute_product_loss(tables, product, k) if k >= 0 else 0.0
    return total


def compute_gross(rules: PortfolioRules, held: Holdings) -> float:
    total = 0.0
    for i in range(len(held.quantities)):
        if is_in_pool(rules, held, i):
            total += abs(held.quantities[i] * held.values[i])
    return total


def compute_side(rules: PortfolioRules, held: Holdings, g: int, side: float) -> float:
    total = 0.0
    for place in range(rules.scenarios.starts[g], rules.scenarios.starts[g + 1]):
        i = rules.scenarios.members[place]
        if is_in_pool(rules, held, i):
            total += max(0.0, side * compute_exposure(held, i))
    return total


def compute_tested_notional(rules: PortfolioRules, held: Holdings, i: int) -> float:
    value = held.entries[i] if rules.brackets.are_valued_at_entry[i] else held.values[i]
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
    """Return the bracket of maintenance margin in which a notional of instrument i lies."""
    x, fee = tables.multipliers[i], tables.close_fees[i]
    rate, amount, above, k = scale_rate(tables.rates[i, 0], x, fee), 0.0, -1.0, 1
    while k < tables.counts[i] and notional > tables.floors[i, k]:
        after = scale_rate(tables.rates[i, k], x, fee)
        amount += tables.floors[i, k] * (after - rate)
        rate = after
        above = tables.floors[i, k]
        k += 1
    most = tables.floors[i, k] if k < tables.counts[i] else math.inf
    return MarginBracket(rate, amount, above, most)


@inlined
def find_maintenance(tables: BracketTables, i: int, notional: float) -> float:
    bracket = find_bracket(tables, i, notional)
    return bracket.rate * notional - bracket.amount


def find_own_maintenance(rules: PortfolioRules, held: Holdings, i: int) -> float:
    return find_maintenance(rules.brackets, i, compute_tested_notional(rules, held, i))


def combine_scenarios(
    rules: PortfolioRules, held: Holdings, loss: float, is_initial: bool
) -> float:
    """Return the margin of a worst loss, and of the gross notional and offsets of what is held."""
    tables, gross, offset = rules.scenarios, compute_gross(rules, held), 0.0
    for g in range(len(tables.products) if tables.pair_contingency > 0.0 else 0):
        longs = compute_side(rules, held, g, 1.0)
        offset += min(longs, compute_side(rules, held, g, -1.0))
    factor = tables.initial_factor if is_initial else tables.factor
    contingency = tables.initial_contingency if is_initial else tables.contingency
    least = max(factor * loss, tables.minimum * gross)
    return least + contingency * gross + tables.pair_contingency * offset


def compute_portfolio_requirement(rules: PortfolioRules, held: Holdings, is_initial: bool) -> float:
    if rules.own > 0:
        return ask_own(rules, held, is_initial)
    if rules.has_scenarios:
        return combine_scenarios(rules, held, compute_scenario_loss(rules, held), is_initial)
    tables, total = rules.brackets, 0.0
    for i in range(len(held.quantities)):
        if is_in_pool(rules, held, i) and is_initial:
            notional = abs(held.quantities[i] * abs(held.values[i]))
            total += compute_initial(pick_rules(tables, i), notional, tables.initial_multipliers[i])
        elif is_in_pool(rules, held, i):
            total += find_own_maintenance(rules, held, i)
    return total - compute_haircuts(rules, held) if is_initial else total


def compute_haircut(rules: PortfolioRules, held: Holdings, i: int) -> float:
    if not is_spot_leg(rules, i) or not held.quantities[i] > 0.0:
        return 0.0
    return float(rules.spot.haircuts[i] * (held.quantities[i] * held.values[i]))


def compute_haircuts(rules: PortfolioRules, held: Holdings) -> float:
    total = 0.0
    if rules.spot.has_any:
        for i in range(len(held.quantities)):
            total += compute_haircut(rules, held, i)
    return total


def compute_portfolio_backing(rules: PortfolioRules, held: Holdings, cash: float) -> float:
    total = compute_full_backing(rules, held, cash)
    return total - compute_haircuts(rules, held) if rules.spot.has_any else total


def compute_full_backing(rules: PortfolioRules, held: Holdings, cash: float) -> float:
    total = cash
    for i in range(len(held.quantities)):
        if is_in_pool(rules, held, i):
            total += held.quantities[i] * held.values[i]
    return total + compute_collateral_value(rules.collateral, held)


def is_pool_failing(rules: PortfolioRules, held: Holdings, cash: float) -> bool:
    count = 0
    for i in range(len(held.quantities)):
        count += is_in_pool(rules, held, i)
    if count == 0:
        return False
    needed = rules.level * compute_portfolio_requirement(rules, held, False)
    return compute_portfolio_backing(rules, held, cash) <= needed * (1.0 + TOLERANCE)


def fill_shares(rules: PortfolioRules, held: Holdings, shares: FloatArray) -> None:
    """Write each position's Euler share of R, ``q_i dR/dq_i``, and each collateral's, (n + C,).

    At a kink the derivative is that of the active row, the first of equal ones, and of the lower
    bracket. A spot leg has its haircut / level besides.
    """
    shares[:] = 0.0
    if rules.own > 0:
        for i in range(len(held.quantities)):
            if is_in_pool(rules, held, i):
                quantity = held.quantities[i]
                held.quantities[i] = quantity * (1.0 + OWN_STEP)
                more = compute_portfolio_requirement(rules, held, False)
                held.quantities[i] = quantity * (1.0 - OWN_STEP)
                less = compute_portfolio_requirement(rules, held, False)
                shares[i] = (more - less) / (2.0 * OWN_STEP)
                held.quantities[i] = quantity
    elif rules.has_scenarios:
        fill_scenario_shares(rules, held, shares)
    else:
        for i in range(len(held.quantities)):
            if is_in_pool(rules, held, i):
                tables, notional, k = rules.brackets, compute_tested_notional(rules, held, i), 0
                while k + 1 < tables.counts[i] and notional > tables.floors[i, k + 1]:
                    k += 1
                x, fee = tables.multipliers[i], tables.close_fees[i]
                shares[i] = scale_rate(tables.rates[i, k], x, fee) * notional
    if rules.spot.has_any:
        for i in range(len(held.quantities)):
            shares[i] += compute_haircut(rules, held, i) / rules.level


def fill_scenario_shares(rules: PortfolioRules, held: Holdings, shares: FloatArray) -> None:
    """Write each instrument's part of the scenario requirement into ``shares``.

    Positions that offset in a group share its charge on them.
    """
    tables = rules.scenarios
    loss, gross = compute_scenario_loss(rules, held), compute_gross(rules, held)
    is_least = tables.minimum * gross > tables.factor * loss
    rate = tables.contingency + (tables.minimum if is_least else 0.0)
    for g in range(len(tables.products)):
        k, scale, move = find_product_row(tables, tables.products[g]), 0.0, 0.0
        if k >= 0 and not is_least:
            counted = 1.0 if tables.losses[g, k] > 0.0 else tables.offset
            scale, move = -tables.factor * counted * tables.weights[g, k], tables.moves[g, k]
        for place in range(tables.starts[g], tables.starts[g + 1]):
            i = tables.members[place]
            if is_in_pool(rules, held, i):
                exposure = compute_exposure(held, i)
                gained = compute_gain_rate(rules.brackets.are_inverse[i], move)
                shares[i] += scale * (exposure * gained) + rate * abs(exposure)
        for c in range(len(held.amounts)):
            if rules.collateral.groups[c] == g and held.amounts[c] != 0.0:
                lost = scale * (held.amounts[c] * held.prices[c] * move)
                shares[len(held.quantities) + c] += lost
        longs, shorts = compute_side(rules, held, g, 1.0), compute_side(rules, held, g, -1.0)
        of_longs = 1.0 if longs < shorts else 0.0 if longs > shorts else 0.5
        for place in range(tables.starts[g], tables.starts[g + 1]):
            i = tables.members[place]
            if is_in_pool(rules, held, i) and tables.pair_contingency > 0.0:
                exposure = compute_exposure(held, i)
                part = of_longs if exposure > 0.0 else 1.0 - of_longs
                shares[i] += tables.pair_contingency * part * abs(exposure)


OWN_PARTS = 16
"""Places at which a segment is tested under a requirement of the user's own."""
OWN_STEP = 1e-6
"""The relative change of a quantity for its Euler share under such a requirement."""
MAX_STEPS = 100
"""Steps of false position; a portfolio needs about ten."""


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
    """Write values and prices at a place between two waypoints (0 to 1) into ``held``."""
    for i in range(len(held.values)):
        step = end.values[i] - start.values[i]
        held.values[i] = end.values[i] if place == 1.0 else start.values[i] + place * step
    for c in range(len(held.prices)):
        step = end.prices[c] - start.prices[c]
        held.prices[c] = end.prices[c] if place == 1.0 else start.prices[c] + place * step


def compute_distance_left(rules: PortfolioRules, held: Holdings, cash: float) -> float:
    backing = compute_portfolio_backing(rules, held, cash)
    return backing - rules.level * compute_portfolio_requirement(rules, held, False)


def find_next_break(segment: Segment, place: float) -> float:
    rules, held, nearest = segment.rules, segment.held, 1.0
    if rules.own > 0:
        return place + 1.0 / OWN_PARTS
    if not rules.has_scenarios or rules.scenarios.pair_contingency <= 0.0:
        return nearest
    for g in range(len(rules.scenarios.products)):
        at_start, at_end = 0.0, 0.0
        for order in range(rules.scenarios.starts[g], rules.scenarios.starts[g + 1]):
            i = rules.scenarios.members[order]
            if is_in_pool(rules, held, i):
                at_start += held.quantities[i] * abs(segment.start.values[i])
                at_end += held.quantities[i] * abs(segment.end.values[i])
        if at_start * at_end < 0.0:
            crossing = at_start / (at_start - at_end)
            if place * (1.0 + TOLERANCE) < crossing < nearest:
                nearest = crossing
    return nearest


def find_failure(segment: Segment) -> float:
    sound = 0.0
    if is_failing_at(segment, -1, 0.0):
        return 0.0
    while sound < 1.0:
        failing = find_next_break(segment, sound)
        if is_failing_at(segment, -1, failing):
            return find_root(segment, -1, sound, failing)
        sound = failing
    return math.nan


def stand_at(segment: Segment, i: int, x: float) -> None:
    """Move to place x of a segment, or the price of instrument ``i`` to x times what it was."""
    if i >= 0:
        aim(segment.rules, segment.start, i, x, segment.end)
    move_holdings(segment.held, segment.start, segment.end, x if i < 0 else 1.0)


def is_failing_at(segment: Segment, i: int, x: float) -> bool:
    stand_at(segment, i, x)
    return is_pool_failing(segment.rules, segment.held, segment.cash)


def compute_left_at(segment: Segment, i: int, x: float) -> float:
    stand_at(segment, i, x)
    return compute_distance_left(segment.rules, segment.held, segment.cash)


def find_root(segment: Segment, i: int, sound: float, failing: float) -> float:
    """Return where D falls to 0 between two places, or ratios of the price of instrument ``i``.

    By false position with the halving of the Illinois method (Dowell and Jarratt 1971); under a
    requirement of the user's own, which may jump or be infinite, by bisection.
    """
    above, is_own = compute_left_at(segment, i, sound), segment.rules.own > 0
    under, root, last = compute_left_at(segment, i, failing), failing, 0.0
    for _ in range(MAX_STEPS):
        if not (under < 0.0 < above):
            break
        before = root
        if is_own:
            root = 0.5 * (sound + failing)
            if root in (sound, failing):
                stand_at(segment, i, failing)
                return failing
        else:
            root = failing - under * ((failing - sound) / (under - above))
        left = compute_left_at(segment, i, root)
        if left == 0.0 or (not is_own and abs(root - before) <= 1e-15 * root):
            break
        side = 1.0 if left > 0.0 else -1.0
        if side > 0.0:
            sound, above, under = root, left, under * (0.5 if side == last else 1.0)
        else:
            failing, under, above = root, left, above * (0.5 if side == last else 1.0)
        last = side
    return root


NEAR_ZERO = 1e-12
"""The lowest price that is searched, as a fraction of the price now."""
FAR_AWAY = 1e12
"""The highest price that is searched, as a multiple of the price now."""


def find_group(packed: PortfolioRules, i: int) -> int:
    if packed.has_scenarios:
        for g in range(len(packed.scenarios.products)):
            for place in range(packed.scenarios.starts[g], packed.scenarios.starts[g + 1]):
                if packed.scenarios.members[place] == i:
                    return g
    return -2


def aim(packed: PortfolioRules, start: Waypoint, i: int, ratio: float, end: Waypoint) -> None:
    """Write into ``end`` the waypoint with prices of the group of i at ``ratio`` times start."""
    group = find_group(packed, i)
    for j in range(len(start.values)):
        factor = 1.0
        if j == i or (packed.has_scenarios and find_group(packed, j) == group):
            factor = 1.0 / ratio if packed.brackets.are_inverse[j] else ratio
        end.values[j] = start.values[j] * factor
    for c in range(len(start.prices)):
        factor = ratio if packed.collateral.groups[c] == group else 1.0
        end.prices[c] = start.prices[c] * factor


def search_ratio(segment: Segment, i: int, first: float) -> float:
    sound, failing = 1.0, first
    parts = OWN_PARTS if segment.rules.own > 0 else 1
    while NEAR_ZERO <= failing <= FAR_AWAY:
        far, step = failing, (failing - sound) / parts
        for k in range(1, parts + 1):
            failing = far if k == parts else far - (parts - k) * step
            if is_failing_at(segment, i, failing):
                return find_root(segment, i, sound, failing)
            sound = failing
        failing = far * far
    return math.nan


def find_failure_ratio(segment: Segment, i: int) -> float:
    if is_failing_at(segment, i, 1.0):
        return 1.0
    down, up = search_ratio(segment, i, 0.5), search_ratio(segment, i, 2.0)
    move_holdings(segment.held, segment.start, segment.end, 0.0)
    return down if math.isnan(up) or 1.0 - down < up - 1.0 else up
