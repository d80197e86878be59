"""Blocks of up to 64 sets that pass the markets side by side: who fits, and what is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest import _compile, engine
from backtest._compile.arguments import flatten
from backtest._compile.bytecode import ACCOUNT
from backtest.account import Terms, find_line, pick_margin, records
from backtest.account import money as m
from backtest.account.money import WALLET
from backtest.account.records import WINDOW, TradedDays
from backtest.core import FloatArray, IntArray
from backtest.engine.driver import CHUNK, view_leaf
from backtest.engine.loop import ADDRESS, DONE
from backtest.engine.shown import N_SHOWN, sees_longer_bars
from backtest.margin import compute_best_leverage, compute_value
from backtest.policies import (
    Combinator,
    Policy,
    find_fields,
    formula_for,
    number_elements,
    start_memory,
)
from backtest.policies.policy import BAR_FIELDS
from backtest.results import RunSpan, measure_accounts, sampled_returns, start_tally
from backtest.results.tally import Tally
from backtest.sweep.lanes import rows as r
from backtest.sweep.lanes.formulas import find_block
from backtest.sweep.lanes.loop import NAMES, BlockMarket, SingleRun
from backtest.sweep.lanes.rows import LANES, LanePolicies, Lanes, PriceTable, make_aligned
from backtest.sweep.panel import BlockFault, Scored

LEAST_LANES = 4
"""Fewer sets are faster one by one."""
MINIMUM_SLACK = 1.0 + 1e-6
"""Factor on the equity that the smallest order needs: a bound, so more than rounding is added."""
HAS_ROUNDING = records.FLAGS.index("has_rounding")
HAS_IMPACT = records.FLAGS.index("has_impact")
GAINS = ("flows", "top_up", "bad_debt")
N_BAR_NUMBERS = len(BAR_FIELDS) - 1
"""Numbers of a bar that lanes show a policy: all but the time, which is an argument."""
BYTES_OF_FLOAT = 8
KIND = r.FillKind(*[True] * len(r.FillKind._fields))
OWN_RULES = r.read_rules(np.ones(r.N_NUMBERS * LANES), KIND, r.NO_TABLE, 0, 0)
"""The rules of a lane of a kind that has all it may have."""
FOLLOWED = ("has_stop", "has_exits", "is_funded_by_wallet")
"""Flags that lanes follow, though the rules that they trade by never have them."""
REFUSED = [k for k, x in enumerate(records.FLAGS) if not (getattr(OWN_RULES, x) or x in FOLLOWED)]
"""Columns of ``Terms.flags`` that lanes have no rules for."""


def fits_lanes(setup: engine.Setup, deciders: engine.Deciders) -> bool:
    """Return whether an account can be simulated in lanes: they have all rules that it needs."""
    return (
        has_lane_rules(setup.inputs.terms)
        and has_lane_positions(setup.inputs.terms)
        and has_lane_market(setup)
        and has_lane_policies(setup, deciders)
    )


def has_lane_rules(terms: Terms) -> bool:
    """Return whether lanes have all rules of an account, beside those of its instruments.

    Lanes know only the common rules. An account with any other is simulated by the loop of a single
    run.
    """
    # A margin of scenarios, or a pool that is liquidated at a multiple of its requirement.
    if terms.rules.has_scenarios or terms.rules.level != 1.0:
        return False

    # Stops of the whole equity, and exits that count from when a position was opened.
    if terms.has_floor or terms.tracks_openings:
        return False

    # Margin calls (0: none), and the bars of grace that a venue gives (below 0: none).
    if terms.margin_call != 0.0 or terms.grace >= 0.0:
        return False

    # Interest on loans, what positions borrow; lanes charge it on the balance of cash alone.
    if terms.is_loan and terms.has_interest:
        return False
    return bool(terms.fill == records.AT_OPEN)


def has_lane_positions(terms: Terms) -> bool:
    """Return whether lanes have all rules of the instruments of an account.

    Lanes know only the common rules. An account with any other is simulated by the loop of a single
    run.
    """
    # Flags of rules that lanes lack, yearly expenses of funds, and coins that are paid in full.
    if np.any(terms.flags[:, REFUSED]) or np.any(terms.expenses) or terms.rules.spot.has_any:
        return False

    # Margin of the notional at the entry, not at the mark.
    brackets = terms.rules.brackets
    if np.any(brackets.are_valued_at_entry):
        return False

    # All positions must be isolated, or all cross. Isolated ones pay their own funding.
    if len(set(brackets.are_isolated.tolist())) != 1:
        return False
    are_funded_by_wallet = terms.flags[:, records.FLAGS.index("is_funded_by_wallet")]
    return not np.any(are_funded_by_wallet & brackets.are_isolated)


def has_lane_market(setup: engine.Setup) -> bool:
    """Return whether multipliers and costs stay the same at all times, without collateral."""
    feed = setup.inputs.feed
    # An array by bar has one row if it never changes.
    is_constant = len(feed.multiplier) == 1 and len(feed.initial) == 1 and len(feed.costs) == 1
    has_collateral = len(setup.account.collateral) > 0
    return is_constant and not has_collateral


def has_lane_policies(setup: engine.Setup, deciders: engine.Deciders) -> bool:
    """Return whether lanes can let all policies of an account decide, at every close.

    Lanes have no policies on longer bars, no overlay, and no venue leverage that a policy decides.
    And they show a policy only some fields of the account.
    """
    has_overlay = deciders.asks[-1] != 0  # the policy after those of the instruments
    if sees_longer_bars(deciders) or has_overlay or np.any(deciders.sets_margin):
        return False

    # Of the account a policy may read only the fields that lanes show.
    read: set[str] = set()
    for observed in setup.observed:
        read |= find_read(observed.policy, tuple(observed.columns))
    return read <= {*NAMES}


def list_shared(setup: engine.Setup) -> tuple[Any, ...]:
    """Return all that the lanes of a block share of the terms and the feed, to be compared.

    What each lane has for itself is replaced by 0: numbers and rules of its instruments, among them
    the taker fees beside the margin tables.
    """
    inputs = setup.inputs
    feed = inputs.feed
    brackets = inputs.terms.rules.brackets._replace(takers=0)
    rules = inputs.terms.rules._replace(brackets=brackets)
    terms = inputs.terms._replace(instruments=0, numbers=0, rules=rules)
    return (
        feed.flow_bar, feed.flow_amount, feed.multiplier, feed.initial, feed.years, feed.sigma,
        feed.adv, feed.borrow_rate, feed.cash_rate, feed.short_rate, feed.stop_scale,
        feed.profit_scale, feed.trail_scale, inputs.clock.risk_free, inputs.changes, terms,
    )  # fmt: skip


def is_same(one: Any, other: Any) -> bool:
    """Return whether two values are equal: tuples item by item, arrays by shape and bytes.

    By bytes, two NaN are equal, as two inputs that have the same gaps must be.
    """
    if one is other:
        return True
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, np.ndarray):
        return bool(one.shape == other.shape and one.tobytes() == other.tobytes())
    return bool(one == other)


def find_kinds(terms: Terms) -> IntArray:
    """Return by which code lanes fill the orders of each instrument, of shape (n,): its kind."""
    n_instruments = len(terms.flags)
    return np.array([find_kind(terms, i) for i in range(n_instruments)], dtype=np.int64)


def find_kind(terms: Terms, i: int) -> int:
    """Return by which code lanes fill orders in instrument i: the simplest kind that has its rules.

    The kinds, from PLAIN to INVERTED, are compiled one by one. Some have more rules than they are
    named for: isolated and inverse positions may have impact and lots, and those with impact may
    have lots. So what needs the most is asked first.
    """
    tables = terms.rules.brackets
    is_inverse = bool(tables.are_inverse[i])
    if tables.are_isolated[i]:
        return r.ISOLATED_INVERSE if is_inverse else r.ISOLATED
    if is_inverse:
        return r.INVERTED
    if terms.flags[i, HAS_IMPACT]:
        return r.LINEAR
    if terms.flags[i, HAS_ROUNDING]:
        return r.LOTS
    return r.PLAIN


def find_read(policy: Policy, columns: tuple[str, ...]) -> frozenset[str]:
    """Return the fields of the account, by name, that the formula of a policy reads.

    ``columns`` are the names of what it observes. A combinator reads what its own formula does, and
    what the policies that it combines do, each of which observes some of the columns.
    """
    if not isinstance(policy, Combinator):
        return find_fields(formula_for(policy, columns), ACCOUNT)

    fields = find_fields(policy.written.combine, ACCOUNT)
    for part, combined in zip(policy.parts, policy.policies, strict=True):
        columns_of_part = part.find_own(columns)
        fields |= find_read(combined, columns_of_part)
    return fields


class Block(NamedTuple):
    """Sets side by side; ``varied`` are the values that differ, by name, one for each set.

    With ``has_own_columns`` the formulas read the columns of each lane, else those of the first.
    ``lent`` has the records that blocks use one after another.
    """

    setups: Sequence[engine.Setup]
    varied: Mapping[str, Sequence[Any]]
    deciders: engine.Deciders
    addresses: Sequence[int]
    columns: Sequence[Sequence[FloatArray]]
    has_own_columns: bool
    warm_ups: Sequence[list[engine.WarmUp]]
    span: RunSpan
    has_returns: bool
    is_full: bool
    table: PriceTable
    lent: Any


def join_columns(setups: Sequence[engine.Setup]) -> list[list[FloatArray]]:
    """Return what each policy of each set observes as one array: its columns end to end.

    The answer is indexed by set, and then by policy. Sets that observe by the same parameters share
    one object as their columns. So they are joined once for each object, found by its id.
    """
    joined: dict[int, FloatArray] = {}
    for setup in setups:
        for observed in setup.observed:
            if id(observed.columns) not in joined:
                joined[id(observed.columns)] = join_end_to_end([*observed.columns.values()])

    # Compiled formulas step from bar to bar by the stride of the first array, in all lanes. A
    # policy with one column has it here without a copy, maybe a view with another stride. If
    # strides differ, all arrays are copied, which gives them the same one.
    strides = {values.strides for values in joined.values()}
    if len(strides) > 1:
        joined = {key: np.ascontiguousarray(values) for key, values in joined.items()}

    return [[joined[id(observed.columns)] for observed in setup.observed] for setup in setups]


def join_end_to_end(columns: Sequence[FloatArray]) -> FloatArray:
    """Return columns end to end as one array: all bars of the first, then all of the second.

    It is a single 0 for a policy without columns, as compiled code takes an address in any case.
    """
    if not columns:
        return np.zeros(1)
    if len(columns) == 1:  # not copied
        return np.asarray(columns[0], dtype=np.float64)
    return np.asarray(np.concatenate(columns), dtype=np.float64)


def has_own_columns(columns: Sequence[Sequence[FloatArray]]) -> bool:
    """Return whether the sets of a block observe different columns."""
    return len({tuple(map(id, of_set)) for of_set in columns}) > 1


def score_block(
    names: tuple[str, ...], block: Block, is_stopped: Callable[[], bool]
) -> Scored | None:
    """Simulate a block of parameter sets side by side, and measure them; None if it was stopped.

    Each set has an account of its own, in a lane. ``names`` are the measures wanted. The answer has
    for each set its measures, its sampled returns if the block wants them, and the share of bars at
    which it decided.
    """
    # All sets have the setup of the first, but for what a block varies.
    setup = block.setups[0]
    n_sets = len(block.setups)
    ends = setup.inputs.clock.ends_sample[setup.first :]
    lanes = start_lanes(block, n_samples=int(ends.sum()))

    # What lanes write of their accounts, seen as an array of shape (rows, n_sets); lanes beyond the
    # sets are left out. It is a view: so the equity at the start is copied before they run.
    account = lanes.account.reshape(-1, LANES)[:, :n_sets]
    equity_at_start = account[WALLET.equity].copy()
    if not run_block(block, lanes, is_stopped):
        return None

    # What each set counted, by the names of the tally's rows. Lanes do not count bars: all sets
    # have passed the same ones. The rows of the wallet come first.
    tally = {name: account[row].copy() for name, row in r.TALLY._asdict().items()}
    tally["bars"] = np.full(n_sets, float(len(ends)))
    wallets = account[: r.WALLET_ROWS].T.copy()
    metrics = measure_wallets(names, block.span, tally, wallets, equity_at_start)

    returns = np.zeros((0, n_sets))
    if block.has_returns:
        units = lanes.units[:, :n_sets].copy()
        scales = np.ones(len(units))
        returns = sampled_returns(units, scales, tally["first_unit"])
    decided = measure_decided(block, tally["traded"])
    return Scored(metrics, returns, decided, lanes.counts)


def measure_decided(block: Block, traded: FloatArray) -> FloatArray:
    """Return for each set the share of the bars on which its policies could decide, in [0, 1].

    A policy decides from the bar on at which its columns are known (its warm-up). ``traded`` is the
    notional that each set traded, in money. Both arrays have shape (n_sets,).
    """
    setup = block.setups[0]
    firsts = block.deciders.firsts.tolist()
    n_bars = len(setup.inputs.feed.time)

    shares = []
    for warm_ups, amount in zip(block.warm_ups, traded.tolist(), strict=True):
        has_traded = amount > 0.0
        share = engine.measure_decided(warm_ups, firsts, setup.first, n_bars, has_traded=has_traded)
        shares.append(share)
    return np.array(shares)


def start_lanes(block: Block, n_samples: int) -> Lanes:
    """Return the arrays of a block, with the account of each lane as it is before its first bar.

    A lane is the account of one set of parameters. ``n_samples`` is how many samples (such as days)
    end in the sweep. A block has LANES places: those beyond its sets are no accounts; they copy the
    first set, and never trade.
    """
    lanes = make_lanes(block, n_samples)
    n_sets = len(block.setups)

    # The same memory by row and lane: of the account, and of each instrument.
    account = lanes.account.reshape(-1, LANES)
    position = lanes.position.reshape(len(lanes.signal), -1, LANES)
    numbers = lanes.numbers.reshape(len(lanes.signal), -1, LANES)

    # Nothing is decided yet (NaN), and there was no stop or liquidation: their bars are -inf.
    position[:, r.HELD.leverage] = math.nan
    position[:, r.HELD.last_stop] = -math.inf
    position[:, r.HELD.last_hit] = -math.inf

    # Sets of the same inputs start alike; lanes beyond the sets start as the first.
    lanes_of_inputs: dict[int, list[int]] = {}
    for lane, setup in enumerate(block.setups):
        lanes_of_inputs.setdefault(id(setup.inputs), []).append(lane)
    lanes_of_inputs[id(block.setups[0].inputs)] += range(n_sets, LANES)

    largest_values = find_largest_values(block.setups[0].inputs)
    for alike in lanes_of_inputs.values():
        setup = block.setups[alike[0]]
        account[:, alike] = start_lane(setup, largest_values)[:, None]
        numbers[:, :, alike] = setup.inputs.terms.numbers[:, :, None]

    # Lanes beyond the sets are not live, and never trade: NaN is added to what they decide.
    account[r.OWN.is_live, n_sets:] = 0.0
    position[:, r.HELD.muted, n_sets:] = math.nan
    return lanes


def start_lane(setup: engine.Setup, largest_values: Sequence[float]) -> FloatArray:
    """Return the account of one lane before its first bar, as rows of numbers: (N_ACCOUNT,).

    The rows are those of a wallet and a tally that start by ``setup``, and a few that only lanes
    have. Rows to compute in are 0. ``largest_values`` are the largest contract values of
    instruments (:func:`find_largest_values`).
    """
    terms = setup.inputs.terms
    wallet = engine.start_account_state(setup).wallet
    tally = start_tally(float(wallet.unit), float(wallet.equity), setup.first)
    rows = np.zeros(r.N_ACCOUNT)
    rows[: r.WALLET_ROWS] = wallet.numbers
    rows[r.FIRST_OF_TALLY : r.STATE_ROWS] = tally.numbers
    # A wallet counts the bars since the last liquidation; lanes have the bar in which it was.
    rows[WALLET.since_pool] = setup.first - 1.0 - wallet.since_pool

    # A lane whose equity may fall below this floor is simulated alone in the bar: there it is
    # ruined, or too poor for the smallest order.
    ruin_line = find_line(terms.ruin_at, wallet.reserve, wallet.paid_in)
    order_minimum = find_order_minimum(setup.inputs, largest_values)
    rows[r.OWN.order_minimum] = order_minimum
    rows[r.OWN.equity_floor] = max(ruin_line, order_minimum - wallet.reserve, 0.0)

    # The unit value stands at its peak: it has not fallen yet.
    rows[r.OWN.lowest_share] = 1.0
    rows[r.OWN.is_live] = r.LIVE
    return rows


def find_due(inputs: Any) -> IntArray:
    """Return for each bar 1 if money flows, funding is paid or an instrument ends in it, else 0."""
    feed = inputs.feed
    n_bars = len(feed.time)
    is_due = np.zeros(n_bars, np.int64)

    # The last bar of each instrument that ends: its span is (first bar, bar after the last).
    last_bars = feed.span[feed.ends == 1, 1] - 1
    for bars in (feed.flow_bar, feed.funding_bar, last_bars):
        is_inside = (bars >= 0) & (bars < n_bars)
        is_due[bars[is_inside]] = 1
    return is_due


def make_lanes(block: Block, n_samples: int) -> Lanes:
    """Return the arrays of a block, empty but for what all its sets share.

    That is read from the first set. ``n_samples`` is how many samples (such as days) end in the
    sweep; ``units``, the unit values at these ends, has no rows unless the block wants returns.
    Arrays that loops over lanes read as vectors are aligned to a cache line.
    """
    inputs = block.setups[0].inputs
    feed = inputs.feed
    terms = inputs.terms
    n_instruments = feed.open.shape[1]
    kinds = find_kinds(terms)

    # Whether any instrument has a stop, and whether stops move from bar to bar: they trail, or
    # their distance has a scale by bar, which is an array of more than one number.
    has_exits = bool(np.any(terms.flags[:, [records.HAS_STOP, records.HAS_EXITS]]))
    trailing_stops = terms.numbers[:, records.NUMBERS.index("trailing_stop")]
    scales = (feed.stop_scale, feed.profit_scale, feed.trail_scale)
    has_scales = any(len(scale) > 1 for scale in scales)
    moves_stops = bool(np.any(trailing_stops > 0.0)) or has_scales

    n_rows_of_units = n_samples if block.has_returns else 0
    return Lanes(
        account=make_aligned(r.N_ACCOUNT * LANES),
        position=make_aligned(n_instruments * r.N_POSITION * LANES),
        numbers=make_aligned(n_instruments * r.N_NUMBERS * LANES),
        kept_account=np.zeros(r.N_ACCOUNT * LANES),
        kept_position=np.zeros(n_instruments * r.N_POSITION * LANES),
        prices=np.zeros((r.N_PRICES, n_instruments)),
        largest_quantity=np.zeros(n_instruments),
        signal=np.ones(n_instruments),
        is_pending=np.zeros(n_instruments, np.int64),
        has_order=np.zeros(n_instruments, np.int64),
        kinds=kinds,
        has_stops=np.zeros(n_instruments, np.int64),
        is_full=block.is_full,
        has_isolated=bool(np.any(terms.rules.brackets.are_isolated)),
        has_exits=has_exits,
        moves_stops=moves_stops,
        needs_extra_prices=bool(np.any(kinds != r.PLAIN)),
        last_funding=np.full(n_instruments, np.nan),
        cursor=np.zeros(r.N_CURSOR, np.int64),
        alone_for=np.zeros(len(r.REASONS), np.int64),
        counts=np.zeros(len(r.REASONS), np.int64),
        units=np.zeros((n_rows_of_units, LANES)),
        free_return=np.zeros(1),
        tally=Tally(),
        table=block.table.values,
        is_due=find_due(inputs),
    )


def find_largest_values(inputs: Any) -> list[float]:
    """Return the largest contract value of each instrument with lots, 0 for others."""
    values = [0.0] * len(inputs.terms.flags)
    for i in np.flatnonzero(inputs.terms.flags[:, HAS_ROUNDING]).tolist():
        values[i] = find_largest_value(inputs, i)
    return values


def find_largest_value(inputs: Any, i: int) -> float:
    """Return the largest contract value of instrument i in all bars: money, without sign.

    A signed contract value rises with the price, also that of an inverse contract. So it is largest
    without sign at the lowest or the highest price. Bars without a price (NaN) are left out.
    """
    feed = inputs.feed
    brackets = inputs.terms.rules.brackets

    largest = 0.0
    for prices in (feed.open, feed.mark_open, feed.mark_low, feed.mark_high):
        for price in (np.nanmin(prices[:, i]), np.nanmax(prices[:, i])):
            value = compute_value(brackets.sizes[i], brackets.are_inverse[i], float(price))
            largest = max(largest, abs(value))
    return largest


def find_order_minimum(inputs: Any, largest_values: Sequence[float]) -> float:
    """Return a bound of the equity that the smallest order of an account needs: money.

    The smallest order of an instrument is a lot or the minimum notional. It needs that notional /
    the largest leverage that margin table and limits allow. The instrument that needs the most
    counts; one without lots needs nothing. ``largest_values`` are the largest contract values of
    instruments.
    """
    terms = inputs.terms
    order_minimum = 0.0
    for i in np.flatnonzero(terms.flags[:, HAS_ROUNDING]).tolist():
        # The margin tables of all dates: the strictest one counts.
        tables = [pick_margin(terms, i)]
        for _bar, instrument, table in inputs.changes:
            if instrument == i:
                tables.append(table)
        multiplier = inputs.feed.initial[0, i]
        best_of_tables = min(compute_best_leverage(table, multiplier) for table in tables)
        best_leverage = min(best_of_tables, terms.numbers[i, r.NUMBER.max_leverage])

        lot_notional = terms.numbers[i, r.NUMBER.lot] * largest_values[i]
        smallest_order = max(terms.numbers[i, r.NUMBER.min_notional], lot_notional)
        # At a leverage of 0 there is no order.
        if best_leverage > 0.0:
            equity_needed = smallest_order / best_leverage * MINIMUM_SLACK
            order_minimum = max(order_minimum, equity_needed)
    return order_minimum


def fill_up(of_sets: Sequence[Any]) -> list[Any]:
    """Return a value for each lane, from one for each set: lanes without a set have the last."""
    return [*of_sets, *[of_sets[-1]] * (LANES - len(of_sets))]


def find_addresses(arrays: Sequence[FloatArray]) -> list[int]:
    """Return the address of the first number of each array; the same arrays are asked once."""
    addresses: dict[int, int] = {}
    for array in arrays:
        if id(array) not in addresses:
            addresses[id(array)] = array.ctypes.data
    return [addresses[id(array)] for array in arrays]


def start_memories(panel: Sequence[Any]) -> FloatArray:
    """Return the numbers of the memories of all policies of a set, one after another."""
    numbers: list[float] = []
    for observed in panel:
        numbers.extend(start_memory(observed.policy) or ())
    return np.array(numbers, np.float64)


def gather_policies(block: Block, n_instruments: int) -> LanePolicies:
    """Return the policies of a block, with their parameters, columns and memories by lane.

    Each lane is the account of one set, whose policies have numbers of their own. What differs by
    lane is a row of LANES numbers; places beyond the sets have those of the last one
    (:func:`fill_up`). The rest is the same in all lanes, as ``block.deciders`` has it for the loop
    of a run. The fields are explained in :class:`.LanePolicies`.
    """
    deciders = block.deciders
    observed_by_first = block.setups[0].observed
    known = find_known_bars(block, n_instruments)
    memories = start_memories_of_lanes(block)

    # How many numbers each policy remembers; its own begin after those of the policies before it.
    widths = [len(start_memory(observed.policy) or ()) for observed in observed_by_first]
    memory_at = np.cumsum([0, *widths]).astype(np.int64)

    # How many columns each policy has, and the step from bar to bar in them, in numbers: that of
    # the first column of the first set is that of all (:func:`join_columns`).
    of_instruments = observed_by_first[:n_instruments]
    n_columns = np.array([len(observed.columns) for observed in of_instruments], np.int64)
    first_column = block.columns[0][0]
    stride = first_column.strides[0] // BYTES_OF_FLOAT
    return LanePolicies(
        addresses=np.array(block.addresses, np.int64),
        params=lay_params(block),
        params_at=deciders.params_at,
        memory=stack_lanes(memories),
        memory_at=memory_at,
        begun=stack_lanes(memories),
        known=known.ravel(),
        latest=known.max(axis=1),
        columns=locate_columns(block, n_instruments).ravel(),
        n_columns=n_columns,
        has_own_columns=block.has_own_columns,
        stride=stride,
        lengths=deciders.lengths,
        firsts=deciders.firsts,
        tradable=deciders.tradable,
        seen=make_aligned(max(1, *n_columns.tolist()) * LANES),
        bar=np.zeros(N_BAR_NUMBERS),
        shown=make_aligned(N_SHOWN * LANES),
        wants_account=bool(np.any(deciders.wants_account)),
        wants_bar=bool(np.any(deciders.wants_bar)),
        interval=deciders.interval,
        start=int(deciders.start[0]),
    )


def find_known_bars(block: Block, n_instruments: int) -> IntArray:
    """Return the bar from which on the columns of each policy are known, by lane, (n, LANES)."""
    known = np.zeros((n_instruments, LANES), np.int64)
    for i in range(n_instruments):
        known[i] = fill_up([warm_ups[i].bar for warm_ups in block.warm_ups])
    return known


def locate_columns(block: Block, n_instruments: int) -> IntArray:
    """Return the address at which the columns of each policy begin, by lane, (n, LANES)."""
    addresses = np.zeros((n_instruments, LANES), np.int64)
    for i in range(n_instruments):
        columns_of_sets = [columns_of_policies[i] for columns_of_policies in block.columns]
        addresses[i] = fill_up(find_addresses(columns_of_sets))
    return addresses


def start_memories_of_lanes(block: Block) -> list[FloatArray]:
    """Return what the policies of each lane remember before their first bar, an array a lane.

    Sets of the same setup start with the same memory, which is made once.
    """
    setups = {id(setup): setup for setup in block.setups}
    memory_of = {key: start_memories(setup.observed) for key, setup in setups.items()}
    return fill_up([memory_of[id(setup)] for setup in block.setups])


def lay_params(block: Block) -> FloatArray:
    """Return the parameters of all policies and lanes as one flat array of rows of LANES numbers.

    A row is one parameter of one policy. All lanes have the number of the first set, but for the
    parameters that sets vary: there each lane has its own, and places beyond the sets that of the
    last. All policies of a sweep are of one class, so a parameter has the same place in each. The
    last row is empty room: a policy without parameters begins there.
    """
    # ``first_rows``, an array, has for each policy the row at which its parameters begin.
    observed = list(block.setups[0].observed)
    numbers, first_rows = engine.flatten_settings(observed)
    flat = make_aligned((len(numbers) + 1) * LANES)
    rows = flat.reshape(-1, LANES)
    rows[:-1] = numbers[:, None]

    names = [*number_elements(observed[0].policy.settings())]
    for place, name in enumerate(names):
        if name not in block.varied:
            continue
        # The rows of this parameter in all policies at once: ``first_rows`` is an array.
        values = block.varied[name]
        rows[first_rows + place, : len(values)] = values
        rows[first_rows + place, len(values) :] = values[-1]
    return flat


def find_warm_ups(setups: Sequence[engine.Setup], n_instruments: int) -> list[list[engine.WarmUp]]:
    """Return for each set the warm-ups of its policies: from which bar on each of them decides.

    ``n_instruments`` policies of each set are looked at, one an instrument; that of an overlay,
    which comes after them, is not.
    """
    # Sets share columns, by their id, so each is looked at once.
    warm_ups: dict[int, engine.WarmUp] = {}
    for setup in setups:
        for observed in setup.observed[:n_instruments]:
            if id(observed.columns) not in warm_ups:
                warm_ups[id(observed.columns)] = engine.find_warm_up(observed.columns)

    warm_ups_of_sets = []
    for setup in setups:
        of_policies = setup.observed[:n_instruments]
        warm_ups_of_sets.append([warm_ups[id(observed.columns)] for observed in of_policies])
    return warm_ups_of_sets


def stack_lanes(columns: Sequence[FloatArray]) -> FloatArray:
    """Return the numbers of all lanes as one flat array: a row for each number, of LANES numbers.

    ``columns`` has an array for each lane, all of one length. One more row is empty room: a policy
    without numbers of its own begins there, as a formula is given an address in any case.
    """
    rows = make_aligned((len(columns[0]) + 1) * LANES)
    rows.reshape(-1, LANES)[:-1, : len(columns)] = np.stack(columns, axis=1)
    return rows


class LaneFees:
    """The fees of lanes, by what each of them traded in the days before.

    It reads what lanes have traded from their tallies, and writes their fee rates: both are views
    of the memory of ``lanes``.
    """

    def __init__(self, block: Block, lanes: Lanes) -> None:
        """Begin with nothing traded, on the day on which the sweep begins.

        ``lanes`` are the arrays of the block, whose sets may have different fees.
        """
        # Views of the memory of the lanes, by row and lane: what was traded is read from
        # ``account``, and fee rates are written into ``numbers``.
        self.account = lanes.account.reshape(-1, LANES)
        self.numbers = lanes.numbers.reshape(-1, r.N_NUMBERS, LANES)

        # Each bar has the number of its day. What each lane traded in the last WINDOW days is kept.
        setup: Any = block.setups[0]
        self.day_of_bar = setup.inputs.fees.day
        first_day = int(self.day_of_bar[setup.first])
        self.traded = TradedDays(first_day, np.zeros(LANES), np.zeros((WINDOW, LANES)))
        self.traded_before = np.zeros(LANES)
        self.groups = group_by_fees(block.setups)

    def charge(self, t: int) -> int:
        """Write the fee rates of all lanes at bar t, the first of a day; return where the day ends.

        Fee tiers go by what a lane traded in the days before. Fees without tiers stay. It must be
        called again at the bar that it returns.
        """
        # The tally counts on from the first bar, so its growth is what was traded since the last
        # call: money, by lane.
        traded_so_far = self.account[r.TALLY.traded].copy()
        days = self.traded.add(traded_so_far - self.traded_before)
        self.traded_before = traded_so_far
        self.traded, end_of_day = engine.start_day(self.day_of_bar, days, t)

        for fees, lanes in self.groups:
            # For each instrument the taker rate, the maker rate, and what is charged, a blend of
            # both: arrays by lane of the group. Without tiers they are NaN in all lanes, so the
            # first lane is looked at.
            rates = fees.find(self.traded.past[:, lanes])
            for i, (taker, _maker, charged) in enumerate(rates):
                has_tiers = not np.isnan(charged[0])
                if has_tiers:
                    self.numbers[i, r.NUMBER.fee, lanes] = charged
                    self.numbers[i, r.NUMBER.taker, lanes] = taker
        return end_of_day


def group_by_fees(setups: Sequence[Any]) -> list[tuple[Any, list[int]]]:
    """Return the fees of some setups, each once, with the lanes that have them.

    Lanes of a group are charged together, by one look at its tiers.
    """
    lanes_of: dict[Any, list[int]] = {}
    for lane, setup in enumerate(setups):
        lanes_of.setdefault(setup.inputs.fees.fees, []).append(lane)
    return [(setups[lanes[0]].inputs.fees, lanes) for lanes in lanes_of.values()]


NOT_LOCATED = 0
"""An address that nothing has: that of a loop which is not found yet."""


class Room:
    """What the blocks of a thread share: the market, and an account to simulate one lane at a time.

    Blocks whose inputs are the same object use it one after another, and each begins it anew
    (:meth:`begin`). So its memory is made once, and arguments of compiled code are packed once.
    """

    def __init__(self, block: Block) -> None:
        """Make the account in which one lane at a time is simulated alone, and note how it begins.

        The market and the terms are those of the first set of the block.
        """
        setup = block.setups[0]
        self.inputs = setup.inputs
        self.first = setup.first

        # The loop over lanes, the market, and the terms, which change on the way.
        self.simulate_block = _compile.Caller(find_block())
        self.market = BlockMarket(self.inputs.feed, self.inputs.clock, self.inputs.log_returns)
        self.terms_in_time = start_terms(self.inputs, self.first)

        # The account that simulates one lane at a time. It has no collateral. Its bars are not
        # recorded: the tape is off and has no room. It decides nothing, as all lanes decide
        # together. The address of its loop is found in the first block (:meth:`find_single`).
        n_instruments = self.inputs.feed.open.shape[1]
        n_assets = 0
        tape = engine.new_tape(n_instruments, n_bars=0, first=setup.first, capacity=0)
        tape.is_on[0] = 0
        self.single = SingleRun(
            deciders=silence(block.deciders, n_instruments),
            state=engine.start_account_state(setup),
            quotes=engine.new_quotes(n_instruments, n_assets),
            scratch=engine.new_scratch(n_instruments, n_assets),
            ledger=engine.new_ledger(n_instruments),
            tape=tape,
            address=NOT_LOCATED,
            first=self.first,
        )

        # The arrays that blocks write into, each with a copy of its numbers, from which ``begin``
        # restores it. They are all arrays of the account, and those of the terms in which lanes
        # differ or which a chunk of bars writes.
        terms = self.terms_in_time.terms
        brackets = terms.rules.brackets
        written = (terms.numbers, brackets.multipliers, brackets.initial_multipliers)
        self.first_numbers: list[tuple[np.ndarray, np.ndarray]] = []
        for leaf in flatten((self.single, *written)):
            view = view_leaf(leaf)
            if isinstance(view, np.ndarray):
                self.first_numbers.append((view, view.copy()))

    def begin(self) -> None:
        """Write the numbers with which each block begins over those that the last one left."""
        for view, numbers in self.first_numbers:
            view[...] = numbers
        if self.inputs.changes:  # the tables of the last block are those of its last day
            self.terms_in_time = start_terms(self.inputs, self.first)

    def find_single(self, tally: Tally) -> SingleRun:
        """Return the account and records in which a lane is simulated alone, for all blocks.

        They have the address of the compiled loop of a run. It is found in the first block: the
        loop is called with all that it will be given, such as the tally of a lane, as it is
        compiled for the kinds of its arguments. For a ``stop`` of ADDRESS it simulates no bar, and
        returns its address.
        """
        single = self.single
        if single.address == NOT_LOCATED:
            simulate = engine.find_entry("simulate_batch", has_parts=False)
            address, _ = simulate(
                engine.pack_terms(self.terms_in_time.terms),
                *self.market,
                single.deciders,
                single.state,
                single.quotes,
                single.scratch,
                single.ledger,
                tally,
                single.tape,
                0,
                ADDRESS,
            )
            self.single = single._replace(address=address)
        return self.single


def find_room(block: Block) -> Room:
    """Return the room of this thread; a new one for a block of other inputs than the last block."""
    lent = block.lent
    if lent.room is None or lent.room.inputs is not block.setups[0].inputs:
        lent.room = Room(block)
    room: Room = lent.room
    return room


def start_terms(inputs: Any, first: int) -> engine.TermsInTime:
    """Return the terms of a lane's account in time; what bars write into is a copy."""
    own = engine.copy_terms(inputs)._replace(fees=None)
    return engine.TermsInTime(own, first, engine.pack_terms)


