"""The bar loop: for each bar, update the account, check the books, ask the policy, record."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray

DONE, FULL, BROKEN, NEGATIVE = range(4)

IDENTITY_TOLERANCE = 1e-9
DAY_NS = 86_400_000_000_000.0


class Seen(NamedTuple):
    """The market as policies see it, arrays of shape (n_bars,); times in int64 ns."""

    time: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    mark: FloatArray
    volume: FloatArray
    interval: int
    start: int
    rows: IntArray


def count_days(seen: Seen, t: int) -> float:
    days: float = (seen.time[t] + seen.interval - seen.start) / DAY_NS
    return days
