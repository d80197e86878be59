"""Pages of the server other than reports: the list, a running study, messages."""

from __future__ import annotations

import datetime as dt
import math
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from backtest.base import clip, escape_directions
from backtest.measures import name_measure
from backtest.report.page.figures import write_script_data
from backtest.report.page.html import hash_text, read_template, start_jinja
from backtest.report.page.report_numbers import format_measure
from backtest.store import StoreEntry, is_run, list_kinds, name_kind
from backtest.store.kinds import STUDY_KIND

PACKAGE = "backtest.report.serve"
FIRST_ROWS = 200
"""Rows of the list that are shown at first."""
LONGEST = 300
MOST = 12
"""Most runs in a comparison: more lines cannot be distinguished in a chart."""
DAMAGED = "damaged"
SHOWN = ("cagr", "volatility", "sharpe", "max_drawdown", "liquidations")
"""Measures in the list."""
COLUMNS = ("policy", "kind", "data", "time", *SHOWN, "written")


def write_index(
    entries: Iterable[StoreEntry], store: str, running: Collection[str] = ()
) -> tuple[str, str]:
    """Return the page that lists a store, and its content security policy.

    ``running`` are the names of the studies that are running.
    """
    rows = [describe_row(entry, entry.name in running) for entry in entries]
    counts = {kind: sum(row["kind"] == kind for row in rows) for kind in (*list_kinds(), DAMAGED)}
    runs = sum(n for kind, n in counts.items() if is_run(kind))
    columns = [
        {"title": name_measure(name) if name in SHOWN else name, "is_number": name in SHOWN}
        for name in COLUMNS
    ]
    numbers = [column["is_number"] for column in columns]
    data = {"rows": rows, "first": FIRST_ROWS, "most": MOST, "numbers": numbers}
    return render_page(
        "index.html",
        "index.js",
        data,
        heading="Results",
        store=store,
        rows=rows[:FIRST_ROWS],
        total=len(rows),
        columns=columns,
        kinds=[(kind, n) for kind, n in counts.items() if n],
        first=FIRST_ROWS,
        has_runs=runs > 1,
        has_many=len(rows) > runs + counts[DAMAGED],
        plural=name_kind,
    )


def is_unfinished(entry: StoreEntry) -> bool:
    """Return whether an entry is an unfinished study, which can be followed."""
    return entry.kind == STUDY_KIND and not entry.is_finished and not entry.trouble


def describe_row(entry: StoreEntry, is_running: bool = False) -> dict[str, Any]:
    """Return a row of the list: its texts, and the sort key of each column."""
    when = dt.datetime.fromtimestamp(entry.saved / 1e9, dt.UTC)
    values = [keep_finite(entry.metrics.get(name)) for name in SHOWN]
    texts = ["" if v is None else format_measure(n, v) for n, v in zip(SHOWN, values, strict=True)]
    kind = DAMAGED if entry.trouble else entry.kind
    state = "" if entry.is_finished else "running" if is_running else "unfinished"
    name = decode_name(entry.name)
    under = [entry.trouble] if entry.trouble else [state, entry.note, name]
    head = clip(name if entry.trouble else entry.title, LONGEST)
    written = f"{when:%Y-%m-%d %H:%M} UTC" if entry.saved else ""
    span = f"{entry.start}\nto {entry.end}" if entry.start else ""
    data = "" if entry.trouble else entry.instrument or "unnamed"
    words = [kind, f"{data}\n(synthetic)" if entry.is_synthetic else data, span]
    cells = [head, *(clip(each, LONGEST) for each in words), *texts, written]
    return {
        "link": link_to(entry),
        "key": encode_name(entry.name) if is_run(kind) else "",
        "kind": kind,
        "under": escape_directions(clip(", ".join(filter(None, under)), LONGEST)),
        "cells": [escape_directions(cell) for cell in cells],
        "order": [head.lower(), *words, *values, entry.saved / 1e9],
    }


def keep_finite(value: float | None) -> float | None:
    """Return a finite number, else None: JSON has neither NaN nor infinity."""
    return value if value is not None and math.isfinite(value) else None


def link_to(entry: StoreEntry) -> str:
    """Return the address of the page of a result; empty if it is damaged or has none yet."""
    if entry.trouble or not (entry.is_finished or is_unfinished(entry)):
        return ""
    return f"/{'live' if is_unfinished(entry) else 'result'}/{encode_name(entry.name)}"


def encode_name(name: str) -> str:
    """Encode the name of a folder as one part of an address.

    Examples
    --------
    >>> encode_name("../a b")
    '..%2Fa%20b'
    """
    return quote(os.fsencode(name), safe="")


def decode_name(name: str) -> str:
    """Return the name of a folder as text, even if it is not valid UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def write_live(entry: StoreEntry, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Return the page that follows a study, and its content security policy."""
    name = encode_name(entry.name)
    data = {"progress": f"/progress/{name}", "report": f"/result/{name}", "now": facts}
    return render_page(
        "live.html",
        "live.js",
        data,
        heading=clip(entry.title, LONGEST),
        name=decode_name(entry.name),
        entry=entry,
        report=f"/result/{name}",
        now=facts,
    )


def write_message(heading: str, sentences: Iterable[str]) -> tuple[str, str]:
    """Return a page with a message, and its content security policy."""
    return render_page("message.html", None, {}, heading=heading, sentences=list(sentences))


# ------------------------------------------------------------------------------------ filling in


def render_page(
    template: str, own: str | None, data: Mapping[str, Any], **values: Any
) -> tuple[str, str]:
    """Return a page, and the content security policy that allows its script."""
    script = read_template("theme.js", PACKAGE) + (read_template(own, PACKAGE) if own else "")
    style = read_template("page.css") + read_template("serve.css", PACKAGE)
    page = start_jinja(PACKAGE).get_template(template)
    text = page.render(style=style, script=script, data=write_script_data(data), **values)
    policy = (
        f"default-src 'none'; script-src 'sha256-{hash_text(script)}'; "
        "style-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    )
    return text, policy
