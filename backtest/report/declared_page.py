"""The page of a saved result, from what the result declares of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from backtest.base import (
    Head,
    Headline,
    Part,
    SavedResult,
    Shown,
    ShownChart,
    ShownTable,
    capitalize,
    find_head,
    format_cell,
    format_time,
    name_folder,
)
from backtest.base.table_text import HEADS, NONE, STYLES
from backtest.measures import name_measure
from backtest.measures.measure_names import ABOUT
from backtest.report.basis.data_and_command import NOTHING, Background
from backtest.report.basis.declared_terms import build_basis
from backtest.report.declared_charts import draw_declared
from backtest.report.page.page import (
    SYNTHETIC,
    Block,
    Column,
    Fact,
    Page,
    Paragraph,
    SearchTable,
    Section,
    Table,
)
from backtest.report.page.report_numbers import format_measure

MEASURE = "measure"
"""The style of a column that is written as the measure of its name."""


def build_declared(found: SavedResult, background: Background = NOTHING) -> Page:
    """Return the page of a result: its verdict, its numbers, its parts, data and assumptions."""
    manifest = dict(found.manifest)
    data = dict(manifest["data"])
    return Page(
        kind=found.called or found.kind,
        manifest={**manifest, "data": data},
        title=found.heading,
        notices=[*found.notices, *([SYNTHETIC] if data.get("synthetic") else [])],
        summary=f"{write_sentence(found.verdict)} {found.details}".rstrip(),
        facts=[write_fact(each) for each in found.list_numbers()],
        write_sections=lambda: write_parts(found, background),
        collect=found.to_dict,
        about=found.about or ("" if data["bars"] else "Without a market"),
    )


def write_parts(found: SavedResult, background: Background) -> list[Section]:
    """Return the sections that a result declares, and those on data and assumptions."""
    folder = name_folder(found.folder_title, found.manifest["id"])
    basis = build_basis(found.manifest, folder, found.list_assumptions(), background)
    return [*(write_part(each) for each in found.list_parts()), *basis]


def write_sentence(text: str) -> str:
    """Return a text with a capital letter and a full stop."""
    return capitalize(text) if text.endswith((".", "?")) else f"{capitalize(text)}."


def write_fact(number: Headline) -> Fact:
    """Return a headline number as the page has it."""
    return Fact(number.title, str(number), number.note)


def write_part(part: Part) -> Section:
    """Return a declared part as a section."""
    blocks = [block for shown in part.blocks if (block := write_block(part.key, shown)) is not None]
    return Section(part.key, part.title, part.lead, blocks)


def write_block(key: str, shown: Shown) -> Block | None:
    """Return a declared block; None if it has no table."""
    if isinstance(shown, str):
        return Paragraph(shown, "note") if shown else None
    if shown.table is None:
        return None
    if isinstance(shown, ShownChart):
        chart = draw_declared(shown)
        return chart._replace(key=chart.key or key)
    if not len(shown.table):
        return Paragraph(shown.empty)
    table = write_table(shown, shown.table)
    return SearchTable(table, ()) if shown.is_searched else table


# ----------------------------------------------------------------------------------------- tables


def write_table(shown: ShownTable, whole: pd.DataFrame) -> Table:
    """Return a declared table; the lower levels of its index are its first columns."""
    frame = whole.head(shown.most)
    if frame.index.nlevels > 1:
        lower = [name for name in frame.index.names if name != frame.index.names[0]]
        frame = frame.reset_index(level=lower)
    heads = choose_heads(shown, frame)
    labels = [write_label(each, shown) for each in frame.index]
    rows = frame.to_dict("records")
    cells = (write_row(shown, heads, label, row)
             for label, row in zip(map(str, frame.index), rows, strict=True))  # fmt: skip
    texts = tuple((label, *each) for label, each in zip(labels, cells, strict=True))
    first = shown.labels.title or str(frame.index.name or "").replace("_", " ")
    columns = (
        Column(first, shown.labels.unit, is_number=False),
        *(Column(head.title, head.unit, is_numeric_dtype(frame[name]))
          for name, head in heads.items()),
    )  # fmt: skip
    left = len(whole) - len(frame)
    note = f"{shown.note} {f'And {left:,} more rows.' if left else ''}".strip()
    return Table(shown.caption, columns, texts, note)


def choose_heads(shown: ShownTable, frame: pd.DataFrame) -> dict[str, Head]:
    """Return the heads of the columns that are shown, by the name of the column."""
    names = shown.columns or tuple(map(str, frame))
    heads = {name: shown.heads.get(name) or find_column(name) for name in names}
    ends = {head.until for head in heads.values()}
    return {name: head for name, head in heads.items() if name not in ends}


def find_column(name: str) -> Head:
    """Return the head of a column by its name, which may be that of a measure."""
    is_measure = name in ABOUT and name not in HEADS
    return Head(name_measure(name), "", MEASURE) if is_measure else find_head(name)


def write_label(label: Any, shown: ShownTable) -> str:
    """Return the label of a row: a time, a number, the name of a measure, or a text."""
    if isinstance(label, pd.Timestamp):
        return format_time(label.value)
    if isinstance(label, str):
        return name_measure(label) if shown.has_measures else label
    return STYLES[shown.labels.style](float(label))


def write_row(
    shown: ShownTable, heads: Mapping[str, Head], label: str, row: Mapping[Any, Any]
) -> Iterator[str]:
    """Yield the cells of a row."""
    for name, head in heads.items():
        if shown.has_measures or head.style == MEASURE:
            yield format_measure(label if shown.has_measures else name, float(row[name]))
        else:
            ends: Sequence[Any] = [row[name], *([row[head.until]] if head.until else [])]
            cells = [format_cell(each, STYLES[head.style]) for each in ends]
            yield NONE if {*cells} == {NONE} else " to ".join(cells)
