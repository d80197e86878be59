"""Check the columns of several parameter sets for lookahead at the same cuts of the market."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backtest.base import BacktestError, FloatArray, WorkMeter, measure_work
from backtest.engine import Causality, CausalityChecker, find_first, is_ours
from backtest.engine.lookahead.causality_checker import SWEPT
from backtest.engine.lookahead.peek_errors import KNOWN
from backtest.market import Market
from backtest.sweep.policy_columns import Columns, Watched, as_exact
from backtest.sweep.sets.representative_sets import group_by_words, varies
from backtest.sweep.sets.sets import Sets, count_sets, take_sets

ALIKE = 1.1
"""Sets share cuts if the warm-up of one is at most so many times as long as that of another."""
SHORT = 512
"""Warm-ups of up to so many bars share cuts in any case."""

Whole: TypeAlias = Mapping[str, FloatArray]


class ObservedSet(NamedTuple):
    row: int
    whole: Whole
    meter: WorkMeter
    warm: int


def check_jointly(columns: Columns, sets: Sets) -> list[Causality | None]:
    n_sets, known = count_sets(sets), columns.reads
    found: list[Causality | None] = [None] * n_sets
    observed: list[ObservedSet] = []
    for row in range(n_sets):
        with contextlib.suppress(BacktestError), measure_work(WorkMeter()) as meter:
            whole = columns.of_one(take_sets(sets, row))
            warm = max(map(find_first, whole.values()), default=0) + KNOWN
            observed.append(ObservedSet(row, whole, meter, warm))
    if columns.reads != known:
        return found
    for group in group_similar(observed):
        rows = [each.row for each in group]
        causality = check_group(columns, take_sets(sets, np.array(rows)), group)
        for row in rows:
            found[row] = causality
    return found


def group_similar(observed: Sequence[ObservedSet]) -> Iterator[list[ObservedSet]]:
    for is_fitted in (False, True):
        rest = [each for each in observed if (each.meter.bars > 0.0) == is_fitted]
        rest.sort(key=lambda each: each.warm)
        while rest:
            most = max(SHORT, ALIKE * rest[0].warm)
            group = [each for each in rest if each.warm <= most]
            rest = rest[len(group) :]
            if len(group) > 1:
                yield sorted(group, key=lambda each: each.row)


def check_group(columns: Columns, sets: Sets, group: Sequence[ObservedSet]) -> Causality | None:
    distinct, market = find_different([each.whole for each in group]), columns.market
    for rows in list_calls(columns, sets):
        calls = [SetsCall(columns, sets, each) for each in rows]
        observe, meter = join_calls(calls, distinct), WorkMeter()
        for each in group:
            meter.include(each.meter)
        checker = CausalityChecker("", observe, market, distinct, SWEPT, meter, len(group))
        checker.is_ours = is_ours(columns.build(take_sets(sets, 0)))
        try:
            found = checker.check()
        except Exception:  # sets alone show whether it is the policy or the arrays
            continue
        if not any(call.has_new_reads() for call in calls):
            return found if found.cuts else None
    return None


class SetsCall:
    def __init__(self, columns: Columns, sets: Sets, rows: list[int]) -> None:
        policy = columns.build(take_sets(sets, rows[0]))
        names = [name for name in columns.reads if name in sets and varies(sets[name][rows])]
        many = {name: as_exact(sets[name][rows]) for name in names}
        self._watched: Any = Watched(policy, policy.settings() | many) if names else policy
        self._columns = columns
        self._rows = rows

    def observe(self, part: Market) -> dict[str, FloatArray]:
        return split_columns(self._watched.observe(part), self._rows, part.n_bars)

    def has_new_reads(self) -> bool:
        is_watched = isinstance(self._watched, Watched)
        return is_watched and not {*self._watched.reads()} <= {*self._columns.reads}


def find_different(wholes: Sequence[Whole]) -> dict[str, FloatArray]:
    distinct: dict[str, FloatArray] = {}
    for row, whole in enumerate(wholes):
        for name, column in whole.items():
            others = (wholes[k].get(name) for k in range(row))
            if not any(each is not None and is_equal(column, each) for each in others):
                distinct[f"{name} {row}"] = column
    return distinct


def is_equal(one: FloatArray, other: FloatArray) -> bool:
    return one is other or bool(
        np.array_equal(one[-1:], other[-1:], equal_nan=True)
        and np.array_equal(one, other, equal_nan=True)
    )


def list_calls(columns: Columns, sets: Sets) -> Iterator[list[list[int]]]:
    n_sets = count_sets(sets)
    if columns.is_together is not False:
        yield [list(range(n_sets))]
        words = [name for name in columns.reads if name in sets and sets[name].dtype.kind in "Ob"]
        groups = [np.flatnonzero(each).tolist() for _, each in group_by_words(sets, words)]
        if 1 < len(groups) < n_sets and sum(map(len, groups)) == n_sets:
            yield groups
    yield [[row] for row in range(n_sets)]


def join_calls(
    calls: Sequence[SetsCall], distinct: Mapping[str, FloatArray]
) -> Callable[[Market], dict[str, FloatArray]]:
    def observe_part(part: Market) -> dict[str, FloatArray]:
        seen = {name: each for call in calls for name, each in call.observe(part).items()}
        return {name: seen[name] for name in distinct}

    return observe_part


def split_columns(
    columns: Mapping[str, Any], rows: Sequence[int], n_bars: int
) -> dict[str, FloatArray]:
    """Return the columns of each of k sets, from arrays of shape (n_bars,) or (n_bars, k).

    Raises ValueError for other shapes.
    """
    found: dict[str, FloatArray] = {}
    for name, each in columns.items():
        values = np.asarray(each, dtype=np.float64)
        if values.shape not in ((n_bars,), (n_bars, len(rows))):
            raise ValueError(name)
        lanes = np.ascontiguousarray(values.T) if values.ndim == 2 else [values] * len(rows)
        found |= {f"{name} {row}": lanes[k] for k, row in enumerate(rows)}
    return found
