"""Take a block of up to 64 sets through the markets side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest import engine
from backtest.account import AccountState, Terms, find_line, records
from backtest.base import FloatArray, hold_signals
from backtest.engine.driver import CHUNK
from backtest.engine.loop import DONE, N_SHOWN
from backtest.measures import RunSpan, measure_accounts, sampled_returns, start_tally
from backtest.measures.tally import N_TALLY
from backtest.policy import start_memory
from backtest.sweep.lanes import rows as r
from backtest.sweep.lanes.fit import find_all_read, find_kinds
from backtest.sweep.lanes.rows import LANES, LanePolicies, Lanes, empty, make_aligned
from backtest.sweep.panel import BlockFault, Scored

LEAST_LANES = 4
"""Fewer sets are faster one by one."""
HAS_ROUNDING = records.FLAGS.index("has_rounding")
GAINS = ("flows", "top_up", "bad_debt")
LOSSES = ("fees", "slippage", "impact", "funding", "interest", "liquidation_loss")


class Block(NamedTuple):
    setups: Sequence[engine.Setup]
    deciders: engine.Deciders
    addresses: Sequence[int]
    columns: Sequence[Sequence[FloatArray]]
    span: RunSpan
    has_returns: bool
    is_full: bool


def join_columns(setups: Sequence[engine.Setup]) -> list[list[FloatArray]]:
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


def score_block(
    names: tuple[str, ...], block: Block, is_stopped: Callable[[], bool]
) -> Scored | None:
    state = start_state(block)
    if not run_state(block, state, is_stopped):
        return None
    return read_scores(names, block, state)


class BlockState(NamedTuple):
    terms: Terms
    lanes: Lanes
    policies: LanePolicies
    deciders: engine.Deciders
    account: AccountState
    began: FloatArray


def start_state(block: Block) -> BlockState:
    first = block.setups[0]
    inputs = first.inputs
    n = inputs.feed.open.shape[1]
    ends = inputs.clock.ends_sample[first.first :]
    policies = gather_policies(block, n)
    brackets = inputs.terms.rules.brackets
    lanes = Lanes(
        account=make_aligned(r.N_ACCOUNT * LANES),
        position=make_aligned(n * r.N_POSITION * LANES),
        numbers=make_aligned(n * r.N_NUMBERS * LANES),
        kept_account=np.zeros(r.N_ACCOUNT * LANES),
        kept_position=np.zeros(n * r.N_POSITION * LANES),
        prices=np.zeros((r.N_PRICES, n)),
        most=np.zeros(n),
        signal=np.ones(n),
        is_pending=np.zeros(n, np.int64),
        is_asking=np.zeros(n, np.int64),
        kinds=find_kinds(inputs.terms),
        is_known=np.zeros((2, n), np.int64),
        is_full=block.is_full,
        has_isolated=bool(np.any(brackets.are_isolated)),
        has_exits=bool(np.any(inputs.terms.flags[[records.HAS_STOP, records.HAS_EXITS]])),
        moves_stops=moves_stops(inputs),
        has_lots=bool(np.any(inputs.terms.flags[HAS_ROUNDING])),
        has_rest=bool(np.any(find_kinds(inputs.terms) != r.PLAIN)),
        last_funding=np.full(n, np.nan),
        cursor=np.zeros(5, np.int64),
        units=np.zeros((int(ends.sum()) if block.has_returns else 0, LANES)),
        free=np.zeros(1),
        tally=np.zeros(N_TALLY),
    )
    begin_lanes(lanes, block.setups, n)
    for lane in range(len(block.setups), LANES):
        empty(lanes, n, lane)
    none = np.zeros(n + 1, np.int64)
    account = engine.start_account_state(inputs, first.account, first.first, has_overlay=False)
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
        began=lanes.account.reshape(-1, LANES)[records.EQUITY].copy(),
    )


def moves_stops(inputs: Any) -> bool:
    feed, trails = inputs.feed, inputs.terms.numbers[records.NUMBERS.index("trailing_stop")]
    scales = (feed.stop_scale, feed.profit_scale, feed.trail_scale)
    return bool(np.any(trails > 0.0)) or any(len(each) > 1 for each in scales)


def begin_lanes(lanes: Lanes, setups: Sequence[engine.Setup], n: int) -> None:
    account, position = lanes.account.reshape(-1, LANES), lanes.position.reshape(n, -1, LANES)
    numbers = lanes.numbers.reshape(n, -1, LANES)
    position[:, r.TARGET] = math.nan
    position[:, [r.LAST_STOP, r.LAST_HIT]] = -math.inf
    groups: dict[int, list[int]] = {}
    for lane, setup in enumerate(setups):
        groups.setdefault(id(setup.inputs), []).append(lane)
    for places in groups.values():
        setup = setups[places[0]]
        terms = setup.inputs.terms
        wallet = engine.start_account_state(
            setup.inputs, setup.account, setup.first, has_overlay=False
        ).wallet
        one = np.zeros(r.N_ACCOUNT)
        one[r.TALLY : r.STATE_ROWS] = start_tally(
            float(wallet[records.UNIT]), float(wallet[records.EQUITY]), setup.first
        )
        one[: r.WALLET_ROWS] = wallet
        one[records.SINCE_POOL] = setup.first - 1.0 - wallet[records.SINCE_POOL]
        one[r.LINE] = find_line(terms.ruin_at, wallet[records.RESERVE], wallet[records.PAID_IN])
        one[r.KEEP], one[r.IS_LIVE] = 1.0, 1.0
        account[:, places] = one[:, None]
        numbers[:, :, places] = terms.numbers.T[:, :, None]


def copy_terms(terms: Terms) -> Terms:
    brackets = terms.rules.brackets
    rules = terms.rules._replace(
        brackets=brackets._replace(
            multipliers=brackets.multipliers.copy(),
            initial_multipliers=brackets.initial_multipliers.copy(),
        ),
    )
    return terms._replace(numbers=terms.numbers.copy(), rules=rules)


def gather_policies(block: Block, n: int) -> LanePolicies:
    panels = [each.observed for each in block.setups]
    panels += [panels[-1]] * (LANES - len(panels))
    own = [*block.columns, *[block.columns[-1]] * (LANES - len(block.columns))]
    columns = np.zeros((n, LANES), np.int64)
    for i in range(n):
        columns[i] = [each[i].ctypes.data for each in own]
    deciders, policies = block.deciders, panels[0][:n]
    memories = [join_memories(panel) for panel in panels]
    widths = [len(start_memory(each.policy) or ()) for each in panels[0]]
    n_columns = np.array([len(each.columns) for each in policies], np.int64)
    return LanePolicies(
        addresses=np.array(block.addresses, np.int64),
        params=stack_lanes([engine.flatten_settings(list(panel))[0] for panel in panels]),
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
        wants_bar=bool(np.any(deciders.wants_bar)),
        wants_maintenance="maintenance" in find_all_read(panels[0]),
        interval=deciders.interval,
        start=deciders.start,
    )


def join_memories(panel: Sequence[engine.ObservedPolicy]) -> FloatArray:
    memories = [np.array(start_memory(each.policy) or (), np.float64) for each in panel]
    return np.concatenate(memories)


def stack_lanes(columns: Sequence[FloatArray]) -> FloatArray:
    rows = make_aligned((len(columns[0]) + 1) * LANES)
    rows.reshape(-1, LANES)[:-1, : len(columns)] = np.stack(columns, axis=1)
    return rows


def run_state(block: Block, state: BlockState, is_stopped: Callable[[], bool]) -> bool:
    from backtest.sweep.lanes.compiler import find_lane_loop  # noqa: PLC0415 - numba

    first = block.setups[0]
    inputs, total = first.inputs, len(first.inputs.feed.time)
    n = inputs.feed.open.shape[1]
    quotes, scratch, ledger = (
        engine.new_quotes(n, 0),
        engine.new_scratch(n, 0),
        engine.new_ledger_array(n),
    )
    tape = engine.new_tape(n, 0, first.first, 0)
    tape.is_on[0] = 0
    records = (quotes, scratch, ledger)
    shared = (inputs.feed, inputs.clock, inputs.log_returns)
    run_of = (state.deciders, state.account, *records, state.lanes.tally, tape, 0, 1)
    loop, address = find_lane_loop((engine.pack_terms(state.terms), *shared, *run_of))
    terms, t = state.terms, first.first
    for bar, i, margin in inputs.changes:
        terms = engine.write_table(terms, i, margin) if bar < t else terms
    while t < total:
        if is_stopped():
            return False
        for bar, i, margin in inputs.changes:
            terms = engine.write_table(terms, i, margin) if bar == t else terms
        stop = min(t + CHUNK, total, *(bar for bar, _, _ in inputs.changes if bar > t))
        given = (
            engine.pack_terms(terms),
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


def read_scores(names: tuple[str, ...], block: Block, state: BlockState) -> Scored:
    first, count = block.setups[0], len(block.setups)
    total = len(first.inputs.feed.time)
    ends = first.inputs.clock.ends_sample[first.first :]
    account = state.lanes.account.reshape(-1, LANES)[:, :count]
    flat = {name: account[row].copy() for name, row in r.TALLY_ROWS.items()}
    flat["bars"] = np.full(count, float(total - first.first))
    wallets, units = account[: r.WALLET_ROWS].T.copy(), state.lanes.units[:, :count].copy()
    metrics = measure_wallets(names, block.span, flat, wallets, state.began[:count])
    returns = [
        sampled_returns(units[:, lane], np.ones(int(ends.sum())), float(flat["first_unit"][lane]))
        for lane in range(count if block.has_returns else 0)
    ]
    return Scored(metrics, np.stack(returns, axis=1) if returns else np.zeros((0, count)))


def measure_wallets(
    names: tuple[str, ...],
    span: RunSpan,
    numbers: dict[str, FloatArray],
    wallets: FloatArray,
    began: FloatArray,
) -> dict[str, FloatArray]:
    """Compute measures from flat tallies by name, and wallets of shape (accounts, fields).

    The profit of prices is what else explains the change from the equities ``began``.
    """
    earned = wallets[:, records.EQUITY] - began - sum(numbers[name] for name in GAINS)
    numbers["price_pnl"] = earned + sum(numbers[name] for name in LOSSES)
    found = measure_accounts(numbers, span, wallets[:, records.UNIT], wallets[:, records.EQUITY])
    measured = {name: np.asarray(found[name], dtype=np.float64) for name in names}
    for name, row in (("price_pnl", records.ASSETS_SO_FAR), ("slippage", records.CONVERTED_SO_FAR)):
        if name in measured:
            measured[name] = measured[name] - wallets[:, row]
    if "price_pnl" in measured:  # nothing was ever held, and what is left is rounding
        measured["price_pnl"] = np.where(numbers["traded"] == 0.0, 0.0, measured["price_pnl"])
    return measured
