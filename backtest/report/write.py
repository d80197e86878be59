"""Build the page of a result from what it declares, and write it in one of its forms."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from backtest.base import (
    Headline,
    Part,
    Shown,
    ShownChart,
    capitalize,
    clip,
    name_folder,
)
from backtest.report.basis import NOTHING, Background, build_basis, find_background, list_terms
from backtest.report.charts import draw_declared
from backtest.report.page import SYNTHETIC, Block, Fact, Page, Paragraph, Section, write_table
from backtest.report.render import LONGEST_TITLE, write_page, write_terminal


def build_page(found: Any, objective: str = "sharpe") -> Page:
    """Return the whole page; ``objective`` ranks the sets of a sweep."""
    vars(found)["ranked_by"] = objective
    return build_head(found, find_background(found))


def build_head(found: Any, background: Background = NOTHING) -> Page:
    manifest = dict(found.manifest)
    data = dict(manifest.get("data", {}))
    return Page(
        kind=found.called or found.kind,
        manifest={**manifest, "data": data},
        title=clip(found.heading, LONGEST_TITLE),
        notices=[*found.notices, *([SYNTHETIC] if data.get("synthetic") else [])],
        summary=f"{write_sentence(found.verdict_text)} {found.details}".rstrip(),
        facts=[write_fact(each) for each in found.list_numbers()],
        write_sections=lambda: list_sections(found, background),
        collect=lambda: {**found.to_dict(), **background.to_dict()},
        about=found.about or ("" if data.get("bars") else "Without a market"),
    )


def list_sections(found: Any, background: Background) -> list[Section]:
    shown = [each for each in found.list_parts() if each.shows != "summary"]
    sections = [section for each in shown if (section := write_part(each)).blocks]
    first = [each for each in sections if not each.is_folded]
    command = ["backtest", "report", name_folder(found.folder_title, str(found.manifest["id"]))]
    basis = build_basis(found, shlex.join(command), background)
    return [*first, *basis, *(each for each in sections if each.is_folded)]


def write_sentence(text: str) -> str:
    return capitalize(text) if text.endswith((".", "?")) else f"{capitalize(text)}."


def write_fact(number: Headline) -> Fact:
    return Fact(number.title, str(number), number.note)


def write_part(part: Part) -> Section:
    blocks = list(write_blocks(part.list_blocks(), part.key))
    return Section(part.key, part.title, part.lead, blocks, part.is_folded)


def write_blocks(blocks: Iterable[Shown], key: str) -> Iterator[Block]:
    for shown in blocks:
        if isinstance(shown, str):
            if shown:
                yield Paragraph(shown, "note")
        elif shown.table is None:
            continue
        elif isinstance(shown, ShownChart):
            chart = draw_declared(shown)
            if chart is not None:
                yield chart._replace(key=chart.key or key)
        elif len(shown.table):
            yield write_table(shown, shown.table)
        elif shown.empty:
            yield Paragraph(shown.empty)


def write_report(found: Any, path: Path, format_: str | None = None) -> Path:
    return write_page(build_page(found), path, format_)


def write_summary(found: Any) -> str:
    """Return the parts that a summary shows, without charts, and what the account assumes."""
    page = build_head(found)
    sections = []
    for part in found.list_parts():
        if part.shows != "page":
            blocks = [each for each in part.list_blocks() if not isinstance(each, ShownChart)]
            if written := list(write_blocks(blocks, part.key)):
                sections.append(Section(part.key, part.title, part.lead, written))
    terms = list_terms(found.manifest)
    if terms:
        sections.append(Section("terms", "", "", [Paragraph(""), *terms]))
    return write_terminal(page, sections)
