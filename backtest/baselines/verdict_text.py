"""The verdict of the gate as text: statuses, tables, and what changed."""

from __future__ import annotations

import html
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from backtest.baselines.facts import WINNERS
from backtest.baselines.trace import BarMoves, ColumnMove
from backtest.baselines.verdict import ALWAYS_COUNTED, EXIT, MOVED, SAME, RegressVerdict, name_some
from backtest.core import count_nouns

WIDTH = 80
MOST_WINNERS = 8
"""Maximum number of parameters of best sets of folds that are named."""
ALWAYS_SHOWN = ("total_return", "cagr", "sharpe", "max_drawdown", "final_equity")
"""The measures that a verdict shows whether they moved or not, in this order."""
SUMMARIZED = (*ALWAYS_SHOWN, "liquidations")
"""The measures in the summary of a pull request."""
DIGITS = (6, 9, 12, 17)
"""Digits of two numbers, the first with which they look different; 17 give every bit."""

Table = tuple[Sequence[str], list[Sequence[str]]]
"""Heads of a table, and its rows."""


class Remark(NamedTuple):
    """A line below a verdict: its subject and the text."""

    subject: str
    text: str


def count_statuses(verdicts: Sequence[RegressVerdict]) -> str:
    """Count verdicts by status; continuous integration looks for ``0 moved, 0 not measured``."""
    statuses = [verdict.status for verdict in verdicts]
    counts = []
    for status in EXIT:
        count = statuses.count(status)
        if count or status in ALWAYS_COUNTED:
            counts.append(f"{count} {status}")
    return f"{count_nouns(len(verdicts), 'baseline')}: {', '.join(counts)}"


def list_headline(verdict: RegressVerdict) -> Table:
    """Return the measures that are always shown, and whether each is inside its band."""
    by_name = {move.name: move for move in verdict.metrics}
    rows: list[Sequence[str]] = []
    for name in ALWAYS_SHOWN:
        if name not in by_name:
            continue

        move = by_name[name]
        was, now, change = format_move(move.was, move.now)
        if move.was == move.now:
            change = ""
        remark = "" if move.is_inside else "moved"
        rows.append((name, was, now, change, str(move.tolerance), remark))
    return ("measure", "baseline", "now", "change", "tolerance", ""), rows


def list_tables(verdict: RegressVerdict) -> Iterator[Table]:
    """Yield the measures that moved by more than their noise, and the first bar that differs."""
    rows: list[Sequence[str]] = []
    for move in verdict.beyond_noise:
        remark, _, _ = move.direction.partition(" ")
        if move.name in verdict.accepted:
            remark = "allowed"
        texts = format_move(move.was, move.now)
        rows.append((move.name, *texts, str(move.tolerance), remark))
    yield ("measure", "baseline", "now", "change", "tolerance", ""), rows

    rows = []
    if verdict.bars is not None:
        for column in verdict.bars.at_first:
            texts = format_move(column.was, column.now)
            rows.append((column.step, *texts, f"{column.count:,}"))
    yield ("first differing bar", "baseline", "now", "change", "bars"), rows


def list_remarks(verdict: RegressVerdict) -> Iterator[Remark]:
    """Yield what matters most first: where it began, what was changed, what it cost, and noise."""
    bars = verdict.bars
    if bars is not None and bars.is_same:
        bars = None

    if bars is not None:
        step = bars.at_first[0].step
        text = f"bar {bars.first:,} of {bars.n_bars:,}, {bars.first_time} UTC: {step}"
        yield Remark("first", text)
    yield from list_causes(verdict)
    if bars is not None and bars.terms:
        yield Remark("equity", describe_terms(bars))

    if verdict.noise is not None and (verdict.moved or bars is not None):
        yield Remark("returns", str(verdict.noise))
    noisy = [move.name for move in verdict.within_noise]
    if noisy:
        yield Remark("noise", f"{len(noisy)} moved within noise: {', '.join(noisy)}")

    if verdict.accepted:
        yield Remark("allowed", f"better in {', '.join(verdict.accepted)}")
    if verdict.basis:
        yield Remark("compared", f"{verdict.basis}; what decides: {verdict.mode}")


def describe_terms(bars: BarMoves) -> str:
    """Return by how much the final equity moved, and by which terms, the largest first."""
    total = sum(bars.terms.values())
    largest = sorted(bars.terms.items(), key=lambda term: -abs(term[1]))
    terms = ", ".join(f"{name} {value:+,.6g}" for name, value in largest)
    return f"the final equity moved by {total:+,.6g}: {terms}"


