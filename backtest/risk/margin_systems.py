"""compare_margin(): what margins by rule tie up, cover and leave uncovered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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
from backtest.market import Market
from backtest.results.settings_result import SettingsResult
from backtest.risk.margin_levels import (
    Prices,
    join_paths,
    list_rules,
    measure_levels,
    read_one_market,
    read_prices,
)
from backtest.risk.paths import Paths, simulate_paths
from backtest.venue import Venue, find_newest
from backtest.venue import margin_rules as by_rule
from backtest.venue.margin_rules import DynamicMargin

RISES = (1, 5, 30)
"""Days over which rises of margin are measured."""
FEW = 10
"""Breaches, expected or counted, under which coverage is not tested."""
CALL = 0.8
"""Margin over equity at which an account gets a margin call."""
COVERED = [
    "rule",
    "side",
    "periods",
    "breaches",
    "expected",
    "kupiec_p",
    "christoffersen_p",
]


def count_warm_up(rule: DynamicMargin | None) -> int:
    """Return the days after which the weights of a rule's volatility have halved, 0 without any.

    Before that a volatility rests on a few days.
    """
    if rule is None:
        return 0
    _, innermost = list_rules(rule)[-1]
    decay = getattr(innermost, "lambda_", None)
    if decay is None:
        return 0
    days = math.log(0.5) / math.log(decay)
    return math.ceil(days)


def measure_procyclicality(levels: FloatArray, in_force: FloatArray) -> dict[str, float]:
    """Return what margins tie up, and how they rise from close to close.

    ``levels`` (n_days,) are those at closes, ``in_force`` (n_bars,) those of bars. The
    peak-to-trough ratio is the largest margin of a constant position over the least; the n-day
    measure is the largest rise over n days. Source: Murphy, Vasios and Vause (2014), An
    Investigation into the Procyclicality of Risk-Based Initial Margin Models, Bank of England
    Financial Stability Paper 29.
    """
    peak = float(np.max(in_force))
    measures = {
        "mean": float(np.mean(in_force)),
        "peak": peak,
        "peak_to_trough": float(np.max(in_force) / np.min(in_force)),
    }

    for n in RISES:
        before = levels[:-n]
        after = levels[n:]
        measures[f"rise_{n}d"] = math.nan
        measures[f"points_{n}d"] = math.nan
        if len(after):
            rises = after / before - 1.0
            measures[f"rise_{n}d"] = float(np.max(rises))
            measures[f"points_{n}d"] = float(np.max(after - before))

    return measures


def measure_coverage(
    levels: FloatArray,
    closes: FloatArray,
    period: int,
    share: float,
) -> Iterator[dict[str, Any]]:
    """Yield, for a long and a short, how often losses are over the margin.

    Losses are those of ``period`` days from close to close, which do not overlap; ``share`` of them
    the margin is meant to cover.
    """
    moves = closes[period:] / closes[:-period] - 1.0
    moves = moves[::period]
    margins = levels[: len(closes) - period : period]
    n = len(moves)

    sides = (("long", -moves > margins), ("short", moves > margins))
    for side, is_over in sides:
        row: dict[str, Any] = {
            "side": side,
            "periods": n,
            "breaches": int(np.count_nonzero(is_over)),
            "expected": (1.0 - share) * n,
            "kupiec_p": math.nan,
            "christoffersen_p": math.nan,
        }

        if max(row["expected"], row["breaches"]) >= FEW:
            chances = np.full(n, 1.0 - share)
            test = results.calibration(chances, is_over)
            row["kupiec_p"] = test.kupiec_p
            row["christoffersen_p"] = test.christoffersen_p

        yield row


class DrawnAccounts(NamedTuple):
    """Accounts that hold a constant position, each (n,).

    ``entries`` are the bars at whose open they begin, ``sides`` are 1 of longs and -1 of shorts.
    The leverage of an account is the largest one at its entry to the power of its ``shares``.
    """

    entries: IntArray
    sides: FloatArray
    shares: FloatArray


def draw_accounts(
    count: int,
    n_bars: int,
    seed: int,
    *,
    is_new: bool = False,
) -> DrawnAccounts:
    """Return accounts that begin at any bar alike, or all at the first if they are ``is_new``.

    Entries are drawn in any case, so that sides and shares of a seed are the same.
    """
    rng = np.random.default_rng([seed, count, n_bars])
    entries = rng.integers(0, n_bars, count)
    if is_new:
        entries = np.zeros_like(entries)
    is_long = rng.random(count) < 0.5
    sides = np.where(is_long, 1.0, -1.0)
    return DrawnAccounts(entries, sides, shares=rng.random(count))


def simulate_accounts(
    prices: Prices,
    margins: FloatArray,
    venue: Venue,
    accounts: DrawnAccounts,
) -> dict[str, float]:
    """Return calls, liquidations and bad debt of accounts of constant quantity.

    They are per account and year held; ``fund_used`` is per account, the most that was taken from
    the fund since its peak. All money is in units of an account's notional at its entry.

    ``margins`` (n_bars, 1 or n) are the maintenance margins in each bar, under which the largest
    leverage is that of the lowest bracket. An account fails where its equity at the adverse extreme
    of a bar is at most its margin, and is closed there, with the venue's slippage and fee of
    liquidations. It begins again at the next open. What is lost beyond its equity is bad debt,
    which a fund pays that gets the fees. Positions have no effect on prices.
    """
    sides = accounts.sides
    n = len(sides)
    bars = len(prices.time)
    rates, leverages = venue.find_lowest(prices.time)
    largest = ((leverages * rates) / margins.T).T
    slippage = find_newest(venue.liquidation.slippage)
    fee = find_newest(venue.liquidation.fee)

    # Money is in units of each account's notional at entry. An entry of NaN is no position: all
    # that is compared with it is False.
    entry = np.full(n, np.nan)
    backing = np.zeros(n)
    starts = accounts.entries.copy()
    was_called = np.zeros(n, np.bool_)

    calls = 0.0
    liquidations = 0.0
    bad_debt = 0.0
    held = 0.0
    fund = 0.0
    fund_peak = 0.0
    used = 0.0
    for t in range(bars):
        # Accounts that begin at this open, each at its leverage.
        is_new = starts == t
        if is_new.any():
            allowed = np.broadcast_to(largest[t], n)[is_new]
            entry[is_new] = np.broadcast_to(prices.open[t], n)[is_new]
            leverage = np.maximum(allowed, 1.0) ** accounts.shares[is_new]
            backing[is_new] = 1.0 / leverage
            was_called[is_new] = False

        # Calls at the adverse extreme of the bar; one that lasts counts once.
        adverse = np.where(sides > 0.0, prices.low[t], prices.high[t])
        worst = adverse / entry
        equity = backing + sides * (worst - 1.0)
        needed = margins[t] * worst
        is_called = equity * CALL < needed
        calls += np.count_nonzero(is_called & ~was_called)
        was_called = is_called
        held += np.count_nonzero(entry > 0.0)

        # Liquidations: the fee goes to the fund as far as something is left, which pays debts.
        fails = equity <= needed
        if fails.any():
            left = equity[fails] - slippage * worst[fails]
            paid = np.clip(left, 0.0, fee * worst[fails])
            debts = np.maximum(-left, 0.0)
            missing = float(np.sum(debts))
            liquidations += len(left)
            bad_debt += missing

            fund += float(np.sum(paid)) - missing
            fund_peak = max(fund_peak, fund)
            used = max(used, fund_peak - fund)
            entry[fails] = np.nan
            starts[fails] = t + 1

    # Figures are of a year of an account that is held.
    span = prices.time[-1] - prices.time[0]
    bars_held = max(held, 1.0)
    years = bars_held * span / max(bars - 1, 1) / YEAR_DAYS / DAY
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
    called = "margin systems"
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
        mean = self.table["mean"]
        ratio = self.table["peak_to_trough"]
        text = (
            f"The least is tied up by {mean.idxmin()}, {core.format_percent(float(mean.min()))} of "
            f"notional; the steadiest is {ratio.idxmin()}, {ratio.min():.2f} times from trough to "
            "peak"
        )

        lost = self.accounts["bad_debt"]
        if not (lost > 0.0).any():
            return f"{text}; no account left bad debt."

        worst: Any = lost.idxmax()
        return f"{text}; the most bad debt is left by {worst[0]}, on {worst[1]}."

    def list_numbers(self) -> list[Headline]:
        numbers = []
        for name, value in self.table["mean"].items():
            words = f"mean margin, {name}"
            number = Headline(str(name), words, float(value), "percent", "of notional")
            numbers.append(number)
        return numbers

    def list_parts(self) -> list[Part]:
        return [
            self._show_levels(),
            self._show_coverage(),
            self._show_accounts(),
        ]

    def _show_levels(self) -> Part:
        heads = {
            "mean": Head("mean", "of notional", "percent"),
            "peak": Head("peak", "of notional", "percent"),
            "cost": Head("cost", "over the rule inside", "signed percent"),
            "peak_to_trough": Head("peak / trough", "", "turns"),
        }
        for n in RISES:
            heads[f"rise_{n}d"] = Head(f"rise, {n} d", "of the margin", "signed percent")
        for n in RISES:
            heads[f"points_{n}d"] = Head(f"rise, {n} d", "of notional", "signed percent")

        chart = ShownChart(
            key="levels",
            title="Margin per notional",
            caption="Share of notional.",
            table=self.levels,
            percent="y",
            has_legend=True,
        )
        table = ShownTable(self.table, labels=Head("rule"), heads=heads)

        lead = "Margin per notional at the close of each day."
        return Part(
            key="levels",
            title="Margin over time",
            lead=lead,
            blocks=(chart, table),
            shows="both",
        )

    def _show_coverage(self) -> Part:
        heads = {
            "periods": Head("periods", "count", "count"),
            "breaches": Head("breaches", "count", "count"),
            "expected": Head("expected", "count", "decimals"),
            "kupiec_p": Head("Kupiec p", "", "p-value"),
            "christoffersen_p": Head("Christoffersen p", "", "p-value"),
        }
        table = ShownTable(self.coverage, labels=Head("rule"), heads=heads)
        few = "No p-value: under ten breaches are expected, and under ten happened."
        return Part(
            key="coverage",
            title="Coverage",
            lead=few,
            blocks=(table,),
            shows="both",
        )

    def _show_accounts(self) -> Part:
        heads = {
            "calls": Head("calls", "per account and year", "decimals"),
            "liquidations": Head("liquidations", "per account and year", "decimals"),
            "bad_debt": Head("bad debt", "of notional, per account and year", "percent"),
            "fund_used": Head("fund used", "of notional, per account", "percent"),
        }
        # A column per rule, with one point: its margin and what was lost.
        tied_up = 100.0 * self.table["mean"]
        lost = 100.0 * self.accounts.xs("history", level="where")["bad_debt"]
        points = {str(rule): {tied_up[rule]: lost[rule]} for rule in tied_up.index}
        frontier = ShownChart(
            key="frontier",
            title="Capital tied up against bad debt",
            caption="On history: % of notional on average, and % of notional lost per account and "
            "year.",
            table=pd.DataFrame(points).sort_index(),
            kind="cloud",
            x="margin on average, % of notional",
            y="bad debt, % of notional a year",
            has_legend=True,
        )
        table = ShownTable(self.accounts, labels=Head("rule"), heads=heads)
        lead = "What happened to accounts that hold a constant position."
        return Part(
            key="accounts",
            title="Accounts",
            lead=lead,
            blocks=(table, frontier),
            shows="both",
        )


COVERAGE = core.Real(0.5, 1.0, open_high=True)


@core.record_making
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
    """Answer :meth:`backtest.Backtest.compare_margin`, which documents it.

    Each rule is measured in three ways: how much it asks for and how it moves with the market, how
    often it covered the move of a day, and what accounts lose under it.
    """
    market, venue = read_one_market(engine.plain(conditions), "compare_margin")
    COVERAGE.check("coverage", coverage)
    core.Whole(1).check("accounts", accounts)
    core.Whole(0).check("paths", paths)
    core.Whole(0).check("seed", seed)
    chosen = read_rules(rules)

    # The margin that each rule asks for, as a share of the notional: by day, and by bar.
    days = by_rule.read_days(market)
    levels = {}
    for name, rule in chosen.items():
        levels[name] = measure_levels(rule, days, market.time, venue)

    # The days on which every rule is known, and those after which all have warmed up. From the
    # first bar after these, all rules are in force.
    unknown = [np.isnan(of_rule.daily) for of_rule in levels.values()]
    is_known = ~np.any(unknown, axis=0)
    warm_up = max(map(count_warm_up, chosen.values()))
    is_warm = find_warm(is_known, warm_up, market)
    first_warm = days.time[is_warm][0]
    first_bar = int(np.searchsorted(market.time, first_warm))

    # All rules are compared on the same paths and the same accounts.
    future = None
    if paths:
        future = simulate_paths(
            market,
            model,
            paths=paths,
            horizon=horizon,
            seed=seed,
        )
    drawn = draw_accounts(accounts, market.n_bars, seed)
    closes = market.mark_close[days.rows][is_known]

    rows: list[dict[str, Any]] = []
    covered: list[dict[str, Any]] = []
    lost: list[dict[str, Any]] = []
    for n_done, (name, rule) in enumerate(chosen.items(), 1):
        level = levels[name]
        inner = find_inner(rule)

        # How much it asks for, and what a buffer around another rule costs more than that rule.
        level_of_inner = measure_levels(inner, days, market.time, venue)
        mean_of_inner = float(np.mean(level_of_inner.by_bar[first_bar:]))
        measures = measure_procyclicality(level.daily[is_warm], level.by_bar[first_bar:])
        cost = measures["mean"] / mean_of_inner - 1.0
        rows.append({"rule": name, **measures, "cost": cost})

        # How often it covered a move. The brackets of the venue, None, promise no coverage.
        if rule is not None:
            period, share = find_promise(rule, inner, coverage)
            of_sides = measure_coverage(level.daily[is_known], closes, period, share)
            covered += [{"rule": name, **row} for row in of_sides]

        # What accounts lose under it.
        prices = read_prices(market)
        outcome = simulate_accounts(prices, level.by_bar[:, None], venue, drawn)
        lost.append({"rule": name, "where": "history", **outcome})
        if future is not None:
            outcome = run_on_paths(rule, market, future, venue, seed)
            lost.append({"rule": name, "where": "paths", **outcome})
        core.report_progress(progress, n_done, len(chosen))

    settings: dict[str, Any] = {
        "rules": write_rules(chosen),
        "venue": results.describe_venue(venue),
        "coverage": coverage,
        "accounts": accounts,
    }
    if future is not None:
        settings["paths"] = future.describe()

    level_table = pd.DataFrame(
        {name: of_rule.daily[is_known] for name, of_rule in levels.items()},
        index=core.utc_index(days.time[is_known]),
    )
    return MarginComparison(
        table=pd.DataFrame(rows).set_index("rule"),
        coverage=pd.DataFrame(covered, columns=COVERED).set_index(["rule", "side"]),
        accounts=pd.DataFrame(lost).set_index(["rule", "where"]),
        levels=level_table,
        settings=settings,
        market=market,
    )


def read_rules(rules: Mapping[str, Any]) -> dict[str, DynamicMargin | None]:
    """Return margin rules by name, checked; None is the venue's own table."""
    if not rules:
        raise core.ParameterError("rules must be a table of margin rules by name, got none")

    chosen: dict[str, DynamicMargin | None] = {}
    for name, rule in rules.items():
        chosen[str(name)] = None
        if rule is not None:
            chosen[str(name)] = by_rule.Rule().check(f"rules.{name}", rule)

    return chosen


