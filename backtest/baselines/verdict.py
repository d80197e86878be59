"""Compare a run with its baseline: the same, moved, or not measured; and the verdict as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from backtest.baselines import bands as b
from backtest.baselines.baseline import EXACT, TOLERANCE, Baseline, check_mode
from backtest.baselines.facts import WALK, FactChange, list_changes, list_host_changes
from backtest.baselines.noise import Noise, compare_returns
from backtest.baselines.trace import BarMoves, Trace, compare_traces
from backtest.core import BacktestError, format_time, to_plain
from backtest.results.measure_table import METRICS

SAME, MOVED, UNMEASURED = "same", "moved", "not measured"
REWRITTEN, SKIPPED = "rewritten", "skipped"
EXIT = {SAME: 0, REWRITTEN: 0, MOVED: 1, UNMEASURED: 2, SKIPPED: 0}
ALWAYS_COUNTED = (SAME, MOVED, UNMEASURED)
MOST_NAMED = 5


class MetricMove(NamedTuple):
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
        return tuple(each for each in self.metrics if not each.is_inside)

    @property
    def within_noise(self) -> tuple[MetricMove, ...]:
        """Those of them that returns as noisy as these would move as far by chance."""
        names = () if self.noise is None else self.noise.within
        return tuple(each for each in self.moved if each.name in names)

    @property
    def beyond_noise(self) -> tuple[MetricMove, ...]:
        """Those of them that noise does not explain."""
        return tuple(each for each in self.moved if each not in self.within_noise)

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as data for JSON; numbers that are not finite are strings."""
        noisy = {each.name for each in self.within_noise}
        kept = ("name", "status", "reason", "mode", "basis", "accepted")
        plain: dict[str, Any] = to_plain(
            {
                **{name: getattr(self, name) for name in kept},
                "exit": self.exit_code,
                "metrics": {
                    each.name: {
                        **each._asdict(),
                        "tolerance": each.tolerance.to_data(),
                        "inside": each.is_inside,
                        "within_noise": each.name in noisy,
                    }
                    for each in self.metrics
                },
                "bars": self.bars and {**asdict(self.bars), "is_same": self.bars.is_same},
                "returns": self.noise and self.noise._asdict(),
                "changes": [each._asdict() for each in self.changes],
                "platform": self.host,
            }
        )
        return plain


def report_failure(name: str, error: BaseException, mode: str = EXACT) -> RegressVerdict:
    reason = str(error)
    if not isinstance(error, BacktestError):
        reason = f"a run must end, raised {type(error).__name__}: {error}"
    return RegressVerdict(name, UNMEASURED, reason, mode)


def combine_exit_codes(verdicts: Sequence[RegressVerdict]) -> int:
    codes = [each.exit_code for each in verdicts if each.status != SKIPPED]
    return max(codes, default=2)


def compare_baselines(
    was: Baseline, now: Baseline, *, mode: str | None = None, allow_better: Sequence[str] = ()
) -> RegressVerdict:
    """Compare a run with its baseline.

    ``mode`` is the baseline's own by default; ``allow_better`` are names or patterns of measures
    that may become better.
    """
    decides = check_mode(mode or was.mode)
    allowed = list_allowed(allow_better)
    host = tuple(list_host_changes(was.host, now.host))
    changes = tuple(list_changes(was.facts, now.facts))
    obstacle = find_obstacle(was, now)
    found = RegressVerdict(was.name, UNMEASURED, obstacle, decides, changes=changes, host=host)
    if obstacle:
        return found
    basis = "bit by bit: the same platform"
    if host:
        basis = f"to 1e-9 relative per bar: another platform ({'; '.join(host)})"
    was_ruined, is_ruined = (each.metrics.get("ruined", 0.0) > 0.0 for each in (was, now))
    order = {name: place for place, name in enumerate(METRICS)}
    moves = []
    for name in sorted(was.metrics, key=lambda name: order.get(name, len(order))):
        pair = was.metrics[name], now.metrics[name]
        moves.append(MetricMove(name, *pair, was.bands[name], b.find_direction(name, *pair)))
    found = replace(
        found,
        basis=basis,
        metrics=tuple(moves),
        bars=compare_traces(was.trace, now.trace, is_exact=not host),
        noise=compare_returns(was.trace, now.trace, was_ruined=was_ruined, is_ruined=is_ruined),
    )
    accepted = tuple(m.name for m in found.moved if m.name in allowed and m.direction == b.BETTER)
    status, reason = decide(found, accepted)
    return replace(found, status=status, reason=reason, accepted=accepted)


