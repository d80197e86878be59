"""The pages that are no reports: the list, a running study, messages."""

from __future__ import annotations

import datetime as dt
import functools
import math
import os
from collections.abc import Collection, Iterable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from backtest.base.text_layout import clip, escape_directions
from backtest.report.page.figures import write_script_data
from backtest.report.page.html import hash_text, show
from backtest.report.page.html import read_template as read_shared
from backtest.report.page.report_numbers import format_measure, title
from backtest.store.entry import StoreEntry
from backtest.store.kinds import COMPARISON, KINDS, RUN, STUDY_KIND, SWEEP, name_kind

if TYPE_CHECKING:
    from jinja2 import Environment

FIRST_ROWS = 200
"""Rows that stand in the page before more are asked for."""
LONGEST = 300
MOST = 12
"""Accounts in one chart that can still be told apart."""
DAMAGED = "damaged"
SHOWN = ("cagr", "volatility", "sharpe", "max_drawdown", "liquidations")
"""Measures that stand in the list."""
COLUMNS = ("policy", "kind", "data", "time", *SHOWN, "written")
NUMBERS = frozenset({*SHOWN})


def write_index(
    entries: Iterable[StoreEntry], store: str, running: Collection[str] = ()
) -> tuple[str, str]:
    """Return the page that lists a store, and its content security policy.

    Parameters
    ----------
    entries : iterable of StoreEntry
        In the order of the list.
    store : str
        The name of the folder.
    running : collection of str
        The names of the studies that are being worked on.
    """
    rows = [describe_row(entry, entry.name in running) for entry in entries]
    counts = {kind: sum(row["kind"] == kind for row in rows) for kind in (*KINDS, DAMAGED)}
    columns = [
        {"title": title(name) if name in SHOWN else name, "is_number": name in NUMBERS}
        for name in COLUMNS
    ]
    data = {
        "rows": rows,
        "first": FIRST_ROWS,
        "most": MOST,
        "numbers": [c["is_number"] for c in columns],
    }
    return write(
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
        has_runs=counts[RUN] > 1,
        has_many=any(counts[kind] for kind in (SWEEP, STUDY_KIND, COMPARISON)),
        plural=name_kind,
    )


def is_unfinished(entry: StoreEntry) -> bool:
    """Return whether an entry is a study that has not concluded and can be followed."""
    return entry.kind == STUDY_KIND and not entry.is_finished and not entry.trouble


def describe_row(entry: StoreEntry, is_running: bool = False) -> dict[str, Any]:
    """Return a row of the list: its texts, and by what each column is sorted."""
    when = dt.datetime.fromtimestamp(entry.saved / 1e9, dt.UTC)
    values = [take_finite(entry.metrics.get(name)) for name in SHOWN]
    texts = ["" if v is None else format_measure(n, v) for n, v in zip(SHOWN, values, strict=True)]
    kind = DAMAGED if entry.trouble else entry.kind
    state = ("running" if is_running else "unfinished") if is_unfinished(entry) else ""
    name = readable(entry.name)
    under = [entry.trouble] if entry.trouble else [state, entry.note, name]
    head = clip(name if entry.trouble else entry.title, LONGEST)
    written = f"{when:%Y-%m-%d %H:%M} UTC" if entry.saved else ""
    span = f"{entry.start}\nto {entry.end}" if entry.start else ""
    data = "" if entry.trouble else entry.instrument or "unnamed"
    words = [kind, f"{data}\n(synthetic)" if entry.is_synthetic else data, span]
    cells = [head, *(clip(each, LONGEST) for each in words), *texts, written]
    return {
        "link": address(entry),
        "key": encode_name(entry.name) if kind == RUN else "",
        "kind": kind,
        "under": escape_directions(clip(", ".join(filter(None, under)), LONGEST)),
        "cells": [escape_directions(cell) for cell in cells],
        "order": [head.lower(), *words, *values, entry.saved / 1e9],
    }


def take_finite(value: float | None) -> float | None:
    """Return a number that is finite, else None: JSON has no others."""
    return value if value is not None and math.isfinite(value) else None


def address(entry: StoreEntry) -> str:
    """Return where the page of a result is; nothing for a damaged one."""
    if entry.trouble:
        return ""
    return f"/{'live' if is_unfinished(entry) else 'result'}/{encode_name(entry.name)}"


def encode_name(name: str) -> str:
    """Return the name of a folder as one part of an address.

    Examples
    --------
    >>> encode_name("../a b")
    '..%2Fa%20b'
    """
    return quote(os.fsencode(name), safe="")


def readable(name: str) -> str:
    """Return the name of a folder as text, though it may be no UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def write_live(entry: StoreEntry, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Return the page that follows a study, and its content security policy."""
    name = encode_name(entry.name)
    data = {"progress": f"/progress/{name}", "report": f"/result/{name}", "now": facts}
    return write(
        "live.html",
        "live.js",
        data,
        heading=clip(entry.title, LONGEST),
        name=readable(entry.name),
        entry=entry,
        report=f"/result/{name}",
        now=facts,
    )


def write_message(heading: str, sentences: Iterable[str]) -> tuple[str, str]:
    """Return a page that says something, and its content security policy."""
    return write("message.html", None, {}, heading=heading, sentences=list(sentences))


# ------------------------------------------------------------------------------------ filling in


def write(
    template: str, own: str | None, data: Mapping[str, Any], **values: Any
) -> tuple[str, str]:
    """Return a page, and the content security policy that names its script."""
    script = read_template("theme.js") + (read_template(own) if own else "")
    text = (
        start_jinja()
        .get_template(template)
        .render(
            style=read_shared("page.css") + read_template("serve.css"),
            script=script,
            data=write_script_data(data),
            **values,
        )
    )
    policy = (
        f"default-src 'none'; script-src 'sha256-{hash_text(script)}'; "
        "style-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    )
    return text, policy


@functools.cache
def start_jinja() -> Environment:
    """Return what fills in the templates; it escapes everything that is not said to be safe."""
    from jinja2 import DictLoader, Environment, StrictUndefined  # noqa: PLC0415 - loads when used

    names = ("base.html", "index.html", "live.html", "message.html")
    return Environment(
        loader=DictLoader({name: read_template(name) for name in names}),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=show,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@functools.cache
def read_template(name: str) -> str:
    """Return a file of the folder of templates."""
    return (resources.files("backtest.report.serve") / "templates" / name).read_text(
        encoding="utf-8"
    )
