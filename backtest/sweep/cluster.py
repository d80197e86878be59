"""Spread sets of parameters over the workers of a Dask cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.abc
import importlib.util
import io
import linecache
import logging
import pickle
import re
import sys
import sysconfig
import threading
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtest.base import (
    BacktestError,
    FloatArray,
    ParameterError,
    find_versions,
    repr_plain,
    warn_caller,
)
from backtest.engine import Progress
from backtest.market import Market, Markets
from backtest.measures.measure_table import STREAMED
from backtest.policy import Combinator, combinator_of, rebuild_class
from backtest.sweep.lanes.lane_rows import LANES
from backtest.sweep.set_evaluator import OF_PATH, Evaluator
from backtest.sweep.set_rows import Rows, put_rows, stack_returns, start_rows
from backtest.sweep.sets.sets import Sets, count_sets, take_sets

WAIT = 15.0
"""Seconds to wait for a scheduler, and for its first worker."""
SHARE = 32
"""Blocks per worker, if there are sets enough: small blocks end at about the same time."""
RETRIES = 3
LOCAL, ADDRESS = re.compile(r"local(?::(\d{1,4}))?"), re.compile(r"\w+://[^/\s]+:\d+")
Warned = tuple[tuple[str, type[Warning]], ...]


class Job(NamedTuple):
    """What a worker makes an evaluator of: its settings, and the user's modules.

    ``sources`` are path and text by the name of a module: pickled functions alone would be in no
    module, from which another worker could load them compiled.
    """

    name: str
    content: bytes
    sources: dict[str, tuple[str, str]]


@contextlib.contextmanager
def on_cluster(evaluator: Evaluator, cluster: str | None) -> Iterator[Evaluator]:
    """Let an evaluator send its sets to a cluster; None leaves it here."""
    if cluster is None:
        yield evaluator
        return
    with connect(cluster) as client:
        check_versions(client)
        yield evaluator.map_members(lambda each: ClusterEvaluator(each, client))


@contextlib.contextmanager
def connect(cluster: str) -> Iterator[Any]:
    text = cluster if isinstance(cluster, str) else ""
    local = LOCAL.fullmatch(text)
    if not ADDRESS.fullmatch(text) and not (local and int(local[1] or 0) > 0):
        raise ParameterError(
            "cluster must be the address that dask scheduler prints, such as tcp://10.0.0.1:8786, "
            f"or local:2, got {repr_plain(cluster)}"
        )
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise ParameterError(
            f"cluster needs Dask, which is not installed: {error}; pip install "
            "'leverage-backtest[cluster]'"
        ) from error
    with contextlib.ExitStack() as stack:
        try:
            place: Any = text
            if local:
                place = stack.enter_context(
                    distributed.LocalCluster(
                        n_workers=int(local[1]), threads_per_worker=1, host="127.0.0.1",
                        dashboard_address="127.0.0.1:0", memory_limit=None,
                        scheduler_kwargs={"dashboard": False}, silence_logs=logging.CRITICAL,
                    )
                )  # fmt: skip
            client = distributed.Client(place, timeout=WAIT, set_as_default=False)
            stack.enter_context(client)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise BacktestError(f"cannot reach the cluster {cluster}: {error}") from error
        try:
            client.wait_for_workers(1, timeout=WAIT)
        except TimeoutError as error:
            raise BacktestError(
                f"the cluster has no workers after {WAIT:g} s; start one: dask worker {cluster}"
            ) from error
        yield client


def check_versions(client: Any) -> None:
    own = find_versions()
    for address, found in client.run(find_versions).items():
        differing = [
            f"{k} ({v}, the worker has {found[k]})" for k, v in own.items() if v != found[k]
        ]
        if differing:
            raise ParameterError(
                f"the client and the worker {address} must have the same versions; these differ: "
                f"{', '.join(differing)}"
            )


class ClusterEvaluator(Evaluator):
    def __init__(self, local: Evaluator, client: Any) -> None:
        vars(self).update(vars(local))  # everything else is that of the local evaluator
        self.client = client
        job = describe_job(local)
        self.sent = client.scatter([job, local.market], broadcast=True, hash=False)

    def evaluate(
        self,
        sets: Sets,
        *,
        first: int = 0,
        stop: int | None = None,
        returns: bool = False,
        progress: Progress | None = None,
    ) -> Rows:
        has_returns = returns or bool(self.equivalents)
        wanted = {"first": first, "stop": stop, "returns": has_returns}
        rows = self._send(sets, LANES if self.compile else 1, wanted, progress)
        return self.finish_rows(rows, returns)

    def evaluate_path(self, sets: Sets, *, progress: Progress | None = None) -> Rows:
        return self._send(sets, 1, None, progress)

    def _send(
        self, sets: Sets, unit: int, wanted: dict[str, Any] | None, progress: Progress | None
    ) -> Rows:
        distributed: Any = importlib.import_module("distributed")
        rows = start_rows(sets, OF_PATH if wanted is None else self.measured)
        n, n_workers = count_sets(sets), max(len(self.client.nthreads()), 1)
        size = unit * -(-n // (SHARE * n_workers * unit))
        parts = [np.arange(k, min(k + size, n)) for k in range(0, n, size)]
        futures = {}
        for part in parts:
            block = take_sets(sets, part)
            one = self.client.submit(
                compute_block, *self.sent, block, wanted, pure=False, retries=RETRIES
            )
            futures[one] = part
        sampled: dict[int, FloatArray] = {}
        warned: dict[tuple[str, type[Warning]], None] = {}
        try:
            for future in distributed.as_completed(list(futures), loop=self.client.loop):
                found, told = future.result()
                put_rows(rows, futures[future], found, sampled)
                warned.update(dict.fromkeys(told))
                if progress is not None:
                    progress(int(rows.done.sum()), n)
        except KeyboardInterrupt:
            self.client.cancel(list(futures), force=True)
        except (distributed.client.FutureCancelledError, OSError) as error:
            warned[f"the cluster is gone: {error}", UserWarning] = None
        except distributed.scheduler.KilledWorker as error:
            raise BacktestError(f"workers of the cluster died at the same sets: {error}") from error
        for text, kind in warned:
            warn_caller(text, kind)
        has_returns = wanted is not None and wanted["returns"]
        return rows._replace(returns=stack_returns(sampled, rows)) if has_returns else rows


# ------------------------------------------------------------------------------------- the workers

EVALUATORS: dict[str, Evaluator] = {}
KEPT = 4
LOCK = threading.Lock()


def compute_block(
    job: Job, market: Market | Markets, sets: Sets, wanted: dict[str, Any] | None
) -> tuple[Rows, Warned]:
    """Evaluate sets in a worker, which keeps the evaluators of its last jobs."""
    with LOCK, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluator = EVALUATORS.get(job.name) or prepare_evaluator(job, market)
        found = (
            evaluator.evaluate_path(sets) if wanted is None else evaluator.evaluate(sets, **wanted)
        )
    return found, tuple(dict.fromkeys((str(each.message), each.category) for each in caught))


def prepare_evaluator(job: Job, market: Market | Markets) -> Evaluator:
    SENT_MODULES.add(job.sources)
    evaluator = Evaluator(market, threads=1, **pickle.loads(job.content))
    EVALUATORS[job.name] = evaluator
    while len(EVALUATORS) > KEPT:
        del EVALUATORS[next(iter(EVALUATORS))]
    return evaluator


# ------------------------------------------------------------------------------- the user's code


def describe_job(evaluator: Evaluator) -> Job:
    base = evaluator.base
    settings = {
        "policy": base.policy,
        "venue": base.venue,
        "account": base.account,
        "signal": evaluator.signal,
        "overlay": evaluator.overlay,
        "sampling": evaluator.sampling,
        "calendar": evaluator.calendar,
        "metrics": "all" if evaluator.metrics == STREAMED else "core",
        "memory": evaluator.memory,
        "compile": evaluator.compile,
    }
    return Job(uuid.uuid4().hex, pickle_settings(settings), read_own_modules())


def read_own_modules() -> dict[str, tuple[str, str]]:
    """Return paths and texts of the user's modules by name: those that are not installed."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = [Path(sysconfig.get_path(name)).resolve() for name in names]
    installed.append(Path(__file__).resolve().parents[1])
    found = {}
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None) or ""
        is_own = path.endswith(".py") and Path(path).is_file() and name != "__main__"
        if is_own and not any(Path(path).resolve().is_relative_to(each) for each in installed):
            found[name] = path, Path(path).read_text(encoding="utf-8")
    return found


class SentModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Lets a worker import modules whose files it does not have."""

    def __init__(self) -> None:
        self.sources: dict[str, tuple[str, str]] = {}

    def add(self, sources: dict[str, tuple[str, str]]) -> None:
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        if any(self.sources.get(name) != source for name, source in sources.items()):
            for name in {*self.sources, *sources}:
                sys.modules.pop(name, None)
        self.sources.update(sources)
        for path, text in sources.values():  # tracebacks and the compiler read lines
            linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)

    def find_spec(self, fullname: str, *_: object) -> Any:
        is_package = any(name.startswith(f"{fullname}.") for name in self.sources)
        if fullname not in self.sources and not is_package:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=is_package)

    def exec_module(self, module: Any) -> None:
        path, text = self.sources.get(module.__name__, ("", ""))
        if path:
            module.__file__ = path
            exec(compile(text, path, "exec"), module.__dict__)


SENT_MODULES = SentModules()


def pickle_settings(value: object) -> bytes:
    """Pickle settings; what is defined in a script itself travels by value."""
    cloudpickle: Any = importlib.import_module("cloudpickle")

    class Packer(cloudpickle.Pickler):  # type: ignore[misc] # known where Dask is
        def reducer_override(self, each: Any) -> Any:
            if each is dataclasses.MISSING:  # is compared by identity, which a copy loses
                return getattr, (dataclasses, "MISSING")
            if isinstance(each, type) and issubclass(each, Combinator) and each.parts:
                policies = tuple(part.policy for part in each.parts)
                return rebuild_class, (combinator_of(each), policies)
            return super().reducer_override(each)

    file = io.BytesIO()
    Packer(file).dump(value)
    return file.getvalue()
