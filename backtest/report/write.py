"""Build the page of a result from what it declares; write it, its cell, and the list of a store."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from backtest import core, results
from backtest.core.number_text import Measured
from backtest.core.result_folders import CURE
from backtest.core.result_parts import ShownExplorer
from backtest.report import render
from backtest.report.basis import build_basis, list_terms
from backtest.report.charts import draw_declared
from backtest.report.explorer import write_explorer
from backtest.report.figures import LIGHT, TEMPLATE, thin_rows
from backtest.report.page import (
    Block,
    Fact,
    FactStyle,
    Page,
    Paragraph,
    Section,
    write_table,
)
from backtest.report.run_figures import list_hidden_measures
from backtest.report.run_page import dress_page
from backtest.results import run_record
from backtest.results.listing import UNTOLD, Origin, describe_origin
from backtest.results.measure_table import ABOUT

SYNTHETIC = "Synthetic data: these prices are made up."


def build_page(found: Any, objective: str = "sharpe") -> Page:
    """Return the whole page; ``objective`` ranks the sets of a sweep."""
    vars(found)["ranked_by"] = objective
    manifest = core.to_plain(dict(found.manifest))
    has_bars = manifest.get("data", {}).get("bars")
    making = vars(found).get(core.KEPT)
    page = build_head(found, describe_origin(manifest, making) if has_bars else UNTOLD)
    return dress_page(page, found) if found.kind in DRAWN else page


FORGED = (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError,
          RecursionError)  # fmt: skip
"""What reading a result whose manifest has other content than was saved may raise."""


MAX_NOTE = 300
"""Longest title and note of a list, and reason of an error, in characters."""


@contextmanager
def showing(folder: Path) -> Iterator[None]:
    """Raise DataError where a saved result cannot be read or shown.

    Its hashes find accidents; a manifest that somebody wrote may have fitting ones, and any
    content. Faults on several lines become one sentence.
    """
    try:
        yield
    except (*FORGED, core.BacktestError) as error:
        if isinstance(error, core.BacktestError) and "\n" not in str(error):
            raise
        reason = core.clip(" ".join(f"{type(error).__name__}: {error}".split()), MAX_NOTE)
        raise core.DataError(
            f"{folder}: cannot be shown, its manifest or tables do not describe a result "
            f"({reason}); {CURE}"
        ) from error


def write_saved_page(
    folder: Path,
    path: Path,
    format_: str,
    objective: str = "sharpe",
) -> Path:
    """Load a result and write its page; return the path. Raises DataError if it cannot be read."""
    with showing(folder):
        page = build_page(results.load_saved(folder), objective)
        return render.write_page(page, path, format_)


def build_head(found: Any, origin: Origin = UNTOLD) -> Page:
    manifest = {"data": {}, **found.manifest}
    verdict = core.capitalize(found.verdict_text)
    verdict += "" if verdict.endswith((".", "?")) else "."
    data = manifest["data"]
    short = run_record.describe_short(data["start"], data["end"]) if found.is_yearly else ""
    made = {"made_by": origin.command or None, "not_said": list(origin.remarks)}
    facts, styles = [], []
    hidden = list_hidden(found)
    for each in found.list_numbers():
        if each.name in hidden:
            continue
        is_own = each.name in ABOUT and not each.text
        text = Measured(str(each), each.name, each.style) if is_own else str(each)
        facts.append(Fact(each.title, text, each.note))
        about = each.about or (ABOUT[each.name].meaning if each.name in ABOUT else "")
        styles.append(FactStyle(each.name, about, each.is_large))

    def list_sections() -> list[Section]:
        sections = list_shown(found, "summary")
        name = core.name_folder(found.folder_title, str(found.manifest["id"]))
        basis = build_basis(found, shlex.join(["backtest", "report", name]), origin)
        basis = [each._replace(is_folded=bool(found.list_parts())) for each in basis]
        return [*sorted(sections, key=lambda each: each.is_folded), *basis]

    return Page(
        kind=found.called or found.kind,
        manifest=manifest,
        title=core.clip(found.heading, render.MAX_TITLE),
        notices=[*found.notices, *([SYNTHETIC] if data.get("synthetic") else [])],
        marked_summary=verdict,
        details=" ".join(filter(None, (found.details, short))),
        facts=facts,
        write_sections=list_sections,
        collect=lambda: {**found.to_dict(), **made},
        styles=styles,
    )


def list_shown(found: Any, elsewhere: str, *, with_charts: bool = True) -> list[Section]:
    """Return the sections that hold something, but for those that are shown ``elsewhere`` only."""
    parts = [part for part in found.list_parts() if part.shows != elsewhere]
    hidden = list_hidden(found)
    written = [
        (x, [*write_blocks(x.list_blocks(with_charts=with_charts), x.key, hidden)]) for x in parts
    ]
    return [
        Section(part.key, part.title, part.lead, blocks, part.is_folded, part.is_half)
        for part, blocks in written
        if blocks
    ]


def list_hidden(found: Any) -> tuple[str, ...]:
    """Return the measures that are not shown of so few days, unless they were the objective.

    A run that was ruined also has no Sharpe ratio, and one of few days none a year.
    """
    if found.kind in DRAWN:
        return list_hidden_measures(found)
    account = getattr(found, "result", found)
    span = getattr(account, "span", None)
    data = found.manifest.get("data") or {}
    if span is not None:
        days = run_record.count_days_between(span.start, int(span.closes[-1]))
    elif data.get("start") and data.get("end"):
        days = run_record.count_days_between(data["start"], data["end"])
    else:
        return ()
    if run_record.shows_growth(days):
        return ()

    # a search by growth has no other score to show
    settings = found.manifest.get("settings") or found.manifest
    asked = f"{getattr(found, 'ranked_by', '')} {settings.get('objective')}"
    asked += f" {settings.get('objectives')}"
    return tuple(name for name in run_record.EXTRAPOLATED if name not in asked)


def hide(shown: core.ShownTable, hidden: Sequence[str]) -> core.ShownTable:
    """Return a table without the columns, or rows, of the measures that are hidden."""
    table: Any = shown.table
    kept = tuple(name for name in shown.columns if name not in hidden)
    if isinstance(table, Mapping) and shown.has_measures:
        table = {label: row for label, row in table.items() if label not in hidden}
    elif isinstance(table, Mapping):
        table = {
            label: {name: cell for name, cell in row.items() if name not in hidden}
            for label, row in table.items()
        }
    elif shown.has_measures:
        table = table.drop(index=[x for x in hidden if x in table.index])
    else:
        table = table.drop(columns=[x for x in hidden if x in table.columns])
    return shown._replace(table=table, columns=kept)


def write_blocks(
    blocks: Iterable[core.Shown], key: str, hidden: Sequence[str] = ()
) -> Iterator[Block]:
    for shown in blocks:
        if isinstance(shown, str):
            if shown:
                yield Paragraph(shown, "note")
        elif isinstance(shown, ShownExplorer):
            yield write_explorer(shown, tuple(hidden))
        elif shown.table is None:
            continue
        elif isinstance(shown, core.ShownChart):
            chart = draw_declared(shown)
            if chart is not None:
                yield chart._replace(key=chart.key or key)
        elif len(shown.table):
            yield write_table(hide(shown, hidden) if hidden else shown)
        elif shown.empty:
            yield Paragraph(shown.empty)


def write_report(found: Any, path: Path, format_: str | None = None) -> Path:
    return render.write_page(build_page(found), path, format_)


def write_summary(found: Any, *, verbose: bool = False, is_colored: bool = False) -> str:
    sections = list_shown(found, "page", with_charts=False)
    if terms := list_terms(found.manifest, verbose=verbose):
        sections.append(Section("terms", "", "", [Paragraph(""), *terms]))
    return render.write_terminal(build_head(found), sections, is_colored=is_colored)


WIDTH, HEIGHT, LEFT, FOOT = 640, 150, 36, 18
"""Of the chart of a notebook, in pixels; with the room for its labels."""
DRAWN = ("run",)


def write_cell(source: core.Reportable) -> str:
    is_empty, is_drawn = getattr(source, "_is_empty", False), source.kind in DRAWN
    page = None if is_empty else build_head(source)
    return render.start_jinja().get_template("cell.html").render(
        page=page,
        title=repr(source) if page is None else page.title,
        name="result" if is_drawn else re.sub("[- ]", "_", source.called or source.kind),
        still=place_equity(source) if is_drawn else None,
        colors=LIGHT,
        width=WIDTH,
        height=HEIGHT,
    )  # fmt: skip


def place_equity(result: Any) -> dict[str, Any]:
    """Return the first chart of the page as lines and texts: unit values, their axis, and dates."""
    time, own = result.span.closes, result.of_account("unit") / result.tally.first_unit
    held = run_record.follow_market(result)[2]
    rows = thin_rows(time, own, held, buckets=280)
    x = np.interp(time[rows], (time[0], time[-1]), (LEFT, WIDTH))
    low, high = (float(pick(pick(own[rows]), pick(held[rows]))) for pick in (min, max))
    up = [np.interp(each[rows], (low, high), (HEIGHT - FOOT, 6)) for each in (held, own)]
    names = (("unlevered market", "neutral"), ("account", "accent"))
    start, end = (f"{np.datetime64(int(each), 'ns'):.10}" for each in (result.span.start, time[-1]))
    marks = [
        (0, 12, "start", f"{high:.2f}"),
        (0, HEIGHT - FOOT, "start", f"{low:.2f}"),
        (LEFT, HEIGHT - 2, "start", start),
        (WIDTH, HEIGHT - 2, "end", end),
        (WIDTH // 2, HEIGHT - 2, "middle", "account (blue), unlevered market"),
    ]
    lines = [(*named, [*zip(x, y, strict=True)]) for named, y in zip(names, up, strict=True)]
    return {"lines": lines, "marks": marks}


def draw_chart(shown: core.ShownChart) -> Any:
    import plotly.graph_objects as go  # type: ignore[import-untyped] # noqa: PLC0415 - a second

    chart = draw_declared(shown)
    figure = go.Figure({} if chart is None else dict(chart.figure))
    title = {} if chart is None or shown.panels else {"title": chart.title, "margin_t": 44}
    return figure.update_layout(template={"layout": TEMPLATE}, **title)
