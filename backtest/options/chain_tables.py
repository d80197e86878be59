"""Tables of option quotes, as exchanges and users write them, in one form and with forwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest.base import DataError, did_you_mean
from backtest.market import Defect, refuse, to_floats, to_utc

NUMBERS = ("bid", "ask", "mark", "iv", "forward", "index")
REQUIRED = ("time", "expiry", "strike", "kind", "bid", "ask")
COLUMNS = (
    "time", "underlying", "expiry", "strike", "kind", *NUMBERS, "forward_source", "quoted", "name",
)  # fmt: skip
SOURCES = ("future", "synthetic", "given", "parity", "index", "none")
SYNTHETIC = "SYN."
KINDS = {"call": "call", "put": "put", "c": "call", "p": "put"}


class Layout(NamedTuple):
    columns: Mapping[str, str]
    settlement: str


DERIBIT = Layout(
    {
        "timestamp": "time",
        "currency": "underlying",
        "expiry_datetime": "expiry",
        "strike": "strike",
        "option_type": "kind",
        "bid_price": "bid",
        "ask_price": "ask",
        "mark_price": "mark",
        "implied_volatility": "iv",
        "underlying": "forward",
        "index_price": "index",
        "futures_instrument_name": "future",
        "instrument_name": "name",
    },
    "coin",
)
PLAIN = Layout({name: name for name in (*COLUMNS, "future")}, "")


def read_table(frame: pd.DataFrame, *, where: str) -> tuple[pd.DataFrame, str]:
    layout = DERIBIT if {"instrument_name", "option_type"} <= {*frame.columns} else PLAIN
    known = {old: new for old, new in layout.columns.items() if old in frame.columns}
    renamed = frame[list(known)].rename(columns=known).reset_index(drop=True)
    missing = [name for name in REQUIRED if name not in renamed]
    if missing:
        found = [str(each) for each in frame.columns]
        raise DataError(
            f"a chain needs the columns {', '.join(missing)}, got {', '.join(found[:8])}"
            f"{did_you_mean(missing[0], found)} ({where})"
        )
    if not len(frame):
        raise DataError(f"a chain needs at least one row, got none ({where})")
    columns, defects = read_columns(renamed, where)
    refuse(defects, where=where)
    table = pd.DataFrame(columns)
    refuse(find_impossible(table, where), where=where)
    return complete(table), layout.settlement


def read_columns(frame: pd.DataFrame, where: str) -> tuple[dict[str, object], list[Defect]]:
    read: dict[str, object | Defect] = {}
    for name in ("time", "expiry", "quoted"):
        given = frame[name] if name in frame else frame["time"]
        stamps = to_utc(given, name=f"{where}, {name}", timezone="UTC")
        read[name] = stamps if isinstance(stamps, Defect) else pd.DatetimeIndex(stamps, tz="UTC")
    for name in ("strike", *NUMBERS):
        given = frame[name] if name in frame else pd.Series(np.nan, frame.index)
        read[name] = to_floats(given, column=name, name=where)
    read["kind"] = read_kinds(frame["kind"], where)
    for name in ("underlying", "name"):
        read[name] = frame[name].astype(str) if name in frame else ""
    future = frame.get("future")
    read["forward_source"] = "" if future is None else future.astype(object)
    if "forward_source" in frame:
        read["forward_source"] = frame["forward_source"].astype(str)
    defects = [each for each in read.values() if isinstance(each, Defect)]
    return dict(read), defects


def read_kinds(values: pd.Series, where: str) -> np.ndarray | Defect:
    kinds = values.astype(str).str.lower().map(KINDS)
    if kinds.isna().any():
        first = values[kinds.isna()].iloc[0]
        found = f"got {first!r} in {int(kinds.isna().sum())} of {len(values)} rows"
        return Defect(f"kind must be call or put, {found} ({where})")
    return kinds.to_numpy(dtype=str)


def find_impossible(table: pd.DataFrame, where: str) -> list[Defect]:
    rules = {
        "strike must be positive": ~(table["strike"] > 0.0),
        "a forward must be positive": table["forward"] <= 0.0,
        "an index must be positive": table["index"] <= 0.0,
        "prices must not be negative": (table[["bid", "ask", "mark"]] < 0.0).any(axis=1),
        "volatility must be finite and not negative": (table["iv"] < 0.0) | np.isinf(table["iv"]),
        "prices must be finite": np.isinf(table[["bid", "ask", "mark", "forward"]]).any(axis=1),
    }
    return [
        Defect(
            f"{rule}, got {table.loc[bad].iloc[0][['strike', *NUMBERS]].to_dict()} in "
            f"{int(bad.sum())} of {len(table)} rows "
            f"({where}, row {int(np.flatnonzero(bad)[0]) + 1})"
        )
        for rule, bad in rules.items()
        if bad.any()
    ]


def complete(table: pd.DataFrame) -> pd.DataFrame:
    for name in ("bid", "ask"):
        table[name] = table[name].where(table[name] > 0.0)
    source = table["forward_source"]
    named: object
    if source.isin(SOURCES).all():
        named = source
    elif (source == "").all():
        named = np.where(table["forward"].notna(), "given", "none")
    else:
        is_synthetic = source.astype(str).str.startswith(SYNTHETIC)
        known = np.where(is_synthetic, "synthetic", "future")
        named = np.where(source.notna() & table["forward"].notna(), known, "none")
    table["forward_source"] = named
    table["name"] = np.where(table["name"] == "", write_names(table), table["name"])
    keys = ["time", "underlying", "expiry", "strike", "kind"]
    return table[list(COLUMNS)].sort_values(keys, kind="stable", ignore_index=True)


def write_names(table: pd.DataFrame) -> pd.Series:
    day = table["expiry"].dt.strftime("%d%b%y").str.upper().str.lstrip("0")
    letter = table["kind"].str[0].str.upper()
    head = table["underlying"].where(table["underlying"] != "", "OPTION")
    strike = table["strike"].map("{:g}".format)
    parts = zip(head, day, strike, letter, strict=True)
    return pd.Series(["-".join(each) for each in parts], table.index)


# ------------------------------------------------------------------ forwards by put-call parity

NEAREST = 3
"""Strikes nearest the money whose parities are averaged by their median."""


def fill_forwards(table: pd.DataFrame, settlement: str) -> pd.DataFrame:
    filled = table.copy()
    for _, rows in table.groupby(["time", "underlying", "expiry"], sort=False):
        without = rows.index[rows["forward_source"] == "none"]
        if without.empty:
            continue
        forward, source = find_parity(rows, settlement), "parity"
        if np.isnan(forward):
            forward, source = float(rows.loc[without, "index"].median()), "index"
        if np.isnan(forward):
            source = "none"
        filled.loc[without, "forward"] = forward
        filled.loc[without, "forward_source"] = source
    return filled


def find_parity(rows: pd.DataFrame, settlement: str) -> float:
    """Return the forward at which calls less puts of one expiry agree, NaN without a pair.

    In cash ``C - P = F - K``, undiscounted; in coins ``C - P = 1 - K / F``.
    """
    mid = (0.5 * (rows["bid"] + rows["ask"])).to_numpy()
    pairs = pd.DataFrame({"strike": rows["strike"], "kind": rows["kind"], "mid": mid})
    wide = pairs.pivot_table(index="strike", columns="kind", values="mid", aggfunc="first")
    if not {"call", "put"} <= {*wide.columns}:
        return float("nan")
    difference = (wide["call"] - wide["put"]).dropna()
    nearest = np.argsort(difference.abs().to_numpy(), kind="stable")[:NEAREST]
    difference = difference.iloc[nearest]
    if difference.empty:
        return float("nan")
    strikes = difference.index.to_numpy(dtype=np.float64)
    values = difference.to_numpy()
    if settlement == "coin":
        strikes, values = strikes[values < 1.0], values[values < 1.0]
        forwards = strikes / (1.0 - values)
    else:
        forwards = (strikes + values)[strikes + values > 0.0]
    return float(np.median(forwards)) if forwards.size else float("nan")
