"""calibrate_margin(): the least parameter of a margin rule with shortfalls on few paths."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core, engine, results
from backtest.core import FloatArray, IntArray, Progress
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.engine import Conditions
from backtest.market import Market
from backtest.results.settings_result import SettingsResult
from backtest.risk import scores as sc
from backtest.risk.margin_levels import (
    Prices,
    join_paths,
    list_rules,
    measure_levels,
    read_one_market,
    read_prices,
)
from backtest.risk.past_starts import CALM, measure_calm
from backtest.risk.paths import Paths, simulate_paths
from backtest.risk.replays import cut_past
from backtest.risk.scenarios import crashes
from backtest.venue import Venue
from backtest.venue import margin_rules as by_rule
from backtest.venue.margin_rules import DailyCloses, DynamicMargin

CHUNK = 2000
"""Paths that are calibrated together."""
STEPS = 40
"""Bisections, to 1e-12 of the range."""
GRID = 9
"""Values at which monotonicity is checked."""
PER_TAIL = 20
"""Paths for each one with a shortfall that may be left."""
SHORTFALL = core.Real(0.0, 0.5, open_low=True)


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
    called = "margin calibration"
    call = "Backtest.calibrate_margin"

    @property
    def name(self) -> str:
        """The parameter."""
        return str(self.settings["parameter"])

    @property
    def details(self) -> str:
        return " ".join(self._explain())

    def _explain(self) -> Iterator[str]:
        """Yield what a shortfall is, and what is known of this one, in sentences."""
        yield (
            "A constant position, long and short, opened at any day's close of a path: at no mark "
            "inside the days of the rule may its loss be over the margin at that close."
        )
        told = core.format_percent(self.settings["shortfall"])
        yield f"At most {told} of the paths, and of history's windows, may have a shortfall."

        past = self.settings["history"]
        if past is None:
            yield "History is too short for windows of this length."
        else:
            yield f"History has {past['windows']:,} windows of this length, from every day."

        if not math.isfinite(self.value) and not self.name.endswith("days"):
            yield 'A margin grows without a bound with days: solve="days" finds those.'
        if self.settings["unknown_days"]:
            share = core.format_percent(self.settings["unknown_days"])
            yield f"The margin is not known on {share} of these days, which are left out."
        if self.scores is not None:
            (row,) = self.scores[self.scores["days"] == sc.ALL].to_dict("records")
            yield f"Held at past dates, {sc.write_score('a shortfall', row)}."

    @property
    def note(self) -> str:
        return f"{self.name} {format_parameter(self.value)}"

    @property
    def verdict(self) -> str:
        nearest = self.settings["nearest"]
        past = self.settings["history"]
        where = f"on {core.format_percent(nearest['paths'])} of the paths"
        if past is not None:
            where += f" and {core.format_percent(past['share'])} of history's windows"

        if math.isfinite(self.value):
            return f"{self.name} {format_parameter(self.value)} leaves a shortfall {where}."
        told = core.format_percent(self.settings["shortfall"])
        return (
            f"No {self.name} leaves a shortfall on at most {told}; the nearest, "
            f"{nearest['value']:.5g}, leaves one {where}."
        )

    def list_numbers(self) -> list[Headline]:
        unit = self.settings["unit"]
        interval = ""
        if math.isfinite(self.value):
            interval = (
                f" {format_parameter(self.low)} to {format_parameter(self.high)} by the paths "
                "only, a 95 % interval"
            )
        return [
            Headline("value", self.name, self.value, "number", f"{unit}{interval}".strip(),
                     text=format_parameter(self.value)),
            Headline("reversals", "not monotone", self.reversals, "percent", "of the paths"),
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        unit = self.settings["unit"]
        heads = {
            "paths": Head("shortfall", "of the paths", "percent"),
            "history": Head("shortfall", "of history's windows", "percent"),
            "today": Head("margin today", "of notional", "percent"),
            "move": Head("move", "of the price", "signed percent"),
            "least": Head(self.name, unit),
        }

        chart = ShownChart(
            key="grid",
            title="Paths with a shortfall",
            caption="Share of the paths.",
            table=self.table["paths"],
            kind="points",
            x=f"{self.name} {unit}".strip(),
            percent="y",
            marks=(self.value,),
        )

        grid = ShownTable(self.table, labels=Head(self.name, unit), heads=heads)
        least = [format_parameter(value) for value in self.crashes["least"]]
        crash_values = self.crashes.assign(least=least)
        crashes = ShownTable(crash_values, labels=Head("crash"), heads=heads)

        lead = "The least value whose margin of today covers the move."
        parts = [
            Part(
                key="grid",
                title="By value",
                lead="",
                blocks=(chart, grid),
                shows="both",
            ),
            Part(
                key="crashes",
                title="Crashes",
                lead=lead,
                blocks=(crashes,),
                shows="both",
            ),
        ]

        if self.scores is not None:
            parts.append(sc.show_scores(self.scores))
        return parts


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
    """Return a value of a parameter as text; infinity is beyond its range."""
    if not math.isfinite(value):
        return "beyond its range"
    return f"{value:.5g}"


MOST_UNKNOWN = 0.1
"""The largest share of the days of all paths whose margin may be unknown."""
SOLVED = {"buffer": "share"}
"""Words for parameters of rules."""


@core.record_making
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
    market, venue = read_one_market(engine.plain(conditions), "calibrate_margin")
    checked = check_rule(rule)
    n_paths = count_paths(paths, SHORTFALL.check("shortfall", shortfall))
    parameter = find_parameter(checked, solve)
    ahead = simulate_paths(market, model, paths=n_paths, horizon=horizon, seed=seed)
    tries = Tries(market, venue, checked, parameter, ahead, progress)

    # The value that both the paths and history ask for; NaN of history, if too short, passes.
    ranks = find_ranks(n_paths, shortfall)
    by_paths = tries.solve_paths(ranks.expected)
    low = tries.solve_paths(ranks.most)
    high = tries.solve_paths(ranks.least)
    by_history = tries.bisect(lambda x: not tries.measure_history(x)[0] > shortfall)
    value = max(by_paths, by_history)
    nearest = value if math.isfinite(value) else tries.high

    # What stands beside it: a grid of values, the crashes, and the score of past dates.
    table, reversals = tabulate_values(tries, value)
    covered = tabulate_crashes(tries)
    held = None
    if score:
        name = f"{tries.name} {nearest:.5g}: a shortfall within {horizon}"
        held = sc.tabulate_scores({name: (tries.hold(nearest, shortfall), shortfall)})

    settings = {
        "rule": repr(checked),
        "terms": checked.to_dict(),
        "parameter": tries.name,
        "unit": find_unit(tries.name),
        "horizon": horizon,
        "shortfall": shortfall,
        **describe_shortfalls(tries, nearest),
        "venue": results.describe_venue(venue),
        "paths": ahead.describe(),
    }
    return MarginCalibration(
        value=value,
        low=low,
        high=high,
        reversals=reversals,
        table=table,
        crashes=covered,
        settings=settings,
        market=market,
        scores=None if held is None else held.scores,
        forecasts=None if held is None else held.forecasts,
    )


def check_rule(rule: Any) -> DynamicMargin:
    """Return a margin rule whose margin follows volatility; raise if it is none."""
    checked: Any = None
    if rule is not None:
        checked = by_rule.Rule().check("rule", rule)
    if checked is None or not checked.is_of_volatility:
        raise core.ParameterError(
            f"rule must be of volatility, such as bt.margin_rules.Volatility(), got {rule!r:.60}"
        )
    return checked  # type: ignore[no-any-return] # Rule reads no other


def count_paths(paths: int | None, shortfall: float) -> int:
    """Return how many paths to draw: those asked for, or the fewest that tell the shortfall."""
    fewest = math.ceil(PER_TAIL / shortfall)
    if paths is None:
        return fewest
    if paths < fewest:
        raise core.ParameterError(
            f"paths must be at least {PER_TAIL} / shortfall, {fewest:,}, got {paths:,}"
        )
    return paths


def tabulate_crashes(tries: Tries) -> pd.DataFrame:
    """Return by crash its move, and the least value whose margin of today covers it."""
    moves = {crash.name: crash.price for crash in crashes()}
    least = {name: tries.solve_move(move) for name, move in moves.items()}
    return pd.DataFrame({"move": moves, "least": least})


def describe_shortfalls(tries: Tries, nearest: float) -> dict[str, Any]:
    """Return the shortfalls that a value leaves: on the paths, and in history if it is long enough.

    ``unknown_days`` is of all values that were tried, this one too, so it is read last.
    """
    share, windows = tries.measure_history(nearest)
    history = None
    if windows:
        history = {"share": share, "windows": windows}
    is_short = tries.find_shortfalls(nearest)
    on_paths = float(np.mean(is_short))
    return {
        "nearest": {"value": nearest, "paths": on_paths},
        "history": history,
        "unknown_days": tries.unknown,
    }


def choose_grid(tries: Tries, value: float) -> core.FloatArray:
    """Return the values of a table, increasing: even, or denser about a solution between the ends.

    Of the way from an end to the solution, 1/2, 1/4, 1/8 ... are left at the values.
    """
    is_inside = tries.low < value < tries.high
    if not is_inside:
        even = np.linspace(tries.low, tries.high, GRID + 2)
        return even[1:-1]

    shares_left = 0.5 ** np.arange(1, GRID // 2 + 1)
    from_low = value - tries.low
    from_high = tries.high - value
    below = value - from_low * shares_left
    above = value + from_high * shares_left[::-1]
    return np.concatenate([below, [value], above])


def tabulate_values(tries: Tries, value: float) -> tuple[pd.DataFrame, float]:
    """Return what values on a grid leave uncovered, and the share of paths with a reversal.

    On such a path a larger value leaves a shortfall that a smaller one covers. The grid is denser
    about the solution, ``value``.
    """
    grid = choose_grid(tries, value)

    # On which paths each value leaves a shortfall, (n_values, n_paths).
    is_short = np.stack([tries.find_shortfalls(tried) for tried in grid])
    is_reversal = is_short[1:] & ~is_short[:-1]
    has_reversal = np.any(is_reversal, axis=0)

    history = []
    today = []
    for tried in grid:
        share, _ = tries.measure_history(tried)
        history.append(share)
        today.append(tries.find_margin_today(tried))
    columns = {
        "paths": is_short.mean(axis=1),
        "history": history,
        "today": today,
    }
    table = pd.DataFrame(columns, index=pd.Index(grid, name=tries.name))
    return table, float(np.mean(has_reversal))


class BoundedNumber(NamedTuple):
    """A number of a rule by its dotted name, such as ``rule.quantile``, and its range."""

    name: str
    low: float
    high: float


def find_parameter(
    rule: DynamicMargin,
    name: str,
) -> BoundedNumber:
    """Return the outermost bounded number of that name in a rule and those that it wraps.

    Raises ParameterError if there is none.
    """
    wanted = SOLVED.get(name, name)
    known = list[str]()

    for prefix, inner in list_rules(rule):
        declarations = core.find_declarations(type(inner))  # type: ignore[arg-type] # classes do hash
        for field, declared in declarations.items():
            if not isinstance(declared, core.Real | core.Range):
                continue
            if not math.isfinite(declared.high):
                continue
            known.append(field)
            if field == wanted:
                return BoundedNumber(prefix + field, declared.low, declared.high)

    raise core.ParameterError(
        f"solve must be a bounded number of the rule, one of {', '.join(dict.fromkeys(known))}, "
        f"got {name!r}"
    )


class Ranks(NamedTuple):
    """How many paths may fail: as many as expected, and the ends of a binomial 95 % interval.

    A value with the ``most`` failures is the lower end of the interval of values.
    """

    expected: int
    most: int
    least: int


def find_ranks(count: int, share: float) -> Ranks:
    """Return how many of ``count`` paths may fail, if each does with a probability of ``share``.

    Each end is on the wrong side of the true value with a probability of at most 2.5 %; the next
    order statistic towards the middle is so with more.
    """
    # The probability that at most so many fail.
    numbers = np.arange(count + 1)
    chances = core.sp.special.bdtr(numbers, count, share)
    most, least = np.searchsorted(chances, [0.975, 0.025]).tolist()
    return Ranks(
        expected=math.floor(count * share),
        most=most,
        least=max(least - 1, 0),
    )


def find_worst(
    bars: Prices,
    days: IntArray,
    period: int,
    last: float,
) -> FloatArray:
    """Return the largest move of marks within ``period`` days from each day's close, (n_days, n).

    The larger of both sides, as a fraction of the close; ``days`` (n_days,) are closes in ns,
    ``last`` is the mark before the bars. After the last closes counts what is left of the bars, and
    a close with no bar after it has a move of 0.
    """
    # The lowest and highest mark between each close and the next one, NaN without a bar.
    n_bars = len(bars.time)
    n_paths = bars.low.shape[1]
    firsts = np.searchsorted(bars.time, days)  # the first bar after each close
    lows = np.full((len(firsts), n_paths), np.nan)
    highs = np.full_like(lows, np.nan)
    ends = [*firsts.tolist(), n_bars]
    for k, (first, stop) in enumerate(itertools.pairwise(ends)):
        if first < stop:
            lows[k] = np.min(bars.low[first:stop], axis=0)
            highs[k] = np.max(bars.high[first:stop], axis=0)

    # The moves within the days from each close that has a bar after it.
    worst = np.zeros_like(lows)
    for k, first in enumerate(firsts.tolist()):
        if first >= n_bars:
            break
        close = last
        if first > 0:
            close = bars.close[first - 1]
        within = slice(k, k + period)
        low = np.nanmin(lows[within], axis=0)
        high = np.nanmax(highs[within], axis=0)
        fall = 1.0 - low / close
        rise = high / close - 1.0
        worst[k] = np.maximum(fall, rise)
    return worst


class PastDays:
    """The days of history, and the largest move of marks within the days of a rule from each."""

    def __init__(
        self,
        market: Market,
        venue: Venue,
        rule: DynamicMargin,
    ) -> None:
        self.venue = venue
        self.days = by_rule.read_days(market)
        _, rule_of_returns = list_rules(rule)[-1]
        innermost: Any = rule_of_returns
        self.period = max(math.ceil(innermost.days), 1)

        last = float(market.mark_close[-1])
        prices = read_prices(market)
        worst = find_worst(prices, self.days.time, self.period, last)
        self.worst = worst[:, 0]

    def find_over(self, rule: DynamicMargin) -> tuple[core.BoolArray, core.BoolArray]:
        """Return the days whose move is over the margin at their close, and those that know one."""
        days = self.days
        levels = measure_levels(rule, days, days.time, self.venue).daily
        return self.worst > levels, ~np.isnan(levels)


class Tries:
    """The paths on which values of a parameter are tried; every value sees the same ones.

    ``unknown`` is the largest share of their days on which a value tried has no known margin.
    """

    def __init__(
        self,
        market: Market,
        venue: Venue,
        rule: DynamicMargin,
        parameter: BoundedNumber,
        paths: Paths,
        progress: Progress | None,
    ) -> None:
        self.market = market
        self.venue = venue
        self.rule = rule
        self.name = parameter.name
        self.low = parameter.low
        self.high = parameter.high
        self.unknown = 0.0
        self.shortfalls: dict[float, core.BoolArray] = {}
        self.past = PastDays(market, venue, rule)
        self.days = self.past.days
        self.period = self.past.period

        last = float(market.mark_close[-1])
        begin = paths.calendar.time[1]
        self.parts: list[tuple[DailyCloses, FloatArray]] = []
        for first in range(0, paths.count, CHUNK):
            stop = min(first + CHUNK, paths.count)
            days, bars = join_paths(market, paths, first, stop)
            days_before = int(np.searchsorted(days.time, begin))
            closes = days.time[days_before:]
            worst = find_worst(bars, closes, self.period, last)
            self.parts.append((days, worst))
            core.report_progress(progress, stop, paths.count)

        # History as paths have it: windows of their length, from each day's close.
        self.window = len(self.parts[0][1])

    def find_shortfalls(self, value: float) -> core.BoolArray:
        """Return for each path whether a loss is over the margin before it, (n_paths,).

        Days of unknown margin are left out; over a tenth of the days of all paths is an error.
        """
        if value in self.shortfalls:
            return self.shortfalls[value]

        rule = self.rule.override({self.name: value})

        is_over = []
        unknown = 0
        total = 0
        for days, worst in self.parts:
            levels = measure_levels(rule, days, days.time, self.venue).daily
            levels = levels[-len(worst) :]  # those of the paths
            is_over.append(np.any(worst > levels, axis=0))
            unknown += int(np.isnan(levels).sum())
            total += levels.size

        if unknown > MOST_UNKNOWN * total:
            least = core.format_percent(1.0 - MOST_UNKNOWN, 0)
            known = core.format_percent(1.0 - unknown / total, 0)
            raise core.DataError(
                f"the margin must be known on {least} of the days of the paths, got {known} of "
                f"{total:,} with {rule!r:.100}; give a longer history, or a rule that needs fewer "
                "days"
            )
        self.unknown = max(self.unknown, unknown / total)
        self.shortfalls[value] = np.concatenate(is_over)
        return self.shortfalls[value]

    def hold(self, value: float, told: float) -> sc.Record:
        """Return the record of a value: on past days, whether their window had a shortfall.

        ``told`` is the probability that was forecast of it. Windows have the length of paths and no
        day in common, but for the days that the rule looks back.
        """
        rule = self.rule.override({self.name: value})
        is_over, is_known = self.past.find_over(rule)
        first_known = len(is_known)
        if is_known.any():
            first_known = int(np.argmax(is_known))
        days = sc.choose_dates(first_known, len(is_known), self.window)
        closes = self.days.time[days]
        if len(days) < sc.LEAST_DATES:
            return sc.leave_untold(closes)

        # Whether a shortfall came, and how calm the market was before.
        came = []
        is_calm = []
        for day, close in zip(days.tolist(), closes.tolist(), strict=True):
            window = is_over[day : day + self.window]
            came.append(window.any())
            is_calm.append(measure_calm(cut_past(self.market, close)) < CALM)
        return sc.Record(
            closes,
            told=np.full(len(days), told),
            came=np.array(came),
            is_calm=np.array(is_calm),
        )

    def measure_history(self, value: float) -> tuple[float, int]:
        """Return the share of history's windows with a shortfall, and how many there are."""
        rule = self.rule.override({self.name: value})
        is_over, is_known = self.past.find_over(rule)
        is_over = is_over[is_known]
        n_windows = len(is_over) - self.window + 1
        if n_windows < 1:
            return math.nan, 0

        windows = np.lib.stride_tricks.sliding_window_view(is_over, self.window)
        has_shortfall = windows.any(axis=1)
        return float(np.mean(has_shortfall)), n_windows

    def find_margin_today(self, value: float) -> float:
        """Return the margin per notional at the last close of history."""
        rule = self.rule.override({self.name: value})
        days = self.days
        levels = measure_levels(rule, days, days.time, self.venue)
        return float(levels.daily[-1])

    def solve_paths(self, rank: int) -> float:
        """Return the least value with a shortfall on at most so many paths."""

        def is_covered(value: float) -> bool:
            return int(np.sum(self.find_shortfalls(value))) <= rank

        return self.bisect(is_covered)

    def solve_move(self, move: float) -> float:
        """Return the least value whose margin of today covers a move of either sign."""

        def is_covered(value: float) -> bool:
            return self.find_margin_today(value) >= abs(move)

        return self.bisect(is_covered)

    def bisect(self, is_enough: Callable[[float], bool]) -> float:
        """Return the least value that is enough; infinity where none is."""
        low = self.low
        high = self.high
        if not is_enough(high):
            return math.inf
        if is_enough(low):
            return low

        for _ in range(STEPS):
            middle = 0.5 * (low + high)
            if is_enough(middle):
                high = middle
            else:
                low = middle
            if high - low <= 1e-6 * max(abs(high), 1e-3):
                break
        return high
