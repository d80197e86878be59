"""Blocks of up to 64 sets that pass the markets side by side: who fits, and what is measured."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest import _compile, engine
from backtest._compile.object_code import flatten
from backtest.account import Terms, find_line, pick_margin, records
from backtest.account import money as m
from backtest.account.money import WALLET
from backtest.account.records import WINDOW, TradedDays
from backtest.core import FloatArray, IntArray
from backtest.engine.driver import CHUNK, view_leaf
from backtest.engine.loop import ADDRESS, DONE, N_SHOWN
from backtest.margin import compute_best_leverage, compute_value
from backtest.policies import (
    Combinator,
    Policy,
    find_fields,
    formula_for,
    number_elements,
    start_memory,
)
from backtest.results import RunSpan, measure_accounts, sampled_returns, start_tally
from backtest.results.tally import Tally
from backtest.sweep.lanes import rows as r
from backtest.sweep.lanes.formulas import find_block
from backtest.sweep.lanes.loop import NAMES
from backtest.sweep.lanes.rows import LANES, LanePolicies, Lanes, PriceTable, make_aligned
from backtest.sweep.panel import BlockFault, Scored

LEAST_LANES = 4
"""Fewer sets are faster one by one."""
MORE = 1.0 + 1e-6
"""Factor on the equity that the smallest position needs."""
HAS_ROUNDING = records.FLAGS.index("has_rounding")
GAINS = ("flows", "top_up", "bad_debt")
KIND, TABLE = r.FillKind(*[True] * len(r.FillKind._fields)), r.Table(1.0, 1.0, 1.0)
OWN_RULES = r.read_rules(np.ones(r.N_NUMBERS * LANES), KIND, TABLE, 0, 0)
FOLLOWED = ("has_stop", "has_exits", "is_funded_by_wallet")
"""Flags that lanes follow, though the rules that they trade by never have them."""
REFUSED = [k for k, x in enumerate(records.FLAGS) if not (getattr(OWN_RULES, x) or x in FOLLOWED)]


def fits_lanes(setup: engine.Setup, deciders: engine.Deciders) -> bool:
    inputs, terms = setup.inputs, setup.inputs.terms
    brackets, feed = terms.rules.brackets, inputs.feed
    is_plain = not (terms.rules.has_scenarios or terms.has_floor or np.any(terms.flags[:, REFUSED]))
    is_plain &= terms.margin_call == 0.0 and terms.grace < 0.0
    is_plain &= terms.fill == records.AT_OPEN and not terms.rules.spot.has_any
    is_plain &= not terms.has_time_stop and len(deciders.rows) == 1
    is_plain &= not (terms.is_loan and terms.has_interest) and not np.any(terms.expenses)
    is_plain &= not np.any(brackets.are_valued_at_entry)
    is_plain &= len(set(brackets.are_isolated.tolist())) == 1  # all are isolated, or none
    is_plain &= not np.any(
        terms.flags[:, records.FLAGS.index("is_funded_by_wallet")] & brackets.are_isolated
    )
    is_plain &= len(feed.multiplier) == 1 and len(feed.initial) == 1 and len(feed.costs) == 1
    is_plain &= terms.rules.level == 1.0 and len(setup.account.collateral) == 0
    read = [find_read(each.policy, tuple(each.columns)) for each in setup.observed]
    is_plain &= frozenset().union(*read) <= {*NAMES}
    return bool(is_plain and not np.any(deciders.asks[-1:]) and not np.any(deciders.sets_margin))


def list_shared(setup: engine.Setup) -> tuple[Any, ...]:
    """Return all that the lanes of a block share of the terms and the feed."""
    inputs, feed = setup.inputs, setup.inputs.feed
    brackets = inputs.terms.rules.brackets._replace(takers=0)  # lanes read their own
    rules = inputs.terms.rules._replace(brackets=brackets)
    terms = inputs.terms._replace(instruments=0, numbers=0, rules=rules)
    return (
        feed.flow_bar, feed.flow_amount, feed.multiplier, feed.initial, feed.years, feed.sigma,
        feed.adv, feed.borrow_rate, feed.cash_rate, feed.short_rate, feed.stop_scale,
        feed.profit_scale, feed.trail_scale, inputs.clock.risk_free, inputs.changes, terms,
    )  # fmt: skip


def is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, np.ndarray):
        return bool(one.shape == other.shape and one.tobytes() == other.tobytes())
    return bool(one == other)


def find_kinds(terms: Terms) -> IntArray:
    """Return how lanes fill the orders of each instrument, of shape (n,)."""
    brackets = terms.rules.brackets
    are_inverse, are_isolated = brackets.are_inverse != 0, brackets.are_isolated != 0
    has_impact = terms.flags[:, records.FLAGS.index("has_impact")] != 0
    kinds = np.where(terms.flags[:, HAS_ROUNDING] != 0, r.LOTS, r.PLAIN)
    kinds = np.where(has_impact, r.LINEAR, kinds)
    kinds = np.where(are_inverse, r.INVERTED, kinds)
    kinds = np.where(are_isolated, r.ISOLATED, kinds)
    return np.where(are_isolated & are_inverse, r.ISOLATED_INVERSE, kinds).astype(np.int64)


def find_read(policy: Policy, columns: tuple[str, ...]) -> frozenset[str]:
    if not isinstance(policy, Combinator):
        return find_fields(formula_for(policy, columns), 2)
    found = find_fields(policy.written.combine, 2)
    for part, asked in zip(policy.parts, policy.policies, strict=True):
        found |= find_read(asked, part.find_own(columns))
    return found


class Block(NamedTuple):
    """Sets side by side; ``varied`` are the values that differ, by name, one for each set.

    ``rooms`` has what the blocks of a thread use one after another.
    """

    setups: Sequence[engine.Setup]
    varied: Mapping[str, Sequence[Any]]
    deciders: engine.Deciders
    addresses: Sequence[int]
    columns: Sequence[Sequence[FloatArray]]
    warm_ups: Sequence[list[engine.WarmUp]]
    span: RunSpan
    has_returns: bool
    is_full: bool
    table: PriceTable
    rooms: threading.local


def join_columns(setups: Sequence[engine.Setup]) -> list[list[FloatArray]]:
    joined: dict[int, FloatArray] = {}
    for setup in setups:
        for each in setup.observed:
            if id(each.columns) not in joined:
                own = list(each.columns.values()) or [np.zeros(1)]
                one = own[0] if len(own) == 1 else np.concatenate(own)
                joined[id(each.columns)] = np.asarray(one, dtype=np.float64)
    if len({each.strides for each in joined.values()}) > 1:  # lanes take steps of one length
        joined = {key: np.ascontiguousarray(each) for key, each in joined.items()}
    return [[joined[id(each.columns)] for each in setup.observed] for setup in setups]


def has_own_columns(columns: Sequence[Sequence[FloatArray]]) -> bool:
    return len({tuple(map(id, each)) for each in columns}) > 1


def score_block(
    names: tuple[str, ...], block: Block, is_stopped: Callable[[], bool]
) -> Scored | None:
    setup, count = block.setups[0], len(block.setups)
    ends = setup.inputs.clock.ends_sample[setup.first :]
    lanes = start_lanes(block, int(ends.sum()))
    account = lanes.account.reshape(-1, LANES)[:, :count]
    began = account[WALLET.equity].copy()
    if not run_block(block, lanes, is_stopped):
        return None
    flat = {name: account[row].copy() for name, row in r.TALLY._asdict().items()}
    flat["bars"] = np.full(count, float(len(ends)))
    wallets, units = account[: r.WALLET_ROWS].T.copy(), lanes.units[:, :count].copy()
    metrics = measure_wallets(names, block.span, flat, wallets, began)
    returns = np.zeros((0, count))
    if block.has_returns:
        returns = sampled_returns(units, np.ones(len(units)), flat["first_unit"])
    return Scored(metrics, returns, measure_decided(block, flat["traded"]), lanes.counts)


def measure_decided(block: Block, traded: FloatArray) -> FloatArray:
    """Return the share of the bars on which each set decided, of shape (n_sets,)."""
    setup = block.setups[0]
    begins, n_bars = block.deciders.firsts.tolist(), len(setup.inputs.feed.time)
    shares = [
        engine.measure_decided(own, begins, setup.first, n_bars, has_traded=amount > 0.0)
        for own, amount in zip(block.warm_ups, traded.tolist(), strict=True)
    ]
    return np.array(shares)


def start_lanes(block: Block, n_samples: int) -> Lanes:
    inputs = block.setups[0].inputs
    n, terms, kinds = inputs.feed.open.shape[1], inputs.terms, find_kinds(inputs.terms)
    feed, due = inputs.feed, np.zeros(len(inputs.feed.time), np.int64)
    for bars in (feed.flow_bar, feed.funding_bar, feed.span[feed.ends == 1, 1] - 1):
        due[bars[(bars >= 0) & (bars < len(due))]] = 1
    trails = terms.numbers[:, records.NUMBERS.index("trailing_stop")]
    scales = (feed.stop_scale, feed.profit_scale, feed.trail_scale)
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
        kinds=kinds,
        is_known=np.zeros(n, np.int64),
        is_full=block.is_full,
        has_isolated=bool(np.any(terms.rules.brackets.are_isolated)),
        has_exits=bool(np.any(terms.flags[:, [records.HAS_STOP, records.HAS_EXITS]])),
        moves_stops=bool(np.any(trails > 0.0)) or any(len(each) > 1 for each in scales),
        has_rest=bool(np.any(kinds != r.PLAIN)),
        last_funding=np.full(n, np.nan),
        cursor=np.zeros(r.N_CURSOR, np.int64),
        found=np.zeros(len(r.REASONS), np.int64),
        counts=np.zeros(len(r.REASONS), np.int64),
        units=np.zeros((n_samples if block.has_returns else 0, LANES)),
        free=np.zeros(1),
        tally=Tally(),
        table=block.table.values,
        is_due=due,
    )
    account, position = lanes.account.reshape(-1, LANES), lanes.position.reshape(n, -1, LANES)
    numbers, widest = lanes.numbers.reshape(n, -1, LANES), find_widest(inputs)
    position[:, r.HELD.target] = math.nan
    position[:, [r.HELD.last_stop, r.HELD.last_hit]] = -math.inf
    groups: dict[int, list[int]] = {}
    for lane, setup in enumerate(block.setups):
        groups.setdefault(id(setup.inputs), []).append(lane)
    groups[id(inputs)] += range(len(block.setups), LANES)  # lanes without a set, which never trade
    for places in groups.values():
        setup, one = block.setups[places[0]], np.zeros(r.N_ACCOUNT)
        wallet = engine.start_account_state(setup).wallet
        tally = start_tally(float(wallet.unit), float(wallet.equity), setup.first)
        one[: r.WALLET_ROWS] = wallet.numbers
        one[r.FIRST_OF_TALLY : r.STATE_ROWS] = tally.numbers
        one[WALLET.since_pool] = setup.first - 1.0 - wallet.since_pool
        line = find_line(setup.inputs.terms.ruin_at, wallet.reserve, wallet.paid_in)
        one[r.OWN.least] = find_least(setup.inputs, widest)
        one[r.OWN.line] = max(line, one[r.OWN.least] - wallet.reserve, 0.0)
        one[r.OWN.keep], one[r.OWN.is_live] = 1.0, 1.0
        account[:, places] = one[:, None]
        numbers[:, :, places] = setup.inputs.terms.numbers[:, :, None]
    account[r.OWN.is_live, len(block.setups) :] = 0.0
    position[:, r.HELD.rest, len(block.setups) :] = math.nan
    return lanes


def find_widest(inputs: Any) -> list[float]:
    """Return the largest u of each instrument with lots, 0 for others."""
    feed, brackets, found = inputs.feed, inputs.terms.rules.brackets, []
    for i, has_rounding in enumerate(inputs.terms.flags[:, HAS_ROUNDING]):
        columns = (feed.open, feed.mark_open, feed.mark_low, feed.mark_high) if has_rounding else ()
        ends = [end(each[:, i]) for each in columns for end in (np.nanmin, np.nanmax)]
        size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
        values = [abs(compute_value(size, is_inverse, float(price))) for price in ends]
        found.append(max(values, default=0.0))
    return found


def find_least(inputs: Any, widest: Sequence[float]) -> float:
    """Bound the equity that the smallest position of any instrument needs, at any bar."""
    terms, least = inputs.terms, 0.0
    for i in np.flatnonzero(terms.flags[:, HAS_ROUNDING]).tolist():
        tables = [pick_margin(terms, i), *(margin for _, k, margin in inputs.changes if k == i)]
        best = min(compute_best_leverage(each, inputs.feed.initial[0, i]) for each in tables)
        most = min(best, terms.numbers[i, r.NUMBER.max_leverage])
        need = max(
            terms.numbers[i, r.NUMBER.min_notional], terms.numbers[i, r.NUMBER.lot] * widest[i]
        )
        least = max(least, need / most * MORE if most > 0.0 else 0.0)
    return least


def gather_policies(block: Block, n: int) -> LanePolicies:
    panels = [each.observed for each in block.setups]
    panels += [panels[-1]] * (LANES - len(panels))
    warm_ups = [*block.warm_ups, *[block.warm_ups[-1]] * (LANES - len(block.warm_ups))]
    own = [*block.columns, *[block.columns[-1]] * (LANES - len(block.columns))]
    columns = np.zeros((n, LANES), np.int64)
    for i in range(n):
        columns[i] = [each[i].ctypes.data for each in own]
    deciders, policies = block.deciders, panels[0][:n]
    memories = [
        np.array([x for each in panel for x in start_memory(each.policy) or ()], np.float64)
        for panel in panels
    ]
    known = np.array([[each[i].bar for each in warm_ups] for i in range(n)], np.int64)
    widths = [len(start_memory(each.policy) or ()) for each in panels[0]]
    n_columns = np.array([len(each.columns) for each in policies], np.int64)
    return LanePolicies(
        addresses=np.array(block.addresses, np.int64),
        params=lay_params(block),
        params_at=deciders.params_at,
        memory=stack_lanes(memories),
        memory_at=np.cumsum([0, *widths]).astype(np.int64),
        begun=stack_lanes(memories),
        known=known.ravel(),
        latest=known.max(axis=1),
        columns=columns.ravel(),
        n_columns=n_columns,
        has_own_columns=has_own_columns(block.columns),
        stride=block.columns[0][0].strides[0] // 8,
        lengths=deciders.lengths,
        firsts=deciders.firsts,
        tradable=deciders.tradable,
        seen=make_aligned(max(1, *n_columns.tolist()) * LANES),
        bar=np.zeros(7),
        shown=make_aligned(N_SHOWN * LANES),
        wants_account=bool(np.any(deciders.wants_account)),
        wants_bar=bool(np.any(deciders.wants_bar)),
        interval=deciders.interval,
        start=int(deciders.start[0]),
    )


def lay_params(block: Block) -> FloatArray:
    """Return the parameters of all lanes: those of the first, and what sets vary."""
    observed = list(block.setups[0].observed)
    numbers, begins = engine.flatten_settings(observed)
    rows = make_aligned((len(numbers) + 1) * LANES)
    table = rows.reshape(-1, LANES)
    table[:-1] = numbers[:, None]

    names = [*number_elements(observed[0].policy.settings())]
    for place, name in enumerate(names):
        values = block.varied.get(name, ())
        if len(values):
            table[begins + place, : len(values)] = values
            table[begins + place, len(values) :] = values[-1]
    return rows


def find_warm_ups(setups: Sequence[engine.Setup], n: int) -> list[list[engine.WarmUp]]:
    """Return the warm-up of the n policies of each set."""
    found: dict[int, engine.WarmUp] = {}  # sets share columns
    for setup in setups:
        for each in setup.observed[:n]:
            if id(each.columns) not in found:
                found[id(each.columns)] = engine.find_warm_up(each.columns)
    return [[found[id(each.columns)] for each in setup.observed[:n]] for setup in setups]


def stack_lanes(columns: Sequence[FloatArray]) -> FloatArray:
    rows = make_aligned((len(columns[0]) + 1) * LANES)
    rows.reshape(-1, LANES)[:-1, : len(columns)] = np.stack(columns, axis=1)
    return rows


class LaneFees:
    """The fees of lanes, by what each of them traded in the days before."""

    def __init__(self, block: Block, lanes: Lanes) -> None:
        self.account = lanes.account.reshape(-1, LANES)
        self.numbers = lanes.numbers.reshape(-1, r.N_NUMBERS, LANES)
        inputs: list[Any] = [each.inputs for each in block.setups]
        self.before, self.day = np.zeros(LANES), inputs[0].fees.day
        first = int(self.day[block.setups[0].first])
        self.traded = TradedDays(first, np.zeros(LANES), np.zeros((WINDOW, LANES)))
        groups: dict[Any, list[int]] = {}
        for lane, each in enumerate(inputs):
            groups.setdefault(each.fees.fees, []).append(lane)
        self.groups = [(inputs[each[0]].fees, each) for each in groups.values()]

    def charge(self, t: int) -> int:
        """Write the fees of bar t; return the end of its day."""
        so_far = self.account[r.TALLY.traded].copy()
        days, self.before = self.traded.add(so_far - self.before), so_far
        self.traded, end = engine.start_day(self.day, days, t)
        for fees, places in self.groups:
            found = fees.find(self.traded.past[:, places])
            for own, (taker, _, fee) in zip(self.numbers, found, strict=True):
                if not np.isnan(fee[0]):
                    own[r.NUMBER.fee, places], own[r.NUMBER.taker, places] = fee, taker
        return end


class Room:
    """Account and records in which a lane passes a bar alone; its arguments are packed once.

    The blocks of a thread whose inputs are the same object use it one after another.
    """

    def __init__(self, block: Block) -> None:
        setup = block.setups[0]
        self.inputs = setup.inputs
        self.first = setup.first
        n = self.inputs.feed.open.shape[1]
        self.in_time = start_terms(self.inputs, self.first)

        tape = engine.new_tape(n, 0, setup.first, 0)
        tape.is_on[0] = 0
        state = engine.start_account_state(setup)
        records = (engine.new_quotes(n, 0), engine.new_scratch(n, 0), engine.new_ledger(n))
        self.of_account = (silence(block.deciders, n), state, *records, tape)
        self.take = _compile.Caller(find_block())
        self.address = 0

        brackets = self.in_time.terms.rules.brackets
        written = (self.in_time.terms.numbers, brackets.multipliers, brackets.initial_multipliers)
        views = map(view_leaf, flatten((*self.of_account, *written)))
        self.begun = [(view, view.copy()) for view in views if isinstance(view, np.ndarray)]

    def begin(self) -> None:
        """Write the numbers with which each block begins."""
        for view, numbers in self.begun:
            view[...] = numbers
        if self.inputs.changes:  # the tables of the last block are those of its last day
            self.in_time = start_terms(self.inputs, self.first)

    def find_address(self, shared: tuple[Any, ...], tally: Tally) -> int:
        """Return the address of the loop of a run, for arguments of these kinds."""
        if self.address == 0:
            silent, *account, tape = self.of_account
            terms = engine.pack_terms(self.in_time.terms)
            simulate = engine.find_entry("simulate_batch", has_parts=False)
            run_of = (silent, *account, tally, tape)
            self.address, _ = simulate(terms, *shared, *run_of, 0, ADDRESS)
        return self.address


def find_room(block: Block) -> Room:
    """Return the room of this thread, another one if it is of other inputs."""
    kept: Room | None = getattr(block.rooms, "room", None)
    if kept is None or kept.inputs is not block.setups[0].inputs:
        kept = block.rooms.room = Room(block)
    return kept


def start_terms(inputs: Any, first: int) -> engine.TermsInTime:
    """Return the terms of a lane's account in time; what bars write into is a copy."""
    brackets = inputs.terms.rules.brackets
    copied = ("multipliers", "initial_multipliers")
    own = brackets._replace(**{name: getattr(brackets, name).copy() for name in copied})
    rules = inputs.terms.rules._replace(brackets=own)
    terms = inputs.terms._replace(numbers=inputs.terms.numbers.copy(), rules=rules)
    return engine.TermsInTime(inputs._replace(terms=terms, fees=None), first, engine.pack_terms)


