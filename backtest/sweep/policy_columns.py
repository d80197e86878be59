"""Compute the columns of many parameter sets, once for equal values of what they depend on."""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from backtest.base import BacktestError, FloatArray
from backtest.engine import Causality, observe, start_check
from backtest.market import Market, find_clock, show_signal
from backtest.policy import Policy


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


class Columns:
    def __init__(
        self, market: Market, build: Callable[[Mapping[str, Any]], Policy], memory: float
    ) -> None:
        self.whole = market
        self.market = show_signal(market, find_clock(market))
        self.build = build
        self.memory = memory
        self.reads: tuple[str, ...] = ()
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
