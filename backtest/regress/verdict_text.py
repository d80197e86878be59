"""Verdicts as text, for a terminal or the message of a failing test."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from backtest.regress.baseline import STATISTICAL
from backtest.regress.verdict import MOVED, REWRITTEN, SAME, SKIPPED, UNMEASURED, RegressVerdict
from backtest.regress.verdict_words import (
    BAR_HEADS,
    METRIC_HEADS,
    count_statuses,
    list_bar_rows,
    list_metric_rows,
    list_remarks,
    write_headline,
)

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100
NUMBERS = ("baseline", "now", "change", "tolerance", "bars that differ")
STYLES = {SAME: "green", REWRITTEN: "cyan", MOVED: "red", UNMEASURED: "yellow", SKIPPED: "dim"}


def write_text(verdicts: Sequence[RegressVerdict]) -> str:
    """Return verdicts as plain text of 100 columns."""
    from rich.console import Console  # noqa: PLC0415 - only needed to print

    file = io.StringIO()
    print_verdicts(verdicts, Console(file=file, width=WIDTH, color_system=None))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def print_verdicts(verdicts: Sequence[RegressVerdict], console: Console) -> None:
    """Print verdicts, followed by their counts if there are several."""
    from rich.text import Text  # noqa: PLC0415

    for verdict in verdicts:
        console.print(Text(write_headline(verdict), style=STYLES[verdict.status]))
        for part in list_parts(verdict):
            console.print(part)
    if len(verdicts) > 1:
        console.print(Text(count_statuses(verdicts), style="bold"))


def list_parts(verdict: RegressVerdict) -> Iterator[Any]:
    """Yield the tables and remarks of a verdict."""
    if verdict.status != SAME or verdict.accepted:
        if verdict.moved:
            yield build_table(METRIC_HEADS, list_metric_rows(verdict))
        if verdict.bars is not None and not verdict.bars.is_same:
            yield build_table((*BAR_HEADS, "bars that differ"), list_bar_rows(verdict))
    is_unmoved = verdict.noise is not None and verdict.noise.is_same
    is_in_headline = verdict.mode == STATISTICAL or (verdict.status == SAME and is_unmoved)
    remarks = [each for each in list_remarks(verdict) if each[0] != "returns" or not is_in_headline]
    if remarks:
        yield build_remarks(remarks)


def build_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Any:
    """Return an indented table; columns of numbers are right-aligned."""
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    for name in columns:
        table.add_column(name, justify="right" if name in NUMBERS else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return indent(table)


def indent(part: Any) -> Any:
    """Return a renderable indented by two columns."""
    from rich.padding import Padding  # noqa: PLC0415

    return Padding(part, (0, 0, 0, 2), expand=False)


def build_remarks(remarks: Sequence[tuple[str, str]]) -> Any:
    """Return an indented table of subjects and sentences."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for subject, text in remarks:
        table.add_row(Text(subject, style="bold"), Text(text))
    return indent(table)
