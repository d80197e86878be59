"""The content of a report before it is written: sections of blocks, made from what is declared.

A result declares values of :mod:`backtest.core.result_parts`; a page holds what is written of them.

====================  ============================================================================
word                  what it is
====================  ============================================================================
result                what a run, a search or a test of risk left: it declares what a page shows
part                  a titled piece of a result, declared; it becomes a section
section               a titled piece of a page; one that is folded opens when it is asked for
block                 what a section holds: a paragraph, table, chart, explorer or code
shown                 a text, table, chart or explorer that is declared; it becomes a block
headline              a figure of a result, declared; it becomes a fact at the top of the page
fact                  label, value and note of a figure, as texts
head                  the title and unit of a column, and the style in which it is written
style                 how numbers of a kind are written: percent, money, turns
measure               a figure of a run that :data:`~backtest.results.measure_table.ABOUT` defines
figure                what Plotly draws of a chart, as data
notice                a sentence at the top of a page that warns of what it says
origin                how a result is made again: its command, and what is not known of it
====================  ============================================================================
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backtest import core
from backtest.core.code_names import pd
from backtest.core.number_text import NONE, STYLES, Head, Measured, strip_marks
from backtest.results import name_measure
from backtest.results.measure_table import ABOUT


def list_heads(style: str, names: Iterable[Any], unit: str = "money") -> dict[str, Head]:
    """Return the heads of columns that are written in one style, by their names in a table."""
    return {str(name): Head(str(name).replace("_", " "), unit, style) for name in names}


HEADS: Mapping[str, Head] = {
    **list_heads("percent", ("share", "volatility", "max_drawdown", "total_return"), unit=""),
    **list_heads("decimals", ("in_sample", "out_of_sample", "rank"), unit=""),
    **list_heads("money", ("capital", "final_equity", "bad_debt"), unit=""),
    **list_heads("turns", ("mean_leverage",), unit=""),
    **list_heads("count", ("liquidations",), unit=""),
    **list_heads("claim", ("liquidated", "ruined"), unit=""),
    "growth": Head("growth", "per year", "percent"),
    "change_of_growth": Head("change of growth", "per year", "signed percent"),
    "log_growth": Head("log growth", "per year", "growth"),
    "trials": Head("sets", "", "count"),
    "deflated_sharpe": Head("deflated Sharpe", "", "probability"),
    "pbo": Head("overfitting", "", "decimals"),
    "p_holm": Head("p", "corrected", "p-value"),
    "impact": Head("impact", "per year", "percent"),
    "costs": Head("costs", "per year", "percent"),
    "fees_annual": Head("fees", "per year", "percent"),
    "funding_annual": Head("funding", "per year", "percent"),
    "sharpe": Head("Sharpe ratio", "", "decimals"),
    "equity": Head("equity", "money", "money"),
    "p_ruin": Head("ruin", "probability", "chance"),
    "p_liquidation": Head("liquidation", "probability", "chance"),
}
"""Heads of columns by their names, where a table has none of its own."""


class Paragraph(NamedTuple):
    text: str
    tone: str = "plain"


class Fact(NamedTuple):
    label: str
    value: str
    note: str


class FactStyle(NamedTuple):
    """How a page shows a fact: its name, what it means, and whether it is one of the large ones."""

    name: str = ""
    about: str = ""
    is_large: bool = False


class Column(NamedTuple):
    title: str
    unit: str = ""
    is_number: bool = True
    can_ruin: bool = False


RUINOUS = frozenset({
    "probability",
    "p_liquidation",
    "p_ruin",
    "p_default",
    "model_probability_simulation_low",
    "p_liquidation_simulation_low",
    "p_ruin_simulation_low",
    "p_default_simulation_low",
    "ruined",
    "liquidated",
    "liquidations",
    "note",
    "bad_debt",
    "lost_to_default",
    "shortfall",
    "shortfalls",
    "wiped_out",
    "history",
    "is_limited",
    "is_monotone",
    "verdict",
})  # fmt: skip
"""Columns with what can ruin an account, or limits what is said of it.

