"""Write a page out: as HTML, Markdown, JSON, or a picture of its first chart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from backtest.base.atomic_files import replace_file
from backtest.base.errors import DataError
from backtest.base.json_values import to_json
from backtest.base.ranges import Choice
from backtest.report.page.page import Cell, Chart, Code, Column, Facts, Ledger, Page, Table, Text

Format = Literal["html", "md", "json", "png"]

FORMATS = ("html", "md", "json", "png")
LEDGER_ROWS = 30
"""Events that stand in Markdown."""


def write_page(page: Page, path: Path, format_: str | None = None) -> Path:
    """Write a page to a file; return its path.

    Parameters
    ----------
    page : Page
        What to write.
    path : Path
        The file; folders are made.
    format_ : str, optional
        ``"html"``, ``"md"``, ``"json"`` or ``"png"``; what the name of the file ends with, or
        HTML, where it is not said.

    Raises
    ------
    ParameterError
        If there is no such format.
    DataError
        If the file cannot be written, or a picture needs a browser that is not there.
    """
    chosen = choose_format(path, format_)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # a pipe or a terminal
            fill(page, path, chosen)
        else:
            with replace_file(path.resolve()) as draft:
                fill(page, draft, chosen)
    except OSError as error:
        raise DataError(
            f"a report must be writable to its file: {error.strerror or error}",
            where=str(path),
            cure="choose another file with --out, or free some space",
        ) from error
    return path


def fill(page: Page, path: Path, format_: str) -> None:
    """Write a page to a file as it comes."""
    if format_ == "png":
        from backtest.report.page.picture import write_png  # noqa: PLC0415 - seldom used

        write_png(page, path)
    else:
        path.write_text(write_text(page, format_), encoding="utf-8", newline="\n")


def choose_format(path: Path, format_: str | None) -> str:
    """Return the format said, or that of the file's name.

    Raises
    ------
    ParameterError
        If there is no such format.
    """
    if format_ is None:
        ending = path.suffix.lstrip(".").lower()
        format_ = ending if ending in FORMATS else "html"
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
    """Return the numbers of a page; those that are not finite as null."""
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
    """Return a page as Markdown: everything but the charts, which are named."""
    lines = [
        f"# {escape(page.title)}",
        f"{escape(page.subtitle)}. {page.kind.capitalize()} `{page.identity}`.",
        *(f"> **{escape(notice)}**" for notice in page.notices),
        escape(page.summary),
        *write_facts(page.facts),
    ]
    for section in page.sections:
        lines += [f"## {escape(section.title)}", escape(section.lead)]
        for block in section.blocks:
            lines += write_block(block)
    return "\n\n".join(lines) + "\n"


def write_block(block: Any) -> Iterator[str]:
    """Yield the paragraphs of a block."""
    if isinstance(block, Text):
        yield escape(block.text)
    elif isinstance(block, Facts):
        yield from write_facts(block)
    elif isinstance(block, Table):
        yield from write_table(block)
    elif isinstance(block, Ledger):
        yield from write_table(block.table, LEDGER_ROWS)
    elif isinstance(block, Chart):
        yield f"*Chart in the HTML report: {escape(block.title)}.*"
    elif isinstance(block, Code) and not block.is_folded:
        yield escape(block.label)
        yield fence(block.text)


def write_facts(facts: Facts) -> Iterator[str]:
    """Yield headline numbers as a table."""
    columns = (Column("", is_number=False), Column("value"), Column("", is_number=False))
    rows = tuple((fact.label, fact.value, fact.note) for fact in facts.facts)
    yield from write_table(Table("", columns, rows))


def write_table(table: Table, most: int | None = None) -> Iterator[str]:
    """Yield a table, at most so many rows of it, and its note."""
    if table.caption:
        yield f"### {escape(table.caption)}"
    heads = [f"{each.title} ({each.unit})" if each.unit else each.title for each in table.columns]
    lines = [
        "| " + " | ".join(escape(head) for head in heads) + " |",
        "|" + "|".join("---:" if each.is_number else "---" for each in table.columns) + "|",
    ]
    for row in table.rows[:most]:
        texts = (cell.text if isinstance(cell, Cell) else cell for cell in row)
        lines.append("| " + " | ".join(escape(text) for text in texts) + " |")
    yield "\n".join(lines)
    if most is not None and len(table.rows) > most:
        yield f"The first {most} of {len(table.rows):,} rows."
    if table.note:
        yield escape(table.note)


def escape(text: str) -> str:
    r"""Return a text that Markdown shows as it is, on one line.

    Examples
    --------
    >>> escape("<b>|x|")
    '&lt;b>\\|x\\|'
    """
    line = " ".join(str(text).split())
    for mark in ("\\", "|", "*", "_", "`", "[", "]", "#"):
        line = line.replace(mark, f"\\{mark}")
    return line.replace("&", "&amp;").replace("<", "&lt;")


def fence(text: str) -> str:
    """Return a text as a block of code that no part of it can end."""
    longest = max((len(run) for run in text.split() if set(run) == {"`"}), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}\n{text}\n{marks}"
