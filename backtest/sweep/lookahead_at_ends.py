"""Refuse a policy that looks ahead before its sets are evaluated, at the ends of its numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from backtest.base import BacktestError
from backtest.engine import Causality, is_known, observe_overlay
from backtest.engine.lookahead.causality_checker import SWEPT
from backtest.market import Markets, find_clock, read_weights
from backtest.policy import Policy
from backtest.sweep.lookahead_of_sets import check_jointly
from backtest.sweep.policy_columns import Columns
from backtest.sweep.sets.representative_sets import Extremes, list_corners
from backtest.sweep.sets.sets import (
    OVERLAY,
    BaseTerms,
    Sets,
    Setting,
    build_overlay,
    build_policy,
    count_sets,
    find_own,
    find_values,
    take_sets,
)


class EndsChecker:
    def __init__(self) -> None:
        self.causality: Causality | None = None
        self._extremes = Extremes()

    def check(self, columns: Columns, sets: Sets) -> None:
        if count_sets(sets) == 0:
            return
        self._check_code(columns, sets)
        for some in (list_corners(sets, list(sets)), sets):
            if not columns.reads:
                with contextlib.suppress(BacktestError):
                    columns.of_one(take_sets(some, 0))  # finds what is read
        known = None
        while known != columns.reads:
            known = columns.reads
            corners = list_corners(sets, known)
            self._check_corners(columns, corners)
            if known == columns.reads:
                self._check_extremes(columns, corners)
        self._check_extremes(columns, sets)

    def _check_code(self, columns: Columns, sets: Sets) -> None:
        for row in range(min(count_sets(sets), 2)):
            values = take_sets(sets, row)
            with contextlib.suppress(BacktestError):
                if is_known(columns.build(values)):
                    return
            columns.check_causal(values)

    def check_set(self, columns: Columns, values: Mapping[str, Any]) -> bool:
        return self._note(columns.check_causal(values))

    def _note(self, found: Causality | None) -> bool:
        if found is not None and (self.causality is None or found.cuts < self.causality.cuts):
            self.causality = found
        return found is not None

    def _check_corners(self, columns: Columns, corners: Sets) -> None:
        names, none = columns.reads, np.zeros(2, dtype=np.bool_)
        pairs = np.arange(count_sets(corners)).reshape(-1, 2)
        is_new = [
            self._extremes.choose(take_sets(corners, pair), names, none) is not None
            for pair in pairs
        ]
        some = take_sets(corners, pairs[is_new].reshape(-1))
        for row, found in enumerate(check_jointly(columns, some)):
            if self._note(found):
                self._extremes.accept(take_sets(some, slice(row, row + 1)), names, 0)

    def _check_extremes(self, columns: Columns, sets: Sets) -> None:
        failed = np.zeros(count_sets(sets), dtype=np.bool_)
        while (row := self._extremes.choose(sets, columns.reads, failed)) is not None:
            if self._note(columns.check_causal(take_sets(sets, row), SWEPT)):
                self._extremes.accept(sets, columns.reads, row)
            else:
                failed[row] = True


def check_markets(
    markets: Markets,
    base: BaseTerms,
    settings: Mapping[str, Setting],
    sets: Sets,
    *,
    signal: Any,
    memory: float,
) -> None:
    build = partial(build_policy, base, settings)
    markets = find_clock(markets).seen
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
    corners = list_corners(own, list(own))
    rows = (take_sets(corners, row) for row in range(count_sets(corners)))
    named = ({f"{OVERLAY}.{name}": value for name, value in row.items()} for row in rows)
    return [build_overlay(base, settings, values) for values in named]
