"""Build the page of a result from what it declares; write it, its cell, and the list of a store."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from backtest import core, results
from backtest.core.code_names import pd
from backtest.core.number_text import Measured
from backtest.report import render
from backtest.report.basis import build_basis, list_terms
from backtest.report.charts import LIGHT, TEMPLATE, draw_declared, thin_rows
from backtest.report.page import Block, Fact, Page, Paragraph, Section, format_measure, write_table
from backtest.results import run_record
from backtest.results.listing import LEFTOVER, UNTOLD, Origin, describe_origin, name_fault
from backtest.results.measure_table import ABOUT

SYNTHETIC = "Synthetic data: these prices are made up."


def build_page(found: Any, objective: str = "sharpe") -> Page:
    """Return the whole page; ``objective`` ranks the sets of a sweep."""
    vars(found)["ranked_by"] = objective
    manifest = core.to_plain(dict(found.manifest))
    has_bars = manifest.get("data", {}).get("bars")
    making = vars(found).get(core.KEPT)
    return build_head(found, describe_origin(manifest, making) if has_bars else UNTOLD)


def build_head(found: Any, origin: Origin = UNTOLD) -> Page:
    manifest = {"data": {}, **found.manifest}
    verdict = core.capitalize(found.verdict_text)
    verdict += "" if verdict.endswith((".", "?")) else "."
    made = {"made_by": origin.command or None, "not_said": list(origin.remarks)}
    facts = []
    for each in found.list_numbers():
        is_own = each.name in ABOUT and not each.text
        text = Measured(str(each), each.name, each.style) if is_own else str(each)
        facts.append(Fact(each.title, text, each.note))

    def list_sections() -> list[Section]:
        shown = (write_part(each) for each in found.list_parts() if each.shows != "summary")
        sections = [section for section in shown if section.blocks]
        name = core.name_folder(found.folder_title, str(found.manifest["id"]))
        basis = build_basis(found, shlex.join(["backtest", "report", name]), origin)
        basis = [each._replace(is_folded=found.kind in DRAWN) for each in basis]
        return [*sorted(sections, key=lambda each: each.is_folded), *basis]

    return Page(
        kind=found.called or found.kind,
        manifest=manifest,
        title=core.clip(found.heading, render.MAX_TITLE),
        notices=[*found.notices, *([SYNTHETIC] if manifest["data"].get("synthetic") else [])],
        marked_summary=f"{verdict} {found.details}".rstrip(),
        facts=facts,
        write_sections=list_sections,
        collect=lambda: {**found.to_dict(), **made},
    )


def write_part(part: core.Part) -> Section:
    blocks = list(write_blocks(part.list_blocks(), part.key))
    return Section(part.key, part.title, part.lead, blocks, part.is_folded)


def write_blocks(blocks: Iterable[core.Shown], key: str) -> Iterator[Block]:
    for shown in blocks:
        if isinstance(shown, str):
            if shown:
                yield Paragraph(shown, "note")
        elif shown.table is None:
            continue
        elif isinstance(shown, core.ShownChart):
            chart = draw_declared(shown)
            if chart is not None:
                yield chart._replace(key=chart.key or key)
        elif len(shown.table):
            yield write_table(shown)
        elif shown.empty:
            yield Paragraph(shown.empty)


def write_report(found: Any, path: Path, format_: str | None = None) -> Path:
    return render.write_page(build_page(found), path, format_)


def write_summary(found: Any, *, verbose: bool = False) -> str:
    page = build_head(found)
    sections = []
    for part in found.list_parts():
        if part.shows != "page":
            blocks = part.list_blocks(with_charts=False)
            if written := list(write_blocks(blocks, part.key)):
                sections.append(Section(part.key, part.title, part.lead, written))
    terms = list_terms(found.manifest, verbose=verbose)
    if terms:
        sections.append(Section("terms", "", "", [Paragraph(""), *terms]))
    return render.write_terminal(page, sections)


WIDTH, HEIGHT, LEFT, FOOT = 640, 150, 36.0, 18.0
"""Of the chart of a notebook, in pixels; with the room for its labels."""
COLUMNS = 4
"""Headline numbers in a row."""
DRAWN = ("run",)
LONGEST = 200
"""Longest title in characters."""


def write_cell(source: core.Reportable) -> str:
    if getattr(source, "_is_empty", False):
        return f"<div><b>{escape_text(repr(source))}</b></div>"
    page = build_head(source)
    chart = draw_equity_svg(source) if source.kind in DRAWN else ""
    name = "result" if source.kind in DRAWN else page.kind.replace("-", "_").replace(" ", "_")
    more = f'{name}.report("report.html") writes the whole report.'
    cells = [
        f'<td style="text-align:left;padding:2px 18px 2px 0;vertical-align:top">'
        f'<span style="opacity:.7">{label}</span><br><b>{value}</b><br>'
        f'<small style="opacity:.7">{note}</small></td>'
        for label, value, note in (map(escape_text, fact) for fact in page.facts)
    ]
    lines = (cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS))
    rows = "".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    return (
        f"<div><b>{escape_text(core.clip(page.title, LONGEST))}</b><br>"
        f"<small>{escape_text(' '.join([f'{page.subtitle}.', *page.notices]))}</small>"
        f"{chart}<table>{rows}</table>"
        f"<small>{escape_text(f'{page.summary} {more}')}</small></div>"
    )


def draw_equity_svg(result: Any) -> str:
    """Return the first chart of the page as a still: unit values, their axis, and dates."""
    time, own = result.span.closes, result.of_account("unit") / result.tally.first_unit
    held = run_record.follow_market(result)[2]
    rows = thin_rows(time, own, held, buckets=280)
    x = np.interp(time[rows], (time[0], time[-1]), (LEFT, float(WIDTH)))
    both = np.concatenate((own[rows], held[rows]))
    low, high = float(both.min()), float(both.max())
    y = np.interp(both, (low, high), (HEIGHT - FOOT, 6.0))
    lines = []
    for values, color, name in ((y[len(rows):], "neutral", "unlevered market"),
                                (y[: len(rows)], "accent", "account")):  # fmt: skip
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, values, strict=True))
        lines.append(f'<polyline fill="none" stroke="{LIGHT[color]}" stroke-width="1.2" '
                     f'points="{points}"><title>{name}</title></polyline>')  # fmt: skip
    days = [f"{np.datetime64(int(each), 'ns'):.10}" for each in (result.span.start, time[-1])]
    marks = [(0.0, 12.0, "start", f"{high:.2f}"), (0.0, HEIGHT - FOOT, "start", f"{low:.2f}"),
             (LEFT, HEIGHT - 2.0, "start", days[0]), (WIDTH, HEIGHT - 2.0, "end", days[1]),
             (WIDTH / 2, HEIGHT - 2.0, "middle", "account (blue), unlevered market")]  # fmt: skip
    texts = [f'<text x="{a:.0f}" y="{b:.0f}" text-anchor="{anchor}">{text}</text>'
             for a, b, anchor, text in marks]  # fmt: skip
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="unit value over time, beside the unlevered market" font-size="11" '
        f'fill="{LIGHT["neutral"]}" style="display:block;max-width:100%">'
        f"{''.join(lines)}{''.join(texts)}</svg>"
    )


def escape_text(text: str) -> str:
    return escape(core.escape_directions(text))


def draw_run(result: Any) -> Any:
    from backtest.report import run_charts  # noqa: PLC0415 - only when drawn

    story, held = run_charts.draw_story(result), run_charts.draw_positions(result)
    return draw_chart(story._replace(
        table=pd.concat([pd.DataFrame(each.table) for each in (story, held)], axis=1),
        panels=(*story.panels, *held.panels), colors={**held.colors, **story.colors},
        height=story.height + held.height, dotted=held.dotted,
        caption=f"{story.caption} {held.caption}",
    ))  # fmt: skip


def draw_surface(surface: Any) -> Any:
    from backtest.report import surface_parts  # noqa: PLC0415 - only when drawn

    return draw_chart(surface_parts.draw_map(surface))


def draw_chart(shown: core.ShownChart) -> Any:
    import plotly.graph_objects as go  # type: ignore[import-untyped] # noqa: PLC0415 - a second

    chart = draw_declared(shown)
    figure = go.Figure({} if chart is None else dict(chart.figure))
    title = {} if chart is None or shown.panels else {"title": chart.title, "margin_t": 44}
    return figure.update_layout(template={"layout": TEMPLATE}, **title)


INDEX, PAGES = "index.html", "pages"
MAX_NOTE = 300
"""Longest title and note of the list, in characters."""
SHOWN = ("cagr", "volatility", "sharpe", "max_drawdown", "liquidations")
"""Measures of the list; results without measures say in a note what came out."""


def describe_row(entry: results.StoreEntry) -> dict[str, Any]:
    name = entry.name.encode("utf-8", "replace").decode()
    title = core.clip(entry.title or name, MAX_NOTE)
    said = f"damaged: {entry.trouble}" if entry.trouble else results.describe_note(entry)
    note = ", ".join(filter(None, (said, "" if title == name else name)))
    metrics = {} if entry.trouble else entry.metrics
    link = f"{PAGES}/{quote(entry.name, safe='')}.html"
    return {
        "entry": entry, "name": name, "title": title, "note": core.clip(note, MAX_NOTE),
        "link": link if entry.is_finished and not entry.trouble else "",
        "cells": [format_measure(x, metrics[x]) if x in metrics else "" for x in SHOWN],
        "saved": core.format_time(entry.saved)[:16],
    }  # fmt: skip


def write_all(
    store: Path,
    folder: Path,
    objective: str = "sharpe",
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Return what the list shows; a result that cannot be read has a trouble and no page."""
    entries = [each for each in results.list_results(store) if each.kind != LEFTOVER]
    if not entries:
        raise core.DataError(f"{store}: the folder of results must hold a result, it holds none")
    entries.sort(key=lambda each: (-each.saved, each.name))
    for k, entry in enumerate(entries):
        if entry.is_finished and not entry.trouble:
            try:
                page = build_page(results.load_saved(store / entry.name), objective)
            except (core.BacktestError, OSError) as error:
                entries[k] = replace(entry, trouble=name_fault(error, store / entry.name))
            else:
                render.write_page(page, folder / PAGES / f"{entry.name}.html", "html")
        core.report_progress(progress, k + 1, len(entries))
    rows = [*map(describe_row, entries)]
    text = render.start_jinja().get_template(INDEX).render(
        rows=rows,
        store=store.resolve().name,
        kinds=results.count_kinds([each for each in entries if not each.trouble]),
        damaged=sum(bool(each.trouble) for each in entries),
        measures=[results.name_measure(name) for name in SHOWN],
        style=render.read_template("page.css"),
    )  # fmt: skip
    render.save_text(text, folder / INDEX)
    return rows
