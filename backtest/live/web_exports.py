"""Fills in the files that the web sites of Binance, Bybit and OKX export."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pandas as pd

CLOCK_FIRST = re.compile(r"(\d\d:\d\d(?::\d\d)?) (\d{4}-\d\d-\d\d)")
SHORT_YEAR = re.compile(r"^(\d\d-\d\d-\d\d) ")
DAY_FIRST = re.compile(r"^(\d\d)/(\d\d)/(\d{4}) ")
ZONE = re.compile(r"\(?(?:UTC|GMT)\s*([+-]\d{1,2})?(?::?(\d\d))?\)?")
AMOUNT = re.compile(r"([-+]?[\d.]+(?:e[-+]?\d+)?)\s*([A-Z][A-Z0-9]*)?")
OKX_FIRST = re.compile(r"UID.*Time Zone:\s*([^,]+)")
SIDES = {
    "buy": 1.0, "open long": 1.0, "close short": 1.0,
    "sell": -1.0, "open short": -1.0, "close long": -1.0,
}  # fmt: skip
NO_FILLS = {"", "funding", "funding fee", "settlement", "transfer", "transfer in", "transfer out"}
KINDS = {
    "trade": "order", "adltrade": "order", "adl": "order", "liquidation": "liquidation",
    "busttrade": "takeover", "delivery": "expiry", "settle": "expiry",
}  # fmt: skip


def read_rows(text: str) -> pd.DataFrame:
    plain = text.replace("\ufeff", "")
    first, _, rest = plain.partition("\n")
    if not first.startswith("UID:"):
        return pd.read_csv(io.StringIO(plain))
    table = pd.read_csv(io.StringIO(rest))
    zone = OKX_FIRST.match(first)
    return table if zone is None else table.rename(columns={"Time": f"Time({zone[1].strip()})"})


def read_binance_web(table: pd.DataFrame) -> dict[str, Any]:
    fees = [split_amount(each) for each in table["Fee"].astype(str)]
    coins = table["Quote Asset"] if "Quote Asset" in table else [coin for _, coin in fees]
    return {
        "time": find_times(table, "Date", "Time"),
        "instrument": table["Symbol"],
        "quantity": read_numbers(table["Quantity"]) * sign_words(table["Side"]),
        "price": read_numbers(table["Price"]),
        "fee": [amount for amount, _ in fees],
        "fee_currency": coins,
    }


def read_bybit_web(table: pd.DataFrame) -> dict[str, Any]:
    return {
        "time": find_times(table, "Transaction Time"),
        "instrument": table["Contracts"],
        "quantity": read_numbers(table["Filled Qty"]) * sign_words(table["Direction"]),
        "price": read_numbers(table["Filled Price"]),
        "fee": read_numbers(table["Fees Paid"]),
        "kind": name_kinds(table["Filled Type"]),
    }


def read_bybit_log(table: pd.DataFrame) -> dict[str, Any]:
    return {
        "time": find_times(table, "Time"),
        "instrument": table["Contract"],
        "quantity": read_numbers(table["Quantity"]).abs() * sign_words(table["Direction"]),
        "price": read_numbers(table["Filled Price"]),
        "fee": -read_numbers(table["Fee Paid"]),
        "fee_currency": table["Currency"],
        "kind": name_kinds(table["Type"]),
    }


def read_okx_web(table: pd.DataFrame) -> dict[str, Any]:
    if (table["Trade Type"].astype(str).str.lower() == "spot").any():
        raise ValueError("spot trades have a row for each coin: leave them out")
    actions = table["Action"].astype(str).str.lower()
    is_forced = actions.str.contains("liquidat")
    ends = actions.str.contains("deliver|expir")
    closes = actions.where(~(is_forced | ends), "close " + actions.str.extract("(long|short)")[0])
    kind = np.where(is_forced, "liquidation", np.where(ends, "expiry", "order"))
    return {
        "time": find_times(table, "Time"),
        "instrument": table["Symbol"],
        "quantity": read_numbers(table["Amount"]) * sign_words(closes),
        "price": read_numbers(table["Filled Price"]),
        "fee": -read_numbers(table["Fee"]),
        "fee_currency": table["Fee Unit"],
        "kind": kind,
    }


def keep_fills(table: pd.DataFrame, column: str) -> pd.DataFrame:
    words = table[column].fillna("").astype(str).str.strip().str.lower()
    return table[~words.isin(NO_FILLS) & ~words.str.startswith("transfer")]


def find_times(table: pd.DataFrame, *stems: str) -> pd.Series:
    found = [str(each) for each in table if str(each).partition("(")[0].strip() in stems]
    if not found:
        raise KeyError(f"no column {' or '.join(stems)}")
    texts = table[found[0]].astype(str).str.strip()
    texts = texts.str.replace(CLOCK_FIRST, r"\2 \1", regex=True)
    texts = texts.str.replace(SHORT_YEAR, r"20\1 ", regex=True)
    texts = texts.str.replace(DAY_FIRST, r"\3-\2-\1 ", regex=True)
    local = pd.to_datetime(texts, format="ISO8601")
    return (local - find_offset(found[0])).dt.tz_localize("UTC").astype("datetime64[ns, UTC]")


def find_offset(head: str) -> pd.Timedelta:
    _, bracket, zone = head.partition("(")
    named = ZONE.fullmatch(zone.rstrip(")").strip()) if bracket else None
    if bracket and named is None:
        raise ValueError(f"a time zone must be UTC or UTC+8, got {zone.rstrip(')')!r}")
    hours = int(named[1] or 0) if named else 0
    minutes = int(named[2] or 0) if named else 0
    return pd.Timedelta(hours=hours, minutes=minutes if hours >= 0 else -minutes)


def split_amount(text: str) -> tuple[float, str]:
    found = AMOUNT.fullmatch(text.strip().replace(",", ""))
    if found is None:
        raise ValueError(f"a fee must be an amount, got {text!r}")
    return float(found[1]), found[2] or ""


def read_numbers(values: pd.Series) -> pd.Series:
    return values.astype(str).str.replace(",", "").astype(np.float64)


def sign_words(words: pd.Series) -> pd.Series:
    found = words.astype(str).str.strip().str.lower().map(SIDES)
    if found.isna().any():
        known = ", ".join(SIDES)
        raise ValueError(f"a side must be one of {known}, got {words[found.isna()].iloc[0]!r}")
    return found


def name_kinds(words: pd.Series) -> pd.Series:
    found = words.astype(str).str.strip().str.lower().map(KINDS)
    if found.isna().any():
        known = ", ".join(KINDS)
        raise ValueError(f"a row must be one of {known}, got {words[found.isna()].iloc[0]!r}")
    return found
