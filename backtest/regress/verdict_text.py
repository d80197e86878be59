"""Verdicts for people, in a terminal or the message of a failing test."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from backtest.regress.baseline import STATISTICAL
from backtest.regress.verdict import MOVED, REWRITTEN, SAME, SKIPPED, UNMEASURED, Verdict
from backtest.regress.verdict_words import (
    count_statuses,
    describe,
    list_bar_cells,
    list_metric_cells,
    write_headline,
)

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100
STYLES = {SAME: "green", REWRITTEN: "cyan", MOVED: "red", UNMEASURED: "yellow", SKIPPED: "dim"}


def write_text(verdicts: Sequence[Verdict]) -> str:
    """Return verdicts as plain text of 100 columns."""
    from rich.console import Console  # noqa: PLC0415 - only where something is told

    file = io.StringIO()
    print_verdicts(verdicts, Console(file=file, width=WIDTH, color_system=None))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def print_verdicts(verdicts: Sequence[Verdict], console: Console) -> None:
    """Print verdicts, and how many there are of each where they are several."""
    from rich.text import Text  # noqa: PLC0415

    for verdict in verdicts:
        console.print(Text(write_headline(verdict), style=STYLES[verdict.status]))
        for part in tell(verdict):
            console.print(part)
    if len(verdicts) > 1:
        console.print(Text(count_statuses(verdicts), style="bold"))


def tell(verdict: Verdict) -> Iterator[Any]:
    """Yield the tables and sentences of a verdict."""
    if verdict.status != SAME or verdict.accepted:
        if verdict.moved:
            yield tabulate_metrics(verdict)
        if verdict.bars is not None and not verdict.bars.is_same:
            yield tabulate_bar(verdict)
    sentences = [
        (subject, text)
        for subject, text in describe(verdict)
        if subject != "returns" or tells_of_returns(verdict)
    ]
    if sentences:
        yield tabulate_sentences(sentences)


def tells_of_returns(verdict: Verdict) -> bool:
    """Tell whether the comparison of returns says more than the headline does."""
    is_said = verdict.mode == STATISTICAL
    return not is_said and (verdict.status != SAME or not is_unmoved(verdict))


def is_unmoved(verdict: Verdict) -> bool:
    """Tell whether the returns are the same."""
    return verdict.noise is not None and verdict.noise.is_same


def new_table(columns: Sequence[str], right: Sequence[str]) -> Any:
    """Return a table without lines but one below its head."""
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return indent(table), table


def indent(part: Any) -> Any:
    """Return a part two columns to the right."""
    from rich.padding import Padding  # noqa: PLC0415

    return Padding(part, (0, 0, 0, 2), expand=False)


def tabulate_metrics(verdict: Verdict) -> Any:
    """Return the measures beyond their tolerance."""
    from rich.text import Text  # noqa: PLC0415

    numbers = ("baseline", "now", "change", "tolerance")
    padded, table = new_table(("measure", *numbers, ""), numbers)
    for cells in list_metric_cells(verdict):
        table.add_row(*map(Text, cells))
    return padded


def tabulate_bar(verdict: Verdict) -> Any:
    """Return what differs in the first bar that does, in the order of a bar."""
    from rich.text import Text  # noqa: PLC0415

    numbers = ("baseline", "now", "change", "bars that differ")
    padded, table = new_table(("first differing bar", *numbers), numbers)
    for cells in list_bar_cells(verdict):
        table.add_row(*map(Text, cells))
    return padded


def tabulate_sentences(sentences: Sequence[tuple[str, str]]) -> Any:
    """Return sentences with their subjects beside them."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for subject, text in sentences:
        table.add_row(Text(subject, style="bold"), Text(text))
    return indent(table)
