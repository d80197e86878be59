"""Score many sets of parameters by taking them through the market side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from backtest.account.ledger import Log
from backtest.account.ruin import find_line
from backtest.account.steps import Rules
from backtest.base.code_identity import describe
from backtest.base.compile_time import counted
from backtest.base.interrupts import hold_signals
from backtest.base.units import FloatArray, IntArray
from backtest.engine.bar_loop import DONE
from backtest.engine.loop_driver import explain_refusal
from backtest.engine.loop_inputs import Inputs, read_inputs
from backtest.engine.run import count_periods
from backtest.measures.run_measures import Span, measure
from backtest.policy.formula_reads import find_unread
from backtest.policy.policy import Policy, formula_for, start_memory
from backtest.sweep.lane_groups import CAPITAL, COMMON, FEES, OWN, Group
from backtest.sweep.lanes import compile_in_process
from backtest.sweep.lanes.lane_compiler import (
    LOCK,
    LanePolicy,
    Shape,
    compile_for,
    compile_lanes,
    compile_live_types,
    compile_part,
    is_cold,
    pack_margin,
    pad_brackets,
    reads_table,
    types_of_live,
)
from backtest.sweep.lanes.lane_rows import AT_ONCE, LANES, ROWS, RUN, Kind, Place, Setup, Sheets
from backtest.sweep.policy_columns import BlockColumns, Columns, find_reads
from backtest.venue.margin import LEVELS, MarginRules
from backtest.venue.venue import Venue

CHUNK = 65_536
"""Bars between two looks at whether to stop."""

CACHE_LINE = 64
"""Bytes that come from memory together."""

WHOLE = Kind(True, True, True)
"""What a lane needs that lives a bar in full."""

ROW = {name: k for k, name in enumerate(ROWS)}
RULES = {
    "lot": "lot", "min_notional": "min_notional", "fee": "fee", "taker": "taker",
    "slip": "slippage", "impact_rate": "impact", "participation": "participation",
    "liquidation_fee": "liquidation_fee", "liquidation_slippage": "liquidation_slippage",
    "step": "step", "full_below": "full_below", "stop_loss": "stop_loss",
    "top_up_to": "top_up_to", "band": "band", "min_leverage": "min_leverage",
    "max_leverage": "max_leverage", "ruin_at": "ruin_at",
}  # fmt: skip
"""Rows that hold rules, with the fields of :class:`backtest.account.steps.Rules`."""

TALLIED = {
    "low": "low", "low_peak": "low_peak", "samples": "samples", "squares": "squares",
    "excess_mean": "excess_mean", "excess_squares": "excess_squares", "equity": "equity_sum",
    "fees": "fees", "slippage": "slippage", "impact": "impact", "funding": "funding",
    "interest": "interest", "traded": "traded", "liquidations": "liquidations", "ruin": "ruin",
}  # fmt: skip
"""Fields of a tally that the core's measures need, with their rows."""

TALLIED_MORE = {
    "downside": "downside", "price_pnl": "price_pnl", "liquidation_loss": "liquidation_loss",
    "flows": "flows", "top_up": "top_up", "bad_debt": "bad_debt", "stops": "stops",
    "calls": "calls", "first_liquidation": "first_liquidation", "near": "near",
    "leverage": "leverage_sum", "peak_leverage": "peak_leverage", "peak_needed": "peak_needed",
    "peak_backing": "peak_backing", "decay_held": "decay_held", "decay_log": "decay_log",
    "decay_product": "decay_product",
}  # fmt: skip
"""Fields of a tally that the other measures need, with their rows."""


Loops = dict[tuple[Any, ...], tuple[Any, Any]]
"""The loop over lanes and what it calls to live a bar in full, for each types of rules."""


class Task(NamedTuple):
    """What all blocks of a group have in common.

    ``full`` are the rules with nothing left out; ``policy`` is that of the first set, of which
    ``constants`` are the parameters written into the code; ``begun`` of shape (len(ROWS),) is what
    lanes begin with; ``reads_table`` says whether the policy may look at the margin brackets.
    ``parts`` and ``loops`` are filled by the first block: the policy's part by its shape, and the
    loop with what it calls by the types of the rules.
    """

    inputs: Inputs
    full: Rules
    kind: Kind
    span: Span
    first: int
    policy: Policy
    venue: Venue
    constants: tuple[tuple[str, Any], ...]
    columns: Columns
    begun: FloatArray
    has_returns: bool
    reads_table: bool
    parts: dict[Shape, LanePolicy]
    loops: Loops


