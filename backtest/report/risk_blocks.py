"""What pages of risk, capacity and pockets share: notices, tables, assumptions, axes of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pandas as pd

from backtest.base.json_values import from_plain
from backtest.base.number_text import format_money, format_setting
from backtest.base.table_text import YEARLY, format_cell
from backtest.base.units import format_duration
from backtest.paths.funding_process import summarize_funding
from backtest.paths.path_model import describe_drift
from backtest.paths.risk_record import RiskRecord
from backtest.report.basis.assumptions import (
    build_pair_table,
    describe_data,
    describe_settings,
    describe_venue,
)
from backtest.report.page.figures import to_datetimes
from backtest.report.page.page import SYNTHETIC, Block, Section, Table, name_columns

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


def list_assumptions(found: RiskRecord) -> list[Section]:
    """Return the sections on the data, and on how paths are drawn and what the rules are."""
    settings = found.manifest["settings"]
    drawn, venue = settings["paths"], settings["venue"]
    models = {"": drawn} if "model" in drawn else drawn
    venues = {"": venue} if "contract" in venue else venue
    blocks: list[Block] = [
        *(build_pair_table(f"Paths{f' of {name}' if name else ''}", describe_paths(each))
          for name, each in models.items()),
        *(build_pair_table(f"Venue rules{f', {name}' if name else ''}", describe_venue(rules))
          for name, rules in venues.items()),
        build_pair_table("Account", describe_account(settings)),
    ]  # fmt: skip
    data = build_pair_table("", describe_data(found.manifest["data"]))
    lead = "How paths are drawn, and the rules of the account."
    return [
        Section("data", "Data", "The history that the paths continue.", [data]),
        Section("assumptions", "Assumptions", lead, blocks),
    ]


def describe_paths(paths: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield how paths are drawn."""
    model = paths["model"]
    yield "model", str(model["name"])
    of_each = model.get("instruments", {"": model})
    for name, own in of_each.items():
        words = (f"{key.replace('_', ' ')} {write_parameter(value)}"
                 for key, value in own.items() if key not in ("name", "class"))  # fmt: skip
        yield f"parameters{f' of {name}' if name else ''}", ", ".join(words)
    yield "paths", f"{paths['paths']:,} of {format_duration(paths['horizon'])}"
    if "drift" in paths:
        yield "drift", describe_drift(paths)
    yield "start", f"{paths['start']} UTC"
    yield "seed", str(paths["seed"])
    for line in summarize_funding(paths.get("funding_fit", {})):
        name, _, text = line.partition(": ")
        yield name, text
    if paths.get("correlation"):
        rows = "; ".join(", ".join(f"{x:.3f}" for x in row) for row in paths["correlation"])
        yield "correlation of instruments", rows


def write_parameter(value: object) -> str:
    """Return a parameter of a model to four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else format_setting(value)


def describe_account(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the policy, the signal, and what is known of the account."""
    yield "policy", str(settings["policy"])
    if settings.get("overlay"):
        yield "overlay", str(settings["overlay"])
    default = "as in the result" if settings.get("resumed") else "long"
    yield "signal", default if settings["signal"] is None else str(settings["signal"])
    if "resumed" in settings:
        begins = settings["resumed"]
        yield "begins", f"where result {begins} ended" if begins else "new, without a position"
    if "start" in settings:
        yield "money at the start", format_money(settings["start"])
    yield from describe_settings(settings.get("account", {}))
