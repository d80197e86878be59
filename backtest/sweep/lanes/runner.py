"""Score sets of parameters: in blocks of lanes, or one after another, over threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from backtest.account import AccountState
from backtest.account.records import EQUITY
from backtest.base import (
    BacktestError,
    FloatArray,
    IntArray,
    count_cores,
    parse_size,
    run_in_threads,
)
from backtest.engine import (
    Causality,
    Deciders,
    Setup,
    explain_refusal,
    summarize_account,
)
from backtest.engine.compiler import LOCK
from backtest.measures import name_tally, sampled_returns
from backtest.measures.measure_table import CORE, STREAMED
from backtest.measures.tally import FIRST_UNIT
from backtest.sweep.columns import EndsChecker
from backtest.sweep.lanes.block import (
    LEAST_LANES,
    Block,
    has_own_columns,
    join_columns,
    measure_wallets,
    score_block,
)
from backtest.sweep.lanes.fit import fits_lanes, have_same_terms
from backtest.sweep.lanes.formula import compile_lane_formula
from backtest.sweep.lanes.outcomes import BlockFault, BlockOutcome, NotCompiled, Scored
from backtest.sweep.lanes.panel import Panel
from backtest.sweep.lanes.rows import LANES
from backtest.sweep.sets import Sets, count_sets, find_codes, find_values, take_sets

OWN_TERMS = frozenset(
    {
        "account.capital", "account.band", "account.min_leverage", "account.max_leverage",
        "account.stop_loss", "account.take_profit", "account.trailing_stop",
        "venue.contract.lot", "venue.contract.min_notional", "venue.slippage.rate",
        "venue.fees.taker", "venue.fees.maker", "venue.fees.maker_share",
        "venue.liquidation.fee", "venue.liquidation.slippage",
    }
)  # fmt: skip
"""Terms in which the lanes of a block may differ, where all have them or none."""

EXPOSED = frozenset(STREAMED) - frozenset(CORE)
"""Measures for which each close is looked at."""
PANELS = 6
"""Number of market parts whose columns are kept, because a search uses them repeatedly."""


class Stopped(Exception):  # noqa: N818 - no error
    """Signal that a sweep must stop."""


class SetTask(NamedTuple):
    rows: IntArray
    sets: Sets
    panel: Panel
    has_returns: bool
    setup: Setup | None = None


class LaneRunner:
    def __init__(self, evaluator: Any) -> None:
        self.evaluator = evaluator
        self.metrics: tuple[str, ...] = evaluator.metrics
        self.threads: int = evaluator.threads or count_cores()
        self.memory = parse_size(evaluator.memory, "memory") / 2 / PANELS
        self._panels: dict[tuple[int, int | None], Panel] = {}
        self._lock = threading.Lock()
        self._checkers = {name: EndsChecker() for name in evaluator.markets.names}

    def score(
        self, sets: Sets, *, first: int, stop: int | None, returns: bool
    ) -> Iterator[BlockOutcome]:
        if count_sets(sets) == 0:
            return
        self.check_causal(sets, first, stop)
        panel = self._find_panel(first, stop)
        tasks = self._split(sets, panel, returns)
        threads = max(1, min(self.threads, count_sets(sets)))
        for _, found in run_in_threads(partial(score_task, self.metrics), tasks, threads):
            if isinstance(found, BaseException):
                raise found
            yield from found

    def _split(self, sets: Sets, panel: Panel, has_returns: bool) -> Iterator[SetTask]:
        reads = panel.list_reads()
        texts = [name for name in sets if sets[name].dtype == object]
        terms = [name for name in sets if "." in name and name not in OWN_TERMS]
        apart = [sets[name] for name in dict.fromkeys([*texts, *terms])]
        shared = [sets[name] for name in sets if name in OWN_TERMS and sets[name].dtype != object]
        apart += [each > 0.0 for each in shared]
        keys = [*(sets[name] for name in reversed(reads) if name in sets), *apart]
        order = np.lexsort([*map(find_codes, keys)]) if keys else np.arange(count_sets(sets))
        fits = not panel.base.has_own(sets)  # lanes share policies and overlay
        for rows in split_where(order, apart):
            setup = None
            if fits and len(rows) >= LEAST_LANES:
                setup = find_setup(panel, take_sets(sets, int(rows[0])))
            limit = count_distinct(setup, self.memory) if setup is not None else 0
            own = [sets[name] for name in reads if name in sets]
            for part in split_rows(rows, own, limit, min(LANES, -(-len(rows) // self.threads))):
                is_block = setup is not None and len(part) >= LEAST_LANES
                for some in [part] if is_block else part[:, None]:
                    yield SetTask(
                        some, take_sets(sets, some), panel, has_returns,
                        setup if is_block else None,
                    )  # fmt: skip

    def check_causal(self, sets: Sets, first: int = 0, stop: int | None = None) -> None:
        if count_sets(sets) == 0:
            return
        panel = self._find_panel(first, stop)
        panel.check_overlays(sets)
        for name, columns in zip(panel.seen.names, panel.columns, strict=True):
            self._checkers[name].check(columns, find_values(sets, name))

    def check_set(self, values: Mapping[str, Any]) -> None:
        panel = self._find_panel(0, None)
        for name, columns in zip(panel.seen.names, panel.columns, strict=True):
            self._checkers[name].check_set(columns, find_values(values, name))

    @property
    def causality(self) -> Causality | None:
        found = [each.causality for each in self._checkers.values()]
        known = [each for each in found if each is not None]
        return min(known, key=lambda each: each.cuts, default=None)

    def _find_panel(self, first: int, stop: int | None) -> Panel:
        with self._lock:
            if (first, stop) not in self._panels:
                self._panels[first, stop] = Panel(self.evaluator, first, stop, self.memory)
                while len(self._panels) > PANELS:
                    self._panels.pop(next(iter(self._panels)))
            return self._panels[first, stop]


def split_where(rows: IntArray, columns: list[np.ndarray]) -> list[IntArray]:
    codes = [find_codes(each)[rows] for each in columns]
    changes = [np.flatnonzero(np.diff(each)) + 1 for each in codes]
    return np.split(rows, np.unique(np.concatenate([*changes, np.zeros(0, np.int64)])))


def split_rows(
    rows: IntArray, columns: list[np.ndarray], limit: int, most: int
) -> Iterator[IntArray]:
    most = max(most, LEAST_LANES)
    pieces = [piece for piece in split_where(rows, columns) if len(piece)]
    part: list[IntArray] = []
    for piece in pieces if limit > 0 else [rows]:
        rest = piece
        while len(rest):
            scratch = most - sum(map(len, part))
            if part and (scratch == 0 or len(part) >= limit > 0):
                yield np.concatenate(part)
                part, scratch = [], most
            part.append(rest[:scratch])
            rest = rest[scratch:]
    if part:
        yield np.concatenate(part)


def find_setup(panel: Panel, values: Mapping[str, Any]) -> Setup | None:
    try:
        setup = panel.set_up(values)
    except BacktestError:  # the run of this set gives the reason
        return None
    _, deciders, _ = begin_or_explain(setup, panel)
    return setup if fits_lanes(setup, deciders) else None


def count_distinct(setup: Setup, memory: float) -> int:
    columns = [each for policy in setup.observed for each in policy.columns.values()]
    size = sum(each.nbytes for each in columns)
    return max(1, int(memory // max(size, 1)))


def begin_or_explain(setup: Setup, panel: Panel) -> tuple[AccountState, Deciders, FloatArray]:
    try:
        return panel.begin(setup)
    except BacktestError:
        raise
    except Exception as refusal:  # numba may raise anything; the policy does not run here
        raise NotCompiled(explain_refusal(refusal, setup.observed[0].policy)) from refusal


def score_task(
    names: tuple[str, ...], task: SetTask, is_stopped: Callable[[], bool]
) -> list[BlockOutcome]:
    if task.setup is not None:
        try:
            return [BlockOutcome(task.rows, score_lanes(names, task, task.setup, is_stopped))]
        except (BacktestError, BlockFault):
            pass
    found = []
    for k in range(len(task.rows)):
        one = task._replace(rows=task.rows[k : k + 1], sets=take_sets(task.sets, k))
        found.append(BlockOutcome(one.rows, score_set(names, one, is_stopped)))
    return found


def score_lanes(
    names: tuple[str, ...], task: SetTask, like: Setup, is_stopped: Callable[[], bool]
) -> Scored | None:
    panel, known = task.panel, {}
    setups = [panel.set_up_lane(like, take_sets(task.sets, k)) for k in range(len(task.rows))]
    for setup in setups:
        known[id(setup.inputs)] = setup
    first, *others = known.values()
    if not all(have_same_terms(first, each) for each in others):
        raise BlockFault
    _, deciders, _ = begin_or_explain(setups[0], panel)
    columns = join_columns(setups)
    varied = frozenset(name for name, each in task.sets.items() if len(set(each.tolist())) > 1)
    own, asked = has_own_columns(columns), frozenset(task.sets)
    with LOCK:
        formulas = [
            compile_lane_formula(
                each.policy, tuple(each.columns), varied, asked, has_own_columns=own
            )
            for each in setups[0].observed
        ]

    def find_deciders(lane: int) -> Deciders:
        return panel.begin(setups[lane])[1]

    block = Block(
        setups=setups,
        find_deciders=find_deciders,
        deciders=deciders,
        addresses=formulas,
        columns=columns,
        span=panel.span,
        has_returns=task.has_returns,
        is_full=bool(EXPOSED & {*names}),
    )
    return score_block(names, block, is_stopped)


def score_set(
    names: tuple[str, ...], task: SetTask, is_stopped: Callable[[], bool]
) -> Scored | BlockFault | None:
    def go_on(_done: int, _all: int) -> None:
        if is_stopped():
            raise Stopped

    try:
        return measure_set(names, task, go_on)
    except BacktestError:
        return BlockFault()
    except Stopped:
        return None


def measure_set(
    names: tuple[str, ...], task: SetTask, progress: Callable[[int, int], None]
) -> Scored:
    panel = task.panel
    setup = panel.set_up(task.sets)
    state, deciders, tally = begin_or_explain(setup, panel)
    began = state.wallet[[EQUITY]].copy()
    done = summarize_account(
        setup.inputs, state, deciders, tally, panel.first,
        has_units=task.has_returns, is_compiled=True, progress=progress,
    )  # fmt: skip
    flat = {name: np.array([value]) for name, value in name_tally(done.tally).items()}
    metrics = measure_wallets(names, panel.span, flat, done.state.wallet[None], began)
    returns = np.zeros(0)
    if task.has_returns:
        ends = setup.inputs.clock.ends_sample[panel.first :]
        returns = sampled_returns(done.units, ends, float(done.tally[FIRST_UNIT]))
    return Scored(metrics, returns[:, None])
