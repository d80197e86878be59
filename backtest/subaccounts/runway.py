"""runway(): how long an account can pay for regular spending, on simulated paths."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    Choice,
    Duration,
    FloatArray,
    Head,
    Headline,
    IntArray,
    Number,
    ParameterError,
    Part,
    Place,
    SettingsResult,
    ShownChart,
    ShownTable,
    Value,
    checked_only,
    format_chance,
    format_duration,
    format_percent,
    format_table,
    parse_duration,
    repr_plain,
)
from backtest.base.fields import NOT_NEGATIVE
from backtest.base.units import DAY
from backtest.engine import Progress, describe_history
from backtest.policy import Policy
from backtest.risk import (
    AnyAccount,
    AnyPolicy,
    AnyVenue,
    Paths,
    PathsRunner,
    describe_drift,
    describe_each,
    estimate_pairs,
    estimate_plain,
    explain_idle,
    make_runner,
    name_policies,
    summarize_funding,
    warn_of_idle,
)

WHERE = "bt.runway"
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, eq=False)
class Runway(SettingsResult):
    """How long an account can pay for regular spending.

    Attributes
    ----------
    table : DataFrame
        A row per spending, by ``day``: ``p_failure``, the share of paths that could not pay it or
        an earlier one, with ``p_failure_low`` and ``p_failure_high``, the ends of its interval;
        ``wealth_05``, ``wealth_50``, ``wealth_95`` after it (0 after a failure); ``spent``, the
        mean of what has been paid.
    p_failure : float
        Of the whole horizon.
    runway_days : float
        The median over the paths that fail of the days to the first spending they could not pay;
        NaN if none fails.
    settings : dict
        What the numbers come from.
    """

    table: pd.DataFrame
    p_failure: float
    runway_days: float
    settings: dict[str, Any]
    paths: Paths | None = None

    kind = "runway"
    table_names = ("table",)
    numbers = ("p_failure", "runway_days")

    def describe_data(self) -> Mapping[str, Any]:
        """Return the data that the paths continue."""
        return describe_history(None if self.paths is None else self.paths.history)

    @property
    def note(self) -> str:
        """The probability of failure."""
        horizon = format_duration(self.settings["paths"]["horizon"])
        return f"{format_percent(self.p_failure)} fail in {horizon}"

    @property
    def notices(self) -> tuple[str, ...]:
        """That no order was filled."""
        no_fill = self.settings.get("no_fill")
        return (f"No order was filled on any path: {no_fill}.",) if no_fill else ()

    @property
    def verdict(self) -> str:
        """The probability of failure, with its interval."""
        horizon = format_duration(self.settings["paths"]["horizon"])
        chance = format_chance(self.p_failure)
        return f"The account fails to pay within {horizon} with a probability of {chance}."

    @property
    def details(self) -> str:
        """What is spent, and on which paths."""
        drawn, spending = self.settings["paths"], self.settings["spending"]
        return (
            f"{100 * spending['share']:g} % of the {spending['of']} is spent every "
            f"{spending['every']}, on {drawn['paths']:,} paths of {drawn['model']['name']} with "
            f"{describe_drift(drawn)}."
        )

    def list_numbers(self) -> list[Headline]:
        """Return the probability of failure, the runway, and what is spent."""
        last = self.table.iloc[-1]
        span = " to ".join(format_chance(last[f"p_failure_{end}"]) for end in ("low", "high"))
        horizon = format_duration(self.settings["paths"]["horizon"])
        return [
            Headline(
                "p_failure", f"fails within {horizon}", self.p_failure, "chance", span, "less"
            ),
            Headline(
                "runway_days",
                "runway of the paths that fail",
                self.runway_days,
                "days",
                "days, median",
                "more",
            ),
            Headline("spent", "spent", float(last["spent"]), "money", "mean", "more"),
        ]

    def list_parts(self) -> list[Part]:
        """Return the failures and the wealth after each spending."""
        chances = ["p_failure_low", "p_failure_high", "p_failure"]
        wealth = ["wealth_05", "wealth_50", "wealth_95"]
        return [
            Part("spending", "By spending", "After each spending, over all paths.", (
                ShownChart("failure", "Failure", "Paths that could not pay a spending by that day, "
                           "%, with the interval.", 100.0 * self.table[chances], x="day",
                           colors=dict.fromkeys(chances[:2], "neutral") | {"p_failure": "loss"},
                           height=260),
                ShownChart("wealth", "Wealth", "Quantiles of 5, 50 and 95 % after each spending.",
                           self.table[wealth], x="day", height=260,
                           colors=dict.fromkeys(wealth, "neutral") | {"wealth_50": "accent"}),
                ShownTable(self.table, labels=Head("day")),
            ))
        ]  # fmt: skip

    def __repr__(self) -> str:
        return f"<Runway of {self.settings['policy']}: p_failure {self.p_failure:.3g}>"

    def summary(self) -> str:
        """Return the table as text for a terminal."""
        spending = self.settings["spending"]
        rule = f"{100 * spending['share']:g} % of the {spending['of']} every {spending['every']}"
        drawn = self.settings["paths"]
        model = f"{drawn['paths']:,} paths of {drawn['model']['name']}, {describe_drift(drawn)}"
        lines = [
            f"{self.settings['policy']}, spending {rule}, on {model}",
            "",
            format_table(self.table),
        ]
        if no_fill := self.settings.get("no_fill"):
            lines = [f"NO FILL: no order was filled on any path: {no_fill}", *lines]
        if not np.isnan(self.runway_days):
            lines += ["", f"paths that fail do so after {self.runway_days:g} days (median)"]
        lines += summarize_funding(self.settings["paths"].get("funding_fit", {}))
        return "\n".join(lines)


class Spent(NamedTuple):
    """What spending did to paths, by spending.

    ``failed`` (n_paths,) is the number of the first spending that was not paid, n_spendings if all
    were. ``wealth`` and ``paid`` have shape (n_spendings, n_paths).
    """

    failed: IntArray
    wealth: FloatArray
    paid: FloatArray


@checked_only("progress", "overlay")
def runway(
    paths: Paths,
    policy: AnyPolicy,
    spending: Spending,
    *,
    venue: AnyVenue,
    account: AnyAccount,
    confidence: float = 0.95,
    signal: Any = None,
    overlay: Policy | None = None,
    threads: int = 1,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
) -> Runway:
    """Return the probability that an account cannot pay its spending, and when it fails.

    Parameters
    ----------
    paths, policy, venue, account, signal, overlay, threads, compile, progress
        As in :func:`backtest.liquidation_risk`.
    spending : Spending
        What is taken out, first after one period.
    confidence : float
        Of the intervals, in (0, 1).

    Returns
    -------
    Runway

    Raises
    ------
    ParameterError
        If an argument is not allowed, or no spending falls within the paths.

    Notes
    -----
    The account lives through each path once, without spending. Its returns between two spendings
    are those of what is left after them: the policy sizes positions by equity. Where costs do not
    scale with the account (lots, brackets, fixed fees, impact), that is an approximation. A path
    fails at the first spending that is more than its wealth, or that finds it ruined; then nothing
    is paid any more.
    """
    if not isinstance(spending, Spending):
        raise ParameterError(
            f"spending must be a Spending, got {repr_plain(spending)}",
            where=f"{WHERE}, spending",
            cure="pass bt.Spending(0.01)",
        )
    level = Number(0.0, 1.0, open_low=True, open_high=True)
    sure = level.check("confidence", confidence, where=f"{WHERE}, confidence")
    runner = make_runner(
        paths, policy, venue=venue, account=account, signal=signal, overlay=overlay,
        compile=compile, where=WHERE,
    )  # fmt: skip
    bars = find_bars(paths, spending)
    chunks = [
        (each.wealth[:, bars].T, each.is_ruined[:, bars].T > 0.0)
        for each in runner.run_chunks(threads=threads, progress=progress)
    ]
    wealth = np.concatenate([each for each, _ in chunks], axis=1)
    is_ruined = np.concatenate([each for _, each in chunks], axis=1)
    no_fill = explain_idle(runner, wealth)
    warn_of_idle(no_fill, paths.count)
    start = find_start(runner)
    spent = spend(wealth, is_ruined, start, spending)
    table = tabulate(spent, paths, bars, float(sure))
    days = table.index.to_numpy(dtype=np.float64)
    fails = spent.failed[spent.failed < len(bars)]
    settings = {
        "policy": name_policies(policy), "start": start, "signal": runner.signal,
        "venue": describe_each(venue, lambda each: each.to_dict()),
        "overlay": None if overlay is None else repr(overlay),
        "spending": spending.to_dict(), "paths": paths.describe(), "confidence": float(sure),
    }  # fmt: skip
    settings |= {"no_fill": no_fill} if no_fill else {}
    return Runway(
        table=table,
        p_failure=float(table["p_failure"].iloc[-1]),
        runway_days=float(np.median(days[fails])) if len(fails) else np.nan,
        settings=settings,
        paths=paths,
    )


def find_start(runner: PathsRunner) -> float:
    if runner.resume is None:
        return float(runner.terms.capital + runner.terms.reserve)
    ends = (runner.resume.of_account(name)[-1] for name in ("equity", "reserve"))
    return float(sum(ends))


def find_bars(paths: Paths, spending: Spending) -> IntArray:
    every = parse_duration(spending.every, where=Place("every", of="Spending"))
    closes = paths.calendar.time[1:] + paths.history.interval
    start = int(paths.calendar.time[0]) + paths.history.interval
    stamps = start + every * np.arange(1, paths.horizon // every + 1)
    bars: IntArray = np.searchsorted(closes, stamps, side="right") - 1
    if not len(bars) or every < paths.history.interval:
        raise ParameterError(
            f"every must lie between a bar and the length of the paths, "
            f"{format_duration(paths.horizon)}, got {spending.every}",
            where="Spending.every",
            cure="simulate longer paths, or spend more often",
        )
    return bars


def spend(wealth: FloatArray, is_ruined: np.ndarray, start: float, spending: Spending) -> Spent:
    """Return the wealth on paths after spending.

    Parameters
    ----------
    wealth : array of shape (n_spendings, n_paths)
        The wealth without spending at the time of each.
    is_ruined : array of bool, the same shape
        Whether the account is ruined by then.
    start : float
        The wealth at the start.
    spending : Spending
        The rule.
    """
    n, n_paths = wealth.shape
    before = np.vstack([np.full(n_paths, start), wealth[:-1]])
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.where(before > 0.0, wealth / before, 0.0)
    left, failed = np.full(n_paths, start), np.full(n_paths, n)
    after, paid = np.zeros((n, n_paths)), np.zeros((n, n_paths))
    for k in range(n):
        held = np.maximum(left * growth[k], 0.0)
        asked = spending.amount(held, start)
        fails = (asked > held) | is_ruined[k] | (held <= 0.0)
        failed = np.where(fails & (failed == n), k, failed)
        paid[k] = np.where(failed < n, 0.0, asked)
        left = np.where(failed < n, 0.0, held - asked)
        after[k] = left
    return Spent(failed, after, paid)


def tabulate(spent: Spent, paths: Paths, bars: IntArray, confidence: float) -> pd.DataFrame:
    time = paths.calendar.time
    days = (time[1:][bars] - time[0]) / DAY
    estimate = estimate_pairs if paths.antithetic else estimate_plain
    rows = []
    for k in range(len(bars)):
        is_hit = (spent.failed <= k).astype(np.float64)
        found = estimate(is_hit, confidence)
        low, middle, high = np.quantile(spent.wealth[k], QUANTILES)
        rows.append({
            "p_failure": found.value, "p_failure_low": found.low, "p_failure_high": found.high,
            "wealth_05": low, "wealth_50": middle, "wealth_95": high,
            "spent": float(spent.paid[: k + 1].sum(axis=0).mean()),
        })  # fmt: skip
    return pd.DataFrame(rows, index=pd.Index(days, name="day"))


MOST = Number(0, open_low=True, may_be_infinite=True)


@dataclass(frozen=True, eq=False, repr=False)
class Spending(Value):
    """A rule of spending from an account.

    Parameters
    ----------
    share : float
        What is spent each time, over 0 and up to 1.
    every : str
        The time between spendings, ``"30d"`` by default.
    of : str
        What the share is of: ``"wealth"`` at that time, or ``"start"``, the wealth at the start.
    least, most : float
        The least and the most that is spent each time, in money.

    Examples
    --------
    >>> Spending(0.01, least=50.0).amount(np.array([10_000.0, 2_000.0]), 10_000.0).tolist()
    [100.0, 50.0]
    """

    share: Annotated[float, Number(0, 1, open_low=True)]
    every: Annotated[str, Duration()] = "30d"
    of: Annotated[str, Choice("wealth", "start")] = "wealth"
    least: Annotated[float, NOT_NEGATIVE] = 0.0
    most: Annotated[float, MOST] = math.inf

    def _check_rules(self) -> None:
        if not self.least <= self.most:
            raise ParameterError(
                f"least must not be above most, {self.most:g}, got {self.least:g}",
                where="Spending.least",
                cure="lower least, or raise most",
            )

    def amount(self, wealth: FloatArray, start: float) -> FloatArray:
        """Return what is to be spent at each wealth, of an account that began with ``start``."""
        base = wealth if self.of == "wealth" else np.full_like(wealth, start)
        return np.clip(self.share * base, self.least, self.most)
