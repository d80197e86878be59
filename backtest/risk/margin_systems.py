"""compare_margin(): what margins by rule tie up, cover and leave uncovered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd

from backtest import core, engine, results
from backtest.core import FloatArray, IntArray, Progress
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY, YEAR_DAYS
from backtest.engine import Conditions
from backtest.results.settings_result import SettingsResult
from backtest.risk.margin_levels import (
    Prices,
    join_paths,
    list_rules,
    measure_levels,
    read_one_market,
)
from backtest.risk.paths import simulate_paths
from backtest.venue import Venue, find_newest
from backtest.venue import margin_rules as by_rule
from backtest.venue.margin_rules import DynamicMargin

RISES = (1, 5, 30)
"""Days over which rises of margin are measured."""
FEW = 10
"""Expected breaches under which coverage is not tested."""
CALL = 0.8
"""Margin over equity at which an account gets a margin call."""
COVERED = ["rule", "side", "periods", "breaches", "expected", "kupiec_p", "christoffersen_p"]


def count_warm_up(rule: DynamicMargin | None) -> int:
    """Return the days until weights of a rule's volatility have halved: before, single days are it.

    0 of a rule without weights.
    """
    if rule is None:
        return 0
    decay = getattr(list_rules(rule)[-1][1], "lambda_", None)
    return 0 if decay is None else math.ceil(math.log(0.5) / math.log(decay))


def measure_procyclicality(levels: FloatArray, in_force: FloatArray) -> dict[str, float]:
    """Return what margins tie up, and how they rise from close to close.

    ``levels`` (n_days,) are those at closes, ``in_force`` (n_bars,) those of bars. The
    peak-to-trough ratio is the largest margin of a constant position over the least; the n-day
    measure is the largest rise over n days. Source: Murphy, Vasios and Vause (2014), An
    Investigation into the Procyclicality of Risk-Based Initial Margin Models, Bank of England
    Financial Stability Paper 29.
    """
    found = {
        "mean": float(np.mean(in_force)),
        "peak": float(np.max(in_force)),
        "peak_to_trough": float(np.max(in_force) / np.min(in_force)),
    }
    for n in RISES:
        before, after = levels[:-n], levels[n:]
        is_long = len(after) > 0
        found[f"rise_{n}d"] = float(np.max(after / before - 1.0)) if is_long else math.nan
        found[f"points_{n}d"] = float(np.max(after - before)) if is_long else math.nan
    return found


def measure_coverage(
    levels: FloatArray, closes: FloatArray, period: int, share: float
) -> Iterator[dict[str, Any]]:
    """Yield, for a long and a short, how often losses of periods that do not overlap are over m."""
    moves = (closes[period:] / closes[:-period] - 1.0)[::period]
    margins, n = levels[: len(closes) - period : period], len(moves)
    for side, is_over in (("long", -moves > margins), ("short", moves > margins)):
        row: dict[str, Any] = {
            "side": side,
            "periods": n,
            "breaches": int(np.count_nonzero(is_over)),
            "expected": (1.0 - share) * n,
            "kupiec_p": math.nan,
            "christoffersen_p": math.nan,
        }
        if row["expected"] >= FEW:
            found = results.calibration(np.full(n, 1.0 - share), is_over)
            row |= {"kupiec_p": found.kupiec_p, "christoffersen_p": found.christoffersen_p}
        yield row


def draw_accounts(
    count: int, n_bars: int, seed: int, *, is_new: bool = False
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return entries (bars), uniform in time or all at the first, sides, and shares of leverage.

    Each account has the venue's largest leverage at its entry to the power of its share.
    """
    rng = np.random.default_rng([seed, count, n_bars])
    entries = rng.integers(0, n_bars, count) * (not is_new)
    return entries, np.where(rng.random(count) < 0.5, 1.0, -1.0), rng.random(count)


