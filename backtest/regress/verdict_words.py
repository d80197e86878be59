"""The wording of verdicts for terminal, Markdown and JUnit: headlines, table rows, remarks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from backtest.base import format_change, format_pair
from backtest.regress.noise import BETTER, INDISTINGUISHABLE, WORSE
from backtest.regress.run_identity import FactChange
from backtest.regress.tolerances import WINNERS
from backtest.regress.verdict import (
    MOVED,
    REWRITTEN,
    SAME,
    SKIPPED,
    UNMEASURED,
    RegressVerdict,
    describe_noise,
)

METRIC_HEADS = ("measure", "baseline", "now", "change", "tolerance", "")
BAR_HEADS = ("first differing bar", "baseline", "now", "change")
MOST_LATER = 6
MOST_WINNERS = 8
"""Most parameters of winners of folds that are named."""
LEVELS = "▁▂▃▄▅▆▇█"
WORDS = (SAME, INDISTINGUISHABLE, REWRITTEN, MOVED, WORSE, BETTER, UNMEASURED, SKIPPED)


def write_headline(verdict: RegressVerdict) -> str:
    return f"{verdict.name}: {verdict.word}: {verdict.reason}"


def list_metric_rows(verdict: RegressVerdict) -> Iterator[tuple[str, ...]]:
    for each in verdict.moved:
        word = "allowed" if each.name in verdict.accepted else each.direction.partition(" ")[0]
        change = format_change(each.was, each.now)
        yield each.name, *format_pair(each.was, each.now), change, str(each.band), word


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
    if verdict.accepted:
        yield "allowed", f"better in {', '.join(verdict.accepted)}"
    yield from describe_first_difference(verdict)
    yield from describe_causes(verdict)
    if verdict.basis:
        yield "compared", f"{verdict.basis}; what decides: {verdict.mode}"
    if verdict.noise is not None:
        yield "returns", f"{verdict.noise.verdict}: {describe_noise(verdict.noise)}"
    yield from describe_curves(verdict)


def describe_first_difference(verdict: RegressVerdict) -> Iterator[tuple[str, str]]:
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


def describe_curves(verdict: RegressVerdict) -> Iterator[tuple[str, str]]:
    was, now = verdict.curves
    if verdict.bars is None or verdict.bars.is_same or not was:
        return
    one, other, between = draw_pair([*was.values()], [*now.values()])
    yield "baseline", one
    yield "now", other
    if between:
        yield "now / was - 1", between


def draw_line(values: Sequence[float], low: float, high: float) -> str:
    def draw_value(value: float) -> str:
        if not math.isfinite(value):
            return "·"
        share = (value - low) / (high - low) if high > low else 0.5
        return LEVELS[min(int(share * len(LEVELS)), len(LEVELS) - 1)]

    return "".join(map(draw_value, values))


def draw_pair(was: Sequence[float], now: Sequence[float]) -> tuple[str, str, str]:
    finite = [value for value in (*was, *now) if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    gaps = [new / old - 1.0 if old > 0.0 else math.nan for old, new in zip(was, now, strict=True)]
    known = [gap for gap in gaps if math.isfinite(gap)]
    between = ""
    if any(known):
        between = draw_line(gaps, min(*known, 0.0), max(*known, 0.0))
    return draw_line(was, low, high), draw_line(now, low, high), between
