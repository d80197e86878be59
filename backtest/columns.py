"""The columns of many sets of parameters: each computed once for the values it depends on.

Which parameters a policy's ``observe`` reads is seen by watching it read them. Sets that agree in
those share their columns. For a block of sets that differ in them, ``observe`` is asked once with
arrays in place of numbers, as the estimators of :mod:`backtest.features` take them; where a policy
cannot do that, or gives another answer than one by one, it is asked once for each set.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from backtest.engine import observe
from backtest.market import Market
from backtest.policy import Policy
from backtest.units import FloatArray, IntArray


class Watched:
    """A policy whose parameters are noted when they are read, and may be arrays."""

    def __init__(self, policy: Policy, values: Mapping[str, Any]) -> None:
        self._policy = policy
        self._values = values
        self._read: dict[str, None] = {}

    def __getattr__(self, name: str) -> Any:
        if name in self._values:
            self._read[name] = None
            return self._values[name]
        if name in ("settings", "__dict__", "__repr__"):
            self._read.update(dict.fromkeys(self._values))
        found = getattr(type(self._policy), name)
        return found.__get__(self) if isinstance(found, FunctionType) else found


def find_reads(policy: Policy, method: str, *arguments: object) -> tuple[str, ...]:
    """Return the parameters that a method of a policy reads; all where that cannot be seen."""
    values = policy.settings()
    watched = Watched(policy, values)
    try:
        getattr(type(policy), method)(watched, *arguments)
    except Exception:  # the policy's own code; run as it is, it says what is wrong
        return tuple(values)
    return tuple(name for name in values if name in watched._read)


class BlockColumns(NamedTuple):
    """The columns of a block: what all lanes share, and what each has of its own.

    ``names`` tells for each column whether lanes have their own; ``shared`` of shape (n_shared,
    n_bars), ``own`` of shape (n_bars, n_own * n_lanes).
    """

    names: tuple[tuple[str, bool], ...]
    shared: FloatArray
    own: FloatArray


class Columns:
    """What a policy observes of a market, for any values of its parameters.

    Columns that whole blocks share are kept up to ``memory`` bytes, and computed again beyond.
    """

    def __init__(
        self,
        market: Market,
        build: Callable[[Mapping[str, Any]], Policy],
        policy: Policy,
        memory: float,
    ) -> None:
        self.market = market
        self.build = build
        self.policy = policy
        self.reads = find_reads(policy, "observe", market)
        self.memory = memory
        self.is_together: bool | None = None
        self._kept: OrderedDict[tuple[object, ...], dict[str, FloatArray]] = OrderedDict()
        self._lock = threading.Lock()

    def count(self) -> int:
        """Return the number of columns."""
        return len(self.of_one({}))

    def of_block(self, values: Mapping[str, np.ndarray]) -> BlockColumns:
        """Return the columns of a block; ``values`` are arrays of shape (n_lanes,) by name."""
        varying = {name: values[name] for name in self.reads if name in values}
        n_lanes = len(next(iter(values.values()))) if values else 1
        if not varying:
            return join_columns(self.of_one({}), np.zeros(n_lanes, np.int64), self.market.n_bars)
        table = np.column_stack([np.asarray(column) for column in varying.values()])
        distinct, places = find_distinct(table)
        some = {name: column[distinct] for name, column in varying.items()}
        if len(distinct) == 1:
            parts = self.of_one({name: column[0] for name, column in some.items()})
        else:
            parts = self.of_many(some)
        return join_columns(parts, places, self.market.n_bars)

    def of_one(self, values: Mapping[str, Any]) -> dict[str, FloatArray]:
        """Return the columns of one set of values, each of shape (n_bars,)."""
        key = tuple(values.values())
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        seen, _ = observe(self.build(values), self.market)
        size = sum(column.nbytes for column in seen.values())
        with self._lock:
            self._kept[key] = seen
            while len(self._kept) > 1 and size * len(self._kept) > self.memory:
                self._kept.popitem(last=False)
        return seen

    def of_many(self, values: Mapping[str, np.ndarray]) -> dict[str, FloatArray]:
        """Return the columns of k sets of values, of shape (n_bars,) or (n_bars, k)."""
        if self.is_together is not False:
            parts = self._observe_together(values)
            if parts is not None:
                return parts
            self.is_together = False
        k = len(next(iter(values.values())))
        seen = [self._observe_alone(values, j) for j in range(k)]
        return {name: np.column_stack([each[name] for each in seen]) for name in seen[0]}

    def _observe_alone(self, values: Mapping[str, np.ndarray], j: int) -> dict[str, FloatArray]:
        policy = self.build({name: column[j] for name, column in values.items()})
        return observe(policy, self.market)[0]

    def _observe_together(self, values: Mapping[str, np.ndarray]) -> dict[str, FloatArray] | None:
        """Return the columns of k sets from one look; None where that cannot be done.

        The first time, the first, middle and last set are asked alone too, and must agree bit for
        bit.
        """
        k = len(next(iter(values.values())))
        watched: Any = Watched(self.policy, {**self.policy.settings(), **values})
        try:
            seen = type(self.policy).observe(watched, self.market)
            parts = {str(name): np.asarray(each, dtype=np.float64) for name, each in seen.items()}
        except Exception:  # written for one value, it may do anything with many
            return None
        shapes = ((self.market.n_bars,), (self.market.n_bars, k))
        if any(part.shape not in shapes for part in parts.values()):
            return None
        if self.is_together is None:
            alone = {j: self._observe_alone(values, j) for j in {0, k // 2, k - 1}}
            self.is_together = all(agree(parts, each, j) for j, each in alone.items())
        return parts if self.is_together else None


def agree(parts: Mapping[str, FloatArray], alone: Mapping[str, FloatArray], j: int) -> bool:
    """Tell whether set j has the same columns, bit for bit, among others and alone."""
    return list(parts) == list(alone) and all(
        np.array_equal(part if part.ndim == 1 else part[:, j], alone[name], equal_nan=True)
        for name, part in parts.items()
    )


def find_distinct(table: np.ndarray) -> tuple[IntArray, IntArray]:
    """Return the places of the distinct rows of a table, and for each row which of them it is."""
    keys = [tuple(row) for row in table.tolist()]
    first: dict[object, int] = {}
    places = np.array([first.setdefault(key, len(first)) for key in keys])
    distinct = np.array([int(np.argmax(places == k)) for k in range(len(first))])
    return distinct, places


def join_columns(parts: Mapping[str, FloatArray], places: IntArray, n_bars: int) -> BlockColumns:
    """Return a block's columns from arrays of shape (n_bars,) or (n_bars, k).

    ``places`` of shape (n_lanes,) tells which of the k belongs to each lane.
    """
    names = tuple((name, part.ndim == 2) for name, part in parts.items())
    lines = [part for part in parts.values() if part.ndim == 1]
    sheets = [part for part in parts.values() if part.ndim == 2]
    shared = np.stack(lines) if lines else np.zeros((0, n_bars))
    if sheets and not np.array_equal(places, np.arange(sheets[0].shape[1])):
        sheets = [np.take(sheet, places, axis=1) for sheet in sheets]
    own = np.zeros((n_bars, 0))
    if sheets:
        own = sheets[0] if len(sheets) == 1 else np.concatenate(sheets, axis=1)
    return BlockColumns(names, np.ascontiguousarray(shared), np.ascontiguousarray(own))
