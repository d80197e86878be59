"""Margin of options by strategies: shorts paired with longs and shares; it also compiles."""

from __future__ import annotations

import math

from backtest.margin import portfolio_kernels as p
from backtest.margin.option_values import (
    OptionPool,
    OptionPositions,
    OptionRates,
    OptionRules,
    compute_otm,
    compute_payoff,
    is_alike,
    is_first,
)

LEFT, SPARE, OF_SHORT, OF_LONG, NAKED = 0, 1, 2, 3, 4
"""Rows of ``OptionScratch.rows``, with one place per option, and the last one for shares.

LEFT has the units of a short that nothing covers yet, SPARE those of a long that cover nothing,
NAKED what a unit of a short needs uncovered. OF_SHORT and OF_LONG have the distances of a search:
what a unit costs on the cheapest path to there.
"""
TO_SHORT, TO_LONG = 0, 1
"""Rows of ``OptionScratch.paths``: the long before a short on its path, the short before a long."""
UNPAIRED, CHEAPEST, COVERED_FIRST = 0, 1, 2
"""Ways to pair: not at all, at least cost, and wherever a short can be covered."""
SLACK = 1e-12
"""A path is cheaper only by more than this part of the price: rounding makes no circles."""


FAR = 1e4
"""The saving, in prices of the underlying, by which a short is covered wherever it can be."""


def compute_cover(options: OptionPositions, rates: OptionRates, i: int, j: int) -> float:
    """Return the margin of a unit of short option i that long j covers: money.

    Besides the mark of the short. Covered by an option it is what the difference of the strikes
    may lose; covered by shares (j = n options) it is nothing, or the payoff of the short now.
    Infinite if j cannot cover i.
    """
    # Shares stand behind the last option.
    if j == len(options.signs):
        if rates.covered_itm > 0.0:
            return compute_payoff(options, i, options.indices[i])
        return 0.0

    # A long that expires before the short does not cover it.
    if not is_alike(options, i, j) or options.years[j] < options.years[i]:
        return math.inf
    return float(max(0.0, options.signs[i] * (options.strikes[j] - options.strikes[i])))


def is_sold(options: OptionPositions, i: int, g: int, sign: float) -> bool:
    """Return whether option i of group g is a short call (sign 1), or a short put (-1)."""
    is_of_kind = options.groups[i] == g and options.signs[i] == sign
    return bool(is_of_kind and options.quantities[i] < 0.0)


def find_shares(pool: OptionPool, g: int) -> float:
    """Return the units of the underlying of group g in the pool; negative if sold short."""
    brackets = pool.packed.brackets
    instrument = pool.rules.underlyings[g]
    # No instrument of the account is the underlying, or one that settles in coins: no shares.
    if instrument < 0 or brackets.are_inverse[instrument]:
        return 0.0
    if not p.is_in_pool(pool.packed, pool.held, instrument):
        return 0.0
    return float(pool.held.quantities[instrument] * brackets.sizes[instrument])


def find_distances(pool: OptionPool, g: int, sign: float, bonus: float) -> None:
    """Find for each long of group g the cheapest way to use one more unit of it as cover.

    Calls (``sign`` 1) and puts (-1) are paired apart. This is a shortest path search. A path begins
    at a short that is not covered in full, and steps to a long that may cover it. If that long
    covers another short now, the path may go on: it steps back to that short, whose cover is taken
    away, and from there to another long.

    The distance of a short or a long is by how much the margin changes along the path to it, money
    per unit of the underlying; negative saves. A path starts at minus what its short needs naked
    (row NAKED), less ``bonus``: 0, or a saving so large that whatever can be covered is.

    Writes the distances into the rows OF_SHORT and OF_LONG of ``scratch.rows``, infinite where no
    path leads, and into ``scratch.paths`` what stands before each on its path. Steps back have
    negative lengths, so the search goes by the rounds of Bellman and Ford.
    """
    options = pool.options
    scratch = pool.rules.scratch
    n = len(options.signs)
    scratch.rows[OF_SHORT, :] = math.inf
    scratch.rows[OF_LONG, :] = math.inf

    # Paths begin at the shorts with units LEFT to cover. -1: nothing stands before them.
    for i in range(n):
        if is_sold(options, i, g, sign) and scratch.rows[LEFT, i] > 0.0:
            scratch.rows[OF_SHORT, i] = -(scratch.rows[NAKED, i] + bonus)
            scratch.paths[TO_SHORT, i] = -1

    # Each round finds paths of one more step. A shortest path visits each of the n shorts and the
    # n longs once at most, so 2 n rounds are enough.
    is_changed = True
    rounds = 0
    while is_changed and rounds <= 2 * n:
        is_changed = False
        rounds += 1
        for i in range(n):
            if is_sold(options, i, g, sign):
                is_back_shorter = shorten_way_back(pool, i)
                is_way_shorter = shorten_ways_from(pool, i)
                is_changed = is_changed or is_back_shorter or is_way_shorter


