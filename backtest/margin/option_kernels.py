"""Margin of the options of an account: scenarios, each option by itself, and bounds.

Row k of scenarios moves the index of a group by ``m_k`` and the volatility of each option by the
row's shock of its tenor. The loss of the group is that of its futures and risk-cancelling
collateral and ``-sum_e (d_e sum_i Q_i U_i(k) - sum_i Q_i U_i)`` over its expiries e, times the
weight of the row, less its relief. ``d_e`` is 1 unless expiries are discounted. Marks are not in
it: they back the account.
"""

from __future__ import annotations

import math

from backtest.core import black_kernels as b
from backtest.core.kernels import kernel, of_options
from backtest.margin import portfolio_kernels as p
from backtest.margin.option_values import (
    BY_SCENARIOS,
    BY_STRATEGIES,
    DAYS_PER_YEAR,
    OptionPool,
    OptionPositions,
    OptionRules,
    ShockTables,
    compute_forward,
    compute_option_delta,
    compute_option_value,
    compute_otm,
    find_cash_price,
    is_first,
)
from backtest.margin.portfolio_kernels import Holdings, PortfolioRules
from backtest.margin.strategy_kernels import find_way

N_AFTER = 4


LOW_SKEW, HIGH_SKEW, RISE, FALL = range(N_AFTER)
"""Columns of ``scratch.table`` after the scenarios: two turns of the smile, two moves."""


SKEW_CAP, SKEW_CAP_SLOPE, ABSOLUTE_CAP, ABSOLUTE_CAP_SLOPE = range(4)
LEAST_WIDTH, WIDTH_SCALE, SKEW_LEVEL, SKEW_LEVEL_SLOPE = range(4, 8)
"""Entries of ``ShockTables.skew``, as the rule declares them (``OptionShocks.skew``)."""
LONG_BASE, LONG_MULTIPLE, LONG_ADDITION, SHORT_BASE, SHORT_MULTIPLE, SHORT_ADDITION = range(6)
"""Entries of ``ShockTables.discounts``: base, multiple of the rate and addition to it, a year."""
CONSTANT, PER_YEAR = range(2)
"""Entries of ``ShockTables.delta_charge``."""
FORWARD_MOVE, LOSS_SHARE, LOSS_SHARE_PER_YEAR = range(3)
"""Entries of ``ShockTables.expiry_charge``."""
OF_MAINTENANCE, OF_INITIAL = range(2)
"""Entries of ``ShockTables.short_charge``."""
UP_TO_DAYS, BEYOND_DAYS = range(2)
"""Entries of ``ShockTables.power``."""


def compute_skewed_volatility(
    options: OptionPositions, i: int, shocks: ShockTables, is_absolute: bool
) -> float:
    """Return the volatility of option i, per sqrt(year), when the volatility smile turns.

    It is volatility * (1 + turn). The turn is 0 at the money. It grows with the distance
    ln(strike / forward), up to ``cap`` at the distance ``width``, and stays there beyond. A linear
    turn lowers the volatility of strikes under the forward and raises that of strikes over it; an
    absolute turn raises both. Cap and width are linear in the root of the time to expiry.
    """
    skew = shocks.skew
    root = math.sqrt(options.years[i])
    cap = skew[SKEW_CAP] + skew[SKEW_CAP_SLOPE] * root
    if is_absolute:
        cap = skew[ABSOLUTE_CAP] + skew[ABSOLUTE_CAP_SLOPE] * root

    # The width is that of one deviation at a level of volatility, times a scale.
    level = skew[SKEW_LEVEL] + skew[SKEW_LEVEL_SLOPE] * root
    width = max(skew[LEAST_WIDTH], root * skew[WIDTH_SCALE] * level)

    # log(strike / forward), which is over 0 for strikes over the forward.
    distance = -b.log_ratio(compute_forward(options, i), options.strikes[i])
    if is_absolute:
        distance = abs(distance)
    turn = distance * cap / width if width > 0.0 else 0.0
    turn = min(cap, turn) if distance >= 0.0 else max(-cap, turn)
    return float(options.volatilities[i] * max(0.0, 1.0 + turn))


