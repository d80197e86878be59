"""Compare two traces bar by bar: which columns differ, from which bar on, and by how much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backtest.account.terms import SIGNS
from backtest.base import BoolArray, FloatArray, format_time
from backtest.regress.trace import (
    DATA,
    INPUTS,
    MONEY,
    STEPS,
    Trace,
    describe_column,
    name_field,
)

NEAR = 1e-9
"""The relative tolerance for bars of different platforms; see :func:`find_differing`."""


@dataclass(frozen=True)
class ColumnMove:
    column: str
    bar: int
    was: float
    now: float
    count: int
    largest: float

    @property
    def step(self) -> str:
        return describe_column(self.column)


@dataclass(frozen=True)
class BarMoves:
    is_exact: bool
    n_bars: int
    moves: tuple[ColumnMove, ...]
    first_time: str
    data: ColumnMove | None
    data_time: str
    terms: dict[str, float]

    @property
    def is_same(self) -> bool:
        return self.first < 0

    @property
    def first(self) -> int:
        return find_first(self.moves)

    @property
    def at_first(self) -> tuple[ColumnMove, ...]:
        return tuple(move for move in self.moves if move.bar == self.first)


def compare_traces(was: Trace, now: Trace, *, is_exact: bool) -> BarMoves:
    order = {name: place for place, name in enumerate(STEPS)}
    found = []
    shared = {name: values for name, values in was.columns.items() if name in now.columns}
    for name, values in shared.items():
        differs = find_differing(name, was, now, is_exact=is_exact)
        if differs.any():
            found.append(measure_move(name, values, now.columns[name], differs))
    found.sort(key=lambda move: (move.bar, order[name_field(move.column)]))
    data, first = compare_data(was, now), find_first(found)
    return BarMoves(
        is_exact=is_exact,
        n_bars=len(was.time),
        moves=tuple(found),
        first_time=format_time(int(was.time[first])) if first >= 0 else "",
        data=data,
        data_time=format_time(int(was.time[data.bar])) if data is not None else "",
        terms=explain_equity(was, now),
    )


def find_first(moves: Sequence[ColumnMove]) -> int:
    return min((move.bar for move in moves if name_field(move.column) not in DATA), default=-1)


def find_differing(name: str, was: Trace, now: Trace, *, is_exact: bool) -> BoolArray:
    one, other = was.columns[name], now.columns[name]
    differs: BoolArray = one.view(np.uint64) != other.view(np.uint64)
    if is_exact or not differs.any():
        return differs
    size = np.maximum(np.abs(one), np.abs(other))
    if name_field(name) in MONEY:
        size = np.maximum(size, find_money_scale(was))
    with np.errstate(invalid="ignore"):
        is_near = np.abs(one - other) <= NEAR * size
    is_near &= np.isfinite(one) & np.isfinite(other)
    return np.asarray(differs & ~is_near)


def find_money_scale(trace: Trace) -> FloatArray:
    columns = trace.columns
    return np.maximum(np.abs(columns["equity"]), np.abs(columns["cash"]))


def measure_move(name: str, one: FloatArray, other: FloatArray, differs: BoolArray) -> ColumnMove:
    bar = int(differs.argmax())
    with np.errstate(invalid="ignore"):
        gaps = np.abs(other - one)[differs]
    largest = float(np.max(np.where(np.isnan(gaps), np.inf, gaps)))
    return ColumnMove(name, bar, float(one[bar]), float(other[bar]), int(differs.sum()), largest)


def compare_data(was: Trace, now: Trace) -> ColumnMove | None:
    if was.inputs is None or now.inputs is None:
        return None
    differs = was.inputs != now.inputs
    if not differs.any():
        return None
    bar = int(differs.argmax())
    closes = [trace.columns.get("close") for trace in (was, now)]
    one, other = (math.nan if close is None else float(close[bar]) for close in closes)
    return ColumnMove(INPUTS, bar, one, other, int(differs.sum()), math.nan)


def explain_equity(was: Trace, now: Trace) -> dict[str, float]:
    moved = {
        name: sign * float(np.sum(now.columns[name]) - np.sum(was.columns[name]))
        for name, sign in SIGNS.items()
        if name in was.columns and name in now.columns
    }
    return {name: value for name, value in moved.items() if value != 0.0}
