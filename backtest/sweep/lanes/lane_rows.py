"""The rows of a block of accounts side by side (lanes), and how one lane is read from them.

The state of a block is one array with ``LANES`` numbers for each of the rows below, so that the
compiler sees that rows do not overlap.
"""

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
"""The rows of a block; after them come the policy's parameters and its memory.

Booleans are 0 and 1; -1 is a bar that has not come. ``later`` says that the lane must pass the
next bar in full, ``step_left`` what the lane still has to do in the bar, ``is_done`` that the
policy is not called any more. The rules come late; band and leverages are always those of the lane.
``line`` is the equity of :func:`backtest.account.ruin.find_line`. ``bound``, in the cell of the
first lane, is an upper bound of all notionals at the last close, for quick checks with one rate.
``best`` and ``highest`` are what stops compare with. ``held`` is the quantity at the last close,
only where decisions fill at closes. ``seen_peak``, ``seen_since`` and ``seen_since_stop`` are what
policies see that do not decide at each close.
"""

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
    """Parts of the loop that a block needs, True or None as in :class:`InstrumentRules`.

    ``has_own_rules``: rules other than band, leverages and ruin differ between lanes.
    ``is_full``: all measures are counted, not only those of the core. ``has_flows``: the unit value
    is not the equity, as there are flows, a reserve, or earnings after ruin.
    """

    has_own_rules: bool | None
    is_full: bool | None
    has_flows: bool | None


class Cursor(NamedTuple):
    """Position of a block in the market: the next event and flow, and the past of all lanes.

    ``value`` is the u at which positions were last marked, ``free`` the risk-free return of the
    sample in progress, ``sample`` the number of samples taken, ``later`` how many lanes must pass
    the next bar in full.
    """

    event: int
    flow: int
    last_funding: float
    value: float
    signal: float
    free: float
    sample: int
    later: int


class LaneBar(NamedTuple):
    """Values of one bar that all lanes share.

    ``value`` is the u at which positions were last marked, ``signal`` that of the last close.
    """

    rules: Rules
    kind: Kind
    quote: Quote
    value: float
    signal: float


class Setup(NamedTuple):
    """Rules and data that all accounts of a block share.

    ``full`` and ``whole`` are the rules and the kind with nothing left out, for bars that are not
    ordinary.
    """

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
    """Return the index of a lane's number in a row."""
    return as_index(row * LANES + i)


def own_or_shared(kind: Kind, block: FloatArray, row: int, i: int, shared: float) -> float:
    """Return the value of a rule for one lane: its own if lanes differ, else the shared one."""
    if kind.has_own_rules is None:
        return shared
    own: float = block[cell(row, i)]
    return own


def read_own_rules(rules: Rules, kind: Kind, block: FloatArray, i: int) -> Rules:
    """Return the rules of one lane."""
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
    """Return the instrument rules of one lane; band and leverages are always its own."""
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
    """Return the margin rules of one lane: all lanes share the brackets."""
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
    """Return the balances of one lane, with the position last marked at u ``value``."""
    entry, margin = 0.0, 0.0
    if rules.keeps_entry is not None:
        entry = block[cell(ENTRY, i)]
    if rules.is_isolated is not None:
        margin = block[cell(MARGIN, i)]
    return make_balances(
        block[cell(CASH, i)], Position(block[cell(QUANTITY, i)], entry, margin, value)
    )


def read_watch(rules: InstrumentRules, block: FloatArray, i: int) -> Watch:
    """Return what the stops of one lane compare with; nothing if there are none to watch."""
    best, highest = 0.0, 0.0
    if rules.has_exits is not None:
        best, highest = block[cell(BEST, i)], block[cell(HIGHEST, i)]
    return Watch(best, highest)


def write_watch(rules: InstrumentRules, block: FloatArray, i: int, watch: Watch) -> None:
    """Write what the stops of one lane compare with."""
    if rules.has_exits is not None:
        block[cell(BEST, i)] = watch.best
        block[cell(HIGHEST, i)] = watch.highest


def write_balances(rules: InstrumentRules, block: FloatArray, i: int, balances: Balances) -> None:
    """Write the balances of one lane, in the rows that the kind of account needs."""
    position = balances.positions[0]
    block[cell(CASH, i)] = balances.cash
    block[cell(QUANTITY, i)] = position.quantity
    if rules.keeps_entry is not None:
        block[cell(ENTRY, i)] = position.entry
    if rules.is_isolated is not None:
        block[cell(MARGIN, i)] = position.margin


def no_lanes() -> int:
    """Return no lanes, as bits."""
    return 0


def all_lanes() -> int:
    """Return all lanes, as bits."""
    return (1 << LANES) - 1


def lane_bit(i: int, is_on: bool) -> int:
    """Return the bit of a lane where it is on."""
    return is_on << i


def has_run(found: int, first: int) -> bool:
    """Return whether any of the lanes of a run is among those found."""
    return (found >> first) & ((1 << RUN) - 1) != 0


def compute_unit(kind: Kind, block: FloatArray, i: int, equity: float) -> float:
    """Return the unit value of one lane: wealth without flows; a ruined account keeps its last."""
    if kind.has_flows is None:
        return equity
    kept: float = block[cell(UNIT, i)]
    grown: float = block[cell(SCALE, i)] * (equity + block[cell(RESERVE, i)])
    return kept if block[cell(LATER, i)] != 0.0 or block[cell(IS_RUINED, i)] != 0.0 else grown


def read_exposure(block: FloatArray, i: int) -> Exposure:
    """Return the exposure of one lane so far."""
    return Exposure(
        near=0,
        over_cap=0,
        leverage=0.0,
        peak_leverage=block[cell(PEAK_LEVERAGE, i)],
        peak_needed=block[cell(PEAK_NEEDED, i)],
        peak_backing=block[cell(PEAK_BACKING, i)],
    )


def copy_own_columns(arrays: BlockArrays, t: int) -> None:
    """Copy the columns in which lanes differ, for the bars from t on, to the lanes' buffer."""
    n_bars = min(AT_ONCE, len(arrays.distinct) - t)
    for k in range(n_bars):
        for j in range(len(arrays.places)):
            value = arrays.distinct[as_index(t + k), as_index(arrays.places[as_index(j), 1])]
            write_run(arrays.own, k, arrays.places[as_index(j), 0], value)


def write_run(matrix: FloatArray, k: int, first: int, value: float) -> None:
    """Write a number into a run of cells of row k; compiled, the run may extend to the next row."""
    matrix[k, first : first + RUN] = value
