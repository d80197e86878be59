"""Conventions of time, sign and unit, and the conversions between them.

Time is UTC, int64 nanoseconds since 1970. A bar is named by its open time and spans
``[open, open + interval)``. The policy sees bar t at its close; what it decides trades at the
open of bar t + 1. Money is in the settlement currency: quote for linear contracts, the coin for
inverse ones. Costs are positive and subtracted. Quantities are signed contracts, longs positive.
Rates are fractions per stated period; ``leverage`` is signed notional over equity.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from backtest.core.code_names import pd
from backtest.core.errors import ParameterError
from backtest.core.json_values import repr_plain

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Numbers: TypeAlias = float | FloatArray
Price: TypeAlias = float
Value: TypeAlias = float
"""The value u of a contract, see docs/accounting.md, section 1."""
Notional: TypeAlias = float
Contracts: TypeAlias = float
"""A number of contracts, with a sign where it is held or traded."""
Rate: TypeAlias = float
"""A fee, a requirement or interest as a fraction of a notional or an amount."""
Progress: TypeAlias = Callable[[int, int], None]
"""Called with what is done, and with all that is to do."""
TimeLike: TypeAlias = str | dt.datetime | np.datetime64
TIMES = (str, dt.date, np.datetime64, int, np.integer)
"""Types that are read as times; whole numbers are nanoseconds."""

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
YEAR_DAYS = 365.0

TOLERANCE = 1e-12
"""Relative tolerance of every comparison that decides an event, in favor of the event."""

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_SUFFIXES = {"s": SECOND, "m": MINUTE, "min": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_DURATION = re.compile(r"(\d+)\s*(s|m|min|h|d|w|H|D|W)")


def parse_duration(text: str, name: str = "a duration") -> int:
    """Return a duration such as ``"1h"`` or ``"8h"`` in nanoseconds."""
    match = None
    if isinstance(text, str):
        match = _DURATION.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise ParameterError(
            f"{name} must be a duration such as '60s', '5m', '1h', '1d' or '1w', "
            f"got {repr_plain(text)}"
        )
    return int(match[1]) * _SUFFIXES[match[2].lower()]


def format_duration(nanoseconds: int) -> str:
    """Return nanoseconds as the shortest text that :func:`parse_duration` reads back."""
    for suffix in ("w", "d", "h", "m", "s"):
        if nanoseconds % _SUFFIXES[suffix] == 0 and nanoseconds:
            return f"{nanoseconds // _SUFFIXES[suffix]}{suffix}"
    return f"{nanoseconds / SECOND:g}s"


def format_time(nanoseconds: int) -> str:
    """Return UTC nanoseconds as text, without a time of day at midnight."""
    stamp = EPOCH + dt.timedelta(seconds=nanoseconds // SECOND)
    if nanoseconds % DAY == 0:
        return f"{stamp:%Y-%m-%d}"
    if nanoseconds % MINUTE == 0:
        return f"{stamp:%Y-%m-%d %H:%M}"
    return f"{stamp:%Y-%m-%d %H:%M:%S}"


def utc_index(nanoseconds: IntArray) -> pd.DatetimeIndex:
    """Return int64 UTC nanoseconds of shape (n,) as an index named ``time``."""
    return pd.DatetimeIndex(nanoseconds.view("datetime64[ns]"), tz="UTC", name="time")


def report_progress(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
