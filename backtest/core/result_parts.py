"""How a saved result describes itself: its numbers, tables and charts, as plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from backtest.core.code_names import pd
from backtest.core.number_text import NOT_AVAILABLE, STYLES, Head

NOTHING: Mapping[str, Any] = MappingProxyType({})

MONEY = "Money is in the currency in which the venue settles."
"""What stands under tables with money."""


class Headline(NamedTuple):
    """A figure of a page: ``about`` defines it where its name is that of no measure."""

    name: str
    title: str
    value: float
    style: str = "number"
    note: str = ""
    text: str = ""
    about: str = ""
    is_large: bool = False

    def __str__(self) -> str:
        if self.text:
            return self.text
        if self.is_unknown:
            return NOT_AVAILABLE
        return STYLES[self.style](self.value)

    @property
    def is_unknown(self) -> bool:
        return math.isnan(self.value) and self.style != "round money"


class ShownTable(NamedTuple):
    """A table to show: a frame, or its rows by label; None is left out."""

    table: pd.DataFrame | Mapping[str, Mapping[str, Any]] | None
    caption: str = ""
    note: str = ""
    labels: Head = Head("")
    heads: Mapping[str, Head] = NOTHING
    columns: tuple[str, ...] = ()
    most: int = 200
    empty: str = "There are none."
    has_measures: bool = False
    is_searched: bool = False
    is_tinted: bool = False


class Panel(NamedTuple):
    """A part of a chart that has an axis of its own; ``scale`` is empty or ``"log"``.

    ``filled`` shades what lies between its lines and 0.
    """

    title: str
    columns: tuple[str, ...]
    height: float = 1.0
    percent: bool = False
    from_zero: bool = False
    scale: str = ""
    filled: bool = False


class ShownChart(NamedTuple):
    """A chart of columns of a table over its index; without a table it is left out.

    ``kind`` is ``"line"``, ``"points"`` (a line with its points), ``"steps"``, ``"area"`` (stacked
    above and below 0), ``"bars"``, ``"heat"`` (a map over two levels of the index), ``"tornado"``
    (two bars per label of the first level, of its lowest and its highest step), ``"ranked"`` (a
    bar per label), ``"fan"`` (bands between columns, the middle one a line), ``"cloud"`` (points),
    ``"scatter"`` (and where both axes are equal), ``"intervals"`` (values by label, from the second
    column to the third, in color where the fourth holds), ``"quotes"`` (a line of the first column,
    bars from the second to the third), ``"history"`` (points of the first column, and the line of
    the second) or ``"accounts"`` (unit values over time above their drawdowns). ``colors`` are
    roles by column, ``dotted`` columns drawn as dotted lines. ``spans`` are shaded over all panels,
    each from one time to another in ns, with its name. ``log`` and
    ``percent`` name axes: ``"x"``, ``"y"`` or both. ``marks`` are dotted lines on the x axis, times
    in ns, named by ``mark_names``. ``events`` are marked in the first panel: ``y``, ``label``,
    ``color``, ``symbol`` and ``row``, that of the ledger of the page; ``panel`` is the title of
    another panel. ``lines`` cross all panels, each at a time in ns, with its name, the first named
    first. The axis of time ends at ``until``, in ns, if that is not 0. Of lines with a name in
    ``choices`` a page shows one choice at a time, the first at first; so it is with events in the
    column ``choice``. ``labels`` are names of lines that are not those of their columns. ``limits``
    are the ends of the colors of a map, with white between them. ``size``
    is ``"full"``, ``"half"``, ``"third"``, ``"narrow"`` or ``"beside"`` (the tables before it),
    ``height`` in pixels.
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
    panels: tuple[Panel, ...] = ()
    events: pd.DataFrame | None = None
    mark_names: tuple[str, ...] = ()
    dotted: tuple[str, ...] = ()
    spans: tuple[tuple[int, int, str], ...] = ()
    lines: tuple[tuple[int, str], ...] = ()
    until: int = 0
    choices: Mapping[str, str] = NOTHING
    labels: Mapping[str, str] = NOTHING
    limits: tuple[float, float] | None = None


class ShownExplorer(NamedTuple):
    """Sets of parameters, to be chosen among on a page; a terminal does not show them."""

    key: str
    title: str
    caption: str
    data: Mapping[str, Any]


Shown: TypeAlias = ShownTable | ShownChart | ShownExplorer | str


class Part(NamedTuple):
    """A section of a result; ``shows`` is ``"page"``, ``"summary"`` (for a terminal) or ``"both"``.

    ``blocks`` may be a function that makes them when they are shown, and so may each chart. Two
    parts in a row that are ``is_half`` stand side by side.
    """

    key: str
    title: str
    lead: str
    blocks: Sequence[Shown] | Callable[[], Iterable[Shown | Callable[[], ShownChart]]]
    shows: str = "page"
    is_folded: bool = False
    is_half: bool = False

    def list_blocks(self, *, with_charts: bool = True) -> list[Shown]:
        """Return the blocks that are shown; charts are made only where they are wanted."""
        blocks: Any = self.blocks
        if callable(blocks):
            blocks = blocks()

        shown: list[Shown] = []
        for block in blocks:
            is_made_late = callable(block)
            is_drawn = is_made_late or isinstance(block, ShownChart | ShownExplorer)
            if is_drawn and not with_charts:
                continue
            shown.append(block() if is_made_late else block)
        return shown
