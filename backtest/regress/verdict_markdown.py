"""Verdicts as Markdown, for the step summary of GitHub Actions."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from backtest.regress.verdict import SAME, SKIPPED, Verdict
from backtest.regress.verdict_words import (
    count_statuses,
    describe,
    list_bar_cells,
    list_metric_cells,
)

DRAWN = ("baseline", "now", "now / was - 1")
"""Subjects whose text is a line of blocks."""
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~])")


def write_markdown(verdicts: Sequence[Verdict]) -> str:
    """Return verdicts as Markdown: a table of all, and a section for each that is not the same."""
    lines = [f"## Regression gate: {count_statuses(verdicts)}", ""]
    lines += tabulate(
        ("baseline", "verdict", "why"),
        [(escape(each.name), f"**{each.word}**", escape(each.reason)) for each in verdicts],
    )
    for verdict in verdicts:
        if verdict.status not in (SAME, SKIPPED) or verdict.changes:
            lines += ["", *write_section(verdict)]
    return "\n".join(lines) + "\n"


def write_section(verdict: Verdict) -> Iterator[str]:
    """Yield what there is to say of one baseline."""
    yield f"### {escape(verdict.name)}"
    if verdict.moved:
        yield from ("", *tabulate_metrics(verdict))
    if verdict.bars is not None and not verdict.bars.is_same:
        yield from ("", *tabulate_bar(verdict))
    sentences = list(describe(verdict))
    yield ""
    for subject, text in sentences:
        if subject not in DRAWN:
            yield f"- **{escape(subject)}**: {escape(text)}"
    drawn = [(subject, text) for subject, text in sentences if subject in DRAWN]
    if drawn:
        width = max(len(subject) for subject, _ in drawn)
        yield from ("", "```text")
        yield from (f"{subject:{width}}  {text}" for subject, text in drawn)
        yield "```"


def tabulate_metrics(verdict: Verdict) -> list[str]:
    """Return the measures beyond their tolerance."""
    rows = [[escape(cell) for cell in cells] for cells in list_metric_cells(verdict)]
    return tabulate(("measure", "baseline", "now", "change", "tolerance", ""), rows)


def tabulate_bar(verdict: Verdict) -> list[str]:
    """Return what differs in the first bar that does."""
    rows = [[escape(cell) for cell in cells[:-1]] for cells in list_bar_cells(verdict)]
    return tabulate(("first differing bar", "baseline", "now", "change"), rows)


def tabulate(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table whose cells are Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def escape(text: str) -> str:
    r"""Return a text that Markdown shows as it is, on one line.

    Examples
    --------
    >>> escape("<b>|a*")
    '&lt;b&gt;\\|a\\*'
    """
    one_line = " ".join(text.split())
    return _SPECIAL.sub(r"\\\1", html.escape(one_line, quote=False))
