"""Compute from the record of a run how far each limit cut each target leverage.

Each decision passes the limits in the order of :mod:`backtest.account.orders`, with the same
formulas on arrays: the account's least and most leverage, the band, initial margin, the wallet,
participation, lots and the least notional. The amount that a limit takes away is its shortfall; the
shortfalls of a decision add up to the target less the leverage held after the fill.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.account import orders
from backtest.account.ledger import LIQUIDATED, STOP_KINDS
from backtest.account.orders import LARGEST_WORSENING
from backtest.base.compiled_twins import make_array_twins
from backtest.base.units import TOLERANCE, BoolArray, FloatArray, IntArray
from backtest.engine.fill_conditions import (
    AtOpen,
    read_opens,
    take_bars,
)
from backtest.engine.result_tables import ARRAYS

if TYPE_CHECKING:
    from backtest.account import InstrumentRules
    from backtest.engine.loop_inputs import Inputs
    from backtest.engine.record import Record
    from backtest.venue import MarginRules


CAUSES = (
    "min_leverage", "max_leverage", "band", "initial_margin", "venue_leverage", "wallet",
    "participation", "lot", "min_notional", "margin_call",
)  # fmt: skip
"""The limits in the order in which they apply to a decision."""
ORDERS = make_array_twins(orders)
"""The formulas of orders that have no branches, on arrays."""
LEAST = 1e-9
"""A limit binds if it changes the position by more than this share."""


class Decisions(NamedTuple):
    """The decisions of a run that reached a fill, arrays of shape (n_decisions,).

    ``asked`` and ``held`` are leverages at the price where the decision fills, in turns of the
    equity before the costs of the fill, positive along the signal. ``cuts`` holds, by cause, what
    each limit took away: negative where it left more than was asked, 0 where it did not bind.
    ``bar`` is the bar of the fill.
    """

    asked: FloatArray
    held: FloatArray
    cuts: Mapping[str, FloatArray]
    bar: IntArray


# ------------------------------------------------------------------------------- what was decided


def find_decisions(inputs: Inputs, record: Record, entries: FloatArray, first: int) -> Decisions:
    """Return the target of every decision, the leverage held after its fill, and the cuts."""
    with np.errstate(all="ignore"):
        at = read_opens(inputs, record, entries, first)
        asked, cuts, final = cut_targets(inputs, at)
    after = at.quantity + at.change
    is_off = differ(final, after)
    kept = ~find_dropped(inputs.rules.instrument, at, entries, is_off)
    turns = at.side * at.unit / at.equity
    held = after * turns
    cuts["margin_call"] = np.where(is_off, (final - after) * turns, 0.0)
    left = {name: cut[kept] for name, cut in cuts.items()}
    return Decisions(asked[kept], held[kept], left, at.bar[kept])


def find_dropped(
    rules: InstrumentRules, at: AtOpen, entries: FloatArray, is_off: BoolArray
) -> BoolArray:
    """Return which decisions a stop or liquidation dropped before they filled.

    One at the bar's close is dropped by any of them, one at the open by those that kept it from
    filling, and one at the close before the bar by none.
    """
    forced = np.isin(at.bar, entries[np.isin(entries[:, 1], (*STOP_KINDS, LIQUIDATED)), 0])
    if rules.fills_early is not None:
        return np.zeros_like(forced)
    if rules.fills_late is not None:
        return forced
    return np.asarray(is_off & forced & (at.change == 0.0))


def differ(one: FloatArray, other: FloatArray) -> BoolArray:
    """Return where two amounts differ by more than rounding."""
    return np.asarray(np.abs(one - other) > LEAST * np.maximum(np.abs(one), np.abs(other)))


# ------------------------------------------------------------------------------- limit by limit


def cut_targets(inputs: Inputs, at: AtOpen) -> tuple[FloatArray, dict[str, FloatArray], FloatArray]:
    """Return the targets, the cut of each limit, and the contracts that should be held."""
    rules = inputs.rules.instrument
    reach, raised, lowered = clip_leverage(rules, at)
    most = np.full(len(reach), np.inf)
    for rows, margin in split_tables(inputs, at.bar):
        most[rows] = find_most(rules, margin, at.take(rows))
    reach = np.where(np.isinf(reach), most, reach)
    is_inside = find_inside(rules, at, reach)
    sized, limited, roomy = (np.copy(reach) for _ in range(3))
    for rows, margin in split_tables(inputs, at.bar):
        limited[rows], roomy[rows] = size_orders(inputs, margin, at.take(rows), reach[rows])
    is_boundless = np.isinf(at.leverage) & np.isinf(at.limit) & (at.scale > 0.0)
    for values in (limited, roomy):
        values[is_inside] = reach[is_inside]
    sized = np.where(is_inside, at.held, roomy)
    asked = np.where(is_boundless, roomy, reach + raised + lowered)
    wanted = at.side * sized / at.unit
    final, shares = round_orders(inputs, at, np.where(is_inside, at.quantity, wanted))
    turns = at.side * at.unit / at.equity
    name = "venue_leverage" if rules.margin.setting > 0.0 else "initial_margin"
    cuts = {cause: np.zeros(len(reach)) for cause in CAUSES}
    cuts["min_leverage"], cuts["max_leverage"] = raised / at.equity, lowered / at.equity
    cuts["band"] = drop_noise(reach - sized, reach, is_inside) / at.equity
    cuts[name] = drop_noise(reach - limited, reach, ~is_inside & ~is_boundless) / at.equity
    cuts["wallet"] = drop_noise(limited - roomy, reach, ~is_inside & ~is_boundless) / at.equity
    cuts |= {cause: contracts * turns for cause, contracts in shares.items()}
    return asked / at.equity, cuts, final


def drop_noise(cut: FloatArray, of: FloatArray, rows: BoolArray) -> FloatArray:
    """Return the cuts in some rows, with 0 for those that are rounding."""
    return np.where(rows & (np.abs(cut) > LEAST * np.abs(of)), cut, 0.0)


def clip_leverage(rules: InstrumentRules, at: AtOpen) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the target notional within the account's leverage, and the cuts of both limits."""
    level = np.maximum(at.leverage, rules.min_leverage)
    level = np.where(at.scale == 0.0, 0.0, level)
    capped = np.minimum(level, at.limit)
    unit = at.scale * at.equity
    is_bounded = np.isfinite(at.leverage) & (at.scale > 0.0)
    raised = np.where(is_bounded, np.where(is_bounded, at.leverage - level, 0.0) * unit, 0.0)
    lowered = np.where(is_bounded, (level - capped) * unit, 0.0)
    return np.where(at.scale == 0.0, 0.0, capped * unit), raised, lowered