def fill_row_values(options: OptionPositions, rules: OptionRules, i: int) -> None:
    """Write the value of a contract of option i in each scenario into row i of ``scratch.table``.

    The price is that of Black (1976), as in ``b.scalar_price``. With F the forward, K the strike, D
    the discount and deviation = volatility sqrt(years), a unit of the underlying is worth::

        D (intrinsic value + sqrt(F K) normalized_price(-|log(F / K)|, deviation))

    A scenario multiplies F by 1 + move, and changes the volatility. For speed, all that does not
    depend on the scenario is computed before the loop, and ``shocks`` has the logarithm and the
    root of 1 + move: ``logs`` and ``roots``.
    """
    shocks = rules.shocks
    table = rules.scratch.table
    group = options.groups[i]
    forward = compute_forward(options, i)
    strike = options.strikes[i]
    root = math.sqrt(options.years[i])
    distance = b.log_ratio(forward, strike)
    discount = options.sizes[i] * math.exp(-options.rates[i] * options.years[i])
    root_of_product = math.sqrt(forward) * math.sqrt(strike)
    scale = compute_shock_scale(shocks, options.years[i])

    n_scenarios = shocks.moves.shape[1]
    for k in range(n_scenarios):
        shock = shocks.volatilities[group, k]
        volatility = shock_volatility(shocks, options.volatilities[i], shock, scale)

        # The intrinsic value at the moved forward, and the time value.
        moved = forward * (1.0 + shocks.moves[group, k])
        value = max(0.0, options.signs[i] * (moved - strike))
        deviation = volatility * root
        if deviation > 0.0:
            x = -abs(distance + shocks.logs[group, k])
            value += root_of_product * shocks.roots[group, k] * b.normalized_price(x, deviation)

        # An option that settles in coins is worth its cash over the moved forward.
        table[i, k] = discount * value
        if options.are_coin[i]:
            table[i, k] = discount * value / moved


def compute_shock_scale(shocks: ShockTables, years: float) -> float:
    """Return by what a scenario's move of volatility is multiplied for a time to expiry.

    It is (shocks.days / days to expiry) ** power: with a positive power the volatility of near
    expiries moves more than that of far ones. One power holds up to ``shocks.days`` to expiry,
    another beyond. Expiries nearer than ``least_days`` count as that far.
    """
    days = DAYS_PER_YEAR * years
    power = shocks.power[UP_TO_DAYS]
    if days > shocks.days:
        power = shocks.power[BEYOND_DAYS]
    if power == 0.0:
        return 1.0
    return float((shocks.days / max(days, shocks.least_days)) ** power)


def shock_volatility(shocks: ShockTables, volatility: float, shock: float, scale: float) -> float:
    """Return a volatility after a shock; one that rises has at least the lowest of the rule."""
    if shock != 0.0:
        volatility *= max(0.0, 1.0 + shock * scale)
    if shock > 0.0:
        volatility = max(volatility, shocks.least_volatility)
    return volatility


def compute_discount(shocks: ShockTables, value: float, years: float, rate: float) -> float:
    """Return the factor by which a scenario multiplies the value of all options of one expiry.

    It counts against the account: a positive ``value``, long, shrinks with the time to expiry, and
    a negative one, short, grows. Rules without discounts have the factor 1. ``rate`` is the
    interest rate, ``years`` the time to expiry.
    """
    discounts = shocks.discounts
    if len(discounts) == 0:
        return 1.0

    # A negative rate would let a long grow and a short shrink.
    counted_rate = max(rate, 0.0)
    if value >= 0.0:
        decay = counted_rate * discounts[LONG_MULTIPLE] + discounts[LONG_ADDITION]
        return float(discounts[LONG_BASE] * math.exp(-years * decay))

    # A short grows at most by the interest of its time.
    growth = counted_rate * discounts[SHORT_MULTIPLE] + discounts[SHORT_ADDITION]
    grown = discounts[SHORT_BASE] * math.exp(years * growth)
    return float(min(math.exp(rate * years), grown))


