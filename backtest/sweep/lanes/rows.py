"""The rows of a block of accounts, and how one lane is taken out and put back.

A block holds 64 accounts (lanes) side by side: ``account[cell(ROW, lane)]`` is a number of the
account, ``position[held_cell(i, ROW, lane)]`` one of its position in instrument i,
``numbers[term_cell(i, ROW, lane)]`` one of the instrument's terms (:data:`NUMBERS`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.account import AccountState, InstrumentRules, Terms, find_line
from backtest.account.money import WALLET
from backtest.account.records import FLOW_NEXT, FUNDING_NEXT, NUMBERS, Quote
from backtest.core.kernels import inlined
from backtest.core.structs import number_fields, view_numbers
from backtest.margin import MarginRules
from backtest.results.tally import Tally

if TYPE_CHECKING:
    from backtest.core import FloatArray, IntArray

LaneBits = int
"""A set of lanes as a number: bit k is 1 if lane k is in the set."""
GroupBits = int
"""A set of groups of lanes as a number: bit k is group k, lanes k * GROUP up to the next group."""

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

In row ``since_pool`` stands the bar of the pool's last liquidation. The turnover is the tally's.
"""


class OwnRows(NamedTuple):
    """Rows of an account that lanes alone have.

    ``equity_floor`` is the equity at which it is ruined or too poor to order, ``order_minimum``
    what the smallest order needs: money. ``lowest_share`` is the lowest unit value so far, as a
    share of the peak before it. ``is_live`` see LIVE.
    """

    equity_floor: int
    is_live: int
    lowest_share: int
    order_minimum: int


OWN = OwnRows._make(range(WALLET_ROWS, WALLET_ROWS + len(OwnRows._fields)))
FIRST_OF_TALLY = OWN.order_minimum + 1
TALLY = number_fields("TallyRows", Tally.names(), first=FIRST_OF_TALLY)
"""The rows of a tally; lanes leave its bars, and its highest unit is the wallet's."""
STATE_ROWS = FIRST_OF_TALLY + len(TALLY)


class WorkRows(NamedTuple):
    """Rows in which the numbers of one bar are computed: money, unless another unit is said.

    ``worth``, ``loss``, ``costs``, ``committed`` and ``spare`` are explained in :mod:`.trades`.
    They are sums of a lane over its positions so far; ``n_adding`` counts the orders that add.
    ``notional_after`` is that of the position being planned, ``gross_bound`` what the cap of gross
    leverage is compared with. ``interest_base`` is the balance that earns interest; ``funded`` and
    ``charged`` are the funding and interest paid. At the close: ``gross`` notional, ``initial``
    margin, the ``bracket_leverage`` of the position being added to it, and the margin ``needed``
    with the ``backing`` behind it.
    """

    cash_before: int
    worth: int
    loss: int
    costs: int
    committed: int
    n_adding: int
    spare: int
    notional_after: int
    gross_bound: int
    interest_base: int
    funded: int
    charged: int
    gross: int
    initial: int
    bracket_leverage: int
    needed: int
    backing: int


N_ACCOUNT = STATE_ROWS + len(WorkRows._fields)
WORK = WorkRows._make(range(STATE_ROWS, N_ACCOUNT))


class HeldRows(NamedTuple):
    """Rows of a position: its state up to ``is_halted``, and room to compute in.

    ``leverage`` is what was decided at the last close. ``muted`` is NaN where a lane decides
    nothing more, else 0: formulas add it to the leverage, in the row before.
    """

    quantity: int
    entry: int
    margin: int
    leverage: int
    muted: int
    best: int
    last_stop: int
    last_hit: int
    is_halted: int
    margin_before: int
    quantity_after: int
    stop_low: int
    stop_high: int
    cost: int


N_POSITION = len(HeldRows._fields)
HELD = HeldRows._make(range(N_POSITION))
HELD_ROWS = HELD.is_halted + 1

N_NUMBERS = len(NUMBERS)
NUMBER = number_fields("NumberRows", NUMBERS)


class TableColumns(NamedTuple):
    """Columns of ``Lanes.table``."""

    open: int
    close: int
    largest_value: int
    largest_move: int


TABLE = TableColumns._make(range(len(TableColumns._fields)))