def split_tables(inputs: Inputs, bar: IntArray) -> Iterator[tuple[IntArray, MarginRules]]:
    """Yield the rows under each margin table, with the table."""
    starts = [0, *(first for first, _ in inputs.changes), np.iinfo(np.int64).max]
    tables = [inputs.rules.instrument.margin, *(table for _, table in inputs.changes)]
    for begin, end, table in zip(starts[:-1], starts[1:], tables, strict=True):
        rows = np.flatnonzero((bar >= begin) & (bar < end))
        if len(rows):
            yield rows, table


def find_counted(rules: InstrumentRules, at: AtOpen) -> FloatArray:
    """Return the equity that backs an order."""
    profit = np.maximum(at.quantity * (at.value - at.entry), 0.0)
    return at.equity - np.where(at.held > 0.0, (1.0 - rules.profit_share) * profit, 0.0)


def find_most(rules: InstrumentRules, margin: MarginRules, at: AtOpen) -> FloatArray:
    """Return the target notional of an infinite leverage."""
    nothing = np.zeros(len(at.bar))
    most = find_largest(margin, find_counted(rules, at), nothing, nothing, at.multiplier)
    is_kept = (at.scale == 1.0) & (at.held > most)
    return np.where(is_kept, at.held, at.scale * most)


def find_inside(rules: InstrumentRules, at: AtOpen, reach: FloatArray) -> BoolArray:
    """Return whether a target lies inside the band; one that was filled never does."""
    width = np.where(reach == 0.0, 0.0, rules.band * at.equity)
    is_inside = np.abs(reach - at.held) <= width * (1.0 + LEAST)
    return np.asarray(is_inside & (at.change == 0.0))