def fill_losses(pool: OptionPool) -> None:
    """Write what each group loses in each scenario into ``scenarios.losses``, (groups, scenarios).

    Money, positive for a loss: of futures, of collateral that cancels risk, and of options, times
    the weight of the scenario, less its relief. The values of options in the scenarios must stand
    in ``scratch.table`` before. Their sums by expiry stay in ``scratch.totals`` and ``sums``, for
    the charges that follow.
    """
    tables = pool.packed.scenarios
    shocks = pool.rules.shocks
    losses = tables.losses

    # Futures and collateral. The weight, 1 here, comes once options are in.
    p.fill_nets(pool.packed, pool.held)
    for g in range(len(tables.products)):
        net_linear = tables.nets[g, 0]
        net_inverse = tables.nets[g, 1]
        for k in range(losses.shape[1]):
            move = tables.moves[g, k]
            losses[g, k] = p.compute_move_loss(net_linear, net_inverse, move, weight=1.0)

    # Options: their values by expiry go into the scratch, from which their gains are taken.
    fill_expiry_values(pool.options, pool.rules)
    subtract_option_gains(pool)

    # Weight and relief. A relief is an amount in quotes, and the loss may be in coins.
    for g in range(len(tables.products)):
        for k in range(losses.shape[1]):
            loss = tables.weights[g, k] * losses[g, k]
            if loss > 0.0:
                relief = shocks.reliefs[g, k] / find_unit(pool.options, g)
                loss = max(0.0, loss - relief)
            losses[g, k] = loss


def fill_expiry_values(options: OptionPositions, rules: OptionRules) -> None:
    """Sum the values of what is held by expiry: now, and in each scenario (a row of the rule).

    Writes ``scratch.totals`` of shape (expiries,) and ``scratch.sums`` (expiries, scenarios); reads
    the values of the options and ``scratch.table``, their values in each scenario.
    """
    scratch = rules.scratch
    scratch.sums[:] = 0.0
    scratch.totals[:] = 0.0

    for i in range(len(options.signs)):
        quantity = options.quantities[i]
        if quantity == 0.0:
            continue

        expiry = options.expiries[i]
        scratch.totals[expiry] += quantity * options.values[i]
        for k in range(scratch.table.shape[1]):
            scratch.sums[expiry, k] += quantity * scratch.table[i, k]


def subtract_option_gains(pool: OptionPool) -> None:
    """Subtract from ``scenarios.losses`` what the options of each expiry gain in each scenario.

    An expiry gains what its options are worth in the scenario, times a discount that counts against
    the account, less what they are worth now. Reads both values as :func:`fill_expiry_values` wrote
    them: ``scratch.sums`` (expiries, scenarios) and ``scratch.totals`` (expiries,).
    """
    options = pool.options
    scratch = pool.rules.scratch
    losses = pool.packed.scenarios.losses
    for i in range(len(options.signs)):
        # The first option of an expiry stands for all of it: group, time and rate are the same.
        if not is_first(options, i):
            continue

        group = options.groups[i]
        expiry = options.expiries[i]
        years = options.years[i]
        rate = options.rates[i]
        for k in range(losses.shape[1]):
            value_in_scenario = scratch.sums[expiry, k]
            # It depends on the sign of the value: shorts grow by it, longs shrink.
            discount = compute_discount(pool.rules.shocks, value_in_scenario, years, rate)
            losses[group, k] -= value_in_scenario * discount - scratch.totals[expiry]


def find_unit(options: OptionPositions, g: int) -> float:
    """Return what one unit of the settlement currency of a group's options is worth in quotes."""
    for i in range(len(options.signs)):
        if options.groups[i] == g and options.are_coin[i]:
            return float(options.indices[i])
    return 1.0


def compute_charges_by_expiry(options: OptionPositions, rules: OptionRules, g: int) -> float:
    """Return the charge on the expiries of group g: the largest of three sums over them, money.

    Two of them are of turns of the smile, linear and absolute: by how much each changes the value
    of an expiry, up or down. One is of moves of the forward: a share of the loss in the worse of a
    rise and a fall. Reads the values of expiries that :func:`fill_losses` has summed: now
    (``scratch.totals``), and under each turn and move, in the columns of ``scratch.sums`` after the
    scenarios.
    """
    scratch = rules.scratch
    shocks = rules.shocks
    after = scratch.table.shape[1] - N_AFTER

    linear = 0.0
    absolute = 0.0
    forward = 0.0
    # The first option of an expiry stands for all of it: time and rate are the same.
    for i in range(len(options.signs)):
        if options.groups[i] != g or not is_first(options, i):
            continue

        expiry = options.expiries[i]
        years = options.years[i]
        rate = options.rates[i]
        value_now = scratch.totals[expiry]

        # The two turns of the smile.
        if len(shocks.skew) > 0:
            low = scratch.sums[expiry, after + LOW_SKEW]
            high = scratch.sums[expiry, after + HIGH_SKEW]
            linear += abs(low * compute_discount(shocks, low, years, rate) - value_now)
            absolute += abs(high * compute_discount(shocks, high, years, rate) - value_now)

        # The worse of the two moves of the forward.
        if len(shocks.expiry_charge) > 0:
            risen = scratch.sums[expiry, after + RISE]
            fallen = scratch.sums[expiry, after + FALL]
            worst_gain = min(risen, fallen) - value_now
            share = shocks.expiry_charge[LOSS_SHARE]
            share += shocks.expiry_charge[LOSS_SHARE_PER_YEAR] * years
            forward += share * max(0.0, -worst_gain)
    return max(linear, absolute, forward)