class PriceRows(NamedTuple):
    """Rows of ``Lanes.prices``: numbers of an instrument in the bar, money per contract.

    ``contract_notional`` is that at the open. ``largest_move`` and ``loss_bound`` bound what a
    contract can lose (see :mod:`.quiet`), ``funding_due`` is its funding after the open.
    ``maintenance_rate`` and ``initial_rate`` bound margin up to the notional ``rates_hold_to``;
    ``largest_notional`` is what the margin table allows at any equity. ``last_low`` and
    ``last_high`` are extremes of last prices.
    """

    open: int
    close_before: int
    close: int
    contract_notional: int
    largest_value: int
    largest_move: int
    loss_bound: int
    rates_hold_to: int
    maintenance_rate: int
    initial_rate: int
    largest_notional: int
    is_listed: int
    initial_multiplier: int
    last_low: int
    last_high: int
    volume: int
    sigma: int
    adv: int
    stop_scale: int
    profit_scale: int
    trail_scale: int
    funding_due: int


N_PRICES = len(PriceRows._fields)
PRICE = PriceRows._make(range(N_PRICES))

LIVE, ENDED = 1.0, 2.0
"""What ``is_live`` says: an ended account stays, and never trades again; 0: there is none."""


class CursorEntries(NamedTuple):
    """Entries of ``Lanes.cursor``.

    The next ``settlement``, ``flow`` and ``sample``. ``has_bounds``: bounds of margin rates hold.
    ``busy``: as bits the ended lanes with something left to close or to earn, which pass every bar
    alone. ``n_trading``: how many bars in a row some lane traded. ``is_written``: the table has the
    bars of the chunk. ``groups``: as bits the groups of lanes in which one may trade.
    """

    settlement: int
    flow: int
    sample: int
    has_bounds: int
    busy: int
    n_trading: int
    is_written: int
    groups: int


N_CURSOR = len(CursorEntries._fields)
CURSOR = CursorEntries._make(range(N_CURSOR))

PLAIN, LOTS, ISOLATED, ISOLATED_INVERSE, LINEAR, INVERTED = range(6)
"""Kinds of fills, by what their code has rules for.

PLAIN and LOTS are linear cross positions without impact, the second with lots. ISOLATED and
ISOLATED_INVERSE have isolated margin, LINEAR and INVERTED cross margin, each with lots and impact.
Kinds before LINEAR have code of their own for accounts of one position.
"""

REASONS = {
    "whole": "a flow, or the end of an instrument",
    "loss": "a loss that may take what is there",
    "exit": "a stop in reach",
    "capped": "the limit of gross leverage",
    "order": "an order that margin may not allow",
    "over": "a ruined account with something left",
}
"""Why lanes are simulated alone in a bar."""
REASON = number_fields("ReasonRows", REASONS)


class Lanes(NamedTuple):
    """The arrays of a block.

    ``account`` of shape (N_ACCOUNT * LANES,), ``position`` of shape (n * N_POSITION * LANES,) and
    ``numbers`` of shape (n * N_NUMBERS * LANES,) are its state and terms; ``kept_*`` hold lanes
    that are simulated alone in a bar, as they were before it. ``prices`` of shape (N_PRICES, n) are
    those of the bar, ``largest_quantity`` of shape (n,) bounds the quantities of all lanes.
    ``signal`` and ``is_pending`` are what all lanes have decided, ``has_order`` says in which
    instruments a lane trades in this bar, ``kinds`` how they fill; kinds other than PLAIN have
    ``needs_extra_prices``. ``has_stops`` of shape (n,) is 1 where the rows ``stop_low`` and
    ``stop_high`` hold: the contract values between which no stop of a lane acts. ``alone_for`` are,
    as bits, the lanes that are simulated alone in the bar for each of :data:`REASONS`, ``counts``
    how often lanes did, by the first of them. ``table`` of shape (n_bars, n, 4) holds prices that
    all blocks share, and ``is_due`` of shape (n_bars,) the bars in which money flows, funding is
    paid, or an instrument ends. ``units`` of shape (n_samples, LANES) are unit values at the ends
    of samples. ``free_return`` of shape (1,) is the risk-free return of the sample in progress.
    ``tally`` is that of the lane being taken out.
    """

    account: FloatArray
    position: FloatArray
    numbers: FloatArray
    kept_account: FloatArray
    kept_position: FloatArray
    prices: FloatArray
    largest_quantity: FloatArray
    signal: FloatArray
    is_pending: IntArray
    has_order: IntArray
    kinds: IntArray
    has_stops: IntArray
    is_full: bool
    has_isolated: bool
    has_exits: bool
    moves_stops: bool
    needs_extra_prices: bool
    last_funding: FloatArray
    cursor: IntArray
    alone_for: IntArray
    counts: IntArray
    units: FloatArray
    free_return: FloatArray
    tally: Tally
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
    :class:`backtest.engine.shown.Deciders`, as are ``interval`` and ``start``. ``known`` of shape
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
    """Return whether bit k is set: whether k is in the set that the bits are."""
    return (bits >> k) & 1 != 0


