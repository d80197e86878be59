"""The rows of a block of accounts side by side (lanes), and how one lane is read from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backtest.account import (
    AccountRules,
    Balances,
    Feed,
    InstrumentRules,
    Log,
    Plan,
    Position,
    Quote,
    Rules,
    Watch,
    as_index,
    make_balances,
)
from backtest.engine import Seen
from backtest.measures import Clock, Exposure
from backtest.venue import MarginRules

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray

LANES = 64
"""Accounts in a block; a multiple of every vector length."""

RUN = 8
"""Lanes that are handled at once, as a vector: those that trade, those with the same column."""

AT_ONCE = 32
"""Bars for which lanes' own columns are copied at a time, so that they stay in the L1 cache."""

ROWS = (
    "cash", "quantity", "entry", "margin", "target", "later", "step_left",
    "cash_before", "margin_before", "funding_before", "interest_before", "line",
    "equity", "unit", "scale", "reserve", "peak", "low", "low_peak",
    "equity_sum", "fees", "slippage", "impact", "funding", "interest", "traded",
    "liquidations", "ruin",
    "sample_unit", "samples", "mean", "squares", "excess_mean", "excess_squares", "downside",
    "band", "min_leverage", "max_leverage",
    "price_pnl", "liquidation_loss", "flows", "top_up", "bad_debt", "stops", "calls",
    "first_liquidation", "near", "leverage_sum", "peak_leverage", "peak_needed", "peak_backing",
    "inverse", "decay_held", "decay_log", "decay_product",
    "ratio", "is_called", "unmet", "last_liquidation", "last_stop", "is_over", "is_ruined",
    "is_done",
    "lot", "min_notional", "fee", "taker", "slip", "impact_rate", "participation",
    "liquidation_fee", "liquidation_slippage", "step", "full_below", "stop_loss", "setting",
    "close_fee", "top_up_to", "first_unit", "bound", "ruin_at", "paid_in",
    "is_call_open", "called_at", "calls_met", "calls_failed", "liquidated_calls", "call_days",
    "profit_share", "order_fee", "liquidation_impact",
    "best", "highest", "held", "take_profits", "take_profit", "trailing_stop", "equity_stop",
    "carry", "carry_before", "disutility", "seen_peak", "seen_since", "seen_since_stop",
)  # fmt: skip

(
    CASH, QUANTITY, ENTRY, MARGIN, TARGET, LATER, STEP_LEFT,
    CASH_BEFORE, MARGIN_BEFORE, FUNDING_BEFORE, INTEREST_BEFORE, LINE,
    EQUITY, UNIT, SCALE, RESERVE, PEAK, LOW, LOW_PEAK,
    EQUITY_SUM, FEES, SLIPPAGE, IMPACT, FUNDING, INTEREST, TRADED,
    LIQUIDATIONS, RUIN,
    SAMPLE_UNIT, SAMPLES, MEAN, SQUARES, EXCESS_MEAN, EXCESS_SQUARES, DOWNSIDE,
    BAND, MIN_LEVERAGE, MAX_LEVERAGE,
    PRICE_PNL, LIQUIDATION_LOSS, FLOWS, TOP_UP, BAD_DEBT, STOPS, CALLS,
    FIRST_LIQUIDATION, NEAR, LEVERAGE_SUM, PEAK_LEVERAGE, PEAK_NEEDED, PEAK_BACKING,
    INVERSE, DECAY_HELD, DECAY_LOG, DECAY_PRODUCT,
    RATIO, IS_CALLED, UNMET, LAST_LIQUIDATION, LAST_STOP, IS_OVER, IS_RUINED, IS_DONE,
    LOT, MIN_NOTIONAL, FEE, TAKER, SLIP, IMPACT_RATE, PARTICIPATION,
    LIQUIDATION_FEE, LIQUIDATION_SLIPPAGE, STEP, FULL_BELOW, STOP_LOSS, SETTING,
    CLOSE_FEE, TOP_UP_TO, FIRST_UNIT, BOUND, RUIN_AT, PAID_IN,
    IS_CALL_OPEN, CALLED_AT, CALLS_MET, CALLS_FAILED, LIQUIDATED_CALLS, CALL_DAYS,
    PROFIT_SHARE, ORDER_FEE, LIQUIDATION_IMPACT,
    BEST, HIGHEST, HELD, TAKE_PROFITS, TAKE_PROFIT, TRAILING_STOP, EQUITY_STOP,
    CARRY, CARRY_BEFORE, DISUTILITY, SEEN_PEAK, SEEN_SINCE, SEEN_SINCE_STOP,
) = range(len(ROWS))  # fmt: skip