No terminal is too narrow for them.
"""


class Cell(NamedTuple):
    text: str
    tint: int = 0


class Table(NamedTuple):
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    note: str = ""
    is_searched: bool = False
    is_pairs: bool = False


class Chart(NamedTuple):
    key: str
    title: str
    caption: str
    figure: Mapping[str, Any]
    height: int = 320
    size: str = "full"
    values: tuple[tuple[str, ...], ...] = ()


class Code(NamedTuple):
    label: str
    text: str


class Explorer(NamedTuple):
    """Sets of parameters to choose among, and what the browser knows of them."""

    key: str
    title: str
    caption: str
    data: Mapping[str, Any]


Block: TypeAlias = Paragraph | Table | Chart | Code | Explorer


class Section(NamedTuple):
    key: str
    title: str
    lead: str
    blocks: Sequence[Block]
    is_folded: bool = False
    is_half: bool = False


COLUMNS = (6, 7, 5)
"""Columns in which a wide page may show its small facts."""


def nothing() -> None:
    """Return None: the page of most results has no figures of a window of time."""


@dataclass(frozen=True)
class Page:
    """What a page shows.

    ``styles`` are those of the facts, in their order; ``chips`` are settings beside the title.
    ``collect_window`` returns what figures of a window of time are computed from. ``landmarks`` are
    windows that a page offers by name, each from one time to another.
    """

    kind: str
    manifest: Mapping[str, Any]
    title: str
    notices: Sequence[str]
    marked_summary: str
    details: str
    facts: Sequence[Fact]
    write_sections: Callable[[], Sequence[Section]]
    collect: Callable[[], Mapping[str, Any]] = dict
    styles: Sequence[FactStyle] = ()
    chips: Sequence[str] = ()
    collect_window: Callable[[], Mapping[str, Any] | None] = nothing
    landmarks: Sequence[tuple[str, str, str]] = ()

    @property
    def verdict(self) -> str:
        return strip_marks(self.marked_summary)

    @property
    def summary(self) -> str:
        """The verdict, and what must be known beside it."""
        return " ".join(filter(None, (self.verdict, strip_marks(self.details))))

    @property
    def subtitle(self) -> str:
        data = self.manifest["data"]
        if not data.get("bars"):
            return ""
        name = data["instrument"] or "unnamed instrument"
        return f"{name}, {format_span(data)}, {data['bars']:,} bars of {data['interval']}"

    @cached_property
    def sections(self) -> Sequence[Section]:
        return self.write_sections()

    @property
    def shown_facts(self) -> list[tuple[Fact, FactStyle]]:
        """The facts with their styles, the large ones first."""
        n_plain = len(self.facts) - len(self.styles)
        styles = [*self.styles, *[FactStyle()] * n_plain]
        pairs = [*zip(self.facts, styles, strict=True)]
        return sorted(pairs, key=lambda pair: not pair[1].is_large)

    @property
    def fact_columns(self) -> int:
        """The columns of the small facts that leave the fewest places of the last row empty."""
        n = len(self.facts) - sum(style.is_large for style in self.styles)
        return min(COLUMNS, key=lambda columns: (-n % columns, -columns))

    @property
    def rows(self) -> list[list[Section]]:
        """The sections by rows: one, or two halves side by side."""
        rows: list[list[Section]] = []
        for section in self.sections:
            is_second = bool(rows) and len(rows[-1]) == 1 and rows[-1][0].is_half
            if section.is_half and is_second:
                rows[-1].append(section)
            else:
                rows.append([section])
        return rows

    @property
    def is_timed(self) -> bool:
        """Whether the page has a first chart over time, whose window can be chosen."""
        return self.collect_window is not nothing

    @property
    def charts(self) -> tuple[Chart, ...]:
        blocks = (block for section in self.sections for block in section.blocks)
        return tuple(block for block in blocks if isinstance(block, Chart))


def build_pairs(caption: str, pairs: Iterator[tuple[str, str]]) -> Table:
    columns = (Column("item", is_number=False), Column("value", is_number=False))
    return Table(caption, columns, tuple(pairs), is_pairs=True)


MEASURE = "measure"
TINTS = (0.0, 0.03, 0.10, 0.25)
"""Sizes of a fraction above which the tint of its cell gets stronger."""


def write_table(shown: core.ShownTable) -> Table:
    """Return a table as texts: its first rows, under heads of its own, of measures, or plain."""
    lines = read_lines(shown)
    heads = find_heads(shown, [*lines.numeric])

    # The first rows, each a label and then its cells.
    first_labels = lines.labels[: shown.most]
    first_rows = lines.rows[: shown.most]
    rows = []
    for label, row in zip(first_labels, first_rows, strict=True):
        cells = write_row(shown, heads, str(label), row)
        rows.append((write_label(label, shown), *cells))

    # The column of labels, and one for each head. A column of texts that are all numbers, written
    # before, is one of numbers too.
    columns = [Column(shown.labels.title or lines.title, shown.labels.unit, is_number=False)]
    for place, (name, head) in enumerate(heads.items(), start=1):
        is_number = lines.numeric[name] or head.style != "number"
        if not is_number:
            is_number = has_numerals([row[place] for row in rows])
        columns.append(Column(head.title, head.unit, is_number, can_ruin=name in RUINOUS))

    notes = [shown.note]
    n_left = len(lines.labels) - len(rows)
    if n_left:
        notes.append(f"And {n_left:,} more rows.")
    note = " ".join(filter(None, notes))
    return Table(shown.caption, tuple(columns), tuple(rows), note, shown.is_searched)


NUMERAL = re.compile(r"[-+]?\d[\d,]*(\.\d+)?( ?%|x| bp)?")
BLANKS = ("", "-", "n/a")


def has_numerals(cells: Sequence[str | Cell]) -> bool:
    """Return whether texts are numbers that were written before, of different kinds as a rule."""
    texts = [cell if isinstance(cell, str) else cell.text for cell in cells]
    known = [text for text in texts if text not in BLANKS]
    return bool(known) and all(map(NUMERAL.fullmatch, known))


class Lines(NamedTuple):
    """What a table is written from: a label and a row for each line, of ``rows`` as many as shown.

    ``numeric`` says of each column whether it holds numbers, ``title`` is the name of the labels.
    """

    labels: list[Any]
    rows: list[Mapping[Any, Any]]
    numeric: dict[str, bool]
    title: str


def read_lines(shown: core.ShownTable) -> Lines:
    """Return the lines of a table, which is a mapping of rows by label, or a DataFrame.

    Of a DataFrame whose index has several levels, the first is the label of a line; the others are
    columns before its own.
    """
    table: Any = shown.table
    if isinstance(table, Mapping):
        rows = [*table.values()]
        numeric = {}
        for name in rows[0]:
            numeric[name] = not any(isinstance(row[name], str) for row in rows)
        return Lines([*table], rows, numeric, title="")

    frame = table.reset_index(level=list(range(1, table.index.nlevels)))
    return Lines(
        labels=[*frame.index],
        rows=frame.head(shown.most).to_dict("records"),
        numeric={str(name): pd.api.types.is_numeric_dtype(frame[name]) for name in frame},
        title=str(frame.index.name or "").replace("_", " "),
    )


def find_heads(shown: core.ShownTable, columns: Sequence[str]) -> dict[str, Head]:
    """Return the heads of the columns that are shown, by name.

    A head may be that of a range, which ends in another column: that one has no head of its own.
    """
    heads = {}
    for name in shown.columns or columns:
        heads[name] = shown.heads.get(name) or find_usual_head(name)

    ends_of_ranges = {head.until for head in heads.values()}
    return {name: head for name, head in heads.items() if name not in ends_of_ranges}


def find_usual_head(name: str) -> Head:
    """Return the head of a column that its table does not name."""
    if name in HEADS:
        return HEADS[name]
    if name in ABOUT:
        return Head(name_measure(name), "", MEASURE)
    return Head(name.replace("_", " "))


def write_label(label: Any, shown: core.ShownTable) -> str:
    if isinstance(label, dt.datetime):
        return core.format_time(pd.Timestamp(label).value)
    if isinstance(label, str):
        return name_measure(label) if shown.has_measures else label
    if isinstance(label, tuple):
        return ", ".join(write_label(each, shown) for each in label)
    return STYLES[shown.labels.style](float(label))


def write_row(
    shown: core.ShownTable,
    heads: Mapping[str, core.Head],
    label: str,
    row: Mapping[Any, Any],
) -> Iterator[str | Cell]:
    """Yield the cells of a row; in a table of measures by row, ``label`` is the measure."""
    for name, head in heads.items():
        value = row[name]

        if shown.has_measures and not isinstance(value, str):
            yield format_measure(label, float(value))
        elif head.style == MEASURE:
            yield write_measure(name, float(value))
        elif shown.is_tinted:
            yield Cell(write_value(head, row, name), choose_tint(float(value)))
        else:
            yield write_value(head, row, name)


def write_value(head: core.Head, row: Mapping[Any, Any], name: str) -> str:
    """Return the text of a value, or of the range that it begins."""
    write = STYLES[head.style]
    text = core.format_cell(row[name], write)
    if not head.until:
        return text

    end = core.format_cell(row[head.until], write)
    if text == NONE and end == NONE:
        return NONE
    return f"{text} to {end}"


def choose_tint(value: float) -> int:
    """Return how strongly a cell is tinted, with the sign of its value."""
    known = np.nan_to_num(value)
    return int(np.sign(known)) * int(np.searchsorted(TINTS, abs(known)))


PLAIN = ("count", "0 or 1")
"""Units of measures that are written without one."""


def format_measure(name: str, value: float) -> Measured:
    return Measured(write_measure(name, value), name, MEASURE)


def write_measure(name: str, value: float) -> str:
    if math.isnan(value):
        return "n/a"
    if name not in ABOUT:
        return core.format_number(value)

    unit = ABOUT[name].unit
    if unit in ("fraction", "fraction per year") or name == "volatility":
        return core.format_percent(value)
    if unit == "money":
        return core.format_money(value)
    if unit in PLAIN:
        return f"{value:z,.0f}"
    return core.format_number(round(value, 2) + 0.0)  # no -0


def name_unit(name: str) -> str:
    unit = ABOUT[name].unit
    if unit in PLAIN:
        return ""
    return unit.removeprefix("fraction").strip()


def format_span(data: Mapping[str, Any]) -> str:
    """Return the times of the first and of the last bar; of days, their dates."""
    end = str(data["end"])
    interval = core.parse_duration(str(data.get("interval") or "1m"), "interval")
    if interval >= core.DAY and end:
        end = core.format_time(core.to_nanoseconds(end, "end") - interval)
    return f"{data['start']} to {end} UTC"