def find_largest(
    margin: MarginRules,
    equity: FloatArray,
    held: FloatArray,
    cost: FloatArray,
    multiplier: FloatArray,
) -> FloatArray:
    """Return the largest notional an order may reach, on arrays."""
    best = np.zeros(len(equity))
    if margin.setting > 0.0:
        setting = ARRAYS.compute_setting(margin, multiplier)
        for leverage, cap in zip(margin.leverages, margin.caps, strict=True):
            is_allowed = leverage / multiplier >= setting * (1.0 - TOLERANCE)
            best = np.maximum(best, np.where(is_allowed, cap, 0.0))
        return np.minimum(best, find_after_cost(setting, equity, held, cost))
    for leverage, cap in zip(margin.leverages, margin.caps, strict=True):
        best = np.maximum(
            best, np.minimum(cap, find_after_cost(leverage / multiplier, equity, held, cost))
        )
    return best


def find_after_cost(
    leverage: FloatArray, equity: FloatArray, held: FloatArray, cost: FloatArray
) -> FloatArray:
    """Return the largest N with ``N <= leverage (equity - cost (N - held))``, at least 0."""
    slope = 1.0 + cost * leverage
    bounded = leverage / slope * (equity + cost * held)
    endless = np.where(cost > 0.0, equity / cost + held, np.inf)
    most = np.where(np.isinf(leverage), endless, np.where(slope > 0.0, bounded, np.inf))
    return np.maximum(0.0, most)


