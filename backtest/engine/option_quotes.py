"""The rows of one contract in a chain, and its spread in volatility."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base.units import FloatArray, IntArray
from backtest.options.chain import Chain
from backtest.venue.option_contract import Option

CACHE = "_implied_rows"


class QuoteRows(NamedTuple):
    """The rows of a contract by time: its marks, quotes and volatilities of the mark.

    ``spread_times`` and ``half_spreads`` are those of its two-sided quotes, and of the nearest
    quoted contract in each snapshot without one.
    """

    stamps: IntArray
    bid: FloatArray
    ask: FloatArray
    mark: FloatArray
    volatility: FloatArray
    spread_times: IntArray
    half_spreads: FloatArray

    def find(self, times: IntArray, side: Any, age: int) -> IntArray:
        """Return the last row known at each time that is not older than ``age`` ns, else -1."""
        rows = np.searchsorted(self.stamps, times, side=side) - 1
        if not len(self.stamps):
            return rows
        is_young = times - self.stamps[np.maximum(rows, 0)] <= age
        return np.where((rows >= 0) & is_young, rows, -1)

    def pick(self, field: str, rows: IntArray) -> FloatArray:
        """Return a field of some rows, NaN for -1."""
        values = np.append(getattr(self, field), np.nan)
        return np.asarray(values[rows])

    def find_half_spreads(self, times: IntArray) -> FloatArray:
        """Return the last known half of the spread at each time, in volatility; else NaN."""
        rows = np.searchsorted(self.spread_times, times, side="right") - 1
        return np.asarray(np.append(self.half_spreads, np.nan)[rows])


def read_quote_rows(chain: Chain, option: Option) -> QuoteRows:
    """Return the rows of a contract in a chain."""
    rows = list_implied(chain)
    if len(chain.underlyings) > 1:
        rows = rows[rows["underlying"] == option.underlying]
    expiry = pd.Timestamp(str(option.expiry), tz="UTC")
    of_contract = (
        (rows["kind"] == option.kind)
        & (rows["strike"] == option.strike)
        & (rows["expiry"] == expiry)
    )
    own = rows[of_contract].drop_duplicates("time", keep="last")
    volatility = own["iv"].fillna(own["mark_iv"])
    times, halves = find_spreads(rows, own, option, expiry)
    return QuoteRows(
        stamps=read_stamps(own),
        bid=own["bid"].to_numpy(dtype=np.float64),
        ask=own["ask"].to_numpy(dtype=np.float64),
        mark=own["mark"].to_numpy(dtype=np.float64),
        volatility=volatility.to_numpy(dtype=np.float64),
        spread_times=times,
        half_spreads=halves,
    )


def list_implied(chain: Chain) -> pd.DataFrame:
    """Return the quotes of a chain with volatilities, computed once and kept with it."""
    kept = chain.__dict__.get(CACHE)
    if kept is None:
        kept = chain.implied()
        object.__setattr__(chain, CACHE, kept)
    found: pd.DataFrame = kept
    return found


def read_stamps(rows: pd.DataFrame) -> IntArray:
    """Return the times of rows, UTC ns."""
    return np.asarray(pd.DatetimeIndex(rows["time"]).as_unit("ns").asi8)


def find_spreads(
    rows: pd.DataFrame, own: pd.DataFrame, option: Option, expiry: pd.Timestamp
) -> tuple[IntArray, FloatArray]:
    """Return times and halves of the spread of a contract in volatility.

    Those of its own two-sided quotes; before the first of them those of the nearest quoted
    contract in each snapshot: the nearest expiry, then the nearest ln(K/F).
    """
    half = 0.5 * (own["ask_iv"] - own["bid_iv"])
    good = half.notna() & (half >= 0.0)
    times, halves = read_stamps(own[good]), half[good].to_numpy(dtype=np.float64)
    begin = times[0] if len(times) else np.iinfo(np.int64).max
    others = rows[read_stamps(rows) < begin]
    near_times, near_halves = find_nearest(others, option, expiry)
    return np.concatenate([near_times, times]), np.concatenate([near_halves, halves])


def find_nearest(
    rows: pd.DataFrame, option: Option, expiry: pd.Timestamp
) -> tuple[IntArray, FloatArray]:
    """Return times and halves of the spread of the nearest quoted contract in each snapshot."""
    half = 0.5 * (rows["ask_iv"] - rows["bid_iv"])
    quoted = rows.assign(half=half)[half.notna() & (half >= 0.0)]
    ranked = quoted.assign(
        days=(quoted["expiry"] - expiry).abs(),
        distance=np.abs(np.log(float(option.strike or 1.0) / quoted["strike"])),
    )
    ordered = ranked.sort_values(["time", "days", "distance", "strike", "kind"], kind="stable")
    first = ordered.drop_duplicates("time")
    return read_stamps(first), first["half"].to_numpy(dtype=np.float64)
