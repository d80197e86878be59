"""Compute the columns of many parameter sets, once for equal values of what they depend on."""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest.base import (
    BacktestError,
    FloatArray,
    IntArray,
    PolicyError,
)
from backtest.engine import Causality, observe, start_check
from backtest.market import Market, find_clock, lend, show_signal
from backtest.policy import Policy
from backtest.sweep.lanes.lane_rows import LANES, RUN
from backtest.sweep.sets.sets import take_sets, varies

CHECKED = 8
"""Sets of the first block whose columns are also computed alone, to verify those of the block."""


class Watched:
    def __init__(self, policy: Policy, values: Mapping[str, Any]) -> None:
        self._policy = policy
        self._values = values
        self._read: dict[str, None] = {}

    def __getattr__(self, name: str) -> Any:
        if name in self._values:
            self._read[name] = None
            return self._values[name]
        if name == "settings":
            self._read.update(dict.fromkeys(self._values))
            return lambda: dict(self._values)
        found = inspect.getattr_static(type(self._policy), name)
        return found.__get__(self, type(self._policy)) if hasattr(found, "__get__") else found

    def __repr__(self) -> str:
        self._read.update(dict.fromkeys(self._values))
        return repr(self._policy)

    def reads(self) -> tuple[str, ...]:
        return tuple(name for name in self._values if name in self._read)


class Exact(np.ndarray):
    def __pow__(self, other: Any, modulo: Any = None) -> Any:
        return raise_exactly(self, other)

    def __rpow__(self, other: Any, modulo: Any = None) -> Any:
        return raise_exactly(other, self)


def raise_exactly(base: Any, exponent: Any) -> Any:
    sides = [np.asarray(base), np.asarray(exponent)]
    if max(side.ndim for side in sides) > 1:
        return np.power(*sides)
    pairs = zip(*(side.tolist() for side in np.broadcast_arrays(*sides)), strict=True)
    return np.array([one**other for one, other in pairs]).view(Exact)


def find_reads(policy: Policy, method: str, *arguments: object) -> tuple[str, ...]:
    watched = Watched(policy, policy.settings())
    try:
        getattr(watched, method)(*arguments)
    except Exception:  # the policy's own code; a run will show the error
        return tuple(policy.settings())
    return watched.reads()


class BlockColumns(NamedTuple):
    """The columns of a block: those that all lanes share, and those in which lanes differ.

    ``names`` has for each column whether lanes differ in it. ``shared`` has shape (n_shared,
    n_bars), ``distinct`` of shape (n_bars, n) holds the different columns of lanes. ``places`` of
    shape (n_places, 2) assigns them: each row has a first lane, numbered on from one column to the
    next, and the position in ``distinct`` for this lane and the ``RUN - 1`` after it, up to the
    next row. It is empty if every lane has its own column in order.
    """

    names: tuple[tuple[str, bool], ...]
    shared: FloatArray
    distinct: FloatArray
    places: IntArray