def compute_option_loss(pool: OptionPool) -> float:
    """Return the loss that a scenario rule counts for options, futures and collateral: money.

    A product is several groups of instruments. Each product counts with its loss in the scenario
    that is worst for it, or with the charges by expiry of its groups if these are more. The sum of
    the products, and a charge on deltas, is the loss. Writes ``scenarios.losses``, and into the
    scratch the sums by expiry.
    """
    options = pool.options
    rules = pool.rules
    tables = pool.packed.scenarios
    fill_losses(pool)

    total = 0.0
    for product in range(tables.n_products):
        worst = 0.0
        row = p.find_product_row(tables, product)
        if row >= 0:
            worst = p.compute_product_loss(tables, product, row)

        charged = 0.0
        for g in range(len(tables.products)):
            if tables.products[g] == product:
                charged += compute_charges_by_expiry(options, rules, g)
        total += max(worst, charged)

    if max(rules.shocks.delta_charge[CONSTANT], rules.shocks.delta_charge[PER_YEAR]) > 0.0:
        total += compute_delta_charge(options, rules)
    return total


def compute_delta_charge(options: OptionPositions, rules: OptionRules) -> float:
    """Return the charge on the net delta of the options of each expiry, without sign: money.

    The rate of an expiry is a constant, or a rate per year times the years to expiry if that is
    more. The deltas by expiry, money, are summed in ``scratch.totals``. That writes over the values
    by expiry which stood there, so this must be called after all that reads them.
    """
    shocks = rules.shocks
    totals = rules.scratch.totals
    totals[:] = 0.0
    for i in range(len(options.signs)):
        delta = options.quantities[i] * compute_option_delta(options, i)
        totals[options.expiries[i]] += delta * find_cash_price(options, i)

    charge = 0.0
    for i in range(len(options.signs)):
        if is_first(options, i):
            by_time = shocks.delta_charge[PER_YEAR] * options.years[i]
            rate = max(shocks.delta_charge[CONSTANT], by_time)
            charge += rate * abs(totals[options.expiries[i]])
    return charge


def compute_short_charge(options: OptionPositions, rules: OptionRules, is_initial: bool) -> float:
    """Return the charge on options that are net short: a rate of their notional, money.

    Options of one underlying, strike and expiry offset each other: ``options.pairs`` has their
    number. Each pair whose quantities add up to a short is charged. Initial and maintenance margin
    have a rate each. Writes the net notionals into ``scratch.nets``.
    """
    rate = rules.shocks.short_charge[OF_MAINTENANCE]
    if is_initial:
        rate = rules.shocks.short_charge[OF_INITIAL]
    if rate <= 0.0:
        return 0.0

    nets = rules.scratch.nets
    nets[:] = 0.0
    for i in range(len(options.signs)):
        price = find_cash_price(options, i)
        nets[options.pairs[i]] += options.quantities[i] * options.sizes[i] * price

    net_short = 0.0
    for pair in range(len(nets)):
        net_short += max(0.0, -nets[pair])
    return float(rate * net_short)


