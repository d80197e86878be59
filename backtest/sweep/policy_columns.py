"""Compute the columns of many parameter sets, once for equal values of what they depend on."""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from backtest.base import (
    BacktestError,
    FloatArray,
)
from backtest.engine import Causality, observe, start_check
from backtest.market import Market, find_clock, lend, show_signal
from backtest.policy import Policy
from backtest.sweep.sets.sets import find_codes, take_sets, varies

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

    def prepare(self, values: Mapping[str, np.ndarray]) -> None:
        """Compute the columns of the sets of a block together, where they are not known yet."""
        names = [name for name in self.reads if name in values]
        if not names or self.is_together is False:
            return
        codes = np.stack([find_codes(values[name]) for name in names])
        some = take_sets(values, np.unique(codes, axis=1, return_index=True)[1])
        k_sets = len(some[names[0]])
        missing = [k for k in range(k_sets) if not self._is_known(take_sets(some, k))]
        parts = self._observe_block(take_sets(some, np.array(missing))) if missing[1:] else None
        self.is_together = self.is_together if not missing[1:] else parts is not None
        for j, k in enumerate(missing if parts is not None else ()):
            seen = {
                name: each if each.ndim == 1 else np.ascontiguousarray(each[:, j])
                for name, each in (parts or {}).items()
            }
            self._keep(take_sets(some, k), seen)

    def _is_known(self, values: Mapping[str, Any]) -> bool:
        with self._lock:
            return tuple((name, values.get(name)) for name in self.reads) in self._kept

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