def live(
    prices: Prices, margins: FloatArray, venue: Venue, entries: IntArray, sides: FloatArray,
    shares: FloatArray,
) -> dict[str, float]:  # fmt: skip
    """Return calls, liquidations and bad debt of accounts of constant quantity.

    ``margins`` (n_bars, 1 or n) are the maintenance margins in each bar, under which the largest
    leverage is that of the lowest bracket. An account fails where its equity at the adverse extreme
    of a bar is at most its margin, and is closed there, with the venue's slippage and fee of
    liquidations. It begins again at the next open. What is lost beyond its equity is bad debt,
    which a fund pays that gets the fees. Positions have no effect on prices.
    """
    n, forced = len(sides), venue.liquidation
    rates, leverages = venue.find_lowest(prices.time)
    largest = ((leverages * rates) / margins.T).T
    slippage, fee = find_newest(forced.slippage), find_newest(forced.fee)
    entry, backing = np.full(n, np.nan), np.zeros(n)
    starts, was_called = entries.copy(), np.zeros(n, np.bool_)
    calls = liquidations = bad_debt = held = 0.0
    fund, fund_peak, used = 0.0, 0.0, 0.0
    for t in range(len(prices.time)):
        is_new = starts == t
        if is_new.any():
            opened = np.broadcast_to(prices.open[t], (n,))[is_new]
            entry[is_new] = opened
            allowed = np.broadcast_to(largest[t], (n,))[is_new]
            backing[is_new] = 1.0 / np.maximum(allowed, 1.0) ** shares[is_new]
            was_called[is_new] = False
        worst = np.where(sides > 0.0, prices.low[t], prices.high[t]) / entry
        equity = backing + sides * (worst - 1.0)
        needed = margins[t] * worst
        is_called = equity * CALL < needed
        calls += np.count_nonzero(is_called & ~was_called)
        was_called = is_called
        fails = equity <= needed
        held += np.count_nonzero(entry > 0.0)
        if fails.any():
            left = equity[fails] - slippage * worst[fails]
            paid = np.clip(left, 0.0, fee * worst[fails])
            liquidations += len(left)
            missing = float(np.sum(np.maximum(-left, 0.0)))
            bad_debt += missing
            fund += float(np.sum(paid)) - missing
            fund_peak = max(fund_peak, fund)
            used = max(used, fund_peak - fund)
            entry[fails] = np.nan
            starts[fails] = t + 1
    bars = len(prices.time)
    years = max(held, 1.0) * (prices.time[-1] - prices.time[0]) / max(bars - 1, 1) / YEAR_DAYS / DAY
    return {
        "calls": calls / years,
        "liquidations": liquidations / years,
        "bad_debt": bad_debt / years,
        "fund_used": used / n,
    }