class Columns:
    def __init__(
        self, market: Market, build: Callable[[Mapping[str, Any]], Policy], memory: float
    ) -> None:
        self.whole = market
        self.market = show_signal(market, find_clock(market))
        self.build = build
        self.memory = memory
        self.reads: tuple[str, ...] = ()
        self.is_together: bool | None = None
        self._kept: OrderedDict[tuple[object, ...], dict[str, FloatArray]] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, values: Mapping[str, Any]) -> int:
        try:
            return len(self.of_one(values))
        except BacktestError:
            return 1

    def of_block(self, values: Mapping[str, np.ndarray]) -> BlockColumns:
        """Return the columns of a block; ``values`` are arrays of shape (n_lanes,) by name."""
        n_lanes = len(next(iter(values.values()))) if values else LANES
        while True:
            reads = self.reads
            varying = [np.asarray(values[name]) for name in reads if name in values]
            distinct, places = find_distinct(varying, n_lanes)
            some = take_sets(values, distinct)
            parts = self.of_one(take_sets(some, 0)) if len(distinct) == 1 else self.of_many(some)
            if reads == self.reads:
                return join_columns(parts, places, self.market.n_bars)

    def of_one(self, values: Mapping[str, Any]) -> dict[str, FloatArray]:
        """Return the columns of one set of values, each of shape (n_bars,)."""
        with self._lock:
            key = tuple((name, values.get(name)) for name in self.reads)
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        seen = self._observe_alone(values)
        self._keep(values, seen)
        return seen

    def _keep(self, values: Mapping[str, Any], seen: dict[str, FloatArray]) -> None:
        size = sum(column.nbytes for column in seen.values())
        with self._lock:
            self._kept[tuple((name, values.get(name)) for name in self.reads)] = seen
            while len(self._kept) > 1 and size * len(self._kept) > self.memory:
                self._kept.popitem(last=False)

    def of_many(self, values: Mapping[str, np.ndarray]) -> dict[str, FloatArray]:
        """Return the columns of k sets of values, of shape (n_bars,) or (n_bars, k)."""
        if self.is_together is not False:
            parts = self._observe_block(values)
            if parts is not None:
                return parts
            self.is_together = False
        k = len(next(iter(values.values())))
        seen = [self._observe_alone(take_sets(values, j)) for j in range(k)]
        if any(list(each) != list(seen[0]) for each in seen):
            raise PolicyError(
                "observe must return the same columns whatever the parameters, "
                f"returned {list(seen[0])} and others"
            )
        return {name: np.column_stack([each[name] for each in seen]) for name in seen[0]}

    def check_causal(self, values: Mapping[str, Any]) -> Causality | None:
        """Check the columns of one set for look-ahead; return None if they cannot be observed."""
        failed: list[BacktestError] = []

        def observe_whole() -> dict[str, FloatArray]:
            try:
                return self._observe_alone(values)
            except BacktestError as error:  # the run of the set gives the reason
                failed.append(error)
                return {}

        try:
            policy = self.build(values)
        except BacktestError:
            return None
        check = start_check(policy, self.market)
        seen = check.run(observe_whole)
        if failed:
            return None
        self._keep(values, dict(seen))
        return check.causality

    def _note(self, reads: tuple[str, ...]) -> None:
        with self._lock:
            missing = [name for name in reads if name not in self.reads]
            if missing:
                self.reads = (*self.reads, *missing)
                self._kept.clear()

    def _observe_alone(self, values: Mapping[str, Any]) -> dict[str, FloatArray]:
        policy = self.build(values)
        watched: Any = Watched(policy, policy.settings())
        try:
            seen = observe(watched, self.market)
        except Exception:  # the wrapper may lack something that the policy uses
            seen = observe(policy, self.market)
            self._note(tuple(policy.settings()))
        else:
            self._note(watched.reads())
        return seen

    def _observe_block(self, values: Mapping[str, np.ndarray]) -> dict[str, FloatArray] | None:
        k = len(next(iter(values.values())))
        policy = self.build(take_sets(values, 0))
        many = {
            name: as_exact(values[name]) if name in values and varies(values[name]) else value
            for name, value in policy.settings().items()
        }
        watched: Any = Watched(policy, many)
        try:
            seen = watched.observe(lend(self.market))
            parts = {str(name): np.asarray(each, dtype=np.float64) for name, each in seen.items()}
        except Exception:  # it is written for single values
            return None
        shapes = ((self.market.n_bars,), (self.market.n_bars, k))
        if any(part.shape not in shapes for part in parts.values()):
            return None
        self._note(watched.reads())
        if self.is_together is None:
            some = sorted({round(part * (k - 1) / (CHECKED - 1)) for part in range(CHECKED)})
            alone = {j: self._observe_alone(take_sets(values, j)) for j in some}
            self.is_together = all(is_same(parts, each, j) for j, each in alone.items())
        return parts if self.is_together else None


def as_exact(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == object else values.view(Exact)


def is_same(parts: Mapping[str, FloatArray], alone: Mapping[str, FloatArray], j: int) -> bool:
    return list(parts) == list(alone) and all(
        np.array_equal(part if part.ndim == 1 else part[:, j], alone[name], equal_nan=True)
        for name, part in parts.items()
    )


def find_distinct(columns: Sequence[np.ndarray], n: int) -> tuple[IntArray, IntArray]:
    keys = list(zip(*(column.tolist() for column in columns), strict=True)) or [()] * n
    first: dict[object, int] = {}
    places = np.array([first.setdefault(key, len(first)) for key in keys])
    distinct = np.array([int(np.argmax(places == k)) for k in range(len(first))])
    return distinct, places


def join_columns(parts: Mapping[str, FloatArray], places: IntArray, n_bars: int) -> BlockColumns:
    """Return a block's columns from arrays of shape (n_bars,) or (n_bars, k).

    ``places`` of shape (n_lanes,) has the column, one of the k, of each lane.
    """
    names = tuple((name, part.ndim == 2) for name, part in parts.items())
    lines = [part for part in parts.values() if part.ndim == 1]
    matrices = [part for part in parts.values() if part.ndim == 2]
    shared = np.zeros((0, n_bars))
    if lines:
        whole = lines[0][None] if len(lines) == 1 else np.stack(lines)  # one needs no copy
        shared = np.require(whole, None, ["C", "W"])
    if not matrices:
        return BlockColumns(names, shared, np.zeros((n_bars, 0)), np.zeros((0, 2), dtype=np.int64))
    k = matrices[0].shape[1]
    distinct = matrices[0] if len(matrices) == 1 else np.concatenate(matrices, axis=1)
    everywhere = np.concatenate([places + j * k for j in range(len(matrices))])
    if np.array_equal(everywhere, np.arange(distinct.shape[1])):
        everywhere = everywhere[:0]
    runs = find_runs(everywhere)
    return BlockColumns(names, shared, np.require(distinct, None, ["C", "W"]), runs)


def find_runs(places: IntArray) -> IntArray:
    begins = np.flatnonzero(np.diff(places, prepend=-1))
    lanes = np.arange(len(places))
    first = begins[np.searchsorted(begins, lanes, side="right") - 1]
    chosen = np.flatnonzero((lanes - first) % RUN == 0)
    return np.stack([chosen, places[chosen]], axis=1)
