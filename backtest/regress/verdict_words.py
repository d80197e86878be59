"""Sentences and table rows of verdicts, for terminal, Markdown and JUnit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from backtest.base.number_text import format_change, format_pair
from backtest.regress.noise import BETTER, INDISTINGUISHABLE, WORSE
from backtest.regress.run_identity import FactChange
from backtest.regress.verdict import (
    MOVED,
    REWRITTEN,
    SAME,
    SKIPPED,
    UNMEASURED,
    RegressVerdict,
    describe_noise,
)

DIGITS = (6, 9, 12, 17)
METRIC_HEADS = ("measure", "baseline", "now", "change", "tolerance", "")
BAR_HEADS = ("first differing bar", "baseline", "now", "change")
MOST_LATER = 6
LEVELS = "▁▂▃▄▅▆▇█"
WORDS = (SAME, INDISTINGUISHABLE, REWRITTEN, MOVED, WORSE, BETTER, UNMEASURED, SKIPPED)
"""What baselines are counted by, in this order."""


def write_headline(verdict: RegressVerdict) -> str:
    """Return the verdict in one line."""
    return f"{verdict.name}: {verdict.word}: {verdict.reason}"


def list_metric_rows(verdict: RegressVerdict) -> Iterator[tuple[str, ...]]:
    """Yield the measures beyond their tolerance: name, values, change, tolerance, direction."""
    for each in verdict.moved:
        word = "allowed" if each.name in verdict.accepted else each.direction.partition(" ")[0]
        change = format_change(each.was, each.now)
        yield each.name, *format_pair(each.was, each.now), change, str(each.band), word


def list_bar_rows(verdict: RegressVerdict) -> Iterator[tuple[str, ...]]:
    """Yield what differs in the first bar that does: step, values, change, number of bars."""
    for each in verdict.bars.at_first if verdict.bars is not None else ():
        change = format_change(each.was, each.now)
        yield each.step, *format_pair(each.was, each.now), change, f"{each.count:,}"


def count_statuses(verdicts: Sequence[RegressVerdict]) -> str:
    """Return how many baselines there are of each verdict.

    Examples
    --------
    >>> count_statuses([RegressVerdict("a", SAME, ""), RegressVerdict("b", SKIPPED, "")])
    '2 baselines: 1 same, 1 skipped'
    """
    counts = [(word, sum(each.word == word for each in verdicts)) for word in WORDS]
    noun = "baseline" if len(verdicts) == 1 else "baselines"
    return f"{len(verdicts)} {noun}: " + ", ".join(f"{n} {status}" for status, n in counts if n)


def combine_exit_codes(verdicts: Sequence[RegressVerdict]) -> int:
    """Return the exit code of several verdicts: the highest; 2 where nothing was measured."""
    codes = [each.exit_code for each in verdicts if each.status != SKIPPED]
    return max(codes, default=2)


def list_remarks(verdict: RegressVerdict) -> Iterator[tuple[str, str]]:
    """Yield what there is to say besides tables: a subject and a sentence each."""
    if verdict.trouble is not None:
        yield "where", verdict.trouble.where
        yield "cure", verdict.trouble.cure
    if verdict.accepted:
        yield "allowed", f"better in {', '.join(verdict.accepted)}"
    yield from describe_account(verdict)
    yield from describe_causes(verdict)
    if verdict.basis:
        yield "compared", f"{verdict.basis}; what decides: {verdict.mode}"
    if verdict.noise is not None:
        yield "returns", f"{verdict.noise.verdict}: {describe_noise(verdict.noise)}"
    yield from describe_curves(verdict)


def describe_account(verdict: RegressVerdict) -> Iterator[tuple[str, str]]:
    """Yield where the accounts part, and what that came to."""
    bars = verdict.bars
    if bars is None or bars.is_same:
        return
    step = bars.at_first[0].step
    yield "first", f"bar {bars.first:,} of {bars.n_bars:,}, {bars.first_time} UTC: {step}"
    later = [f"{each.column} from bar {each.bar:,}" for each in bars.moves if each.bar > bars.first]
    if later:
        rest = len(later) - MOST_LATER
        yield "later", ", ".join(later[:MOST_LATER]) + (f" and {rest} more" if rest > 0 else "")
    total = sum(bars.terms.values())
    terms = sorted(bars.terms.items(), key=lambda item: -abs(item[1]))
    if terms:
        parts = ", ".join(f"{name} {value:+,.6g}" for name, value in terms)
        yield "equity", f"the final equity moved by {total:+,.6g}: {parts}"


def describe_causes(verdict: RegressVerdict) -> Iterator[tuple[str, str]]:
    """Yield what the run is made of that the baseline is not."""
    by_kind: dict[str, list[str]] = {}
    for change in verdict.changes:
        by_kind.setdefault(change.kind, []).append(
            f"{change}{caution_python(change, verdict.host)}"
        )
    for kind, changes in by_kind.items():
        yield f"{kind} changed", "; ".join(changes)
    bars = verdict.bars
    if bars is not None and bars.data is not None:
        one, other = format_pair(bars.data.was, bars.data.now)
        close = f", close {one} -> {other}" if one != other else ""
        yield (
            "data differ",
            f"in {bars.data.count:,} of {bars.n_bars:,} bars, first in bar {bars.data.bar:,}, "
            f"{bars.data_time} UTC{close}",
        )
    if verdict.status == MOVED and not verdict.changes:
        yield (
            "changed",
            "nothing that is recorded of data, policy, venue, account or engine; a policy may read "
            "what its hash does not hold: an object, a file, the clock, random numbers",
        )


def caution_python(change: FactChange, host: Sequence[str]) -> str:
    """Return a caution about a change; the hash of a policy is of the bytecode of one Python."""
    is_python = any(each.startswith("python ") for each in host)
    if change.name == "policy.source_hash" and is_python:
        return " (of another Python's bytecode: the source may be the same)"
    return ""


def describe_curves(verdict: RegressVerdict) -> Iterator[tuple[str, str]]:
    """Yield the equity of baseline and run as lines of blocks, where they differ."""
    was, now = verdict.curves
    if verdict.bars is None or verdict.bars.is_same or not was:
        return
    one, other, between = draw_pair([*was.values()], [*now.values()])
    yield "baseline", one
    yield "now", other
    if between:
        yield "now / was - 1", between


def draw_line(values: Sequence[float], low: float, high: float) -> str:
    """Return values as blocks between two levels, a dot for what is not finite.

    Examples
    --------
    >>> draw_line([1.0, 2.0, 3.0], 1.0, 3.0)
    '▁▅█'
    """
    width = high - low
    blocks = []
    for value in values:
        if not math.isfinite(value):
            blocks.append("·")
            continue
        share = (value - low) / width if width > 0.0 else 0.5
        blocks.append(LEVELS[min(int(share * len(LEVELS)), len(LEVELS) - 1)])
    return "".join(blocks)


def draw_pair(was: Sequence[float], now: Sequence[float]) -> tuple[str, str, str]:
    """Return two curves on one scale, and what lies between them on one of its own.

    Parameters
    ----------
    was, now : sequence of float
        Of the same times.

    Returns
    -------
    tuple of str
        Both curves, and now / was - 1; the last is empty where nothing lies between them.
    """
    finite = [value for value in (*was, *now) if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    gaps = [new / old - 1.0 if old > 0.0 else math.nan for old, new in zip(was, now, strict=True)]
    known = [gap for gap in gaps if math.isfinite(gap)]
    between = ""
    if any(known):
        between = draw_line(gaps, min(*known, 0.0), max(*known, 0.0))
    return draw_line(was, low, high), draw_line(now, low, high), between