def shorten_way_back(pool: OptionPool, i: int) -> bool:
    """Try the steps of a path search from longs back to short option i; True if one is shorter.

    Such a step takes a long that covers short i away from it, so that the short needs another
    cover. The margin that i needed under that long is saved, so it is subtracted from the distance
    to the long (by how much the margin changes along the path, money per unit). If that is less
    than the distance to short i so far, it is written into the row OF_SHORT, and the long into
    ``paths`` as what stands before i. :func:`shorten_ways_from` tries the steps to longs.
    """
    scratch = pool.rules.scratch
    distances = scratch.rows
    # Rounding must not make a path cheaper, else the search would go round in circles.
    slack = SLACK * pool.options.indices[i]
    is_changed = False

    # Longs are options, and in the place after the last option, the long shares.
    n_longs = len(pool.options.signs) + 1
    for j in range(n_longs):
        is_matched = scratch.matches[i, j] > 0.0
        if not is_matched:
            continue

        needed_under_cover = compute_cover(pool.options, pool.rules.rates, i, j)
        distance = distances[OF_LONG, j] - needed_under_cover
        if distance < distances[OF_SHORT, i] - slack:
            distances[OF_SHORT, i] = distance
            scratch.paths[TO_SHORT, i] = j
            is_changed = True
    return is_changed


def shorten_ways_from(pool: OptionPool, i: int) -> bool:
    """Try the steps of a path search from short option i to longs; True if one is shorter.

    Such a step lets a long cover the short. The margin that i needs under that long is added to the
    distance to the short (by how much the margin changes along the path, money per unit). If that
    is less than the distance to the long so far, it is written into the row OF_LONG, and the short
    into ``paths`` as what stands before the long. Shares are one of the longs.
    """
    options = pool.options
    scratch = pool.rules.scratch
    distances = scratch.rows
    n_options = len(options.signs)
    # Rounding must not make a path cheaper, else the search would go round in circles.
    slack = SLACK * options.indices[i]
    is_changed = False

    # The place after the last option is that of shares.
    for j in range(n_options + 1):
        is_shares = j == n_options
        is_long = is_shares or options.quantities[j] > 0.0
        if not is_long:
            continue

        needed_under_cover = compute_cover(options, pool.rules.rates, i, j)
        distance = distances[OF_SHORT, i] + needed_under_cover
        if distance < distances[OF_LONG, j] - slack:
            distances[OF_LONG, j] = distance
            scratch.paths[TO_LONG, j] = i
            is_changed = True
    return is_changed


def pair_shorts(pool: OptionPool, g: int, sign: float, bonus: float) -> None:
    """Cover the shorts of group g by longs and shares so that they need least margin.

    ``sign`` is 1 for calls, -1 for puts; ``bonus`` is money that each covered unit saves besides.
    Each round finds the path that saves most (:func:`find_distances`): from a short that is not
    covered in full to a long with units to spare, and on the way longs may change their shorts. It
    moves as many units as the path can carry. It ends when no path saves anything.

    Before the call, the row LEFT must have all units of each short, SPARE all units of each long,
    and NAKED what a unit needs naked. Writes LEFT, SPARE and ``matches``.
    """
    n = len(pool.options.signs)
    # Each path empties a short, a long or a match: these are more rounds than it ever needs.
    for _ in range(4 * n * (n + 1)):
        find_distances(pool, g, sign, bonus)
        last = find_cheapest_cover(pool)
        if last < 0:
            break
        move_units(pool, last, find_units_on_path(pool, last))


