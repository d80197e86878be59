"""Whether the best of some signals times the market: shifts in time that each choose anew."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from backtest import core, engine, results
from backtest.core.units import DAY
from backtest.market import find_clock
from backtest.search import shifts
from backtest.search import trials as t
from backtest.sweep import Evaluator, count_sets, take_sets
from backtest.sweep.lanes.block import LEAST_LANES
from backtest.sweep.lanes.rows import LANES
from backtest.sweep.lanes.runner import SetTask, count_cores, score_task
from backtest.sweep.panel import KEPT, LastUsed, Panel, Scored, list_ends
from backtest.sweep.set_evaluator import PooledEvaluator, Rows, put_rows, start_rows
from backtest.sweep.sets import SIGNAL, Sets, group_rows, number_rows

PATIENT_SECONDS = 120.0
"""As long as so many seconds are expected, the least number of shifts is tested."""
SIGNIFICANT = 0.05
"""The largest p-value that is evidence."""


class SignalTest(NamedTuple):
    """Share of the shifts in time whose best set has the objective of the best unshifted one.

    ``shifts`` are those that were tested, the unshifted one among them: one in ``every`` of those
    by whole days (sessions). ``memory`` are the days for which the signal remembers prices; a shift
    by fewer days backward would know them in advance, and is left out. ``untested`` says why there
    is no p-value, if so.
    """

    p_value: float = math.nan
    shifts: int = 0
    every: int = 1
    memory: int = 0
    untested: str = ""
    gain: float = math.nan
    """Log growth a year of the best trial less that of its benchmark, over search and holdout."""
    holdout_gain: float = math.nan
    """The same on the holdout alone, of a policy in and out of the market; else NaN."""
    benchmark: str = ""
    """The benchmark, with its risk."""

    @property
    def is_evidence(self) -> bool:
        """Whether the best trial gained, and chance does as well in at most 5 % of the shifts.

        The shifts are of the search. A policy must have gained on the holdout too.
        """
        has_gained = self.gain > 0.0 and not self.holdout_gain <= 0.0
        return has_gained and self.p_value <= SIGNIFICANT


class Shift(NamedTuple):
    """A shift of signals, or of the columns that policies observe, against prices, in days.

    It is one of ``n_shifts`` at which the same sets are simulated.
    """

    days: int
    memory: int
    is_of_signal: bool
    n_shifts: int = 1

    def find_rows(self, circle: shifts.DayCircle) -> core.IntArray:
        """Return the row that each row takes its values from.

        Columns that are known later have fewer days; they are shifted by other days than none, and
        never by fewer backward than are remembered.
        """
        n_shifts = circle.n_days - 1 - self.memory
        if n_shifts < 1:
            return circle.shift(0)
        return circle.shift(1 + (self.days - 1) % n_shifts)


class ShiftedPanel(Panel):
    """A panel whose signal, or whose columns, come some days later than they do in another one."""

    def __init__(self, panel: Panel, shift: Shift) -> None:
        """Share the attributes of a panel, but for what is of another time.

        ``panel`` stays as it is. The caches of setups and columns start empty, under a lock of
        their own; and if the signal is what is shifted, the weights are shifted here.
        """
        vars(self).update(vars(panel))
        self.panel = panel
        self.shift = shift
        self.repeats = shift.n_shifts

        self._lock = threading.RLock()
        self._setups_by_terms = LastUsed(LANES, self._lock)
        self._flat_columns = LastUsed(KEPT, self._lock)
        self._shifted_columns: LastUsed[tuple[Any, Any]] = LastUsed(LANES, self._lock)

        if shift.is_of_signal:
            self._shift_weights()
            # Made from the weights by the first setup, as all setups of a shift share it.
            self._signal_of_feed: core.FloatArray | None = None

    def _shift_weights(self) -> None:
        """Take the weights of other days; what cannot be traded at a bar has none there."""
        clock = find_clock(self.markets)
        circle = find_market_circle(self.seen, clock.at(self.first))
        weights = self.panel.weights[:, self.shift.find_rows(circle)]
        self.weights = np.where(self.seen.tradable(), weights, 0.0)

    def set_up(self, values: Mapping[str, Any]) -> engine.Setup:
        if not self.shift.is_of_signal:
            return super().set_up(values)
        key = ("at its own time", *values.items())
        set_up = partial(self.panel.set_up, values)
        setup = self.panel._setups_by_terms.find(key, set_up)
        return self._shift_signal(setup)

    def _shift_signal(self, setup: engine.Setup) -> engine.Setup:
        """Return a setup with the shifted signal, which all sets of one shift share."""
        clock = find_clock(self.markets)
        feed = setup.inputs.feed
        if self._signal_of_feed is None:
            rows: Any = slice(None)
            if not clock.is_every:  # of shorter bars those at which policies decide
                rows = clock.find_closes()
            signal = feed.signal.copy()
            signal[rows] = np.nan_to_num(self.weights.T)
            self._signal_of_feed = signal

        inputs = setup.inputs._replace(feed=feed._replace(signal=self._signal_of_feed))
        return setup._replace(inputs=inputs, signal=clock.hold(self.weights))

    def _observe(
        self,
        policy: Any,
        values: Mapping[str, Any],
    ) -> list[engine.ObservedPolicy]:
        return self._shift(super()._observe(policy, values))

    def _show(self, policy: Any, columns: Sequence[Any]) -> list[engine.ObservedPolicy]:
        return self._shift(super()._show(policy, columns))

    def _shift(self, observed: list[engine.ObservedPolicy]) -> list[engine.ObservedPolicy]:
        """Return policies with the columns of other days, unless the signal is what is shifted."""
        if self.shift.is_of_signal:
            return observed

        # Policies come first; the overlay after them is not shifted.
        n_policies = len(self.columns)
        shifted = []
        for place, policy in enumerate(observed[:n_policies]):
            # Sets that share columns share the shifted ones.
            make = partial(self._shift_columns, policy)
            key = (place, id(policy.columns))
            _, columns = self._shifted_columns.find(key, make)
            shifted.append(policy._replace(columns=columns))
        return [*shifted, *observed[n_policies:]]

    def _shift_columns(self, observed: engine.ObservedPolicy) -> tuple[Any, Any]:
        """Return the columns of a policy and the shifted ones.

        Both are kept, for the key of the cache is the id of the first: it must not be used again.
        """
        market = observed.market
        columns = observed.columns
        begin = find_clock(self.markets).at(self.first) - observed.first
        first = max(begin, engine.find_warm_up(columns).bar, 0)
        if first >= market.n_bars:
            return columns, columns

        rows = self.shift.find_rows(find_market_circle(market, first))
        shifted = {name: column[rows] for name, column in columns.items()}
        return columns, shifted


def find_market_circle(seen: Any, first: int) -> shifts.DayCircle:
    """Return the whole days of a market from a bar on."""
    closes = np.asarray(seen.time) + seen.interval
    return shifts.find_circle(
        closes,
        seen.interval,
        first=first,
        is_session=bool(seen.sessions),
    )


class ShiftedEvaluator(Evaluator):
    """An evaluator of the same accounts, with signals or columns that come some days later."""

    def __init__(self, base: Evaluator, shift: Shift) -> None:
        """Share the attributes of an evaluator; ``_find_panel`` shifts the panels that it makes."""
        vars(self).update(vars(base))
        self.base = base
        self.shift = shift

        # The search has checked that the sets do not look ahead; a shifted column would seem to.
        self.has_checked = True

    def _find_panel(
        self,
        values: Mapping[str, Any],
        first: int,
        stop: int | None,
    ) -> Panel:
        return ShiftedPanel(self.base._find_panel(values, first, stop), self.shift)

    def replay(
        self,
        values: Mapping[str, object],
        *,
        first: int | None = None,
        stop: int | None = None,
        compile: engine.Compile | None = None,  # noqa: A002 - as that of bt.run
    ) -> results.Result:
        begin = self.first if first is None else first
        setup = self._find_panel(values, begin, stop).set_up(values)
        is_compiled = self.compile if compile is None else compile
        outcome = engine.run_account(setup, is_compiled=is_compiled, progress=None)
        return engine.finish(setup, outcome)


def shift_evaluator(base: Evaluator, shift: Shift) -> Evaluator:
    if not isinstance(base, PooledEvaluator):
        return ShiftedEvaluator(base, shift)
    pooled = copy(base)
    members = base.members.items()
    pooled.members = {name: ShiftedEvaluator(member, shift) for name, member in members}
    return pooled


def judge_signals(
    evaluator: Evaluator,
    goal: t.Goal,
    trials: t.Batch,
    best: int,
    *,
    is_of_signal: bool,
) -> SignalTest:
    """Return how often the best of all trials is as good where signals come at another time.

    Each shift runs all sets, and takes the best that satisfies the constraints: the distribution of
    the maximum, so that p needs no correction for the number of trials. ``is_of_signal`` says
    whether the signal is shifted, whose parameters were searched, or the columns of the policy.
    """
    if evaluator.markets.options:
        return SignalTest(untested="options are not shifted in time")

    # The memory of the best trial, and of sets at the ends of the ranges, stands for all.
    distinct = t.find_distinct(trials.sets).tolist()
    rows = [row for row in distinct if not trials.errors[row]]
    sets = take_sets(trials.sets, np.array(rows))
    examples = [take_sets(trials.sets, best), *list_ends(sets)]
    memory = max(measure_memory(evaluator, one, is_of_signal=is_of_signal) for one in examples)
    chosen = choose_shifts(
        evaluator,
        len(rows),
        memory,
        is_of_signal=is_of_signal,
    )
    if isinstance(chosen, str):
        return SignalTest(untested=chosen, memory=memory)

    # The highest score at each shift; the first is that of the signals at their own time.
    days = chosen.days
    unshifted = np.where(t.is_feasible(trials), trials.scores, -np.inf)[rows]
    highest = np.concatenate([[unshifted.max()], np.full(len(days), -np.inf)])
    n_shifts = len(days)
    all_shifts = [Shift(day, memory, is_of_signal, n_shifts=n_shifts) for day in days.tolist()]
    for group in group_by_signal(sets):
        shifted_rows = run_shifted(evaluator, take_sets(sets, group), all_shifts)
        for place, measured in enumerate(shifted_rows, 1):
            highest[place] = max(highest[place], find_highest(goal, measured))
    return SignalTest(
        shifts.find_p(highest),
        len(highest),
        chosen.every,
        memory,
    )


def group_by_signal(sets: Sets) -> Any:
    """Return the rows of the sets of each signal, which is read once."""
    of_signal = {name: values for name, values in sets.items() if name.startswith(SIGNAL)}
    return group_rows(number_rows(of_signal, count_sets(sets)))


def run_shifted(
    evaluator: Evaluator,
    sets: Sets,
    all_shifts: Sequence[Shift],
) -> Iterator[Rows]:
    """Yield the measures of sets of one signal at each shift.

    A few sets are simulated one by one in threads, as a sweep would; many of them by sweeps.
    """
    is_few = count_sets(sets) < LEAST_LANES and not evaluator.is_pooled
    is_compiled = evaluator.compile and engine.is_loop_compiled(has_options=False)
    scored: list[list[Any]] = [[] for _ in all_shifts]
    if is_few and is_compiled:
        scored = score_one_by_one(evaluator, sets, all_shifts)

    # Where sets were not simulated, or one has a fault, a sweep does it, and gives the reason.
    for shift, parts in zip(all_shifts, scored, strict=True):
        rows = join_scored(start_rows(sets, evaluator.measured), parts)
        if not rows.done.all():
            rows = shift_evaluator(evaluator, shift).evaluate(sets).finish()
        yield rows


def score_one_by_one(
    evaluator: Evaluator,
    sets: Sets,
    all_shifts: Sequence[Shift],
) -> list[list[Any]]:
    """Return the scored sets at each shift, a thread a shift."""
    panel = evaluator._find_panel(take_sets(sets, 0), evaluator.first, None)
    places = np.arange(count_sets(sets))
    tasks = [SetTask(places, sets, ShiftedPanel(panel, shift), False) for shift in all_shifts]

    def is_stopped() -> bool:
        return False

    def score(task: SetTask) -> list[Any]:
        return [*score_task(evaluator.metrics, task, is_stopped)]

    with ThreadPoolExecutor(evaluator.threads or count_cores()) as pool:
        return [*pool.map(score, tasks)]


def join_scored(rows: Rows, part: Sequence[Any]) -> Rows:
    """Write the sets that were scored into the rows of all, and return these."""
    for places, scored in part:
        if isinstance(scored, Scored):
            errors = [""] * len(places)
            done = np.ones(len(places), dtype=np.bool_)
            put_rows(rows, places, Rows(scored.metrics, {}, errors, done, scored.decided))
    return rows


def find_highest(goal: t.Goal, rows: Any) -> float:
    """Return the highest score that satisfies the constraints; minus infinity without any."""
    failed = np.array([bool(error) for error in rows.errors])
    scores, violation = goal.score(rows.metrics, failed)
    feasible = scores[(violation == 0.0) & np.isfinite(scores)]
    return float(feasible.max()) if len(feasible) else -math.inf


def measure_memory(
    evaluator: Evaluator,
    values: Mapping[str, Any],
    *,
    is_of_signal: bool,
) -> int:
    """Return for how many days a set remembers prices: in its signal, or in its targets."""
    replayed: Any = evaluator.replay(values)
    runs = [*replayed.values()] if isinstance(replayed, Mapping) else [replayed]
    return max(count_days_remembered(run, is_of_signal=is_of_signal) for run in runs)


def count_days_remembered(run: results.Result, *, is_of_signal: bool) -> int:
    """Return the whole days over which the signal of a run, or its targets, follow themselves."""
    markets: Any = run.markets
    clock = find_clock(markets)
    decided = run.of_positions("target")
    if is_of_signal:
        decided = np.broadcast_to(run.quotes.signal, (len(run.time), len(run.names)))

    # Only closes at which policies decide: between them targets stay as they are.
    closes = markets.time + markets.interval
    if not clock.is_every:
        closes = closes[clock.find_closes()]
    is_decision = np.isin(run.span.closes, closes)

    lag = shifts.find_memory(decided[is_decision]) * clock.seen.interval
    return int(-(-lag // DAY))


def choose_shifts(
    evaluator: Evaluator,
    n_sets: int,
    memory: int,
    *,
    is_of_signal: bool,
) -> shifts.ChosenShifts | str:
    """Return the shifts that are tested, without that by 0 days; or why there are none."""
    # Signals are shifted by whole days, around the end of the market to its start. Shifts of no
    # more days than the signal remembers are too near to the signal itself.
    clock = find_clock(evaluator.markets)
    first = clock.at(evaluator.first)
    n_days = find_market_circle(clock.seen, first).n_days
    n_shifts = max(n_days - 1 - memory, 0)
    least = shifts.LEAST_SHIFTS - 1
    if n_shifts < least:
        return (
            f"{core.count_nouns(n_days, 'day')} less {memory:,} that the signal remembers give "
            f"fewer than {least} shifts; search more days"
        )

    # The seconds that one shift of all sets takes.
    in_lanes = not is_of_signal and n_sets >= LEAST_LANES
    seconds = n_sets * shifts.expect_seconds(
        evaluator.markets.n_bars - evaluator.first,
        len(evaluator.markets),
        is_compiled=evaluator.compile,
        in_lanes=in_lanes,
        has_own_signal=False,
    )
    if in_lanes:
        seconds += shifts.OF_BLOCK

    # Every so many days is tested, as time allows, but at least as many shifts as a p-value needs.
    every = min(shifts.choose_every(n_shifts, seconds), n_shifts // least)
    if seconds * (n_shifts // every) > PATIENT_SECONDS:
        most = int(n_sets * PATIENT_SECONDS / (seconds * least))
        return (
            f"{least} shifts of {n_sets:,} sets would take over {PATIENT_SECONDS:g} s; search at "
            f"most {most:,} sets, or longer bars"
        )
    return shifts.ChosenShifts(np.arange(every, n_shifts + 1, every), every)
