"""The ledger of a report: one line per event with its cost; rare events are kept first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base import FloatArray, IntArray, format_price
from backtest.report.page.page import SearchTable, Table, name_columns

if TYPE_CHECKING:
    from backtest.engine import Result

COSTS = ("fee", "slippage", "impact", "liquidation_loss")
COMMON = ("fill", "funding", "interest")
RATIOS = ("margin_call", "call_met", "call_partly_met", "call_failed")
MOST_ROWS = 2000


def choose_rows(events: pd.DataFrame, most: int = MOST_ROWS) -> IntArray:
    kind = events["kind"].astype(str)
    rows = events[~kind.isin(COSTS)]
    if len(rows) <= most:
        return rows.index.to_numpy(dtype=np.int64)
    place = rows["amount"].abs().groupby(kind.loc[rows.index]).rank(method="first", ascending=False)
    is_common = kind.loc[rows.index].isin(COMMON)
    order = np.lexsort((place.to_numpy(), is_common.to_numpy()))
    return np.sort(rows.index.to_numpy(dtype=np.int64)[order[:most]])


def add_costs(events: pd.DataFrame) -> FloatArray:
    is_cost = events["kind"].isin(COSTS).to_numpy()
    owner = np.maximum.accumulate(np.where(is_cost, -1, np.arange(len(events))))
    owner, n = np.maximum(owner, 0), len(events)
    paid = np.bincount(owner, weights=np.where(is_cost, events["amount"], 0.0), minlength=n)
    has_cost = np.bincount(owner, weights=is_cost, minlength=n) > 0.0
    return np.where(has_cost, paid, np.nan)


def build_ledger(result: Result, rows: IntArray) -> SearchTable:
    events = result.events
    shown = events.loc[rows].assign(cost=add_costs(events)[rows])
    total = int((~events["kind"].isin(COSTS)).sum())
    of = ["instrument"] if "instrument" in events else []
    columns = name_columns(
        ("time", "UTC"), "event", *of, "price", ("quantity", "contracts"), ("amount", "money"),
        ("cost", "money"), text=["event", *of],
    )  # fmt: skip
    texts = tuple(map(write_row, shown.to_dict("records")))
    table = Table("Events", columns, texts, note=describe_ledger(len(rows), total))
    kinds = shown["kind"].astype(str).unique()
    return SearchTable(table, tuple(sorted(kind.replace("_", " ") for kind in kinds)))


def write_row(event: Mapping[Any, Any]) -> tuple[str, ...]:
    price, quantity, amount, cost = (event[x] for x in ("price", "quantity", "amount", "cost"))
    kind = str(event["kind"])
    return (
        f"{event['time']:%Y-%m-%d %H:%M}",
        kind.replace("_", " "),
        *([str(event["instrument"])] if "instrument" in event else []),
        "" if np.isnan(price) else format_price(price),
        "" if quantity == 0.0 or np.isnan(quantity) else f"{quantity:+,.6g}",
        f"{amount:.1%}" if kind in RATIOS else f"{amount:,.2f}",
        "" if np.isnan(cost) else f"{cost:,.2f}",
    )


def describe_ledger(shown: int, total: int) -> str:
    what = (
        "The time is the open of the bar in which it happened. The amount of a trade is its "
        "notional, of a margin call and its end the margin ratio; funding above 0 is paid. The "
        "cost of a trade "
        "is its fee, slippage and impact, of a liquidation its loss beyond the price move."
    )
    if shown == total:
        return f"All {total:,} events. {what}"
    return (
        f"{shown:,} of {total:,} events: every liquidation, stop, call and flow that fits, and the "
        f"largest fills and payments. All of them are in result.events. {what}"
    )
