"""The content of a report, before it is HTML, Markdown or JSON: sections of blocks.

Every text here is plain: whoever writes a page out escapes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

from backtest.base import format_span


class Paragraph(NamedTuple):
    """A paragraph; ``tone`` is ``"plain"``, ``"note"`` (small print) or ``"warning"``."""

    text: str
    tone: str = "plain"


class Fact(NamedTuple):
    """One headline number: what it is, its value with the unit, and what to hold it against."""

    label: str
    value: str
    note: str = ""


class Column(NamedTuple):
    """The head of a column: its title, the unit of all its cells, whether they are numbers."""

    title: str
    unit: str = ""
    is_number: bool = True


def name_columns(*titles: str | tuple[str, str], text: Collection[str] = ()) -> tuple[Column, ...]:
    """Return the heads of a table, each from a title or a title and a unit.

    The first column holds text, as do those in ``text``; the others hold numbers.
    """
    pairs = [(each, "") if isinstance(each, str) else each for each in titles]
    return tuple(
        Column(title, unit, is_number=place > 0 and title not in text)
        for place, (title, unit) in enumerate(pairs)
    )


class Cell(NamedTuple):
    """A cell with a tint: from -4 (a large loss) over 0 (none) to 4 (a large gain)."""

    text: str
    tint: int = 0


class Table(NamedTuple):
    """A table of texts; the first column of each row is its head."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    note: str = ""


class Chart(NamedTuple):
    """A Plotly figure as data, with what it shows in words.

    ``title`` names it; ``caption`` says how to read it, and stands in for it where it cannot be
    seen. ``height`` is in pixels; ``size`` how much of the page's width it takes:
    ``"full"``, ``"narrow"``, or ``"half"``, two beside each other.
    """

    key: str
    title: str
    caption: str
    figure: Mapping[str, Any]
    height: int = 320
    size: str = "full"


class SearchTable(NamedTuple):
    """A long table to search: ``kinds`` are what to filter by, found in the second column."""

    table: Table
    kinds: tuple[str, ...]


class Code(NamedTuple):
    """A text to copy, or data to look into; ``is_folded`` shows its label only, until opened."""

    label: str
    text: str
    is_folded: bool = False


SYNTHETIC = "Synthetic data: these prices are made up."

Block: TypeAlias = Paragraph | Table | Chart | SearchTable | Code


@dataclass(frozen=True)
class Section:
    """A part of a page: a title, one sentence on what it shows, and its blocks."""

    key: str
    title: str
    lead: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes
    ----------
    kind : str
        What the result is, in words.
    manifest : mapping
        How the result was made, with its ``id`` and its ``data``.
    title : str
        What was done.
    notices : sequence of str
        What must be read before any number.
    summary : str
        The result in a few sentences.
    facts : sequence of Fact
        Headline numbers, the most important first.
    write_sections : callable
        Returns the sections in the order of reading; called when they are first asked for.
    collect : callable
        Returns the numbers themselves, for JSON.
    about : str
        The subtitle of a page about no market's bars.
    """

    kind: str
    manifest: Mapping[str, Any]
    title: str
    notices: Sequence[str]
    summary: str
    facts: Sequence[Fact]
    write_sections: Callable[[], Sequence[Section]]
    collect: Callable[[], Mapping[str, Any]] = dict
    about: str = ""

    @property
    def identity(self) -> str:
        """The id of the result."""
        return str(self.manifest["id"])

    @property
    def subtitle(self) -> str:
        """The instrument, the time and the bars of the data, or what the page is about."""
        if self.about:
            return self.about
        data = self.manifest["data"]
        bars = f"{data['bars']:,} bars of {data['interval']}"
        name = data["instrument"] or "unnamed instrument"
        return f"{name}, {format_span(data)}, {bars}"

    @cached_property
    def sections(self) -> Sequence[Section]:
        """The sections, in the order of reading."""
        return self.write_sections()

    @property
    def charts(self) -> tuple[Chart, ...]:
        """All charts, in their order."""
        blocks = (block for section in self.sections for block in section.blocks)
        return tuple(block for block in blocks if isinstance(block, Chart))
