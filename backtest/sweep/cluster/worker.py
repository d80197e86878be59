"""Functions that run in the workers of a cluster. Workers cache markets and evaluators."""

from __future__ import annotations

import functools
import hashlib
import platform
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from backtest.base import BacktestError, ParameterError, PolicyError, find_version
from backtest.market import Market, Markets
from backtest.policy import Policy
from backtest.sweep.cluster.shipped_code import Sources, unpickle_with_sources
from backtest.sweep.set_evaluator import Evaluator, Metrics, Signal
from backtest.sweep.set_rows import Rows
from backtest.sweep.sets.sets import BaseTerms, Sets

KEPT = 4
"""How many markets, and how many evaluators, a worker caches."""

LIBRARIES = ("leverage-backtest", "numpy", "numba", "llvmlite", "pandas", "scipy", "arch")

_V = TypeVar("_V")


class RecentlyUsed(OrderedDict[str, _V], Generic[_V]):
    def put(self, name: str, value: _V) -> None:
        self[name] = value
        self.move_to_end(name)
        while len(self) > KEPT:
            self.popitem(last=False)

    def use(self, name: str) -> _V | None:
        if name in self:
            self.move_to_end(name)
        return self.get(name)


MARKETS: RecentlyUsed[Market | Markets] = RecentlyUsed()
EVALUATORS: RecentlyUsed[Evaluator] = RecentlyUsed()
LOCK = threading.Lock()


class ClusterJob(NamedTuple):
    name: str
    market: str
    content: bytes
    sources: Sources


class EvaluatorSettings(NamedTuple):
    base: BaseTerms
    signal: Signal
    overlay: Policy | None
    sampling: str
    calendar: str
    metrics: Metrics
    memory: str
    compile: bool


class WorkBlock(NamedTuple):
    sets: Sets
    first: int = 0
    stop: int | None = None
    has_returns: bool = False
    is_path: bool = False


class BlockResult(NamedTuple):
    rows: Rows | None
    warnings: tuple[tuple[str, type[Warning]], ...]
    worker: str
    error: str = ""
    number: int = -1
    failure: BacktestError | None = None


@functools.cache
def read_versions() -> dict[str, str]:
    python = ".".join(platform.python_version_tuple()[:2])
    libraries = {name: find_version(name) for name in LIBRARIES}
    return {"python": python, **libraries, "source of backtest": hash_engine()}


def hash_engine() -> str:
    digest = hashlib.sha256()
    folder = Path(str(resources.files("backtest")))
    paths = {*folder.rglob("*.py"), *folder.glob("strategies/*.py")}  # which may be a link
    for path in sorted(paths):
        digest.update(f"{path.relative_to(folder)}".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def describe_failure(error: BaseException, worker: str) -> BacktestError:
    if not isinstance(error, BacktestError):
        return BacktestError(
            "every worker must be able to run the policy and have what it imports, "
            f"{worker} raised {type(error).__name__}: {error}"
        )
    classes = [each for each in type(error).__mro__ if issubclass(each, BacktestError)]
    kind = next(each for each in classes if each.__module__ == BacktestError.__module__)
    return kind(str(error))


def answer(function: Callable[..., Any], given: Sequence[Any], dask_worker: Any) -> Any:
    try:
        return function(*given, dask_worker)
    except BaseException as error:  # an exit too: it would end the worker
        return describe_failure(error, dask_worker.address)


def check_versions(versions: dict[str, str], market: str, dask_worker: Any) -> bool:
    own = read_versions()
    differences = [
        f"{name} ({versions.get(name)}, the worker has {own[name]})"
        for name in own
        if own[name] != versions.get(name)
    ]
    if differences:
        raise ParameterError(
            f"the client and the worker {dask_worker.address} must have the same versions; these "
            f"differ: {', '.join(differences)}"
        )
    return market in MARKETS


def store_market(name: str, market: Market | Markets, _: Any) -> None:
    MARKETS.put(name, market)


def prepare_job(job: ClusterJob, dask_worker: Any) -> bool:
    market = MARKETS.use(job.market)
    if market is None:
        return False
    try:
        settings: EvaluatorSettings = unpickle_with_sources(job.content, job.sources)
    except Exception as error:
        raise PolicyError(
            "every worker must be able to import the policy and have the files that it reads, "
            f"{dask_worker.address} raised {type(error).__name__}: {error}"
        ) from error
    choices = settings._asdict()
    base = choices.pop("base")
    evaluator = Evaluator(
        market,
        base.policy,
        venue=base.venue,
        account=base.account,
        threads=dask_worker.state.nthreads,
        **choices,
    )
    EVALUATORS.put(job.name, evaluator)
    return True


def evaluate_block(job: str, block: WorkBlock) -> BlockResult:
    import distributed  # noqa: PLC0415 - it runs this

    address = distributed.get_worker().address
    with LOCK:
        evaluator = EVALUATORS.use(job)
        if evaluator is None:
            return BlockResult(None, (), address)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                rows = compute_rows(evaluator, block)
        except BaseException as error:  # as above
            return BlockResult(None, (), address, failure=describe_failure(error, address))
    warned = dict.fromkeys((str(each.message), each.category) for each in caught)
    return BlockResult(rows if rows.done.all() else None, tuple(warned), address)


def compute_rows(evaluator: Evaluator, block: WorkBlock) -> Rows:
    if block.is_path:
        return evaluator.evaluate_path(block.sets)
    return evaluator.evaluate(
        block.sets, first=block.first, stop=block.stop, returns=block.has_returns
    )
