"""What a block of accounts side by side is made of: its rows, and one lane's part of them.

The state of a block is one array, ``LANES`` numbers for each row named below, so that the compiler
sees that rows do not overlap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backtest.account.bar import Feed, Plan, place
from backtest.account.ledger import Log
from backtest.account.steps import Books, Rules
from backtest.engine.bar_loop import Seen
from backtest.measures.tally import Clock, Exposure
from backtest.venue.margin import MarginRules

if TYPE_CHECKING:
    from backtest.base.units import FloatArray, IntArray

LANES = 64
"""Accounts in a block; a multiple of every vector length."""

RUN = 8
"""Lanes that are written at once where they have the same column: a vector."""

AT_ONCE = 32
"""Bars for which lanes' own columns are handed out at a time: they stay in the nearest cache."""

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
)  # fmt: skip
"""The rows of a block; after them come the policy's parameters and its memory.

Booleans are 0 and 1, bars that never came -1. ``later`` says that the next bar is no ordinary one,
``step_left`` what the lane has still to do; ``is_done`` that the policy is not asked any more. The
rules stand last; band and leverages are always those of the lane. ``line`` is the equity of
:func:`backtest.account.ruin.find_line`. ``bound``, in the first lane's
cell, is what no lane's notional was over at the last close, so that one bracket's rate does for a
quick look at all.
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
) = range(len(ROWS))  # fmt: skip


HOLD, TRADE, LIVE = 0.0, 1.0, 2.0
"""What a lane has still to do in a bar: nothing, the fill it asks for, or all of it anew."""


class Kind(NamedTuple):
    """What a block needs, True or None as in :class:`backtest.account.steps.Rules`.

    ``has_own_rules``: rules other than band, leverages and ruin differ between lanes;
    ``is_full``: all measures are counted, not only the core's; ``has_flows``: money comes from
    outside, waits in a reserve, or may be earned after ruin: the unit value is not the equity.
    """

    has_own_rules: bool | None
    is_full: bool | None
    has_flows: bool | None


class Place(NamedTuple):
    """Where a block stands: the next event and flow, and what all lanes share of the past.

    ``value`` is the u at which positions were last marked, ``free`` the risk-free return of the
    sample in progress, ``sample`` the number of samples taken, ``later`` how many lanes cannot live
    the next bar as an ordinary one.
    """

    event: int
    flow: int
    last_funding: float
    value: float
    signal: float
    free: float
    sample: int
    later: int


class Setup(NamedTuple):
    """What a block's accounts have in common.

    ``full`` and ``whole`` are the rules and the kind with nothing left out, for what is no
    ordinary bar.
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


class Sheets(NamedTuple):
    """The arrays of a block.

    ``block`` of shape (rows * LANES,) is its state; ``brackets`` the margin brackets for policies
    that ask for them; ``shared`` of shape (n_columns, n_bars) the columns all lanes share,
    ``distinct`` of shape (n_bars, n) those in which they differ, and ``places`` of shape (n_places,
    2) which of them go where, as :class:`backtest.sweep.policy_columns.BlockColumns` has them, or none where
    they come lane by lane; ``own`` of shape (AT_ONCE, n_columns * LANES) is written with what lanes
    have of their own of the bars at hand, or is ``distinct`` itself; ``returns`` of shape
    (n_samples, LANES) with sampled returns as far as it reaches; ``flags`` with the lane at fault,
    and with whether the policy is still deciding (it raised).
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
    return place(row * LANES + i)


def read_own_rules(rules: Rules, kind: Kind, block: FloatArray, i: int) -> Rules:
    """Return the rules of one lane."""
    if kind.has_own_rules is None:
        return Rules(
            rules.is_inverse,
            rules.is_isolated,
            rules.has_stop,
            rules.has_impact,
            rules.has_interest,
            rules.has_rounding,
            rules.keeps_entry,
            rules.marks_entry,
            rules.margin,
            rules.lot,
            rules.min_notional,
            rules.fee,
            rules.taker,
            rules.slippage,
            rules.impact,
            rules.participation,
            rules.liquidation_mode,
            rules.liquidation_fee,
            rules.liquidation_slippage,
            rules.step,
            rules.full_below,
            rules.is_funded_by_wallet,
            rules.is_loan,
            block[cell(MIN_LEVERAGE, i)],
            block[cell(MAX_LEVERAGE, i)],
            block[cell(BAND, i)],
            rules.stop_loss,
            rules.top_up_to,
            rules.ruin_at,
        )
    return Rules(
        rules.is_inverse,
        rules.is_isolated,
        rules.has_stop,
        rules.has_impact,
        rules.has_interest,
        rules.has_rounding,
        rules.keeps_entry,
        rules.marks_entry,
        read_own_margin(rules.margin, block, i),
        block[cell(LOT, i)],
        block[cell(MIN_NOTIONAL, i)],
        block[cell(FEE, i)],
        block[cell(TAKER, i)],
        block[cell(SLIP, i)],
        block[cell(IMPACT_RATE, i)],
        block[cell(PARTICIPATION, i)],
        rules.liquidation_mode,
        block[cell(LIQUIDATION_FEE, i)],
        block[cell(LIQUIDATION_SLIPPAGE, i)],
        block[cell(STEP, i)],
        block[cell(FULL_BELOW, i)],
        rules.is_funded_by_wallet,
        rules.is_loan,
        block[cell(MIN_LEVERAGE, i)],
        block[cell(MAX_LEVERAGE, i)],
        block[cell(BAND, i)],
        block[cell(STOP_LOSS, i)],
        block[cell(TOP_UP_TO, i)],
        block[cell(RUIN_AT, i)],
    )


def read_own_margin(margin: MarginRules, block: FloatArray, i: int) -> MarginRules:
    """Return the margin rules of one lane: the brackets are everyone's."""
    return MarginRules(
        margin.floors,
        margin.caps,
        margin.rates,
        margin.amounts,
        margin.leverages,
        block[cell(CLOSE_FEE, i)],
        block[cell(TAKER, i)],
        margin.size,
        block[cell(SETTING, i)],
        margin.is_inverse,
        margin.is_isolated,
        margin.is_valued_at_entry,
        margin.multiplier,
    )


