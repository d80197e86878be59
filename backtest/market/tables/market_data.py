"""The arrays and flags of one market, frozen and hashed; :class:`backtest.Market` adds methods."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.base import (
    DataError,
    FloatArray,
    IntArray,
    Viewable,
    format_time,
    freeze,
    utc_index,
)
from backtest.market.tables.defects import require
from backtest.market.tables.timed_table import BARS, to_floats
from backtest.market.tables.times import TIME_NAMES

_Array: TypeAlias = "npt.NDArray[Any]"
T = TypeVar("T")


class BarClock(Viewable):
    """Base of one market and of several: bars by their opens."""

    time: IntArray
    interval: int

    @property
    def n_bars(self) -> int:
        """The number of bars."""
        return int(self.time.size)

    @property
    def start(self) -> int:
        """The first open, UTC ns."""
        return int(self.time[0])

    @property
    def end(self) -> int:
        """The last close (last open + interval), UTC ns."""
        return int(self.time[-1]) + self.interval

    @property
    def times(self) -> pd.DatetimeIndex:
        """The opens as a UTC index."""
        return utc_index(self.time)


@dataclass(frozen=True, eq=False, repr=False)
class MarketData(BarClock):
    """Aligned arrays of one instrument; :class:`backtest.Market` describes each field.

    The constructor freezes the arrays and trusts their content.
    """

    instrument: str
    interval: int
    time: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    mark_open: FloatArray
    mark_high: FloatArray
    mark_low: FloatArray
    mark_close: FloatArray
    has_mark: bool
    funding_time: IntArray
    funding_rate: FloatArray
    funding_mark: FloatArray
    funding_predicted: FloatArray
    columns: Mapping[str, FloatArray]
    synthetic: bool
    sessions: bool
    filled: Mapping[str, str]
    decide: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        frozen: dict[int, _Array] = {}  # without mark prices, two fields share one array
        for name, array in self._arrays().items():
            if id(array) not in frozen:
                frozen[id(array)] = freeze(array)
            object.__setattr__(self, name, frozen[id(array)])
        columns = {name: freeze(values) for name, values in self.columns.items()}
        object.__setattr__(self, "columns", MappingProxyType(columns))
        object.__setattr__(self, "filled", MappingProxyType(dict(self.filled)))
        object.__setattr__(self, "facts", {})  # copies with the same content share them

    def __len__(self) -> int:
        return self.n_bars

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return self is other or self.content_hash == other.content_hash

    def __hash__(self) -> int:
        return hash(self.content_hash)

    def fields(self) -> dict[str, Any]:
        """Return the fields by name, as the constructor takes them."""
        return {name: getattr(self, name) for name in _NAMES}

    def _arrays(self) -> dict[str, _Array]:
        return {name: each for name, each in self.fields().items() if isinstance(each, np.ndarray)}

    @property
    def content_hash(self) -> str:
        """SHA-256, hex, of all arrays, names, the interval and the flags; not of ``source``."""
        return compute_once(self, "content", self._hash_content)

    @property
    def close_hash(self) -> str:
        """SHA-256, hex, of the closes."""
        return compute_once(self, "close", lambda: hashlib.sha256(self.close.data).hexdigest())

    def _hash_content(self) -> str:
        flags = [self.instrument, self.interval, self.has_mark, self.synthetic, self.sessions]
        flags += [self.decide] if self.decide else []  # hashes of other markets stay valid
        digest = hashlib.sha256(json.dumps([*flags, sorted(self.columns)]).encode())
        columns = [self.columns[name] for name in sorted(self.columns)]
        arrays = self._arrays()
        predicted = arrays.pop("funding_predicted")
        if not np.isnan(predicted).all():  # older hashes, of markets without them, stay valid
            columns.append(predicted)
        for array in (*arrays.values(), *columns):
            digest.update(f"{array.size}:".encode())
            digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
        return digest.hexdigest()

    def bars(self) -> pd.DataFrame:
        """Return open, high, low, close, volume and further columns, indexed by open time."""
        own = {name: getattr(self, name) for name in ("open", "high", "low", "close", "volume")}
        return pd.DataFrame(own | dict(self.columns), index=self.times)

    def mark(self) -> pd.DataFrame | None:
        """Return open, high, low, close of the mark price by open time; None if there is none."""
        if not self.has_mark:
            return None
        names = ("open", "high", "low", "close")
        return pd.DataFrame({n: getattr(self, f"mark_{n}") for n in names}, index=self.times)

    def funding(self) -> pd.DataFrame | None:
        """Return rate, mark and, if known, predicted by stamp; None if there is no settlement."""
        if not self.funding_time.size:
            return None
        columns = {"rate": self.funding_rate, "mark": self.funding_mark}
        if not np.isnan(self.funding_predicted).all():
            columns["predicted"] = self.funding_predicted
        return pd.DataFrame(columns, index=utc_index(self.funding_time))


def compute_once(data: BarClock, name: str, compute: Callable[[], T]) -> T:
    facts: dict[str, T] = vars(data)["facts"]
    if name not in facts:
        facts[name] = compute()
    return facts[name]


_NAMES = tuple(each.name for each in dataclasses.fields(MarketData))


def read_attached(given: Mapping[str, object], time: IntArray) -> dict[str, FloatArray]:
    """Return columns as copied float64 arrays, one value per bar; ``time`` holds the opens.

    Raises DataError if a name is reserved, or values are not one finite number, or NaN, per bar.
    """
    return {name: _read_column(name, values, time) for name, values in given.items()}


def _read_column(name: str, values: object, time: IntArray) -> FloatArray:
    if name in BARS.known:
        raise DataError(f"{name}: is the name of a price or the volume")
    if name in TIME_NAMES:
        raise DataError(f"{name}: is a name of the time column")
    if isinstance(values, pd.Series):
        _check_times(name, values, time)
        values = values.reset_index(drop=True)
    found = np.asarray(values)
    if found.shape != time.shape:
        raise DataError(
            f"{name}: must have {time.size} values, one per bar, got shape {found.shape}"
        )
    numbers = pd.Series(found.tolist() if found.dtype == object else found)  # None becomes NaN
    column = require(to_floats(numbers, column=name, name="with_columns"))
    infinite = np.flatnonzero(np.isinf(column))
    if infinite.size:
        first = format_time(int(time[infinite[0]]))
        raise DataError(
            f"{name}: must be finite, or NaN if unknown, got {column[infinite[0]]:g} in "
            f"{infinite.size} of {time.size} bars, first at {first}"
        )
    return column


def _check_times(name: str, values: pd.Series, time: IntArray) -> None:
    index = values.index
    if not isinstance(index, pd.DatetimeIndex):
        return
    wanted = utc_index(time)
    if index.tz is None:
        raise DataError(
            f"{name}: must be indexed by time in a zone, has none; series.tz_localize('UTC')"
        )
    index = index.tz_convert("UTC")
    if index.equals(wanted):
        return
    missing = wanted.difference(index)
    found = (
        f"lacks {missing.size} of {time.size}, first {format_time(int(_nanoseconds(missing)[0]))}"
        if missing.size
        else f"has {len(index)} times for {time.size} bars"
    )
    raise DataError(
        f"{name}: must be indexed by the opens of the bars, {found}; the last value known at each "
        f"open is {name}.reindex(market.times, method='ffill'), never one stamped later"
    )


def _nanoseconds(index: pd.DatetimeIndex) -> IntArray:
    return np.asarray(index.as_unit("ns").asi8)