def size_orders(
    inputs: Inputs, margin: MarginRules, at: AtOpen, reach: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the notional after initial margin, and after the limit of the wallet."""
    fee: Any = at.fee
    rules, held = inputs.rules.instrument._replace(fee=fee), at.held
    worsening = np.full(len(reach), rules.slippage)
    if rules.has_impact is not None:
        worsening += find_impact(inputs, at, np.maximum(reach - held, 0.0))
    worsening = np.minimum(worsening, LARGEST_WORSENING)
    if rules.rounds_price is not None:
        worsening = find_rounded(rules, at, worsening)
    cost = ORDERS.compute_cost(rules, at.side, worsening)
    free = find_counted(rules, at) - at.order_fee
    limit = find_largest(margin, free, held, cost, at.multiplier)
    is_free = (reach <= held) | (reach == 0.0)
    limited = np.where(is_free, reach, np.where(limit <= held, held, np.minimum(reach, limit)))
    if rules.is_isolated is None:
        return limited, limited
    kept = np.maximum(held, 0.0)
    room = np.maximum(find_room(rules, margin, at, worsening) * at.unit, 0.0)
    roomy = kept + np.minimum(limited - kept, room)
    return limited, np.where(is_free | (limit <= held), limited, roomy)


def find_rounded(rules: InstrumentRules, at: AtOpen, worsening: FloatArray) -> FloatArray:
    """Return the worsening up to the tick at which an order fills, a fraction of the price."""
    price, tick = (
        ARRAYS.compute_price(rules.margin.size, rules.margin.is_inverse, at.value),
        rules.tick,
    )
    steps = price * (1.0 + at.side * worsening) / tick
    whole = np.where(at.side < 0.0, np.floor(steps + 1e-6), np.ceil(steps - 1e-6))
    return np.asarray(np.abs(np.maximum(whole, 1.0) * tick / price - 1.0))


def find_room(
    rules: InstrumentRules, margin: MarginRules, at: AtOpen, worsening: FloatArray
) -> FloatArray:
    """Return the contracts whose margin and fee the wallet can pay, after what is closed."""
    up, down = 1.0 + worsening, 1.0 - worsening
    if rules.is_inverse is not None:
        up, down = 1.0 / up, 1.0 / down
    filled = at.value * np.where(at.side > 0.0, up, down)
    unit = np.abs(filled)
    backing = at.margin + at.quantity * (filled - at.entry)
    closed = at.cash + backing - rules.fee * np.abs(at.quantity) * unit
    wallet = np.where(at.side * at.quantity < 0.0, closed, at.cash) - at.order_fee
    setting = ARRAYS.compute_setting(margin, at.multiplier)
    return np.asarray(wallet / (unit * (1.0 / setting + rules.fee)))


def find_impact(inputs: Inputs, at: AtOpen, notional: FloatArray) -> FloatArray:
    """Return the square-root impact; 0 where it is unknown."""
    sigma, adv = take_bars(inputs.feed.sigma, at.bar), take_bars(inputs.feed.adv, at.bar)
    is_known = (adv > 0.0) & (sigma > 0.0)
    impact = inputs.rules.instrument.impact * sigma * np.sqrt(notional / adv)
    return np.where(is_known, impact, 0.0)


def round_orders(
    inputs: Inputs, at: AtOpen, wanted: FloatArray
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Return the contracts after volume, lots and minimum, and the cut of each, in contracts."""
    rules, held = inputs.rules.instrument, at.quantity
    change = np.abs(wanted - held)
    if rules.has_rounding is None:
        is_dust = (wanted != 0.0) & (change <= TOLERANCE * np.abs(held))
        return np.where(is_dust, held, wanted), {}
    most = np.full(len(wanted), np.inf)
    part = most
    if rules.participation < np.inf:
        most = rules.participation * inputs.feed.volume[at.bar - 1]
        part = truncate(rules, most)
    limited = held + np.where(wanted > held, part, -part)
    limited = np.where(np.abs(limited) < 1e-6 * rules.lot, 0.0, limited)
    whole = truncate(rules, np.abs(wanted))
    is_adding = (wanted * held > 0.0) & (np.abs(wanted) >= np.abs(held))
    rounded = np.where(is_adding & (whole < np.abs(held)), held, np.copysign(whole, wanted))
    is_slow = change > most
    chosen = np.where(is_slow, limited, rounded)
    left = np.abs(chosen - held)
    is_dust = left <= np.maximum(1e-6 * rules.lot, TOLERANCE * np.abs(held))
    is_small = left * at.unit < rules.min_notional * (1.0 - TOLERANCE)
    is_same = change == 0.0
    is_kept = is_same | ((chosen != 0.0) & (is_dust | is_small))
    final = np.where(is_kept, held, chosen)
    is_least = is_kept & is_small & ~is_dust & ~is_same
    slow = np.where(is_slow & ~is_same, wanted - chosen, 0.0)
    least = np.where(is_least, chosen - held, 0.0)
    rest = np.where(is_same, 0.0, wanted - final) - slow - least
    found = {"participation": slow, "lot": rest, "min_notional": least}
    scale = np.maximum(np.abs(wanted), np.abs(held))
    return final, {name: np.where(np.abs(x) > LEAST * scale, x, 0.0) for name, x in found.items()}


def truncate(rules: InstrumentRules, size: FloatArray) -> FloatArray:
    """Return sizes in whole lots, with a tolerance of 1e-6 lots."""
    if not rules.lot > 0.0:
        return size
    known = np.isfinite(size)
    return np.where(known, np.floor(size * (1.0 / rules.lot) + 1e-6) * rules.lot, size)
