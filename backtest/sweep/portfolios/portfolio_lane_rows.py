"""The rows of a block of accounts with several positions, and how one lane is read from them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest.account import AccountState, Ledger, Terms
from backtest.account.portfolio_records import (
    CASH,
    EQUITY,
    NUMBERS,
    PAID_IN,
    PEAK,
    RESERVE,
    SINCE_POOL,
    UNIT,
)
from backtest.measures import Decay, Drawdown, Exposure, Sample, Tally
from backtest.sweep.lanes.lane_rows import LANES, cell

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray

WALLET_ROWS = 16
"""The first rows of an account are its wallet (:mod:`backtest.account.portfolio_records`)."""

MONEY = WALLET_ROWS + 17
NEAR = MONEY + len(Ledger._fields)
N_ACCOUNT = NEAR + 45
(
    LINE, IS_LIVE, IS_FALLBACK, FALLBACK_BARS, IS_PEAKING, IS_NEARING,
    FIRST_UNIT, LOW, LOW_PEAK,
    SAMPLE_UNIT, SAMPLES, MEAN, SQUARES, EXCESS_MEAN, EXCESS_SQUARES, DOWNSIDE,
    DISUTILITY,
) = range(WALLET_ROWS, MONEY)  # fmt: skip
(
    OVER_CAP, LEVERAGE, PEAK_LEVERAGE, PEAK_NEEDED, PEAK_BACKING,
    DECAY_HELD, DECAY_LOG, DECAY_PRODUCT, CARRY,
    EQUITY_SUM, FIRST_LIQUIDATION, RUIN, INVERSE,
    NEXT_CASH, WORTH, LEAST, NEXT_EQUITY, GAIN, GROSS, NEEDED, LARGEST,
    DRIFT, GROWN, INITIAL, COSTS, IS_ADDING, WANTED,
    PAID_FEES, PAID_SLIPPAGE, PAID_FUNDING, TURNED,
    BACKED, POOL, POOL_WORTH, TAKEN, PAID_IMPACT, PAID_INTEREST, BASE, LENT,
    BALANCE, PLEDGED, COUNTED, AT_LEAST, OF_ASSETS,
) = range(NEAR + 1, N_ACCOUNT)  # fmt: skip
(
    OF_PRICE_PNL, OF_FEES, OF_SLIPPAGE, OF_IMPACT, OF_FUNDING, OF_INTEREST,
) = range(MONEY, MONEY + 6)  # fmt: skip
OF_TRADED = MONEY + Ledger._fields.index("traded")

N_POSITION = 27
(
    QUANTITY, ENTRY, MARKED, TARGET, BAND, MIN_LEVERAGE, MAX_LEVERAGE,
    MARGIN, BEST, LAST_STOP, LAST_HIT, IS_HALTED,
    NEXT_QUANTITY, NEXT_ENTRY, NEXT_MARKED, SIZE, FLOW, FEE,
    SLIPPAGE, TRADED, PROFIT, IS_INCREASE, FUNDED,
    NEXT_MARGIN, RETURNED, POSTED, IMPACT,
) = range(N_POSITION)  # fmt: skip

N_PRICES = 22
(
    OPEN, BEFORE, CLOSE, LOWEST, HIGHEST, AT_OPEN, WIDEST, RATE, INITIAL_RATE, LIMIT,
    MOVE, VOLUME, IS_LISTED, SIGMA, ADV, INITIAL_X, MARK_OPEN,
    LAST_LOW, LAST_HIGH, STOP_SCALE, PROFIT_SCALE, TRAIL_SCALE,
) = range(N_PRICES)  # fmt: skip

N_ASSET_PRICES = 5
(ASSET_OPEN, ASSET_CLOSE, ASSET_LOW, ASSET_HIGH, ASSET_LAST) = range(N_ASSET_PRICES)

SLIGHT = 1e-9
"""Share of a price that its bounds allow for rounding."""

OWN_NUMBERS = ("band", "min_leverage", "max_leverage")
NUMBER_OF_BAND, NUMBER_OF_LEAST, NUMBER_OF_MOST = (NUMBERS.index(name) for name in OWN_NUMBERS)

(PLAIN, LOTS, LINEAR, INVERTED, ISOLATED, ISOLATED_INVERSE) = range(6)


class LaneArrays(NamedTuple):
    """The arrays of a block.

    ``account`` of shape (rows * LANES,) and ``position`` of shape (n * rows * LANES,) are its
    state. ``prices`` of shape (N_PRICES, n) are those of the bar. ``reach`` bounds the
    quantities of all lanes by instrument. ``is_pending``, ``signal`` and ``last_funding`` are what
    all lanes have decided or seen; ``is_traded`` says which instruments trade in this bar, and
    ``kinds`` how they fill. ``has_isolated``: any instrument is isolated; ``has_exits``: any has a
    stop; ``is_crossed``: any is in cross margin. ``assets`` of shape (n_assets * LANES,) are the
    amounts of collateral, ``asset_prices`` of shape (N_ASSET_PRICES, n_assets) its prices.
    ``cursor`` has the next settlement and flow, and the next sample. Lanes that go on alone are
    kept as they were before bar ``left_at`` of shape (n_lanes,), -1 for none; ``n_lanes``, up to
    LANES, are in use. ``units`` of shape (n_samples, LANES) are the unit values at the ends of
    samples. ``free[0]`` is the risk-free return of the sample in progress, ``free[1:]`` that of
    lanes that go on alone.
    """

    account: FloatArray
    position: FloatArray
    prices: FloatArray
    assets: FloatArray
    asset_prices: FloatArray
    reach: FloatArray
    signal: FloatArray
    is_pending: IntArray
    is_traded: IntArray
    kinds: IntArray
    has_isolated: bool
    has_exits: bool
    is_crossed: bool
    last_funding: FloatArray
    cursor: IntArray
    kept_account: FloatArray
    kept_position: FloatArray
    kept_memory: FloatArray
    kept_assets: FloatArray
    left_at: IntArray
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
    :class:`backtest.engine.portfolio_loop.Deciders`, as are ``interval`` and ``start``.
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
    interval: int
    start: int


def spot(i: int, row: int, lane: int) -> int:
    return cell(i * N_POSITION + row, lane)


def mark_fallback(account: FloatArray, is_found: bool, lane: int) -> None:
    at = cell(IS_FALLBACK, lane)
    account[at] = 1.0 if is_found else account[at]


def widen(prices: FloatArray, i: int) -> tuple[float, float]:
    spare = (prices[RATE, i] + SLIGHT) * prices[WIDEST, i]
    return prices[LOWEST, i] - spare, prices[HIGHEST, i] + spare


def read_lane(lanes: LaneArrays, terms: Terms, state: AccountState, t: int, lane: int) -> None:
    account, position = lanes.account, lanes.position
    for k in range(WALLET_ROWS):
        state.wallet[k] = account[cell(k, lane)]
    for i in range(len(state.margin)):
        quantity = position[spot(i, QUANTITY, lane)]
        state.held.quantities[i] = quantity
        state.held.entries[i] = position[spot(i, ENTRY, lane)]
        is_held = quantity != 0.0
        marked = position[spot(i, MARKED, lane)]
        state.marked[i] = lanes.prices[BEFORE, i] if is_held else marked
        state.margin[i] = position[spot(i, MARGIN, lane)]
        state.best[i] = position[spot(i, BEST, lane)]
        state.leverage[i] = position[spot(i, TARGET, lane)]
        state.signal[i], state.is_pending[i] = lanes.signal[i], lanes.is_pending[i]
        state.is_halted[i] = int(position[spot(i, IS_HALTED, lane)])
        state.factor[i] = 1.0
        state.last_funding[i] = lanes.last_funding[i]
        state.since[i] = account[cell(SINCE_POOL, lane)]
        if terms.rules.brackets.are_isolated[i]:
            state.since[i] = t - 1.0 - position[spot(i, LAST_HIT, lane)]
        state.since_stop[i] = t - 1.0 - position[spot(i, LAST_STOP, lane)]
        terms.numbers[NUMBER_OF_BAND, i] = position[spot(i, BAND, lane)]
        terms.numbers[NUMBER_OF_LEAST, i] = position[spot(i, MIN_LEVERAGE, lane)]
        terms.numbers[NUMBER_OF_MOST, i] = position[spot(i, MAX_LEVERAGE, lane)]
    for c in range(len(state.priced)):
        state.held.amounts[c] = lanes.assets[cell(c, lane)]
        state.priced[c] = lanes.asset_prices[ASSET_LAST, c]
    state.cursor[0], state.cursor[1] = lanes.cursor[0], lanes.cursor[1]


def write_lane(lanes: LaneArrays, state: AccountState, line: float, t: int, lane: int) -> None:
    account, position = lanes.account, lanes.position
    for k in range(WALLET_ROWS):
        account[cell(k, lane)] = state.wallet[k]
    account[cell(LINE, lane)] = line
    for i in range(len(state.margin)):
        position[spot(i, QUANTITY, lane)] = state.held.quantities[i]
        position[spot(i, ENTRY, lane)] = state.held.entries[i]
        position[spot(i, MARKED, lane)] = state.marked[i]
        position[spot(i, MARGIN, lane)] = state.margin[i]
        position[spot(i, BEST, lane)] = state.best[i]
        position[spot(i, LAST_STOP, lane)] = t - state.since_stop[i]
        position[spot(i, LAST_HIT, lane)] = t - state.since[i]
        position[spot(i, IS_HALTED, lane)] = state.is_halted[i]
        size = abs(state.held.quantities[i])
        lanes.reach[i] = max(lanes.reach[i], size)
    for c in range(len(state.priced)):
        lanes.assets[cell(c, lane)] = state.held.amounts[c]


def keep_lane(lanes: LaneArrays, memory: FloatArray, n: int, t: int, lane: int) -> None:
    account, position = lanes.account, lanes.position
    for row in range(len(memory) // LANES):
        lanes.kept_memory[cell(row, lane)] = memory[cell(row, lane)]
    lanes.left_at[lane] = t
    lanes.free[1 + lane] = lanes.free[0]
    for row in range(len(account) // LANES):
        lanes.kept_account[cell(row, lane)] = account[cell(row, lane)]
    for row in range(len(position) // LANES):
        lanes.kept_position[cell(row, lane)] = position[cell(row, lane)]
    for c in range(len(lanes.assets) // LANES):
        lanes.kept_assets[cell(c, lane)] = lanes.assets[cell(c, lane)]
        lanes.assets[cell(c, lane)] = 0.0
    account[cell(IS_LIVE, lane)] = 0.0
    for row in (CASH, EQUITY, UNIT, PEAK, PAID_IN):
        account[cell(row, lane)] = 1.0
    account[cell(RESERVE, lane)], account[cell(LINE, lane)] = 0.0, -1.0
    account[cell(LOW, lane)], account[cell(LOW_PEAK, lane)] = 1.0, 1.0
    for i in range(n):
        position[spot(i, QUANTITY, lane)], position[spot(i, TARGET, lane)] = 0.0, math.nan
        position[spot(i, MARGIN, lane)] = 0.0


# ----------------------------------------------------------------------------------- the tally


def read_tally_of(account: FloatArray, free: float, bars: int, lane: int) -> Tally:
    unit = account[cell(PEAK, lane)]
    return Tally(
        first_unit=account[cell(FIRST_UNIT, lane)],
        drawdown=Drawdown(
            peak=unit,
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
    )


def write_tally(account: FloatArray, tally: Tally, lane: int) -> None:
    account[cell(LOW, lane)] = tally.drawdown.low
    account[cell(LOW_PEAK, lane)] = tally.drawdown.low_peak
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
