"""The margin tables of many symbols of a venue in one CSV file beside its TOML file."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TIERS = "tiers"
COLUMNS = ("floor", "cap", "max_leverage", "maintenance_rate", "amount")


def read_tier_tables(path: Path, shared: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the groups of each symbol of a CSV file, with its margin tables by day.

    ``shared`` is the table ``[tiers]`` of the venue's TOML file.
    """
    sources = {each["date"]: each["source"] for each in shared["brackets"]}
    rest = {name: [table] for name, table in shared.items() if name not in ("title", "brackets")}
    found: dict[str, dict[str, Any]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        next(file)  # the header: symbol, date, and the columns
        for (symbol, date), rows in itertools.groupby(csv.reader(file), key=lambda row: row[:2]):
            table = {"date": date, "source": sources[date], "columns": [*COLUMNS]}
            table["rows"] = [[float(each) for each in row[2:]] for row in rows]
            title = shared["title"].format(symbol=symbol)
            groups = found.setdefault(symbol, {"title": title, **rest, "brackets": []})
            groups["brackets"].append(table)
    return found


def add_own_groups(listed: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the groups of a symbol: its own, and those listed for many. Tables add up by day."""
    tables = [*listed.get("brackets", []), *own.get("brackets", [])]
    by_day = {"brackets": sorted(tables, key=lambda each: str(each["date"]))} if tables else {}
    return {**listed, **own, **by_day}
