"""Blocks that pages of risk, capacity and pockets share: notices, tables, axes of time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pandas as pd

from backtest.base.json_values import from_plain
from backtest.base.table_text import YEARLY, format_cell
from backtest.paths.risk_record import RiskRecord
from backtest.report.page.figures import to_datetimes
from backtest.report.page.page import SYNTHETIC, Table, name_columns

DATES = {"showgrid": False, "type": "date"}
"""An axis of time."""


def describe_source(found: RiskRecord) -> dict[str, Any]:
    """Return what a page needs of a manifest: settings, the id, and the data."""
    data = dict(found.manifest["data"])
    return {**found.settings, "id": found.manifest["id"],
            "data": {**data, "interval": data["interval"] or "unknown"}}  # fmt: skip


def list_notices(manifest: Mapping[str, Any]) -> list[str]:
    """Return what must be read before any number."""
    no_fill = manifest.get("no_fill")
    found = [f"No order was filled on any path: {no_fill}."] if no_fill else []
    found += [f"The account did not hold what was found, {each}." for each in
              manifest.get("cautions", ())]  # fmt: skip
    return [*found, SYNTHETIC] if manifest["data"]["synthetic"] else found


def write_number(value: float) -> str:
    """Return a number in four digits, and without decimals from 1,000 on."""
    return f"{value:,.0f}" if abs(value) >= 1000.0 else f"{value:.4g}"


def write_table(
    caption: str,
    frame: pd.DataFrame,
    note: str = "",
    formats: Mapping[str, Callable[[float], str]] = MappingProxyType({}),
) -> Table:
    """Return a frame as a table of the page; ``formats`` are those of columns by name.

    The heads of ``YEARLY`` have a unit.
    """
    names = [str(name).replace("_", " ") for name in frame.columns]
    head = str(frame.index.name or "").replace("_", " ")
    words = {
        name for name, column in zip(names, frame, strict=True) if frame[column].dtype == object
    }
    writers = [formats.get(str(name), write_number) for name in frame.columns]
    rows = tuple(
        (str(label), *(format_cell(*each) for each in zip(row, writers, strict=True)))
        for label, row in zip(frame.index, frame.itertuples(index=False), strict=True)
    )
    heads = [
        (name, "per year") if column in YEARLY else name
        for name, column in zip(names, frame, strict=True)
    ]
    return Table(caption, name_columns(head, *heads, text=words), rows, note)


def list_times(frame: pd.DataFrame) -> Any:
    """Return the times of a frame as an axis takes them."""
    return to_datetimes(pd.DatetimeIndex(frame.index).as_unit("ns").asi8)


def to_records(frame: pd.DataFrame) -> Any:
    """Return a frame as data for JSON."""
    return from_plain(frame.reset_index().to_dict("records"))