def silence(deciders: engine.Deciders, n_instruments: int) -> engine.Deciders:
    """Return policies that decide nothing, for a lane that is simulated alone in a bar.

    The decisions at its close are made for all lanes together.
    """
    none = np.zeros(n_instruments + 1, np.int64)
    return deciders._replace(
        asks=none,
        wants_price=none[:n_instruments].copy(),
        wants_account=none.copy(),
        wants_bar=none.copy(),
        tradable=np.zeros((1, n_instruments), np.int64),
    )


def run_block(block: Block, lanes: Lanes, is_stopped: Callable[[], bool]) -> bool:
    """Simulate a block of lanes over the market in chunks; False if the sweep was stopped.

    A chunk of bars has the same margin tables and fees. What becomes of the accounts is written
    into ``lanes``. Raises BlockFault if a lane has a fault: the sets are then run one by one, which
    says which of them has it.
    """
    setup = block.setups[0]
    inputs = setup.inputs
    n_bars = len(inputs.feed.time)
    room = find_room(block)
    room.begin()
    fees = LaneFees(block, lanes) if inputs.fees is not None else None
    policies = gather_policies(block, inputs.feed.open.shape[1])
    single = room.find_single(lanes.tally)

    t = setup.first
    while t < n_bars:
        if is_stopped():
            return False

        # A chunk of bars has the same terms. It ends where margin tables or fees change by date;
        # ``at`` and ``charge`` write those that hold in it, and return where they end.
        stop, _ = room.terms_in_time.at(t, min(t + CHUNK, n_bars), None)
        if fees is not None:
            stop = min(stop, fees.charge(t))

        # Blocks share a table of prices. The first that passes a chunk writes its bars.
        span = (t, stop)
        lanes.cursor[r.CURSOR.is_written] = span in block.table.written
        packed_terms = room.terms_in_time.packed
        t, reason = room.simulate_block(packed_terms, room.market, policies, lanes, single, t, stop)
        if reason != DONE:
            raise BlockFault
        block.table.written.add(span)
    return True


