"""Verdicts as text: for a terminal, as Markdown for a pull request, as JUnit XML for CI."""

from __future__ import annotations

import html
import re
import textwrap
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from backtest.base import format_change, format_pair
from backtest.regress import tolerances as t
from backtest.regress.baseline import STATISTICAL, WINNERS, FactChange
from backtest.regress.verdict import (
    MOVED,
    REWRITTEN,
    SAME,
    SKIPPED,
    UNMEASURED,
    RegressVerdict,
    describe_noise,
)

WIDTH = 100
METRIC_HEADS = ("measure", "baseline", "now", "change", "tolerance", "")
BAR_HEADS = ("first differing bar", "baseline", "now", "change", "bars that differ")
WORDS = (SAME, t.INDISTINGUISHABLE, REWRITTEN, MOVED, t.WORSE, t.BETTER, UNMEASURED, SKIPPED)
MOST_LATER = 6
MOST_WINNERS = 8
"""Most parameters of winners of folds that are named."""


class Shown(NamedTuple):
    """A table of a verdict, and the line under it."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def write_headline(verdict: RegressVerdict) -> str:
    return f"{verdict.name}: {verdict.word}: {verdict.reason}"


def count_statuses(verdicts: Sequence[RegressVerdict]) -> str:
    counts = [(word, sum(each.word == word for each in verdicts)) for word in WORDS]
    noun = "baseline" if len(verdicts) == 1 else "baselines"
    return f"{len(verdicts)} {noun}: " + ", ".join(f"{n} {status}" for status, n in counts if n)


def list_tables(verdict: RegressVerdict) -> Iterator[Shown]:
    """Yield the measures that moved by more than their noise, and the first bar that differs."""
    noisy = verdict.within_noise
    rows = []
    for each in (move for move in verdict.moved if move not in noisy):
        word = "allowed" if each.name in verdict.accepted else each.direction.partition(" ")[0]
        pair = format_pair(each.was, each.now)
        rows.append((each.name, *pair, format_change(each.was, each.now), str(each.band), word))
    if rows or noisy:
        names = ", ".join(each.name for each in noisy)
        yield Shown(METRIC_HEADS, rows, f"{len(noisy)} moved within noise: {names}" * bool(noisy))
    if verdict.bars is not None and not verdict.bars.is_same:
        yield Shown(
            BAR_HEADS,
            [
                (
                    each.step,
                    *format_pair(each.was, each.now),
                    format_change(each.was, each.now),
                    f"{each.count:,}",
                )
                for each in verdict.bars.at_first
            ],
        )


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
    moves = bars.moves if bars is not None else ()
    later = [f"{x.column} from bar {x.bar:,}" for x in moves if bars and x.bar > bars.first]
    if later:
        yield "later", name_some(later, MOST_LATER, ", ", " and ")
    if verdict.basis:
        yield "compared", f"{verdict.basis}; what decides: {verdict.mode}"


def describe_causes(verdict: RegressVerdict) -> Iterator[tuple[str, str]]:
    by_kind: dict[str, list[str]] = {}
    for change in verdict.changes:
        text = f"{change}{caution_python(change, verdict.host)}"
        by_kind.setdefault(change.kind, []).append(text)
    for kind, changes in by_kind.items():
        most = MOST_WINNERS if kind == WINNERS else len(changes)
        yield f"{kind} changed", name_some(changes, most, "; ", "; and ")
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


def name_some(texts: Sequence[str], most: int, comma: str, last: str) -> str:
    rest = len(texts) - most
    return comma.join(texts[:most]) + (f"{last}{rest} more" if rest > 0 else "")


def caution_python(change: FactChange, host: Sequence[str]) -> str:
    is_python = any(each.startswith("python ") for each in host)
    if change.name == "policy.source_hash" and is_python:
        return " (of another Python's bytecode: the source may be the same)"
    return ""


# --------------------------------------------------------------------------------------- terminal


def write_text(verdicts: Sequence[RegressVerdict]) -> str:
    lines = []
    for verdict in verdicts:
        lines.append(write_headline(verdict))
        is_unmoved = verdict.noise is not None and verdict.noise.is_same
        is_told = verdict.mode == STATISTICAL or (verdict.status == SAME and is_unmoved)
        for subject, text in list_remarks(verdict):
            if subject != "returns" or not is_told:
                lines += textwrap.wrap(
                    f"{subject}: {text}", WIDTH, initial_indent="  ", subsequent_indent="    "
                )
        if verdict.status != SAME or verdict.accepted:
            for shown in list_tables(verdict):
                table = pd.DataFrame(list(shown.rows), columns=list(shown.heads))
                text = table.to_string(index=False) if shown.rows else ""
                lines += [f"  {each}".rstrip() for each in f"{text}\n{shown.note}".splitlines()]
    if len(verdicts) > 1:
        lines.append(count_statuses(verdicts))
    return "\n".join(lines)


# ------------------------------------------------------------------------------- Markdown, JUnit

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~])")
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
SUITE = "backtest.regress"


def write_markdown(verdicts: Sequence[RegressVerdict]) -> str:
    rows = [
        (escape_markdown(each.name), f"**{each.word}**", escape_markdown(each.reason))
        for each in verdicts
    ]
    lines = [f"## Regression gate: {count_statuses(verdicts)}", ""]
    lines += format_table(("baseline", "verdict", "why"), rows)
    for verdict in verdicts:
        if verdict.status in (SAME, SKIPPED) and not verdict.changes:
            continue
        lines += ["", f"### {escape_markdown(verdict.name)}", ""]
        for subject, text in list_remarks(verdict):
            lines.append(f"- **{escape_markdown(subject)}**: {escape_markdown(text)}")
        for shown in list_tables(verdict):
            cells = [[escape_markdown(cell) for cell in row] for row in shown.rows]
            lines += ["", *format_table(shown.heads, cells)] if cells else []
            lines += ["", escape_markdown(shown.note)] if shown.note else []
    return "\n".join(lines) + "\n"


def format_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *rows)]


def escape_markdown(text: str) -> str:
    one_line = " ".join(text.split())
    return _SPECIAL.sub(r"\\\1", html.escape(one_line, quote=False))


def write_junit(verdicts: Sequence[RegressVerdict]) -> str:
    found = Counter(each.status for each in verdicts)
    counts = {
        "tests": str(len(verdicts)),
        "failures": str(found[MOVED]),
        "errors": str(found[UNMEASURED]),
        "name": SUITE,
    }
    root = ET.Element("testsuites", counts)
    suite = ET.SubElement(root, "testsuite", {**counts, "skipped": str(found[SKIPPED])})
    kinds = {MOVED: "failure", UNMEASURED: "error", SKIPPED: "skipped"}
    for each in verdicts:
        about = {"classname": SUITE, "name": replace_forbidden(each.name)}
        case = ET.SubElement(suite, "testcase", about)
        message = {"type": each.status, "message": replace_forbidden(write_headline(each))}
        kind = kinds.get(each.status, "system-out")
        told = ET.SubElement(case, kind, message if kind in ("failure", "error") else {})
        told.text = replace_forbidden(write_text([each]))
    ET.indent(root, " ")
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document.decode() + "\n"


def replace_forbidden(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