def list_causes(verdict: RegressVerdict) -> Iterator[Remark]:
    """Yield the inputs that changed, and the data that differ."""
    for kind, changes in group_changes(verdict).items():
        most = MOST_WINNERS if kind == WINNERS else len(changes)
        yield Remark(f"{kind} changed", name_some(changes, most, comma="; ", last="; and "))
    if verdict.bars is not None and verdict.bars.data is not None:
        yield Remark("data differ", describe_data_move(verdict.bars, verdict.bars.data))

    # That folds chose other sets is an effect of what changed, and no cause.
    has_cause = any(change.kind != WINNERS for change in verdict.changes)
    if verdict.status == MOVED and not has_cause:
        yield Remark(
            "changed",
            "no recorded fact of data, policy, venue, account or engine; a policy may depend on "
            "what its hash does not cover: an object, a file, the clock, random numbers",
        )


def group_changes(verdict: RegressVerdict) -> dict[str, list[str]]:
    """Return the texts of the inputs that changed by their kind."""
    is_other_python = any(change.startswith("python ") for change in verdict.host)

    by_kind: dict[str, list[str]] = {}
    for change in verdict.changes:
        text = str(change)
        if is_other_python and change.name == "policy.source_hash":
            text = f"{text} (of another Python's bytecode: the source may be the same)"
        by_kind.setdefault(change.kind, []).append(text)
    return by_kind


def describe_data_move(bars: BarMoves, data: ColumnMove) -> str:
    """Return in how many bars the data differ, and what is different in the first."""
    text = (
        f"in {data.count:,} of {bars.n_bars:,} bars, first in bar {data.bar:,}, "
        f"{bars.data_time} UTC"
    )
    old_close, new_close = format_pair(data.was, data.now)
    if old_close == new_close:
        return text
    return f"{text}, close {old_close} -> {new_close}"


def write_text(verdicts: Sequence[RegressVerdict]) -> str:
    """Return verdicts as the command line prints them."""
    lines = []
    for verdict in verdicts:
        lines += wrap_remark(f"{verdict.name}: {verdict.status}", verdict.reason)
        for remark in list_remarks(verdict):
            lines += wrap_remark(f"  {remark.subject}", remark.text)

        tables = [list_headline(verdict)]
        if verdict.status != SAME or verdict.accepted:
            tables += list_tables(verdict)
        for heads, rows in tables:
            lines += write_table(heads, rows)

    lines.append(count_statuses(verdicts))
    return "\n".join(lines)


def wrap_remark(subject: str, text: str) -> list[str]:
    return textwrap.wrap(
        f"{subject}: {text}",
        WIDTH,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def write_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the indented lines of a table; none if it has no rows."""
    if not rows:
        return []
    table = pd.DataFrame(rows, columns=list(heads)).to_string(index=False)
    return [f"  {line}".rstrip() for line in table.splitlines()]


def write_markdown(verdicts: Sequence[RegressVerdict]) -> str:
    """Return verdicts for a pull request: six rows each, and all that they say folded below."""
    parts = [f"## Regression gate: {count_statuses(verdicts)}"]
    for verdict in verdicts:
        # A name is that of a file, and may be anything: here only what is text to Markdown too.
        name = verdict.name if re.fullmatch(r"[\w.-]+", verdict.name) else "baseline"
        parts.append(f"**{name}: {verdict.status}**")
        rows = list_summary(verdict)
        if rows:
            parts.append("\n".join(["| measure | baseline | now | |", "|---|---|---|---|", *rows]))

    text = html.escape(write_text(verdicts), quote=False)
    parts.append(
        f"<details><summary>The whole verdict</summary>\n<pre>\n{text}\n</pre>\n</details>"
    )
    return "\n\n".join(parts) + "\n"


def list_summary(verdict: RegressVerdict) -> list[str]:
    """Return the rows of the first measures, with an arrow where one moved, up or down."""
    by_name = {move.name: move for move in verdict.metrics}
    rows = []
    for name in SUMMARIZED:
        if name not in by_name:
            continue

        move = by_name[name]
        was, now, change = format_move(move.was, move.now)
        arrow = "="
        if move.now != move.was:
            arrow = "\N{UPWARDS ARROW}" if move.now > move.was else "\N{DOWNWARDS ARROW}"
            arrow += f" {change}" if change else ""
        rows.append(f"| {name} | {was} | {now} | {arrow} |")
    return rows


def format_pair(one: float, other: float) -> tuple[str, str]:
    """Return two numbers as text, with as few digits as show their difference."""
    for digits in DIGITS:
        texts = f"{one:,.{digits}g}", f"{other:,.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


def format_move(was: float, now: float) -> tuple[str, str, str]:
    """Return two numbers and their relative change as text."""
    old_text, new_text = format_pair(was, now)
    if not (math.isfinite(was) and math.isfinite(now)):
        change = ""
    elif was == 0.0:
        change = f"{now:+.3g}"
    else:
        change = f"{(now - was) / abs(was) * 100.0:+.3g} %"
    return old_text, new_text, change