class Scored(NamedTuple):
    """The measures of a block's sets, and their sampled returns if asked for."""

    metrics: dict[str, FloatArray]
    returns: FloatArray


def prepare(
    group: Group,
    columns: Columns,
    sets: Mapping[str, np.ndarray],
    *,
    signal: FloatArray,
    sampling: str,
    calendar: str,
    first: int,
    is_full: bool,
    has_returns: bool,
    loops: Loops,
) -> Task:
    """Return what all blocks of a group have in common."""
    market, (policy, venue, account) = columns.market, group.trio
    inputs = read_inputs(
        market,
        venue,
        account,
        signal=signal,
        sampling=sampling,
        first=first,
        started=int(market.time[first]),
    )
    inputs = with_highest_fee(inputs, group)
    own = [name for name in (*OWN, *FEES) if is_varying(group.terms.get(name))]
    has_flows = account.flows is not None or account.reserve > 0.0
    has_flows |= account.after_liquidation == "halt" or inputs.rules.has_interest is not None
    is_lean = not (own or has_flows or needs_all(inputs.rules, policy))
    kind = Kind(
        has_own_rules=True if own else None,
        is_full=True if is_full else None,
        has_flows=True if has_flows else None,
    )
    rules = with_none(inputs.rules) if is_lean else with_most(inputs.rules)
    tables = [inputs.rules.margin, *(table for _, table in inputs.changes)]
    most = max(len(table.floors) for table in tables)
    rules = rules._replace(margin=pad_brackets(inputs.rules.margin, most))
    begun = np.zeros(len(ROWS))
    rows = read_rule_rows(rules)
    rows |= begin_rows(account.capital, account.reserve, rows["ruin_at"])
    for name, value in rows.items():
        begun[ROW[name]] = value
    closes = market.time[first:] + market.interval
    return Task(
        inputs=inputs._replace(rules=rules),
        full=with_all(inputs.rules)._replace(margin=as_arrays(inputs.rules.margin)),
        kind=kind,
        span=Span(
            int(market.time[first]), closes, first, count_periods(calendar, sampling, market, first)
        ),
        first=first,
        policy=policy,
        venue=venue,
        constants=find_constants(policy, sets, group.rows),
        columns=columns,
        begun=begun,
        has_returns=has_returns,
        reads_table=reads_table(policy),
        parts={},
        loops=loops,
    )


def with_highest_fee(inputs: Inputs, group: Group) -> Inputs:
    """Return inputs whose margin rules, of now and later, ask for the highest closing fee."""
    takers = group.terms.get("venue.fees.taker")
    if takers is None or not group.trio.venue.includes_close_fee:
        return inputs
    fee = float(takers.max())
    margin = inputs.rules.margin._replace(close_fee=fee)
    changes = tuple((bar, table._replace(close_fee=fee)) for bar, table in inputs.changes)
    return inputs._replace(rules=inputs.rules._replace(margin=margin), changes=changes)


def as_arrays(margin: MarginRules) -> MarginRules:
    """Return margin rules with brackets as arrays, of any number."""
    return MarginRules._make(
        np.array(value) if name in LEVELS else value for name, value in margin._asdict().items()
    )


def is_varying(values: FloatArray | None) -> bool:
    """Tell whether values differ."""
    return values is not None and bool((values != values[0]).any())


def needs_all(rules: Rules, policy: Policy) -> bool:
    """Tell whether the rules need more than orders at a cost, and their maintenance."""
    code = describe(formula_for(policy, ()), {})
    reads_entry = not code.is_complete or bool(code.names & {"entry", "wallet"})
    parts = (rules.has_stop, rules.has_impact, rules.has_interest)
    is_lean = rules.is_isolated is None and all(part is None for part in parts)
    return reads_entry or not is_lean or rules.margin.is_valued_at_entry


def with_all(rules: Rules) -> Rules:
    """Return the rules with nothing left out; what is not in force is 0 and does nothing."""
    return set_parts(rules, True)._replace(has_impact=True, has_rounding=True, marks_entry=True)


