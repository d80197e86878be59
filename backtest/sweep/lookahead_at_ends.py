"""Refuse policies and signals that look ahead, at both ends of numbers, before a sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from backtest.base import IntArray, ParameterError
from backtest.engine import (
    Causality,
    SignalRule,
    observe_overlay,
    read_signals,
    resolve_signal,
)
from backtest.market import Market, Markets, find_clock, read_weights
from backtest.policy import Policy
from backtest.sweep.policy_columns import Columns
from backtest.sweep.sets.sets import (
    OVERLAY,
    SIGNAL,
    BaseTerms,
    Sets,
    Setting,
    build_overlay,
    build_policy,
    build_signal,
    count_sets,
    find_own,
    find_values,
    group_rows,
    names_signal,
    number_rows,
    take_own,
    take_sets,
)

MOST_SETS = 32
"""Most sets that are checked, as a search may reach new ends again and again."""

NEW = 1000
"""Votes of a new end; among sets with as many, the one with the most highest numbers is checked."""


class EndsChecker:
    """Checks sets until both ends of each number were checked, under all words that occur."""

    def __init__(self) -> None:
        self.causality: Causality | None = None
        self._seen: dict[tuple[object, ...], dict[str, tuple[float, float]]] = {}
        self._count = 0

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
        """Check sets whose values are ends of those that are read, the most such values first."""
        left_out = np.zeros(count_sets(sets), dtype=np.bool_)
        while self._count < MOST_SETS and not left_out.all():
            votes = np.where(left_out, -1, self._count_new(sets, list_reads()))
            row = int(votes.argmax())
            if self._seen and votes[row] < NEW:
                return
            self._count += 1
            if not check(take_sets(sets, row)):
                left_out[row] = True
                continue
            self._note(take_sets(sets, slice(row, row + 1)), list_reads())

    def _note(self, chosen: Sets, names: tuple[str, ...]) -> None:
        words, numbers = split_names(chosen, names)
        spans = self._seen.setdefault(tuple(chosen[name][0] for name in words), {})
        for name in numbers:
            value = float(chosen[name][0])
            low, high = spans.get(name, (value, value))
            spans[name] = min(low, value), max(high, value)

    def _count_new(self, sets: Sets, names: tuple[str, ...]) -> IntArray:
        """Return by set ``NEW`` for each new end of a number, and 1 for each highest number."""
        votes = np.zeros(count_sets(sets), dtype=np.int64)
        words, numbers = split_names(sets, names)
        keys = list(zip(*(sets[name].tolist() for name in words), strict=True)) or [()] * len(votes)
        places = {key: k for k, key in enumerate(dict.fromkeys(keys))}
        codes = np.array([places[key] for key in keys])
        for key, code in places.items():
            rows, spans = np.flatnonzero(codes == code), self._seen.get(key)
            votes[rows] += NEW * (spans is None)
            for name in numbers:
                values = sets[name][rows].astype(np.float64)
                low, high = (spans or {}).get(name, (np.inf, -np.inf))
                is_end = (values == values.min()) | (values == values.max())
                votes[rows] += NEW * (is_end & ((values < low) | (values > high)))
                votes[rows] += values == values.max()
        return votes


def split_names(sets: Sets, names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the names of words, and those of numbers."""
    here = [name for name in names if name in sets and "." not in name]
    words = [name for name in here if sets[name].dtype.kind in "Ob"]
    return words, [name for name in here if name not in words]


def check_markets(
    markets: Markets,
    base: BaseTerms,
    settings: Mapping[str, Setting],
    sets: Sets,
    *,
    signal: Any,
    memory: float,
    is_alone: bool = False,
) -> None:
    build = partial(build_policy, base, settings)
    markets = find_clock(markets).seen
    if is_alone:
        weights = read_signals(signal, markets, 0, is_alone=True)
    else:
        weights = read_weights(signal, markets, first=0)
    for k, name in enumerate(markets.names):
        first, stop = (int(each) for each in markets.spans[k])
        market = markets[name].with_signal(np.clip(weights[k, first:stop], -1.0, 1.0))
        EndsChecker().check(Columns(market, build, memory), find_values(sets, name))
    for overlay in list_overlays(base, settings, sets):
        observe_overlay(overlay, markets, weights)


def list_overlays(
    base: BaseTerms, settings: Mapping[str, Setting], sets: Sets
) -> list[Policy | None]:
    own = find_own(sets, OVERLAY)
    if not own:
        return [base.overlay]
    found: list[Policy | None] = []

    def keep(values: Mapping[str, Any]) -> bool:
        named = {f"{OVERLAY}.{name}": value for name, value in values.items()}
        found.append(build_overlay(base, settings, named))
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
        if not names_signal(sets):
            self.check_set(take_sets(sets, 0))
            return
        own = take_own(sets)
        self._ends.cover(own, lambda: tuple(own), self._check_own)

    def check_set(self, values: Mapping[str, Any]) -> bool:
        try:
            rule = build_signal(self.base, values)
            if rule is not None and rule not in self._checked:
                resolve_signal(rule, self.market)
                self._checked.add(rule)
        except ParameterError:  # the run of the set gives the reason
            return False
        return True

    def _check_own(self, own: Mapping[str, Any]) -> bool:
        return self.check_set({f"{SIGNAL}{name}": value for name, value in own.items()})


def split_by_signal(sets: Sets) -> list[IntArray]:
    codes = number_rows(take_own(sets).values(), count_sets(sets))
    return sorted(group_rows(codes), key=lambda rows: int(rows[0]))
