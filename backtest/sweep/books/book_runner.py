"""Score sets of parameters of an account with several positions, one after another per thread.

Each set runs through the compiled loop of a single run, so its row has the bits of the run. It is
not recorded, and shares the arrays of the markets, of the signal and of equal columns with others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from backtest.base.compile_choice import pop_kernels, set_hurry
from backtest.base.errors import BacktestError
from backtest.base.thread_pool import count_cores, run_in_threads
from backtest.base.units import IntArray, parse_size
from backtest.engine.compile import background_compiler
from backtest.engine.compile.book_order import (
    BookOrder,
    is_book_plain,
    mark_book_ready,
    order_book,
)
from backtest.engine.lookahead.causality_checker import Causality
from backtest.engine.loop_driver import explain_refusal
from backtest.engine.portfolio.book_driver import list_kernel_arguments, summarize_book
from backtest.engine.portfolio.portfolio_setup import Setup
from backtest.measures.performance import sampled_returns
from backtest.measures.run_measures import measure_accounts
from backtest.measures.tally import flatten_tally
from backtest.portfolio.book_records import EQUITY, UNIT
from backtest.sweep.books.book_panel import BookPanel
from backtest.sweep.causal_ends import EndsChecker
from backtest.sweep.lane_groups import find_codes
from backtest.sweep.lanes.lane_block import BlockFault, NotCompiled, Scored
from backtest.sweep.lanes.lane_runner import BlockOutcome
from backtest.sweep.sets.sets import Sets, count_sets, take_sets

PANELS = 6
"""Number of market parts whose columns are kept, because a search uses them repeatedly."""


class Stopped(Exception):  # noqa: N818 - no error
    """Signal that a sweep must stop."""


class BookTask(NamedTuple):
    """A set to score: its row, its values and what it shares with others."""

    row: int
    values: Mapping[str, Any]
    panel: BookPanel
    has_returns: bool
    is_compiled: bool


class BookRunner:
    """Scores sets of an evaluator on several markets, on several threads.

    Half of ``memory``, in bytes, is for columns.
    """

    def __init__(self, evaluator: Any) -> None:
        self.evaluator = evaluator
        self.metrics: tuple[str, ...] = evaluator.metrics
        self.threads: int = evaluator.threads or count_cores()
        self.memory = parse_size(evaluator.memory, where="memory") / 2 / PANELS
        self.is_compiled: bool | None = None
        self._order: BookOrder | None = None
        self._panels: dict[tuple[int, int | None], BookPanel] = {}
        self._lock = threading.Lock()
        self._checkers = [EndsChecker() for _ in evaluator.market]

    def score(
        self, sets: Sets, *, first: int, stop: int | None, returns: bool
    ) -> Iterator[BlockOutcome]:
        """Yield sets as they are done; raise NotCompiled if numba refuses the policy."""
        if count_sets(sets) == 0:
            return
        self.check_causal(sets, first, stop)
        panel = self._find_panel(first, stop)
        is_compiled = self._choose(sets, panel) if self.is_compiled is None else self.is_compiled
        tasks = (
            BookTask(row, take_sets(sets, row), panel, returns, is_compiled)
            for row in order_sets(sets, panel.list_reads())
        )
        threads = max(1, min(self.threads if is_compiled else 1, count_sets(sets)))
        for task, found in run_in_threads(partial(score_set, self.metrics), tasks, threads):
            if isinstance(found, BaseException) and not isinstance(found, BlockFault):
                raise found
            if self._order is not None:  # the loop is compiled now
                mark_book_ready(self._order)
                self._order = None
            yield BlockOutcome(np.array([task.row]), found)

    def check_causal(self, sets: Sets, first: int = 0, stop: int | None = None) -> None:
        """Refuse a policy that looks ahead, in sets with every word and both ends of each number.

        What was checked once is not checked again. The check also finds what the columns read.
        """
        if count_sets(sets) == 0:
            return
        panel = self._find_panel(first, stop)
        panel.check_overlay()
        for checker, columns in zip(self._checkers, panel.columns, strict=True):
            checker.check(columns, sets)

    def check_set(self, values: Mapping[str, Any]) -> None:
        """Refuse a policy that looks ahead with one set of parameters."""
        panel = self._find_panel(0, None)
        for checker, columns in zip(self._checkers, panel.columns, strict=True):
            checker.check_set(columns, values)

    @property
    def causality(self) -> Causality | None:
        """The check with the fewest cuts; None before the first."""
        found = [each.causality for each in self._checkers if each.causality is not None]
        return min(found, key=lambda each: each.cuts, default=None)

    def _find_panel(self, first: int, stop: int | None) -> BookPanel:
        with self._lock:
            if (first, stop) not in self._panels:
                self._panels[first, stop] = BookPanel(self.evaluator, first, stop, self.memory)
                while len(self._panels) > PANELS:
                    self._panels.pop(next(iter(self._panels)))
            return self._panels[first, stop]

    def _choose(self, sets: Sets, panel: BookPanel) -> bool:
        """Return whether to compile: for a few short runs, plain Python is faster.

        The loop is then compiled in the background, for the next sweep.
        """
        try:
            setup = panel.set_up(take_sets(sets, 0))
            book, desk, tally = panel.begin(setup, is_compiled=False)
        except BacktestError:  # the run of this set gives the reason
            return True
        order = order_book(list_kernel_arguments(setup.inputs, book, desk, tally))
        policies = [(each.policy, tuple(each.columns)) for each in setup.panelists]
        n_bars = (len(setup.inputs.feed.time) - setup.first) * count_sets(sets)
        set_hurry(True)
        try:
            is_plain = is_book_plain(order, policies, n_bars)
        finally:
            set_hurry(False)
        if is_plain:
            background_compiler.start_compiling(pop_kernels(), order)
            return False
        self.is_compiled, self._order = True, order
        return True


def order_sets(sets: Sets, reads: tuple[str, ...]) -> IntArray:
    """Return the rows of sets such that neighbors have the same columns."""
    keys = [find_codes(sets[name]) for name in reversed(reads) if name in sets]
    order: IntArray = np.lexsort(keys) if keys else np.arange(count_sets(sets))
    return order


def compile_or_explain(setup: Setup, panel: BookPanel) -> None:
    """Compile the policy's formula, or raise NotCompiled with the line and the reason."""
    try:
        panel.begin(setup, is_compiled=True)
    except BacktestError:
        raise
    except Exception as refusal:  # numba may raise anything; the policy does not run here
        raise NotCompiled(explain_refusal(refusal, setup.panelists[0].policy)) from refusal


