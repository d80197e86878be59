"""timing_test(): whether the timing of the leverage earned the result, by shifting it in time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.account import Account, without_flows_before
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.engine import Conditions, plain
from backtest.market import Market, Markets, as_given, find_clock
from backtest.policies import AccountView, Bar, Columns, Policy
from backtest.results import Result
from backtest.results.settings_result import SettingsResult
from backtest.search.shifts import (
    FEW_FILLS,
    LEAST_SHIFTS,
    MOST_SECONDS,
    ChosenShifts,
    DayCircle,
    choose_every,
    expect_seconds,
    find_circle,
    find_p,
)
from backtest.search.signal_shifts import SIGNIFICANT
from backtest.search.study import Study
from backtest.search.walk_forward import WalkForward
from backtest.signals import SignalRule
from backtest.sweep.set_runs import read_runs

BINS = 40

Rows = Annotated[int, core.Range(0, 100_000_000, "decisions")]


class Decided(NamedTuple):
    """Targets of a run at the ``closes`` (n,), in ns, at which its policies decided.

    ``leverage`` (with the overlay; NaN keeps the position) and ``signal`` have shape
    (n, n_instruments). ``circle`` has the days from the first decision on.
    """

    closes: core.IntArray
    leverage: core.FloatArray
    signal: core.FloatArray
    circle: DayCircle
    names: tuple[str, ...]

    @property
    def target(self) -> core.FloatArray:
        """The signed leverage that was decided; 0 where the signal is, whatever the leverage."""
        return np.where(self.signal == 0.0, 0.0, self.signal * self.leverage)

    def find_rows(self, market: Market | Markets, shift: int) -> core.IntArray:
        """Return the shifted rows of a market's bars; the last, of nothing, where it has none."""
        closes = market.time + market.interval
        if np.array_equal(closes, self.closes):
            return self.circle.shift(shift)

        # The close of a bar that was decided at; of others the row behind the last stands.
        n = len(self.closes)
        rows = np.searchsorted(self.closes, closes)
        is_known = self.closes[np.minimum(rows, n - 1)] == closes
        known_rows = np.where(is_known, rows, n)
        shifted = np.append(self.circle.shift(shift), n)
        return np.asarray(shifted[known_rows])


def make_replayed(decided: Decided) -> tuple[type[Policy], type[SignalRule]]:
    """Return a policy and a signal that play recorded targets, ``shift`` days later.

    ``instrument`` is the place of the instrument whose targets a policy plays.
    """
    # The last row is that of bars at which nothing was decided: see :meth:`Decided.find_rows`.
    nothing = np.full((1, len(decided.names)), np.nan)
    leverage = np.vstack([decided.leverage, nothing])
    signal = np.vstack([decided.signal, nothing])

    class Replayed(Policy):
        """Targets of a run that are given as data."""

        shift: Rows = 0
        instrument: Rows = 0

        def observe(self, market: Market) -> Columns:
            return {"target": leverage[decided.find_rows(market, self.shift), self.instrument]}

        def leverage(self, bar: Bar, account: AccountView) -> float:  # noqa: ARG002
            return bar.target

    class Shifted(SignalRule):
        """Directions of a run that are given as data."""

        shift: Rows = 0

        def direction(self, market: Market) -> core.FloatArray:
            return np.asarray(signal[decided.find_rows(market, self.shift), 0])

        def _find_weights(self, markets: Markets) -> pd.DataFrame:
            rows = signal[decided.find_rows(markets, self.shift)]
            weights = pd.DataFrame(rows, index=markets.times, columns=[*decided.names])
            return weights[[*markets.names]].fillna(0.0)

    return Replayed, Shifted


def read_decided(result: Result, market: Market | Markets) -> Decided:
    """Return the targets of a run at the closes of a market at which it decided."""
    clock = find_clock(market)
    closes = clock.seen.time + clock.seen.interval
    # Of these closes, those that the run has: it may have started later, or ended before.
    closes_of_run = result.span.closes
    rows = np.searchsorted(closes_of_run, closes)
    nearest = np.minimum(rows, len(result.time) - 1)
    is_in_run = closes_of_run[nearest] == closes
    rows = rows[is_in_run]
    closes = closes[is_in_run]

    leverage = result.of_positions("target")[rows]
    if "overlay" in result.manifest:
        leverage = apply_overlay(result, leverage, closes, rows)
    shape = (len(result.time), len(result.names))
    signal = np.broadcast_to(result.quotes.signal, shape)[rows]

    # Shifts turn the days of decisions as a circle. Before its first decision an account is flat;
    # a shifted one stays so for as long.
    is_decided = (~np.isnan(leverage)).any(axis=1)
    circle = find_circle(
        closes,
        clock.seen.interval,
        first=int(np.argmax(is_decided)),
        is_session=bool(market.sessions),
    )
    return Decided(closes, leverage, signal, circle, result.names)


