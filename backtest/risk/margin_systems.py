"""compare_margin() and calibrate_margin(): what margins by rule cost, cover and leave uncovered."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core, engine, results
from backtest.core import FloatArray, IntArray, Progress
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY, YEAR_DAYS
from backtest.engine import Conditions
from backtest.market import Market, as_markets
from backtest.results.settings_result import SettingsResult
from backtest.risk import scores as sc
from backtest.risk.past_starts import CALM, measure_calm
from backtest.risk.paths import Paths, simulate_paths
from backtest.risk.replays import cut_past
from backtest.risk.scenarios import crashes
from backtest.venue import Venue, choose_multipliers, find_newest
from backtest.venue import margin_rules as by_rule
from backtest.venue.margin_rules import DailyCloses, DynamicMargin

RISES = (1, 5, 30)
"""Days over which rises of margin are measured."""
FEW = 10
"""Expected breaches under which coverage is not tested."""
CALL = 0.8
"""Margin over equity at which an account gets a margin call."""
CHUNK = 2000
"""Paths that are calibrated together."""
STEPS = 40
"""Bisections, to 1e-12 of the range."""
GRID = 9
"""Values at which monotonicity is checked."""
COVERED = ["rule", "side", "periods", "breaches", "expected", "kupiec_p", "christoffersen_p"]
PER_TAIL = 20
"""Paths for each one with a shortfall that may be left."""


class Levels(NamedTuple):
    """Margins per notional: at closes of days (n_days, ...), and in force in bars (n_bars, ...)."""

    daily: FloatArray
    by_bar: FloatArray


class Prices(NamedTuple):
    """Mark prices by bar, (n_bars, 1) or (n_bars, n_paths), and the bars' opens in ns (n_bars,)."""

    time: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray


def list_rules(rule: DynamicMargin) -> list[tuple[str, DynamicMargin]]:
    """Return a rule and those that it wraps, each with the prefix of its dotted names."""
    found = [("", rule)]
    while isinstance(rule, by_rule.Wrapper):
        rule = rule.rule
        found.append((f"{found[-1][0]}rule.", rule))
    return found


def measure_levels(
    rule: DynamicMargin | None, days: DailyCloses, time: IntArray, venue: Venue
) -> Levels:
    """Return the margins of a rule for bars with these opens; None is the venue's own table."""
    (rates, _), (at_close, _) = venue.find_lowest(time), venue.find_lowest(days.time)
    if rule is None:
        whole = np.ones((1, *days.returns.shape[1:]))
        return Levels((at_close * whole.T).T, (rates * whole.T).T)
    found, known = rule.compute_levels(days), days.time + rule.delay
    daily = (rule.place(found, known, days.time, at_close).T * at_close).T
    daily = np.where(np.isnan(by_rule.find_newest_levels(found, known, days.time)), np.nan, daily)
    return Levels(daily, (rule.place(found, known, time, rates).T * rates).T)


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


def read_one_market(test: Conditions, name: str) -> tuple[Market, Venue]:
    """Return the only market of a test, and its venue, whose table nothing moves but the rules."""
    markets = as_markets(test.market)
    if len(markets) > 1:
        raise core.ParameterError(
            f"{name} needs one market, got {', '.join(markets)}: give markets one at a time"
        )
    (market,) = markets.values()
    (venue,) = engine.read_venues(test.venue, markets).values()
    if venue.contract.kind != "linear":
        raise core.ParameterError(
            f"{name} needs a linear contract, got a venue of {venue.contract.kind!r} ones"
        )
    if venue.margin is not None:
        raise core.ParameterError(
            f"{name} compares rules with the venue's own table: leave venue.margin out and give "
            f"its rule as an argument, got {venue.margin!r}"
        )
    for key, multiplier in choose_multipliers(venue).items():
        if isinstance(multiplier, pd.Series) or multiplier != 1.0:
            raise core.ParameterError(
                f"{name} compares rules with the venue's own table: leave venue.{key} out and "
                f"scale the rates of venue.brackets, got {core.repr_plain(multiplier):.60}"
            )
    return market, venue


