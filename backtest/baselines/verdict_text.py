"""The verdict of the gate as text: statuses, tables, and what changed."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterator, Sequence

import pandas as pd

from backtest.baselines.facts import WINNERS
from backtest.baselines.verdict import ALWAYS_COUNTED, EXIT, MOVED, SAME, RegressVerdict, name_some
from backtest.core import count_nouns

WIDTH = 80
MOST_WINNERS = 8
"""Maximum number of parameters of best sets of folds that are named."""


def count_statuses(verdicts: Sequence[RegressVerdict]) -> str:
    """Count verdicts by status; continuous integration looks for ``0 moved, 0 not measured``."""
    counts = {word: sum(each.status == word for each in verdicts) for word in EXIT}
    listed = ", ".join(f"{n} {word}" for word, n in counts.items() if n or word in ALWAYS_COUNTED)
    return f"{count_nouns(len(verdicts), 'baseline')}: {listed}"


ALWAYS_SHOWN = ("total_return", "cagr", "sharpe", "max_drawdown", "final_equity")
"""The measures that a verdict shows whether they moved or not, in this order."""


def list_headline(verdict: RegressVerdict) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Return the measures that are always shown, and whether each is inside its band."""
    by_name = {each.name: each for each in verdict.metrics}
    rows: list[Sequence[str]] = []
    for name in ALWAYS_SHOWN:
        if name not in by_name:
            continue
        move = by_name[name]
        change = format_move(move.was, move.now)
        if move.was == move.now:
            change = (change[0], change[1], "")
        rows.append((name, *change, str(move.tolerance), "" if move.is_inside else "moved"))
    return ("measure", "baseline", "now", "change", "tolerance", ""), rows


def list_tables(verdict: RegressVerdict) -> Iterator[tuple[Sequence[str], list[Sequence[str]]]]:
    """Yield the measures that moved by more than their noise, and the first bar that differs."""
    rows: list[Sequence[str]] = []
    for each in verdict.beyond_noise:
        word = "allowed" if each.name in verdict.accepted else each.direction.partition(" ")[0]
        rows.append((each.name, *format_move(each.was, each.now), str(each.tolerance), word))
    yield ("measure", "baseline", "now", "change", "tolerance", ""), rows
    at_first = () if verdict.bars is None else verdict.bars.at_first
    rows = [(x.step, *format_move(x.was, x.now), f"{x.count:,}") for x in at_first]
    yield ("first differing bar", "baseline", "now", "change", "bars"), rows


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
    if verdict.noise is not None and (verdict.moved or bars is not None):
        yield "returns", str(verdict.noise)
    if noisy := verdict.within_noise:
        names = ", ".join(each.name for each in noisy)
        yield "noise", f"{len(noisy)} moved within noise: {names}"
    if verdict.accepted:
        yield "allowed", f"better in {', '.join(verdict.accepted)}"
    if verdict.basis:
        yield "compared", f"{verdict.basis}; what decides: {verdict.mode}"


def describe_causes(verdict: RegressVerdict) -> Iterator[tuple[str, str]]:
    by_kind: dict[str, list[str]] = {}
    is_python = any(each.startswith("python ") for each in verdict.host)
    for change in verdict.changes:
        is_bytecode = is_python and change.name == "policy.source_hash"
        note = " (of another Python's bytecode: the source may be the same)" * is_bytecode
        by_kind.setdefault(change.kind, []).append(f"{change}{note}")
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


def write_text(verdicts: Sequence[RegressVerdict]) -> str:
    lines = []
    for verdict in verdicts:
        said = [(f"{verdict.name}: {verdict.status}", verdict.reason)]
        said += [(f"  {subject}", text) for subject, text in list_remarks(verdict)]
        for subject, text in said:
            lines += textwrap.wrap(f"{subject}: {text}", WIDTH, subsequent_indent="    ",
                                   break_long_words=False, break_on_hyphens=False)  # fmt: skip
        is_told = verdict.status != SAME or bool(verdict.accepted)
        tables = [list_headline(verdict), *(list_tables(verdict) if is_told else ())]
        for heads, rows in tables:
            if rows:
                table = pd.DataFrame(rows, columns=list(heads)).to_string(index=False)
                lines += [f"  {each}".rstrip() for each in table.splitlines()]
    if len(verdicts) > 1:
        lines.append(count_statuses(verdicts))
    return "\n".join(lines)


def write_markdown(verdicts: Sequence[RegressVerdict]) -> str:
    text = html.escape(write_text(verdicts), quote=False)
    return f"## Regression gate: {count_statuses(verdicts)}\n\n<pre>\n{text}\n</pre>\n"


def format_pair(one: float, other: float) -> tuple[str, str]:
    for digits in (6, 9, 12, 17):  # until the two look different
        texts = f"{one:,.{digits}g}", f"{other:,.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


def format_move(before: float, after: float) -> tuple[str, str, str]:
    """Return two numbers and their relative change as text."""
    texts = format_pair(before, after)
    if not (math.isfinite(before) and math.isfinite(after)):
        return *texts, ""
    if before == 0.0:
        return *texts, f"{after:+.3g}"
    return *texts, f"{(after - before) / abs(before) * 100.0:+.3g} %"
