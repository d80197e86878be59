"""Take a block of up to 64 sets through the market side by side, and return their measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from backtest.account import Log
from backtest.base import FloatArray, count_as_compiling, hold_signals
from backtest.engine import explain_refusal
from backtest.engine.bar_loop import DONE
from backtest.sweep.lanes.block_state import make_aligned, read_metrics, start_block, start_fees
from backtest.sweep.lanes.block_task import GroupTask, as_arrays, show_table
from backtest.sweep.lanes.compile_in_process import start_compiling
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
    types_of_live,
)
from backtest.sweep.lanes.lane_fees import LaneFees
from backtest.sweep.lanes.lane_rows import AT_ONCE, LANES, RUN, BlockArrays, Cursor, Kind, Setup
from backtest.sweep.policy_columns import BlockColumns
from backtest.venue import MarginRules

CHUNK = 1_048_576
"""Bars between two checks whether to stop: 80 ms, beside the 0.3 ms of a call of the loop."""

WHOLE = Kind(True, True, True)


class Scored(NamedTuple):
    metrics: dict[str, FloatArray]
    returns: FloatArray


def score_block(
    task: GroupTask,
    n: int,
    values: Mapping[str, np.ndarray],
    terms: Mapping[str, FloatArray],
    is_stopped: Callable[[], bool],
) -> Scored | None:
    """Take n sets, up to 64, through the market; None once ``is_stopped`` returns True.

    ``values`` are the parameters of the policy and ``terms`` the fields of account and venue that
    sets name, of shape (n,) each. Raises BlockFault if the policy raises or returns a negative
    number, or if books do not balance.
    """
    full = {name: fill_lanes(column) for name, column in values.items()}
    columns = task.columns.of_block(full)
    rules = task.inputs.rules.instrument
    shape = Shape(
        columns.names,
        task.constants,
        rules.is_inverse,
        rules.is_isolated,
        task.kind.has_flows,
        len(show_table(task, task.full.instrument.margin).floors),
        len(task.inputs.seen.rows) > 1,
    )
    part = compile_or_explain(task, shape)
    own = {k: fill_lanes(v) for k, v in terms.items()}
    block = start_block(task, full, own, part.n_rows)
    n_samples = int(task.inputs.clock.ends_sample[task.first :].sum())
    returns = np.zeros((n_samples if task.has_returns else 0, LANES))
    fees = start_fees(task, own)
    if not run_block(task, shape, block, columns, returns, fees, is_stopped):
        return None
    return Scored(read_metrics(task, block, n), returns[:, :n])


def fill_lanes(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values, np.repeat(values[-1:], LANES - len(values))])


class NotCompiled(Exception):  # noqa: N818 - a reason to sweep in plain Python
    """The policy cannot be compiled."""


def compile_or_explain(task: GroupTask, shape: Shape) -> LanePolicy:
    try:
        with LOCK:
            if shape not in task.parts:
                task.parts[shape] = compile_part(task.policy, shape)
            return task.parts[shape]
    except Exception as refusal:  # numba may raise anything; the policy does not run here
        raise NotCompiled(explain_refusal(refusal, task.policy)) from refusal


class BlockFault(Exception):  # noqa: N818 - a reason to run the sets one by one
    """A lane of a block cannot go on."""


def run_block(
    task: GroupTask,
    shape: Shape,
    block: FloatArray,
    columns: BlockColumns,
    returns: FloatArray,
    fees: LaneFees | None,
    is_stopped: Callable[[], bool],
) -> bool:
    inputs, part = task.inputs, compile_or_explain(task, shape)
    own = make_buffer(columns) if len(columns.places) > 0 else columns.distinct
    setup = Setup(
        rules=inputs.rules,
        kind=task.kind,
        full=task.full,
        whole=WHOLE,
        plan=inputs.plan,
        feed=inputs.feed,
        clock=inputs.clock,
        seen=inputs.seen,
        log=Log(None, np.empty((1, 8)), np.zeros(1, dtype=np.int64)),
    )
    arrays = BlockArrays(
        block=block,
        brackets=pack_margin(show_table(task, task.full.instrument.margin)),
        shared=columns.shared,
        distinct=columns.distinct,
        places=columns.places,
        own=own,
        returns=returns,
        flags=np.array([-1, 0], dtype=np.int64),
    )
    at = Cursor(
        event=0, flow=0, last_funding=math.nan, value=0.0, signal=1.0, free=0.0, sample=0, later=0
    )
    market = (setup, arrays) if fees is None else (setup, arrays, fees)
    loop, live = find_loop(task, market, part, at)
    n_bars = len(inputs.feed.time)
    changes = dict(inputs.changes)
    t = task.first
    while t < n_bars:
        if is_stopped():
            return False
        if t in changes:
            market = (*change_table(task, *market[:2], changes[t]), *market[2:])
            n_shown = len(show_table(task, changes[t]).floors)
            part = compile_or_explain(task, shape._replace(n_brackets=n_shown))
        stop = min(t + CHUNK, n_bars, *(bar for bar in changes if bar > t))
        with hold_signals():
            at, t, why = loop(*market, live, part.decide, at, t, stop)
        at = Cursor(*at)
        if why != DONE:
            raise BlockFault
    return True


def change_table(
    task: GroupTask, setup: Setup, arrays: BlockArrays, table: MarginRules
) -> tuple[Setup, BlockArrays]:
    padded = pad_brackets(table, len(setup.rules.instrument.margin.floors))
    setup = setup._replace(
        rules=setup.rules.with_margin(padded), full=setup.full.with_margin(as_arrays(table))
    )
    return setup, arrays._replace(brackets=pack_margin(show_table(task, table)))


def find_loop(
    task: GroupTask, market: tuple[Any, ...], part: LanePolicy, at: Cursor
) -> tuple[Any, Any]:
    setup = market[0]
    account, instrument = setup.rules
    margin = instrument.margin
    types = (*map(type, account), *map(type, instrument), *map(type, margin))
    types += (*map(type, setup.full.instrument), *map(type, setup.plan))
    key = (setup.kind, *types, len(margin.floors), len(market))
    with LOCK:
        if key not in task.loops:
            task.loops[key] = compile_loop(market, part, at)
        return task.loops[key]


def compile_loop(market: tuple[Any, ...], part: LanePolicy, at: Cursor) -> tuple[Any, Any]:
    setup, arrays = market[:2]
    names = compile_lanes(n_brackets=len(setup.rules.instrument.margin.floors)).names
    loop = names["advance_block" if len(market) == 2 else "advance_days"]
    types = types_of_live(setup, arrays.block, at)
    if is_cold():
        with count_as_compiling():
            child = start_compiling(types)
            compile_for(loop, market, types, part.decide, at)
            child.wait()
    return loop, compile_live_types(types)


def make_buffer(columns: BlockColumns) -> FloatArray:
    width = LANES * sum(is_own for _, is_own in columns.names)
    return make_aligned(AT_ONCE * width + RUN)[: AT_ONCE * width].reshape(AT_ONCE, width)