@dataclass(frozen=True, eq=False, repr=False)
class MarginComparison(SettingsResult):
    """What margin rules tie up, how they rise, what they cover, and what accounts lose under them.

    Attributes
    ----------
    table : DataFrame
        By rule: ``mean`` and ``peak`` margin per notional in force on history, ``cost`` (the mean
        over that of the rule without wrappers, less 1), ``peak_to_trough``, ``rise_1d``,
        ``rise_5d``, ``rise_30d`` (the largest relative rises from close to close) and
        ``points_1d`` ... (in units of notional). All are from the day on which every rule has
        warmed up: the weights of its volatility have halved once.
    coverage : DataFrame
        By rule and side, without the venue's own table, whose maintenance margins are not meant to
        cover a day's loss: non-overlapping ``periods``, ``breaches``, ``expected`` breaches, and
        the p-values of Kupiec and Christoffersen, NaN with under ten expected.
    accounts : DataFrame
        By rule and where (``"history"`` or ``"paths"``): ``calls``, ``liquidations`` and
        ``bad_debt`` (losses beyond equity, of notional) per account and year, ``fund_used`` of
        notional per account.
    levels : DataFrame
        The margins at the closes of days by rule.
    """

    table: pd.DataFrame
    coverage: pd.DataFrame
    accounts: pd.DataFrame
    levels: pd.DataFrame

    kind = "margin-comparison"
    called = "Margin systems"
    call = "Backtest.compare_margin"

    @property
    def details(self) -> str:
        return (
            "A constant position of one unit of notional; accounts have no effect on prices, and "
            "those that fail are closed at the worst price of the bar and begin again."
        )

    @property
    def note(self) -> str:
        return f"{core.count_nouns(len(self.table), 'rule')}"

    @property
    def verdict(self) -> str:
        mean, ratio = self.table["mean"], self.table["peak_to_trough"]
        text = (
            f"{mean.idxmin()} ties up the least, {core.format_percent(float(mean.min()))} of "
            f"notional; {ratio.idxmin()} moves least, {ratio.min():.2f} times from trough to peak"
        )
        lost = self.accounts["bad_debt"]
        if not (lost > 0.0).any():
            return f"{text}; no account left bad debt."
        worst: Any = lost.idxmax()
        return f"{text}; {worst[0]} leaves the most bad debt, on {worst[1]}."

    def list_numbers(self) -> list[Headline]:
        return [
            Headline(str(name), f"mean margin, {name}", float(value), "percent", "of notional")
            for name, value in self.table["mean"].items()
        ]

    def list_parts(self) -> list[Part]:
        heads = {
            "mean": Head("mean", "of notional", "percent"),
            "peak": Head("peak", "of notional", "percent"),
            "cost": Head("cost", "over the rule inside", "signed percent"),
            "peak_to_trough": Head("peak / trough", "", "turns"),
            **{
                f"rise_{n}d": Head(f"rise, {n} d", "of the margin", "signed percent") for n in RISES
            },
            **{
                f"points_{n}d": Head(f"rise, {n} d", "of notional", "signed percent") for n in RISES
            },
        }
        tests = {name: Head(name, "count", "count") for name in ("periods", "breaches")}
        tests["expected"] = Head("expected", "count", "decimals")
        tests |= {
            name: Head(f"{name.removesuffix('_p').capitalize()} p", "", "p-value")
            for name in ("kupiec_p", "christoffersen_p")
        }
        lost = {
            "calls": Head("calls", "per account and year", "decimals"),
            "liquidations": Head("liquidations", "per account and year", "decimals"),
            "bad_debt": Head("bad debt", "of notional, per account and year", "percent"),
            "fund_used": Head("fund used", "of notional, per account", "percent"),
        }
        known = self.accounts.xs("history", level="where")["bad_debt"]
        held, lost_in_debt = 100.0 * self.table["mean"], 100.0 * known
        points = {str(rule): {held[rule]: lost_in_debt[rule]} for rule in held.index}
        frontier = pd.DataFrame(points).sort_index()
        few = "No p-value: too few breaches are expected, under ten."
        return [
            Part("levels", "Margin over time", "Margin per notional at the close of each day.", (
                ShownChart("levels", "Margin per notional", "% of notional.", 100.0 * self.levels,
                           has_legend=True),
                ShownTable(self.table, labels=Head("rule"), heads=heads),
            ), "both"),
            Part("coverage", "Coverage", few, (
                ShownTable(self.coverage, labels=Head("rule"), heads=tests),), "both"),
            Part("accounts", "Accounts", self.details, (
                ShownTable(self.accounts, labels=Head("rule"), heads=lost),
                ShownChart("frontier", "Capital tied up against bad debt", "On history: % of "
                           "notional on average, and % of notional lost per account and year.",
                           frontier, "cloud", x="margin on average, % of notional",
                           y="bad debt, % of notional a year", has_legend=True),
            ), "both"),
        ]  # fmt: skip


COVERAGE = core.Real(0.5, 1.0, open_high=True)