def pick_first(bits: int) -> int:
    """Return the first member of a set that is given as bits: the place of its lowest bit.

    Compiled code has an instruction for it.
    """
    return (int(bits) & -int(bits)).bit_length() - 1


@inlined
def drop_first(bits: int) -> int:
    """Return a set, given as bits, without its first member, which :func:`pick_first` returns."""
    return bits & (bits - 1)


def cell(row: int, lane: int) -> int:
    """Return the place of a lane's number in a row of ``Lanes.account``."""
    return row * LANES + lane


@inlined
def held_cell(i: int, row: int, lane: int) -> int:
    """Return the place of a lane's number in a row of ``Lanes.position``, of instrument i."""
    return cell(i * N_POSITION + row, lane)


@inlined
def term_cell(i: int, row: int, lane: int) -> int:
    """Return the place of a lane's number in a row of ``Lanes.numbers``, of instrument i."""
    return cell(i * N_NUMBERS + row, lane)


def read_once(lanes: Lanes) -> Lanes:
    """Return the arrays of a block; compiled code reads their addresses here, not in its loops.

    LLVM finds by itself that they stay the same, but only of so many reads in a loop.
    """
    return lanes


@inlined
def select(is_so: bool, one: float, other: float) -> float:
    """Return ``one`` if the condition holds, else ``other``; without a branch in compiled code.

    Loops over lanes compute both values and choose, so that the compiler has the lanes of a vector
    go side by side.
    """
    return one if is_so else other


@inlined
def sum_before(account: FloatArray, row: int, is_first: bool, lane: int) -> float:
    """Return the sum of a lane over the positions before this one: 0 if it is the first."""
    return select(is_first, 0.0, account[cell(row, lane)])


@inlined
def is_listed(lanes: Lanes, i: int) -> bool:
    """Return whether instrument i trades in the bar."""
    return bool(lanes.prices[PRICE.is_listed, i] != 0.0)


@inlined
def may_fill(lanes: Lanes, i: int) -> bool:
    """Return whether a decision waits for a fill in instrument i that this bar can give."""
    return bool(lanes.is_pending[i] == 1 and lanes.prices[PRICE.is_listed, i] != 0.0)


