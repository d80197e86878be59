"""The rows of a block of accounts, and how one lane is taken out and put back.

A block holds 64 accounts (lanes) side by side: ``account[cell(ROW, lane)]`` is a number of the
account, ``position[spot(i, ROW, lane)]`` one of its position in instrument i,
``numbers[term(i, ROW, lane)]`` one of the instrument's terms (:data:`NUMBERS`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.account import AccountState, Ledger, Terms
from backtest.account.records import NUMBERS, PEAK, SINCE_POOL
from backtest.measures import Decay, Drawdown, Exposure, Sample, Tally

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray

LANES = 64
"""Accounts in a block; a multiple of every vector length."""
CACHE_LINE = 64
"""Bytes of a cache line."""
SLACK = 1.0 + 1e-9
"""Factor that allows for rounding, and for the tolerance of a requirement."""

WALLET_ROWS = 16
"""The first rows of an account are its wallet (:mod:`backtest.account.records`).

In row ``SINCE_POOL`` stands the bar of the pool's last liquidation.
"""
MONEY = WALLET_ROWS + 15
NEAR = MONEY + len(Ledger._fields)
STATE_ROWS = NEAR + 16
N_ACCOUNT = STATE_ROWS + 19
(
    LINE, IS_LIVE, RARE_BARS, FIRST_UNIT, LOW, LOW_PEAK, KEEP,
    SAMPLE_UNIT, SAMPLES, MEAN, SQUARES, EXCESS_MEAN, EXCESS_SQUARES, DOWNSIDE, DISUTILITY,
) = range(WALLET_ROWS, MONEY)  # fmt: skip
(
    OVER_CAP, LEVERAGE, PEAK_LEVERAGE, PEAK_NEEDED, PEAK_BACKING, DECAY_HELD, DECAY_LOG,
    DECAY_PRODUCT, CARRY, EQUITY_SUM, FIRST_LIQUIDATION, RUIN, INVERSE, FIRST_AMBIGUOUS, FIRST_BOTH,
) = range(NEAR + 1, STATE_ROWS)  # fmt: skip
(
    CASH_BEFORE, WORTH, POOL, LOST, LOST_OF_ALL, COSTS, INITIAL, TAKEN, BALANCE, WANTED,
    FUNDED, CHARGED, PAID, GROSS, NEEDED, MOVED, DRIFT, GROWN, LENT,
) = range(STATE_ROWS, N_ACCOUNT)  # fmt: skip
(
    OF_PRICE_PNL, OF_FEES, OF_SLIPPAGE, OF_IMPACT, OF_FUNDING, OF_INTEREST,
) = range(MONEY, MONEY + 6)  # fmt: skip
OF_TRADED = MONEY + Ledger._fields.index("traded")

TALLY_ROWS = {
    "first_unit": FIRST_UNIT, "low": LOW, "low_peak": LOW_PEAK, "peak": PEAK, "samples": SAMPLES,
    "mean": MEAN, "squares": SQUARES, "excess_mean": EXCESS_MEAN, "excess_squares": EXCESS_SQUARES,
    "downside": DOWNSIDE, "disutility": DISUTILITY, "near": NEAR, "over_cap": OVER_CAP,
    "leverage": LEVERAGE, "peak_leverage": PEAK_LEVERAGE, "peak_needed": PEAK_NEEDED,
    "peak_backing": PEAK_BACKING, "decay_held": DECAY_HELD, "decay_log": DECAY_LOG,
    "decay_product": DECAY_PRODUCT, "carry": CARRY, "equity": EQUITY_SUM,
    "first_liquidation": FIRST_LIQUIDATION, "ruin": RUIN,
    "first_ambiguous": FIRST_AMBIGUOUS, "first_both": FIRST_BOTH,
} | {name: MONEY + k for k, name in enumerate(Ledger._fields)}  # fmt: skip
"""Where the numbers of a tally are, by the names that measures read."""

N_POSITION = 13
HELD_ROWS = 8
(
    QUANTITY, ENTRY, MARGIN, TARGET, BEST, LAST_STOP, LAST_HIT, IS_HALTED, MARGIN_BEFORE, WANT,
    FAILURE, STOP_LOW, STOP_HIGH,
) = range(N_POSITION)  # fmt: skip
N_NUMBERS = len(NUMBERS)

N_PRICES = 32
(
    OPEN, BEFORE, CLOSE, AT_OPEN, WIDEST, FAR, REACH, TOP, RATE, LEAST_RATE, INITIAL_RATE, LIMIT,
    MOVE, IS_LISTED, INITIAL_X, MARK_OPEN, LAST_LOW, LAST_HIGH, VOLUME, SIGMA, ADV,
    STOP_SCALE, PROFIT_SCALE, TRAIL_SCALE, FALL, RISE, NEAR_LOW, NEAR_HIGH, DUE,
    SMALLEST, LEAST_VALUE, LEAST_QUANTITY,
) = range(N_PRICES)  # fmt: skip

LIVE, ENDED = 1.0, 2.0
"""What ``IS_LIVE`` says: an ended account stays, holds nothing and never trades again; 0: left."""

EVENT, FLOW, SAMPLE, IS_BOUND = range(4)
"""Entries of ``Lanes.cursor``: the next settlement, flow and sample; whether bounds hold."""

PLAIN, LOTS, LINEAR, INVERTED, ISOLATED, ISOLATED_INVERSE = range(6)


class Lanes(NamedTuple):
    """The arrays of a block.

    ``account`` of shape (N_ACCOUNT * LANES,), ``position`` of shape (n * N_POSITION * LANES,) and
    ``numbers`` of shape (n * N_NUMBERS * LANES,) are its state and terms; ``kept_*`` hold lanes
    that pass a bar alone, as they were before it. ``prices`` of shape (N_PRICES, n) are those of
    the bar, ``most`` of shape (n,) bounds the quantities of all lanes. ``signal`` and
    ``is_pending`` are what all lanes have decided, ``is_asking`` says which instruments trade in
    this bar, ``kinds`` how they fill. ``is_known[0]`` of shape (n,) are, as bits,
    the lanes whose row ``FAILURE`` holds (the u at which a position that stands alone is
    liquidated), ``is_known[1]`` whether the rows ``STOP_*`` do (the u between which no stop acts).
    ``left_*`` are the lanes that go on alone from bar ``left_at`` of shape (n_lanes,) on, -1 for
    none. ``units`` of shape (n_samples, LANES) are unit
    values at the ends of samples. ``free[0]`` is the risk-free return of the sample in progress,
    ``free[1:]`` that of lanes that go on alone.
    """

    account: FloatArray
    position: FloatArray
    numbers: FloatArray
    kept_account: FloatArray
    kept_position: FloatArray
    left_account: FloatArray
    left_position: FloatArray
    left_memory: FloatArray
    left_at: IntArray
    prices: FloatArray
    most: FloatArray
    signal: FloatArray
    is_pending: IntArray
    is_asking: IntArray
    kinds: IntArray
    is_known: IntArray
    is_full: bool
    has_isolated: bool
    has_exits: bool
    moves_stops: bool
    is_crossed: bool
    has_lots: bool
    has_rest: bool
    last_funding: FloatArray
    cursor: IntArray
    units: FloatArray
    free: FloatArray


class LanePolicies(NamedTuple):
    """The policies of a block, one for each instrument, and what they see by lane.

    ``params`` and ``memory`` have a row of LANES numbers for each parameter and each number of a
    memory; those of instrument i begin at row ``*_at[i]``. ``columns`` of shape (n * LANES,) are
    the addresses of the columns, one after another, each ``lengths[i]`` long. ``seen`` is room for
    the numbers of one bar, a row for each of the ``n_columns``; without ``has_own_columns`` all
    lanes have those of the first. ``shown`` has a row for each field of the account that policies
    see, written if ``wants_account``, and ``wants_margins`` if any sees the margin of its position.
    ``firsts`` and ``tradable`` are those of a
    :class:`backtest.engine.loop.Deciders`, as are ``interval`` and ``start``.
    """

    addresses: IntArray
    params: FloatArray
    params_at: IntArray
    memory: FloatArray
    memory_at: IntArray
    columns: IntArray
    n_columns: IntArray
    has_own_columns: bool
    lengths: IntArray
    firsts: IntArray
    tradable: IntArray
    seen: FloatArray
    bar: FloatArray
    shown: FloatArray
    wants_account: bool
    wants_margins: bool
    wants_bar: bool
    interval: int
    start: int


def cell(row: int, lane: int) -> int:
    return row * LANES + lane


def spot(i: int, row: int, lane: int) -> int:
    return cell(i * N_POSITION + row, lane)


def term(i: int, row: int, lane: int) -> int:
    return cell(i * N_NUMBERS + row, lane)


def lowest(bits: int) -> int:
    return (int(bits) & -int(bits)).bit_length() - 1


def make_aligned(n: int) -> FloatArray:
    per_line = CACHE_LINE // 8
    raw = np.zeros(n + per_line)
    first = -(raw.ctypes.data // 8) % per_line
    return raw[first : first + n]


# ------------------------------------------------------------------------- lanes that pass alone


def keep_rare(lanes: Lanes, rare: int, n: int, is_paying: bool) -> None:
    account, position = lanes.account, lanes.position
    while rare != 0:
        lane = lowest(rare)
        rare &= rare - 1
        for row in range(STATE_ROWS):
            lanes.kept_account[cell(row, lane)] = account[cell(row, lane)]
        if is_paying:
            lanes.kept_account[cell(0, lane)] = account[cell(CASH_BEFORE, lane)]
        for i in range(n):
            for row in range(HELD_ROWS):
                lanes.kept_position[spot(i, row, lane)] = position[spot(i, row, lane)]
            if is_paying and lanes.has_isolated:
                before = position[spot(i, MARGIN_BEFORE, lane)]
                lanes.kept_position[spot(i, MARGIN, lane)] = before
            position[spot(i, WANT, lane)] = position[spot(i, QUANTITY, lane)]


def take_out(lanes: Lanes, terms: Terms, state: AccountState, t: int, lane: int) -> None:
    account, position = lanes.kept_account, lanes.kept_position
    for row in range(WALLET_ROWS):
        state.wallet[row] = account[cell(row, lane)]
    state.wallet[SINCE_POOL] = t - 1.0 - account[cell(SINCE_POOL, lane)]
    for i in range(len(state.margin)):
        quantity = position[spot(i, QUANTITY, lane)]
        state.held.quantities[i] = quantity
        state.held.entries[i] = position[spot(i, ENTRY, lane)]
        state.marked[i] = lanes.prices[BEFORE, i] if quantity != 0.0 else 0.0
        state.margin[i] = position[spot(i, MARGIN, lane)]
        state.best[i] = position[spot(i, BEST, lane)]
        state.leverage[i] = position[spot(i, TARGET, lane)]
        state.signal[i], state.is_pending[i] = lanes.signal[i], lanes.is_pending[i]
        state.is_halted[i] = int(position[spot(i, IS_HALTED, lane)])
        state.factor[i] = 1.0
        state.last_funding[i] = lanes.last_funding[i]
        state.since[i] = state.wallet[SINCE_POOL]
        if terms.rules.brackets.are_isolated[i]:
            state.since[i] = t - 1.0 - position[spot(i, LAST_HIT, lane)]
        state.since_stop[i] = t - 1.0 - position[spot(i, LAST_STOP, lane)]
        for row in range(N_NUMBERS):
            terms.numbers[row, i] = lanes.numbers[term(i, row, lane)]
    state.cursor[0], state.cursor[1] = lanes.cursor[EVENT], lanes.cursor[FLOW]


def put_back(
    lanes: Lanes, state: AccountState, tally: Tally, line: float, t: int, lane: int
) -> None:
    account, position = lanes.account, lanes.position
    for row in range(WALLET_ROWS):
        account[cell(row, lane)] = state.wallet[row]
    account[cell(SINCE_POOL, lane)] = t - state.wallet[SINCE_POOL]
    account[cell(LINE, lane)] = line
    account[cell(RARE_BARS, lane)] = lanes.kept_account[cell(RARE_BARS, lane)] + 1.0
    write_tally(account, tally, lane)
    for i in range(len(state.margin)):
        size = abs(state.held.quantities[i])
        position[spot(i, QUANTITY, lane)] = state.held.quantities[i]
        position[spot(i, ENTRY, lane)] = state.held.entries[i]
        position[spot(i, MARGIN, lane)] = state.margin[i]
        position[spot(i, BEST, lane)] = state.best[i]
        position[spot(i, LAST_STOP, lane)] = t - state.since_stop[i]
        position[spot(i, LAST_HIT, lane)] = t - state.since[i]
        position[spot(i, IS_HALTED, lane)] = state.is_halted[i]
        lanes.is_known[0, i] &= ~(1 << lane)
        lanes.is_known[1, i] = 0
        if size > lanes.most[i]:
            lanes.most[i] = size
            lanes.cursor[IS_BOUND] = 0


def leave(lanes: Lanes, memory: FloatArray, n: int, t: int, lane: int) -> None:
    """Let a lane go on alone from bar t on; what stays in its place holds nothing."""
    account, position = lanes.account, lanes.position
    lanes.left_at[lane] = t
    lanes.free[1 + lane] = lanes.free[0]
    for row in range(len(memory) // LANES):
        lanes.left_memory[cell(row, lane)] = memory[cell(row, lane)]
    for row in range(STATE_ROWS):
        lanes.left_account[cell(row, lane)] = account[cell(row, lane)]
    for i in range(n):
        for row in range(HELD_ROWS):
            lanes.left_position[spot(i, row, lane)] = position[spot(i, row, lane)]
    empty(lanes, n, lane)


def empty(lanes: Lanes, n: int, lane: int) -> None:
    account, position = lanes.account, lanes.position
    for row in range(STATE_ROWS):
        account[cell(row, lane)] = 0.0
    for row in (0, 2, 3, 4, 5):  # cash, equity, unit, peak, scale
        account[cell(row, lane)] = 1.0
    account[cell(LINE, lane)], account[cell(DECAY_PRODUCT, lane)] = -1.0, 1.0
    account[cell(LOW, lane)], account[cell(LOW_PEAK, lane)] = 1.0, 1.0
    account[cell(SAMPLE_UNIT, lane)], account[cell(INVERSE, lane)] = 1.0, 1.0
    account[cell(PEAK_BACKING, lane)] = 1.0
    for i in range(n):
        for row in range(N_POSITION):
            position[spot(i, row, lane)] = 0.0


# ----------------------------------------------------------------------------------- the tally


def read_tally(account: FloatArray, free: float, bars: int, lane: int) -> Tally:
    return Tally(
        first_unit=account[cell(FIRST_UNIT, lane)],
        drawdown=Drawdown(
            peak=account[cell(PEAK, lane)],
            low=account[cell(LOW, lane)],
            low_peak=account[cell(LOW_PEAK, lane)],
            peak_bar=0,
            drawdown_peak=0,
            drawdown_trough=0,
            recovered=0,
        ),
        sample=read_sample(account, free, lane),
        money=read_money(account, lane),
        exposure=Exposure(
            near=int(account[cell(NEAR, lane)]),
            over_cap=int(account[cell(OVER_CAP, lane)]),
            leverage=account[cell(LEVERAGE, lane)],
            peak_leverage=account[cell(PEAK_LEVERAGE, lane)],
            peak_needed=account[cell(PEAK_NEEDED, lane)],
            peak_backing=account[cell(PEAK_BACKING, lane)],
        ),
        decay=Decay(
            decay_held=account[cell(DECAY_HELD, lane)],
            decay_log=account[cell(DECAY_LOG, lane)],
            decay_product=account[cell(DECAY_PRODUCT, lane)],
            carry=account[cell(CARRY, lane)],
        ),
        bars=bars,
        equity=account[cell(EQUITY_SUM, lane)],
        first_liquidation=int(account[cell(FIRST_LIQUIDATION, lane)]),
        ruin=int(account[cell(RUIN, lane)]),
        inverse=account[cell(INVERSE, lane)],
        first_ambiguous=int(account[cell(FIRST_AMBIGUOUS, lane)]),
        first_both=int(account[cell(FIRST_BOTH, lane)]),
    )


def read_sample(account: FloatArray, free: float, lane: int) -> Sample:
    return Sample(
        sample_unit=account[cell(SAMPLE_UNIT, lane)],
        sample_free=free,
        samples=int(account[cell(SAMPLES, lane)]),
        mean=account[cell(MEAN, lane)],
        squares=account[cell(SQUARES, lane)],
        excess_mean=account[cell(EXCESS_MEAN, lane)],
        excess_squares=account[cell(EXCESS_SQUARES, lane)],
        downside=account[cell(DOWNSIDE, lane)],
        disutility=account[cell(DISUTILITY, lane)],
    )


def read_money(account: FloatArray, lane: int) -> Ledger:
    return Ledger(
        price_pnl=account[cell(MONEY, lane)],
        fees=account[cell(MONEY + 1, lane)],
        slippage=account[cell(MONEY + 2, lane)],
        impact=account[cell(MONEY + 3, lane)],
        funding=account[cell(MONEY + 4, lane)],
        interest=account[cell(MONEY + 5, lane)],
        liquidation_loss=account[cell(MONEY + 6, lane)],
        flows=account[cell(MONEY + 7, lane)],
        bad_debt=account[cell(MONEY + 8, lane)],
        top_up=account[cell(MONEY + 9, lane)],
        traded=account[cell(MONEY + 10, lane)],
        liquidations=int(account[cell(MONEY + 11, lane)]),
        stops=int(account[cell(MONEY + 12, lane)]),
        calls=int(account[cell(MONEY + 13, lane)]),
        calls_met=int(account[cell(MONEY + 14, lane)]),
        calls_failed=int(account[cell(MONEY + 15, lane)]),
        liquidated_calls=int(account[cell(MONEY + 16, lane)]),
        call_days=account[cell(MONEY + 17, lane)],
        take_profits=int(account[cell(MONEY + 18, lane)]),
        ambiguous_bars=int(account[cell(MONEY + 19, lane)]),
        both_reached=int(account[cell(MONEY + 20, lane)]),
    )


def write_tally(account: FloatArray, tally: Tally, lane: int) -> None:
    low, low_peak = tally.drawdown.low, tally.drawdown.low_peak
    account[cell(LOW, lane)], account[cell(LOW_PEAK, lane)] = low, low_peak
    account[cell(KEEP, lane)] = low / low_peak if low_peak > 0.0 else 0.0
    write_sample(account, tally.sample, lane)
    write_money(account, tally.money, lane)
    account[cell(NEAR, lane)] = tally.exposure.near
    account[cell(OVER_CAP, lane)] = tally.exposure.over_cap
    account[cell(LEVERAGE, lane)] = tally.exposure.leverage
    account[cell(PEAK_LEVERAGE, lane)] = tally.exposure.peak_leverage
    account[cell(PEAK_NEEDED, lane)] = tally.exposure.peak_needed
    account[cell(PEAK_BACKING, lane)] = tally.exposure.peak_backing
    account[cell(DECAY_HELD, lane)] = tally.decay.decay_held
    account[cell(DECAY_LOG, lane)] = tally.decay.decay_log
    account[cell(DECAY_PRODUCT, lane)] = tally.decay.decay_product
    account[cell(CARRY, lane)] = tally.decay.carry
    account[cell(EQUITY_SUM, lane)] = tally.equity
    account[cell(FIRST_LIQUIDATION, lane)] = tally.first_liquidation
    account[cell(RUIN, lane)] = tally.ruin
    account[cell(INVERSE, lane)] = tally.inverse
    account[cell(FIRST_AMBIGUOUS, lane)] = tally.first_ambiguous
    account[cell(FIRST_BOTH, lane)] = tally.first_both


def write_sample(account: FloatArray, sample: Sample, lane: int) -> None:
    account[cell(SAMPLE_UNIT, lane)] = sample.sample_unit
    account[cell(SAMPLES, lane)] = sample.samples
    account[cell(MEAN, lane)] = sample.mean
    account[cell(SQUARES, lane)] = sample.squares
    account[cell(EXCESS_MEAN, lane)] = sample.excess_mean
    account[cell(EXCESS_SQUARES, lane)] = sample.excess_squares
    account[cell(DOWNSIDE, lane)] = sample.downside
    account[cell(DISUTILITY, lane)] = sample.disutility


def write_money(account: FloatArray, money: Ledger, lane: int) -> None:
    account[cell(MONEY, lane)] = money.price_pnl
    account[cell(MONEY + 1, lane)] = money.fees
    account[cell(MONEY + 2, lane)] = money.slippage
    account[cell(MONEY + 3, lane)] = money.impact
    account[cell(MONEY + 4, lane)] = money.funding
    account[cell(MONEY + 5, lane)] = money.interest
    account[cell(MONEY + 6, lane)] = money.liquidation_loss
    account[cell(MONEY + 7, lane)] = money.flows
    account[cell(MONEY + 8, lane)] = money.bad_debt
    account[cell(MONEY + 9, lane)] = money.top_up
    account[cell(MONEY + 10, lane)] = money.traded
    account[cell(MONEY + 11, lane)] = money.liquidations
    account[cell(MONEY + 12, lane)] = money.stops
    account[cell(MONEY + 13, lane)] = money.calls
    account[cell(MONEY + 14, lane)] = money.calls_met
    account[cell(MONEY + 15, lane)] = money.calls_failed
    account[cell(MONEY + 16, lane)] = money.liquidated_calls
    account[cell(MONEY + 17, lane)] = money.call_days
    account[cell(MONEY + 18, lane)] = money.take_profits
    account[cell(MONEY + 19, lane)] = money.ambiguous_bars
    account[cell(MONEY + 20, lane)] = money.both_reached
