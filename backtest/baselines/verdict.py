"""Compare a run with its baseline: the same, moved, or not measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from backtest.baselines import bands as b
from backtest.baselines.baseline import EXACT, TOLERANCE, Baseline, check_mode
from backtest.baselines.facts import WALK, FactChange, list_changes, list_host_changes
from backtest.baselines.noise import Noise, compare_returns
from backtest.baselines.trace import BarMoves, Trace, compare_traces
from backtest.core import BacktestError, format_time, to_plain
from backtest.results.measure_table import METRICS

SAME = "same"
MOVED = "moved"
UNMEASURED = "not measured"
REWRITTEN = "rewritten"
SKIPPED = "skipped"
EXIT = {
    SAME: 0,
    REWRITTEN: 0,
    MOVED: 1,
    UNMEASURED: 2,
    SKIPPED: 0,
}
ALWAYS_COUNTED = (SAME, MOVED, UNMEASURED)
MOST_NAMED = 5
"""Most measures that a reason names."""
CURE = "--update --reason '...' records what it is now"


class MetricMove(NamedTuple):
    """A measure of the baseline and of the run, with its tolerance."""

    name: str
    was: float
    now: float
    tolerance: b.Band
    direction: str

    @property
    def is_inside(self) -> bool:
        return self.tolerance.holds(self.was, self.now)


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
    noise: Noise | None = None
    changes: tuple[FactChange, ...] = ()
    host: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 same, rewritten or skipped, 1 moved, 2 not measured."""
        return EXIT[self.status]

    def as_rewritten(self, reason: str) -> RegressVerdict:
        text = f"{reason.strip()} ({self.status}: {self.reason})"
        return replace(self, status=REWRITTEN, reason=text)

    @property
    def moved(self) -> tuple[MetricMove, ...]:
        """The measures outside their bands."""
        return tuple(measure for measure in self.metrics if not measure.is_inside)

    @property
    def within_noise(self) -> tuple[MetricMove, ...]:
        """Those of them that returns as noisy as these would move as far by chance."""
        if self.noise is None:
            return ()
        noisy = self.noise.within
        return tuple(measure for measure in self.moved if measure.name in noisy)

    @property
    def beyond_noise(self) -> tuple[MetricMove, ...]:
        """Those of them that noise does not explain."""
        noisy = self.within_noise
        return tuple(measure for measure in self.moved if measure not in noisy)

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as data for JSON; numbers that are not finite are strings."""
        bars: Any = self.bars
        if self.bars is not None:
            bars = {**asdict(self.bars), "is_same": self.bars.is_same}

        plain: dict[str, Any] = to_plain(
            {
                "name": self.name,
                "status": self.status,
                "reason": self.reason,
                "mode": self.mode,
                "basis": self.basis,
                "accepted": self.accepted,
                "exit": self.exit_code,
                "metrics": self._write_metrics(),
                "bars": bars,
                "returns": None if self.noise is None else self.noise._asdict(),
                "changes": [change._asdict() for change in self.changes],
                "platform": self.host,
            }
        )
        return plain

    def _write_metrics(self) -> dict[str, dict[str, Any]]:
        noisy = {measure.name for measure in self.within_noise}
        rows = {}
        for measure in self.metrics:
            rows[measure.name] = {
                **measure._asdict(),
                "tolerance": measure.tolerance.to_data(),
                "inside": measure.is_inside,
                "within_noise": measure.name in noisy,
            }
        return rows


def report_failure(name: str, error: BaseException, mode: str = EXACT) -> RegressVerdict:
    """Return the verdict of a run that raised: not measured."""
    reason = str(error)
    if not isinstance(error, BacktestError):
        reason = f"a run must end, raised {type(error).__name__}: {error}"
    return RegressVerdict(name, UNMEASURED, reason, mode)


def combine_exit_codes(verdicts: Sequence[RegressVerdict]) -> int:
    """Return the worst exit code; 2 if everything was skipped, as nothing was measured."""
    codes = [verdict.exit_code for verdict in verdicts if verdict.status != SKIPPED]
    return max(codes, default=2)


def compare_baselines(
    was: Baseline,
    now: Baseline,
    *,
    mode: str | None = None,
    allow_better: Sequence[str] = (),
) -> RegressVerdict:
    """Compare a run with its baseline.

    ``mode`` is the baseline's own by default; ``allow_better`` are names or patterns of measures
    that may become better.
    """
    mode = check_mode(mode or was.mode)
    allowed = list_allowed(allow_better)
    host = tuple(list_host_changes(was.host, now.host))
    obstacle = find_obstacle(was, now)
    verdict = RegressVerdict(
        name=was.name,
        status=UNMEASURED,
        reason=obstacle,
        mode=mode,
        changes=tuple(list_changes(was.facts, now.facts)),
        host=host,
    )
    if obstacle:
        return verdict

    # Another processor or library rounds differently, so its last bits say nothing.
    basis = "bit by bit: the same platform"
    if host:
        basis = f"to 1e-9 relative per bar: another platform ({'; '.join(host)})"
    verdict = replace(
        verdict,
        basis=basis,
        metrics=compare_metrics(was, now),
        bars=compare_traces(was.trace, now.trace, is_exact=not host),
        noise=compare_returns(
            was.trace,
            now.trace,
            was_ruined=is_ruined(was),
            is_ruined=is_ruined(now),
        ),
    )

    better = [move.name for move in verdict.moved if move.direction == b.BETTER]
    accepted = tuple(name for name in better if name in allowed)
    status, reason = decide(verdict, accepted)
    return replace(
        verdict,
        status=status,
        reason=reason,
        accepted=accepted,
    )


def is_ruined(baseline: Baseline) -> bool:
    return baseline.metrics.get("ruined", 0.0) > 0.0


def compare_metrics(was: Baseline, now: Baseline) -> tuple[MetricMove, ...]:
    """Return all measures of a baseline and of a run, in the order of pages."""
    order = {name: place for place, name in enumerate(METRICS)}
    names = sorted(was.metrics, key=lambda name: order.get(name, len(order)))

    moves = []
    for name in names:
        old_value = was.metrics[name]
        new_value = now.metrics[name]
        move = MetricMove(
            name=name,
            was=old_value,
            now=new_value,
            tolerance=was.bands[name],
            direction=b.find_direction(name, old_value, new_value),
        )
        moves.append(move)
    return tuple(moves)


def list_allowed(patterns: Sequence[str]) -> frozenset[str]:
    """Return the measures that may become better; raise ParameterError for an unknown one."""
    known = (*METRICS, *b.BETTER_IF)
    allowed: set[str] = set()
    for pattern in patterns:
        allowed.update(b.match_names(pattern, known, "allow_better"))
    return frozenset(allowed)


def find_obstacle(was: Baseline, now: Baseline) -> str:
    """Return why a run cannot be compared with a baseline; empty if it can."""
    recorded = name_kind(was)
    measured = name_kind(now)
    if recorded != measured:
        return f"a baseline of {recorded} is compared with {recorded}, got {measured}"

    differing = find_differing_names("measures", was.metrics, now.metrics)
    if not differing:
        columns = "columns of bars"
        differing = find_differing_names(columns, was.trace.columns, now.trace.columns)
    if differing:
        return f"{differing}; {CURE}"

    lost = find_lost_data(was.facts.get("data"), now.facts["data"])
    if lost:
        return f"the run lacks data that the baseline was measured on: {lost}; {CURE}"

    old_time = was.trace.time
    new_time = now.trace.time
    if len(old_time) == len(new_time) and (old_time == new_time).all():
        return ""
    return (
        f"runs must have the same bars to be compared, got {describe_bars(was.trace)} "
        f"and {describe_bars(now.trace)}; {CURE}"
    )


def name_kind(baseline: Baseline) -> str:
    return "a walk" if WALK in baseline.facts else "a run"


def find_differing_names(noun: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return which names the run or the baseline lacks; empty if they have the same."""
    gone = [name for name in was if name not in now]
    if gone:
        return f"the run lacks {noun} of the baseline: {', '.join(gone)}"
    new = [name for name in now if name not in was]
    if new:
        return f"the baseline lacks {noun} of the run: {', '.join(new)}"
    return ""


