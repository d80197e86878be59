"""Compare a run with its baseline: the same, moved, or not measured, and what moved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from backtest.base import BacktestError, to_plain
from backtest.measures.measure_table import METRICS
from backtest.regress import tolerances as t
from backtest.regress.baseline import (
    EXACT,
    STATISTICAL,
    TOLERANCE,
    WALK,
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
