"""Limits of an account's leverage by date: a declaration, and the presets with their sources."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    BoolArray,
    FloatArray,
    FloatSeries,
    Number,
    ParameterError,
    Rate,
    check_series,
    checked,
    did_you_mean,
    repr_plain,
    to_nanoseconds,
    utc_index,
)

FILE = Path(__file__).with_suffix(".toml")
BEGIN = "1800-01-01"


class LimitStep(NamedTuple):
    date: str
    leverage: float
    source: str


class LeverageLimit(NamedTuple):
    name: str
    title: str
    note: str
    steps: tuple[LimitStep, ...]


@cache
def available_limits() -> Mapping[str, LeverageLimit]:
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {name: _read_limit(name, table) for name, table in tables.items()}


def _read_limit(name: str, table: Mapping[str, Any]) -> LeverageLimit:
    steps = tuple(
        LimitStep(
            date=row["date"],
            leverage=1.0 / row["margin"] if "margin" in row else float(row["leverage"]),
            source=row.get("source", table.get("source")),
        )
        for row in table["steps"]
    )
    return LeverageLimit(name, table["title"], table["note"], steps)


@checked
def leverage_limit(name: str) -> FloatSeries:
    """Return a limit of leverage by date, for ``Account(max_leverage=...)``.

    Parameters
    ----------
    name : str
        A preset: ``backtest venues --limits`` lists them with their sources.

    Returns
    -------
    Series by UTC time
        The largest leverage from each time on; infinite before the first date of the preset, 0
        under a ban.

    Raises
    ------
    ParameterError
        If there is no such preset.

    Examples
    --------
    >>> limit = leverage_limit("fca-crypto")
    >>> limit.tolist()
    [inf, 2.0, 2.0, 0.0]
    """
    known = available_limits()
    if name not in known:
        raise ParameterError(
            f"there is no leverage limit {repr_plain(name)}{did_you_mean(str(name), known)}",
            where="bt.leverage_limit",
            cure=f"choose one of {', '.join(known)}, or give a number or a Series by UTC time",
        )
    steps = known[name].steps
    days = [BEGIN, *(step.date for step in steps)]
    times = np.array([to_nanoseconds(day, where=f"{FILE.name}, {name}") for day in days])
    return pd.Series([math.inf, *(step.leverage for step in steps)], index=utc_index(times))


@dataclass(frozen=True)
class LimitDeclaration:
    number: ClassVar[Number] = Number(0, open_low=True, may_be_infinite=True)
    kind: ClassVar[type] = float

    def check(self, name: str, value: object, *, where: str) -> Rate:
        if isinstance(value, str):
            value = self.read_preset(value, where=where)
        if not isinstance(value, pd.Series):
            return self.number.check(name, value, where=where)
        series = check_series(name, value, where=where, may_be_infinite=True)
        Number(0, may_be_infinite=True).check(name, float(series.min()), where=where)
        return series

    def read_preset(self, name: str, *, where: str) -> FloatSeries:
        try:
            return leverage_limit(name)
        except ParameterError as error:
            raise ParameterError(error.problem, where=where, cure=error.cure) from error

    def admits(self, values: FloatArray) -> BoolArray:
        return self.number.admits(values)


def find_least(limit: Rate) -> float:
    return float(limit.min()) if isinstance(limit, pd.Series) else limit


def find_preset(limit: Rate) -> str:
    if not isinstance(limit, pd.Series):
        return ""
    for name in available_limits():
        preset = leverage_limit(name)
        if limit.index.equals(preset.index) and np.array_equal(limit, preset):
            return name
    return ""


def describe_limit(limit: Rate) -> str:
    if not isinstance(limit, pd.Series):
        return "" if math.isinf(limit) else f"{limit:g}"
    finite = limit[np.isfinite(limit)]
    if finite.empty:
        return ""
    name = find_preset(limit)
    low, high = f"{finite.min():g}", f"{finite.max():g}"
    return f"by date{f' ({name})' * bool(name)}, {low if low == high else f'{low} to {high}'}"
