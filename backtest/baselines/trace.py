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
from backtest.market import Market
from backtest.results import AccountFields, PositionFields, Result
from backtest.results.performance import sampled_returns

WORDS = {term.name: term.words for term in MONEY_TERMS}
BEFORE_FILLS = ("flows", "funding", "interest", "expense")
STEPS = {
    "close": "last price of the data",
    "mark": "mark price of the data",
    "multiplier": "margin multiplier",
    "top_up": "top-up from the reserve",
    **{name: WORDS[name] for name in BEFORE_FILLS},
    "position": "position",
    **{name: WORDS[name] for name in GROWTH_TERMS if name not in BEFORE_FILLS},
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
QUOTE_FIELDS = ("close", "mark", "signal", "multiplier")
POSITION_FIELDS = {
    "quantity": "position",
    **{name: name for name in PositionFields._fields if name in STEPS},
}
"""The columns of a trace by the fields of a position in the record of a run."""
MONEY = frozenset({*SIGNS, "top_up", "cash", "margin", "reserve"})
PRICES = ("close", "mark")
"""Columns that a run reads. Where they differ, the data moved, and not the account."""
HASH_FACTOR = np.uint64(31)
"""Odd, so that hashes times it stay different: the order of what is mixed counts."""


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
        """Return whether times and columns have the same bytes."""
        if self.columns.keys() != other.columns.keys():
            return False
        if self.time.tobytes() != other.time.tobytes():
            return False

        for name, column in self.columns.items():
            if column.tobytes() != other.columns[name].tobytes():
                return False
        return True


def name_field(column: str) -> str:
    """Return a column without the instrument that it belongs to."""
    return column.rpartition(" ")[2]


def take_trace(result: Result) -> Trace:
    """Return the bars of a run as a baseline keeps them."""
    n_bars = len(result.time)
    arrays = {}
    for name, column in list_columns(result).items():
        arrays[name] = normalize_column(column, n_bars)

    return Trace(
        time=np.asarray(result.time),
        columns=arrays,
        inputs=hash_inputs(result),
        first_unit=result.tally.first_unit,
        interval=result.interval,
    )


def list_columns(result: Result) -> dict[str, FloatArray]:
    """Return the columns of the account and of its positions by name."""
    columns: dict[str, FloatArray] = {}
    for name in STEPS:
        if name in AccountFields._fields:
            columns[name] = result.of_account(name)
    columns["ends_sample"] = result.ends_sample

    for i, instrument in enumerate(result.names):
        lead = "" if result.has_one_position else f"{instrument} "
        for name in QUOTE_FIELDS:
            columns.setdefault(f"{lead}{name}", getattr(result.quotes, name)[:, i])
        # Of one position, the account has its fees and other terms already.
        for field, name in POSITION_FIELDS.items():
            columns.setdefault(f"{lead}{name}", result.of_positions(field)[:, i])
    return columns


def normalize_column(column: FloatArray, n_bars: int) -> FloatArray:
    """Return a column whose equal values have equal bytes: one NaN, and no -0."""
    values = np.broadcast_to(column, (n_bars,))
    values = np.where(np.isnan(values), np.nan, values + 0.0)
    return np.ascontiguousarray(values, dtype="<f8")


def hash_inputs(result: Result) -> npt.NDArray[np.uint32] | None:
    """Return a hash of the market data of each bar of a run, None for a loaded one."""
    markets = result.markets
    if markets is None:
        return None

    # Each instrument is mixed into the bars in which it is listed.
    mixed = np.zeros(markets.n_bars, dtype=np.uint64)
    for market, (first, stop) in zip(markets.values(), markets.spans, strict=True):
        mixed[first:stop] = mixed[first:stop] * HASH_FACTOR + hash_market(market)

    # Of products of 64 bits the upper half depends on all bits of both factors.
    hashes = (mixed >> np.uint64(32)).astype(np.uint32)
    n_bars = len(result.time)  # earlier ones warm the policy up
    return hashes[-n_bars:]


def hash_market(market: Market) -> npt.NDArray[np.uint64]:
    """Return a hash of the prices, marks and funding of each bar."""
    bars = market.bars()
    hashes = hash_rows(bars[sorted(map(str, bars))])

    mark = market.mark()
    if mark is not None:
        hashes ^= hash_rows(mark) * HASH_FACTOR

    # A settlement belongs to the bar in which it happens.
    funding = market.funding()
    if funding is not None:
        rows = np.searchsorted(market.time, market.funding_time, side="right") - 1
        np.bitwise_xor.at(hashes, np.maximum(rows, 0), hash_rows(funding))
    return hashes


def hash_rows(frame: pd.DataFrame) -> npt.NDArray[np.uint64]:
    return np.array(pd.util.hash_pandas_object(frame), dtype=np.uint64)


NEAR = 1e-9
"""The relative tolerance for bars of different platforms."""


@dataclass(frozen=True)
class ColumnMove:
    """The first bar at which a column differs, its two values there, and how many bars differ."""

    column: str
    bar: int
    was: float
    now: float
    count: int

    @property
    def step(self) -> str:
        instrument, _, field = self.column.rpartition(" ")
        if instrument:
            return f"{STEPS[field]} of {instrument}"
        return STEPS[field]


@dataclass(frozen=True)
class BarMoves:
    """What differs between the bars of two traces.

    ``moves`` has each column that differs, in the order of bars and steps; ``first`` is the first
    bar at which the account differs (-1 if none does), ``data`` the first at which the market
    does, and ``terms`` what each term of money adds to the difference of the final equity.
    """

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
    """Return what differs between two traces of the same times and columns."""
    moves = list_moves(was, now, is_exact=is_exact)
    account_bars = [move.bar for move in moves if name_field(move.column) not in PRICES]
    first = min(account_bars, default=-1)
    first_time = ""
    if first >= 0:
        first_time = core.format_time(int(was.time[first]))

    data = find_data_move(was, now)
    data_time = ""
    if data is not None:
        data_time = core.format_time(int(was.time[data.bar]))
    return BarMoves(
        is_exact=is_exact,
        n_bars=len(was.time),
        moves=tuple(moves),
        first=first,
        first_time=first_time,
        data=data,
        data_time=data_time,
        terms=sum_moved_terms(was, now),
    )


def list_moves(was: Trace, now: Trace, *, is_exact: bool) -> list[ColumnMove]:
    """Return the columns that differ, the earliest first, in a bar in the order of its steps."""
    moves = []
    for name, values in was.columns.items():
        other = now.columns[name]
        differs: BoolArray = values.view(np.uint64) != other.view(np.uint64)
        if not is_exact:
            differs &= ~find_near(was, name, other)
        if differs.any():
            moves.append(measure_move(name, values, other, differs))

    order = {name: place for place, name in enumerate(STEPS)}
    moves.sort(key=lambda move: (move.bar, order[name_field(move.column)]))
    return moves


def find_near(was: Trace, name: str, other: FloatArray) -> BoolArray:
    """Return at which bars a column of another platform is near enough to be the same.

    A sum of money that is small beside the account has the rounding of the account.
    """
    values = was.columns[name]
    size = np.maximum(np.abs(values), np.abs(other))
    if name_field(name) in MONEY:
        for scale in ("equity", "cash"):
            size = np.maximum(size, np.abs(was.columns[scale]))

    with np.errstate(invalid="ignore"):
        is_near = np.abs(values - other) <= NEAR * size
    return np.asarray(is_near & np.isfinite(values) & np.isfinite(other))


def find_data_move(was: Trace, now: Trace) -> ColumnMove | None:
    """Return the first bar whose market data differ; None if none does, or they are unknown."""
    if was.inputs is None or now.inputs is None:
        return None
    differs = was.inputs != now.inputs
    if not differs.any():
        return None

    # Several instruments have no close of their own name; then the hashes say it alone.
    unknown = np.full(len(was.time), np.nan)
    old_close = was.columns.get("close", unknown)
    new_close = now.columns.get("close", unknown)
    return measure_move("inputs", old_close, new_close, differs)


def sum_moved_terms(was: Trace, now: Trace) -> dict[str, float]:
    """Return by how much each term of money moved the final equity, without those of 0."""
    terms = {}
    for name, sign in SIGNS.items():
        if name not in was.columns or name not in now.columns:
            continue

        moved = sign * float(np.sum(now.columns[name]) - np.sum(was.columns[name]))
        if moved != 0.0:
            terms[name] = moved
    return terms


def measure_move(
    name: str,
    one: FloatArray,
    other: FloatArray,
    differs: BoolArray,
) -> ColumnMove:
    bar = int(differs.argmax())
    return ColumnMove(
        column=name,
        bar=bar,
        was=float(one[bar]),
        now=float(other[bar]),
        count=int(differs.sum()),
    )
