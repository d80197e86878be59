"""The rows of a block of accounts, and how one lane is taken out and put back.

A block holds 64 accounts (lanes) side by side: ``account[cell(ROW, lane)]`` is a number of the
account, ``position[spot(i, ROW, lane)]`` one of its position in instrument i,
``numbers[term(i, ROW, lane)]`` one of the instrument's terms (:data:`NUMBERS`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest._compile.object_code import view_numbers
from backtest.account import AccountState, InstrumentRules, Terms, find_line
from backtest.account.money import PEAK, SINCE_POOL, WALLET
from backtest.account.records import NUMBERS, Quote
from backtest.core.kernels import inlined
from backtest.margin import MarginRules
from backtest.results import tally as y
from backtest.results.tally import N_TALLY

if TYPE_CHECKING:
    from backtest.core import FloatArray, IntArray

LANES = 64
"""Accounts in a block; a multiple of every vector length."""
GROUP = 32
"""Lanes that are planned together where one of them wants to trade; a block has 2 such groups."""
GROUPS = LANES // GROUP
ALL_GROUPS = (1 << GROUPS) - 1
CACHE_LINE = 64
"""Bytes of a cache line."""
SLACK = 1.0 + 1e-9
"""Factor that allows for rounding, and for the tolerance of a requirement."""

WALLET_ROWS = len(WALLET)
"""The first rows of an account are its wallet (:mod:`backtest.account.records`).

In row ``SINCE_POOL`` stands the bar of the pool's last liquidation. The turnover is the tally's.
"""
LINE, IS_LIVE, KEEP, LEAST, TALLY = range(WALLET_ROWS, WALLET_ROWS + 5)
STATE_ROWS = TALLY + N_TALLY
TALLY_ROWS = {name: TALLY + k for k, name in enumerate(y.FIELDS)}
"""Where the numbers of a tally are; lanes leave its bars, and its highest unit is the wallet's."""
(
    LOW, LOW_PEAK, OVER_CAP, LEVERAGE, PEAK_LEVERAGE, PEAK_NEEDED, PEAK_BACKING, INITIAL_SUM,
    INITIAL_SHARE, EQUITY_SUM, OF_FEES, OF_SLIPPAGE, OF_IMPACT, OF_FUNDING, OF_INTEREST, OF_TRADED,
    OF_FILLS,
) = map(TALLY_ROWS.__getitem__, (
    "low", "low_peak", "over_cap", "leverage", "peak_leverage", "peak_needed", "peak_backing",
    "initial", "initial_share", "equity", "fees", "slippage", "impact", "funding", "interest",
    "traded", "fills",
))  # fmt: skip
N_ACCOUNT = STATE_ROWS + 14
(
    CASH_BEFORE, WORTH, LOST, COSTS, INITIAL, BASE, WANTED, FUNDED, CHARGED, GROSS, NEEDED, POOL,
    SPARE, ADDING,
) = range(STATE_ROWS, N_ACCOUNT)  # fmt: skip

N_POSITION = 14
HELD_ROWS = 9
(
    QUANTITY, ENTRY, MARGIN, TARGET, REST, BEST, LAST_STOP, LAST_HIT, IS_HALTED, MARGIN_BEFORE,
    WANT, STOP_LOW, STOP_HIGH, COST,
) = range(N_POSITION)  # fmt: skip
"""``REST``, which formulas add to the target in the row before, is 0, or NaN where none decides."""
N_NUMBERS = len(NUMBERS)

OF_OPEN, OF_CLOSE, OF_WIDEST, OF_FAR = range(4)
"""Columns of ``Lanes.table``."""
N_PRICES = 22
(
    OPEN, BEFORE, CLOSE, AT_OPEN, WIDEST, FAR, REACH, TOP, RATE, INITIAL_RATE, LIMIT, IS_LISTED,
    INITIAL_X, LAST_LOW, LAST_HIGH, VOLUME, SIGMA, ADV, STOP_SCALE, PROFIT_SCALE,
    TRAIL_SCALE, DUE,
) = range(N_PRICES)  # fmt: skip