def with_most(rules: Rules) -> Rules:
    """Return the rules with little left out: what takes long in every trade and at every close.

    A few kinds of rules compile sooner than all combinations would.
    """
    at_entry = True if rules.margin.is_valued_at_entry else None
    return set_parts(rules, True)._replace(has_rounding=True, marks_entry=at_entry)


def with_none(rules: Rules) -> Rules:
    """Return the rules with all left out that may be, but rounding as it is."""
    return set_parts(rules, None)._replace(has_impact=None, marks_entry=None)


def set_parts(rules: Rules, part: bool | None) -> Rules:
    """Return the rules with parts that may be left out, or without."""
    return rules._replace(has_stop=part, has_interest=part, keeps_entry=part)


def find_constants(
    policy: Policy, sets: Mapping[str, np.ndarray], rows: IntArray
) -> tuple[tuple[str, Any], ...]:
    """Return the parameters to write into the code: words, flags, and numbers that are 0 or 1.

    Those cannot change a bit of what is computed, and let the compiler leave out what they switch
    off; other numbers could. A parameter that the formula does not read is none: one compiled
    formula serves all its values.
    """
    found = []
    unread = find_unread(policy)
    for name, value in policy.settings().items():
        values = sets[name][rows] if name in sets else None
        is_same = values is None or bool((values == values[0]).all())
        if name not in unread and (isinstance(value, str) or (is_same and value in (0, 1))):
            found.append((name, value))
    return tuple(found)


def score_block(
    task: Task,
    n: int,
    values: Mapping[str, np.ndarray],
    terms: Mapping[str, FloatArray],
    is_stopped: Callable[[], bool],
) -> Scored | None:
    """Take up to 64 sets through the market.

    Parameters
    ----------
    task : Task
        What their group has in common.
    n : int
        How many sets, 64 at most.
    values : mapping of str to array of shape (n,)
        The policy's parameters that sets name.
    terms : mapping of str to array of shape (n,)
        Fields of account and venue that sets name.
    is_stopped : callable
        Asked now and then; once it says True the block is given up.

    Returns
    -------
    Scored, or None where it was given up.

    Raises
    ------
    BlockFault
        If a policy raised or returned a negative number, or books do not balance.
    """
    full = {name: fill_lanes(column) for name, column in values.items()}
    columns = task.columns.of_block(full)
    rules = task.inputs.rules
    shape = Shape(
        columns.names,
        task.constants,
        rules.is_inverse,
        rules.is_isolated,
        task.kind.has_flows,
        len(show_table(task, task.full.margin).floors),
    )
    part = compile_or_explain(task, shape)
    block = start_block(task, full, {k: fill_lanes(v) for k, v in terms.items()}, part.n_rows)
    n_samples = int(task.inputs.clock.ends_sample[task.first :].sum())
    returns = np.zeros((n_samples if task.has_returns else 0, LANES))
    if not advance(task, shape, block, columns, returns, is_stopped):
        return None
    return Scored(read_metrics(task, block, n), returns[:, :n])


def show_table(task: Task, margin: MarginRules) -> MarginRules:
    """Return the margin rules that the policy is shown: one bracket if it does not look."""
    if task.reads_table:
        return margin
    return margin._replace(**{name: getattr(margin, name)[:1] for name in LEVELS})


def fill_lanes(values: np.ndarray) -> np.ndarray:
    """Return values for all lanes, the last one repeated."""
    return np.concatenate([values, np.repeat(values[-1:], LANES - len(values))])


class NotCompiled(Exception):  # noqa: N818 - a reason, which makes the sweep a plain one
    """The policy cannot be compiled."""


def compile_or_explain(task: Task, shape: Shape) -> LanePolicy:
    """Return the policy's part of the loop.

    Raises
    ------
    NotCompiled
        With the line and the reason for which numba refused.
    """
    try:
        with LOCK:
            if shape not in task.parts:
                task.parts[shape] = compile_part(task.policy, shape)
            return task.parts[shape]
    except Exception as refusal:  # numba raises what it likes; the policy does not run here
        raise NotCompiled(explain_refusal(refusal, task.policy)) from refusal


