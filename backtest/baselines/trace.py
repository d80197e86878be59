"""The bars of a baseline: what the account was at each close, and where two differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest import core
from backtest.account.money import GROWTH_TERMS, MONEY_TERMS, SIGNS
from backtest.core import BoolArray, FloatArray, IntArray
from backtest.results import AccountFields, PositionFields, Result
from backtest.results.performance import sampled_returns

WORDS = {term.name: term.words for term in MONEY_TERMS}
STEPS = {
    "close": "last price of the data",
    "mark": "mark price of the data",
    "multiplier": "margin multiplier",
    "top_up": "top-up from the reserve",
    **{name: WORDS[name] for name in ("flows", "funding", "interest")},
    "position": "position",
    **{name: WORDS[name] for name in GROWTH_TERMS if name not in ("funding", "interest")},
    **{name: WORDS[name] for name in ("bad_debt", "price_pnl", "collateral_pnl", "conversion")},
    "entry": "average entry",
    "margin": "isolated margin",
    "reserve": "reserve",
    "cash": "cash",
    "equity": "equity",
    "unit": "equity without deposits",
    "ends_sample": "sampling of returns",
    "signal": "signal at the close",
    "target": "target leverage",
    "overlay": "leverage of the overlay",
}
"""The columns of a trace, in the order in which a bar computes them."""
OF_POSITIONS = {
    "quantity": "position", **{name: name for name in PositionFields._fields if name in STEPS},
}  # fmt: skip
MONEY = frozenset({*SIGNS, "top_up", "cash", "margin", "reserve"})


@dataclass(frozen=True)
class Trace:
    """The account and its costs at each bar, arrays of shape (n_bars,).

    ``time`` are opens, ``interval`` the length of a bar, in ns. ``columns`` are those of
    :data:`STEPS`, of several positions also of each, ``"BTCUSDT position"``; equal values have
    equal bytes. ``inputs`` is a hash of the market data of each bar, None if they are not known.
    """

    time: IntArray
    columns: Mapping[str, FloatArray]
    inputs: npt.NDArray[np.uint32] | None
    first_unit: float
    interval: int

    @property
    def returns(self) -> FloatArray:
        """Sampled simple returns of shape (n_samples,)."""
        return sampled_returns(self.columns["unit"], self.columns["ends_sample"], self.first_unit)

    def is_same(self, other: Trace) -> bool:
        one, two = ({"": each.time, **each.columns} for each in (self, other))
        return one.keys() == two.keys() and all(one[x].tobytes() == two[x].tobytes() for x in one)


def name_field(column: str) -> str:
    return column.rpartition(" ")[2]


def take_trace(result: Result) -> Trace:
    n = len(result.time)
    columns = {name: result.of_account(name) for name in STEPS if name in AccountFields._fields}
    columns["ends_sample"] = result.ends_sample
    for i, instrument in enumerate(result.names):
        own = {
            name: getattr(result.quotes, name)[:, i]
            for name in ("close", "mark", "signal", "multiplier")
        }
        own |= {called: result.of_positions(name)[:, i] for name, called in OF_POSITIONS.items()}
        lead = "" if result.has_one_position else f"{instrument} "
        for name, values in own.items():
            columns.setdefault(f"{lead}{name}", values)
    prints: npt.NDArray[np.uint32] | None = None
    arrays: dict[str, FloatArray] = {}
    if result.markets is not None:
        mixed, markets = np.zeros(result.markets.n_bars, dtype=np.uint64), result.markets
        for market, (first, stop) in zip(markets.values(), markets.spans, strict=True):
            bars, mark, funding = market.bars(), market.mark(), market.funding()
            found = hash_rows(bars[sorted(map(str, bars))])
            if mark is not None:
                found ^= hash_rows(mark) * np.uint64(31)
            if funding is not None:
                rows = np.searchsorted(market.time, market.funding_time, side="right") - 1
                np.bitwise_xor.at(found, np.maximum(rows, 0), hash_rows(funding))
            mixed[first:stop] = mixed[first:stop] * np.uint64(31) + found
        prints = (mixed >> np.uint64(32)).astype(np.uint32)[-n:]
    for name, column in columns.items():  # equal values have equal bytes
        values = np.broadcast_to(column, (n,))
        values = np.where(np.isnan(values), np.nan, values + 0.0)
        arrays[name] = np.ascontiguousarray(values, dtype="<f8")
    return Trace(np.asarray(result.time), arrays, prints, result.tally.first_unit, result.interval)


def hash_rows(frame: pd.DataFrame) -> npt.NDArray[np.uint64]:
    return np.array(pd.util.hash_pandas_object(frame), dtype=np.uint64)


NEAR = 1e-9
"""The relative tolerance for bars of different platforms."""


@dataclass(frozen=True)
class ColumnMove:
    column: str
    bar: int
    was: float
    now: float
    count: int

    @property
    def step(self) -> str:
        instrument, _, field = self.column.rpartition(" ")
        return f"{STEPS[field]} of {instrument}" if instrument else STEPS[field]


@dataclass(frozen=True)
class BarMoves:
    is_exact: bool
    n_bars: int
    moves: tuple[ColumnMove, ...]
    first: int
    first_time: str
    data: ColumnMove | None
    data_time: str
    terms: dict[str, float]

    @property
    def is_same(self) -> bool:
        return self.first < 0

    @property
    def at_first(self) -> tuple[ColumnMove, ...]:
        return tuple(move for move in self.moves if move.bar == self.first)


def compare_traces(was: Trace, now: Trace, *, is_exact: bool) -> BarMoves:
    order = {name: place for place, name in enumerate(STEPS)}
    found = []
    for name, values in was.columns.items():
        other = now.columns[name]
        differs: BoolArray = values.view(np.uint64) != other.view(np.uint64)
        if not is_exact:
            size = np.maximum(np.abs(values), np.abs(other))
            if name_field(name) in MONEY:
                for scale in ("equity", "cash"):
                    size = np.maximum(size, np.abs(was.columns[scale]))
            with np.errstate(invalid="ignore"):
                is_near = np.abs(values - other) <= NEAR * size
            differs &= ~(is_near & np.isfinite(values) & np.isfinite(other))
        if differs.any():
            found.append(measure_move(name, values, other, differs))
    found.sort(key=lambda move: (move.bar, order[name_field(move.column)]))
    first = min((x.bar for x in found if name_field(x.column) not in ("close", "mark")), default=-1)
    data: ColumnMove | None = None
    if was.inputs is not None and now.inputs is not None and (was.inputs != now.inputs).any():
        none = np.full(len(was.time), np.nan)
        one, other = (each.columns.get("close", none) for each in (was, now))
        data = measure_move("inputs", one, other, was.inputs != now.inputs)
    terms = {
        name: sign * float(np.sum(now.columns[name]) - np.sum(was.columns[name]))
        for name, sign in SIGNS.items()
        if name in was.columns and name in now.columns
    }
    return BarMoves(
        is_exact=is_exact,
        n_bars=len(was.time),
        moves=tuple(found),
        first=first,
        first_time=core.format_time(int(was.time[first])) if first >= 0 else "",
        data=data,
        data_time=core.format_time(int(was.time[data.bar])) if data is not None else "",
        terms={name: value for name, value in terms.items() if value != 0.0},
    )


def measure_move(name: str, one: FloatArray, other: FloatArray, differs: BoolArray) -> ColumnMove:
    bar = int(differs.argmax())
    return ColumnMove(name, bar, float(one[bar]), float(other[bar]), int(differs.sum()))