def compute_standard(options: OptionPositions, rules: OptionRules, is_initial: bool) -> float:
    """Return what short options need, each by itself: money.

    A unit of the underlying needs the mark of its option and a rate of its price: for maintenance
    ``rates.maintenance``, or of a put at least ``of_mark`` of the mark; initially at least
    ``rates.initial`` less how far the option is out of the money, but not under ``rates.least``.
    The price of a unit is the index, or 1 coin for options that settle in coins.
    """
    rates = rules.rates
    total = 0.0
    for i in range(len(options.signs)):
        # A long needs nothing.
        if not options.quantities[i] < 0.0:
            continue

        # Maintenance, of a put (sign -1) at least a part of its mark.
        unit_price = find_cash_price(options, i)
        mark = options.marks[i] / options.sizes[i]
        of_mark = 0.0
        if options.signs[i] < 0.0:
            of_mark = rates.of_mark * mark
        needed = max(rates.maintenance * unit_price, of_mark) * rates.factor

        # Initially more, the less the option is out of the money.
        if is_initial:
            forward = compute_forward(options, i)
            otm = compute_otm(options, i, forward) / forward
            rate = max(rates.least, rates.initial - otm)
            needed = max(needed, rate * rates.factor * unit_price)

        # The quantity of a short is negative: what it needs is added.
        total -= options.quantities[i] * (options.sizes[i] * (needed + mark))
    return total


@kernel
def fill_options(options: OptionPositions, rules: OptionRules) -> None:
    """Write the values of all options, now and in the scenarios: see :func:`fill_option`."""
    for i in range(len(options.signs)):
        fill_option(options, rules, i)


def fill_option(options: OptionPositions, rules: OptionRules, i: int) -> None:
    """Write the value of option i into ``options``, and under scenarios its value in each.

    These go into row i of ``scratch.table``: first a column for each scenario, then two for turns
    of the smile and two for moves of the forward of its expiry, where the rule has these charges.
    """
    shocks = rules.shocks
    table = rules.scratch.table
    volatility = options.volatilities[i]
    options.values[i] = compute_option_value(options, i, 1.0, volatility)
    if rules.kind != BY_SCENARIOS:
        return
    fill_row_values(options, rules, i)

    n_moves = shocks.moves.shape[1]
    if len(shocks.skew) > 0:
        # A linear turn lowers strikes under the forward, an absolute one raises both sides.
        linear = compute_skewed_volatility(options, i, shocks, is_absolute=False)
        absolute = compute_skewed_volatility(options, i, shocks, is_absolute=True)
        table[i, n_moves + LOW_SKEW] = compute_option_value(options, i, 1.0, linear)
        table[i, n_moves + HIGH_SKEW] = compute_option_value(options, i, 1.0, absolute)
    if len(shocks.expiry_charge) > 0:
        move = shocks.expiry_charge[FORWARD_MOVE]
        table[i, n_moves + RISE] = compute_option_value(options, i, 1.0 + move, volatility)
        table[i, n_moves + FALL] = compute_option_value(options, i, 1.0 - move, volatility)


@kernel
def compute_option_requirement(pool: OptionPool, is_initial: bool) -> float:
    """Return the margin that a pool with options needs: money.

    Its maintenance margin, or with ``is_initial`` its initial margin. ``rules.kind`` says how
    options are margined: by scenarios, together with the other positions; by strategies, as pairs
    with what covers them; or each by itself. Under the last two the other positions need what their
    brackets say. Writes the scratch of the pool.
    """
    packed = pool.packed
    held = pool.held
    options = pool.options
    rules = pool.rules
    if rules.kind == BY_SCENARIOS:
        loss = compute_option_loss(pool)
        margin = p.combine_scenarios(packed, held, loss, is_initial)
        return margin + compute_short_charge(options, rules, is_initial)

    # Brackets of the other positions, and options beside them.
    of_brackets = p.compute_portfolio_requirement(packed, held, is_initial)
    if rules.kind != BY_STRATEGIES:
        return of_brackets + compute_standard(options, rules, is_initial)

    of_strategies = 0.0
    for g in range(len(rules.underlyings)):
        _, needed = find_way(pool, g, is_initial)
        of_strategies += needed
    return of_brackets + of_strategies


DENSITY = 0.39894228040143276
"""The largest value of the normal density."""