HOLD, TRADE, LIVE = 0.0, 1.0, 2.0
"""What a lane still has to do in a bar: nothing, a fill, or the whole bar again."""


class Kind(NamedTuple):
    has_own_rules: bool | None
    is_full: bool | None
    has_flows: bool | None


class Cursor(NamedTuple):
    event: int
    flow: int
    last_funding: float
    value: float
    signal: float
    free: float
    sample: int
    later: int


class LaneBar(NamedTuple):
    rules: Rules
    kind: Kind
    quote: Quote
    value: float
    signal: float


class Setup(NamedTuple):
    rules: Rules
    kind: Kind
    full: Rules
    whole: Kind
    plan: Plan
    feed: Feed
    clock: Clock
    seen: Seen
    log: Log


class BlockArrays(NamedTuple):
    """The arrays of a block.

    ``block`` of shape (rows * LANES,) is its state; ``brackets`` the margin brackets that policies
    read. ``shared``, ``distinct`` and ``places`` are those of
    :class:`backtest.sweep.policy_columns.BlockColumns`. ``own`` of shape (AT_ONCE, n_columns *
    LANES) is a buffer for the columns of single lanes, or ``distinct`` itself. ``returns`` of shape
    (n_samples, LANES) is for sampled returns, empty if they are not requested. ``flags`` holds the
    lane at fault, and whether the policy has not returned (it raised).
    """

    block: FloatArray
    brackets: FloatArray
    shared: FloatArray
    distinct: FloatArray
    places: IntArray
    own: FloatArray
    returns: FloatArray
    flags: IntArray


def cell(row: int, i: int) -> int:
    return as_index(row * LANES + i)


def own_or_shared(kind: Kind, block: FloatArray, row: int, i: int, shared: float) -> float:
    if kind.has_own_rules is None:
        return shared
    own: float = block[cell(row, i)]
    return own


def read_own_rules(rules: Rules, kind: Kind, block: FloatArray, i: int) -> Rules:
    account = rules.account
    return Rules(
        account=AccountRules(
            has_interest=account.has_interest,
            is_loan=account.is_loan,
            top_up_to=own_or_shared(kind, block, TOP_UP_TO, i, account.top_up_to),
            ruin_at=own_or_shared(kind, block, RUIN_AT, i, account.ruin_at),
        ),
        instrument=read_own_instrument(rules.instrument, kind, block, i),
    )


def read_own_instrument(
    rules: InstrumentRules, kind: Kind, block: FloatArray, i: int
) -> InstrumentRules:
    return InstrumentRules(
        is_inverse=rules.is_inverse,
        is_isolated=rules.is_isolated,
        has_stop=rules.has_stop,
        has_impact=rules.has_impact,
        has_rounding=rules.has_rounding,
        keeps_entry=rules.keeps_entry,
        marks_entry=rules.marks_entry,
        margin=read_own_margin(rules.margin, kind, block, i),
        lot=own_or_shared(kind, block, LOT, i, rules.lot),
        min_notional=own_or_shared(kind, block, MIN_NOTIONAL, i, rules.min_notional),
        fee=own_or_shared(kind, block, FEE, i, rules.fee),
        taker=own_or_shared(kind, block, TAKER, i, rules.taker),
        slippage=own_or_shared(kind, block, SLIP, i, rules.slippage),
        impact=own_or_shared(kind, block, IMPACT_RATE, i, rules.impact),
        participation=own_or_shared(kind, block, PARTICIPATION, i, rules.participation),
        liquidation_mode=rules.liquidation_mode,
        liquidation_fee=own_or_shared(kind, block, LIQUIDATION_FEE, i, rules.liquidation_fee),
        liquidation_slippage=own_or_shared(
            kind, block, LIQUIDATION_SLIPPAGE, i, rules.liquidation_slippage
        ),
        step=own_or_shared(kind, block, STEP, i, rules.step),
        full_below=own_or_shared(kind, block, FULL_BELOW, i, rules.full_below),
        is_funded_by_wallet=rules.is_funded_by_wallet,
        min_leverage=block[cell(MIN_LEVERAGE, i)],
        max_leverage=block[cell(MAX_LEVERAGE, i)],
        band=block[cell(BAND, i)],
        stop_loss=own_or_shared(kind, block, STOP_LOSS, i, rules.stop_loss),
        has_limits=rules.has_limits,
        rounds_price=rules.rounds_price,
        tick=rules.tick,
        has_auto_margin=rules.has_auto_margin,
        has_profit_share=rules.has_profit_share,
        has_order_fee=rules.has_order_fee,
        has_liquidation_impact=rules.has_liquidation_impact,
        profit_share=own_or_shared(kind, block, PROFIT_SHARE, i, rules.profit_share),
        order_fee=own_or_shared(kind, block, ORDER_FEE, i, rules.order_fee),
        liquidation_impact=own_or_shared(
            kind, block, LIQUIDATION_IMPACT, i, rules.liquidation_impact
        ),
        fills_late=rules.fills_late,
        fills_early=rules.fills_early,
        has_exits=rules.has_exits,
        take_profit=own_or_shared(kind, block, TAKE_PROFIT, i, rules.take_profit),
        trailing_stop=own_or_shared(kind, block, TRAILING_STOP, i, rules.trailing_stop),
        equity_stop=own_or_shared(kind, block, EQUITY_STOP, i, rules.equity_stop),
        is_stop_distance=rules.is_stop_distance,
        is_profit_distance=rules.is_profit_distance,
        is_trail_distance=rules.is_trail_distance,
        full_below_health=rules.full_below_health,
    )


