"""The pages of all results of a store, and the list that leads to them.

The pages share the library of charts, a file beside them. The list sorts, filters, and lays two
results over each other, all in its own file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from backtest import core, results
from backtest.report import render
from backtest.report.page import write_measure
from backtest.report.policy_phrase import describe_call
from backtest.report.sparkline import HEIGHT, WIDTH, Curve, find_curve
from backtest.report.write import MAX_NOTE, build_page, showing
from backtest.results.listing import LEFTOVER, name_fault, name_kind
from backtest.results.measure_table import ABOUT

INDEX = "index.html"
PAGES = "pages"
"""The list, and the folder of the pages beside it."""
SHOWN = (
    "total_return",
    "cagr",
    "volatility",
    "sharpe",
    "max_drawdown",
    "liquidations",
)
"""Measures of the list; results without measures say in a note what came out."""
COMPARED = (*SHOWN, "calmar", "turnover", "fees", "funding", "final_equity")
"""Measures of two results that are laid over each other."""


def write_all(
    store: Path,
    folder: Path,
    objective: str = "sharpe",
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Return what the list shows; a result that cannot be read has a trouble and no page."""
    entries = [entry for entry in results.list_results(store) if entry.kind != LEFTOVER]
    if not entries:
        raise core.DataError(f"{store}: the folder of results must hold a result, it holds none")
    entries.sort(key=lambda entry: (-entry.saved, entry.name))

    curves: dict[str, Curve] = {}
    for place, entry in enumerate(entries):
        if entry.is_finished and not entry.trouble:
            try:
                curve = write_result(store / entry.name, folder / PAGES, objective)
            except (core.BacktestError, OSError) as error:
                entries[place] = replace(entry, trouble=name_fault(error, store / entry.name))
            else:
                if curve is not None:
                    curves[entry.name] = curve
        core.report_progress(progress, place + 1, len(entries))

    render.save_text(render.write_library(), folder / PAGES / render.LIBRARY)
    rows = [describe_row(entry, curves.get(entry.name)) for entry in entries]
    render.save_text(write_index(store, entries, rows), folder / INDEX)
    return rows


def write_result(saved: Path, pages: Path, objective: str) -> Curve | None:
    """Write the page of a saved result into a folder; return its curve for the list."""
    with showing(saved):
        result = results.load_saved(saved)
        page = build_page(result, objective)
        text = render.write_html(page, shares_library=True)
        render.save_text(text, pages / f"{saved.name}.html")
        return find_curve(result)


def describe_row(entry: results.StoreEntry, curve: Curve | None) -> dict[str, Any]:
    name = entry.name.encode("utf-8", "replace").decode()
    kind = name_kind(entry.kind)
    phrase, chips = describe_call(entry.title or core.capitalize(kind))
    title = core.clip(phrase, MAX_NOTE)
    metrics: Mapping[str, float] = {}
    if entry.trouble:
        notes = [f"damaged: {entry.trouble}"]
    else:
        notes = [*chips, results.describe_note(entry)]
        metrics = entry.shown_metrics
    notes.append(name)

    link = ""
    if entry.is_finished and not entry.trouble:
        link = f"{PAGES}/{quote(entry.name, safe='')}.html"
    return {
        "entry": entry,
        "name": name,
        "kind": kind,
        "title": title,
        "call": core.clip(entry.title, MAX_NOTE),
        "note": core.clip(", ".join(filter(None, notes)), MAX_NOTE),
        "link": link,
        "cells": [describe_cell(metrics, measure) for measure in SHOWN],
        "metrics": metrics,
        "curve": curve,
        "saved": core.format_time(entry.saved)[:16],
    }


def describe_cell(metrics: Mapping[str, float], measure: str) -> tuple[float | None, str]:
    """Return the value of a measure, by which the list sorts, and its text."""
    if measure not in metrics:
        return None, ""
    return metrics[measure], write_measure(measure, metrics[measure])


def write_index(
    store: Path,
    entries: list[results.StoreEntry],
    rows: list[dict[str, Any]],
) -> str:
    script = f'"use strict";\n{render.read_template("index.js")}'
    readable = [entry for entry in entries if not entry.trouble]
    template = render.start_jinja().get_template(INDEX)
    return template.render(
        rows=rows,
        store=store.resolve().name,
        n_entries=core.count_nouns(len(entries), "result"),
        kinds=results.count_kinds(readable),
        names=sorted({row["kind"] for row in rows if not row["entry"].trouble}),
        damaged=len(entries) - len(readable),
        measures=[results.name_measure(name) for name in SHOWN],
        style=render.read_template("page.css"),
        script=script,
        policy=render.write_security_policy(script),
        data=render.pack_plain(collect_curves(rows)),
        width=WIDTH,
        height=HEIGHT,
    )


def collect_curves(rows: list[dict[str, Any]]) -> str:
    """Return, as JSON, the curve and the measures of each row that can be compared."""
    measures = {}
    for name in COMPARED:
        measures[name] = {"title": results.name_measure(name), "better": ABOUT[name].better}

    chosen = {}
    for place, row in enumerate(rows):
        curve = row["curve"]
        if curve is None:
            continue
        values = {}
        for name in COMPARED:
            if name in row["metrics"]:
                value = row["metrics"][name]
                values[name] = [value, write_measure(name, value)]
        chosen[place] = {
            "title": core.escape_directions(row["title"]),
            "start": curve.start,
            "end": curve.end,
            "values": list(curve.values),
            "measures": values,
        }
    return json.dumps(core.to_json({"measures": measures, "rows": chosen}), allow_nan=False)