def read_books(rules: Rules, block: FloatArray, value: float, i: int) -> Books:
    """Return what one lane owns, the position last marked at u ``value``."""
    entry, margin = 0.0, 0.0
    if rules.keeps_entry is not None:
        entry = block[cell(ENTRY, i)]
    if rules.is_isolated is not None:
        margin = block[cell(MARGIN, i)]
    return Books(block[cell(CASH, i)], block[cell(QUANTITY, i)], entry, margin, value)


def no_lanes() -> int:
    """Return no lanes, as bits."""
    return 0


def lane_bit(i: int, is_on: bool) -> int:
    """Return the bit of a lane where it is on."""
    return is_on << i


def first_lane(found: int) -> int:
    """Return the first of some lanes."""
    return (found & -found).bit_length() - 1


def without_first(found: int) -> int:
    """Return the lanes after the first of them."""
    return found & (found - 1)


def count_lanes(found: int) -> int:
    """Return how many lanes there are."""
    return found.bit_count()


def keep_books(rules: Rules, block: FloatArray, i: int, books: Books) -> None:
    """Write what one lane owns, in the rows that the kind of account needs."""
    block[cell(CASH, i)] = books.cash
    block[cell(QUANTITY, i)] = books.quantity
    if rules.keeps_entry is not None:
        block[cell(ENTRY, i)] = books.entry
    if rules.is_isolated is not None:
        block[cell(MARGIN, i)] = books.margin


def compute_unit(kind: Kind, block: FloatArray, i: int, equity: float) -> float:
    """Return the unit value of one lane: its wealth, flows aside; a dead account keeps its last."""
    if kind.has_flows is None:
        return equity
    kept: float = block[cell(UNIT, i)]
    grown: float = block[cell(SCALE, i)] * (equity + block[cell(RESERVE, i)])
    return kept if block[cell(LATER, i)] != 0.0 or block[cell(IS_RUINED, i)] != 0.0 else grown


def read_exposure(block: FloatArray, i: int) -> Exposure:
    """Return the exposure of one lane so far."""
    return Exposure(
        0,
        0.0,
        block[cell(PEAK_LEVERAGE, i)],
        block[cell(PEAK_NEEDED, i)],
        block[cell(PEAK_BACKING, i)],
    )


def hand_out(sheets: Sheets, t: int) -> None:
    """Write what lanes have of their own of the bars from t on."""
    n_bars = min(AT_ONCE, len(sheets.distinct) - t)
    for k in range(n_bars):
        for j in range(len(sheets.places)):
            value = sheets.distinct[place(t + k), place(sheets.places[place(j), 1])]
            write_run(sheets.own, k, sheets.places[place(j), 0], value)


def write_run(sheet: FloatArray, k: int, first: int, value: float) -> None:
    """Write a number into a run of cells of row k; compiled it may go on in the next row."""
    sheet[k, first : first + RUN] = value