def silence(deciders: engine.Deciders, n: int) -> engine.Deciders:
    """Return policies that decide nothing, for a lane that passes a bar alone."""
    none = np.zeros(n + 1, np.int64)
    return deciders._replace(
        asks=none,
        wants_price=none[:n].copy(),
        wants_account=none.copy(),
        wants_bar=none.copy(),
        tradable=np.zeros((1, n), np.int64),
    )


def run_block(block: Block, lanes: Lanes, is_stopped: Callable[[], bool]) -> bool:
    setup = block.setups[0]
    inputs, total = setup.inputs, len(setup.inputs.feed.time)
    room = find_room(block)
    room.begin()
    fees = LaneFees(block, lanes) if inputs.fees is not None else None
    policies = gather_policies(block, inputs.feed.open.shape[1])
    shared = (inputs.feed, inputs.clock, inputs.log_returns)
    address = room.find_address(shared, lanes.tally)
    t = setup.first
    while t < total:
        if is_stopped():
            return False
        stop, _ = room.in_time.at(t, min(t + CHUNK, total), None)
        stop = stop if fees is None else min(stop, fees.charge(t))
        span = (t, stop)
        lanes.cursor[r.CURSOR.is_written] = span in block.table.written
        given = (room.in_time.packed, *shared, policies, lanes, *room.of_account)
        t, why = room.take(*given, address, setup.first, *span)
        if why != DONE:
            raise BlockFault
        block.table.written.add(span)
    return True


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
    earned = wallets[:, WALLET.equity] - began - sum(numbers[name] for name in GAINS)
    numbers["price_pnl"] = earned + sum(numbers[name] for name in m.GROWTH_TERMS)
    found = measure_accounts(numbers, span, wallets[:, WALLET.unit], wallets[:, WALLET.equity])
    measured = {name: np.asarray(found[name], dtype=np.float64) for name in names}
    for name, row in (("price_pnl", WALLET.assets_so_far), ("slippage", WALLET.converted_so_far)):
        if name in measured:
            measured[name] = measured[name] - wallets[:, row]
    if "price_pnl" in measured:  # nothing was ever held, and what is left is rounding
        measured["price_pnl"] = np.where(numbers["traded"] == 0.0, 0.0, measured["price_pnl"])
    return measured