def join_paths(market: Market, paths: Paths, first: int, stop: int) -> tuple[DailyCloses, Prices]:
    """Return the days of history and of some paths after it, and the paths' own bars."""
    (bars,) = paths.draw_all(first, stop).values()
    time, marks = paths.calendar.time, bars.marks
    before = market.time < time[0]
    joined = np.concatenate([market.time[before], time])
    rows, ends = by_rule.find_day_ends(joined, market.interval)
    known = int(np.count_nonzero(before))
    own = rows[rows >= known] - known
    past = np.repeat(market.mark_close[rows[rows < known], None], stop - first, axis=1)
    closes = np.concatenate([past, marks[3].T[own]])
    returns = np.concatenate([np.full((1, stop - first), np.nan), np.diff(np.log(closes), axis=0)])
    return DailyCloses(ends, rows, returns), Prices(time[1:], *(each.T[1:] for each in marks))


COVERAGE, SHORTFALL = core.Real(0.5, 1.0, open_high=True), core.Real(0.0, 0.5, open_low=True)


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


@dataclass(frozen=True, eq=False, repr=False)
class MarginCalibration(SettingsResult):
    """The least parameter of a margin rule with shortfalls on few paths, and in history as few.

    Attributes
    ----------
    value : float
        The larger of two: the (1 - shortfall) order statistic of the paths' own least ones, and the
        least one with a shortfall in at most that share of history's windows. Infinite beyond the
        largest value of the parameter.
    low, high : float
        The ends of the binomial 95 % interval of that of the paths alone.
    reversals : float
        The share of the paths on which a larger parameter brings a shortfall back, on a grid.
    table : DataFrame
        By value of the grid: the share of ``paths`` with a shortfall, that of ``history``'s windows
        of the same length, and the margin ``today``.
    crashes : DataFrame
        By crash: its ``move``, and the ``least`` parameter whose margin of today covers it,
        infinite where none does.
    scores, forecasts : DataFrame, optional
        With ``score``: the value found, held at past dates: what was told and what came.
    """

    value: float
    low: float
    high: float
    reversals: float
    table: pd.DataFrame
    crashes: pd.DataFrame
    scores: pd.DataFrame | None = None
    forecasts: pd.DataFrame | None = None

    kind = "margin-calibration"
    long_tables = ("forecasts",)
    called = "Margin calibration"
    call = "Backtest.calibrate_margin"

    @property
    def name(self) -> str:
        """The parameter."""
        return str(self.settings["parameter"])

    @property
    def details(self) -> str:
        text = (
            "A constant position, long and short, opened at any day's close of a path: at no mark "
            "inside the days of the rule may its loss be over the margin at that close."
        )
        told = core.format_percent(self.settings["shortfall"])
        text += f" At most {told} of the paths, and of history's windows, may have a shortfall."
        past = self.settings["history"]
        if past is None:
            text += " History is too short for windows of this length."
        else:
            text += f" History has {past['windows']:,} windows of this length, from every day."
        if not math.isfinite(self.value) and not self.name.endswith("days"):
            text += ' A margin grows without a bound with days: solve="days" finds those.'
        if unknown := self.settings["unknown_days"]:
            share = core.format_percent(unknown)
            text += f" The margin is not known on {share} of these days, which are left out."
        if self.scores is not None:
            (row,) = self.scores[self.scores["days"] == sc.ALL].to_dict("records")
            text += f" Held at past dates, {sc.write_score('a shortfall', row)}."
        return text

    @property
    def note(self) -> str:
        return f"{self.name} {format_parameter(self.value)}"

    @property
    def verdict(self) -> str:
        nearest, past = self.settings["nearest"], self.settings["history"]
        told = core.format_percent(self.settings["shortfall"])
        share = core.format_percent(nearest["paths"])
        found = f"on {share} of the paths"
        if past is not None:
            found += f" and {core.format_percent(past['share'])} of history's windows"
        if not math.isfinite(self.value):
            return (
                f"No {self.name} leaves a shortfall on at most {told}; the nearest, "
                f"{nearest['value']:.5g}, leaves one {found}."
            )
        return f"{self.name} {format_parameter(self.value)} leaves a shortfall {found}."

    def list_numbers(self) -> list[Headline]:
        unit = self.settings["unit"]
        interval = ""
        if math.isfinite(self.value):
            interval = (
                f" {format_parameter(self.low)} to {format_parameter(self.high)} by the paths "
                "alone, a 95 % interval"
            )
        return [
            Headline("value", self.name, self.value, "number", f"{unit}{interval}".strip(),
                     text=format_parameter(self.value)),
            Headline("reversals", "not monotone", self.reversals, "percent", "of the paths"),
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        unit = self.settings["unit"]
        heads = {"paths": Head("shortfall", "of the paths", "percent"),
                 "history": Head("shortfall", "of history's windows", "percent"),
                 "today": Head("margin today", "of notional", "percent"),
                 "move": Head("move", "of the price", "signed percent")}  # fmt: skip
        least = [format_parameter(x) for x in self.crashes["least"]]
        needed = self.crashes.assign(least=least)
        heads["least"] = Head(self.name, unit)
        return [
            Part("grid", "By value", "", (
                ShownChart("grid", "Paths with a shortfall", "% of the paths.",
                           100.0 * self.table["paths"], "points", marks=(self.value,)),
                ShownTable(self.table, labels=Head(self.name, unit), heads=heads),
            ), "both"),
            Part("crashes", "Crashes", "The least value whose margin of today covers the move.", (
                ShownTable(needed, labels=Head("crash"), heads=heads),), "both"),
            *([] if self.scores is None else [sc.show_scores(self.scores)]),
        ]  # fmt: skip


def find_unit(name: str) -> str:
    """Return the unit of a parameter of a rule."""
    units = {
        "days": "days",
        "lambda_": "per day",
        "share": "of the margin",
        "quantile": "of losses",
    }
    return units.get(name.rpartition(".")[2], "")


def format_parameter(value: float) -> str:
    return f"{value:.5g}" if math.isfinite(value) else "beyond its range"


MOST_UNKNOWN = 0.1
"""The largest share of the days of all paths whose margin may be unknown."""
SOLVED = {"buffer": "share"}
"""Words for parameters of rules."""


@core.checked_only("progress", "rule")
def calibrate_margin(
    conditions: Conditions,
    rule: Any,
    *,
    solve: str = "quantile",
    shortfall: Annotated[float, SHORTFALL] = 1e-3,
    paths: Annotated[int, core.Whole(1)] | None = None,
    horizon: str = "30d",
    model: Any = "filtered",
    seed: Annotated[int, core.Whole(0)] = 0,
    score: bool = False,
    progress: Progress | None = None,
) -> MarginCalibration:
    """Answer :meth:`backtest.Backtest.calibrate_margin`, which documents it."""
    one, venue = read_one_market(engine.plain(conditions), "calibrate_margin")
    checked: Any = rule if rule is None else by_rule.Rule().check("rule", rule)
    if rule is None or not checked.is_of_volatility:
        raise core.ParameterError(
            f"rule must be of volatility, such as bt.margin_rules.Volatility(), got {rule!r:.60}"
        )
    least = math.ceil(PER_TAIL / SHORTFALL.check("shortfall", shortfall))
    count = least if paths is None else paths
    if count < least:
        raise core.ParameterError(
            f"paths must be at least {PER_TAIL} / shortfall, {least:,}, got {count:,}"
        )
    parameter = find_parameter(checked, solve)
    ahead = simulate_paths(one, model, paths=count, horizon=horizon, seed=seed)
    tries = Tries(one, venue, checked, parameter, ahead, progress)
    by_paths, low, high = (
        tries.bisect(lambda x, rank=rank: int(np.sum(tries.find_shortfalls(x))) <= rank)  # type: ignore[misc] # a default
        for rank in find_ranks(count, shortfall)
    )
    by_history = tries.bisect(lambda x: not tries.measure_history(x)[0] > shortfall)
    value = max(by_paths, by_history)
    grid = np.linspace(tries.low, tries.high, GRID + 2)[1:-1]
    if tries.low < value < tries.high:  # denser where the solution is
        steps = 0.5 ** np.arange(1, GRID // 2 + 1)
        below, above = value - (value - tries.low) * steps, (tries.high - value) * steps[::-1]
        grid = np.concatenate([below, [value], value + above])
    failed = np.stack([tries.find_shortfalls(each) for each in grid])
    reversals = float(np.mean(np.any(failed[1:] & ~failed[:-1], axis=0)))
    today = [tries.find_margin_today(each) for each in grid]
    past = [tries.measure_history(each)[0] for each in grid]
    table = pd.DataFrame(
        {"paths": failed.mean(axis=1), "history": past, "today": today}, index=grid
    )
    nearest = value if math.isfinite(value) else tries.high
    share, windows = tries.measure_history(nearest)
    moves = {each.name: each.price for each in crashes()}
    needed = {
        name: tries.bisect(lambda x, move=move: tries.find_margin_today(x) >= abs(move))  # type: ignore[misc] # a default
        for name, move in moves.items()
    }
    scored = {}
    if score:
        name = f"{tries.name} {nearest:.5g}: a shortfall within {horizon}"
        held = sc.tabulate_scores({name: (tries.hold(nearest, shortfall), shortfall)})
        scored = {"scores": held.scores, "forecasts": held.forecasts}
    return MarginCalibration(
        value=value, low=low, high=high, reversals=reversals,
        table=table.rename_axis(tries.name), crashes=pd.DataFrame({"move": moves, "least": needed}),
        settings={"rule": repr(checked), "terms": checked.to_dict(), "parameter": tries.name,
                  "unit": find_unit(tries.name), "horizon": horizon, "shortfall": shortfall,
                  "nearest": {"value": nearest,
                              "paths": float(np.mean(tries.find_shortfalls(nearest)))},
                  "history": {"share": share, "windows": windows} if windows else None,
                  "unknown_days": tries.unknown, "venue": results.describe_venue(venue),
                  "paths": ahead.describe()},
        market=one, **scored,
    )  # fmt: skip


def find_parameter(rule: DynamicMargin, name: str) -> tuple[str, float, float]:
    """Return the dotted name of the outermost number of that name in a rule, and its range."""
    wanted, known = SOLVED.get(name, name), list[str]()
    for prefix, inner in list_rules(rule):
        declarations = core.find_declarations(type(inner))  # type: ignore[arg-type] # classes do hash
        for each, declared in declarations.items():
            if isinstance(declared, core.Real | core.Range) and math.isfinite(declared.high):
                known.append(each)
                if each == wanted:
                    return prefix + each, declared.low, declared.high
    raise core.ParameterError(
        f"solve must be a bounded number of the rule, one of {', '.join(dict.fromkeys(known))}, "
        f"got {name!r}"
    )


def find_ranks(count: int, share: float) -> tuple[int, int, int]:
    """Return how many paths may fail, for the value and the ends of its binomial 95 % interval.

    Each end is on the wrong side of the true value with a probability of at most 2.5 %; the next
    order statistic towards the middle is so with more.
    """
    chances = core.sp.special.bdtr(np.arange(count + 1), count, share)  # that at most so many fail
    most, least = np.searchsorted(chances, [0.975, 0.025]).tolist()
    return math.floor(count * share), most, max(least - 1, 0)


def find_worst(bars: Prices, days: IntArray, period: int, last: float) -> FloatArray:
    """Return the largest move of marks within some days from each day's close, (n_days, n).

    The larger of both sides, as a fraction of the close; ``days`` (n_days,) are closes in ns,
    ``last`` is the mark before the bars. After the last closes counts what is left of the bars.
    """
    ends = np.searchsorted(bars.time, days)  # the first bar after each close
    n = len(ends)
    lows, highs = np.full((2, n, bars.low.shape[1]), np.nan)
    for k, (first, stop) in enumerate(itertools.pairwise([*ends.tolist(), len(bars.time)])):
        if first < stop:
            lows[k] = np.min(bars.low[first:stop], axis=0)
            highs[k] = np.max(bars.high[first:stop], axis=0)

    worst = np.zeros_like(lows)
    for k in range(n):
        if ends[k] >= len(bars.time):
            break
        close = bars.close[ends[k] - 1] if ends[k] else last
        ahead = slice(k, k + period)
        low, high = np.nanmin(lows[ahead], axis=0), np.nanmax(highs[ahead], axis=0)
        worst[k] = np.maximum(1.0 - low / close, high / close - 1.0)
    return worst


class PastDays:
    """The days of history, and the largest move of marks within the days of a rule from each."""

    def __init__(self, market: Market, venue: Venue, rule: DynamicMargin) -> None:
        self.venue = venue
        self.days = by_rule.read_days(market)
        innermost: Any = list_rules(rule)[-1][1]
        self.period = max(math.ceil(innermost.days), 1)
        marks = (getattr(market, f"mark_{name}")[:, None] for name in Prices._fields[1:])
        bars = Prices(market.time, *marks)
        last = float(market.mark_close[-1])
        self.worst = find_worst(bars, self.days.time, self.period, last)[:, 0]

    def find_over(self, rule: DynamicMargin) -> tuple[core.BoolArray, core.BoolArray]:
        """Return the days whose move is over the margin at their close, and those that know one."""
        levels = measure_levels(rule, self.days, self.days.time, self.venue).daily
        return self.worst > levels, ~np.isnan(levels)


class Tries:
    """The paths on which values of a parameter are tried; every value sees the same ones.

    ``unknown`` is the largest share of their days on which a value tried has no known margin.
    """

    def __init__(
        self, market: Market, venue: Venue, rule: DynamicMargin,
        parameter: tuple[str, float, float], paths: Paths, progress: Progress | None,
    ) -> None:  # fmt: skip
        self.market = market
        self.venue, self.rule = venue, rule
        self.name, self.low, self.high = parameter
        self.unknown = 0.0
        self.shortfalls: dict[float, core.BoolArray] = {}
        self.past = PastDays(market, venue, rule)
        self.days = self.past.days
        self.period = self.past.period
        last = float(market.mark_close[-1])
        self.parts: list[tuple[DailyCloses, FloatArray]] = []
        for first in range(0, paths.count, CHUNK):
            days, bars = join_paths(market, paths, first, min(first + CHUNK, paths.count))
            known = int(np.searchsorted(days.time, paths.calendar.time[1]))  # where paths begin
            worst = find_worst(bars, days.time[known:], self.period, last)
            self.parts.append((days, worst))
            core.report_progress(progress, min(first + CHUNK, paths.count), paths.count)
        # History as paths have it: windows of their length, from each day's close.
        self.window = len(self.parts[0][1])

    def find_shortfalls(self, value: float) -> core.BoolArray:
        """Return for each path whether a loss is over the margin before it, (n_paths,).

        Days of unknown margin are left out; over a tenth of the days of all paths is an error.
        """
        if value in self.shortfalls:
            return self.shortfalls[value]
        rule, found = self.rule.override({self.name: value}), []
        unknown, total = 0, 0
        for days, worst in self.parts:
            levels = measure_levels(rule, days, days.time, self.venue).daily[-len(worst) :]
            found.append(np.any(worst > levels, axis=0))
            unknown += int(np.isnan(levels).sum())
            total += levels.size
        if unknown > MOST_UNKNOWN * total:
            raise core.DataError(
                f"the margin must be known on {1.0 - MOST_UNKNOWN:.0%} of the days of the paths, "
                f"got {1.0 - unknown / total:.0%} of {total:,} with {rule!r:.100}; give a longer "
                "history, or a rule that needs fewer days"
            )
        self.unknown = max(self.unknown, unknown / total)
        self.shortfalls[value] = np.concatenate(found)
        return self.shortfalls[value]

    def hold(self, value: float, told: float) -> sc.Record:
        """Return the record of a value held at past days: did their window have a shortfall.

        Windows have the length of paths and no day in common, but for the days of the rule.
        """
        is_over, is_known = self.past.find_over(self.rule.override({self.name: value}))
        first = int(np.argmax(is_known)) if is_known.any() else len(is_known)
        days = sc.choose_dates(first, len(is_known), self.window)
        closes = self.days.time[days]
        if len(days) < sc.LEAST_DATES:
            return sc.leave_untold(closes)
        came = np.array([is_over[day : day + self.window].any() for day in days.tolist()])
        is_calm = [measure_calm(cut_past(self.market, x)) < CALM for x in closes.tolist()]
        return sc.Record(closes, np.full(len(days), told), came, np.array(is_calm))

    def measure_history(self, value: float) -> tuple[float, int]:
        """Return the share of history's windows with a shortfall, and how many there are."""
        is_over, is_known = self.past.find_over(self.rule.override({self.name: value}))
        is_over = is_over[is_known]
        count = len(is_over) - self.window + 1
        if count < 1:
            return math.nan, 0
        windows = np.lib.stride_tricks.sliding_window_view(is_over, self.window)
        return float(np.mean(windows.any(axis=1))), count

    def find_margin_today(self, value: float) -> float:
        rule = self.rule.override({self.name: value})
        return float(measure_levels(rule, self.days, self.days.time, self.venue).daily[-1])

    def bisect(self, is_enough: Callable[[float], bool]) -> float:
        """Return the least value that is enough; infinity where none is."""
        low, high = self.low, self.high
        if not is_enough(high):
            return math.inf
        if is_enough(low):
            return low
        for _ in range(STEPS):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if is_enough(middle) else (middle, high)
            if high - low <= 1e-6 * max(abs(high), 1e-3):
                break
        return high
