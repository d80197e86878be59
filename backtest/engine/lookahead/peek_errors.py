"""Errors of columns that look ahead: the bar, both values, and both parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from backtest.base import FloatArray, IntArray, PolicyError, format_time
from backtest.engine.lookahead.rounding_noise import find_differences
from backtest.market import Market, Markets, as_given, as_markets
from backtest.policy import Columns

KNOWN = 32
"""Known rows in the shortest part."""
CURE = (
    "use only values up to each bar: rolling and ewm, not mean() of the whole, not shift(-1), no "
    "centered windows, no backward fill"
)
FIRST_ROWS = (
    "; if only rounding decides the first rows (the sign of a sum by FFT that is 0 there), set "
    "them to NaN"
)
SETTLED = (
    "a settlement stamped at a close is not known at it: use those stamped before, "
    "np.searchsorted(market.funding_time, market.time + market.interval, side='left') - 1"
)
STEADY = "use no random numbers, no clock, and nothing that is kept between calls"
STABLE = (
    "seed generators with a constant, not with data; give a fit fixed starting values, and let it "
    "use only the bars before its own date"
)

ObserveColumn = Callable[[Any], FloatArray | None]


class MarketPart(NamedTuple):
    first: int
    stop: int
    seen: Columns
    is_continued: bool = False


class Difference(NamedTuple):
    column: str
    part: MarketPart
    longer: MarketPart
    rows: IntArray


class PeekErrors:
    def __init__(self, name: str, market: Market | Markets) -> None:
        self.name = name
        self.market = market

    def describe(self, found: Difference, observe: ObserveColumn, part: Market | Markets) -> Any:
        seen, row = found.part.seen[found.column], int(found.rows[0])
        again = seen if found.part.is_continued else observe(part)
        if again is None or len(find_differences(seen, again)):
            return self._refuse(
                found,
                f"is not repeatable: {name_column(found)} differs between two calls on the same "
                f"{found.part.stop - found.part.first} bars",
                STEADY,
            )
        whole, less = float(found.longer.seen[found.column][row]), float(seen[row])
        with_it, without = self._name_bars(found.longer), self._name_bars(found.part)
        values = f"{whole!r} when {with_it} are seen, {less!r} when {without} are"
        if is_settlement(found, observe, part, self.market):
            return self._refuse(
                found,
                f"looks ahead: {name_column(found)} uses the settlement stamped at the close of "
                f"its bar, it is {values}",
                SETTLED,
            )
        is_early = found.rows[-1] < KNOWN <= found.part.stop - found.part.first
        return self._refuse(
            found,
            f"looks ahead: {name_column(found)} is {values}",
            CURE + (FIRST_ROWS if is_early else ""),
        )

    def describe_unstable(self, found: Difference, share: float) -> PolicyError:
        return self._refuse(
            found,
            f"cannot be verified: {name_column(found)} depends on later bars, and {share:.0%} of "
            "its rows also change with the 14th digit of the prices, so that rounding and "
            "looking ahead cannot be told apart",
            STABLE,
        )

    def _refuse(self, found: Difference, problem: str, cure: str) -> PolicyError:
        bar = found.part.first + int(found.rows[0])
        time = format_time(int(self.market.time[bar]))
        return PolicyError(f"{self.name} {problem}, at bar {bar}, {time} UTC; {cure}")

    def _name_bars(self, part: MarketPart) -> str:
        if part.is_continued:
            return f"other bars after bar {part.stop - 1}"
        if part.stop - part.first == self.market.n_bars:
            return f"all {self.market.n_bars} bars"
        if part.first == 0:
            return f"the first {part.stop}"
        return f"bars {part.first} to {part.stop - 1}"


def name_column(found: Difference) -> str:
    return f"column {found.column!r}" if found.column else "it"


def is_settlement(
    found: Difference, observe: ObserveColumn, part: Market | Markets, whole: Market | Markets
) -> bool:
    more = add_settlements(part, whole)
    seen = None if found.part.is_continued or more is None else observe(more)
    if seen is None:
        return False
    longer = found.longer.seen[found.column][: len(seen)]
    return not np.isin(found.rows, find_differences(seen, longer)).any()


def add_settlements(part: Market | Markets, whole: Market | Markets) -> Any:
    parts, wholes = as_markets(part), as_markets(whole)
    added = {name: continue_funding(each, wholes[name]) for name, each in parts.items()}
    more = {name: each for name, each in added.items() if each is not None}
    return as_given(parts.with_markets(more), part) if more else None


def continue_funding(part: Market, whole: Market) -> Market | None:
    stop = int(np.searchsorted(whole.funding_time, part.end))
    last = int(np.searchsorted(whole.funding_time, part.end + part.interval // 4, side="right"))
    rows = slice(stop - len(part.funding_time), last)
    names = ("funding_time", "funding_rate", "funding_mark", "funding_predicted")
    fields: dict[str, Any] = {name: getattr(whole, name)[rows] for name in names}
    return dataclasses.replace(part, **fields) if last > stop else None
