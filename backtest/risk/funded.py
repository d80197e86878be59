"""passing_probability(): whether an account reaches a target before its limits of loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
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


class Outcomes(NamedTuple):
    """What became of accounts in a challenge, each of shape (n_accounts,).

    ``outcome`` is a place in ``OUTCOMES``, and ``bar`` the one that decides it, n_bars where none
    does. ``is_both`` says that this bar reaches the target and a floor: such an account fails.
    """

    outcome: core.IntArray
    bar: core.IntArray
    is_both: core.BoolArray


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
        """The wealth at the close before each bar, 1 before the first."""
        before_first = np.ones((len(self.close), 1))
        return np.concatenate([before_first, self.close[:, :-1]], axis=1)


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
    if least is None:
        least = close
    if most is None:
        most = close

    wealth = Wealth(
        close,
        least=least,
        most=most,
        opened=close,
    )

    if opened is None:
        # Each bar has the wealth before the first bar of its day.
        first = np.where(find_first_bars(day), np.arange(len(day)), 0)
        first_of_day = np.maximum.accumulate(first)
        opened = wealth.before[:, first_of_day]
    return wealth._replace(opened=opened)


def find_first_bars(day: core.IntArray) -> core.BoolArray:
    """Return whether each bar is the first of its day."""
    day_before_first = day[0] - 1
    return np.asarray(np.diff(day, prepend=day_before_first) != 0)


def find_floors(
    rules: Challenge,
    wealth: Wealth,
    day: core.IntArray,
) -> core.FloatArray:
    """Return the floor of the maximum loss in each bar, (n_paths, n_bars).

    One that trails inside bars follows the most of the bar itself: what it reached first is not
    known, and the worse is assumed.
    """
    if rules.trailing is None:
        return np.full(wealth.close.shape, 1.0 - rules.max_loss)

    # What the floor trails: the highest inside bars, or the closes of days, which are known in the
    # first bar of the next day. It begins at the capital, 1.
    peaks = wealth.most
    if rules.trailing == "close":
        peaks = np.where(find_first_bars(day), wealth.before, 1.0)
    highest = np.maximum.accumulate(np.maximum(peaks, 1.0), axis=1)
    floor = highest - rules.max_loss

    # A floor may stop to rise at some profit.
    if rules.locked is None:
        return np.asarray(floor)
    return np.asarray(np.minimum(floor, 1.0 + rules.locked))


def find_passes(
    rules: Challenge,
    wealth: Wealth,
    day: core.IntArray,
) -> core.BoolArray:
    """Return in which bars the challenge is passed, (n_paths, n_bars): the target is reached.

    ``wealth`` is in parts of the capital, and ``day`` (n_bars,) numbers the days. The highest of a
    bar counts. A target or a share that is met to rounding is met.
    """
    # The target, not before the least number of days.
    is_passed = wealth.most >= 1.0 + rules.target - 1e-12
    days_so_far = day - day[0] + 1
    is_passed &= days_so_far >= rules.min_days
    if rules.consistency is None:
        return np.asarray(is_passed)

    # The best profit of a day before: those of days are known in their last bars.
    is_last = np.append(np.diff(day) != 0, False)
    profits_so_far = wealth.close - wealth.opened
    profits = np.where(is_last, profits_so_far, -np.inf)
    none_before = np.full((len(profits), 1), -np.inf)
    profits_before = np.concatenate([none_before, profits[:, :-1]], axis=1)
    best_before = np.maximum.accumulate(profits_before, axis=1)

    # No day, that of the bar included, may have more than its share of the whole profit.
    best = np.maximum(best_before, wealth.most - wealth.opened)
    allowed = rules.consistency * (wealth.most - 1.0) + 1e-12
    return np.asarray(is_passed & (best <= allowed))


def find_outcomes(
    rules: Challenge,
    wealth: Wealth,
    day: core.IntArray,
) -> Outcomes:
    """Return the outcome of each account; ``day`` (n_bars,) numbers the day of each bar.

    The target counts inside bars, as the maximum loss does. The daily loss is seen at closes: the
    account was closed where it acted. A bar that reaches both floors fails by the higher one.
    """
    # The two floors in each bar, (n_accounts, n_bars).
    n_accounts, n_bars = wealth.close.shape
    floor = find_floors(rules, wealth, day)
    daily_floor = np.full((n_accounts, n_bars), -np.inf)
    if rules.daily_loss is not None and rules.is_of_capital:
        daily_floor = wealth.opened - rules.daily_loss
    elif rules.daily_loss is not None:
        daily_floor = wealth.opened * (1.0 - rules.daily_loss)

    is_daily = wealth.close <= daily_floor + REACHED
    is_maximum = wealth.least <= floor + REACHED
    is_failed = is_daily | is_maximum
    is_passed = find_passes(rules, wealth, day)

    # The outcome of each bar by itself: where it reaches both, the account fails. Of two floors in
    # one bar the higher one was met first.
    is_daily_first = is_daily & ((daily_floor > floor) | ~is_maximum)
    cause = np.where(is_daily_first, DAILY, MAXIMUM)
    outcome_of_bar = np.where(is_failed, cause, PASSED)

    # The first bar with an outcome decides.
    is_done = is_failed | is_passed
    is_decided = is_done.any(axis=1)
    deciding = np.where(is_decided, is_done.argmax(axis=1), n_bars)

    # An account that is not decided has a bar after the last one.
    place = (np.arange(n_accounts), np.minimum(deciding, n_bars - 1))
    outcome = np.where(is_decided, outcome_of_bar[place], UNDECIDED)
    is_both = is_decided & is_failed[place] & is_passed[place]
    return Outcomes(outcome, deciding, is_both)


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
        passed = core.format_percent(float(row["passed"]))
        low = core.format_percent(float(row["low"]))
        high = core.format_percent(float(row["high"]))
        text = f"The account passes with a probability of {passed} ({low} to {high})"
        if "history" not in self.table.index:
            return f"{text}."

        past: Any = self.table.loc["history"]
        share = core.format_percent(float(past["passed"]))
        return f"{text}; in history {share} of {core.count_nouns(int(past['n']), 'start')} passed."

    @property
    def details(self) -> str:
        drawn = self.settings["paths"]
        both = core.format_percent(float(self.table["both"].iloc[0]))
        return (
            f"{drawn['paths']:,} paths of {drawn['model']['name']}, {describe_drift(drawn)}. "
            "The 95 % interval is of the simulation only. Target, maximum loss and daily loss "
            f"are tested inside bars; {both} fail in a bar that reaches the target too, and may "
            "have passed."
        )

    def list_numbers(self) -> list[Headline]:
        row: Any = self.table.loc["paths"]
        numbers = []
        for name in OUTCOMES:
            words = name.replace("_", " ")
            share = float(row[name])
            numbers.append(Headline(name, words, share, "percent", "of paths"))
        return numbers

    def list_parts(self) -> list[Part]:
        heads = {
            "n": Head("accounts", "", "count"),
            "days": Head("median", "days to pass", "number"),
        }
        for name in OUTCOMES:
            heads[name] = Head(name.replace("_", " "), "share", "percent")
        heads["both"] = Head("failed", "in a bar of both", "percent")
        heads["low"] = Head("low", "of passed", "percent")
        heads["high"] = Head("high", "of passed", "percent")

        chart = ShownChart(
            key="outcomes",
            title="Outcomes by day",
            caption="Shares of paths by the end of each day.",
            table=self.by_day.rename(columns=lambda name: name.replace("_", " ")),
            kind="line",
            colors={"passed": "accent", "daily loss": "loss", "max loss": "neutral"},
            percent="y",
            x="day",
            has_legend=True,
        )
        return [
            Part(
                key="outcomes",
                title="Outcomes",
                lead="Of accounts that begin anew.",
                blocks=(ShownTable(self.table, labels=Head("source"), heads=heads), chart),
                shows="both",
            )
        ]


@core.record_making
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
    days = core.Whole(1).check("days", days)
    rules = Challenge(
        target=core.Real(0.0, open_low=True).check("target", target),
        max_loss=INNER_SHARE.check("max_loss", max_loss),
        daily_loss=check_given(INNER_SHARE, "daily_loss", daily_loss),
        trailing=check_given(core.Choice("close", "intrabar"), "trailing", trailing),
        locked=check_given(core.Real(), "locked", locked),
        is_of_capital=test.account.daily_basis == "initial",
        min_days=core.Whole(0).check("min_days", min_days),
        consistency=check_given(SHARE, "consistency", consistency),
    )
    check_rules(rules, test, days)

    # The account trades under the rule of the day, and is stopped by it.
    if daily_loss is not None:
        account = replace(test.account, daily_loss=rules.daily_loss)
        test = test.replace(account=account)
    if paths is None:
        paths = simulate_paths(plain(test).market, horizon=f"{days}d")
    runner = PathsRunner(
        paths,
        policy,
        test,
        None,
        compile,
        has_extremes=True,
    )
    if paths.horizon < days * DAY:
        span = core.format_duration(paths.horizon)
        raise core.ParameterError(f"days must be at most the {span} of the paths, got {days}")

    # The bars of the challenge, by the day since the start in which each ends, from 1 on.
    calendar = paths.calendar
    days_since_start = (calendar.time[1:] - calendar.time[0]) / DAY
    day_of_bar = np.ceil(days_since_start).astype(np.int64)
    day_of_bar = day_of_bar[day_of_bar <= days]
    bars = len(day_of_bar)

    # The account's own days begin at its hour: the limit of a day's loss counts in these.
    zone = test.account.day
    account_day = number_days(calendar.time[1 : bars + 1], zone)

    # What each path comes to. Equity at closes, its lowest and highest inside bars, and that at the
    # open of the day, each (n_paths, bars) in parts of the capital.
    decided = []
    count = core.Whole(1).check("threads", threads)
    for lives in runner.run_chunks(threads=count, progress=progress):
        records = (lives.wealth, lives.least, lives.most, lives.day_open)
        wealth = [record[:, :bars] / runner.account.capital for record in records]
        decided.append(decide_outcomes(rules, wealth, account_day))
    blocks = zip(*decided, strict=True)
    outcomes = Outcomes(*map(np.concatenate, blocks))

    # What is undecided to the end has a bar after the last. It takes all days, and in ``by_day`` it
    # is of the day after the last.
    days_taken = day_of_bar[np.minimum(outcomes.bar, bars - 1)]
    last_day = int(day_of_bar[-1])
    end_days = np.append(day_of_bar, last_day + 1)[outcomes.bar]

    rows = {"paths": describe_outcomes(outcomes, days_taken)}
    past = decide_past(rules, runner, bars, zone)
    if past is not None:
        rows["history"] = describe_outcomes(*past)

    table = pd.DataFrame.from_dict(rows, orient="index")
    terms = {
        "rules": rules._asdict(),
        "days": days,
        "paths": paths.describe(),
    }
    return PassingProbability(
        table=table.rename_axis("source"),
        by_day=count_by_day(outcomes.outcome, end_days, last=last_day),
        paths=paths,
        settings=describe_terms(policy, test) | terms,
        market=paths.history,
    )


def check_given(declared: Any, name: str, value: Any) -> Any:
    """Return a value as its declaration has it; None stays."""
    if value is None:
        return None
    return declared.check(name, value)


def check_rules(rules: Challenge, test: Conditions, days: int) -> None:
    """Refuse rules that do not go together, or with the account of the test."""
    account = test.account
    if rules.min_days > days:
        raise core.ParameterError(
            f"min_days must be at most the {days} days of the challenge, got {rules.min_days}"
        )

    if rules.locked is not None and rules.trailing is None:
        raise core.ParameterError(
            f"locked is used only with trailing, 'close' for example, got {rules.locked:g}"
        )

    if rules.daily_loss is not None and account.daily_loss not in {None, rules.daily_loss}:
        raise core.ParameterError(
            f"daily_loss must be that of the account, {account.daily_loss:g}, got "
            f"{rules.daily_loss:g}"
        )
    for name, is_used in (("reserve", account.reserve > 0.0), ("flows", account.flows is not None)):
        if is_used:
            raise core.ParameterError(
                f"account.{name} must be left out of a challenge, whose wealth is that of the "
                f"capital, got {core.repr_plain(getattr(account, name))}"
            )


def decide_outcomes(
    rules: Challenge,
    wealth: Iterable[core.FloatArray],
    day: core.IntArray,
) -> Outcomes:
    """Return the outcomes of accounts by their ``wealth`` over the capital.

    It has four arrays (n_accounts, n_bars): at closes, the least and the most inside bars, and the
    base of the account's own daily loss, which counts only where the challenge has one.
    """
    close, least, most, opened = wealth
    base = None
    if rules.daily_loss is not None:
        base = opened
    record = read_wealth(
        close,
        day,
        least=least,
        most=most,
        opened=base,
    )
    return find_outcomes(rules, record, day)


def decide_past(
    rules: Challenge,
    runner: PathsRunner,
    bars: int,
    zone: str,
) -> tuple[Outcomes, core.IntArray] | None:
    """Return the outcomes of accounts in history, and the days until each (n_accounts,).

    None if history is too short for an account.
    """
    decided = []
    spent = []
    for wealth, day, since in simulate_apart(runner, bars, zone):
        outcomes = decide_outcomes(rules, wealth, day)
        last = min(int(outcomes.bar[0]), len(since) - 1)
        decided.append(outcomes)
        spent.append(int(since[last]))

    if not decided:
        return None
    fields = zip(*decided, strict=True)
    return Outcomes(*map(np.concatenate, fields)), np.array(spent)


def count_by_day(
    outcome: core.IntArray,
    ends: core.IntArray,
    last: int,
) -> pd.DataFrame:
    """Return the shares of paths that have had each outcome by the end of each day."""
    index = pd.RangeIndex(1, last + 1, name="day")
    shares = {}
    for code, name in enumerate(OUTCOMES[:UNDECIDED]):
        is_of_it = outcome == code
        by_day = [np.mean(is_of_it & (ends <= day)) for day in index]
        shares[name] = [float(share) for share in by_day]
    return pd.DataFrame(shares, index=index)


def number_days(opens: core.IntArray, zone: str) -> core.IntArray:
    """Return the number of the local day in which each bar opens."""
    times = core.utc_index(opens)
    local = times.tz_convert(zone).tz_localize(None)
    return np.asarray(local.as_unit("ns").asi8 // DAY)


def describe_outcomes(
    outcomes: Outcomes,
    days: core.IntArray,
) -> dict[str, float]:
    """Return a row of the table, with the interval of what passed and the median days to pass.

    ``days`` (n_accounts,) are those until the outcome of each.
    """
    n = len(outcomes.outcome)
    row = {"n": float(n)}
    for code, name in enumerate(OUTCOMES):
        row[name] = float(np.mean(outcomes.outcome == code))
    row["both"] = float(np.mean(outcomes.is_both))

    is_passed = outcomes.outcome == PASSED
    n_passed = int(is_passed.sum())
    _, row["low"], row["high"] = estimate(n_passed, n, 0.95)

    row["days"] = math.nan
    if is_passed.any():
        row["days"] = float(np.median(days[is_passed]))
    return row


def simulate_apart(
    runner: PathsRunner,
    bars: int,
    zone: str,
) -> Iterator[tuple[core.FloatArray, core.IntArray, core.IntArray]]:
    """Yield ``(wealth, day, since)`` of accounts in history that share no bar.

    Each begins at the first open of a day, as early as the one before it lets it. ``wealth``
    (4, 1, n_bars), over the capital, is that at closes, the least, the most, and the base of its
    day. ``day`` and ``since`` (n_bars,) are the number of the local day and the days since the
    start.
    """
    markets = as_markets(runner.paths.history)
    times = markets.time
    days = number_days(times, zone)

    # The account begins at the close of the last bar of the day before.
    last_of_days = np.flatnonzero(days[1:] != days[:-1]).tolist()
    starts = []
    free = runner.warm_up.known
    for last in last_of_days:
        if last >= free and last + bars < markets.n_bars:
            starts.append(last)
            free = last + bars
    if not starts:
        return

    fields = [
        engine.WEALTH,
        engine.LEAST_WEALTH,
        engine.MOST_WEALTH,
        engine.DAY_OPEN,
    ]
    for k, lives in runner.simulate_starts(np.array(starts), bars + 1):
        first = starts[k] + 1
        rows = slice(first, first + bars)
        ends = times[rows] + markets.interval
        since = np.ceil((ends - times[first]) / DAY)
        wealth = lives[fields, None, 1:] / runner.account.capital
        yield wealth, days[rows], since.astype(np.int64)
