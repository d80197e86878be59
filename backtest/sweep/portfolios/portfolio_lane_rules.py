"""The rules of an instrument and its bar, as fills of lanes of several positions read them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest.account import InstrumentRules, Quote, Terms, compute_square_root_impact
from backtest.account.orders import LARGEST_WORSENING
from backtest.account.portfolio_records import NUMBERS
from backtest.sweep.lanes.quick_looks import SLACK
from backtest.sweep.portfolios import portfolio_lane_rows as field
from backtest.sweep.portfolios.portfolio_lane_rows import spot
from backtest.venue import MarginRules

if TYPE_CHECKING:
    from backtest.base import FloatArray


(
    LOT, MIN_NOTIONAL, RATE_OF_FEE, RATE_OF_SLIPPAGE, RATE_OF_IMPACT, PARTICIPATION,
) = (
    NUMBERS.index(name)
    for name in ("lot", "min_notional", "fee", "slippage", "impact", "participation")
)  # fmt: skip


class Costs(NamedTuple):
    lot: float
    min_notional: float
    fee: float
    slippage: float
    impact: float
    participation: float
    setting: float
    first_leverage: float


class FillKind(NamedTuple):
    has_rounding: bool | None
    has_impact: bool | None
    is_inverse: bool | None
    is_isolated: bool | None


NO_COSTS = Costs(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def read_costs(terms: Terms, i: int) -> Costs:
    numbers, brackets = terms.numbers, terms.rules.brackets
    return Costs(
        lot=numbers[LOT, i],
        min_notional=numbers[MIN_NOTIONAL, i],
        fee=numbers[RATE_OF_FEE, i],
        slippage=numbers[RATE_OF_SLIPPAGE, i],
        impact=numbers[RATE_OF_IMPACT, i],
        participation=numbers[PARTICIPATION, i],
        setting=brackets.settings[i],
        first_leverage=brackets.leverages[i, 0],
    )


def read_rules(
    costs: Costs, position: FloatArray, kind: FillKind, i: int, lane: int
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
            leverages=(costs.first_leverage,),
            close_fee=0.0,
            taker=0.0,
            size=1.0,
            setting=costs.setting,
            is_inverse=False,
            is_isolated=False,
            is_valued_at_entry=False,
            multiplier=1.0,
            initial_multiplier=1.0,
        ),
        lot=costs.lot,
        min_notional=costs.min_notional,
        fee=costs.fee,
        taker=0.0,
        slippage=costs.slippage,
        impact=costs.impact,
        participation=costs.participation,
        liquidation_mode=0,
        liquidation_fee=0.0,
        liquidation_slippage=0.0,
        step=0.0,
        full_below=0.0,
        is_funded_by_wallet=False,
        min_leverage=position[spot(i, field.MIN_LEVERAGE, lane)],
        max_leverage=position[spot(i, field.MAX_LEVERAGE, lane)],
        band=position[spot(i, field.BAND, lane)],
        stop_loss=0.0,
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
        take_profit=0.0,
        trailing_stop=0.0,
        equity_stop=0.0,
        is_stop_distance=None,
        is_profit_distance=None,
        is_trail_distance=None,
        full_below_health=0.0,
    )


def quote_open(prices: FloatArray, i: int) -> Quote:
    value = prices[field.OPEN, i]
    return Quote(
        open=value,
        low=prices[field.LAST_LOW, i],
        high=prices[field.LAST_HIGH, i],
        mark_open=value,
        mark_low=value,
        mark_high=value,
        mark_close=value,
        multiplier=1.0,
        volume=prices[field.VOLUME, i],
        sigma=prices[field.SIGMA, i],
        adv=prices[field.ADV, i],
        initial=prices[field.INITIAL_X, i],
        limit=math.inf,
        order_fee=0.0,
        fill=value,
        stop_scale=prices[field.STOP_SCALE, i],
        profit_scale=prices[field.PROFIT_SCALE, i],
        trail_scale=prices[field.TRAIL_SCALE, i],
    )


CAUTION = 1e-9
"""Share of the cap of gross leverage that lanes leave for rounding."""


class LaneOrder(NamedTuple):
    wanted: float
    reach: float
    held: float
    size: float
    added: float
    is_asking: bool
    is_adding: bool


def bound_cost(rules: InstrumentRules, quote: Quote, order: LaneOrder) -> tuple[float, float]:
    worsening = rules.slippage
    if rules.has_impact is not None:
        notional = max(order.reach - order.held, 0.0) if order.reach < math.inf else 0.0
        worsening += compute_square_root_impact(rules.impact, quote, notional)
        worsening = min(worsening, LARGEST_WORSENING)
    ratio = 1.0 + worsening
    if rules.is_inverse is not None:
        ratio = 1.0 / (1.0 - worsening)
    return ratio * SLACK, (worsening * ratio + rules.fee * ratio) * SLACK