def read_own_margin(margin: MarginRules, kind: Kind, block: FloatArray, i: int) -> MarginRules:
    return MarginRules(
        floors=margin.floors,
        caps=margin.caps,
        rates=margin.rates,
        amounts=margin.amounts,
        leverages=margin.leverages,
        close_fee=own_or_shared(kind, block, CLOSE_FEE, i, margin.close_fee),
        taker=own_or_shared(kind, block, TAKER, i, margin.taker),
        size=margin.size,
        setting=own_or_shared(kind, block, SETTING, i, margin.setting),
        is_inverse=margin.is_inverse,
        is_isolated=margin.is_isolated,
        is_valued_at_entry=margin.is_valued_at_entry,
        multiplier=margin.multiplier,
        initial_multiplier=margin.initial_multiplier,
    )


def read_balances(rules: InstrumentRules, block: FloatArray, value: float, i: int) -> Balances:
    entry, margin = 0.0, 0.0
    if rules.keeps_entry is not None:
        entry = block[cell(ENTRY, i)]
    if rules.is_isolated is not None:
        margin = block[cell(MARGIN, i)]
    return make_balances(
        block[cell(CASH, i)], Position(block[cell(QUANTITY, i)], entry, margin, value)
    )


def read_watch(rules: InstrumentRules, block: FloatArray, i: int) -> Watch:
    best, highest = 0.0, 0.0
    if rules.has_exits is not None:
        best, highest = block[cell(BEST, i)], block[cell(HIGHEST, i)]
    return Watch(best, highest)


def write_watch(rules: InstrumentRules, block: FloatArray, i: int, watch: Watch) -> None:
    if rules.has_exits is not None:
        block[cell(BEST, i)] = watch.best
        block[cell(HIGHEST, i)] = watch.highest


def write_balances(rules: InstrumentRules, block: FloatArray, i: int, balances: Balances) -> None:
    position = balances.positions[0]
    block[cell(CASH, i)] = balances.cash
    block[cell(QUANTITY, i)] = position.quantity
    if rules.keeps_entry is not None:
        block[cell(ENTRY, i)] = position.entry
    if rules.is_isolated is not None:
        block[cell(MARGIN, i)] = position.margin


def no_lanes() -> int:
    return 0


def all_lanes() -> int:
    return (1 << LANES) - 1


def lane_bit(i: int, is_on: bool) -> int:
    return is_on << i


def has_run(found: int, first: int) -> bool:
    return (found >> first) & ((1 << RUN) - 1) != 0


def compute_unit(kind: Kind, block: FloatArray, i: int, equity: float) -> float:
    if kind.has_flows is None:
        return equity
    kept: float = block[cell(UNIT, i)]
    grown: float = block[cell(SCALE, i)] * (equity + block[cell(RESERVE, i)])
    return kept if block[cell(LATER, i)] != 0.0 or block[cell(IS_RUINED, i)] != 0.0 else grown


def read_exposure(block: FloatArray, i: int) -> Exposure:
    return Exposure(
        near=0,
        over_cap=0,
        leverage=0.0,
        peak_leverage=block[cell(PEAK_LEVERAGE, i)],
        peak_needed=block[cell(PEAK_NEEDED, i)],
        peak_backing=block[cell(PEAK_BACKING, i)],
    )


def copy_own_columns(arrays: BlockArrays, t: int) -> None:
    n_bars = min(AT_ONCE, len(arrays.distinct) - t)
    for k in range(n_bars):
        for j in range(len(arrays.places)):
            value = arrays.distinct[as_index(t + k), as_index(arrays.places[as_index(j), 1])]
            write_run(arrays.own, k, arrays.places[as_index(j), 0], value)


def write_run(matrix: FloatArray, k: int, first: int, value: float) -> None:
    matrix[k, first : first + RUN] = value
