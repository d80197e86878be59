"""Verdicts as Markdown, for the step summary of GitHub Actions."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence

from backtest.regress.verdict import SAME, SKIPPED, RegressVerdict
from backtest.regress.verdict_words import (
    BAR_HEADS,
    METRIC_HEADS,
    count_statuses,
    list_bar_rows,
    list_metric_rows,
    list_remarks,
)

DRAWN = ("baseline", "now", "now / was - 1")
"""Subjects whose text is a chart of block characters."""
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~])")


def write_markdown(verdicts: Sequence[RegressVerdict]) -> str:
    """Return verdicts as Markdown: a table of all, and a section for each with a difference."""
    lines = [f"## Regression gate: {count_statuses(verdicts)}", ""]
    lines += format_table(
        ("baseline", "verdict", "why"),
        [
            (escape_markdown(each.name), f"**{each.word}**", escape_markdown(each.reason))
            for each in verdicts
        ],
    )
    for verdict in verdicts:
        if verdict.status not in (SAME, SKIPPED) or verdict.changes or verdict.renamed:
            lines += ["", *write_section(verdict)]
    return "\n".join(lines) + "\n"


def write_section(verdict: RegressVerdict) -> Iterator[str]:
    """Yield the lines of the section about one baseline."""
    yield f"### {escape_markdown(verdict.name)}"
    if verdict.moved:
        rows = ([escape_markdown(cell) for cell in row] for row in list_metric_rows(verdict))
        yield from ("", *format_table(METRIC_HEADS, rows))
    if verdict.bars is not None and not verdict.bars.is_same:
        rows = ([escape_markdown(cell) for cell in row[:-1]] for row in list_bar_rows(verdict))
        yield from ("", *format_table(BAR_HEADS, rows))
    sentences = list(list_remarks(verdict))
    yield ""
    for subject, text in sentences:
        if subject not in DRAWN:
            yield f"- **{escape_markdown(subject)}**: {escape_markdown(text)}"
    drawn = [(subject, text) for subject, text in sentences if subject in DRAWN]
    if drawn:
        width = max(len(subject) for subject, _ in drawn)
        yield from ("", "```text")
        yield from (f"{subject:{width}}  {text}" for subject, text in drawn)
        yield "```"


def format_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def escape_markdown(text: str) -> str:
    r"""Escape a text so that Markdown shows it unchanged, on one line.

    Examples
    --------
    >>> escape_markdown("<b>|a*")
    '&lt;b&gt;\\|a\\*'
    """
    one_line = " ".join(text.split())
    return _SPECIAL.sub(r"\\\1", html.escape(one_line, quote=False))