class BlockFault(Exception):  # noqa: N818 - it says where, what it means is found by a single run
    """A lane of a block cannot go on."""


def advance(
    task: Task,
    shape: Shape,
    block: FloatArray,
    columns: BlockColumns,
    returns: FloatArray,
    is_stopped: Callable[[], bool],
) -> bool:
    """Take a block to the end of the market; tell whether it got there."""
    inputs, part = task.inputs, compile_or_explain(task, shape)
    own = make_own(columns) if len(columns.places) > 0 else columns.distinct
    setup = Setup(
        inputs.rules,
        task.kind,
        task.full,
        WHOLE,
        inputs.plan,
        inputs.feed,
        inputs.clock,
        inputs.seen,
        Log(None, np.empty((1, 8)), np.zeros(1, dtype=np.int64)),
    )
    sheets = Sheets(
        block,
        pack_margin(show_table(task, task.full.margin)),
        columns.shared,
        columns.distinct,
        columns.places,
        own,
        returns,
        np.array([-1, 0], dtype=np.int64),
    )
    at = Place(0, 0, math.nan, 0.0, 1.0, 0.0, 0, 0)
    loop, live = find_loop(task, setup, sheets, part, at)
    n_bars = len(inputs.seen.time)
    changes = dict(inputs.changes)
    t = task.first
    while t < n_bars:
        if is_stopped():
            return False
        if t in changes:
            setup, sheets = change_table(task, setup, sheets, changes[t])
            n_shown = len(show_table(task, changes[t]).floors)
            part = compile_or_explain(task, shape._replace(n_brackets=n_shown))
        stop = min(t + CHUNK, n_bars, *(bar for bar in changes if bar > t))
        with hold_signals():
            at, t, why = loop(setup, sheets, live, part.decide, at, t, stop)
        at = Place(*at)
        if why != DONE:
            raise BlockFault
    return True


def change_table(
    task: Task, setup: Setup, sheets: Sheets, table: MarginRules
) -> tuple[Setup, Sheets]:
    """Return what the loop takes under another margin table."""
    padded = pad_brackets(table, len(setup.rules.margin.floors))
    setup = setup._replace(
        rules=setup.rules._replace(margin=padded),
        full=setup.full._replace(margin=as_arrays(table)),
    )
    return setup, sheets._replace(brackets=pack_margin(show_table(task, table)))


def find_loop(
    task: Task, setup: Setup, sheets: Sheets, part: LanePolicy, at: Place
) -> tuple[Any, Any]:
    """Return the compiled loop of a task and what it calls; the first block compiles or loads."""
    rules = setup.rules
    key = (setup.kind, *map(type, rules), *map(type, rules.margin), len(rules.margin.floors))
    with LOCK:
        if key not in task.loops:
            task.loops[key] = compile_loop(setup, sheets, part, at)
        return task.loops[key]


def compile_loop(setup: Setup, sheets: Sheets, part: LanePolicy, at: Place) -> tuple[Any, Any]:
    """Return the loop over lanes, and what it calls to live a bar in full, both compiled.

    The first time on a machine they are compiled side by side, the second in another process.
    """
    loop = compile_lanes(n_brackets=len(setup.rules.margin.floors)).names["advance_block"]
    types = types_of_live(setup, sheets.block, at)
    if is_cold():
        with counted():
            child = compile_in_process.begin(types)
            compile_for(loop, setup, sheets, types, part.decide, at)
            child.wait()
    return loop, compile_live_types(types)


def make_own(columns: BlockColumns) -> FloatArray:
    """Return room for what lanes have of their own of some bars; what follows it is room too."""
    width = LANES * sum(is_own for _, is_own in columns.names)
    return make_aligned(AT_ONCE * width + RUN)[: AT_ONCE * width].reshape(AT_ONCE, width)