def find_cheapest_cover(pool: OptionPool) -> int:
    """Return the long with units to spare whose use saves most margin; -1 if none saves anything.

    Reads two rows of the scratch, with a place for each option and one more for shares: SPARE, the
    units of a long that cover nothing yet, and OF_LONG, what the margin changes by per unit on the
    cheapest path to it, negative where it saves.
    """
    rows = pool.rules.scratch.rows
    cheapest = -1
    least = 0.0  # a path that saves nothing is none

    for j in range(len(pool.options.signs) + 1):
        if rows[SPARE, j] > 0.0 and rows[OF_LONG, j] < least:
            cheapest = j
            least = rows[OF_LONG, j]
    return cheapest


def find_units_on_path(pool: OptionPool, last: int) -> float:
    """Return the units that the whole path to long option ``last`` can carry.

    A path goes from a short option to a long one, over pairs that may change places. ``paths`` has
    before each long the short that leads to it (TO_LONG), and before each short the long that leads
    to it (TO_SHORT), -1 where the path begins.
    """
    scratch = pool.rules.scratch
    units: float = scratch.rows[SPARE, last]

    # From the last long back to the short at which the path begins. What it can carry is what the
    # last long has to spare, the first short has left, and each pair on the way has to give up.
    long_after = last
    while True:
        short = scratch.paths[TO_LONG, long_after]
        long_before = scratch.paths[TO_SHORT, short]
        if long_before < 0:
            return float(min(units, scratch.rows[LEFT, short]))
        units = min(units, scratch.matches[short, long_before])
        long_after = long_before


def move_units(pool: OptionPool, last: int, units: float) -> None:
    """Change which longs cover which shorts along the cheapest path, by a number of units.

    The path goes short, long, short, long, ..., and ends at long ``last``. Each of its shorts gets
    these units of cover from the long after it, and gives up those from the long before it. The
    first short was naked by them: it has fewer LEFT. The last long was free by them: it has fewer
    to SPARE. Writes these two rows and ``matches[i, j]``, the units of short i that long j covers.
    ``units`` may be at most :func:`find_units_on_path`.
    """
    scratch = pool.rules.scratch
    matches = scratch.matches
    scratch.rows[SPARE, last] -= units

    # From the last long back to the first short. ``paths`` has what stands before each place.
    long_after = last
    while True:
        short = scratch.paths[TO_LONG, long_after]
        matches[short, long_after] += units

        # -1: this short is the first.
        long_before = scratch.paths[TO_SHORT, short]
        if long_before < 0:
            scratch.rows[LEFT, short] -= units
            break
        matches[short, long_before] -= units
        long_after = long_before


def find_loss(options: OptionPositions, rules: OptionRules, e: int, price: float) -> float:
    """Return what the pairs whose shorts have expiry e lose at a price: money, negative for a gain.

    A pair pays the payoff of its short, and is paid that of its long, for each unit.
    """
    matches = rules.scratch.matches
    n = len(options.signs)
    loss = 0.0
    for i in range(n):
        if options.expiries[i] != e or not options.quantities[i] < 0.0:
            continue

        owed = compute_payoff(options, i, price)
        for j in range(n):
            if matches[i, j] > 0.0:
                loss += matches[i, j] * (owed - compute_payoff(options, j, price))
    return loss


def sum_pairs(options: OptionPositions, rules: OptionRules, g: int) -> float:
    """Return what the pairs of group g need: of each expiry the worst loss at any price.

    Money. The common payoff is linear between strikes, and flat beyond the last one, as each short
    is paired: so it is worst at 0 or at a strike. Reads ``matches`` of the pairing.
    """
    n = len(options.signs)
    total = 0.0
    for first in range(n):
        if options.groups[first] != g or not is_first(options, first):
            continue

        expiry = options.expiries[first]
        worst = max(0.0, find_loss(options, rules, expiry, 0.0))
        for i in range(n):
            if options.groups[i] == g:
                worst = max(worst, find_loss(options, rules, expiry, options.strikes[i]))
        total += worst
    return total


def find_dearest(options: OptionPositions, rules: OptionRules, g: int, sign: float) -> int:
    """Return the short of group g that needs most for a unit uncovered; -1 if none is left.

    Among calls (sign 1) or puts (-1) of which the row LEFT of the scratch still has units; the row
    NAKED has what a unit needs.
    """
    rows = rules.scratch.rows
    dearest = -1
    for i in range(len(options.signs)):
        is_open = is_sold(options, i, g, sign) and rows[LEFT, i] > 0.0
        if is_open and (dearest < 0 or rows[NAKED, i] > rows[NAKED, dearest]):
            dearest = i
    return dearest