LIVE, ENDED = 1.0, 2.0
"""What ``IS_LIVE`` says: an ended account stays, and never trades again; 0: there is none."""

N_CURSOR = 8
EVENT, FLOW, SAMPLE, IS_BOUND, CLOSING, N_TRADING, IS_WRITTEN, ASKING = range(N_CURSOR)
"""Entries of ``Lanes.cursor``: the next settlement, flow and sample; whether bounds hold; as bits
the ended lanes with something left to close or to earn, which pass every bar alone; how many bars
in a row some lane traded; whether the table has the bars of the chunk; as bits
the groups of lanes in which one may trade."""

PLAIN, LOTS, ISOLATED, ISOLATED_INVERSE, LINEAR, INVERTED = range(6)

REASONS = (
    "a flow, or the end of an instrument", "a loss that may take what is there",
    "a stop in reach", "the limit of gross leverage", "an order that margin may not allow",
    "a ruined account with something left",
)  # fmt: skip
"""Why lanes pass a bar alone."""
WHOLE, LOSS, EXIT, CAPPED, ORDER, OVER = range(len(REASONS))


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
    ``found`` are, as bits, the lanes that may pass the bar alone for each of :data:`REASONS`,
    ``counts`` how often lanes did, by the first of them.
    ``table`` of shape (n_bars, n, 4) holds prices that all blocks share, and ``is_due`` of shape
    (n_bars,) the bars in which money flows, funding is paid, or an instrument ends.
    ``units`` of shape (n_samples, LANES) are unit values at the ends of samples. ``free`` of shape
    (1,) is the risk-free return of the sample in progress. ``tally`` is that of the lane being
    taken out.
    """

    account: FloatArray
    position: FloatArray
    numbers: FloatArray
    kept_account: FloatArray
    kept_position: FloatArray
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
    has_rest: bool
    last_funding: FloatArray
    cursor: IntArray
    found: IntArray
    counts: IntArray
    units: FloatArray
    free: FloatArray
    tally: FloatArray
    table: FloatArray
    is_due: IntArray


class PriceTable(NamedTuple):
    """Prices of shape (n_bars, n, 4) that all blocks read, and the spans of bars that it has."""

    values: FloatArray
    written: set[tuple[int, int]]


class LanePolicies(NamedTuple):
    """The policies of a block, one for each instrument, and what they see by lane.

    ``params`` and ``memory`` have a row of LANES numbers for each parameter and each number of a
    memory; those of instrument i begin at row ``*_at[i]``. ``columns`` of shape (n * LANES,) are
    the addresses of the columns, one after another, each ``lengths[i]`` long, in steps of
    ``stride`` numbers. ``seen`` is room for the numbers of one bar, a row for each of the
    ``n_columns``; without ``has_own_columns`` all lanes have those of the first. ``shown`` has a
    row for each field of the account that policies see, written if ``wants_account``.
    ``firsts`` and ``tradable`` are those of a
    :class:`backtest.engine.loop.Deciders`, as are ``interval`` and ``start``. ``known`` of shape
    (n * LANES,) has the bars from which on lanes ask, ``latest`` (n,) the last of each policy, and
    ``begun`` is the memory that lanes keep until then.
    """

    addresses: IntArray
    params: FloatArray
    params_at: IntArray
    memory: FloatArray
    memory_at: IntArray
    begun: FloatArray
    known: IntArray
    latest: IntArray
    columns: IntArray
    n_columns: IntArray
    has_own_columns: bool
    stride: int
    lengths: IntArray
    firsts: IntArray
    tradable: IntArray
    seen: FloatArray
    bar: FloatArray
    shown: FloatArray
    wants_account: bool
    wants_bar: bool
    interval: int
    start: int


@inlined
def has_bit(bits: int, k: int) -> bool:
    return (bits >> k) & 1 != 0


def cell(row: int, lane: int) -> int:
    return row * LANES + lane


@inlined
def spot(i: int, row: int, lane: int) -> int:
    return cell(i * N_POSITION + row, lane)


@inlined
def term(i: int, row: int, lane: int) -> int:
    return cell(i * N_NUMBERS + row, lane)


def lowest(bits: int) -> int:
    return (int(bits) & -int(bits)).bit_length() - 1


def make_aligned(n: int) -> FloatArray:
    per_line = CACHE_LINE // 8
    raw = np.zeros(n + per_line)
    first = -(raw.ctypes.data // 8) % per_line
    return raw[first : first + n]


def keep_rare(lanes: Lanes, rare: int, n: int, is_paying: bool) -> None:
    """Keep lanes that pass a bar alone, and count each by the first reason that found it."""
    account, position, left = lanes.account, lanes.position, rare
    for reason in range(len(lanes.counts)):
        own = lanes.found[reason] & left
        left &= ~own
        while own != 0:
            own &= own - 1
            lanes.counts[reason] += 1
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


def take_out(lanes: Lanes, terms: Terms, state: AccountState, t: int, bars: int, lane: int) -> None:
    """Write a lane as it was kept, before bar t, into the state and tally of a run."""
    account, position = lanes.kept_account, lanes.kept_position
    wallet = view_numbers(state.wallet)
    for row in range(WALLET_ROWS):
        wallet[row] = account[cell(row, lane)]
    state.wallet.since_pool = t - 1.0 - account[cell(SINCE_POOL, lane)]
    state.wallet.turnover = account[cell(OF_TRADED, lane)]
    for i in range(len(state.positions)):
        quantity = position[spot(i, QUANTITY, lane)]
        state.positions[i].quantity = quantity
        state.positions[i].entry = position[spot(i, ENTRY, lane)]
        state.positions[i].marked = lanes.prices[BEFORE, i] if quantity != 0.0 else 0.0
        state.positions[i].margin = position[spot(i, MARGIN, lane)]
        state.positions[i].best = position[spot(i, BEST, lane)]
        state.positions[i].leverage = position[spot(i, TARGET, lane)]
        state.positions[i].signal = lanes.signal[i]
        state.positions[i].is_pending = lanes.is_pending[i]
        state.positions[i].is_halted = int(position[spot(i, IS_HALTED, lane)])
        state.positions[i].factor = 1.0
        state.positions[i].last_funding = lanes.last_funding[i]
        state.positions[i].since = state.wallet.since_pool
        if terms.rules.brackets.are_isolated[i]:
            state.positions[i].since = t - 1.0 - position[spot(i, LAST_HIT, lane)]
        state.positions[i].since_stop = t - 1.0 - position[spot(i, LAST_STOP, lane)]
        for row in range(N_NUMBERS):
            terms.numbers[i, row] = lanes.numbers[term(i, row, lane)]
    state.cursor[0], state.cursor[1] = lanes.cursor[EVENT], lanes.cursor[FLOW]
    for row in range(N_TALLY):
        lanes.tally[row] = account[cell(TALLY + row, lane)]
    lanes.tally[y.PEAK_UNIT] = account[cell(PEAK, lane)]
    lanes.tally[y.SAMPLE_FREE], lanes.tally[y.BARS] = lanes.free[0], bars


def put_back(lanes: Lanes, terms: Terms, state: AccountState, t: int, lane: int) -> None:
    """Write the state and tally of a run after bar t into a lane."""
    account, position = lanes.account, lanes.position
    wallet = view_numbers(state.wallet)
    for row in range(WALLET_ROWS):
        account[cell(row, lane)] = wallet[row]
    account[cell(SINCE_POOL, lane)] = t - state.wallet.since_pool
    reserve, least = state.wallet.reserve, account[cell(LEAST, lane)]
    line = find_line(terms.ruin_at, reserve, state.wallet.paid_in)
    account[cell(LINE, lane)] = max(line, least - reserve, 0.0)
    for row in range(N_TALLY):
        account[cell(TALLY + row, lane)] = lanes.tally[row]
    low, low_peak = lanes.tally[y.LOW], lanes.tally[y.LOW_PEAK]
    account[cell(KEEP, lane)] = low / low_peak if low_peak > 0.0 else 0.0
    for i in range(len(state.positions)):
        size = abs(state.positions[i].quantity)
        position[spot(i, QUANTITY, lane)] = state.positions[i].quantity
        position[spot(i, ENTRY, lane)] = state.positions[i].entry
        position[spot(i, MARGIN, lane)] = state.positions[i].margin
        position[spot(i, BEST, lane)] = state.positions[i].best
        position[spot(i, LAST_STOP, lane)] = t - state.positions[i].since_stop
        position[spot(i, LAST_HIT, lane)] = t - state.positions[i].since
        position[spot(i, IS_HALTED, lane)] = state.positions[i].is_halted
        lanes.is_known[i] = 0
        if size > lanes.most[i]:
            lanes.most[i] = size
            lanes.cursor[IS_BOUND] = 0


(
    LOT, MIN_NOTIONAL, FEE, TAKER, SLIPPAGE, IMPACT, PARTICIPATION, MIN_LEVERAGE, MAX_LEVERAGE,
    BAND, STOP_LOSS, TAKE_PROFIT, TRAILING_STOP, MARGIN_SHARE,
) = map(NUMBERS.index, (
    "lot", "min_notional", "fee", "taker", "slippage", "impact", "participation", "min_leverage",
    "max_leverage", "band", "stop_loss", "take_profit", "trailing_stop", "margin_share",
))  # fmt: skip


class FillKind(NamedTuple):
    has_rounding: bool
    has_impact: bool
    is_inverse: bool
    is_isolated: bool
    is_stop_distance: bool
    is_profit_distance: bool
    is_trail_distance: bool
    is_alone: bool


@inlined
def make_kind(
    has_rounding: bool, has_impact: bool, is_inverse: bool, is_isolated: bool, is_alone: bool
) -> FillKind:
    return FillKind(
        has_rounding, has_impact, is_inverse, is_isolated, False, False, False, is_alone
    )


class Table(NamedTuple):
    """The size of a contract, the venue leverage chosen, and the first bracket's."""

    size: float
    setting: float
    first_leverage: float


