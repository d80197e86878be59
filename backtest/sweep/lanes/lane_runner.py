"""Score sets of parameters in blocks of lanes, on all cores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from backtest.account.account import without_flows_before
from backtest.base.errors import BacktestError
from backtest.base.thread_pool import count_cores, run_in_threads
from backtest.base.units import FloatArray, IntArray
from backtest.engine.lookahead.causality_checker import Causality
from backtest.engine.signal_input import read_signal
from backtest.market.market import Market
from backtest.policy.policy import Policy
from backtest.sweep.lane_groups import find_codes, sort_into_groups
from backtest.sweep.lanes.block_task import Loops, Task, prepare
from backtest.sweep.lanes.lane_block import BlockFault, Scored, score_block
from backtest.sweep.lanes.lane_rows import LANES
from backtest.sweep.policy_columns import Columns
from backtest.sweep.sets.representative_sets import Ends
from backtest.sweep.sets.sets import Base, Sets, Setting, count_sets, to_plain_value

MARKETS = 6
"""Ends of markets whose columns are kept: the parts of a search come again and again."""

FEW_BLOCKS = 32
"""Up to so many blocks it matters which come last: a thread may wait for one of them."""

SAFETY = 2.0
"""A block's columns take this many times their size while they are made."""


class Job(NamedTuple):
    """A block to be scored: its task, where its sets stand, and their values."""

    task: Task
    places: IntArray
    values: Mapping[str, np.ndarray]
    terms: Mapping[str, FloatArray]


class Outcome(NamedTuple):
    """The result of a block: scored, given up (None), or a fault to be found by single runs."""

    places: IntArray
    found: Scored | BlockFault | None