@core.checked_only("progress", "rules")
def compare_margin(
    conditions: Conditions,
    rules: Mapping[str, Any],
    *,
    coverage: Annotated[float, COVERAGE] = 0.99,
    accounts: Annotated[int, core.Whole(1)] = 1000,
    paths: Annotated[int, core.Whole(0)] = 200,
    horizon: str = "90d",
    model: Any = "filtered",
    seed: Annotated[int, core.Whole(0)] = 0,
    progress: Progress | None = None,
) -> MarginComparison:
    """Answer :meth:`backtest.Backtest.compare_margin`, which documents it."""
    one, venue = read_one_market(engine.plain(conditions), "compare_margin")
    COVERAGE.check("coverage", coverage)
    core.Whole(1).check("accounts", accounts)
    for name, number in (("paths", paths), ("seed", seed)):
        core.Whole(0).check(name, number)
    if not rules:
        raise core.ParameterError("rules must be a table of margin rules by name, got none")
    chosen: dict[str, DynamicMargin | None] = {
        str(name): None if each is None else by_rule.Rule().check(f"rules.{name}", each)
        for name, each in rules.items()
    }
    days, names = by_rule.read_days(one), ("mark_open", "mark_high", "mark_low", "mark_close")
    prices = Prices(one.time, *(getattr(one, name)[:, None] for name in names))
    found = {name: measure_levels(each, days, one.time, venue) for name, each in chosen.items()}
    known = ~np.any([np.isnan(each.daily) for each in found.values()], axis=0)
    warm_up = max(map(count_warm_up, chosen.values()))
    is_warm = known & (np.cumsum(known) > warm_up)
    if np.count_nonzero(is_warm) < 2:
        raise core.DataError(
            f"compare_margin needs two days on which every rule is known, {warm_up} days after "
            f"the first, got {one.n_bars:,} bars of {core.format_duration(one.interval)}"
        )
    closes = one.mark_close[days.rows][known]
    first = int(np.searchsorted(one.time, days.time[is_warm][0]))  # where all are in force
    rows, covered, lost = (list[dict[str, Any]]() for _ in range(3))
    drawn = draw_accounts(accounts, one.n_bars, seed)
    ahead = simulate_paths(one, model, paths=paths, horizon=horizon, seed=seed) if paths else None
    for done, (name, rule) in enumerate(chosen.items(), 1):
        levels, share, period = found[name], coverage, 1
        inner: Any = rule
        if rule is not None:  # what is inside, with the limits of the outermost
            inner = list_rules(rule)[-1][1].override(
                floor=rule.floor, cap=rule.cap, notice=rule.notice
            )
            if rule.is_of_volatility:
                share, period = float(inner.quantile), max(math.ceil(inner.days), 1)
        daily = levels.daily[is_warm]
        plain = float(np.mean(measure_levels(inner, days, one.time, venue).by_bar[first:]))
        own = measure_procyclicality(daily, levels.by_bar[first:])
        rows.append({"rule": name, **own, "cost": own["mean"] / plain - 1.0})
        if rule is not None:
            known_levels = levels.daily[known]
            covered += [
                {"rule": name} | row
                for row in measure_coverage(known_levels, closes, period, share)
            ]
        outcome = live(prices, levels.by_bar[:, None], venue, *drawn)
        lost.append({"rule": name, "where": "history", **outcome})
        if ahead is not None:
            own_days, bars = join_paths(one, ahead, 0, paths)
            on_paths = measure_levels(rule, own_days, bars.time, venue).by_bar
            begun = draw_accounts(paths, len(bars.time), seed, is_new=True)
            lost.append({"rule": name, "where": "paths", **live(bars, on_paths, venue, *begun)})
        core.report_progress(progress, done, len(chosen))
    dates = core.utc_index(days.time[known])
    return MarginComparison(
        table=pd.DataFrame(rows).set_index("rule"),
        coverage=pd.DataFrame(covered, columns=COVERED).set_index(["rule", "side"]),
        accounts=pd.DataFrame(lost).set_index(["rule", "where"]),
        levels=pd.DataFrame({name: each.daily[known] for name, each in found.items()}, index=dates),
        settings={
            "rules": {name: None if each is None else repr(each) for name, each in chosen.items()},
            "venue": results.describe_venue(venue), "coverage": coverage, "accounts": accounts,
            **({} if ahead is None else {"paths": ahead.describe()}),
        },
        market=one,
    )  # fmt: skip