def measure_wallets(
    names: tuple[str, ...],
    span: RunSpan,
    numbers: dict[str, FloatArray],
    wallets: FloatArray,
    equity_at_start: FloatArray,
) -> dict[str, FloatArray]:
    """Return the measures of accounts by name, each of shape (accounts,), from what was counted.

    ``names`` are the measures wanted. ``numbers`` are the tallies: fields by name, each of shape
    (accounts,). ``wallets`` has shape (accounts, fields), and ``equity_at_start`` shape
    (accounts,). Writes the field ``price_pnl``, which is not counted bar by bar, into ``numbers``.
    """
    # The profit of prices is the change of the equity that no other gain and no cost explains.
    equity = wallets[:, WALLET.equity]
    other_gains = sum(numbers[name] for name in GAINS)
    costs = sum(numbers[name] for name in m.GROWTH_TERMS)
    numbers["price_pnl"] = equity - equity_at_start - other_gains + costs
    measures = measure_accounts(numbers, span, wallets[:, WALLET.unit], equity)
    measured = {name: np.asarray(measures[name], dtype=np.float64) for name in names}

    # The profit and the costs of collateral are counted in the wallet: positions have the rest.
    if "slippage" in measured:
        measured["slippage"] = measured["slippage"] - wallets[:, WALLET.converted_so_far]
    if "price_pnl" in measured:
        of_positions = measured["price_pnl"] - wallets[:, WALLET.assets_so_far]
        # Where nothing was ever traded, what is left is rounding: 0.
        measured["price_pnl"] = np.where(numbers["traded"] == 0.0, 0.0, of_positions)
    return measured