def list_allowed(patterns: Sequence[str]) -> frozenset[str]:
    known = (*METRICS, *b.BETTER_IF)
    return frozenset(
        name for each in patterns for name in b.match_names(each, known, "allow_better")
    )


def find_obstacle(was: Baseline, now: Baseline) -> str:
    cure = "--update --reason '...' records what it is now"
    kinds = ["a walk" if WALK in each.facts else "a run" for each in (was, now)]
    if kinds[0] != kinds[1]:
        return f"a baseline of {kinds[0]} is compared with {kinds[0]}, got {kinds[1]}"
    for noun, held, measured in (
        ("measures", was.metrics, now.metrics),
        ("columns of bars", was.trace.columns, now.trace.columns),
    ):
        gone = [name for name in held if name not in measured]
        if gone:
            return f"the run lacks {noun} of the baseline: {', '.join(gone)}; {cure}"
        new = [name for name in measured if name not in held]
        if new:
            return f"the baseline lacks {noun} of the run: {', '.join(new)}; {cure}"
    lost = find_lost_data(was.facts.get("data"), now.facts["data"])
    if lost:
        return f"the run lacks data that the baseline was measured on: {lost}; {cure}"
    one, other = was.trace.time, now.trace.time
    if len(one) == len(other) and (one == other).all():
        return ""
    bars = [describe_bars(baseline.trace) for baseline in (was, now)]
    return f"runs must have the same bars to be compared, got {bars[0]} and {bars[1]}; {cure}"


def describe_bars(trace: Trace) -> str:
    first, last = (format_time(int(trace.time[place])) for place in (0, -1))
    return f"{len(trace.time):,} of {first} to {last}"


def find_lost_data(was: Any, now: Any) -> str:
    """Name the data of a baseline that a run lacks; those come from a file of any content."""
    if not isinstance(was, Mapping):
        return ""
    if isinstance(was.get("instruments"), Mapping):
        now_parts = now.get("instruments", {})
        lost = {
            name: find_lost_data(each, now_parts[name]) if name in now_parts else "all bars"
            for name, each in was["instruments"].items()
        }
        return ", ".join(f"{what} of {name}" for name, what in lost.items() if what)
    tested_on = "liquidations_tested_on"
    kinds = {
        "settlements of funding": [bool(each.get("funding_events")) for each in (was, now)],
        "mark prices": [each.get(tested_on) == "mark prices" for each in (was, now)],
    }
    return " and ".join(kind for kind, (had, has) in kinds.items() if had and not has)


def decide(found: RegressVerdict, accepted: Sequence[str]) -> tuple[str, str]:
    if any(each.name not in accepted for each in found.moved):
        words = []
        for direction in (b.WORSE, b.BETTER, b.NEITHER):
            moved = [each for each in found.beyond_noise if each.direction == direction]
            names = [each.name for each in moved if each.name not in accepted]
            most = MOST_NAMED if len(names) <= MOST_NAMED else MOST_NAMED - 1
            words += [f"{direction} in {name_some(names, most, ', ', ' and ')}"] if names else []
        return MOVED, "; ".join(words) or f"{b.NEITHER}: what moved is within noise"
    if accepted:
        return SAME, f"better in {', '.join(accepted)}, which is allowed"
    if found.mode == TOLERANCE:
        return SAME, "every measure lies in its tolerance"
    if found.bars is not None and not found.bars.is_same:
        return MOVED, f"{b.NEITHER}: bars differ, every measure lies in its tolerance"
    return SAME, "every bar is the same"


def name_some(texts: Sequence[str], most: int, comma: str, last: str) -> str:
    rest = len(texts) - most
    return comma.join(texts[:most]) + (f"{last}{rest} more" if rest > 0 else "")