class LaneRunner:
    """A market, a policy, a venue and an account, prepared to score many sets side by side.

    Parameters
    ----------
    market : Market
    base : Base
        What sets are laid over.
    settings : mapping of str to Setting
        What they may vary.
    signal, sampling, calendar
        As in :func:`backtest.run`.
    is_full : bool
        Whether all measures are counted, or only the core's.
    threads : int or None
        Blocks at once; None for as many as there are cores.
    memory : float
        Bytes that columns may take: half of them for those that whole blocks share, half for
        those of the blocks in progress. One block at least is always in progress.
    """

    def __init__(
        self,
        market: Market,
        base: Base,
        settings: Mapping[str, Setting],
        *,
        signal: Any,
        sampling: str,
        calendar: str,
        is_full: bool,
        threads: int | None,
        memory: float,
    ) -> None:
        self.signal = read_signal(signal, market, 0)
        self.market = market.with_signal(self.signal)
        self.base = base
        self.settings = settings
        self.sampling = sampling
        self.calendar = calendar
        self.is_full = is_full
        self.threads = threads or count_cores()
        self.memory = memory
        self._columns: dict[int, Columns] = {}
        self._loops: Loops = {}
        self._lock = threading.Lock()
        self._ends = Ends()
        self.causality: Causality | None = None

    def build(self, values: Mapping[str, Any]) -> Policy:
        """Return the policy with some of its parameters."""
        held = self.base.policy.settings() if isinstance(self.base.policy, Policy) else {}
        chosen = {
            name: to_plain_value(self.settings[name], value)
            for name, value in values.items()
            if "." not in name
        }
        return self.base.policy_class(**{**held, **chosen})

    def score(
        self, sets: Sets, *, first: int, stop: int | None, has_returns: bool
    ) -> Iterator[Outcome]:
        """Yield the blocks of some sets as they are done, in no order.

        Raises
        ------
        NotCompiled
            If numba refuses the policy.
        """
        if count_sets(sets) == 0:
            return
        self.check_causal(sets, stop)
        columns = self._columns_up_to(self.market.n_bars if stop is None else stop)
        jobs = self._cut(sets, columns, first, has_returns)
        for job, found in run_in_threads(work, jobs, self._count_threads(columns, sets)):
            if isinstance(found, BaseException) and not isinstance(found, BlockFault):
                raise found
            yield Outcome(job.places, found)

    def _columns_up_to(self, stop: int) -> Columns:
        with self._lock:
            if stop not in self._columns:
                whole = stop == self.market.n_bars
                market = self.market if whole else self.market.prefix(stop)
                self._columns[stop] = Columns(market, self.build, self.memory / 2 / MARKETS)
                while len(self._columns) > MARKETS:
                    self._columns.pop(next(iter(self._columns)))
            return self._columns[stop]

    def check_causal(self, sets: Sets, stop: int | None = None) -> None:
        """Refuse a policy that looks ahead, in sets with every word and both ends of each number.

        What was checked once is not checked again; it also shows what the columns read.

        Raises
        ------
        PolicyError
            Naming the column and the bar.
        """
        if count_sets(sets) == 0:
            return
        columns = self._columns_up_to(self.market.n_bars if stop is None else stop)
        failed = np.zeros(count_sets(sets), dtype=np.bool_)
        while (row := self._ends.choose(sets, columns.reads, failed)) is not None:
            if self._check_set(columns, {name: values[row] for name, values in sets.items()}):
                self._ends.accept(sets, columns.reads, row)
            else:
                failed[row] = True

    def check_set(self, values: Mapping[str, Any]) -> None:
        """Refuse a policy that looks ahead with one set of parameters."""
        self._check_set(self._columns_up_to(self.market.n_bars), values)

    def _check_set(self, columns: Columns, values: Mapping[str, Any]) -> bool:
        """Check the columns of a set; return whether it can be observed."""
        found = columns.check_causal(values)
        if found is not None and (self.causality is None or found.cuts < self.causality.cuts):
            self.causality = found
        return found is not None

    def _cut(self, sets: Sets, columns: Columns, first: int, has_returns: bool) -> Iterator[Job]:
        """Yield blocks of up to 64 sets of one group, neighbours having the same columns."""
        signal = self.signal if len(self.signal) == 1 else self.signal[: columns.market.n_bars]
        base = self.base
        if first > 0:
            account = without_flows_before(base.account, int(columns.market.time[first]))
            base = base._replace(account=account)
        for group in sort_into_groups(base, self.settings, sets):
            task = prepare(
                group,
                columns,
                sets,
                signal=signal,
                sampling=self.sampling,
                calendar=self.calendar,
                first=first,
                is_full=self.is_full,
                has_returns=has_returns,
                loops=self._loops,
            )
            read = [sets[name][group.rows] for name in reversed(columns.reads) if name in sets]
            order = np.lexsort([find_codes(values) for values in read]) if read else slice(None)
            places = group.rows[order]
            terms = {name: values[order] for name, values in group.terms.items()}
            n_blocks = -(-len(places) // LANES)
            for k in range(n_blocks) if read else order_blocks(n_blocks):
                block = slice(k * LANES, (k + 1) * LANES)
                own = {name: each[places[block]] for name, each in sets.items() if "." not in name}
                cut = {name: values[block] for name, values in terms.items()}
                yield Job(task, places[block], own, cut)

    def _count_threads(self, columns: Columns, sets: Sets) -> int:
        """Return how many blocks may be in progress within the limit of memory."""
        is_own = any(name in sets for name in columns.reads)
        n_columns = columns.count({name: values[0] for name, values in sets.items()})
        each = n_columns * columns.market.n_bars * 8 * LANES * SAFETY if is_own else 0.0
        most = int(self.memory / 2 // each) if each > 0.0 else self.threads
        blocks = -(-count_sets(sets) // LANES)
        return max(1, min(self.threads, most, blocks))


def order_blocks(n: int) -> Iterator[int]:
    """Yield n blocks in the order to score them: few of them from both ends inwards.

    What a set costs often rises or falls along a grid. Those in the middle are alike, and coming
    last they let all threads end at about the same time. (Sets with columns of their own stand in
    the order of what these depend on: short windows, which trade most, come first anyhow.)

    Examples
    --------
    >>> list(order_blocks(5))
    [4, 0, 3, 1, 2]
    """
    if n > FEW_BLOCKS:
        yield from range(n)
        return
    for k in range(n):
        yield k // 2 if k % 2 else n - 1 - k // 2


def work(job: Job, is_stopped: Callable[[], bool]) -> Scored | None:
    """Score one block; what a policy refuses is a fault of the block."""
    try:
        return score_block(job.task, len(job.places), job.values, job.terms, is_stopped)
    except BacktestError as error:
        raise BlockFault from error
