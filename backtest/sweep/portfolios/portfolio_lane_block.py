"""Take a block of up to 64 sets of several positions through the markets side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest.account import AccountState, Terms, find_line
from backtest.account.portfolio_records import (
    ASSETS_SO_FAR,
    CONVERTED_SO_FAR,
    EQUITY,
    HAS_EXITS,
    HAS_STOP,
    PAID_IN,
    RESERVE,
    SINCE_POOL,
    UNIT,
)
from backtest.base import FloatArray, IntArray, hold_signals
from backtest.engine import (
    Counts,
    Deciders,
    ObservedPolicy,
    Setup,
    drive,
    find_simulate,
    flatten_settings,
    new_ledger_array,
    new_quotes,
    new_scratch,
    new_tape,
    pack_terms,
    start_account_state,
    write_table,
)
from backtest.engine.bar_loop import DONE
from backtest.engine.portfolio_driver import CHUNK
from backtest.engine.portfolio_loop import N_SHOWN
from backtest.measures import (
    RunSpan,
    Tally,
    flatten_tally,
    measure_accounts,
    sampled_returns,
    start_tally,
)
from backtest.policy import start_memory
from backtest.sweep.lanes.block_state import make_aligned
from backtest.sweep.lanes.lane_block import BlockFault, Scored
from backtest.sweep.lanes.lane_rows import LANES, cell
from backtest.sweep.portfolios import portfolio_lane_rows as field
from backtest.sweep.portfolios.portfolio_lane_fit import find_all_read, find_kinds
from backtest.sweep.portfolios.portfolio_lane_rows import (
    LaneArrays,
    LanePolicies,
    read_tally_of,
    spot,
    write_tally,
)
from backtest.sweep.portfolios.portfolio_lane_view import MARGINS
from backtest.venue import compute_value

LEAST_LANES = 4
"""Fewer sets are faster one by one: lanes are filled up to a multiple of :data:`STEP`."""
STEP = 8
"""Lanes that are computed at once."""


class PortfolioBlock(NamedTuple):
    setups: Sequence[Setup]
    deciders: Deciders
    find_deciders: Callable[[Setup], Deciders]
    addresses: Sequence[int]
    columns: Sequence[Sequence[FloatArray]]
    span: RunSpan
    has_returns: bool


def join_columns(setups: Sequence[Setup]) -> list[list[FloatArray]]:
    joined: dict[int, FloatArray] = {}
    for setup in setups:
        for each in setup.observed:
            if id(each.columns) not in joined:
                own = list(each.columns.values()) or [np.zeros(1)]
                one = own[0] if len(own) == 1 else np.concatenate(own)
                joined[id(each.columns)] = np.ascontiguousarray(one, dtype=np.float64)
    return [[joined[id(each.columns)] for each in setup.observed] for setup in setups]


def has_own_columns(columns: Sequence[Sequence[FloatArray]]) -> bool:
    return len({tuple(map(id, each)) for each in columns}) > 1


# ------------------------------------------------------------------------ what lanes can hold


# ---------------------------------------------------------------------------------- the block


def score_block(
    names: tuple[str, ...], block: PortfolioBlock, is_stopped: Callable[[], bool]
) -> Scored | None:
    state = start_state(block)
    if not run_state(block, state, is_stopped):
        return None
    return read_scores(names, block, state)


class BlockState(NamedTuple):
    terms: Terms
    lanes: LaneArrays
    policies: LanePolicies
    deciders: Deciders
    account: AccountState
    tally: Tally


def start_state(block: PortfolioBlock) -> BlockState:
    first = block.setups[0]
    inputs = first.inputs
    n, n_assets = first.inputs.feed.open.shape[1], len(first.account.collateral)
    ends = inputs.clock.ends_sample[first.first :]
    n_samples = int(ends.sum()) if block.has_returns else 0
    count = min(LANES, -(-len(block.setups) // STEP) * STEP)
    policies = gather_policies(block, n, count)
    lanes = LaneArrays(
        account=make_aligned(field.N_ACCOUNT * LANES),
        position=make_aligned(n * field.N_POSITION * LANES),
        prices=np.zeros((field.N_PRICES, n)),
        assets=make_aligned(n_assets * LANES),
        asset_prices=np.zeros((field.N_ASSET_PRICES, n_assets)),
        reach=np.zeros(n),
        signal=np.ones(n),
        is_pending=np.zeros(n, np.int64),
        is_traded=np.zeros(n, np.int64),
        kinds=find_kinds(inputs.terms),
        has_isolated=bool(np.any(inputs.terms.rules.brackets.are_isolated)),
        has_exits=bool(np.any(inputs.terms.flags[[HAS_STOP, HAS_EXITS]])),
        is_crossed=not np.all(inputs.terms.rules.brackets.are_isolated),
        last_funding=np.full(n, np.nan),
        cursor=np.zeros(3, np.int64),
        kept_account=np.zeros(field.N_ACCOUNT * LANES),
        kept_position=np.zeros(n * field.N_POSITION * LANES),
        kept_memory=np.zeros_like(policies.memory),
        kept_assets=np.zeros(n_assets * LANES),
        left_at=np.full(count, -1, np.int64),
        units=np.zeros((n_samples, LANES)),
        free=np.zeros(1 + LANES),
    )
    for lane in range(count):
        begin_lane(lanes, block.setups[min(lane, len(block.setups) - 1)], n, lane)
        is_filler = lane >= len(block.setups)
        lanes.account[cell(field.IS_LIVE, lane)] = 0.0 if is_filler else 1.0
    none = np.zeros(n + 1, np.int64)
    account = start_account_state(inputs, first.account, first.first, has_overlay=False)
    silent: dict[str, Any] = {
        "asks": none,
        "wants_price": none[:n].copy(),
        "wants_account": none.copy(),
    }
    silent |= {"wants_bar": none.copy(), "tradable": np.zeros((1, n), np.int64)}
    return BlockState(
        terms=copy_terms(inputs.terms),
        lanes=lanes,
        policies=policies,
        deciders=block.deciders._replace(**silent),
        account=account,
        tally=start_tally(1.0, 1.0, first.first),
    )


def begin_lane(lanes: LaneArrays, setup: Setup, n: int, lane: int) -> None:
    account = start_account_state(setup.inputs, setup.account, setup.first, has_overlay=False)
    wallet, numbers = account.wallet, setup.inputs.terms.numbers
    for k in range(field.WALLET_ROWS):
        lanes.account[cell(k, lane)] = wallet[k]
    write_tally(
        lanes.account, start_tally(float(wallet[UNIT]), float(wallet[EQUITY]), setup.first), lane
    )
    line = find_line(setup.inputs.terms.ruin_at, wallet[RESERVE], wallet[PAID_IN])
    lanes.account[cell(field.LINE, lane)] = line
    lanes.account[cell(field.FIRST_UNIT, lane)] = wallet[UNIT]
    for c, amount in enumerate(account.held.amounts):
        lanes.assets[cell(c, lane)] = amount
        lanes.asset_prices[field.ASSET_LAST, c] = account.priced[c]
    for i in range(n):
        lanes.position[spot(i, field.TARGET, lane)] = math.nan
        lanes.position[spot(i, field.LAST_STOP, lane)] = -math.inf
        lanes.position[spot(i, field.LAST_HIT, lane)] = -math.inf
        lanes.position[spot(i, field.BAND, lane)] = numbers[field.NUMBER_OF_BAND, i]
        lanes.position[spot(i, field.MIN_LEVERAGE, lane)] = numbers[field.NUMBER_OF_LEAST, i]
        lanes.position[spot(i, field.MAX_LEVERAGE, lane)] = numbers[field.NUMBER_OF_MOST, i]


def copy_terms(terms: Terms) -> Terms:
    brackets, scenarios = terms.rules.brackets, terms.rules.scenarios
    rules = terms.rules._replace(
        brackets=brackets._replace(
            multipliers=brackets.multipliers.copy(),
            initial_multipliers=brackets.initial_multipliers.copy(),
        ),
        scenarios=scenarios._replace(nets=scenarios.nets.copy()),
    )
    return terms._replace(numbers=terms.numbers.copy(), rules=rules)


def gather_policies(block: PortfolioBlock, n: int, count: int) -> LanePolicies:
    panels = [each.observed for each in block.setups]
    panels += [panels[-1]] * (count - len(panels))
    own = [*block.columns, *[block.columns[-1]] * (count - len(block.columns))]
    columns = np.zeros((n, LANES), np.int64)
    for i in range(n):
        columns[i, :count] = [each[i].ctypes.data for each in own]
    deciders, policies = block.deciders, panels[0][:n]
    memories = [join_memories(panel) for panel in panels]
    widths = [len(start_memory(each.policy) or ()) for each in panels[0]]
    n_columns = np.array([len(each.columns) for each in policies], np.int64)
    return LanePolicies(
        addresses=np.array(block.addresses, np.int64),
        params=stack_lanes([flatten_settings(list(panel))[0] for panel in panels]),
        params_at=deciders.params_at,
        memory=stack_lanes(memories),
        memory_at=np.cumsum([0, *widths]).astype(np.int64),
        columns=columns.ravel(),
        n_columns=n_columns,
        has_own_columns=has_own_columns(block.columns),
        lengths=deciders.lengths,
        firsts=deciders.firsts,
        tradable=deciders.tradable,
        seen=make_aligned(max(1, *n_columns.tolist()) * LANES),
        bar=np.zeros(7),
        shown=make_aligned(N_SHOWN * LANES),
        wants_account=bool(np.any(deciders.wants_account)),
        wants_margins=bool(find_all_read(panels[0]) & MARGINS),
        interval=deciders.interval,
        start=deciders.start,
    )


def join_memories(panel: Sequence[ObservedPolicy]) -> FloatArray:
    memories = [np.array(start_memory(each.policy) or (), np.float64) for each in panel]
    return np.concatenate(memories)


def stack_lanes(columns: Sequence[FloatArray]) -> FloatArray:
    rows = make_aligned((len(columns[0]) + 1) * LANES)
    rows.reshape(-1, LANES)[:-1, : len(columns)] = np.stack(columns, axis=1)
    return rows


def run_state(block: PortfolioBlock, state: BlockState, is_stopped: Callable[[], bool]) -> bool:
    from backtest.sweep.portfolios.portfolio_lane_compiler import find_lane_loop  # noqa: PLC0415 - numba

    first = block.setups[0]
    inputs, total = first.inputs, len(first.inputs.feed.time)
    n, n_assets = inputs.feed.open.shape[1], len(first.account.collateral)
    quotes, scratch, ledger = new_quotes(n, n_assets), new_scratch(n, n_assets), new_ledger_array(n)
    tape = new_tape(n, 0, first.first, 0)
    tape.is_on[0] = 0
    records = (quotes, scratch, ledger)
    shared = (inputs.feed, inputs.clock, inputs.log_returns)
    run_of = (state.deciders, state.account, *records, state.tally, tape, 0, 1)
    loop, address = find_lane_loop((pack_terms(state.terms), *shared, *run_of))
    terms, t = state.terms, first.first
    for bar, i, margin in inputs.changes:
        terms = write_table(terms, i, margin) if bar < t else terms
    while t < total:
        if is_stopped():
            return False
        for bar, i, margin in inputs.changes:
            terms = write_table(terms, i, margin) if bar == t else terms
        stop = min(t + CHUNK, total, *(bar for bar, _, _ in inputs.changes if bar > t))
        given = (
            pack_terms(terms),
            *shared,
            state.policies,
            state.lanes,
            state.deciders,
            state.account,
        )
        with hold_signals():
            t, why = loop(*given, *records, tape, address, first.first, t, stop)
        if why != DONE:
            raise BlockFault
    return True


# -------------------------------------------------------------------------------- its measures


def read_scores(names: tuple[str, ...], block: PortfolioBlock, state: BlockState) -> Scored:
    first, count = block.setups[0], len(block.setups)
    total = len(first.inputs.feed.time)
    ends = first.inputs.clock.ends_sample[first.first :]
    tallies, wallets, returns = [], [], []
    for lane in range(count):
        account = state.lanes.account
        tally = read_tally_of(account, 0.0, total - first.first, lane)
        wallet = account.reshape(-1, LANES)[: field.WALLET_ROWS, lane]
        sampled = state.lanes.units[:, lane].copy()
        if state.lanes.left_at[lane] >= 0:
            tally, wallet, rest = finish_lane(block, state, lane)
            sampled = np.concatenate([sampled[: len(sampled) - len(rest)], rest])
        tallies.append(tally)
        wallets.append(wallet[: field.WALLET_ROWS])
        if block.has_returns:
            whole = np.ones(int(ends.sum()))
            returns.append(sampled_returns(sampled, whole, tally.first_unit))
    metrics = measure_wallets(names, block.span, tallies, np.array(wallets))
    return Scored(metrics, np.stack(returns, axis=1) if returns else np.zeros((0, count)))


def measure_wallets(
    names: tuple[str, ...], span: RunSpan, tallies: Sequence[Tally], wallets: FloatArray
) -> dict[str, FloatArray]:
    """Compute measures from tallies and wallets, of shape (accounts, fields)."""
    flat = [flatten_tally(each) for each in tallies]
    numbers = {name: np.array([each[name] for each in flat]) for name in flat[0]}
    found = measure_accounts(numbers, span, wallets[:, UNIT], wallets[:, EQUITY])
    measured = {name: np.asarray(found[name], dtype=np.float64) for name in names}
    for name, row in (("price_pnl", ASSETS_SO_FAR), ("slippage", CONVERTED_SO_FAR)):
        if name in measured:
            measured[name] = measured[name] - wallets[:, row]
    return measured


def finish_lane(
    block: PortfolioBlock, state: BlockState, lane: int
) -> tuple[Tally, FloatArray, FloatArray]:
    setup, lanes = block.setups[lane], state.lanes
    inputs, start = setup.inputs, int(lanes.left_at[lane])
    deciders = block.find_deciders(setup)
    account = read_kept(setup, lanes, deciders.tradable, start, lane)
    read_memories(state, deciders, lane)
    tally = read_tally_of(
        lanes.kept_account, float(lanes.free[1 + lane]), start - setup.first, lane
    )
    total = len(inputs.feed.time)
    tape = new_tape(len(account.margin), 0, start, 0)
    tape.is_on[0] = 0
    tape = tape._replace(units=np.zeros(total - start))
    given = (
        inputs,
        account,
        deciders,
        deciders,
        Counts(tally, None),
        start,
        total,
        tape,
        CHUNK,
        None,
    )
    counts = Counts(tally, None)
    if start < total:
        counts, _ = drive(find_simulate(is_compiled=True), pack_terms, *given)
    rest = tape.units[inputs.clock.ends_sample[start:] != 0.0] if block.has_returns else np.zeros(0)
    return counts.tally, account.wallet, rest


def read_kept(
    setup: Setup, lanes: LaneArrays, tradable: IntArray, start: int, lane: int
) -> AccountState:
    feed = setup.inputs.feed
    account = start_account_state(setup.inputs, setup.account, setup.first, has_overlay=False)
    brackets = setup.inputs.terms.rules.brackets
    for k in range(field.WALLET_ROWS):
        account.wallet[k] = lanes.kept_account[cell(k, lane)]
    last = max(start - 1, 0)
    for i in range(len(account.margin)):
        quantity = lanes.kept_position[spot(i, field.QUANTITY, lane)]
        account.held.quantities[i] = quantity
        account.held.entries[i] = lanes.kept_position[spot(i, field.ENTRY, lane)]
        account.marked[i] = lanes.kept_position[spot(i, field.MARKED, lane)]
        if quantity != 0.0:
            price = feed.mark_close[last, i]
            account.marked[i] = compute_value(brackets.sizes[i], brackets.are_inverse[i], price)
        account.margin[i] = lanes.kept_position[spot(i, field.MARGIN, lane)]
        account.best[i] = lanes.kept_position[spot(i, field.BEST, lane)]
        account.is_halted[i] = int(lanes.kept_position[spot(i, field.IS_HALTED, lane)])
        account.since[i] = account.wallet[SINCE_POOL]
        if brackets.are_isolated[i]:
            account.since[i] = start - 1.0 - lanes.kept_position[spot(i, field.LAST_HIT, lane)]
        account.since_stop[i] = start - 1.0 - lanes.kept_position[spot(i, field.LAST_STOP, lane)]
        account.leverage[i] = lanes.kept_position[spot(i, field.TARGET, lane)]
        account.signal[i] = feed.signal[min(last, len(feed.signal) - 1), i]
        account.is_pending[i] = tradable[min(last, len(tradable) - 1), i]
    for c in range(len(account.priced)):
        account.held.amounts[c] = lanes.kept_assets[cell(c, lane)]
        account.priced[c] = (
            feed.asset_mark_close[c, last] if start > setup.first else account.priced[c]
        )
    account.cursor[0] = np.searchsorted(feed.funding_bar, start)
    account.cursor[1] = np.searchsorted(feed.flow_bar, start)
    for event in range(account.cursor[0]):
        account.last_funding[feed.funding_instrument[event]] = feed.funding_rate[event]
    return account


def read_memories(state: BlockState, deciders: Deciders, lane: int) -> None:
    at = state.policies.memory_at
    for i in range(len(at) - 1):
        for k in range(at[i + 1] - at[i]):
            deciders.memory[deciders.memory_at[i] + k] = state.lanes.kept_memory[
                cell(at[i] + k, lane)
            ]
