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
from backtest.core.result_parts import MONEY as MONEY_TEXT
from backtest.core.result_parts import ShownExplorer
from backtest.report import render
from backtest.report.basis import build_basis, find_settings, list_terms
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
    Table,
    write_table,
)
from backtest.report.policy_phrase import phrase_heading
from backtest.report.run_figures import YEARLY, list_hidden_measures
from backtest.report.run_page import dress_page
from backtest.results import run_record
from backtest.results.listing import UNTOLD, Origin, describe_origin, name_kind
from backtest.results.measure_table import ABOUT

SYNTHETIC = "Synthetic data: these prices are made up."


def build_page(result: Any, objective: str = "sharpe") -> Page:
    """Return the whole page; ``objective`` ranks the sets of a sweep.

    Writes the objective into the result as ``ranked_by``, which its parts read.
    """
    # The results are frozen, so that it is written past their own check.
    vars(result)["ranked_by"] = objective

    # A result that was made of no bars, such as a figure by formula, has no data to name.
    manifest = core.to_plain(dict(result.manifest))
    origin = UNTOLD
    if is_saved_kind(result) and manifest.get("data", {}).get("bars"):
        origin = describe_origin(manifest, core.read_making(result))

    page = build_head(result, origin)
    if result.kind in DRAWN:
        return dress_page(page, result)
    return page


