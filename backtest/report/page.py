"""The content of a report before it is written: sections of blocks, made from what is declared."""

from __future__ import annotations

import datetime as dt
import math
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

STYLED = {
    "percent": ("share", "volatility", "max_drawdown", "total_return"),
    "decimals": ("in_sample", "out_of_sample", "rank"),
    "money": ("capital", "final_equity", "bad_debt"),
    "turns": ("mean_leverage",), "count": ("liquidations",), "claim": ("liquidated", "ruined"),
}  # fmt: skip
HEADS: Mapping[str, Head] = {
    **{x: Head(x.replace("_", " "), "", style) for style, names in STYLED.items() for x in names},
    "growth": Head("growth", "per year", "percent"),
    "change_of_growth": Head("change of growth", "per year", "signed percent"),
    "log_growth": Head("log growth", "per year", "growth"),
    "trials": Head("sets", "", "count"),
    "deflated_sharpe": Head("deflated Sharpe", "", "probability"),
    "pbo": Head("overfitting", "", "decimals"),
    "p_holm": Head("p", "corrected", "p-value"),
    "impact": Head("impact", "per year", "percent"),
    "costs": Head("costs", "per year", "percent"),
    "sharpe": Head("Sharpe ratio", "", "decimals"),
    "equity": Head("equity", "money", "money"),
    "p_ruin": Head("ruin", "probability", "chance"),
    "p_liquidation": Head("liquidation", "probability", "chance"),
}


def list_heads(style: str, names: Iterable[Any], unit: str = "money") -> dict[str, Head]:
    return {str(name): Head(str(name).replace("_", " "), unit, style) for name in names}


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


RUINOUS = frozenset((
    "probability", "p_liquidation", "p_ruin", "p_default", "model_probability_simulation_low",
    "p_liquidation_simulation_low", "p_ruin_simulation_low", "p_default_simulation_low", "ruined",
    "liquidated", "liquidations", "bad_debt", "lost_to_default", "shortfall", "shortfalls",
    "wiped_out", "history", "is_limited", "is_monotone",
))  # fmt: skip
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
            return "Without a market"
        name, bars = data["instrument"] or "unnamed instrument", f"{data['bars']:,} bars"
        return f"{name}, {format_span(data)}, {bars} of {data['interval']}"

    @cached_property
    def sections(self) -> Sequence[Section]:
        return self.write_sections()

    @property
    def shown_facts(self) -> list[tuple[Fact, FactStyle]]:
        """The facts with their styles, the large ones first."""
        styles = [*self.styles, *[FactStyle()] * (len(self.facts) - len(self.styles))]
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
    columns = Column("item", is_number=False), Column("value", is_number=False)
    return Table(caption, columns, tuple(pairs), is_pairs=True)


MEASURE = "measure"
TINTS = (0.0, 0.03, 0.10, 0.25)
"""Sizes of a fraction above which the tint of its cell gets stronger."""


def write_table(shown: core.ShownTable) -> Table:
    whole: Any = shown.table
    if isinstance(whole, Mapping):
        labels, rows, title = [*whole], [*whole.values()], ""
        numeric = {name: not any(isinstance(row[name], str) for row in rows) for name in rows[0]}
    else:
        frame = whole.reset_index(level=list(range(1, whole.index.nlevels)))
        labels, rows = [*frame.index], frame.head(shown.most).to_dict("records")
        title = str(frame.index.name or "").replace("_", " ")
        numeric = {str(name): pd.api.types.is_numeric_dtype(frame[name]) for name in frame}
    heads = {}
    for name in shown.columns or numeric:
        of_measure = Head(name_measure(name), "", MEASURE) if name in ABOUT else None
        usual = HEADS.get(name) or of_measure or Head(name.replace("_", " "))
        heads[name] = shown.heads.get(name) or usual
    ends = {head.until for head in heads.values()}
    heads = {name: head for name, head in heads.items() if name not in ends}
    texts = tuple(
        (write_label(label, shown), *write_row(shown, heads, str(label), row))
        for label, row in zip(labels[: shown.most], rows[: shown.most], strict=True)
    )
    columns = (
        Column(shown.labels.title or title, shown.labels.unit, is_number=False),
        *(Column(head.title, head.unit, numeric[name] or head.style != "number", name in RUINOUS)
          for name, head in heads.items()),
    )  # fmt: skip
    left = len(whole) - len(texts)
    note = f"{shown.note} {f'And {left:,} more rows.' if left else ''}".strip()
    return Table(shown.caption, columns, texts, note, shown.is_searched)


def write_label(label: Any, shown: core.ShownTable) -> str:
    if isinstance(label, dt.datetime):
        return core.format_time(pd.Timestamp(label).value)
    if isinstance(label, str):
        return name_measure(label) if shown.has_measures else label
    if isinstance(label, tuple):
        return ", ".join(write_label(each, shown) for each in label)
    return STYLES[shown.labels.style](float(label))


def write_row(
    shown: core.ShownTable, heads: Mapping[str, core.Head], label: str, row: Mapping[Any, Any]
) -> Iterator[str | Cell]:
    for name, head in heads.items():
        if (shown.has_measures and not isinstance(row[name], str)) or head.style == MEASURE:
            write = format_measure if shown.has_measures else write_measure
            yield write(label if shown.has_measures else name, float(row[name]))
            continue
        ends: Sequence[Any] = [row[name], *([row[head.until]] if head.until else [])]
        cells = [core.format_cell(each, STYLES[head.style]) for each in ends]
        text = NONE if {*cells} == {NONE} else " to ".join(cells) if head.until else cells[0]
        if not shown.is_tinted:
            yield text
            continue
        value = np.nan_to_num(float(row[name]))
        yield Cell(text, int(np.sign(value)) * int(np.searchsorted(TINTS, abs(value))))


PLAIN = ("count", "0 or 1")


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
    return f"{value:,.0f}" if unit in PLAIN else core.format_number(round(value, 2) + 0.0)


def name_unit(name: str) -> str:
    unit = ABOUT[name].unit
    return "" if unit in PLAIN else unit.removeprefix("fraction").strip()


def format_span(data: Mapping[str, Any]) -> str:
    end, text = str(data["end"]), str(data.get("interval") or "1m")
    interval = core.parse_duration(text, "interval")
    if interval >= core.DAY and end:
        end = core.format_time(core.to_nanoseconds(end, "end") - interval)
    return f"{data['start']} to {end} UTC"
