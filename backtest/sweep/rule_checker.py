"""Check the signal rules of sets for lookahead, and sort sets by their rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backtest.base import IntArray, ParameterError
from backtest.engine import SignalRule, resolve_signal
from backtest.market import Market, Markets
from backtest.sweep.sets.representative_sets import Extremes, list_corners
from backtest.sweep.sets.sets import (
    SIGNAL,
    BaseTerms,
    Sets,
    build_signal,
    count_sets,
    group_rows,
    names_signal,
    number_rows,
    take_own,
    take_sets,
)


class RuleChecker:
    def __init__(self, base: BaseTerms, market: Market | Markets) -> None:
        self.base = base
        self.market = market
        self._extremes = Extremes()
        self._checked: set[SignalRule] = set()

    def check(self, sets: Sets) -> None:
        if self.base.signal is None or count_sets(sets) == 0:
            return
        if not names_signal(sets):
            self.check_set(take_sets(sets, 0))
            return
        own = take_own(sets)
        self._check_extremes(list_corners(own, list(own)))
        self._check_extremes(own)

    def check_set(self, values: Mapping[str, Any]) -> bool:
        try:
            rule = build_signal(self.base, values)
            if rule is not None and rule not in self._checked:
                resolve_signal(rule, self.market)
                self._checked.add(rule)
        except ParameterError:  # the run of the set gives the reason
            return False
        return True

    def _check_extremes(self, own: Sets) -> None:
        failed = np.zeros(count_sets(own), dtype=np.bool_)
        while (row := self._extremes.choose(own, list(own), failed)) is not None:
            values = take_sets(own, row)
            if self.check_set({f"{SIGNAL}{name}": value for name, value in values.items()}):
                self._extremes.accept(own, list(own), row)
            else:
                failed[row] = True


def split_by_signal(sets: Sets) -> list[IntArray]:
    codes = number_rows(take_own(sets).values(), count_sets(sets))
    return sorted(group_rows(codes), key=lambda rows: int(rows[0]))