def sum_naked(options: OptionPositions, rules: OptionRules, g: int) -> float:
    """Return the margin of the short options of group g that nothing covers: money.

    A price can hurt a call or a put, not both. So a call and a put together need what the dearer of
    the two needs alone, and the mark of the other. The dearest of both are combined first.

    Reads two rows of the scratch: LEFT, the units of each short that nothing covers, and NAKED,
    what a unit needs. Empties LEFT.
    """
    rows = rules.scratch.rows
    total = 0.0
    # Each round uses up a short at least, so there are never more rounds than these.
    for _ in range(2 * len(options.signs)):
        call = find_dearest(options, rules, g, 1.0)
        put = find_dearest(options, rules, g, -1.0)
        has_call = call >= 0
        has_put = put >= 0
        if not has_call and not has_put:
            break

        # Nothing of the other kind is left: the short needs all of its own.
        if not has_call or not has_put:
            short = call if has_call else put
            total += rows[LEFT, short] * rows[NAKED, short]
            rows[LEFT, short] = 0.0
            continue

        dearer, other = put, call
        if rows[NAKED, call] >= rows[NAKED, put]:
            dearer, other = call, put
        units = min(rows[LEFT, call], rows[LEFT, put])
        mark_of_other = options.marks[other] / options.sizes[other]
        total += units * (rows[NAKED, dearer] + mark_of_other)
        rows[LEFT, call] -= units
        rows[LEFT, put] -= units
    return total


def sum_covered(pool: OptionPool, g: int, is_initial: bool) -> float:
    """Return the margin of the short options of group g that shares of the underlying cover: money.

    Conversions, in which a long option secures the sale of the shares, lower it. Reads the pairing
    of the group: ``matches[i, j]`` has the units of short i that option j covers, and the last
    column, j = n options, those that shares cover.
    """
    options = pool.options
    rates = pool.rules.rates
    place_of_shares = len(options.signs)
    total = 0.0
    for i in range(len(options.signs)):
        # Rows of other groups, and of options that are not sold, are left from an earlier pairing.
        if options.groups[i] != g or not options.quantities[i] < 0.0:
            continue
        units = pool.rules.scratch.matches[i, place_of_shares]
        if not units > 0.0:
            continue

        total += units * compute_cover(options, rates, i, place_of_shares)
        if not is_initial and rates.conversion > 0.0:
            total -= compute_spared(pool, g, i, units)
    return total


def compute_spared(pool: OptionPool, g: int, i: int, units: float) -> float:
    """Return how much less maintenance margin shares need in a conversion: money, 0 or more.

    In a conversion, ``units`` of shares cover short option i, and a long option of the other kind
    with the same strike and expiry makes sure that they are sold at the strike, whatever the price.
    (In a reversal shares are short, and bought.) Each such share needs the rate ``conversion`` of
    the strike, in place of its own requirement. It takes place as far as the long options have
    units to spare after the pairing (row SPARE of the scratch).
    """
    options = pool.options
    rules = pool.rules
    needed_by_shares = p.find_own_maintenance(pool.packed, pool.held, rules.underlyings[g])
    needed_by_share = needed_by_shares / abs(find_shares(pool, g))
    needed_in_conversion = rules.rates.conversion * options.strikes[i]
    spared_by_share = needed_by_share - needed_in_conversion

    units_to_spare = 0.0
    for j in range(len(options.signs)):
        is_other_kind = options.signs[j] != options.signs[i]
        is_same_strike_and_expiry = options.pairs[j] == options.pairs[i]
        if is_other_kind and is_same_strike_and_expiry:
            units_to_spare += rules.scratch.rows[SPARE, j]
    return float(max(0.0, spared_by_share) * min(units, units_to_spare))


