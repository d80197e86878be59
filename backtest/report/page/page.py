"""The content of a report, before it is HTML, Markdown or JSON: sections of blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

from backtest.base import format_span


class Paragraph(NamedTuple):
    text: str
    tone: str = "plain"


class Fact(NamedTuple):
    label: str
    value: str
    note: str = ""


class Column(NamedTuple):
    title: str
    unit: str = ""
    is_number: bool = True


def name_columns(*titles: str | tuple[str, str], text: Collection[str] = ()) -> tuple[Column, ...]:
    pairs = [(each, "") if isinstance(each, str) else each for each in titles]
    return tuple(
        Column(title, unit, is_number=place > 0 and title not in text)
        for place, (title, unit) in enumerate(pairs)
    )


class Cell(NamedTuple):
    text: str
    tint: int = 0


class Table(NamedTuple):
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    note: str = ""


class Chart(NamedTuple):
    key: str
    title: str
    caption: str
    figure: Mapping[str, Any]
    height: int = 320
    size: str = "full"


class SearchTable(NamedTuple):
    table: Table
    kinds: tuple[str, ...]


class Code(NamedTuple):
    label: str
    text: str
    is_folded: bool = False


SYNTHETIC = "Synthetic data: these prices are made up."

Block: TypeAlias = Paragraph | Table | Chart | SearchTable | Code


@dataclass(frozen=True)
class Section:
    key: str
    title: str
    lead: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
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
        return str(self.manifest["id"])

    @property
    def subtitle(self) -> str:
        if self.about:
            return self.about
        data = self.manifest["data"]
        bars = f"{data['bars']:,} bars of {data['interval']}"
        name = data["instrument"] or "unnamed instrument"
        return f"{name}, {format_span(data)}, {bars}"

    @cached_property
    def sections(self) -> Sequence[Section]:
        return self.write_sections()

    @property
    def charts(self) -> tuple[Chart, ...]:
        blocks = (block for section in self.sections for block in section.blocks)
        return tuple(block for block in blocks if isinstance(block, Chart))
