"""Time stamps of any kind to UTC nanoseconds; stamps without a known time zone are refused."""

from __future__ import annotations

import re
from typing import TypeAlias

import numpy as np
import pandas as pd

from backtest.base import FloatArray, IntArray, ParameterError, repr_plain
from backtest.market.tables.defects import Defect

TIME_NAMES = ("time", "date", "timestamp", "open_time", "datetime")
NAIVE = "stamps must have a time zone"

Stamps: TypeAlias = "pd.Index | pd.Series"

_ZONE = re.compile(r"(Z|[+-]\d\d:?\d\d)$")
_SMALLEST_EPOCH = 100_000_000  # 1973 in seconds; smaller integers are row numbers or yyyymmdd
_EPOCHS = ((10**11, 10**9), (10**14, 10**6), (10**17, 10**3), (2**63 - 1, 1))


def find_stamps(frame: pd.DataFrame, *, name: str) -> tuple[Stamps, str | None] | Defect:
    index = frame.index
    if isinstance(index, pd.DatetimeIndex) or index.name in TIME_NAMES:
        return index, None
    found = [column for column in TIME_NAMES if column in frame.columns]
    if len(found) == 1:
        return frame[found[0]], found[0]
    if found:
        return Defect(f"one column of times is needed, found {' and '.join(found)} ({name})")
    columns = ", ".join(map(str, frame.columns)) or "none"
    return Defect(
        f"one column of times is needed, found none among the columns {columns} ({name}); index "
        f"the frame by time, name a column one of {', '.join(TIME_NAMES)} (to_csv writes an index "
        "without a name: give it index_label='time'), or give columns={'time': 'NAME', 'open': "
        "...}"
    )


def to_utc(stamps: Stamps, *, name: str, timezone: str | None) -> IntArray | Defect:
    """Return stamps as int64 UTC nanoseconds of shape (n,).

    Stamps are times of any resolution, ISO 8601 texts, or whole epochs in s, ms, us or ns.
    ``timezone`` is the zone of stamps without one; epochs are always UTC.
    """
    kind = stamps.dtype.kind
    if kind in "iuf" and stamps.isna().any():
        rows = np.flatnonzero(stamps.isna())
        return _unreadable("empty", rows.size, int(rows[0]), name)
    if kind in "iu":
        return _from_epochs(stamps.to_numpy(dtype=np.int64), name=name)
    if kind == "f":
        return _from_floats(stamps.to_numpy(dtype=np.float64, na_value=np.nan), name=name)
    if kind == "M":
        return _from_times(pd.DatetimeIndex(stamps), name=name, timezone=timezone)
    return _from_texts(pd.Series(stamps.astype(str).to_numpy()), name=name, timezone=timezone)


def check_timezone(timezone: str | None) -> None:
    try:
        pd.Timestamp(0, tz=timezone)
    except (LookupError, ValueError, TypeError, OSError, OverflowError) as error:
        raise ParameterError(
            f"timezone must be the name of a zone ('Europe/Berlin'), got {repr_plain(timezone)}"
        ) from error


def _from_times(index: pd.DatetimeIndex, *, name: str, timezone: str | None) -> IntArray | Defect:
    if index.hasnans:
        rows = np.flatnonzero(index.isna())
        return _unreadable("NaT", rows.size, int(rows[0]), name)
    if index.tz is None and timezone is None:
        return _naive(str(index[0]) if len(index) else "none", name)
    try:
        aware = index.tz_localize(timezone) if index.tz is None else index
        return np.asarray(aware.as_unit("ns").asi8, dtype=np.int64).copy()
    except (ValueError, OverflowError) as error:  # a clock change, or outside 1678 to 2261
        return Defect(
            f"stamps must be moments that UTC nanoseconds can hold, got "
            f"{' '.join(str(error).split())[:120]} ({name}); write the stamps in UTC"
        )


def _from_epochs(epochs: IntArray, *, name: str) -> IntArray | Defect:
    if not epochs.size:
        return epochs
    low, high = int(epochs.min()), int(epochs.max())
    if low < _SMALLEST_EPOCH:
        return Defect(
            f"whole numbers as stamps must be epochs in s, ms, us or ns, got {low} "
            f"({name}, row {int(epochs.argmin())}); write times as 2021-05-19T12:00Z"
        )
    if _factor(low) != _factor(high):
        row = int(np.flatnonzero(_factors(epochs) != _factor(int(epochs[0])))[0])
        return Defect(
            f"epochs must all be in one unit, were {int(epochs[0])} and {int(epochs[row])} "
            f"({name}, row {row}); some venues went from ms to us within a file"
        )
    return epochs * _factor(low)


def _from_floats(values: FloatArray, *, name: str) -> IntArray | Defect:
    whole = np.isfinite(values) & (values == np.trunc(values)) & (np.abs(values) < 2**53)
    if whole.all():
        return _from_epochs(values.astype(np.int64), name=name)
    row = int(np.flatnonzero(~whole)[0])
    return _unreadable(f"{values[row]}", int((~whole).sum()), row, name)


def _from_texts(texts: pd.Series, *, name: str, timezone: str | None) -> IntArray | Defect:
    if len(texts) and texts.notna().all() and texts.str.fullmatch(r"\d{1,19}").all():
        return _from_epochs(texts.to_numpy(dtype=np.int64), name=name)
    parsed = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    if parsed.isna().any():
        row = int(np.flatnonzero(parsed.isna())[0])
        return _unreadable(repr(texts.iloc[row]), int(parsed.isna().sum()), row, name)
    tails = texts.str[-6:]
    zones = tails.map({tail: _zone(tail) for tail in tails.unique()})
    if zones.nunique() > 1:
        row = int(np.flatnonzero(zones != zones.iloc[0])[0])
        return Defect(
            f"stamps must all be in one zone, were {texts.iloc[0]!r} and {texts.iloc[row]!r} "
            f"({name}, row {row}); write them all in UTC, ending in Z"
        )
    if len(zones) and zones.iloc[0] == "no zone":
        naive = pd.DatetimeIndex(parsed).tz_localize(None)
        return _from_times(naive, name=name, timezone=timezone)
    return _from_times(pd.DatetimeIndex(parsed), name=name, timezone=timezone)


def _zone(tail: str) -> str:
    match = _ZONE.search(tail)
    return match[1] if match else "no zone"


def _factor(epoch: int) -> int:
    return next(factor for bound, factor in _EPOCHS if epoch <= bound)


def _factors(epochs: IntArray) -> IntArray:
    bounds = np.array([bound for bound, _ in _EPOCHS])
    return np.array([factor for _, factor in _EPOCHS])[np.searchsorted(bounds, epochs)]


def _unreadable(value: str, count: int, row: int, name: str) -> Defect:
    rows = f"{count} row{'s' if count > 1 else ''}"
    return Defect(
        f"every row needs a readable time, got {value} in {rows} ({name}, row {row}); "
        "write it as 2021-05-19T12:00Z, or drop the row"
    )


def _naive(value: str, name: str) -> Defect:
    return Defect(
        f"{NAIVE}, got {value} ({name}, row 0); timezone='UTC', or the zone they were written in"
    )
