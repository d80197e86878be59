"""Compute from the record of a run how far each limit cut each target leverage."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.account import balances, orders, position
from backtest.account.ledger import LIQUIDATED, STOP_KINDS
from backtest.base import BoolArray, FloatArray, IntArray, make_array_twins
from backtest.engine.fill_conditions import AtOpen, read_opens, take_bars
from backtest.venue import contract_value, requirement

if TYPE_CHECKING:
    from backtest.account import InstrumentRules
    from backtest.engine.loop_inputs import Inputs
    from backtest.engine.record import Record
    from backtest.venue import MarginRules


CAUSES = (
    "min_leverage", "max_leverage", "band", "initial_margin", "venue_leverage", "wallet",
    "participation", "lot", "min_notional", "margin_call",
)  # fmt: skip
LEAST = 1e-9
"""A limit binds if it changes the position by more than this share."""


class Decisions(NamedTuple):
    """The decisions of a run that reached a fill, arrays of shape (n_decisions,)."""

    asked: FloatArray
    held: FloatArray
    cuts: Mapping[str, FloatArray]
    bar: IntArray


# ------------------------------------------------------------------------------- what was decided


def find_decisions(inputs: Inputs, record: Record, entries: FloatArray, first: int) -> Decisions:
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
    forced = np.isin(at.bar, entries[np.isin(entries[:, 1], (*STOP_KINDS, LIQUIDATED)), 0])
    if rules.fills_early is not None:
        return np.zeros_like(forced)
    if rules.fills_late is not None:
        return forced
    return np.asarray(is_off & forced & (at.change == 0.0))


def differ(one: FloatArray, other: FloatArray) -> BoolArray:
    return np.asarray(np.abs(one - other) > LEAST * np.maximum(np.abs(one), np.abs(other)))


# ------------------------------------------------------------------------------- limit by limit


def cut_targets(inputs: Inputs, at: AtOpen) -> tuple[FloatArray, dict[str, FloatArray], FloatArray]:
    rules = inputs.rules.instrument._replace(order_fee=0.0)  # it is that of the quote
    kernels, along = bind_orders(), at.side * at.unit
    stated, over, reach = clip_leverage(
        rules.min_leverage, at.limit, at.equity, at.leverage, at.scale
    )
    is_bounded = np.isfinite(at.leverage)
    raised, lowered = (np.where(is_bounded, x, 0.0) for x in (stated - over, over - reach))
    limited, wanted = (np.copy(reach) for _ in range(2))
    for rows, margin in split_tables(inputs, at.bar):
        fee: Any = at.fee[rows]
        of = rules._replace(margin=margin, fee=fee)
        reach[rows], limited[rows], wanted[rows] = size_orders(
            of, at.take(rows), quote_fills(inputs, at.take(rows)), reach[rows]
        )
    is_inside = find_inside(rules, at, reach)
    is_boundless = np.isinf(at.leverage) & np.isinf(at.limit) & (at.scale > 0.0)
    wanted = np.where(is_inside, at.quantity, wanted)
    roomy, is_limited = wanted * along, ~is_inside & ~is_boundless
    asked = np.where(is_boundless & ~is_inside, roomy, reach + raised + lowered)
    quote = quote_fills(inputs, at)
    coarse, final = (
        kernels.round_quantity(of, at.quantity, quote, wanted)
        for of in (rules._replace(min_notional=0.0), rules)
    )
    is_slow = np.abs(wanted - at.quantity) > rules.participation * quote.volume
    scale = np.maximum(np.abs(wanted), np.abs(at.quantity))
    cuts = {cause: np.zeros(len(reach)) for cause in CAUSES}
    cuts["min_leverage"], cuts["max_leverage"] = raised / at.equity, lowered / at.equity
    name = "venue_leverage" if rules.margin.setting > 0.0 else "initial_margin"
    for cause, missing, whole, does_apply in (
        ("band", reach - at.held, reach, is_inside),
        (name, reach - limited, reach, is_limited),
        ("wallet", limited - roomy, reach, is_limited),
        ("participation", (wanted - coarse) * along, scale * at.unit, is_slow),
        ("lot", (wanted - coarse) * along, scale * at.unit, ~is_slow),
        ("min_notional", (coarse - final) * along, scale * at.unit, True),
    ):
        is_more = np.abs(missing) > LEAST * np.abs(whole)  # than rounding
        cuts[cause] = np.where(does_apply & is_more, missing, 0.0) / at.equity
    return asked / at.equity, cuts, final


@functools.cache
def bind_orders() -> Any:
    return make_array_twins(contract_value, requirement, position, balances, orders)


def quote_fills(inputs: Inputs, at: AtOpen) -> Any:
    """Return what orders read of a quote, arrays of shape (n_decisions,)."""
    feed = inputs.feed
    return SimpleNamespace(
        fill=at.value,
        initial=at.multiplier,
        limit=at.limit,
        order_fee=at.order_fee,
        volume=feed.volume[at.bar - 1],
        sigma=take_bars(feed.sigma, at.bar),
        adv=take_bars(feed.adv, at.bar),
    )


def clip_leverage(
    least: FloatArray | float, most: FloatArray, equity: FloatArray | float,
    leverage: FloatArray, scale: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:  # fmt: skip
    asked, over, within = (
        bind_orders().compute_target(
            SimpleNamespace(min_leverage=low, has_limits=True), SimpleNamespace(limit=high),
            equity, leverage, scale,
        )
        for low, high in ((-np.inf, np.inf), (least, np.inf), (least, most))
    )  # fmt: skip
    return asked, over, within


def split_tables(inputs: Inputs, bar: IntArray) -> Iterator[tuple[IntArray, MarginRules]]:
    starts = [0, *(first for first, _ in inputs.changes), np.iinfo(np.int64).max]
    tables = [inputs.rules.instrument.margin, *(table for _, table in inputs.changes)]
    for begin, end, table in zip(starts[:-1], starts[1:], tables, strict=True):
        rows = np.flatnonzero((bar >= begin) & (bar < end))
        if len(rows):
            yield rows, table


def find_inside(rules: InstrumentRules, at: AtOpen, reach: FloatArray) -> BoolArray:
    width = np.where(reach == 0.0, 0.0, rules.band * at.equity)
    is_inside = np.abs(reach - at.held) <= width * (1.0 + LEAST)
    return np.asarray(is_inside & (at.change == 0.0))


def size_orders(
    rules: InstrumentRules, at: AtOpen, quote: Any, reach: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    kernels = bind_orders()
    owned = kernels.Position(at.quantity, at.entry, at.margin, at.value)
    held = kernels.make_balances(at.cash, owned)
    free = kernels.compute_counted(rules, held, quote, at.equity, at.held)
    most = kernels.compute_most(rules, quote, free, at.scale, at.held)
    reach = np.where(np.isinf(reach), most, reach)
    limited, wanted = (
        kernels.size_order(of, held, quote, at.equity, at.side, reach)
        for of in (rules._replace(is_isolated=None), rules)
    )
    return reach, limited * (at.side * at.unit), wanted
