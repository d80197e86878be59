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
"""Libraries that numbers depend on."""

_V = TypeVar("_V")


class RecentlyUsed(OrderedDict[str, _V], Generic[_V]):
    """Cache of the few values that were used last, by name."""

    def put(self, name: str, value: _V) -> None:
        """Add a value, and drop those that were not used for longest."""
        self[name] = value
        self.move_to_end(name)
        while len(self) > KEPT:
            self.popitem(last=False)

    def use(self, name: str) -> _V | None:
        """Return a value; None if it is not cached."""
        if name in self:
            self.move_to_end(name)
        return self.get(name)


MARKETS: RecentlyUsed[Market | Markets] = RecentlyUsed()
EVALUATORS: RecentlyUsed[Evaluator] = RecentlyUsed()
LOCK = threading.Lock()
"""One block is evaluated at a time: it uses all threads of the worker."""


class ClusterJob(NamedTuple):
    """Evaluator that all blocks of a search share, as it is sent to workers.

    ``name`` is a hash of the rest and ``market`` the hash of the market, or of all markets.
    ``content`` is a pickled :class:`EvaluatorSettings`, ``sources`` are the user's modules that it
    needs.
    """

    name: str
    market: str
    content: bytes
    sources: Sources


class EvaluatorSettings(NamedTuple):
    """Arguments of an evaluator, without its market or markets and threads."""

    base: BaseTerms
    signal: Signal
    overlay: Policy | None
    sampling: str
    calendar: str
    metrics: Metrics
    memory: str
    compile: bool


class WorkBlock(NamedTuple):
    """Sets to evaluate, with the arguments of :meth:`Evaluator.evaluate`.

    ``is_path`` requests the measures that need the path of an account instead of the others.
    """

    sets: Sets
    first: int = 0
    stop: int | None = None
    has_returns: bool = False
    is_path: bool = False


class BlockResult(NamedTuple):
    """Result of a block.

    ``rows`` is None if the worker lacks the job, if all sets failed with the same ``error``, or if
    evaluating them raised ``failure``. The client sets ``number``, that of the block.
    """

    rows: Rows | None
    warnings: tuple[tuple[str, type[Warning]], ...]
    worker: str
    error: str = ""
    number: int = -1
    failure: BacktestError | None = None


@functools.cache
def read_versions() -> dict[str, str]:
    """Return the versions that must be the same on a client and its workers."""
    python = ".".join(platform.python_version_tuple()[:2])
    libraries = {name: find_version(name) for name in LIBRARIES}
    return {"python": python, **libraries, "source of backtest": hash_engine()}


def hash_engine() -> str:
    """Return a short hash of the source of this package."""
    digest = hashlib.sha256()
    folder = Path(str(resources.files("backtest")))
    paths = {*folder.rglob("*.py"), *folder.glob("strategies/*.py")}  # which may be a link
    for path in sorted(paths):
        digest.update(f"{path.relative_to(folder)}".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def describe_failure(error: BaseException, worker: str) -> BacktestError:
    """Return the error to raise for one of a worker, of a class that every process knows.

    The user's own errors may not be pickled, and what cannot be unpickled never arrives.
    """
    if not isinstance(error, BacktestError):
        return BacktestError(
            "every worker must be able to run the policy; one raised "
            f"{type(error).__name__}: {error}",
            where=f"cluster, worker {worker}",
            cure="install there what is installed here: leverage-backtest[cluster], and what the "
            "policy imports",
        )
    classes = [each for each in type(error).__mro__ if issubclass(each, BacktestError)]
    kind = next(each for each in classes if each.__module__ == BacktestError.__module__)
    return kind(error.problem, where=error.where, cure=error.cure)


def answer(function: Callable[..., Any], given: Sequence[Any], dask_worker: Any) -> Any:
    """Return what a function returns, or the error to raise for one that it raised.

    ``function`` takes the arguments in ``given``, and then the worker.
    """
    try:
        return function(*given, dask_worker)
    except BaseException as error:  # an exit too: it would end the worker
        return describe_failure(error, dask_worker.address)


def check_versions(versions: dict[str, str], market: str, dask_worker: Any) -> bool:
    """Refuse a client with other versions; return whether this worker has a market, by its hash."""
    own = read_versions()
    differences = [
        f"{name} ({versions.get(name)}, the worker has {own[name]})"
        for name in own
        if own[name] != versions.get(name)
    ]
    if differences:
        raise ParameterError(
            "the client and its workers must have the same versions; these differ: "
            + ", ".join(differences),
            where=f"cluster, worker {dask_worker.address}",
            cure="install the same versions there, as constraints.txt says, and start it again",
        )
    return market in MARKETS


def store_market(name: str, market: Market | Markets, _: Any) -> None:
    """Cache a market, or several, under their hash."""
    MARKETS.put(name, market)


def prepare_job(job: ClusterJob, dask_worker: Any) -> bool:
    """Build and cache the evaluator of a job; return whether its market is cached."""
    market = MARKETS.use(job.market)
    if market is None:
        return False
    try:
        settings: EvaluatorSettings = unpickle_with_sources(job.content, job.sources)
    except Exception as error:
        raise PolicyError(
            "every worker must be able to import the policy; one raised "
            f"{type(error).__name__}: {error}",
            where=f"cluster, worker {dask_worker.address}",
            cure="install there what the policy imports; files it reads must be there too",
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
    """Evaluate the sets of a block."""
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
    """Return the measures of a block's sets."""
    if block.is_path:
        return evaluator.evaluate_path(block.sets)
    return evaluator.evaluate(
        block.sets, first=block.first, stop=block.stop, returns=block.has_returns
    )