def make_aligned(n: int) -> FloatArray:
    """Return n zeros that begin with a cache line, where vectors of lanes load fastest."""
    per_line = CACHE_LINE // 8
    raw = np.zeros(n + per_line)
    first = -(raw.ctypes.data // 8) % per_line
    return raw[first : first + n]


# Lanes that are simulated alone in a bar: kept before it, taken out, and put back.


def keep_lanes(lanes: Lanes, alone: LaneBits, n_instruments: int, is_paying: bool) -> None:
    """Copy aside the lanes that will be simulated alone in this bar, and count the reasons why.

    ``alone`` are these lanes, as bits. With ``is_paying`` the bar has paid funding or interest
    already: then cash and margins are copied as they were before.
    """
    count_reasons(lanes, alone)
    while alone != 0:
        lane = pick_first(alone)
        alone = drop_first(alone)
        keep_lane(lanes, n_instruments, is_paying, lane)


def count_reasons(lanes: Lanes, alone: LaneBits) -> None:
    """Count why lanes are simulated alone in this bar: each lane once, under its first reason.

    ``alone`` are these lanes as bits, bit k for lane k. ``lanes.alone_for`` has such bits for each
    of :data:`REASONS`, and ``lanes.counts`` a count for each, to which is added.
    """
    uncounted = alone
    for reason in range(len(lanes.counts)):
        lanes_of_reason = lanes.alone_for[reason] & uncounted
        uncounted &= ~lanes_of_reason
        while lanes_of_reason != 0:
            lanes_of_reason = drop_first(lanes_of_reason)
            lanes.counts[reason] += 1


def keep_lane(lanes: Lanes, n_instruments: int, is_paying: bool, lane: int) -> None:
    """Copy a lane (account) aside as it was before the bar, and cancel its order in this bar.

    The lane will be simulated alone in the bar, by the loop of a single run, from the copy:
    ``kept_account`` and ``kept_position``. What it does side by side with the others is written
    over.

    It is called before any order of the bar fills. So only cash and margins may have changed since
    the last bar, and only if the bar has paid funding or interest (``is_paying``).
    :func:`.quiet.begin_payments` has written both aside before, into ``cash_before`` and
    ``margin_before``.
    """
    account = lanes.account
    position = lanes.position

    # The state of the account: its wallet, its own rows and its tally. Work rows are not kept.
    for row in range(STATE_ROWS):
        lanes.kept_account[cell(row, lane)] = account[cell(row, lane)]
    if is_paying:
        cash_before = account[cell(WORK.cash_before, lane)]
        lanes.kept_account[cell(WALLET.cash, lane)] = cash_before

    for i in range(n_instruments):
        for row in range(HELD_ROWS):
            lanes.kept_position[held_cell(i, row, lane)] = position[held_cell(i, row, lane)]
        if is_paying and lanes.has_isolated:
            margin_before = position[held_cell(i, HELD.margin_before, lane)]
            lanes.kept_position[held_cell(i, HELD.margin, lane)] = margin_before

        # A lane that is planned to hold what it holds trades nothing.
        quantity = position[held_cell(i, HELD.quantity, lane)]
        position[held_cell(i, HELD.quantity_after, lane)] = quantity


def take_out(lanes: Lanes, terms: Terms, state: AccountState, t: int, bars: int, lane: int) -> None:
    """Copy a lane, as it was before bar t, into the account that the loop of a run simulates.

    That account is ``state`` with the numbers of ``terms`` and ``lanes.tally``; the lane is read
    from the rows that :func:`keep_lane` copied aside. ``bars`` is how many bars the sweep has
    passed before t.

    Wallet and tally are records of numbers, and a lane has the same numbers in the same order, as
    rows of its account. So they are copied one by one. The few that lanes count in another way than
    a run are then written over.
    """
    account = lanes.kept_account
    wallet = view_numbers(state.wallet)
    for row in range(WALLET_ROWS):
        wallet[row] = account[cell(row, lane)]
    # Lanes write the bar of the last liquidation, runs how many bars ago it was at the last close.
    state.wallet.since_pool = t - 1.0 - account[cell(WALLET.since_pool, lane)]
    state.wallet.turnover = account[cell(TALLY.traded, lane)]

    # The positions come after the wallet, as a cross position copies its liquidation from there.
    for i in range(len(state.positions)):
        take_position_out(lanes, terms, state, i, t, lane)
        for row in range(N_NUMBERS):
            terms.numbers[i, row] = lanes.numbers[term_cell(i, row, lane)]

    # Lanes move on together, so they share the next settlement and the next flow.
    state.cursor[FUNDING_NEXT] = lanes.cursor[CURSOR.settlement]
    state.cursor[FLOW_NEXT] = lanes.cursor[CURSOR.flow]

    # The tally. Lanes have one peak, in the wallet; they share the bars and the sample in progress.
    tally = view_numbers(lanes.tally)
    for row in range(len(tally)):
        tally[row] = account[cell(FIRST_OF_TALLY + row, lane)]
    lanes.tally.peak = account[cell(WALLET.peak, lane)]
    lanes.tally.sample_free = lanes.free_return[0]
    lanes.tally.bars = bars


def take_position_out(
    lanes: Lanes, terms: Terms, state: AccountState, i: int, t: int, lane: int
) -> None:
    """Copy a lane's position in instrument i, as it was before bar t, into ``state.positions[i]``.

    It is part of :func:`take_out`. What differs between lanes is read from the rows copied aside;
    decisions whether to trade, signals, prices and the last funding rate are the same in all lanes.
    ``state.wallet`` must be written before, as a cross position has the pool's last liquidation.
    """
    kept = lanes.kept_position
    position = state.positions[i]
    quantity = kept[held_cell(i, HELD.quantity, lane)]
    position.quantity = quantity
    position.entry = kept[held_cell(i, HELD.entry, lane)]
    # The contract value at which the position was last valued: none if nothing is held.
    position.marked = 0.0
    if quantity != 0.0:
        position.marked = lanes.prices[PRICE.close_before, i]
    position.margin = kept[held_cell(i, HELD.margin, lane)]
    position.best = kept[held_cell(i, HELD.best, lane)]

    # What was decided at the last close.
    position.leverage = kept[held_cell(i, HELD.leverage, lane)]
    position.signal = lanes.signal[i]
    position.is_pending = lanes.is_pending[i]
    position.is_halted = int(kept[held_cell(i, HELD.is_halted, lane)])
    position.factor = 1.0
    position.last_funding = lanes.last_funding[i]

    # Bars since the last liquidation, which is that of the pool or of the isolated position, and
    # since the last stop. A run counts them up to its last close, bar t - 1.
    t_before = t - 1.0
    position.since = state.wallet.since_pool
    if terms.rules.brackets.are_isolated[i]:
        position.since = t_before - kept[held_cell(i, HELD.last_hit, lane)]
    position.since_stop = t_before - kept[held_cell(i, HELD.last_stop, lane)]


def put_back(lanes: Lanes, terms: Terms, state: AccountState, t: int, lane: int) -> None:
    """Copy an account that was simulated alone in bar t back into its lane.

    It is the reverse of :func:`take_out`: ``state`` and ``lanes.tally`` are records of numbers,
    which a lane has in the same order, as rows of its account. What only lanes have follows from
    them, and is written anew: the equity below which a lane is simulated alone, and the deepest
    fall as a share.
    """
    account = lanes.account
    wallet = view_numbers(state.wallet)
    for row in range(WALLET_ROWS):
        account[cell(row, lane)] = wallet[row]
    # Lanes write the bar of the last liquidation, runs how many bars ago it was.
    account[cell(WALLET.since_pool, lane)] = t - state.wallet.since_pool

    # Flows and top-ups move the line at which the account is ruined. A lane whose equity may fall
    # below that line, or below what its smallest order needs, is simulated alone in the bar.
    reserve = state.wallet.reserve
    ruin_line = find_line(terms.ruin_at, reserve, state.wallet.paid_in)
    order_minimum = account[cell(OWN.order_minimum, lane)]
    account[cell(OWN.equity_floor, lane)] = max(ruin_line, order_minimum - reserve, 0.0)

    tally = view_numbers(lanes.tally)
    for row in range(len(tally)):
        account[cell(FIRST_OF_TALLY + row, lane)] = tally[row]

    # The deepest fall so far, as a share of its peak: what later closes are compared with.
    low = lanes.tally.low
    low_peak = lanes.tally.low_peak
    account[cell(OWN.lowest_share, lane)] = 0.0
    if low_peak > 0.0:
        account[cell(OWN.lowest_share, lane)] = low / low_peak

    for i in range(len(state.positions)):
        put_position_back(lanes, state, i, t, lane)


def put_position_back(lanes: Lanes, state: AccountState, i: int, t: int, lane: int) -> None:
    """Copy a position of an account that was simulated alone in bar t back into its lane.

    The position, in instrument i, may break what holds for all lanes. So its stops are marked as
    not written (``has_stops`` 0). And if it exceeds ``largest_quantity``, up to which the rates of
    margin are bounds, that is raised, and the bounds are marked as not written (``has_bounds`` 0).
    """
    position = state.positions[i]
    held = lanes.position
    held[held_cell(i, HELD.quantity, lane)] = position.quantity
    held[held_cell(i, HELD.entry, lane)] = position.entry
    held[held_cell(i, HELD.margin, lane)] = position.margin
    held[held_cell(i, HELD.best, lane)] = position.best

    # Lanes keep the bar of the last stop and liquidation, runs the bars since.
    held[held_cell(i, HELD.last_stop, lane)] = t - position.since_stop
    held[held_cell(i, HELD.last_hit, lane)] = t - position.since
    held[held_cell(i, HELD.is_halted, lane)] = position.is_halted

    # 0: written anew before they are read again.
    lanes.has_stops[i] = 0
    size = abs(position.quantity)
    if size > lanes.largest_quantity[i]:
        lanes.largest_quantity[i] = size
        lanes.cursor[CURSOR.has_bounds] = 0


# The rules and the quotes of lanes, as those of a run.


class FillKind(NamedTuple):
    """What the code that fills some orders has rules for.

    Each kind of fills is compiled of its own, so these flags cost nothing. ``is_only``: the
    account has one position.
    """

    has_rounding: bool
    has_impact: bool
    is_inverse: bool
    is_isolated: bool
    is_stop_distance: bool
    is_profit_distance: bool
    is_trail_distance: bool
    is_only: bool


@inlined
def make_kind(
    has_rounding: bool, has_impact: bool, is_inverse: bool, is_isolated: bool, is_only: bool
) -> FillKind:
    """Return a kind of fills; the distances of its stops are fractions of the price."""
    return FillKind(
        has_rounding=has_rounding,
        has_impact=has_impact,
        is_inverse=is_inverse,
        is_isolated=is_isolated,
        is_stop_distance=False,
        is_profit_distance=False,
        is_trail_distance=False,
        is_only=is_only,
    )


class Table(NamedTuple):
    """The size of a contract, the venue leverage chosen, and the first bracket's."""

    size: float
    setting: float
    first_leverage: float


NO_TABLE = Table(size=1.0, setting=1.0, first_leverage=1.0)
"""The table of rules that are read for what no table changes, such as a target or its band."""


@inlined
def read_rules(
    numbers: FloatArray, kind: FillKind, table: Table, i: int, lane: int
) -> InstrumentRules:
    """Return the rules by which a lane trades instrument i, in the form that a run has.

    ``kind`` has the flags, ``numbers`` the terms of the lane. What lanes have no rules for is off:
    margin tables (whose limits they test by bounds), liquidations, ticks, fixed fees, limits by
    date.
    """
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
        lot=numbers[term_cell(i, NUMBER.lot, lane)],
        min_notional=numbers[term_cell(i, NUMBER.min_notional, lane)],
        fee=numbers[term_cell(i, NUMBER.fee, lane)],
        taker=numbers[term_cell(i, NUMBER.taker, lane)],
        slippage=numbers[term_cell(i, NUMBER.slippage, lane)],
        impact=numbers[term_cell(i, NUMBER.impact, lane)],
        participation=numbers[term_cell(i, NUMBER.participation, lane)],
        liquidation_mode=0,
        liquidation_fee=0.0,
        liquidation_slippage=0.0,
        step=0.0,
        full_below=0.0,
        is_funded_by_wallet=False,
        min_leverage=numbers[term_cell(i, NUMBER.min_leverage, lane)],
        max_leverage=numbers[term_cell(i, NUMBER.max_leverage, lane)],
        band=numbers[term_cell(i, NUMBER.band, lane)],
        stop_loss=numbers[term_cell(i, NUMBER.stop_loss, lane)],
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
        take_profit=numbers[term_cell(i, NUMBER.take_profit, lane)],
        trailing_stop=numbers[term_cell(i, NUMBER.trailing_stop, lane)],
        is_stop_distance=kind.is_stop_distance,
        is_profit_distance=kind.is_profit_distance,
        is_trail_distance=kind.is_trail_distance,
        full_below_health=0.0,
        margin_share=numbers[term_cell(i, NUMBER.margin_share, lane)],
    )


if TYPE_CHECKING:
    LaneQuote = Quote
else:
    LaneQuote = NamedTuple("LaneQuote", [(name, float) for name in Quote.names()])


@inlined
def quote_open(prices: FloatArray, i: int) -> Quote:
    """Return the quote of instrument i, whose orders fill at the open of the bar."""
    value = prices[PRICE.open, i]
    return LaneQuote(
        open=value,
        low=prices[PRICE.last_low, i],
        high=prices[PRICE.last_high, i],
        mark_open=value,
        mark_low=value,
        mark_high=value,
        mark_close=value,
        multiplier=1.0,
        volume=prices[PRICE.volume, i],
        sigma=prices[PRICE.sigma, i],
        adv=prices[PRICE.adv, i],
        initial=prices[PRICE.initial_multiplier, i],
        limit=math.inf,
        order_fee=0.0,
        fill=value,
        stop_scale=prices[PRICE.stop_scale, i],
        profit_scale=prices[PRICE.profit_scale, i],
        trail_scale=prices[PRICE.trail_scale, i],
        close=value,
        decided=value,
        is_listed=1.0,
        is_last=0.0,
    )
