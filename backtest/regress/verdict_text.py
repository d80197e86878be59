"""Verdicts as text: for a terminal, as Markdown for a pull request, as JUnit XML for CI."""

from __future__ import annotations

import html
import io
import re
import xml.etree.ElementTree as ET
from collections import Counter
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
    from rich.console import Console  # noqa: PLC0415 - only needed to print

    file = io.StringIO()
    print_verdicts(verdicts, Console(file=file, width=WIDTH, color_system=None))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def print_verdicts(verdicts: Sequence[RegressVerdict], console: Console) -> None:
    from rich.text import Text  # noqa: PLC0415

    for verdict in verdicts:
        console.print(Text(write_headline(verdict), style=STYLES[verdict.status]))
        for part in list_parts(verdict):
            console.print(part)
    if len(verdicts) > 1:
        console.print(Text(count_statuses(verdicts), style="bold"))


def list_parts(verdict: RegressVerdict) -> Iterator[Any]:
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
    from rich.padding import Padding  # noqa: PLC0415

    return Padding(part, (0, 0, 0, 2), expand=False)


def build_remarks(remarks: Sequence[tuple[str, str]]) -> Any:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for subject, text in remarks:
        table.add_row(Text(subject, style="bold"), Text(text))
    return indent(table)


SUITE = "backtest.regress"
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(verdicts: Sequence[RegressVerdict]) -> str:
    found = Counter(each.status for each in verdicts)
    counts = {
        "tests": str(len(verdicts)),
        "failures": str(found[MOVED]),
        "errors": str(found[UNMEASURED]),
    }
    root = ET.Element("testsuites", {**counts, "name": SUITE})
    skipped = {"skipped": str(found[SKIPPED])}
    suite = ET.SubElement(root, "testsuite", {**counts, **skipped, "name": SUITE})
    for verdict in verdicts:
        add_case(suite, verdict)
    ET.indent(root, " ")
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document.decode() + "\n"


def add_case(suite: ET.Element, verdict: RegressVerdict) -> None:
    case = ET.SubElement(
        suite, "testcase", {"classname": SUITE, "name": replace_forbidden(verdict.name)}
    )
    text = replace_forbidden(write_text([verdict]))
    kinds = {MOVED: "failure", UNMEASURED: "error"}
    if verdict.status in kinds:
        about = {"type": verdict.status, "message": replace_forbidden(write_headline(verdict))}
        ET.SubElement(case, kinds[verdict.status], about).text = text
    elif verdict.status == SKIPPED:
        ET.SubElement(case, "skipped", {"message": replace_forbidden(verdict.reason)})
    else:
        ET.SubElement(case, "system-out").text = text


def replace_forbidden(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


DRAWN = ("baseline", "now", "now / was - 1")
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~])")


def write_markdown(verdicts: Sequence[RegressVerdict]) -> str:
    lines = [f"## Regression gate: {count_statuses(verdicts)}", ""]
    lines += format_table(
        ("baseline", "verdict", "why"),
        [
            (escape_markdown(each.name), f"**{each.word}**", escape_markdown(each.reason))
            for each in verdicts
        ],
    )
    for verdict in verdicts:
        if verdict.status not in (SAME, SKIPPED) or verdict.changes:
            lines += ["", *write_section(verdict)]
    return "\n".join(lines) + "\n"


def write_section(verdict: RegressVerdict) -> Iterator[str]:
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
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def escape_markdown(text: str) -> str:
    one_line = " ".join(text.split())
    return _SPECIAL.sub(r"\\\1", html.escape(one_line, quote=False))