def describe_bars(trace: Trace) -> str:
    first = format_time(int(trace.time[0]))
    last = format_time(int(trace.time[-1]))
    return f"{len(trace.time):,} of {first} to {last}"


def find_lost_data(was: Any, now: Any) -> str:
    """Name the data of a baseline that a run lacks; those come from a file of any content."""
    if not isinstance(was, Mapping):
        return ""
    if isinstance(was.get("instruments"), Mapping):
        return find_lost_parts(was["instruments"], now.get("instruments", {}))

    lost = []
    if was.get("funding_events") and not now.get("funding_events"):
        lost.append("settlements of funding")
    if has_marks(was) and not has_marks(now):
        lost.append("mark prices")
    return " and ".join(lost)


def find_lost_parts(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Name the data that a run lacks of each instrument of a baseline."""
    lost = []
    for name, old_part in was.items():
        lost_data = "all bars"
        if name in now:
            lost_data = find_lost_data(old_part, now[name])
        if lost_data:
            lost.append(f"{lost_data} of {name}")

    return ", ".join(lost)


def has_marks(data: Mapping[str, Any]) -> bool:
    return data.get("liquidations_tested_on") == "mark prices"


def decide(verdict: RegressVerdict, accepted: Sequence[str]) -> tuple[str, str]:
    """Return the status of a verdict whose moves are known, and the reason."""
    if any(move.name not in accepted for move in verdict.moved):
        reason = "; ".join(list_directions(verdict, accepted))
        return MOVED, reason or f"{b.NEITHER}: what moved is within noise"

    if accepted:
        return SAME, f"better in {', '.join(accepted)}, which is allowed"
    if verdict.mode == TOLERANCE:
        return SAME, "every measure lies in its tolerance"
    if verdict.bars is not None and not verdict.bars.is_same:
        return MOVED, f"{b.NEITHER}: bars differ, every measure lies in its tolerance"
    return SAME, "every bar is the same"


def list_directions(verdict: RegressVerdict, accepted: Sequence[str]) -> Iterator[str]:
    """Yield what became worse, what better, and what neither, beyond noise."""
    for direction in (b.WORSE, b.BETTER, b.NEITHER):
        moves = [move for move in verdict.beyond_noise if move.direction == direction]
        names = [move.name for move in moves if move.name not in accepted]
        if not names:
            continue

        most = MOST_NAMED
        if len(names) > MOST_NAMED:
            most = MOST_NAMED - 1  # "and 2 more" takes the place of a name
        yield f"{direction} in {name_some(names, most, comma=', ', last=' and ')}"


def name_some(
    texts: Sequence[str],
    most: int,
    *,
    comma: str,
    last: str,
) -> str:
    """Join the first texts, and say after ``last`` how many more there are."""
    joined = comma.join(texts[:most])
    if len(texts) <= most:
        return joined
    return f"{joined}{last}{len(texts) - most} more"