def score_set(
    names: tuple[str, ...], task: BookTask, is_stopped: Callable[[], bool]
) -> Scored | None:
    """Score one set; an error is a fault of the set, which its run explains."""

    def go_on(_done: int, _all: int) -> None:
        if is_stopped():
            raise Stopped

    try:
        return measure_set(names, task, go_on)
    except BacktestError as error:
        raise BlockFault from error
    except Stopped:
        return None


def measure_set(
    names: tuple[str, ...], task: BookTask, progress: Callable[[int, int], None]
) -> Scored:
    """Run one set on the markets and return its measures."""
    panel = task.panel
    setup = panel.set_up(task.values)
    if task.is_compiled:
        compile_or_explain(setup, panel)
    book, desk, tally = panel.begin(setup, is_compiled=task.is_compiled)
    done = summarize_book(
        setup.inputs, book, desk, tally, panel.first,
        has_units=task.has_returns, is_compiled=task.is_compiled, progress=progress,
    )  # fmt: skip
    numbers = {name: np.array([value]) for name, value in flatten_tally(done.tally).items()}
    purse = done.book.purse
    measured = measure_accounts(
        numbers, panel.span, purse[UNIT : UNIT + 1], purse[EQUITY : EQUITY + 1]
    )
    metrics = {name: np.asarray(measured[name], dtype=np.float64) for name in names}
    returns = np.zeros(0)
    if task.has_returns:
        ends = setup.inputs.clock.ends_sample[panel.first :]
        returns = sampled_returns(done.units, ends, done.tally.first_unit)
    return Scored(metrics, returns[:, None])
