"""passing_probability(): whether an account reaches a target before its limits of loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from backtest import core, engine
from backtest.core.fields import INNER_SHARE, SHARE
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY
from backtest.engine import AnyPolicy, Conditions, plain
from backtest.market import as_markets
from backtest.results.settings_result import SettingsResult
from backtest.risk.liquidations import describe_terms
from backtest.risk.path_drift import describe_drift
from backtest.risk.path_runner import PathsRunner
from backtest.risk.paths import Paths, simulate_paths
from backtest.risk.scores import estimate

PASSED, DAILY, MAXIMUM, UNDECIDED = range(4)
OUTCOMES = ("passed", "daily_loss", "max_loss", "undecided")
REACHED = 1e-6
"""Share of the capital within which a floor counts as reached: costs of the closing are more."""


class Challenge(NamedTuple):
    """The rules of a funded account, as fractions of the capital.

    ``trailing`` is None for a maximum loss from the capital, ``"close"`` from the highest equity at
    ends of days, ``"intrabar"`` from the highest inside bars; its floor stops rising at
    ``1 + locked``. The daily loss counts from the equity at the first open of the day, as a
    fraction of it, or of the capital if ``is_of_capital``. An account passes from day ``min_days``
    on, if its best day is at most ``consistency`` of its profit; without either, 0 and None.
    """

    target: float
    max_loss: float
    daily_loss: float | None
    trailing: str | None
    locked: float | None
    is_of_capital: bool
    min_days: int = 0
    consistency: float | None = None


class Wealth(NamedTuple):
    """Wealth of accounts over the capital, each of shape (n_paths, n_bars).

    At closes, the ``least`` and the ``most`` inside bars, and that at the first open of the day,
    ``opened``.
    """

    close: core.FloatArray
    least: core.FloatArray
    most: core.FloatArray
    opened: core.FloatArray

    @property
    def before(self) -> core.FloatArray:
        return np.concatenate([np.ones((len(self.close), 1)), self.close[:, :-1]], axis=1)


def read_wealth(
    close: core.FloatArray,
    day: core.IntArray,
    least: core.FloatArray | None = None,
    most: core.FloatArray | None = None,
    opened: core.FloatArray | None = None,
) -> Wealth:
    """Return the record of accounts, by default without anything inside bars.

    A day opens at the close before, unless ``opened`` says at what.
    """
    found = Wealth(close, close if least is None else least, close if most is None else most, close)
    if opened is None:
        first = np.where(find_first_bars(day), np.arange(len(day)), 0)
        opened = found.before[:, np.maximum.accumulate(first)]
    return found._replace(opened=opened)


def find_first_bars(day: core.IntArray) -> core.BoolArray:
    return np.asarray(np.diff(day, prepend=day[0] - 1) != 0)


def find_floors(rules: Challenge, wealth: Wealth, day: core.IntArray) -> core.FloatArray:
    """Return the floor of the maximum loss in each bar, (n_paths, n_bars).

    One that trails inside bars follows the most of the bar itself: what it reached first is not
    known, and the worse is assumed.
    """
    if rules.trailing is None:
        return np.full(wealth.close.shape, 1.0 - rules.max_loss)
    peaks = wealth.most
    if rules.trailing == "close":
        peaks = np.where(find_first_bars(day), wealth.before, 1.0)
    floor = np.maximum.accumulate(np.maximum(peaks, 1.0), axis=1) - rules.max_loss
    return np.asarray(floor if rules.locked is None else np.minimum(floor, 1.0 + rules.locked))


def find_passes(rules: Challenge, wealth: Wealth, day: core.IntArray) -> core.BoolArray:
    """Return whether the most of a bar reaches the target, under the rules of days."""
    is_passed = wealth.most >= 1.0 + rules.target - 1e-12
    is_passed &= day - day[0] + 1 >= rules.min_days
    if rules.consistency is None:
        return np.asarray(is_passed)
    # The best of the days before, at their last closes, and of this one up to the target.
    is_last = np.append(np.diff(day) != 0, False)
    profits = np.where(is_last, wealth.close - wealth.opened, -np.inf)
    profits = np.concatenate([np.full((len(profits), 1), -np.inf), profits[:, :-1]], axis=1)
    best = np.maximum(np.maximum.accumulate(profits, axis=1), wealth.most - wealth.opened)
    return np.asarray(is_passed & (best <= rules.consistency * (wealth.most - 1.0) + 1e-12))


def find_outcomes(
    rules: Challenge, wealth: Wealth, day: core.IntArray
) -> tuple[core.IntArray, core.IntArray, core.BoolArray]:
    """Return the outcome of each path, a place in ``OUTCOMES``, and the bar that decides it.

    With it whether that bar reaches both the target and a floor: it fails, by the higher floor.
    ``day`` (n_bars,) numbers the day of each bar. The bar is n_bars where nothing is decided. The
    daily loss is seen at closes: the account was closed where it acted.
    """
    n, bars = wealth.close.shape
    floor = find_floors(rules, wealth, day)
    daily = np.full((n, bars), -np.inf)
    if rules.daily_loss is not None:
        daily = wealth.opened * (1.0 - rules.daily_loss)
        if rules.is_of_capital:
            daily = wealth.opened - rules.daily_loss
    is_daily = wealth.close <= daily + REACHED
    is_maximum = wealth.least <= floor + REACHED
    is_failed = is_daily | is_maximum
    is_passed = find_passes(rules, wealth, day)
    is_done = is_failed | is_passed
    at = np.where(is_done.any(axis=1), is_done.argmax(axis=1), bars)
    is_decided = at < bars

    rows, last = np.arange(n), np.minimum(at, bars - 1)
    cause = np.where(is_daily & ((daily > floor) | ~is_maximum), DAILY, MAXIMUM)[rows, last]
    found = np.where(is_failed[rows, last], cause, PASSED)
    is_both = is_decided & is_failed[rows, last] & is_passed[rows, last]
    return np.where(is_decided, found, UNDECIDED), at, is_both


@dataclass(frozen=True, eq=False, repr=False)
class PassingProbability(SettingsResult):
    """The probability that an account reaches a target before its limits of loss.

    Attributes
    ----------
    table : DataFrame
        By source, ``paths`` and ``history`` (starts without a bar in common): ``n``; the shares
        ``passed``, ``daily_loss``, ``max_loss`` and ``undecided``, which add up to 1; ``both``, of
        those that failed in a bar that reaches the target too; ``low`` and ``high``, the 95 %
        interval of what passed; ``days``, the median to pass.
    by_day : DataFrame
        By day, the shares of paths that have had each outcome by its end.
    """

    table: pd.DataFrame
    by_day: pd.DataFrame
    paths: Paths | None = None

    kind = "passing-probability"
    called = "passing probability"
    plural = "passing probabilities"

    @property
    def note(self) -> str:
        return f"{core.format_percent(float(self.table['passed'].iloc[0]))} passed"

    @property
    def verdict(self) -> str:
        row: Any = self.table.loc["paths"]
        low, high = (core.format_percent(float(row[name])) for name in ("low", "high"))
        text = (
            f"The account passes with a probability of {core.format_percent(float(row['passed']))} "
            f"({low} to {high})"
        )
        if "history" in self.table.index:
            past: Any = self.table.loc["history"]
            share = core.format_percent(float(past["passed"]))
            text += f"; in history {share} of {core.count_nouns(int(past['n']), 'start')} passed"
        return f"{text}."

    @property
    def details(self) -> str:
        drawn = self.settings["paths"]
        both = core.format_percent(float(self.table["both"].iloc[0]))
        return (
            f"{drawn['paths']:,} paths of {drawn['model']['name']}, {describe_drift(drawn)}. "
            "The interval is of 95 %, of the simulation alone. Target, maximum loss and daily loss "
            f"are tested inside bars; {both} fail in a bar that reaches the target too, and may "
            "have passed."
        )

    def list_numbers(self) -> list[Headline]:
        row: Any = self.table.loc["paths"]
        return [
            Headline(name, name.replace("_", " "), float(row[name]), "percent", "of paths")
            for name in OUTCOMES
        ]

    def list_parts(self) -> list[Part]:
        heads = {
            "n": Head("accounts", "", "count"), "days": Head("median", "days to pass", "number"),
            **{name: Head(name.replace("_", " "), "share", "percent") for name in OUTCOMES},
            "both": Head("failed", "in a bar of both", "percent"),
            **{name: Head(name, "of passed", "percent") for name in ("low", "high")},
        }  # fmt: skip
        colors = {"passed": "accent", "daily loss": "loss", "max loss": "neutral"}
        by_day = self.by_day.rename(columns=lambda name: name.replace("_", " "))
        return [
            Part("outcomes", "Outcomes", "Of accounts that begin anew.", (
                ShownTable(self.table, labels=Head("source"), heads=heads),
                ShownChart("outcomes", "Outcomes by day", "Shares of paths by the end of each day.",
                           by_day, "line", colors, percent="y", x="day", has_legend=True),
            ), shows="both")
        ]  # fmt: skip


@core.checked_only("paths", "compile", "progress")
def passing_probability(  # noqa: PLR0913 - as the method
    conditions: Conditions,
    policy: AnyPolicy,
    *,
    target: Annotated[float, core.Real(0.0, open_low=True)] = 0.10,
    max_loss: Annotated[float, INNER_SHARE] = 0.10,
    daily_loss: Annotated[float | None, INNER_SHARE] = 0.05,
    trailing: Literal["close", "intrabar"] | None = None,
    locked: float | None = None,
    min_days: int = 0,
    consistency: float | None = None,
    days: int = 30,
    paths: Paths | None = None,
    threads: int = 1,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    progress: core.Progress | None = None,
) -> PassingProbability:
    """Answer :meth:`backtest.Backtest.passing_probability`, which documents it."""
    test = conditions
    basis = test.account.daily_basis
    days = core.Whole(1).check("days", days)
    rules = Challenge(
        core.Real(0.0, open_low=True).check("target", target),
        INNER_SHARE.check("max_loss", max_loss),
        None if daily_loss is None else INNER_SHARE.check("daily_loss", daily_loss),
        None if trailing is None else core.Choice("close", "intrabar").check("trailing", trailing),
        None if locked is None else core.Real().check("locked", locked), basis == "initial",
        core.Whole(0).check("min_days", min_days),
        None if consistency is None else SHARE.check("consistency", consistency),
    )  # fmt: skip
    if rules.min_days > days:
        raise core.ParameterError(
            f"min_days must be at most the {days} days of the challenge, got {rules.min_days}"
        )
    if rules.locked is not None and rules.trailing is None:
        raise core.ParameterError(
            f"locked is used only with trailing, 'close' for example, got {rules.locked:g}"
        )
    if rules.daily_loss is not None and test.account.daily_loss not in {None, rules.daily_loss}:
        raise core.ParameterError(
            f"daily_loss must be that of the account, {test.account.daily_loss:g}, got "
            f"{rules.daily_loss:g}"
        )
    if test.account.reserve > 0.0 or test.account.flows is not None:
        name = "reserve" if test.account.reserve > 0.0 else "flows"
        raise core.ParameterError(
            f"account.{name} must be left out of a challenge, whose wealth is that of the capital, "
            f"got {core.repr_plain(getattr(test.account, name))}"
        )
    if daily_loss is not None:
        test = test.replace(account=replace(test.account, daily_loss=rules.daily_loss))
    drawn = simulate_paths(plain(test).market, horizon=f"{days}d") if paths is None else paths
    runner = PathsRunner(drawn, policy, test, None, compile)
    zone, capital = test.account.day, runner.account.capital
    passed = np.ceil((drawn.calendar.time[1:] - drawn.calendar.time[0]) / DAY).astype(np.int64)
    if drawn.horizon < days * DAY:
        span = core.format_duration(drawn.horizon)
        raise core.ParameterError(f"days must be at most the {span} of the paths, got {days}")
    passed = passed[passed <= days]
    day = number_days(drawn.calendar.time[1 : len(passed) + 1], zone)
    found = []
    count = core.Whole(1).check("threads", threads)
    for lives in runner.run_chunks(threads=count, progress=progress):
        kept = (lives.wealth, lives.least, lives.most, lives.day_open)
        close, least, most, opened = (each[:, : len(day)] / capital for each in kept)
        base = opened if rules.daily_loss is not None else None
        found.append(find_outcomes(rules, read_wealth(close, day, least, most, base), day))
    outcome, at, is_both = (np.concatenate(each) for each in zip(*found, strict=True))
    rows = {"paths": describe_outcomes(outcome, passed[np.minimum(at, len(passed) - 1)], is_both)}
    past = []
    for (close, least, most, opened), days_of, since in live_past(runner, len(day), zone):
        base = opened if rules.daily_loss is not None else None
        code, decided, both = find_outcomes(
            rules, read_wealth(close, days_of, least, most, base), days_of
        )
        past.append((int(code[0]), int(since[min(int(decided[0]), len(since) - 1)]), bool(both[0])))
    if past:
        codes, taken, are_both = (np.array(each) for each in zip(*past, strict=True))
        rows["history"] = describe_outcomes(codes, taken, are_both)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("source")
    settings = describe_terms(policy, test) | {
        "rules": rules._asdict(), "days": days, "paths": drawn.describe(),
    }  # fmt: skip
    ends = np.append(passed, passed[-1] + 1)[at]
    index = pd.RangeIndex(1, int(passed[-1]) + 1, name="day")
    by_day = {
        name: [float(np.mean((outcome == k) & (ends <= day))) for day in index]
        for k, name in enumerate(OUTCOMES[:UNDECIDED])
    }
    shares = pd.DataFrame(by_day, index=index)
    return PassingProbability(table, shares, drawn, settings=settings, market=drawn.history)


def number_days(opens: core.IntArray, zone: str) -> core.IntArray:
    local = core.utc_index(opens).tz_convert(zone).tz_localize(None)
    return np.asarray(local.as_unit("ns").asi8 // DAY)


def describe_outcomes(
    outcome: core.IntArray, days: core.IntArray, is_both: core.BoolArray
) -> dict[str, float]:
    n, passed = len(outcome), outcome == PASSED
    shares = {name: float(np.mean(outcome == k)) for k, name in enumerate(OUTCOMES)}
    _, low, high = estimate(int(passed.sum()), n, 0.95)
    median = float(np.median(days[passed])) if passed.any() else math.nan
    both = float(np.mean(is_both))
    return {"n": float(n), **shares, "both": both, "low": low, "high": high, "days": median}


def live_past(
    runner: PathsRunner, bars: int, zone: str
) -> Iterator[tuple[core.FloatArray, core.IntArray, core.IntArray]]:
    """Yield wealth over the capital, (4, 1, n_bars), days and days since the start.

    Wealth is that at closes, the least, the most, and the base of its day. They are those of
    accounts that share no bar.
    """
    markets = as_markets(runner.paths.history)
    opens = number_days(markets.time, zone)
    begins, chosen, free = (
        np.flatnonzero(opens[1:] != opens[:-1]),
        list[int](),
        runner.warm_up.known,
    )
    for first in begins.tolist():
        if first >= free and first + bars < markets.n_bars:
            chosen.append(first)
            free = first + bars
    if not chosen:
        return
    for k, lives in runner.live_past(np.array(chosen), bars + 1):
        rows = slice(chosen[k] + 1, chosen[k] + 1 + bars)
        since = np.ceil((markets.time[rows] + markets.interval - markets.time[rows][0]) / DAY)
        kept = [engine.WEALTH, engine.LEAST_WEALTH, engine.MOST_WEALTH, engine.DAY_OPEN]
        wealth = lives[kept, None, 1:] / runner.account.capital
        yield wealth, opens[rows], since.astype(np.int64)
