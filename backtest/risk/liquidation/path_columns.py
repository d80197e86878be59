"""Columns of a policy on many paths, each computed over history and path together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backtest.base import FloatArray
from backtest.engine import is_ours, observe
from backtest.features import find_continuation, keep_continuations
from backtest.market import Market
from backtest.policy import Policy
from backtest.risk.paths.instrument_paths import MARKS, PRICES
from backtest.risk.paths.path_writer import PathBars

DRAWN = frozenset({*PRICES, *MARKS, "volume", "funding_rate", "source"})


class JoinedPath(Market):
    def __getattr__(self, name: str) -> Any:
        if name not in DRAWN:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return vars(self)["drawn"].read(name)


class DrawnFields:
    def __init__(self, pattern: Market, bars: PathBars, k: int, width: int, source: str) -> None:
        self.pattern, self.bars, self.k, self.width = pattern, bars, k, width
        self.found: dict[str, Any] = {"source": source}

    def read(self, name: str) -> Any:
        if name not in self.found:
            self.found[name] = self.join(name)
        return self.found[name]

    def join(self, name: str) -> FloatArray:
        if name in MARKS and self.bars.marks is None:
            return self.read(PRICES[MARKS.index(name)])  # type: ignore[no-any-return] # an array
        joined: FloatArray = np.array(getattr(self.pattern, name))
        last = self.cut(name)
        joined[len(joined) - len(last) :] = last
        joined.flags.writeable = False
        return joined

    def cut(self, name: str) -> FloatArray:
        if name == "funding_rate":
            rates: FloatArray = self.bars.rates[self.k]
            return rates
        part = slice(self.k * self.width, (self.k + 1) * self.width)
        if name == "volume":
            return self.bars.volume[part]
        if name in MARKS and self.bars.marks is not None:
            return self.bars.marks[MARKS.index(name), part]
        return self.bars.prices[PRICES.index(name), part]


def join_path(pattern: Market, bars: PathBars, k: int, width: int, source: str) -> Market:
    path = object.__new__(JoinedPath)
    shared = {name: value for name, value in vars(pattern).items() if name not in DRAWN}
    vars(path).update(shared, facts={}, drawn=DrawnFields(pattern, bars, k, width, source))
    return path


def continue_columns(
    policy: Policy, pattern: Market, bars: PathBars, names: Mapping[str, Any], width: int
) -> dict[str, FloatArray] | None:
    if not is_ours(policy) or "observe" in vars(policy):
        return None
    path = join_path(pattern, bars, 0, width, pattern.source)
    kept = keep_continuations(path)
    columns = observe(policy, path)
    found, closes = {}, bars.prices[3].reshape(-1, width)
    for name in names:
        continuation = find_continuation(kept, columns[name])
        if continuation is None:
            return None
        rows = continuation.extend(closes)
        if not np.array_equal(rows[0], columns[name][-width:], equal_nan=True):
            return None  # changed in place
        found[name] = rows.ravel()
    return found


def observe_paths(
    policy: Policy, pattern: Market, bars: PathBars, names: Mapping[str, Any], width: int
) -> dict[str, FloatArray]:
    continued = continue_columns(policy, pattern, bars, names, width)
    if continued is not None:
        return continued
    n = len(bars.volume) // width
    found = {name: np.empty((n, width)) for name in names}
    for k in range(n):
        columns = observe(policy, join_path(pattern, bars, k, width, pattern.source))
        for name, rows in found.items():
            rows[k] = columns[name][-width:]
    return {name: rows.ravel() for name, rows in found.items()}
