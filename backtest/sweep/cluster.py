"""Spread sets of parameters over the workers of a Dask cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import logging
import math
import operator
import pickle
import re
import sys
import sysconfig
import threading
import uuid
import warnings
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest.engine import Conditions, fields
from backtest.policies import Combinator
from backtest.results.measure_table import STREAMED
from backtest.sweep.lanes.rows import LANES
from backtest.sweep.set_evaluator import (
    EvaluatedBars,
    Evaluator,
    PooledEvaluator,
    Rows,
    put_rows,
    start_rows,
)
from backtest.sweep.sets import Sets, VariedTest, count_sets, take_sets

WAIT = 15.0
"""Seconds to wait for a scheduler, and for its first worker."""
SHARE = 32
"""Blocks per worker, if there are sets enough: small blocks end at about the same time."""
MOST_SENT = 5
"""How often what is left is sent, as workers take the market with them when they die."""
LOCAL = re.compile(r"local:([1-9]\d{0,3})")
ADDRESS = re.compile(r"\w+://[^/\s]+:\d+")
LOCAL_OPTIONS: dict[str, Any] = {
    "threads_per_worker": 1,
    "host": "127.0.0.1",
    "memory_limit": None,
    "dashboard_address": "127.0.0.1:0",
    "scheduler_kwargs": {"dashboard": False},
    "silence_logs": logging.CRITICAL,
}
"""How workers of this computer are started: a thread each, no page, and nothing to read."""


@contextlib.contextmanager
def on_cluster(evaluator: Evaluator, cluster: str | None) -> Iterator[Evaluator]:
    """Give an evaluator whose sets run on a cluster, until the block ends; itself without one.

    ``cluster`` is the address of a scheduler, or ``local:N`` for N processes of this computer.
    """
    if cluster is None:
        yield evaluator
        return

    address = cluster if isinstance(cluster, str) else ""
    local = LOCAL.fullmatch(address)
    if not (ADDRESS.fullmatch(address) or local):
        raise core.ParameterError(
            "cluster must be the address that dask scheduler prints, such as tcp://10.0.0.1:8786, "
            f"or local:2, got {core.repr_plain(cluster)}"
        )
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise core.ParameterError(
            f"cluster needs Dask: {error}; pip install 'leverage-backtest[cluster]'"
        ) from error

    # Processes and connection are closed when the stack is left, also by an exception.
    with contextlib.ExitStack() as stack:
        try:
            scheduler: Any = address
            if local:
                n_workers = int(local[1])
                workers = distributed.LocalCluster(n_workers=n_workers, **LOCAL_OPTIONS)
                scheduler = stack.enter_context(workers)
            client = distributed.Client(scheduler, timeout=WAIT, set_as_default=False)
            stack.enter_context(client)

            # A worker must be there, with the same versions of packages.
            client.wait_for_workers(1, timeout=WAIT)
            client.get_versions(check=True)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise core.BacktestError(f"cannot use the cluster {cluster}: {error}") from error

        yield spread(evaluator, client)


def spread(evaluator: Evaluator, client: Any) -> Evaluator:
    """Return the evaluator on a cluster; of accounts by market, each of them on it."""
    if not isinstance(evaluator, PooledEvaluator):
        return ClusterEvaluator(evaluator, client)

    pooled = copy(evaluator)
    members = evaluator.members.items()
    pooled.members = {name: ClusterEvaluator(member, client) for name, member in members}
    return pooled


class ClusterEvaluator(Evaluator):
    """An evaluator whose sets run in blocks on the workers of a cluster."""

    def __init__(self, local: Evaluator, client: Any) -> None:
        vars(self).update(vars(local))  # everything else is that of the local evaluator
        self.client = client
        self.job = describe_job(local)
        self.sent = self._send_market()

    def _send_market(self) -> Any:
        """Send job and market to all workers, which keep them for all blocks."""
        return self.client.scatter(
            [self.job, self.market],
            broadcast=True,
            hash=False,
            timeout=WAIT,
        )

    def _evaluate(
        self,
        sets: Sets,
        wanted: EvaluatedBars,
        progress: core.Progress | None,
    ) -> Rows:
        """Return the rows of sets; those whose market a worker lost are sent again.

        Where the cluster is gone or keeps losing them, the rows that are there are returned, with a
        warning. Raises BacktestError if workers died at the same sets again and again.
        """
        distributed: Any = importlib.import_module("distributed")
        rows = start_rows(sets, self.measured)
        work = ClusterWork(sets, wanted, rows, {}, progress)
        parts = self._split(count_sets(sets))

        try:
            for attempt in range(MOST_SENT):
                # The market was lost with a worker: the others get it again.
                if attempt > 0:
                    self.sent = self._send_market()

                lost = self._evaluate_parts(work, parts)
                parts = [part for part in parts if not work.rows.done[part].all()]
                if lost is None:
                    break
            else:
                text = f"the cluster lost what was sent {MOST_SENT} times: {lost}"
                work.warned[text] = UserWarning
        except (OSError, TimeoutError, distributed.client.FutureCancelledError) as error:
            work.warned[f"the cluster is gone: {error}"] = UserWarning
        except distributed.scheduler.KilledWorker as error:
            raise core.BacktestError(
                f"workers of the cluster died at the same sets: {error}"
            ) from error

        for text, kind in work.warned.items():
            core.warn_caller(text, kind)
        return work.rows

    def _split(self, n: int) -> list[Any]:
        """Return the places of n sets by part, SHARE parts a worker.

        Compiled sets run in blocks of LANES, so a part of them is whole blocks.
        """
        size_of_block = LANES if self.compile else 1
        n_workers = max(len(self.client.nthreads()), 1)
        n_parts = SHARE * n_workers
        blocks_of_part = math.ceil(n / (n_parts * size_of_block))
        size = size_of_block * blocks_of_part

        parts = []
        for begin in range(0, n, size):
            end = min(begin + size, n)
            parts.append(np.arange(begin, end))
        return parts

    def _evaluate_parts(self, work: ClusterWork, parts: list[Any]) -> Exception | None:
        """Put the rows of parts of the sets; return why the cluster lost some, None if it did not.

        Writes rows and warnings into ``work`` as they come, in any order. After Ctrl-C the parts
        that are not done are dropped.
        """
        distributed: Any = importlib.import_module("distributed")

        # ``self.sent`` are the job and the market, which are with the workers already. Each part is
        # run once (pure=False: equal calls are not joined), and again if a worker dies.
        part_of_future: dict[Any, Any] = {}
        for part in parts:
            future = self.client.submit(
                compute_block,
                *self.sent,
                take_sets(work.sets, part),
                work.wanted._asdict(),
                pure=False,
                retries=3,
            )
            part_of_future[future] = part

        futures = list(part_of_future)
        try:
            for future in distributed.as_completed(futures, loop=self.client.loop):
                rows, warned = future.result()
                put_rows(work.rows, part_of_future[future], rows)
                work.warned.update(warned)
                done = work.rows.done
                core.report_progress(work.progress, int(done.sum()), len(done))
        except KeyboardInterrupt:
            self.client.cancel(futures, force=True)
        except distributed.client.FutureCancelledError as error:
            self.client.cancel(futures, force=True)
            lost: Exception = error
            return lost
        return None


class ClusterWork(NamedTuple):
    """Sets on their way through a cluster: their rows so far, and the warnings of workers."""

    sets: Sets
    wanted: EvaluatedBars
    rows: Rows
    warned: dict[str, type[Warning]]
    progress: core.Progress | None


EVALUATORS: dict[str, Evaluator] = {}
LOCK = threading.Lock()


class Job(NamedTuple):
    """What a worker needs of an evaluator but its market, under a name that no other job has.

    ``content`` is a pickled :class:`JobContent`.
    """

    name: str
    content: bytes


class JobContent(NamedTuple):
    """The settings of an evaluator: its test without the market, what sets vary, and the rest."""

    conditions: dict[str, Any]
    policy: Any
    names: tuple[str, ...]
    rule: Any
    settings: dict[str, Any]

    def build(self, market: Any) -> Evaluator:
        """Return the evaluator on a market; in a worker it has one thread."""
        test = Conditions(market, **self.conditions)
        varied = VariedTest(test, self.policy, self.names, self.rule)
        return Evaluator(varied, threads=1, **self.settings)


def compute_block(
    job: Job,
    market: Any,
    sets: Sets,
    wanted: dict[str, Any],
) -> tuple[Rows, tuple[tuple[str, type[Warning]], ...]]:
    """Evaluate sets in a worker; return their rows, and what they warned of.

    The worker keeps the evaluator of its last job in ``EVALUATORS``, with its columns. One block
    runs at a time, as the process has one place for warnings.
    """
    with LOCK, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        # The first block of a job: that of the job before is not needed any more.
        if job.name not in EVALUATORS:
            EVALUATORS.clear()
            content: JobContent = pickle.loads(job.content)
            EVALUATORS[job.name] = content.build(market)
        rows = EVALUATORS[job.name].evaluate(sets, **wanted)

    # Each warning once, in the order in which they came.
    warned = dict.fromkeys((str(warning.message), warning.category) for warning in caught)
    return rows, tuple(warned)


def describe_job(evaluator: Evaluator) -> Job:
    """Pickle the settings of an evaluator under a name of its own.

    Code of the user, which workers lack, is pickled by value, all other by reference.
    """
    cloudpickle: Any = importlib.import_module("cloudpickle")

    # The keywords of ``Evaluator``, which the worker builds again.
    metrics = "all" if evaluator.metrics == STREAMED else "core"
    settings: dict[str, Any] = {
        "memory": evaluator.memory,
        "compile": evaluator.compile,
        "metrics": metrics,
    }
    varied = evaluator.varied
    content = JobContent(
        conditions=fields(varied.test),
        policy=varied.policy,
        names=varied.names,
        rule=varied.rule,
        settings=settings,
    )

    class Packer(cloudpickle.Pickler):  # type: ignore[misc] # known where Dask is
        def reducer_override(self, value: Any) -> Any:
            """Return how the worker makes a value again: a function, and its arguments."""
            if value is dataclasses.MISSING:  # is compared by identity, which a copy loses
                return getattr, (dataclasses, "MISSING")

            # The class of a combined policy is made when policies are combined.
            if isinstance(value, type) and issubclass(value, Combinator) and value.parts:
                policies = tuple(part.policy for part in value.parts)
                return operator.methodcaller("over", *policies), (value.written,)
            return super().reducer_override(value)

    # Registered for this pickle alone: the user may pickle modules in another way.
    modules = find_user_modules()
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    file = io.BytesIO()
    try:
        Packer(file).dump(content)
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)

    return Job(uuid.uuid4().hex, file.getvalue())


def find_user_modules() -> list[ModuleType]:
    """Return the modules of the user that are loaded, which workers lack.

    They are files of Python outside of where Python, packages and this package are installed. The
    script that runs, ``__main__``, is pickled by value anyway.
    """
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = [Path(sysconfig.get_path(name)).resolve() for name in names]
    installed.append(Path(__file__).resolve().parents[1])

    modules = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        path = Path(file)
        if name == "__main__" or path.suffix != ".py" or not path.is_file():
            continue
        if not is_inside(path.resolve(), installed):
            modules.append(module)
    return modules


def is_inside(path: Path, folders: list[Path]) -> bool:
    """Return whether a path is inside one of some folders."""
    return any(path.is_relative_to(folder) for folder in folders)