def bound_value_slope(options: OptionPositions, i: int, low: float, move: float) -> float:
    """Return an upper bound of the change of an option value per price, at prices from ``low``.

    Per contract. ``move`` is a factor of the price S (1 for the value now), so that the forward is
    F = basis move S. With B Black's price, D the discount and K the strike, the value is::

        in cash    size D B(F)        slope in S at most  size D basis move,  as |dB/dF| <= 1
        in coins   size D B(F) / F    slope in F at most  size D K / F^2,     of a call and a put

    In coins, times dF/dS = F / S, that is size D (K / F) / S: largest at the lowest price.
    """
    size = options.sizes[i]
    # A negative interest rate makes D exceed 1: of either sign, D is at most this.
    discount = math.exp(abs(options.rates[i]) * options.years[i])
    if not options.are_coin[i]:
        return float(size * discount * options.bases[i] * move)

    # Not under 1: a strike far under the forward is no reason to trust a smaller bound.
    forward = low * options.bases[i] * move
    strike_per_forward = max(1.0, options.strikes[i] / forward)
    return float(size * discount / low * strike_per_forward)


def bound_scenario_slope(pool: OptionPool, i: int, low: float) -> float:
    """Return by how much a contract of option i changes a scenario requirement at most, per price.

    The price S of its underlying is ``low`` or more, and::

        requirement = factor (worst loss + delta charge) + short charge
        loss in scenario k = w_k (U(S) - U(S (1 + m_k)))

    U is the value of a contract, w_k the weight and m_k the move of the scenario. The slope of a
    difference is at most the sum of both slopes, and the slope of the worst loss is at most that of
    the steepest scenario. The charges add their own slopes. Infinite where a rule can jump.
    """
    tables = pool.packed.scenarios
    options = pool.options
    shocks = pool.rules.shocks
    # Discounts and charges by expiry jump where the sum of an expiry changes its sign: no slope
    # bounds them.
    if len(shocks.discounts) + len(shocks.skew) + len(shocks.expiry_charge) > 0:
        return math.inf

    # The loss: slope of the value now, and of the value in the scenario.
    group = options.groups[i]
    steepest = 0.0
    slope_now = bound_value_slope(options, i, low, move=1.0)
    for k in range(shocks.moves.shape[1]):
        slope_moved = bound_value_slope(options, i, low, move=1.0 + shocks.moves[group, k])
        steepest = max(steepest, tables.weights[group, k] * (slope_moved + slope_now))

    # The delta charge is a rate of the delta in money: a constant, or one by year to expiry.
    rate_by_time = shocks.delta_charge[PER_YEAR] * options.years[i]
    charge_rate = max(shocks.delta_charge[CONSTANT], rate_by_time)
    if charge_rate > 0.0:
        steepest += charge_rate * options.sizes[i] * bound_delta_slope(options, i, low)

    # The charge on shorts is a rate of size times price; in coins the price cancels.
    short_slope = 0.0
    if not options.are_coin[i]:
        short_slope = shocks.short_charge[OF_MAINTENANCE] * options.sizes[i]
    return float(tables.factor * steepest + short_slope)


def bound_delta_slope(options: OptionPositions, i: int, low: float) -> float:
    """Return by how much the delta of a unit of option i, in money, changes at most, per price.

    For prices S of the underlying from ``low`` up. The delta is N(d1), with
    d1 = log(S / K') / s + s / 2 and s the deviation, so S d(delta)/dS = n(d1) / s <= DENSITY / s::

        in cash    delta S   changes by delta + S d(delta)/dS <= 1 + DENSITY / s
        in coins   delta     changes by d(delta)/dS <= DENSITY / s / S

    DENSITY is the largest value of the normal density n.
    """
    deviation = options.volatilities[i] * math.sqrt(options.years[i])
    # Without deviation, at expiry, the delta jumps at the strike: nothing bounds its slope.
    largest_bend = math.inf
    if deviation > 0.0:
        largest_bend = DENSITY / deviation

    if options.are_coin[i]:
        return largest_bend / low
    return 1.0 + largest_bend


@of_options(returns=0.0)
def bound_option_slope(pool: OptionPool, i: int, low: float, gains: bool) -> float:
    """Return by how much option i can lower the excess of its pool at most, per unit of price.

    The excess is backing less level * requirement: money. As the price of the underlying moves by
    1, it falls by at most the fall of the option's value, plus level times the rise of the
    requirement. ``gains`` says that the price moves so that the position gains: its value does not
    fall then. The bound holds for prices from ``low`` up.
    """
    packed = pool.packed
    options = pool.options
    rules = pool.rules

    value_slope = bound_value_slope(options, i, low, move=1.0)
    needed_slope = bound_requirement_slope(pool, i, low, value_slope)
    lost = packed.level * needed_slope
    if not gains:
        lost = value_slope + packed.level * needed_slope
    lost_by_position = abs(options.quantities[i]) * lost
    if not options.are_coin[i]:
        return float(lost_by_position)

    # Scenarios may lower a loss by a relief, a fixed amount in quotes. In coins it is
    # relief / price, whose slope is relief / price^2, at most relief / low^2. Where the price
    # rises, the requirement rises by this.
    relief = 0.0
    if rules.kind == BY_SCENARIOS:
        for k in range(rules.shocks.reliefs.shape[1]):
            relief = max(relief, rules.shocks.reliefs[options.groups[i], k])
    lost_relief = packed.level * packed.scenarios.factor * relief / (low * low)
    return float(lost_by_position + lost_relief)


