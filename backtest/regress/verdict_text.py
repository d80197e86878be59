"""Verdicts as text: for a terminal, as Markdown for a pull request, as JUnit XML for CI."""

from __future__ import annotations

import html
import io
import math
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from backtest.base import format_change, format_pair
from backtest.regress.baseline import STATISTICAL
from backtest.regress.noise import BETTER, INDISTINGUISHABLE, WORSE
from backtest.regress.run_identity import FactChange
from backtest.regress.tolerances import WINNERS
from backtest.regress.verdict import (
    MOVED,
    REWRITTEN,
    SAME,
    SKIPPED,
    UNMEASURED,
    MetricMove,
    RegressVerdict,
    describe_noise,
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
    is_unmoved = verdict.noise is not None and verdict.noise.is_same
    is_in_headline = verdict.mode == STATISTICAL or (verdict.status == SAME and is_unmoved)
    remarks = [each for each in list_remarks(verdict) if each[0] != "returns" or not is_in_headline]
    if remarks:
        yield build_remarks(remarks)
    if verdict.status != SAME or verdict.accepted:
        if verdict.moved:
            yield build_table(METRIC_HEADS, list_metric_rows(verdict))
        if verdict.bars is not None and not verdict.bars.is_same:
            yield build_table((*BAR_HEADS, "bars that differ"), list_bar_rows(verdict))


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
    yield ""
    for subject, text in list_remarks(verdict):
        yield f"- **{escape_markdown(subject)}**: {escape_markdown(text)}"
    if verdict.moved:
        rows = ([escape_markdown(cell) for cell in row] for row in list_metric_rows(verdict))
        yield from ("", *format_table(METRIC_HEADS, rows))
    if verdict.bars is not None and not verdict.bars.is_same:
        rows = ([escape_markdown(cell) for cell in row[:-1]] for row in list_bar_rows(verdict))
        yield from ("", *format_table(BAR_HEADS, rows))


def format_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def escape_markdown(text: str) -> str:
    one_line = " ".join(text.split())
    return _SPECIAL.sub(r"\\\1", html.escape(one_line, quote=False))


# ------------------------------------------------------------------------------------------ words

METRIC_HEADS = ("measure", "baseline", "now", "change", "tolerance", "")
BAR_HEADS = ("first differing bar", "baseline", "now", "change")
MOST_LATER = 6
MOST_MEASURES = 12
"""Measures that are listed: those that moved most."""
MOST_WINNERS = 8
"""Most parameters of winners of folds that are named."""
WORDS = (SAME, INDISTINGUISHABLE, REWRITTEN, MOVED, WORSE, BETTER, UNMEASURED, SKIPPED)


def write_headline(verdict: RegressVerdict) -> str:
    return f"{verdict.name}: {verdict.word}: {verdict.reason}"


def list_metric_rows(verdict: RegressVerdict) -> Iterator[tuple[str, ...]]:
    """Yield the measures that moved most, relative to what they were."""
    ranked = sorted(verdict.moved, key=measure_move, reverse=True)
    for each in ranked[:MOST_MEASURES]:
        word = "allowed" if each.name in verdict.accepted else each.direction.partition(" ")[0]
        change = format_change(each.was, each.now)
        yield each.name, *format_pair(each.was, each.now), change, str(each.band), word
    if len(ranked) > MOST_MEASURES:
        yield f"{len(ranked) - MOST_MEASURES} more moved less", *[""] * (len(METRIC_HEADS) - 1)


def measure_move(move: MetricMove) -> float:
    gap = abs(move.now - move.was)
    if math.isnan(gap):
        return math.inf
    return gap / abs(move.was) if move.was else math.copysign(math.inf, gap) if gap else 0.0


def list_bar_rows(verdict: RegressVerdict) -> Iterator[tuple[str, ...]]:
    for each in verdict.bars.at_first if verdict.bars is not None else ():
        change = format_change(each.was, each.now)
        yield each.step, *format_pair(each.was, each.now), change, f"{each.count:,}"


def count_statuses(verdicts: Sequence[RegressVerdict]) -> str:
    counts = [(word, sum(each.word == word for each in verdicts)) for word in WORDS]
    noun = "baseline" if len(verdicts) == 1 else "baselines"
    return f"{len(verdicts)} {noun}: " + ", ".join(f"{n} {status}" for status, n in counts if n)


def combine_exit_codes(verdicts: Sequence[RegressVerdict]) -> int:
    codes = [each.exit_code for each in verdicts if each.status != SKIPPED]
    return max(codes, default=2)


def list_remarks(verdict: RegressVerdict) -> Iterator[tuple[str, str]]:
    """Yield what matters most first: where it began, what was changed, what it cost, and noise."""
    bars = verdict.bars if verdict.bars is not None and not verdict.bars.is_same else None
    if bars is not None:
        step = bars.at_first[0].step
        yield "first", f"bar {bars.first:,} of {bars.n_bars:,}, {bars.first_time} UTC: {step}"
    yield from describe_causes(verdict)
    if bars is not None and bars.terms:
        total = sum(bars.terms.values())
        terms = sorted(bars.terms.items(), key=lambda item: -abs(item[1]))
        parts = ", ".join(f"{name} {value:+,.6g}" for name, value in terms)
        yield "equity", f"the final equity moved by {total:+,.6g}: {parts}"
    if verdict.noise is not None:
        yield "returns", f"{verdict.noise.verdict}: {describe_noise(verdict.noise)}"
    if verdict.accepted:
        yield "allowed", f"better in {', '.join(verdict.accepted)}"
    later = (
        [f"{x.column} from bar {x.bar:,}" for x in bars.moves if x.bar > bars.first] if bars else []
    )
    if later:
        rest = len(later) - MOST_LATER
        yield "later", ", ".join(later[:MOST_LATER]) + (f" and {rest} more" if rest > 0 else "")
    if verdict.basis:
        yield "compared", f"{verdict.basis}; what decides: {verdict.mode}"


def describe_causes(verdict: RegressVerdict) -> Iterator[tuple[str, str]]:
    by_kind: dict[str, list[str]] = {}
    for change in verdict.changes:
        by_kind.setdefault(change.kind, []).append(
            f"{change}{caution_python(change, verdict.host)}"
        )
    for kind, changes in by_kind.items():
        rest = len(changes) - MOST_WINNERS if kind == WINNERS else 0
        more = f"; and {rest} more" if rest > 0 else ""
        shown = changes[:MOST_WINNERS] if more else changes
        yield f"{kind} changed", "; ".join(shown) + more
    bars = verdict.bars
    if bars is not None and bars.data is not None:
        one, other = format_pair(bars.data.was, bars.data.now)
        close = f", close {one} -> {other}" if one != other else ""
        yield (
            "data differ",
            f"in {bars.data.count:,} of {bars.n_bars:,} bars, first in bar {bars.data.bar:,}, "
            f"{bars.data_time} UTC{close}",
        )
    if verdict.status == MOVED and all(each.kind == WINNERS for each in verdict.changes):
        yield (
            "changed",
            "no recorded fact of data, policy, venue, account or engine; a policy may depend on "
            "what its hash does not cover: an object, a file, the clock, random numbers",
        )


def caution_python(change: FactChange, host: Sequence[str]) -> str:
    is_python = any(each.startswith("python ") for each in host)
    if change.name == "policy.source_hash" and is_python:
        return " (of another Python's bytecode: the source may be the same)"
    return ""