def make_aligned(n: int) -> FloatArray:
    """Return n zeros that begin at a cache line, so that no vector straddles two."""
    per_line = CACHE_LINE // 8
    raw = np.zeros(n + per_line)
    first = -(raw.ctypes.data // 8) % per_line
    return raw[first : first + n]


def start_block(
    task: Task, values: Mapping[str, np.ndarray], terms: Mapping[str, FloatArray], n_rows: int
) -> FloatArray:
    """Return the state of a block before its first bar."""
    whole = make_aligned((len(ROWS) + n_rows) * LANES)
    block = whole.reshape(-1, LANES)
    block[: len(ROWS)] = task.begun[:, None]
    for name, value in read_own_rows(task, terms).items():
        block[ROW[name]] = value
    settings = task.policy.settings()
    for k, (name, setting) in enumerate(settings.items()):
        if not isinstance(setting, str):
            block[len(ROWS) + k] = np.asarray(values.get(name, setting))
    block[len(ROWS) + len(settings) :] = start_memories(task, values)
    return whole


def begin_rows(capital: Any, reserve: Any, ruin_at: Any) -> dict[str, Any]:
    """Return the rows that are not 0 before the first bar, rules apart."""
    paid_in = capital + reserve
    begun = {
        "cash": capital, "equity": capital, "reserve": reserve, "scale": 1.0, "target": math.nan,
        "ruin": -1.0, "first_liquidation": -1.0, "last_liquidation": -math.inf, "unmet": -1.0,
        "last_stop": -math.inf,
        "inverse": 1.0 / capital, "decay_product": 1.0, "peak_backing": 1.0,
    }  # fmt: skip
    wealth = ("first_unit", "unit", "peak", "low", "low_peak", "sample_unit", "paid_in")
    line = find_line(ruin_at, reserve, paid_in)
    return begun | dict.fromkeys(wealth, paid_in) | {"line": line}


def read_rule_rows(rules: Rules) -> dict[str, float]:
    """Return the rows that hold rules, where lanes have none of their own."""
    rows = {row: getattr(rules, field) for row, field in RULES.items()}
    rows |= {"setting": rules.margin.setting, "close_fee": rules.margin.close_fee}
    return {row: 0.0 if math.isnan(value) else value for row, value in rows.items()}


def read_own_rows(task: Task, terms: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Return the rows in which lanes have terms of their own."""
    rows: dict[str, Any] = {
        row: terms[name] for name, row in {**COMMON, **OWN}.items() if name in terms
    }
    if any(name in terms for name in FEES):
        fees = task.venue.fees
        taker = terms.get("venue.fees.taker", np.full(LANES, fees.taker))
        maker = terms.get("venue.fees.maker", fees.maker)
        share = terms.get("venue.fees.maker_share", fees.maker_share)
        rows |= {"taker": taker, "fee": taker * (1.0 - share) + maker * share}
        rows |= {"close_fee": taker} if task.venue.includes_close_fee else {}
    rows = {row: np.where(np.isnan(value), 0.0, value) for row, value in rows.items()}
    if any(name in terms for name in (*CAPITAL, "account.ruin_at")):
        capital, reserve = (
            terms.get(f"account.{name}", task.begun[ROW[row]])
            for name, row in (("capital", "cash"), ("reserve", "reserve"))
        )
        rows |= begin_rows(capital, reserve, rows.get("ruin_at", task.begun[ROW["ruin_at"]]))
    return rows


def start_memories(task: Task, values: Mapping[str, np.ndarray]) -> FloatArray:
    """Return what the policy remembers at the start, (n_fields, LANES) or (n_fields, 1) numbers."""
    memory = start_memory(task.policy)
    if memory is None:
        return np.zeros((0, 1))
    reads = find_reads(task.policy, "start")
    if not any(name in values for name in reads):
        return np.array(memory, dtype=np.float64)[:, None]
    own = [
        start_memory(task.columns.build({name: column[i] for name, column in values.items()}))
        for i in range(LANES)
    ]
    return np.array(own, dtype=np.float64).T


def read_metrics(task: Task, block: FloatArray, n: int) -> dict[str, FloatArray]:
    """Return the measures of the first n lanes."""
    rows = block.reshape(-1, LANES)[:, :n]
    names = {**TALLIED, **(TALLIED_MORE if task.kind.is_full is not None else {})}
    tally: dict[str, Any] = {name: rows[ROW[row]] for name, row in names.items()}
    n_bars = len(task.span.closes)
    tally |= {"bars": n_bars, "first_unit": rows[ROW["first_unit"]]}
    return measure(tally, task.span, rows[ROW["unit"]], rows[ROW["equity"]])