FORGED = (
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
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
        text = f"{type(error).__name__}: {error}"
        reason = core.clip(" ".join(text.split()), MAX_NOTE)
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


def build_head(result: Any, origin: Origin = UNTOLD) -> Page:
    """Return the page of a result; its sections are made when they are read."""
    manifest = {"data": {}, **result.manifest}
    notices = [*result.notices]
    if manifest["data"].get("synthetic"):
        notices.append(SYNTHETIC)

    facts = []
    styles = []
    hidden = list_hidden(result)
    for number in result.list_numbers():
        if number.name not in hidden:
            facts.append(write_fact(number))
            styles.append(style_fact(number))

    made = {"made_by": origin.command or None, "not_said": list(origin.remarks)}
    return Page(
        kind=result.called or name_kind(result.kind),
        manifest=manifest,
        title=core.clip(phrase_heading(result.heading), render.MAX_TITLE),
        notices=notices,
        marked_summary=write_verdict(result),
        details=write_details(result, manifest["data"]),
        facts=facts,
        write_sections=lambda: list_sections(result, origin),
        collect=lambda: {**result.to_dict(), **made},
        styles=styles,
    )


def write_verdict(result: Any) -> str:
    """Return the verdict of a result as a sentence."""
    verdict = core.capitalize(result.verdict_text)
    if verdict.endswith((".", "?")):
        return verdict
    return f"{verdict}."


def write_details(result: Any, data: Mapping[str, Any]) -> str:
    """Return what a result says beside its verdict, and whether its yearly figures are of days."""
    sentences = [result.details]
    if result.is_yearly:
        sentences.append(run_record.describe_short(data["start"], data["end"]))
    return " ".join(filter(None, sentences))


def write_fact(number: core.Headline) -> Fact:
    """Return a figure with its note; the value of a measure names its measure."""
    value = str(number)
    if number.name in ABOUT and not number.text:
        value = Measured(value, number.name, number.style)
    return Fact(core.capitalize(number.title), value, number.note)


def style_fact(number: core.Headline) -> FactStyle:
    """Return how a page shows a figure, with what it means."""
    about = number.about
    if not about and number.name in ABOUT:
        about = ABOUT[number.name].meaning
    return FactStyle(number.name, about, number.is_large)


def is_saved_kind(result: Any) -> bool:
    """Return whether a result can be saved, so that a command can write its report again."""
    return isinstance(result, core.SavedResult)


def list_sections(result: Any, origin: Origin) -> list[Section]:
    """Return what a page shows, folded sections last, and then what the result rests on."""
    sections = sorted(list_shown(result, "summary"), key=lambda section: section.is_folded)
    command = ""
    if is_saved_kind(result):
        name = core.name_folder(result.folder_title, str(result.manifest["id"]))
        command = shlex.join(["backtest", "report", name])

    is_folded = bool(result.list_parts())
    currency = find_currency(result.manifest)
    for section in build_basis(result, command, origin):
        blocks = [name_money(block, currency) for block in section.blocks]
        sections.append(section._replace(is_folded=is_folded, blocks=blocks))

    return sections


def list_shown(result: Any, elsewhere: str, *, with_charts: bool = True) -> list[Section]:
    """Return the sections of a result for a page or a terminal, without empty ones.

    Parts say where they are shown; those for ``elsewhere`` are left out.
    """
    hidden = list_hidden(result)
    currency = find_currency(result.manifest)
    sections = []
    for part in result.list_parts():
        if part.shows == elsewhere:
            continue

        shown = part.list_blocks(with_charts=with_charts)
        blocks = list(write_blocks(shown, part.key, hidden, currency))
        if not blocks:
            continue
        section = Section(
            key=part.key,
            title=part.title,
            lead=name_currency(part.lead, currency),
            blocks=blocks,
            is_folded=part.is_folded,
            is_half=part.is_half,
        )
        sections.append(section)
    return sections


def list_hidden(result: Any) -> tuple[str, ...]:
    """Return the measures that are not shown of so few days, unless they were the objective.

    A run that was ruined also has no Sharpe ratio, and one of few days none a year.
    """
    if result.kind in DRAWN:
        return list_hidden_measures(result)
    days = find_days(result)
    if days is None or run_record.shows_growth(days):
        return ()

    # A search by growth has no other score to show.
    settings = find_settings(result.manifest)
    ranked_by = getattr(result, "ranked_by", "")
    asked = f"{ranked_by} {settings.get('objective')} {settings.get('objectives')}"
    names: tuple[str, ...] = run_record.EXTRAPOLATED
    if result.kind == BOOK:
        names += YEARLY
    return tuple(name for name in names if name not in asked)


def find_days(result: Any) -> float | None:
    """Return the days of an account, or of the data; None of a result without times."""
    account = getattr(result, "result", result)
    span = getattr(account, "span", None)
    if span is not None:
        return run_record.count_days_between(span.start, int(span.closes[-1]))

    data = result.manifest.get("data") or {}
    if data.get("start") and data.get("end"):
        return run_record.count_days_between(data["start"], data["end"])
    return None


def hide(shown: core.ShownTable, hidden: Sequence[str]) -> core.ShownTable:
    """Return a table without the columns, or rows, of the measures that are hidden."""
    if not hidden:
        return shown

    table: Any = shown.table
    columns = tuple(name for name in shown.columns if name not in hidden)
    if isinstance(table, Mapping):
        table = hide_lines(table, hidden, has_measures=shown.has_measures)
    elif shown.has_measures:
        table = table.drop(index=list(hidden), errors="ignore")
    else:
        table = table.drop(columns=list(hidden), errors="ignore")
    return shown._replace(table=table, columns=columns)


def hide_lines(
    lines: Mapping[str, Mapping[str, Any]],
    hidden: Sequence[str],
    *,
    has_measures: bool,
) -> dict[str, Mapping[str, Any]]:
    """Return lines by label without those of hidden measures, or without their cells."""
    if has_measures:
        return {label: line for label, line in lines.items() if label not in hidden}
    shown: dict[str, Mapping[str, Any]] = {}
    for label, line in lines.items():
        shown[label] = {name: cell for name, cell in line.items() if name not in hidden}
    return shown


MONEY = ("money", "settlement currency")
"""Units of results that do not know their currency; a page that knows it names it."""


def write_blocks(
    blocks: Iterable[core.Shown],
    key: str,
    hidden: Sequence[str] = (),
    currency: str = "",
) -> Iterator[Block]:
    """Yield what is shown of a part, without empty texts, charts and tables.

    ``currency`` is the unit of money, empty if it is not known.
    """
    for shown in blocks:
        if isinstance(shown, str):
            if shown:
                yield Paragraph(name_currency(shown, currency), "note")
            continue
        if isinstance(shown, ShownExplorer):
            yield write_explorer(shown, tuple(hidden))
            continue
        if shown.table is None:
            continue

        if isinstance(shown, core.ShownChart):
            chart = draw_declared(name_axes(shown, currency))
            if chart is not None:
                yield chart._replace(key=chart.key or key)
        elif len(shown.table):
            yield name_money(write_table(hide(shown, hidden)), currency)
        elif shown.empty:
            yield Paragraph(shown.empty)


def name_currency(text: str, currency: str) -> str:
    """Return a text that says what money is in with the currency, if it is known."""
    if not currency:
        return text
    return text.replace(MONEY_TEXT, f"Money is in {currency}.")


def name_axes(shown: core.ShownChart, currency: str) -> core.ShownChart:
    """Return a chart whose axes of money have the currency as their unit, if it is known."""
    if not currency:
        return shown
    if shown.x in MONEY:
        shown = shown._replace(x=currency)
    if shown.y in MONEY:
        shown = shown._replace(y=currency)
    return shown


def name_money(block: Block, currency: str) -> Block:
    """Return a table whose columns of money have the currency as their unit, others as they are."""
    if not currency or not isinstance(block, Table):
        return block

    columns = []
    for column in block.columns:
        is_money = column.unit in MONEY
        columns.append(column._replace(unit=currency) if is_money else column)
    return block._replace(columns=tuple(columns))


def find_currency(manifest: Mapping[str, Any]) -> str:
    """Return the currency in which the venues of a manifest settle, empty if it is not known."""
    settings = find_settings(manifest)
    if settings.get("settlement"):
        return str(settings["settlement"])

    venues = settings.get("venue") or settings.get("venues") or {}
    if "contract" in venues:
        venues = {"": venues}

    # An account has one currency: a spot leg whose venue names none settles as the others do.
    currencies = set[str]()
    for venue in venues.values():
        settles = venue.get("contract", {}).get("settles")
        if settles:
            currencies.add(str(settles))
    if len(currencies) != 1:
        return ""
    return currencies.pop()


def write_report(result: Any, path: Path, format_: str | None = None) -> Path:
    return render.write_page(build_page(result), path, format_)


def write_summary(result: Any, *, verbose: bool = False, is_colored: bool = False) -> str:
    sections = list_shown(result, "page", with_charts=False)
    terms = list_terms(result.manifest, verbose=verbose)
    if terms:
        sections.append(Section("terms", "", "", [Paragraph(""), *terms]))
    return render.write_terminal(build_head(result), sections, is_colored=is_colored)


WIDTH = 640
HEIGHT = 150
"""Of the chart of a notebook, in pixels, with the room for its labels."""
LEFT = 36
FOOT = 18
"""Room for the labels of its axes."""
BOOK = "book"
"""The kind of several accounts, whose measures of the whole are those of a run."""
DRAWN = ("run",)
"""Kinds whose pages and notebooks have the charts of a run."""


def write_cell(source: core.Reportable) -> str:
    """Return what a notebook shows of a result: its head, and the equity of a run."""
    page = None
    if getattr(source, "_is_empty", False):
        title = repr(source)
    else:
        page = build_head(source)
        title = page.title

    name = re.sub("[- ]", "_", source.called or source.kind)
    still = None
    if source.kind in DRAWN:
        name = "result"
        still = place_equity(source)

    template = render.start_jinja().get_template("cell.html")
    return template.render(
        page=page,
        title=title,
        name=name,
        still=still,
        colors=LIGHT,
        width=WIDTH,
        height=HEIGHT,
    )


def place_equity(result: Any) -> dict[str, Any]:
    """Return the first chart of the page as lines and texts: unit values, their axis, and dates.

    A line is its name, its color and its points; a mark is x, y, the end that stands at x, and its
    text. Both are in units of the drawing, from its upper left corner.
    """
    time = result.span.closes
    unit = result.of_account("unit") / result.tally.first_unit
    held = run_record.follow_market(result).unit
    rows = thin_rows(time, unit, held, buckets=280)

    shown = np.concatenate([unit[rows], held[rows]])
    low = float(np.min(shown))
    high = float(np.max(shown))
    x = np.interp(time[rows], (time[0], time[-1]), (LEFT, WIDTH))

    def place_line(values: core.FloatArray) -> list[tuple[float, float]]:
        y = np.interp(values[rows], (low, high), (HEIGHT - FOOT, 6))
        return [*zip(x, y, strict=True)]

    lines = [
        ("unlevered market", "neutral", place_line(held)),
        ("account", "accent", place_line(unit)),
    ]
    start = f"{np.datetime64(int(result.span.start), 'ns'):.10}"
    end = f"{np.datetime64(int(time[-1]), 'ns'):.10}"
    marks = [
        (0, 12, "start", f"{high:z.2f}"),
        (0, HEIGHT - FOOT, "start", f"{low:z.2f}"),
        (LEFT, HEIGHT - 2, "start", start),
        (WIDTH, HEIGHT - 2, "end", end),
        (WIDTH // 2, HEIGHT - 2, "middle", "account (blue), unlevered market"),
    ]
    return {"lines": lines, "marks": marks}


def draw_chart(shown: core.ShownChart) -> Any:
    import plotly.graph_objects as go  # type: ignore[import-untyped] # noqa: PLC0415 - a second

    chart = draw_declared(shown)
    figure = go.Figure()
    title: dict[str, Any] = {}
    if chart is not None:
        figure = go.Figure(dict(chart.figure))
        if not shown.panels:
            title = {"title": chart.title, "margin_t": 44}
    return figure.update_layout(template={"layout": TEMPLATE}, **title)
