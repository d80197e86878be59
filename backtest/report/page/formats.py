"""Write a page to a file: as HTML, Markdown, JSON, or a picture of its first chart."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from backtest.base import Choice, DataError, ParameterError, replace_file, to_json
from backtest.report.page.page import (
    Cell,
    Chart,
    Code,
    Column,
    Fact,
    Page,
    Paragraph,
    SearchTable,
    Table,
)

FORMATS = ("html", "md", "json", "png")
LEDGER_ROWS = 30
"""Rows of a ledger that are written in Markdown."""


def write_page(page: Page, path: Path, format_: str | None = None) -> Path:
    """Write a page to a file, and make its folders; return its path.

    Without a format, the name of the file decides, and HTML is the default. Raises ParameterError
    for an unknown format, and DataError if the file cannot be written or no browser is installed
    that can draw a picture.
    """
    chosen = choose_format(path, format_)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # a pipe or a terminal
            write_format(page, path, chosen)
        else:
            with replace_file(path.resolve()) as draft:
                write_format(page, draft, chosen)
    except OSError as error:
        raise DataError(
            f"cannot write the report: {error.strerror or error}",
            where=str(path),
            cure="choose another file with --out, or free some space",
        ) from error
    return path


def write_format(page: Page, path: Path, format_: str) -> None:
    """Write a page to a file in a format."""
    if format_ == "png":
        from backtest.report.page.picture import write_png  # noqa: PLC0415 - seldom used

        write_png(page, path)
    else:
        path.write_text(write_text(page, format_), encoding="utf-8", newline="\n")


def choose_format(path: Path, format_: str | None) -> str:
    """Return the format that was asked for, else that of the file's ending; without one, HTML."""
    ending = path.suffix.lstrip(".").lower()
    if format_ is None and ending and ending not in FORMATS:
        endings = ", ".join(f".{each}" for each in FORMATS)
        raise ParameterError(
            f"a report must end in one of {endings}, got {path.name!r}",
            where="report",
            cure=f"name it {path.stem}.html",
        )
    if format_ is None:
        format_ = ending or "html"
    Choice(*FORMATS).check("format", format_, where="report, format")
    return format_


def write_text(page: Page, format_: str) -> str:
    """Return a page as the text of a format."""
    if format_ == "json":
        return write_json(page)
    if format_ == "md":
        return write_markdown(page)
    from backtest.report.page.html import write_html  # noqa: PLC0415 - loads plotly.js

    return write_html(page)


# ------------------------------------------------------------------------------------------- JSON


def write_json(page: Page) -> str:
    """Return the numbers of a page as JSON; those that are not finite become null."""
    content = {
        "kind": page.kind,
        "id": page.identity,
        "title": page.title,
        "subtitle": page.subtitle,
        "notices": list(page.notices),
        "summary": page.summary,
        **page.collect(),
    }
    return json.dumps(to_json(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


# --------------------------------------------------------------------------------------- Markdown


def write_markdown(page: Page) -> str:
    """Return a page as Markdown: everything but the charts, of which the titles are named."""
    lines = [
        f"# {escape_markdown(page.title)}",
        f"{escape_markdown(page.subtitle)}. {page.kind.capitalize()} `{page.identity}`.",
        *(f"> **{escape_markdown(notice)}**" for notice in page.notices),
        escape_markdown(page.summary),
        *write_facts(page.facts),
    ]
    for section in page.sections:
        lines += [f"## {escape_markdown(section.title)}", escape_markdown(section.lead)]
        for block in section.blocks:
            lines += write_block(block)
    return "\n\n".join(lines) + "\n"


def write_block(block: Any) -> Iterator[str]:
    """Yield the paragraphs of a block."""
    if isinstance(block, Paragraph):
        yield escape_markdown(block.text)
    elif isinstance(block, Table):
        yield from write_table(block)
    elif isinstance(block, SearchTable):
        yield from write_table(block.table, LEDGER_ROWS)
    elif isinstance(block, Chart):
        yield f"*Chart in the HTML report: {escape_markdown(block.title)}.*"
    elif isinstance(block, Code) and not block.is_folded:
        yield escape_markdown(block.label)
        yield fence_code(block.text)


def write_facts(facts: Iterable[Fact]) -> Iterator[str]:
    """Yield headline numbers as a table."""
    columns = (Column("", is_number=False), Column("value"), Column("", is_number=False))
    yield from write_table(Table("", columns, tuple(facts)))


def write_table(table: Table, most: int | None = None) -> Iterator[str]:
    """Yield the caption of a table, at most ``most`` of its rows, and its note."""
    if table.caption:
        yield f"### {escape_markdown(table.caption)}"
    heads = [f"{each.title} ({each.unit})" if each.unit else each.title for each in table.columns]
    lines = [
        "| " + " | ".join(escape_markdown(head) for head in heads) + " |",
        "|" + "|".join("---:" if each.is_number else "---" for each in table.columns) + "|",
    ]
    for row in table.rows[:most]:
        texts = (cell.text if isinstance(cell, Cell) else cell for cell in row)
        lines.append("| " + " | ".join(escape_markdown(text) for text in texts) + " |")
    yield "\n".join(lines)
    if most is not None and len(table.rows) > most:
        yield f"The first {most} of {len(table.rows):,} rows."
    if table.note:
        yield escape_markdown(table.note)


def escape_markdown(text: str) -> str:
    r"""Escape a text for Markdown, and put it on one line.

    Examples
    --------
    >>> escape_markdown("<b>|x|")
    '&lt;b>\\|x\\|'
    """
    line = " ".join(str(text).split())
    for mark in ("\\", "|", "*", "_", "`", "[", "]", "#"):
        line = line.replace(mark, f"\\{mark}")
    return line.replace("&", "&amp;").replace("<", "&lt;")


def fence_code(text: str) -> str:
    """Return a text as a code block, fenced so that no part of the text can end it."""
    longest = max((len(run) for run in text.split() if set(run) == {"`"}), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}\n{text}\n{marks}"