def apply_overlay(
    result: Result,
    leverage: core.FloatArray,
    closes: core.IntArray,
    rows: core.IntArray,
) -> core.FloatArray:
    """Return leverages within the limits of the account, scaled by its overlay.

    NaN leaves a position as it is, but an overlay of 0 closes it.
    """
    # At most what the limit of the bar allows that opens at the close.
    feed = result.setup.inputs.feed
    fill_rows = np.searchsorted(feed.time, closes)
    highest = feed.limit[np.minimum(fill_rows, len(feed.limit) - 1)]
    lowest = [result.account.for_instrument(name).min_leverage for name in result.names]
    limited = np.minimum(np.maximum(leverage, lowest), highest)

    overlay = result.of_account("overlay")[rows, None]
    with np.errstate(invalid="ignore"):
        return np.where(overlay == 0.0, 0.0, limited * overlay)


def fold_signal(decided: Decided, account: Account) -> Decided:
    """Return the same targets with a constant signal, where it has one side in each instrument.

    Accounts of one signal are simulated side by side, which is many times as fast. Where the
    signal is 0 the leverage is, which a minimum leverage would raise.
    """
    # The side of each instrument: the sum of the largest and the smallest signal, if the other of
    # them is 0. Otherwise some signal is neither 0 nor the sum, and nothing is folded.
    sides = np.max(decided.signal, axis=0) + np.min(decided.signal, axis=0)
    is_flat = decided.signal == 0.0
    has_one_side = bool((is_flat | (decided.signal == sides)).all())
    if not has_one_side:
        return decided

    has_least = any(account.for_instrument(name).min_leverage for name in decided.names)
    if is_flat.any() and has_least:
        return decided

    leverage = np.where(is_flat, 0.0, decided.leverage)
    return decided._replace(leverage=leverage, signal=np.broadcast_to(sides, leverage.shape))


@dataclass(frozen=True, eq=False, repr=False)
class TimingTest(SettingsResult):
    """What the decided targets earned at other times, beside those at their own time.

    Attributes
    ----------
    table : DataFrame
        By ``shift`` in days (sessions, in a market with sessions), 0 first: ``log_growth``, minus
        infinity at ruin.
    p_growth : float
        The share of shifts, the unshifted one among them, that grow at least as much as it; NaN if
        not tested.
    leverage_timing, timing_error : float
        That term of the attribution of the run, in log growth, and its standard error; NaN of
        several instruments.
    days : int
        The whole days (sessions) of the decisions, which is the number of different shifts.
    every : int
        1 if all shifts were tested, k if every k-th was, because all would take over 20 s.
    why : str
        Why it was not tested, or empty.
    """

    table: pd.DataFrame
    p_growth: float
    leverage_timing: float
    timing_error: float
    days: int
    every: int = 1
    why: str = ""

    kind = "timing"
    call = "bt.timing_test"
    is_yearly = True
    plural = "timing tests"

    @property
    def details(self) -> str:
        """What was compared, and which shifts."""
        shifts = "all shifts by whole days"
        if self.every > 1:
            shifts = (
                f"one in {self.every} of the {self.days:,} shifts by whole days, as all would take "
                f"over {MOST_SECONDS:g} s"
            )
        return (
            f"Compared were {shifts}. Each plays the decided targets at another time, from fresh "
            "capital, with all costs, so its mean leverage is the same. Under the null the targets "
            "are independent of returns and of volatility; the attribution measures only the "
            "timing of returns, so a small p with a leverage timing within its error is timing of "
            "volatility."
        )

    @property
    def note(self) -> str:
        return self.why or f"p {core.format_p_value(self.p_growth)} of {len(self.table)} shifts"

    @property
    def verdict(self) -> str:
        if self.why:
            return core.capitalize(f"{self.why}.")
        n = len(self.table)
        reached = round(self.p_growth * n)
        judged = "Timing earned nothing we can see"
        if self.p_growth <= SIGNIFICANT:
            judged = "Timing earned more than chance explains"
        return (
            f"{judged}: {reached:,} of {n:,} shifts of the same leverage, the unshifted one among "
            f"them, grew at least as much (p = {self.p_growth:.2g})."
        )

    def list_numbers(self) -> list[Headline]:
        which = "by whole days"
        if self.every > 1:
            which = f"one in {self.every} of {self.days:,} whole days"
        return [
            Headline(
                name="p_growth",
                title="p-value of growth",
                value=self.p_growth,
                style="decimals",
                note="one-sided",
            ),
            Headline(
                name="leverage_timing",
                title="leverage timing",
                value=self.leverage_timing,
                style="decimals",
                note=f"log growth, error {self.timing_error:.3f}",
            ),
            Headline(
                name="shifts",
                title="shifts",
                value=float(len(self.table)),
                style="count",
                note=which,
            ),
        ]

    def list_parts(self) -> list[Part]:
        charts = []
        if len(self.table) > 1:
            charts.append(draw_histogram(self.table, "log_growth", "Log growth"))
        unshifted = ShownTable(
            self.table.iloc[:1],
            caption="The unshifted replay",
            labels=Head("shift", "days"),
            heads={"log_growth": Head("log growth")},
        )
        return [
            Part(
                key="shifts",
                title="Shifts in time",
                lead="The dotted line is the unshifted replay.",
                blocks=(unshifted, *charts),
                shows="both",
            )
        ]


