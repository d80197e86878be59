"""The content of a report, before it is HTML, Markdown or JSON: sections of blocks.

Every text here is plain: whoever writes a page out escapes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias


class Text(NamedTuple):
    """A paragraph; ``tone`` is ``"plain"``, ``"note"`` (small print) or ``"warning"``."""

    text: str
    tone: str = "plain"


class Fact(NamedTuple):
    """One headline number: what it is, its value with the unit, and what to hold it against."""

    label: str
    value: str
    note: str = ""


class Facts(NamedTuple):
    """Headline numbers, the most telling first."""

    facts: tuple[Fact, ...]


class Column(NamedTuple):
    """The head of a column: its title, the unit of all its cells, whether they are numbers."""

    title: str
    unit: str = ""
    is_number: bool = True


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


class Ledger(NamedTuple):
    """A long table to search: ``kinds`` are what to filter by, found in the second column."""

    table: Table
    kinds: tuple[str, ...]


class Code(NamedTuple):
    """A text to copy, or data to look into; ``is_folded`` shows its label only, until opened."""

    label: str
    text: str
    is_folded: bool = False


Block: TypeAlias = Text | Facts | Table | Chart | Ledger | Code


def describe_span(data: Mapping[str, Any]) -> str:
    """Return the instrument, the time and the bars of the data in a manifest."""
    name = data["instrument"] or "unnamed instrument"
    return (
        f"{name}, {data['start']} to {data['end']} UTC, {data['bars']:,} bars of {data['interval']}"
    )


@dataclass(frozen=True)
class Section:
    """A part of a page with a title, one sentence that says what it tells, and its blocks."""

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
        ``"run"``, ``"sweep"``, ``"study"`` or ``"comparison"``.
    title, subtitle : str
        What was done, and on which data.
    identity : str
        The id of the result.
    notices : sequence of str
        What must be read before any number.
    summary : str
        The story in a few sentences.
    facts : Facts
        Headline numbers.
    write_sections : callable
        Returns the sections in the order of reading; called when they are first asked for.
    collect : callable
        Returns the numbers themselves, for JSON.
    """

    kind: str
    title: str
    subtitle: str
    identity: str
    notices: Sequence[str]
    summary: str
    facts: Facts
    write_sections: Callable[[], Sequence[Section]]
    collect: Callable[[], Mapping[str, Any]] = dict

    @cached_property
    def sections(self) -> Sequence[Section]:
        """The sections, in the order of reading."""
        return self.write_sections()

    @property
    def charts(self) -> tuple[Chart, ...]:
        """All charts, in their order."""
        blocks = (block for section in self.sections for block in section.blocks)
        return tuple(block for block in blocks if isinstance(block, Chart))
