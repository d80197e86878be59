"""An evaluator whose sets are evaluated by the workers of a cluster."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence

import numpy as np

from backtest.base.units import FloatArray, IntArray
from backtest.engine.loop_driver import Progress
from backtest.sweep.cluster.shipped_code import collect_sources, pack
from backtest.sweep.cluster.worker import Answer, Block, Brief, Job
from backtest.sweep.cluster.worker_pool import ClusterLost, Crew
from backtest.sweep.evaluator import (
    OF_PATH,
    STREAMED,
    Evaluator,
    Rows,
    put_plain,
    stack,
    start_rows,
)
from backtest.sweep.lane_groups import find_codes, sort_into_groups
from backtest.sweep.lanes.lane_rows import LANES
from backtest.sweep.policy_columns import find_reads
from backtest.sweep.sets.sets import Sets, build_trio, count_sets

SHARE = 32
"""Blocks per worker where there are sets enough: the last ones to end keep few waiting."""
MOST_OBSERVED = 2_048
"""Bars on which it is seen what a policy's columns depend on."""


class ClusterEvaluator(Evaluator):
    """An evaluator whose sets are evaluated by the workers of a cluster; replays happen here.

    Each row depends on its set alone, so that the numbers are those of one machine, bit for bit,
    wherever blocks are cut and whoever evaluates them.

    Parameters
    ----------
    own : Evaluator
        Of this machine: it says what is evaluated.
    crew : Crew
        The workers.
    """

    def __init__(self, own: Evaluator, crew: Crew) -> None:
        _, venue, account = own.base
        super().__init__(
            own.market,
            own.base.policy,
            venue=venue,
            account=account,
            signal=own.signal,
            sampling=own.sampling,
            calendar=own.calendar,
            metrics="all" if own.metrics == STREAMED else "core",
            threads=own.threads,
            memory=own.memory,
            compile=own.compile,
        )
        self.crew = crew
        self.job = write_job(self)

    def evaluate(
        self,
        sets: Sets,
        *,
        first: int = 0,
        stop: int | None = None,
        returns: bool = False,
        progress: Progress | None = None,
    ) -> Rows:
        """Return the measures of all sets, as :meth:`backtest.sweep.evaluator.Evaluator.evaluate`."""
        wanted = Block({}, first, stop, returns)
        order = arrange(self, sets) if self.compile else np.arange(count_sets(sets))
        return self._send(sets, order, wanted, LANES if self.compile else 1, progress)

    def evaluate_path(self, sets: Sets, *, progress: Progress | None = None) -> Rows:
        """Return the measures that need the path of an account."""
        order = np.arange(count_sets(sets))
        return self._send(sets, order, Block({}, is_path=True), 1, progress)

    def _send(
        self, sets: Sets, order: IntArray, wanted: Block, unit: int, progress: Progress | None
    ) -> Rows:
        """Return the rows of sets, cut into blocks in an order; Ctrl-C ends with what is done."""
        rows = start_rows(sets, OF_PATH if wanted.is_path else self.metrics)
        parts = cut(order, self.crew.count_threads(), unit)
        blocks = [
            wanted._replace(sets={name: values[places] for name, values in sets.items()})
            for places in parts
        ]
        sampled: dict[int, FloatArray] = {}
        told: dict[tuple[str, type[Warning]], None] = {}
        try:
            for answer in self.crew.work(self.job, self.market, blocks):
                put_answer(rows, parts[answer.place], answer, sampled)
                told.update(dict.fromkeys(answer.warnings))
                if progress is not None:
                    progress(int(rows.done.sum()), len(rows.done))
        except KeyboardInterrupt:
            pass
        except ClusterLost:
            told[f"the scheduler at {self.crew.place} is gone", UserWarning] = None
        for text, kind in told:
            warnings.warn(text, kind, stacklevel=4)
        return rows._replace(returns=stack(sampled, len(order))) if wanted.has_returns else rows


def write_job(evaluator: Evaluator) -> Job:
    """Return what workers are told of an evaluator."""
    brief = Brief(
        evaluator.base,
        evaluator.signal,
        evaluator.sampling,
        evaluator.calendar,
        "all" if evaluator.metrics == STREAMED else "core",
        evaluator.memory,
        evaluator.compile,
    )
    content, sources = pack(brief), collect_sources()
    market = evaluator.market.content_hash
    digest = hashlib.sha256(market.encode() + content)
    digest.update(json.dumps(sources, sort_keys=True).encode())
    return Job(digest.hexdigest(), market, content, sources)


def arrange(evaluator: Evaluator, sets: Sets) -> IntArray:
    """Return the order in which sets are cut, so that neighbours share rules and columns."""
    values = {name: column[0] for name, column in sets.items()}
    policy = build_trio(evaluator.base, evaluator.settings, values).policy
    market = evaluator.market
    few = market.prefix(min(market.n_bars, MOST_OBSERVED))
    reads = [name for name in find_reads(policy, "observe", few) if name in sets]
    keys = [find_codes(sets[name]) for name in reversed(reads)]
    order = []
    for group in sort_into_groups(evaluator.base, evaluator.settings, sets):
        within = np.lexsort([key[group.rows] for key in keys]) if keys else slice(None)
        order.append(group.rows[within])
    return np.concatenate(order)


def cut(order: IntArray, threads: Sequence[int], unit: int) -> list[IntArray]:
    """Return places in blocks: many per worker, each enough for all threads of one.

    Examples
    --------
    >>> [len(part) for part in cut(np.arange(300), [1, 1], 64)]
    [64, 64, 64, 64, 44]
    >>> [len(part) for part in cut(np.arange(10_000), [2], 64)][:2]
    [384, 384]
    """
    unit *= max(threads, default=1)
    size = unit * -(-len(order) // (SHARE * max(len(threads), 1) * unit))
    return [order[k : k + size] for k in range(0, len(order), size)]


def put_answer(
    rows: Rows, places: IntArray, answer: Answer, sampled: dict[int, FloatArray]
) -> None:
    """Write the answer to a block into its places."""
    if answer.rows is not None:
        put_plain(rows, places, answer.rows, sampled)
        return
    for place in places.tolist():
        rows.errors[place] = answer.error
    rows.done[places] = True
