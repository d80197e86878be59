"""The rules of an instrument and its open, as the scalar rules of fills and stops read them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest.account import InstrumentRules, Quote
from backtest.account.records import NUMBERS
from backtest.sweep.lanes import rows as r
from backtest.sweep.lanes.rows import term
from backtest.venue import MarginRules

if TYPE_CHECKING:
    from backtest.base import FloatArray

(
    LOT, MIN_NOTIONAL, FEE, TAKER, SLIPPAGE, IMPACT, PARTICIPATION, MIN_LEVERAGE, MAX_LEVERAGE,
    BAND, STOP_LOSS, TAKE_PROFIT, TRAILING_STOP,
) = (
    NUMBERS.index(name)
    for name in (
        "lot", "min_notional", "fee", "taker", "slippage", "impact", "participation",
        "min_leverage", "max_leverage", "band", "stop_loss", "take_profit", "trailing_stop",
    )
)  # fmt: skip


class FillKind(NamedTuple):
    has_rounding: bool | None
    has_impact: bool | None
    is_inverse: bool | None
    is_isolated: bool | None
    is_stop_distance: bool | None
    is_profit_distance: bool | None
    is_trail_distance: bool | None


def make_kind(
    has_rounding: bool | None,
    has_impact: bool | None,
    is_inverse: bool | None,
    is_isolated: bool | None,
) -> FillKind:
    return FillKind(has_rounding, has_impact, is_inverse, is_isolated, None, None, None)


class Table(NamedTuple):
    """The size of a contract, the venue leverage chosen, and the first bracket's."""

    size: float
    setting: float
    first_leverage: float


def read_rules(
    numbers: FloatArray, kind: FillKind, table: Table, i: int, lane: int
) -> InstrumentRules:
    return InstrumentRules(
        is_inverse=kind.is_inverse,
        is_isolated=kind.is_isolated,
        has_stop=None,
        has_impact=kind.has_impact,
        has_rounding=kind.has_rounding,
        keeps_entry=True,
        marks_entry=None,
        margin=MarginRules(
            floors=(0.0,),
            caps=(math.inf,),
            rates=(0.0,),
            amounts=(0.0,),
            leverages=(table.first_leverage,),
            close_fee=0.0,
            taker=0.0,
            size=table.size,
            setting=table.setting,
            is_inverse=False,
            is_isolated=False,
            is_valued_at_entry=False,
            multiplier=1.0,
            initial_multiplier=1.0,
        ),
        lot=numbers[term(i, LOT, lane)],
        min_notional=numbers[term(i, MIN_NOTIONAL, lane)],
        fee=numbers[term(i, FEE, lane)],
        taker=numbers[term(i, TAKER, lane)],
        slippage=numbers[term(i, SLIPPAGE, lane)],
        impact=numbers[term(i, IMPACT, lane)],
        participation=numbers[term(i, PARTICIPATION, lane)],
        liquidation_mode=0,
        liquidation_fee=0.0,
        liquidation_slippage=0.0,
        step=0.0,
        full_below=0.0,
        is_funded_by_wallet=False,
        min_leverage=numbers[term(i, MIN_LEVERAGE, lane)],
        max_leverage=numbers[term(i, MAX_LEVERAGE, lane)],
        band=numbers[term(i, BAND, lane)],
        stop_loss=numbers[term(i, STOP_LOSS, lane)],
        has_limits=None,
        rounds_price=None,
        tick=0.0,
        has_auto_margin=None,
        has_profit_share=None,
        has_order_fee=None,
        has_liquidation_impact=None,
        profit_share=1.0,
        order_fee=0.0,
        liquidation_impact=0.0,
        fills_late=None,
        fills_early=None,
        has_exits=None,
        take_profit=numbers[term(i, TAKE_PROFIT, lane)],
        trailing_stop=numbers[term(i, TRAILING_STOP, lane)],
        equity_stop=0.0,
        is_stop_distance=kind.is_stop_distance,
        is_profit_distance=kind.is_profit_distance,
        is_trail_distance=kind.is_trail_distance,
        full_below_health=0.0,
    )


def quote_open(prices: FloatArray, i: int) -> Quote:
    value = prices[r.OPEN, i]
    return Quote(
        open=value,
        low=prices[r.LAST_LOW, i],
        high=prices[r.LAST_HIGH, i],
        mark_open=value,
        mark_low=value,
        mark_high=value,
        mark_close=value,
        multiplier=1.0,
        volume=prices[r.VOLUME, i],
        sigma=prices[r.SIGMA, i],
        adv=prices[r.ADV, i],
        initial=prices[r.INITIAL_X, i],
        limit=math.inf,
        order_fee=0.0,
        fill=value,
        stop_scale=prices[r.STOP_SCALE, i],
        profit_scale=prices[r.PROFIT_SCALE, i],
        trail_scale=prices[r.TRAIL_SCALE, i],
    )
