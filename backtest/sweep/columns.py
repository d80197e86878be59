"""Columns of policies, once for equal values of what they depend on, and their look-ahead check."""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from backtest.base import BacktestError, FloatArray, IntArray, ParameterError
from backtest.engine import (
    Causality,
    SignalRule,
    observe,
    observe_overlay,
    read_signals,
    resolve_signal,
    start_check,
)
from backtest.market import Market, Markets, find_clock, read_weights, show_signal
from backtest.policy import Policy
from backtest.sweep.sets import (
    OVERLAY,
    SIGNAL,
    BaseTerms,
    Sets,
    count_sets,
    find_own,
    find_values,
    group_rows,
    number_rows,
    take_part,
    take_sets,
)


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


MOST_SETS = 32
"""Most sets that are checked."""


class EndsChecker:
    """Checks the sets at both ends of each number, under all words that occur.

    The first sets it is given: those of a sweep, or the ends of the space of a search.
    """

    def __init__(self) -> None:
        self.causality: Causality | None = None
        self._has_begun = False

    def check(self, columns: Columns, sets: Sets) -> None:
        self.cover(sets, lambda: columns.reads, partial(self.check_set, columns))

    def check_set(self, columns: Columns, values: Mapping[str, Any]) -> bool:
        found = columns.check_causal(values)
        if found is not None and (self.causality is None or found.cuts < self.causality.cuts):
            self.causality = found
        return found is not None

    def cover(
        self,
        sets: Sets,
        list_reads: Callable[[], tuple[str, ...]],
        check: Callable[[Mapping[str, Any]], bool],
    ) -> None:
        """Check sets at ends of what is read, which is known only after the first."""
        if self._has_begun:
            return
        self._has_begun = True
        left, done = np.arange(count_sets(sets)), list[int]()
        while len(done) < MOST_SETS and len(left):
            names = [name for name in list_reads() if name in sets and "." not in name]
            codes = number_rows((sets[name] for name in names), count_sets(sets))
            known = codes[done]
            new = [row for row in find_ends(sets, names, left) if codes[row] not in known]
            if not new:
                return
            done.append(new[0])
            if not check(take_sets(sets, new[0])):  # it cannot be observed: its neighbor can
                left = left[left != new[0]]


def find_ends(sets: Sets, names: list[str], rows: IntArray) -> list[int]:
    """Return rows in which numbers are highest or lowest, those of many ends first."""
    words = [name for name in names if sets[name].dtype.kind in "Ob"]
    groups = group_rows(number_rows((sets[name][rows] for name in words), len(rows)))
    found: dict[int, None] = {}
    for part in (rows[each] for each in groups):
        numbers = [sets[name][part].astype(np.float64) for name in names if name not in words]
        for find_end in (np.max, np.min) if numbers else ():
            is_end = np.array([values == find_end(values) for values in numbers])
            votes = np.where(is_end, is_end.sum(axis=0), -1)
            found |= dict.fromkeys(part[votes.argmax(axis=1)].tolist())
        found |= {} if numbers else {int(part[0]): None}
    return list(found)


def check_markets(
    markets: Markets,
    base: BaseTerms,
    sets: Sets,
    *,
    signal: Any,
    memory: float,
    is_alone: bool = False,
) -> None:
    markets = find_clock(markets).seen
    if is_alone:
        weights = read_signals(signal, markets, 0, is_alone=True)
    else:
        weights = read_weights(signal, markets, first=0)
    for k, name in enumerate(markets.names):
        first, stop = (int(each) for each in markets.spans[k])
        market = markets[name].with_signal(np.clip(weights[k, first:stop], -1.0, 1.0))
        EndsChecker().check(Columns(market, base.build_policy, memory), find_values(sets, name))
    for overlay in list_overlays(base, sets):
        observe_overlay(overlay, markets, weights)


def list_overlays(base: BaseTerms, sets: Sets) -> list[Policy | None]:
    own = find_own(sets, OVERLAY)
    if not own:
        return [base.overlay]
    found: list[Policy | None] = []

    def keep(values: Mapping[str, Any]) -> bool:
        named = {f"{OVERLAY}.{name}": value for name, value in values.items()}
        found.append(base.build_overlay(named))
        return True

    EndsChecker().cover(own, lambda: tuple(own), keep)
    return found


class RuleChecker:
    """Checks the signal rules of sets at both ends of their numbers."""

    def __init__(self, base: BaseTerms, market: Market | Markets) -> None:
        self.base = base
        self.market = market
        self._ends = EndsChecker()
        self._checked: set[SignalRule] = set()

    def check(self, sets: Sets) -> None:
        if self.base.signal is None or count_sets(sets) == 0:
            return
        own = take_part(sets, SIGNAL)
        if not own:
            self.check_set(take_sets(sets, 0))
            return
        self._ends.cover(own, lambda: tuple(own), self._check_own)

    def check_set(self, values: Mapping[str, Any]) -> bool:
        try:
            rule = self.base.build_signal(values)
            if rule is not None and rule not in self._checked:
                resolve_signal(rule, self.market)
                self._checked.add(rule)
        except ParameterError:  # the run of the set gives the reason
            return False
        return True

    def _check_own(self, own: Mapping[str, Any]) -> bool:
        return self.check_set({f"{SIGNAL}{name}": value for name, value in own.items()})


def split_by_signal(sets: Sets) -> list[IntArray]:
    codes = number_rows(take_part(sets, SIGNAL).values(), count_sets(sets))
    return sorted(group_rows(codes), key=lambda rows: int(rows[0]))