def draw_histogram(table: pd.DataFrame, name: str, title: str) -> ShownChart:
    """Draw how many shifts earned how much, and the unshifted replay as a line."""
    values = table[name].to_numpy()
    is_known = np.isfinite(values)
    known = values[is_known]
    span = (0.0, 1.0)
    if len(known):
        span = (known.min(), known.max())

    # The first value is that of the replay that is not shifted.
    counts, edges = np.histogram(values[1:][is_known[1:]], BINS, span)
    middle = pd.Index((edges[:-1] + edges[1:]) / 2.0, name=title)
    return ShownChart(
        key=f"timing-{name}",
        title=title,
        caption="Shifts by what they earned.",
        table=pd.DataFrame({"shifts": counts}, index=middle),
        kind="bars",
        x=title,
        y="shifts",
        marks=(float(values[0]),) if is_known[0] else (),
        mark_names=("unshifted",),
        size="beside",
    )


@core.record_making
@core.checked_only("progress", "result")
def timing_test(
    result: Result | Study | WalkForward,
    *,
    threads: int | None = None,
    progress: core.Progress | None = None,
) -> TimingTest:
    """Return whether the timing of the leverage earned a result, by a test of shifts in time.

    Parameters
    ----------
    result : Result, Study or WalkForward
        A run; of a study the best set on its holdout, of a walk the account through its test
        spans. The span on which a set was chosen is never tested.
    threads : int, optional
        Number of threads (all cores).
    progress : callable, optional
        Called with the replays that are done, and their number.

    Raises
    ------
    ParameterError
        If the result was loaded or traded options, or the study has no holdout.

    Notes
    -----
    g is the decided signed target: leverage times signal times overlay; NaN keeps the position.
    The m whole days from its first decision on (sessions, in a market with sessions) are a circle,
    and each of its shifts by 0 to m - 1 days is replayed from fresh capital through the account,
    with fees, funding and margin, open-loop: what the policy saw of its account, and margin
    settings that it decided, do not come again. All shifts hold the same leverages, so they are
    compared at equal mean leverage. Where all are expected to take over 20 s, by the number of
    bars, every k-th is replayed. p is the share of shifts, that by 0 among them, that grow at least
    as much as the unshifted one: exact if returns are exchangeable in time and independent of g.
    Shifts by a few days less than m give a leverage that follows prices knowledge of days to come,
    which costs power where the memory of g is long. Not tested are accounts with under 10 fills,
    with a constant leverage, and with under 20 shifts.
    """
    run = pick_run(result)
    test = cut_test(run)
    decided = fold_signal(read_decided(run, test.market), test.account)
    is_compiled = run.manifest["compiled"] == "yes"
    days, every = choose_shifts(decided, test.market, is_compiled=is_compiled)

    leverage_timing = math.nan
    timing_error = math.nan
    if run.has_one_position:
        split = run.attribution()
        leverage_timing = float(split.leverage_timing)
        timing_error = float(split.timing_error)

    why = explain_untested(run, decided, len(days))
    if why:
        every = 1
        p_growth = math.nan
        table = pd.DataFrame({"log_growth": []}, index=pd.Index([], name="shift"))
    else:
        table = replay_shifts(
            test,
            decided,
            days,
            progress,
            compile=is_compiled,
            threads=threads,
        )
        p_growth = find_p(table["log_growth"].to_numpy())
    return TimingTest(
        table,
        p_growth,
        leverage_timing,
        timing_error,
        decided.circle.n_days,
        every,
        why=why,
        settings={
            "policy": run.manifest["policy"]["text"],
            "run": run.manifest["id"],
            "start": core.format_time(run.span.start),
        },
        market=test.market,
    )