@inlined
def read_rules(
    numbers: FloatArray, kind: FillKind, table: Table, i: int, lane: int
) -> InstrumentRules:
    return InstrumentRules(
        has_stop=False,
        has_impact=kind.has_impact,
        has_rounding=kind.has_rounding,
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
            is_inverse=kind.is_inverse,
            is_isolated=kind.is_isolated,
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
        has_limits=False,
        rounds_price=False,
        tick=0.0,
        has_auto_margin=False,
        has_profit_share=False,
        has_order_fee=False,
        profit_share=1.0,
        order_fee=0.0,
        liquidation_impact=0.0,
        has_exits=False,
        take_profit=numbers[term(i, TAKE_PROFIT, lane)],
        trailing_stop=numbers[term(i, TRAILING_STOP, lane)],
        is_stop_distance=kind.is_stop_distance,
        is_profit_distance=kind.is_profit_distance,
        is_trail_distance=kind.is_trail_distance,
        full_below_health=0.0,
        margin_share=numbers[term(i, MARGIN_SHARE, lane)],
    )


if TYPE_CHECKING:
    LaneQuote = Quote
else:
    LaneQuote = NamedTuple("LaneQuote", [(name, float) for name in Quote.names()])


@inlined
def quote_open(prices: FloatArray, i: int) -> Quote:
    value = prices[OPEN, i]
    return LaneQuote(
        open=value,
        low=prices[LAST_LOW, i],
        high=prices[LAST_HIGH, i],
        mark_open=value,
        mark_low=value,
        mark_high=value,
        mark_close=value,
        multiplier=1.0,
        volume=prices[VOLUME, i],
        sigma=prices[SIGMA, i],
        adv=prices[ADV, i],
        initial=prices[INITIAL_X, i],
        limit=math.inf,
        order_fee=0.0,
        fill=value,
        stop_scale=prices[STOP_SCALE, i],
        profit_scale=prices[PROFIT_SCALE, i],
        trail_scale=prices[TRAIL_SCALE, i],
        close=value,
        decided=value,
        is_listed=1.0,
        is_last=0.0,
    )
