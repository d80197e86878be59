"""Compare a run with its baseline: the same, moved, or not measured; and the verdict as text."""

from __future__ import annotations

import html
import math
import re
import textwrap
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pandas as pd

from backtest.base import BacktestError, format_change, format_pair, to_plain
from backtest.measures.measure_table import METRICS
from backtest.regress import trace as t
from backtest.regress.baseline import (
    EXACT,
    STATISTICAL,
    TOLERANCE,
    WALK,
    WINNERS,
    Baseline,
    FactChange,
    check_mode,
    list_changes,
    list_host_changes,
)
from backtest.regress.trace import BarMoves, compare_traces

SAME, MOVED, UNMEASURED = "same", "moved", "not measured"
REWRITTEN, SKIPPED = "rewritten", "skipped"
EXIT = {SAME: 0, REWRITTEN: 0, MOVED: 1, UNMEASURED: 2, SKIPPED: 0}
MOST_NAMED = 5


class MetricMove(NamedTuple):
    name: str
    was: float
    now: float
    band: t.Band
    direction: str

    @property
    def is_inside(self) -> bool:
        return self.band.holds(self.was, self.now)


@dataclass(frozen=True)
class RegressVerdict:
    """The outcome of comparing a run with its baseline.

    ``status`` is ``"same"``, ``"moved"`` or ``"not measured"``; ``"rewritten"`` after an update of
    the baseline; ``"skipped"`` if a test measures it. ``basis`` says how the bars were compared,
    bit by bit or to 1e-9, and why; ``accepted`` are measures that became better, as
    ``allow_better`` permits; ``changes`` are the inputs that differ, ``host`` the platforms.
    """

    name: str
    status: str
    reason: str
    mode: str = EXACT
    basis: str = ""
    metrics: tuple[MetricMove, ...] = ()
    accepted: tuple[str, ...] = ()
    bars: BarMoves | None = None
    noise: t.Noise | None = None
    changes: tuple[FactChange, ...] = ()
    host: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """The status; in statistical mode worse, better or indistinguishable instead."""
        is_of_returns = self.mode == STATISTICAL and self.status in (SAME, MOVED)
        return self.noise.verdict if is_of_returns and self.noise is not None else self.status

    @property
    def exit_code(self) -> int:
        """0 same, rewritten or skipped, 1 moved, 2 not measured."""
        return EXIT[self.status]

    def as_rewritten(self, reason: str) -> RegressVerdict:
        text = f"{reason.strip()} ({self.word}: {self.reason})"
        return replace(self, status=REWRITTEN, reason=text)

    @property
    def moved(self) -> tuple[MetricMove, ...]:
        """The measures outside their bands."""
        return tuple(each for each in self.metrics if not each.is_inside)

    @property
    def within_noise(self) -> tuple[MetricMove, ...]:
        """Those of them that returns as noisy as these would move as far by chance."""
        names = () if self.noise is None else self.noise.within
        return tuple(each for each in self.moved if each.name in names)

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as data for JSON; numbers that are not finite are strings."""
        noisy = {each.name for each in self.within_noise}
        measures = {
            each.name: {
                "baseline": each.was,
                "now": each.now,
                "tolerance": each.band.to_data(),
                "inside": each.is_inside,
                "within_noise": each.name in noisy,
                "direction": each.direction,
            }
            for each in self.metrics
        }
        plain: dict[str, Any] = to_plain(
            {
                "name": self.name,
                "status": self.status,
                "word": self.word,
                "exit": self.exit_code,
                "reason": self.reason,
                "mode": self.mode,
                "basis": self.basis,
                "metrics": measures,
                "accepted": self.accepted,
                "bars": None if self.bars is None else describe_bars(self.bars),
                "returns": None if self.noise is None else self.noise._asdict(),
                "changes": [each._asdict() for each in self.changes],
                "platform": self.host,
            }
        )
        return plain


def describe_bars(bars: BarMoves) -> dict[str, Any]:
    data = bars.data
    return {
        "exact": bars.is_exact,
        "compared": bars.n_bars,
        "same": bars.is_same,
        "first_bar": None if bars.is_same else bars.first,
        "first_time": bars.first_time or None,
        "columns": [
            {"column": each.column, "step": each.step, "first_bar": each.bar}
            | {"baseline": each.was, "now": each.now, "bars": each.count, "largest": each.largest}
            for each in bars.moves
        ],
        "data": data and {"first_bar": data.bar, "time": bars.data_time, "bars": data.count},
        "equity_moved_by": bars.terms,
    }


# -------------------------------------------------------------------------------------- comparing


def report_failure(name: str, error: BaseException, mode: str = EXACT) -> RegressVerdict:
    """Return the verdict on a run that could not be measured; it never passes."""
    reason = str(error)
    if not isinstance(error, BacktestError):
        reason = f"a run must end, raised {type(error).__name__}: {error}"
    return RegressVerdict(name, UNMEASURED, reason, mode)


def report_skipped(name: str) -> RegressVerdict:
    return RegressVerdict(name, SKIPPED, "a test made its result: pytest checks it")


def combine_exit_codes(verdicts: Sequence[RegressVerdict]) -> int:
    codes = [each.exit_code for each in verdicts if each.status != SKIPPED]
    return max(codes, default=2)


def compare_baselines(
    was: Baseline,
    now: Baseline,
    *,
    mode: str | None = None,
    allow_better: Sequence[str] = (),
    confidence: float = t.CONFIDENCE,
) -> RegressVerdict:
    """Compare a run with its baseline.

    ``mode`` is the baseline's own by default; ``allow_better`` are names or patterns of measures
    that may become better, ``log_growth`` in statistical mode.
    """
    decides = check_mode(mode or was.mode)
    allowed = list_allowed(allow_better)
    host = tuple(list_host_changes(was.host, now.host))
    found = RegressVerdict(
        was.name,
        UNMEASURED,
        find_obstacle(was, now),
        decides,
        changes=tuple(list_changes(was.facts, now.facts)),
        host=host,
    )
    if found.reason:
        return found
    ruined = (each.metrics.get("ruined", 0.0) > 0.0 for each in (was, now))
    found = replace(
        found,
        basis=describe_basis(host),
        metrics=tuple(compare_metric(name, was, now) for name in sort_metrics(was.metrics)),
        bars=compare_traces(was.trace, now.trace, is_exact=not host),
        noise=t.compare_returns(
            was.trace, now.trace, confidence, was_ruined=next(ruined), is_ruined=next(ruined)
        ),
    )
    deciders = {EXACT: decide_by_bars, TOLERANCE: decide_by_metrics, STATISTICAL: decide_by_returns}
    status, reason, accepted = deciders[decides](found, allowed)
    return replace(found, status=status, reason=reason, accepted=accepted)


def sort_metrics(names: Iterable[str]) -> list[str]:
    order = {name: place for place, name in enumerate(METRICS)}
    return sorted(names, key=lambda name: order.get(name, len(order)))


def compare_metric(name: str, was: Baseline, now: Baseline) -> MetricMove:
    one, other = was.metrics[name], now.metrics[name]
    return MetricMove(name, one, other, was.bands[name], t.find_direction(name, one, other))


def list_allowed(patterns: Sequence[str]) -> frozenset[str]:
    known = (*METRICS, *t.BETTER_IF, t.MEASURE)
    return frozenset(
        name for each in patterns for name in t.match_names(each, known, "allow_better")
    )


def find_obstacle(was: Baseline, now: Baseline) -> str:
    cure = "backtest regress check --update --reason '...' records what it is now"
    kinds = ["a walk" if WALK in each.facts else "a run" for each in (was, now)]
    if kinds[0] != kinds[1]:
        return f"a baseline of {kinds[0]} is compared with {kinds[0]}, got {kinds[1]}"
    missing = [name for name in was.metrics if name not in now.metrics]
    if missing:
        return f"the run lacks measures of the baseline: {', '.join(missing)}; {cure}"
    spans = [baseline.facts["data"] for baseline in (was, now)]
    lost = find_lost_data(*spans)
    if lost:
        return f"the run lacks data that the baseline was measured on: {lost}; {cure}"
    one, other = was.trace.time, now.trace.time
    if len(one) == len(other) and (one == other).all():
        return ""
    bars = [f"{each['bars']:,} of {each['start']} to {each['end']}" for each in spans]
    return f"runs must have the same bars to be compared, got {bars[0]} and {bars[1]}; {cure}"


def find_lost_data(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if "instruments" in was:
        now_parts = now.get("instruments", {})
        lost = {
            name: find_lost_data(each, now_parts[name]) if name in now_parts else "all bars"
            for name, each in was["instruments"].items()
        }
        return ", ".join(f"{what} of {name}" for name, what in lost.items() if what)
    kinds = {
        "settlements of funding": [each["funding_events"] > 0 for each in (was, now)],
        "mark prices": [each["liquidations_tested_on"] == "mark prices" for each in (was, now)],
    }
    return " and ".join(kind for kind, (had, has) in kinds.items() if had and not has)


def describe_basis(host: Sequence[str]) -> str:
    if not host:
        return "bit by bit: the same platform"
    return f"to 1e-9 relative per bar: another platform ({'; '.join(host)})"


# --------------------------------------------------------------------------------- what decides

Decision = tuple[str, str, tuple[str, ...]]


def decide_by_metrics(found: RegressVerdict, allowed: frozenset[str]) -> Decision:
    moved = found.moved
    accepted = tuple(m.name for m in moved if m.name in allowed and m.direction == t.BETTER)
    left = [each for each in moved if each.name not in accepted]
    if left:
        return MOVED, count_directions(left), accepted
    if accepted:
        return SAME, f"better in {', '.join(accepted)}, which is allowed", accepted
    return SAME, "every measure lies in its tolerance", ()


def decide_by_bars(found: RegressVerdict, allowed: frozenset[str]) -> Decision:
    status, reason, accepted = decide_by_metrics(found, allowed)
    if status == MOVED or accepted:
        return status, reason, accepted
    if found.bars is not None and not found.bars.is_same:
        return MOVED, f"{t.NEITHER}: bars differ, every measure lies in its tolerance", ()
    return SAME, "every bar is the same", ()


def decide_by_returns(found: RegressVerdict, allowed: frozenset[str]) -> Decision:
    noise = found.noise
    if noise is None or noise.verdict == t.UNKNOWN:
        return UNMEASURED, noise.reason if noise else "no returns", ()
    text = describe_noise(noise)
    if noise.verdict == t.INDISTINGUISHABLE:
        return SAME, text, ()
    if noise.verdict == t.BETTER and t.MEASURE in allowed:
        return SAME, f"{text}, which is allowed", (t.MEASURE,)
    return MOVED, text, ()


def describe_noise(noise: t.Noise) -> str:
    if noise.reason:
        return noise.reason
    power = (
        f"detectable in about 4 of 5 cases: {noise.detectable:.3g} per year"
        if math.isfinite(noise.detectable)
        else "no difference could have been detected"
    )
    return (
        f"log growth {noise.difference:+.3g} per year, {noise.confidence * 100.0:g} % interval "
        f"{noise.low:+.3g} to {noise.high:+.3g}, p = {noise.p_value:.3g}, {noise.samples} returns; "
        f"{power}"
    )


def count_directions(moved: Sequence[MetricMove]) -> str:
    words = []
    for direction in (t.WORSE, t.BETTER, t.NEITHER):
        names = [each.name for each in moved if each.direction == direction]
        shown = names if len(names) <= MOST_NAMED else names[: MOST_NAMED - 1]
        rest = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        words += [f"{direction} in {', '.join(shown)}{rest}"] if names else []
    return "; ".join(words)


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