def pick_run(result: Result | Study | WalkForward) -> Result:
    """Return the run that a test of timing replays: never that on which a set was chosen."""
    if isinstance(result, WalkForward):
        run = result.result
    elif isinstance(result, Study):
        run = result.replay_holdout()
    else:
        run = result

    if run.setup is None:
        raise core.ParameterError(
            "a timing test replays the targets of a run, got a loaded one: run it again"
        )
    if run.options is not None:
        raise core.ParameterError(
            "a timing test replays the targets of a run, got one that traded options"
        )
    return run


def choose_shifts(
    decided: Decided,
    market: Market | Markets,
    *,
    is_compiled: bool,
) -> ChosenShifts:
    """Return the shifts that are replayed, 0 first."""
    n_days = decided.circle.n_days
    has_moving_signal = moves(decided.signal)
    seconds = expect_seconds(
        market.n_bars,
        len(decided.names),
        is_compiled=is_compiled,
        in_lanes=not has_moving_signal,
        has_own_signal=has_moving_signal,
    )
    every = choose_every(n_days, seconds)
    return ChosenShifts(np.arange(0, n_days, every), every)


def moves(signal: core.FloatArray) -> bool:
    return bool(np.any(signal != signal[0]))


def explain_untested(result: Result, decided: Decided, n_shifts: int) -> str:
    """Return why an account is not tested, or nothing."""
    target = pd.DataFrame(decided.target).ffill().bfill()
    if bool((target.nunique() <= 1).all()):
        return "the leverage is constant: it has no timing"

    fills = int(result.metrics["fills"])
    if fills < FEW_FILLS:
        return f"not tested: {core.count_nouns(fills, 'fill')}, under {FEW_FILLS} are too few"
    if n_shifts < LEAST_SHIFTS:
        days = core.count_nouns(decided.circle.n_days, "whole day")
        return (
            f"not tested: {days} give {core.count_nouns(n_shifts, 'shift')}, and p cannot be .05 "
            f"under {LEAST_SHIFTS}; test a longer span"
        )
    return ""


def cut_test(result: Result) -> Conditions:
    """Return the terms of a run on the bars that it has, without its signal and overlay."""
    test: Conditions = plain(result.setup.test)
    whole: Any = result.markets
    markets = whole.slice(core.utc_index(result.time)[0], None)

    account = without_flows_before(test.account, int(result.time[0]))
    if test.overlay is not None:  # the limits of leverage are in the targets
        account = replace(account, min_leverage=0.0, max_leverage=math.inf)

    market = as_given(markets, test.market)
    return test.replace(
        market=market,
        account=account,
        signal=None,
        overlay=None,
        start=None,
    )


def read_still_signal(decided: Decided, market: Market | Markets) -> float | dict[str, float]:
    """Return a signal that never moves: a number, of several instruments one for each by name."""
    by_name = dict(zip(decided.names, decided.signal[0].tolist(), strict=True))
    if isinstance(market, Markets):
        return by_name
    return float(by_name[decided.names[0]])


def replay_shifts(
    test: Conditions,
    decided: Decided,
    days: core.IntArray,
    progress: core.Progress | None = None,
    *,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    threads: int | None = None,
) -> pd.DataFrame:
    """Return the log growth of an account that holds the targets of a run, moved in time.

    A row for each shift, in days; -inf where the account was ruined. The shifts are a sweep of a
    policy that replays the targets: each is a set. Raises PolicyError if one cannot be replayed.
    """
    policy, rule = make_replayed(decided)
    sets: dict[str, Any] = {"shift": days}
    signal: Any
    if moves(decided.signal):
        # It is shifted with the targets.
        sets["signal.shift"] = days
        signal = rule()
    else:
        signal = read_still_signal(decided, test.market)

    # Each instrument has the targets of its own place.
    if len(decided.names) > 1:
        for place, name in enumerate(decided.names):
            sets[f"{name}.instrument"] = np.full(len(days), place)

    runs = read_runs(
        test.replace(signal=signal),
        policy,
        compile=compile,
        threads=threads,
    )
    evaluator = runs.make(runs.market, runs.test.signal, "core")
    rows = evaluator.evaluate(sets, progress=progress).finish()
    failures = [error for error in rows.errors if error]
    if failures:
        raise core.PolicyError(f"a replay of the targets failed: {failures[0]}")

    is_ruined = rows.metrics["ruined"] > 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.where(is_ruined, -np.inf, np.log1p(rows.metrics["total_return"]))
    return pd.DataFrame({"log_growth": growth}, index=pd.Index(days, name="shift"))
