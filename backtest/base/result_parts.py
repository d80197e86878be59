"""How a saved result describes itself: its numbers, tables and charts, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import pandas as pd

from backtest.base.number_text import NOT_AVAILABLE
from backtest.base.table_text import STYLES, Head

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Headline(NamedTuple):
    name: str
    title: str
    value: float
    style: str = "number"
    note: str = ""
    better: str = ""
    text: str = ""

    def __str__(self) -> str:
        return self.text or (NOT_AVAILABLE if self.is_unknown else STYLES[self.style](self.value))

    @property
    def is_unknown(self) -> bool:
        return math.isnan(self.value) and self.style != "round money"


class ShownTable(NamedTuple):
    table: pd.DataFrame | None
    caption: str = ""
    note: str = ""
    labels: Head = Head("")
    heads: Mapping[str, Head] = NOTHING
    columns: tuple[str, ...] = ()
    most: int = 200
    empty: str = "There are none."
    has_measures: bool = False
    is_searched: bool = False


class ShownChart(NamedTuple):
    """A chart of columns of a table over its index.

    Attributes
    ----------
    key, title, caption : str
        Its name on the page; what it shows; how to read it.
    table : DataFrame or None
        The columns that are drawn, by the values of the x axis; None leaves it out.
    kind : str
        ``"line"``, ``"points"`` (a line with its points), ``"steps"``, ``"bars"``, ``"heat"`` (a
        map over two levels of the index), ``"tornado"`` (a bar per label of the first level,
        from its lowest to its highest), ``"scatter"`` (points, and where both axes are equal),
        ``"intervals"`` (values by label, from the second column to the third, in color where the
        fourth holds), ``"accounts"`` (unit values over time above their drawdowns) or ``"fan"``
        (such values in gray, and their median).
    colors : mapping of str to str
        Roles of colors by column; without one they take turns.
    x, y : str
        Titles of the axes.
    log : str
        The axes that are logarithmic: ``"x"``, ``"y"`` or both.
    percent : str
        The axes of fractions, written in percent.
    marks : tuple of float
        Places on the x axis that are marked by a dotted line, times in ns; NaN marks none.
    has_legend : bool
        Whether the columns are named beside the chart.
    size : str
        ``"full"``, ``"half"`` or ``"narrow"``, as in :class:`backtest.report.page.page.Chart`.
    height : int
        In pixels.
    """

    key: str
    title: str
    caption: str
    table: pd.DataFrame | pd.Series[float] | None
    kind: str = "line"
    colors: Mapping[str, str] = NOTHING
    x: str = ""
    y: str = ""
    log: str = ""
    percent: str = ""
    marks: tuple[float, ...] = ()
    has_legend: bool = False
    size: str = "full"
    height: int = 300


Shown: TypeAlias = ShownTable | ShownChart | str


class Part(NamedTuple):
    key: str
    title: str
    lead: str
    blocks: tuple[Shown, ...]


def list_changes(before: Sequence[Headline], after: Sequence[Headline]) -> pd.DataFrame:
    first = {each.name: each for each in before}
    rows = {}
    for each in (each for each in after if each.name in first):
        change = each.value - first[each.name].value
        is_better = (change > 0.0) == (each.better == "more")
        word = ("better" if is_better else "worse") if each.better and abs(change) > 0.0 else ""
        rows[each.name] = {
            "number": each.title, "before": str(first[each.name]), "after": str(each),
            "change": change, "is": word,
        }  # fmt: skip
    columns = ["number", "before", "after", "change", "is"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)