def pair_group(pool: OptionPool, g: int, way: int) -> None:
    """Pair the short options of group g with what covers them, long options and shares.

    In one of three ways: not at all (UNPAIRED), at least margin (CHEAPEST), or so that whatever can
    be covered is (COVERED_FIRST). Calls are paired, then puts. Writes into the scratch, in units of
    the underlying: ``matches[i, j]``, what of short i long j covers; row LEFT, what of each short
    nothing covers; row SPARE, what of each long covers nothing. Row NAKED gets the margin of a unit
    of each option without cover. Shares have the place after the last option.
    """
    options = pool.options
    rows = pool.rules.scratch.rows
    place_of_shares = len(options.signs)
    shares = find_shares(pool, g)
    # A saving for each unit that is covered, which outweighs what a dearer cover costs.
    bonus = 0.0
    if way == COVERED_FIRST:
        bonus = find_bonus(options, g)

    for sign in (1.0, -1.0):
        # Long shares cover calls (sign 1), short ones puts (-1).
        rows[SPARE, place_of_shares] = max(0.0, sign * shares)

        # Nothing is paired yet: shorts are left, and longs to spare, in full.
        for i in range(len(options.signs)):
            if options.groups[i] == g and options.signs[i] == sign:
                units = options.quantities[i] * options.sizes[i]
                rows[LEFT, i] = max(0.0, -units)
                rows[SPARE, i] = max(0.0, units)
                rows[NAKED, i] = compute_naked(options, pool.rules, i)
                pool.rules.scratch.matches[i, :] = 0.0

        if way != UNPAIRED:
            pair_shorts(pool, g, sign, bonus)


def find_bonus(options: OptionPositions, g: int) -> float:
    """Return a saving for each unit covered in group g, so large that whatever can be is covered.

    Money: FAR prices of the underlying, which no cover costs. All options of a group have the same
    price of the underlying. 0 without options.
    """
    bonus = 0.0
    for i in range(len(options.signs)):
        if options.groups[i] == g:
            bonus = FAR * options.indices[i]
    return bonus


def compute_naked(options: OptionPositions, rules: OptionRules, i: int) -> float:
    """Return what a unit of the underlying of option i needs, sold and not covered: money.

    Its mark, and a rate of the price less how far it is out of the money, but at least a rate of
    the price (of a call) or of the strike (of a put).
    """
    rates = rules.rates
    price = options.indices[i]
    least = rates.least_put * options.strikes[i]
    if options.signs[i] > 0.0:
        least = rates.least_call * price
    naked = max(rates.naked * price - compute_otm(options, i, price), least)
    return float(options.marks[i] / options.sizes[i] + naked)


def find_way(pool: OptionPool, g: int, is_initial: bool) -> tuple[int, float]:
    """Try all ways to pair shorts with cover in group g; return the cheapest, and its margin.

    The way is CHEAPEST, COVERED_FIRST or UNPAIRED; the margin is money. The scratch is left with
    the pairs of the last way that was tried, not of the cheapest one: to read the pairs of that,
    call :func:`pair_group` with it.
    """
    cheapest = UNPAIRED
    least = math.inf
    for way in (CHEAPEST, COVERED_FIRST, UNPAIRED):
        pair_group(pool, g, way)

        # Shorts under longs, shorts under shares, and shorts without cover. These come last, since
        # ``sum_naked`` empties the row LEFT.
        needed = sum_pairs(pool.options, pool.rules, g)
        needed += sum_covered(pool, g, is_initial)
        needed += sum_naked(pool.options, pool.rules, g)
        if needed < least:
            cheapest = way
            least = needed
    return cheapest, least


def compute_premiums(pool: OptionPool) -> float:
    """Return the premiums of long options less those of the short options that they cover: money.

    Premiums are at the marks. Which long covers which short is the pairing of each group that needs
    least initial margin.
    """
    options = pool.options
    n = len(options.signs)
    total = 0.0
    for g in range(len(pool.rules.underlyings)):
        # find_way leaves the pairs of the last way it tried, so the cheapest is paired again.
        way, _ = find_way(pool, g, is_initial=True)
        pair_group(pool, g, way)

        for i in range(n):
            if options.groups[i] != g:
                continue
            total += max(0.0, options.quantities[i]) * options.marks[i]

            # ``matches`` are in units of the underlying, marks are per contract.
            if options.quantities[i] < 0.0:
                for j in range(n):
                    units_covered = pool.rules.scratch.matches[i, j]
                    total -= units_covered * (options.marks[i] / options.sizes[i])
    return total
