"""The rows of one contract in a chain, and its spread in volatility."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import FloatArray, IntArray
from backtest.options import Chain
from backtest.venue import Option

CACHE = "_implied_rows"


class QuoteRows(NamedTuple):
    stamps: IntArray
    bid: FloatArray
    ask: FloatArray
    mark: FloatArray
    volatility: FloatArray
    spreads: tuple[IntArray, FloatArray]
    price_spreads: tuple[IntArray, FloatArray]

    def find(self, times: IntArray, side: Any, age: int) -> IntArray:
        """Return the last row known at each time that is not older than ``age`` ns, else -1."""
        rows = np.searchsorted(self.stamps, times, side=side) - 1
        if not len(self.stamps):
            return rows
        is_young = times - self.stamps[np.maximum(rows, 0)] <= age
        return np.where((rows >= 0) & is_young, rows, -1)

    def pick(self, field: str, rows: IntArray) -> FloatArray:
        values = np.append(getattr(self, field), np.nan)
        return np.asarray(values[rows])

    def find_half_spreads(self, times: IntArray) -> FloatArray:
        return find_last(*self.spreads, times)

    def find_half_prices(self, times: IntArray) -> FloatArray:
        return find_last(*self.price_spreads, times)


def find_last(stamps: IntArray, values: FloatArray, times: IntArray) -> FloatArray:
    rows = np.searchsorted(stamps, times, side="right") - 1
    return np.asarray(np.append(values, np.nan)[rows])


def read_quote_rows(chain: Chain, option: Option) -> QuoteRows:
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
    _, begin = select_quoted(own, "half_spread")
    others = find_nearest(rows[rows["time"] < begin], option, expiry)
    return QuoteRows(
        stamps=read_stamps(own),
        bid=own["bid"].to_numpy(dtype=np.float64),
        ask=own["ask"].to_numpy(dtype=np.float64),
        mark=own["mark"].to_numpy(dtype=np.float64),
        volatility=volatility.to_numpy(dtype=np.float64),
        spreads=join_spreads("half_spread", own, others),
        price_spreads=join_spreads("half_price", own, others),
    )


def list_implied(chain: Chain) -> pd.DataFrame:
    kept = chain.__dict__.get(CACHE)
    if kept is None:
        kept = chain.implied()
        kept["half_spread"] = 0.5 * (kept["ask_iv"] - kept["bid_iv"])
        kept["half_price"] = 0.5 * (kept["ask"] - kept["bid"])
        object.__setattr__(chain, CACHE, kept)
    found: pd.DataFrame = kept
    return found


def read_stamps(rows: pd.DataFrame) -> IntArray:
    """Return the times of rows, UTC ns."""
    return np.asarray(pd.DatetimeIndex(rows["time"]).as_unit("ns").asi8)


def select_quoted(rows: pd.DataFrame, name: str) -> tuple[pd.DataFrame, pd.Timestamp]:
    known = rows[rows[name] >= 0.0]
    return known, known["time"].iloc[0] if len(known) else pd.Timestamp.max.tz_localize("UTC")


def join_spreads(name: str, own: pd.DataFrame, others: pd.DataFrame) -> tuple[IntArray, FloatArray]:
    known, begin = select_quoted(own, name)
    found = pd.concat([others[others["time"] < begin], known])
    return read_stamps(found), found[name].to_numpy(dtype=np.float64)


def find_nearest(rows: pd.DataFrame, option: Option, expiry: pd.Timestamp) -> pd.DataFrame:
    quoted = rows[rows["half_spread"] >= 0.0]
    ranked = quoted.assign(
        days=(quoted["expiry"] - expiry).abs(),
        distance=np.abs(np.log(float(option.strike or 1.0) / quoted["strike"])),
    )
    ordered = ranked.sort_values(["time", "days", "distance", "strike", "kind"], kind="stable")
    return ordered.drop_duplicates("time")