def bound_requirement_slope(pool: OptionPool, i: int, low: float, value_slope: float) -> float:
    """Return by how much the margin of a contract of option i changes at most, per unit of price.

    The price is that of its underlying, from ``low`` up, and ``value_slope`` is such a bound of the
    option's value. The margin is the value and further terms, each a rate times the price or times
    the value. So the sum of the slopes of all terms is a bound.
    """
    options = pool.options
    rules = pool.rules
    rates = rules.rates
    if rules.kind == BY_SCENARIOS:
        return bound_scenario_slope(pool, i, low)

    # By strategies a unit needs, besides its value, one of these: naked, ``naked`` times the price
    # less its distance out of the money, or ``least_call`` times the price; covered, its payoff.
    # Distance and payoff change by at most 1 per price. The sum of all slopes is a bound of each.
    size = options.sizes[i]
    if rules.kind == BY_STRATEGIES:
        slope_of_distance = 1.0
        slope_of_payoff = 1.0
        slope_of_unit = slope_of_distance + slope_of_payoff + rates.naked + rates.least_call
        return float(value_slope + size * slope_of_unit)

    # Each option by itself: a rate of the price of its units, and one of its value, both scaled by
    # the factor. A unit of an option in coins is a coin, whatever the price.
    units_by_price = size
    if options.are_coin[i]:
        units_by_price = 0.0
    of_maintenance = rates.maintenance * units_by_price + rates.of_mark * value_slope
    return float(value_slope + rates.factor * of_maintenance)


def bound_linear_slope(packed: PortfolioRules, held: Holdings, i: int) -> float:
    """Return by how much the excess of the pool changes at most, per unit of a contract value.

    The excess is backing less level * requirement. If the value of a contract of instrument i
    changes by 1, the backing changes by the number of contracts held, and the requirement by at
    most ``rate`` times that number. In a margin table the last bracket has the highest rate.
    """
    tables = packed.brackets
    if packed.has_scenarios:
        rate = bound_scenario_rate(packed, tables.are_inverse[i])
    else:
        highest = tables.rates[i, tables.counts[i] - 1]
        rate = p.scale_rate(highest, tables.multipliers[i], tables.close_fees[i])
    return float(abs(held.quantities[i]) * (1.0 + packed.level * rate))


def bound_scenario_rate(packed: PortfolioRules, is_inverse: bool) -> float:
    """Return by how much a unit of notional can raise a scenario requirement at most: a fraction.

    That is its largest weighted gain or loss in any scenario of any group, and the charges that are
    rates of notional. ``is_inverse`` says that the contracts are inverse, whose gain in a move m of
    the price is m / (1 + m) of their notional.
    """
    tables = packed.scenarios
    steepest = 0.0
    for g in range(len(tables.products)):
        for k in range(tables.moves.shape[1]):
            gain = p.compute_gain_rate(is_inverse, tables.moves[g, k])
            steepest = max(steepest, tables.weights[g, k] * abs(gain))

    charges = tables.factor * steepest + tables.minimum + tables.contingency
    return float(charges + tables.pair_contingency)


def bound_asset_slope(packed: PortfolioRules, held: Holdings, c: int) -> float:
    """Return by how much the excess of the pool changes at most, per unit of the price of asset c.

    The excess is backing less level * requirement. The amount held counts once in the backing, and
    in scenarios, where collateral may cancel risk, also in the requirement.
    """
    rate = 0.0
    if packed.has_scenarios:
        rate = bound_scenario_rate(packed, is_inverse=False)
    return float(abs(held.amounts[c]) * (1.0 + packed.level * rate))
