"""What runs in the workers of a cluster: they keep markets, and evaluate blocks of sets."""

from __future__ import annotations

import functools
import hashlib
import platform
import threading
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from backtest.base.errors import ParameterError, PolicyError
from backtest.engine.manifest import find_version
from backtest.market.market import Market
from backtest.sweep.cluster.shipped_code import Sources, unpack
from backtest.sweep.evaluator import Evaluator, Metrics, Rows, Signal
from backtest.sweep.sets.sets import Base, Sets

KEPT = 4
"""Markets, and evaluators, that a worker keeps: those used last."""

LIBRARIES = ("leverage-backtest", "numpy", "numba", "llvmlite", "pandas", "scipy", "arch")
"""What numbers depend on."""

_V = TypeVar("_V")


class Kept(OrderedDict[str, _V], Generic[_V]):
    """The few values used last, by name."""

    def put(self, name: str, value: _V) -> None:
        """Keep a value, and let go of what was not used for longest."""
        self[name] = value
        self.move_to_end(name)
        while len(self) > KEPT:
            self.popitem(last=False)

    def use(self, name: str) -> _V | None:
        """Return a value; None where it is not kept."""
        if name in self:
            self.move_to_end(name)
        return self.get(name)


MARKETS: Kept[Market] = Kept()
EVALUATORS: Kept[Evaluator] = Kept()
LOCK = threading.Lock()
"""One block is evaluated at a time: it uses all threads of the worker."""


class Job(NamedTuple):
    """What all blocks of a search have in common.

    ``name`` is a hash of the rest, ``market`` that of the market; ``content`` holds a packed
    :class:`Brief`, ``sources`` the user's modules that it needs.
    """

    name: str
    market: str
    content: bytes
    sources: Sources


class Brief(NamedTuple):
    """What an evaluator is made of besides the market."""

    base: Base
    signal: Signal
    sampling: str
    calendar: str
    metrics: Metrics
    memory: str
    compile: bool


class Block(NamedTuple):
    """Some sets to evaluate: as :meth:`backtest.sweep.evaluator.Evaluator.evaluate` takes them.

    ``is_path`` asks for the measures that need the path of an account instead of the others.
    """

    sets: Sets
    first: int = 0
    stop: int | None = None
    has_returns: bool = False
    is_path: bool = False


class Answer(NamedTuple):
    """What became of a block.

    No rows: this worker has not been given the job, or there is an ``error`` that all sets share.
    ``place`` is that of the block, once it is back.
    """

    rows: Rows | None
    warnings: tuple[tuple[str, type[Warning]], ...]
    worker: str
    error: str = ""
    place: int = -1


# ---------------------------------------------------------------------------------- before work


@functools.cache
def read_stamp() -> dict[str, str]:
    """Return what must be the same on a client and its workers."""
    versions = {name: find_version(name) for name in LIBRARIES}
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, **versions, "source of backtest": hash_engine()}


def hash_engine() -> str:
    """Return a short hash of the source of this package."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent.parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def greet(stamp: dict[str, str], market: str, dask_worker: Any) -> bool:
    """Return whether this worker has a market.

    Parameters
    ----------
    stamp : dict
        That of the client.
    market : str
        The hash of its content.
    dask_worker : Worker
        Given by Dask.

    Raises
    ------
    ParameterError
        If this worker would compute other numbers.
    """
    own = read_stamp()
    differences = [
        f"{name} ({stamp.get(name)}, the worker has {own[name]})"
        for name in own
        if own[name] != stamp.get(name)
    ]
    if differences:
        raise ParameterError(
            "a client and its workers must have the same versions, different are "
            + ", ".join(differences),
            where=f"cluster, worker {dask_worker.address}",
            cure="install the same versions there, as constraints.txt says, and start it again",
        )
    return market in MARKETS


def take_market(name: str, market: Market) -> None:
    """Keep a market."""
    MARKETS.put(name, market)


def take_job(job: Job, dask_worker: Any) -> bool:
    """Prepare to evaluate; return whether the market is there.

    Raises
    ------
    PolicyError
        If the policy cannot be imported here.
    """
    market = MARKETS.use(job.market)
    if market is None:
        return False
    try:
        brief: Brief = unpack(job.content, job.sources)
    except Exception as error:
        raise PolicyError(
            "a policy must be importable on every worker, one raised "
            f"{type(error).__name__}: {error}",
            where=f"cluster, worker {dask_worker.address}",
            cure="install there what the policy imports; files it reads must be there too",
        ) from error
    choices = brief._asdict()
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


# ------------------------------------------------------------------------------------------ work


def evaluate_block(job: str, block: Block) -> Answer:
    """Return what became of the sets of a block."""
    import distributed  # noqa: PLC0415 - it runs this

    address = distributed.get_worker().address
    with LOCK:
        evaluator = EVALUATORS.use(job)
        if evaluator is None:
            return Answer(None, (), address)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rows = find_rows(evaluator, block)
    told = dict.fromkeys((str(each.message), each.category) for each in caught)
    return Answer(rows if rows.done.all() else None, tuple(told), address)


def find_rows(evaluator: Evaluator, block: Block) -> Rows:
    """Return the measures of a block's sets."""
    if block.is_path:
        return evaluator.evaluate_path(block.sets)
    return evaluator.evaluate(
        block.sets, first=block.first, stop=block.stop, returns=block.has_returns
    )
