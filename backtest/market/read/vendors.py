"""Column names of venues and tools, renamed to those that the rest of the package reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from backtest.base import did_you_mean
from backtest.market.tables.defects import Defect
from backtest.market.tables.timed_table import PRICES
from backtest.market.tables.times import TIME_NAMES

TIME_ALIASES = ("unix", "unix_timestamp", "calc_time", "transact_time", "fundingtime")

_KLINES = ("open_time", *PRICES, "volume", "close_time", "quote_volume", "count",
           "taker_buy_volume", "taker_buy_quote_volume", "ignore")  # fmt: skip
_HEADLESS = {
    ("bars", 12): _KLINES,
    ("mark", 12): _KLINES,
    ("bars", 6): ("time", *PRICES, "volume"),
    ("mark", 6): ("time", *PRICES, "volume"),
    ("mark", 5): ("time", *PRICES),
    ("bars", 7): ("agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id",
                  "transact_time", "is_buyer_maker"),
    ("bars", 8): ("agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id",
                  "transact_time", "is_buyer_maker", "is_best_match"),
    ("funding", 3): ("calc_time", "funding_interval_hours", "last_funding_rate"),
    ("funding", 6): ("time", "open", "high", "low", "close", "volume"),
}  # fmt: skip
_HOUR_OF_OLD_FILES = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d)-([AP]M)")


class _Dialect(NamedTuple):
    marks: frozenset[str]
    names: Mapping[str, str]
    drops: str = ".*"


_OF_KLINES = "close_time|quote_.*|count|number_of_trades|taker_buy_.*|ignore"
_OF_CDD = "date|symbol|volume_.*|trade_?count"
_SIZES = {"quantity": "size", "qty": "size", "amount": "size"}
_DIALECTS = (
    _Dialect(frozenset({"open_time", "close_time", "ignore"}), {"open_time": "time"}, _OF_KLINES),
    _Dialect(
        frozenset({"calc_time", "last_funding_rate"}),
        {"calc_time": "time", "last_funding_rate": "rate", "mark_price": "mark"},
    ),
    _Dialect(
        frozenset({"fundingtime", "fundingrate"}),
        {"fundingtime": "time", "fundingrate": "rate", "markprice": "mark"},
    ),
    _Dialect(
        frozenset({"timestamp", "fundingrate"}),
        {"timestamp": "time", "fundingrate": "rate", "markprice": "mark"},
    ),
    _Dialect(frozenset({"unix", "date", "symbol", *PRICES}), {"unix": "time"}, _OF_CDD),
    _Dialect(
        frozenset({"unix_timestamp", "date", "symbol", *PRICES}),
        {"unix_timestamp": "time"},
        _OF_CDD,
    ),
    _Dialect(frozenset({"date", "symbol", *PRICES}), {"date": "time"}, _OF_CDD),
    _Dialect(
        frozenset({"price", "quantity", "transact_time"}),
        {"transact_time": "time", "price": "price", **_SIZES},
    ),
    _Dialect(frozenset({"price", "qty", "time"}), {"time": "time", "price": "price", **_SIZES}),
)
_EXTRAS = ("dividends", "stock_splits", "capital_gains")


def rename_columns(
    frame: pd.DataFrame, role: str, chosen: Mapping[str, str], symbol: str, *, where: str
) -> pd.DataFrame | Defect:
    if frame.empty:
        return frame
    if isinstance(frame.columns, pd.MultiIndex):
        single = _one_level(frame, symbol, where)
        if isinstance(single, Defect):
            return single
        frame = single
    if chosen:
        return _choose(frame, chosen, where)
    if frame.columns.tolist() == [str(number) for number in range(frame.shape[1])]:
        named = _name_headless(frame, role, where)
        if isinstance(named, Defect):
            return named
        frame = named
    return _translate(frame)


def _choose(frame: pd.DataFrame, chosen: Mapping[str, str], where: str) -> pd.DataFrame | Defect:
    known = list(map(str, frame.columns))
    taken = {}
    for ours, theirs in chosen.items():
        if theirs in known:
            taken[ours] = frame.iloc[:, known.index(theirs)]
        elif theirs.isdigit() and int(theirs) < len(known):
            taken[ours] = frame.iloc[:, int(theirs)]
        elif frame.index.name == theirs:
            taken[ours] = frame.index.to_series()
        else:
            return Defect(
                f"the column for {ours!r} must be in the file, {theirs!r} is "
                f"not{did_you_mean(theirs, known)} ({where}); choose among "
                f"{', '.join(known[:12])}, or a position from 0"
            )
    # a column of times under our name, or the index that the frame has already
    return pd.DataFrame({name: values.array for name, values in taken.items()},
                        index=None if "time" in taken else frame.index)  # fmt: skip


def _one_level(frame: pd.DataFrame, symbol: str, where: str) -> pd.DataFrame | Defect:
    levels = [
        {str(name).lower() for name in frame.columns.get_level_values(level)}
        for level in range(frame.columns.nlevels)
    ]
    fields = next((n for n, names in enumerate(levels) if {*PRICES} <= names), None)
    if fields is None or len(levels) != 2:
        return Defect(
            "of two levels of names one must hold open, high, low and close, found "
            f"{len(levels)} levels ({where})"
        )
    other = frame.columns.get_level_values(1 - fields)
    symbols = sorted({str(name) for name in other})
    if symbol in symbols:
        wanted = symbol
    elif len(symbols) == 1:
        wanted = symbols[0]
    else:
        return Defect(
            f"one instrument is loaded at a time, found {', '.join(symbols[:10])} ({where}); "
            f"instrument={symbols[0]!r}"
        )
    single = frame.loc[:, other.map(str) == wanted]
    return single.set_axis(single.columns.get_level_values(fields), axis=1)


def _name_headless(frame: pd.DataFrame, role: str, where: str) -> pd.DataFrame | Defect:
    names = _HEADLESS.get((role, frame.shape[1]))
    if names is None:
        return Defect(
            f"a table of {role} without a header must have a known number of columns, found "
            f"{frame.shape[1]} columns ({where}); write a header, or give columns="
            "{'time': 0, 'open': 1, ...}"
        )
    return frame.set_axis(list(names), axis=1)


def _translate(frame: pd.DataFrame) -> pd.DataFrame:
    plain = _plain_names(frame)
    known = {*plain.columns}
    for dialect in _DIALECTS:
        is_trades = "price" in dialect.marks
        if dialect.marks <= known and not (is_trades and "open" in known):
            return _apply_dialect(plain, dialect)
    if {"open", "close"} <= {*map(str, frame.columns)} or "open" not in known:
        return frame
    times = [name for name in TIME_NAMES if name in known]
    dates = [name for name, kind in plain.dtypes.items() if kind.kind == "M" and name not in times]
    left_out = {*_EXTRAS, *times[1:], *dates}
    index = re.sub(r"\W+", "_", str(frame.index.name or "").strip().lower())
    named = plain.rename_axis(index=index or None)
    return named[[name for name in plain.columns if name not in left_out]]


def _plain_names(frame: pd.DataFrame) -> pd.DataFrame:
    names = [re.sub(r"\W+", "_", str(name).strip().lower()) for name in frame.columns]
    volumes = [number for number, name in enumerate(names) if name.startswith("volume_")]
    if volumes and "volume" not in names:
        names[volumes[0]] = "volume"  # CryptoDataDownload: first in coins, then in money
    return frame.set_axis(names, axis=1)


def _apply_dialect(frame: pd.DataFrame, dialect: _Dialect) -> pd.DataFrame:
    drops = re.compile(dialect.drops)
    kept = [name for name in frame if name in dialect.names or not drops.fullmatch(str(name))]
    taken = frame[kept].rename(columns=dict(dialect.names))
    times = taken["time"]
    if times.dtype.kind in "OUT" and times.astype(str).str.fullmatch(_HOUR_OF_OLD_FILES).all():
        return taken.assign(time=times.astype(str).map(_convert_hour))
    return taken


def _convert_hour(text: str) -> str:
    day, hour, half = _HOUR_OF_OLD_FILES.fullmatch(text).groups()  # type: ignore[union-attr]
    return f"{day}T{int(hour) % 12 + 12 * (half == 'PM'):02}:00"