def write_rules(rules: Mapping[str, DynamicMargin | None]) -> dict[str, str | None]:
    """Return rules as text, None of the venue's own table."""
    texts: dict[str, str | None] = {}
    for name, rule in rules.items():
        texts[name] = None
        if rule is not None:
            texts[name] = repr(rule)
    return texts


def find_warm(
    known: core.BoolArray,
    warm_up: int,
    market: Market,
) -> core.BoolArray:
    """Return the days after so many known ones; two are needed."""
    is_warm = known & (np.cumsum(known) > warm_up)
    if np.count_nonzero(is_warm) < 2:
        raise core.DataError(
            f"compare_margin needs two days on which every rule is known, {warm_up} days after "
            f"the first, got {market.n_bars:,} bars of {core.format_duration(market.interval)}"
        )
    return np.asarray(is_warm)


def find_inner(rule: DynamicMargin | None) -> Any:
    """Return what a rule wraps, with the limits of the outermost: what a wrapper costs."""
    if rule is None:
        return None
    _, unwrapped = list_rules(rule)[-1]
    innermost: Any = unwrapped
    return innermost.override(floor=rule.floor, cap=rule.cap, notice=rule.notice)


def find_promise(
    rule: DynamicMargin,
    inner: Any,
    coverage: float,
) -> tuple[int, float]:
    """Return the days that a margin is meant for, and the share of losses that it covers."""
    if rule.is_of_volatility:
        return max(math.ceil(inner.days), 1), float(inner.quantile)
    return 1, coverage


def run_on_paths(
    rule: DynamicMargin | None,
    market: Market,
    paths: Paths,
    venue: Venue,
    seed: int,
) -> dict[str, float]:
    """Return what becomes of an account on each path, all new at its first bar."""
    days, bars = join_paths(market, paths, 0, paths.count)
    in_force = measure_levels(rule, days, bars.time, venue).by_bar
    drawn = draw_accounts(paths.count, len(bars.time), seed, is_new=True)
    return simulate_accounts(bars, in_force, venue, drawn)
