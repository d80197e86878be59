"""liquidation_risk(): the events of an account on simulated paths, and their table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core, results
from backtest.core import Progress
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY, YEAR_DAYS
from backtest.engine import Conditions
from backtest.market import label_names
from backtest.policies import Policy
from backtest.results import Result
from backtest.results.settings_result import SettingsResult
from backtest.risk.funding_process import summarize_funding
from backtest.risk.past_starts import CALM, PAST, PastStarts, describe_apart
from backtest.risk.path_drift import describe_drift
from backtest.risk.path_runner import PathLives, PathsRunner
from backtest.risk.paths import Paths
from backtest.risk.scores import ALL, estimate, show_scores, write_score

USUAL = ("1d", "7d", "30d")
SHOWN = 2000
"""Paths whose equity is kept bar by bar, for the fan."""


def read_horizons(paths: Paths, horizons: Sequence[str] | None) -> dict[str, int]:
    """Return the bars of a path that have closed by each horizon."""
    time = paths.calendar.time
    if isinstance(horizons, str):
        horizons = [horizons]
    if horizons is None:
        horizons = list_usual_horizons(paths)

    bars = {}
    for name in horizons:
        span = core.parse_duration(name, "horizons")
        bars[name] = int(np.sum(time[1:] <= time[0] + span))
        if span > paths.horizon or bars[name] < 1:
            raise core.ParameterError(
                "horizons must lie between a bar and the length of the paths, "
                f"{core.format_duration(paths.horizon)}, got {name}"
            )
    return bars


def list_usual_horizons(paths: Paths) -> list[str]:
    """Return the length of the paths, and the usual horizons that a bar fits into, by length."""
    time = paths.calendar.time
    first_bar = int(time[1] - time[0])

    spans = {}
    for name in (core.format_duration(paths.horizon), *USUAL):
        span = core.parse_duration(name)
        if first_bar <= span <= paths.horizon:
            spans[span] = name

    return [name for _, name in sorted(spans.items())]


class PathEvents(NamedTuple):
    """Events of paths, and what is left at the horizons.

    ``firsts`` are the bars of the first event of each kind of ``EVENTS``, (n_paths,), the number of
    bars where there is none; ``wealth`` and ``bad_debt`` (n_horizons, n_paths) are those at the
    horizons, ``shown`` (up to 2000, n_bars) the wealth of the first paths, and ``doomed`` (2,
    n_bars) mean close (relative) and wealth of liquidated paths, None without any.
    """

    firsts: dict[str, core.IntArray]
    wealth: core.FloatArray
    bad_debt: core.FloatArray
    shown: core.FloatArray
    doomed: core.FloatArray | None


def find_first(values: core.FloatArray) -> core.IntArray:
    """Return the bar of the first value of each path that is not 0, or the number of bars."""
    is_set = values != 0.0
    first = is_set.argmax(axis=1)
    n_bars = values.shape[1]
    return np.asarray(np.where(is_set.any(axis=1), first, n_bars))


def reduce_lives(
    lives: Iterable[PathLives],
    bars: Sequence[int],
    last: core.FloatArray,
    ended: core.IntArray,
    find_left: Callable[[core.FloatArray], core.FloatArray],
) -> PathEvents:
    """Return what happened to accounts on paths, from the blocks in which these are simulated.

    ``bars`` is the number of bars of each horizon, ``last`` the last closes of history by
    instrument, and ``ended`` (n_paths,) the number of bars before the venue defaults on each path.
    ``find_left`` returns the wealth that a default leaves of that before it. Blocks are read one
    after the other, and none is kept.
    """
    at_horizon = np.array(bars) - 1
    firsts: dict[str, list[core.IntArray]] = {kind: [] for kind in EVENTS}
    wealths = []
    debts = []
    shown = []

    # By bar, sums over the paths that are liquidated: of prices, and of wealth.
    doomed = np.zeros((2, 1))
    n_doomed = 0
    for block in lives:
        # Arrays of a block are (n_paths, n_bars).
        n_paths, n_bars = block.wealth.shape
        ends = ended[block.first : block.first + n_paths]
        wealth, is_over = end_by_default(block.wealth, ends, find_left)

        # The first bar of each event. Nothing happens to an account after the default.
        liquidations = np.where(is_over, 0.0, block.liquidations)
        ruins = np.where(is_over, 0.0, block.is_ruined)
        calls = np.where(is_over, 0.0, block.calls)
        first_liquidation = find_first(liquidations)
        firsts["p_liquidation"].append(first_liquidation)
        firsts["p_ruin"].append(find_first(ruins))
        firsts["p_margin_call"].append(find_first(calls))
        firsts["p_default"].append(ends)

        # What there is at each horizon, (n_horizons, n_paths), and some paths as a whole.
        debt = np.cumsum(np.where(is_over, 0.0, block.bad_debt), axis=1)
        wealths.append(wealth[:, at_horizon].T)
        debts.append(debt[:, at_horizon].T)
        if block.first < SHOWN:
            shown.append(wealth[: SHOWN - block.first])

        # Prices over those of today, as the mean of all instruments.
        is_doomed = first_liquidation < n_bars
        relative_closes = block.closes[:, is_doomed] / last[:, None, None]
        price = np.mean(relative_closes, axis=0)
        sums = [np.sum(price, axis=0), np.sum(wealth[is_doomed], axis=0)]
        doomed = doomed + np.array(sums)
        n_doomed += int(np.sum(is_doomed))

    return PathEvents(
        firsts={kind: np.concatenate(blocks) for kind, blocks in firsts.items()},
        wealth=np.concatenate(wealths, axis=1),
        bad_debt=np.concatenate(debts, axis=1),
        shown=np.concatenate(shown),
        doomed=doomed / n_doomed if n_doomed else None,
    )


def end_by_default(
    wealth: core.FloatArray,
    ends: core.IntArray,
    find_left: Callable[[core.FloatArray], core.FloatArray],
) -> tuple[core.FloatArray, core.BoolArray]:
    """Return the wealth of paths after defaults of the venue, and whether a bar is after one.

    Both have the shape of ``wealth``, (n_paths, n_bars). A path ends in the bar of ``ends``
    (n_paths,), and what is left of its wealth there stays to the end.
    """
    n, n_bars = wealth.shape
    is_over = np.arange(n_bars) >= ends[:, None]
    at_default = wealth[np.arange(n), np.minimum(ends, n_bars - 1)]
    left = find_left(at_default)
    return np.where(is_over, left[:, None], wealth), is_over


DEFAULTS = 7
"""Which random numbers of a path its default draws."""


def draw_defaults(
    rate: float,
    paths: Paths,
    times: core.FloatArray,
) -> core.IntArray:
    """Return the bar of each path in which the venue defaults, or the number of bars.

    It does at an exponential time; ``times`` (n_bars,) are the years from the start to each close.
    """
    if rate == 0.0:
        return np.full(paths.count, len(times))

    draws = []
    for k in range(paths.count):
        rng = np.random.default_rng([paths.seed, DEFAULTS, k])
        draws.append(rng.exponential())
    return np.searchsorted(times, np.array(draws) / rate)


EVENTS = {
    "p_liquidation": "liquidation", "p_ruin": "ruin", "p_margin_call": "margin call",
    "p_default": "default of the venue",
}  # fmt: skip
LOSSES = [name for name in EVENTS if name != "p_margin_call"]
"""What loses the account."""
BY_MODEL = "model_probability"
QUANTILES = {"equity_05": 0.05, "equity_50": 0.5, "equity_95": 0.95}
FAN = {f"equity_{each:02d}": each / 100 for each in (5, 25, 50, 75, 95)}


def name_interval(kind: str) -> tuple[str, str]:
    """Return the columns of the ends of a probability's interval."""
    return f"{kind}_simulation_low", f"{kind}_simulation_high"


def describe_share(
    kind: str,
    hits: float,
    n: int,
    confidence: float = 0.95,
) -> dict[str, float]:
    """Return the columns of a probability: the share of hits, and the ends of its interval."""
    share, low, high = estimate(hits, n, confidence)
    name_low, name_high = name_interval(kind)
    return {kind: share, name_low: low, name_high: high}


def describe_horizon(
    events: PathEvents,
    k: int,
    bars: int,
    days: core.FloatArray,
    confidence: float,
) -> dict[str, Any]:
    """Return the row of horizon k, of so many bars: what the paths say of it.

    ``days`` (n_bars,) are those from the start to each close. ``probability``, which may be that of
    history, is NaN: the caller fills it in.
    """
    # The share of paths with each event before the horizon, and with any loss. ``firsts`` are the
    # bars of the first events, after the last bar where there is none.
    first_loss = np.minimum.reduce([events.firsts[kind] for kind in LOSSES])
    row: dict[str, Any] = {"probability": math.nan}
    for kind, first in {BY_MODEL: first_loss, **events.firsts}.items():
        n_paths = len(first)
        n_hit = int(np.sum(first < bars))
        row |= describe_share(kind, n_hit, n_paths, confidence)

    # What is left at the horizon.
    row["bad_debt"] = float(np.mean(events.bad_debt[k]))
    for name, quantile in QUANTILES.items():
        row[name] = float(np.quantile(events.wealth[k], quantile))

    liquidation = events.firsts["p_liquidation"]
    liquidated = liquidation[liquidation < bars]
    row["days_to_liquidation"] = math.nan
    if liquidated.size:
        row["days_to_liquidation"] = float(np.median(days[liquidated]))
    return row


def choose_probability(
    row: Mapping[str, float],
    default: float,
    *,
    is_calm: bool,
) -> float:
    """Return the probability of losing the account: of the model, in calm at least history's.

    ``default`` is the probability that the venue defaults, which history does not have.
    """
    by_model = row[BY_MODEL]
    past = row["history"]
    if not is_calm or math.isnan(past):
        return by_model
    return max(by_model, 1.0 - (1.0 - past) * (1.0 - default))


PAST_HEADS = {
    "history": Head("lost", "share of starts", "percent"),
    "history_starts": Head("starts", "daily", "count"),
    "history_apart": Head("starts apart", "no common bar", "count"),
    "history_high": Head("at most", "by starts apart, 95 %", "chance"),
    "history_worst_year": Head("worst year", "365 days", "percent"),
}
MONEY = "settlement currency"
WEALTH = {
    "equity_05": Head("5 % quantile", MONEY, "money"),
    "equity_50": Head("median", MONEY, "money"),
    "equity_95": Head("95 % quantile", MONEY, "money"),
    "bad_debt": Head("expected bad debt", MONEY, "money"),
    "days_to_liquidation": Head("median time to a liquidation", "days"),
}


@dataclass(frozen=True, eq=False, repr=False)
class LiquidationRisk(SettingsResult):
    """Risk of losing an account on many paths.

    Attributes
    ----------
    table : DataFrame
        A row per horizon: ``probability`` of losing the account by any cause, by liquidation, ruin
        or a default of the venue; ``model_probability``, the share of the paths; its parts
        ``p_liquidation``, ``p_ruin`` and ``p_default`` (with a ``default_rate`` only), and
        ``p_margin_call`` (NaN without margin calls). Shares of paths have ``_simulation_low`` and
        ``_simulation_high``, the ends of their interval, which counts paths and nothing else.
        ``history`` is the share lost of the accounts that began anew at each day's first open of
        the data, of ``history_starts``; of them ``history_apart`` have no bar in common,
        ``history_high`` is the largest probability that these leave possible (one-sided 95 %), and
        ``history_worst_year`` the largest share of 365 days of starts (all NaN with less than a
        year of data). ``bad_debt`` is the expected loss of the venue; ``equity_05``,
        ``equity_50``, ``equity_95``, quantiles of wealth at the horizon; ``days_to_liquidation``,
        the median over the liquidated paths.
    fan, hazard : DataFrame
        Quantiles of wealth by time, of the first 2,000 paths; and by day the paths liquidated in it
        for the first time, over those not liquidated before.
    scores, intervals, forecasts : DataFrame, optional
        With ``score``: how good such forecasts were at past dates, by ``forecast`` and ``days``
        (all, calm, other); how often intervals held, of mean funding and of a value at risk; and
        each dated forecast. ``recalibrated`` is what the record makes of today's.
    settings : dict
        What the numbers come from.
    paths : Paths
        The paths that the account was taken through.
    """

    table: pd.DataFrame
    fan: pd.DataFrame
    hazard: pd.DataFrame
    typical: pd.DataFrame | None
    scores: pd.DataFrame | None = None
    intervals: pd.DataFrame | None = None
    forecasts: pd.DataFrame | None = None
    paths: Paths | None = None
    runner: PathsRunner | None = None

    kind = "liquidation-risk"
    called = "risk"
    long_tables = ("fan", "hazard", "typical", "forecasts")

    @property
    def note(self) -> str:
        if self.settings.get("no_fill"):
            return "no order was filled"
        chance = core.format_chance(self.table["probability"].iloc[-1])
        return f"{chance} lost in {self.table.index[-1]}"

    def find_past(self, horizon: str) -> PastStarts:
        """Return what became of the accounts that were new on each day of history."""
        if self.runner is None:
            raise core.ParameterError(
                "a risk loaded from files cannot be replayed; Backtest.liquidation_risk makes it "
                "again"
            )
        return self.runner.find_past(read_horizons(self.runner.paths, horizon)[horizon])

    def path(self) -> pd.DataFrame:
        """Return the mean of the paths that are liquidated, by time.

        ``price`` is the close over the last one of history, ``equity`` the wealth.
        """
        if self.typical is None:
            raise core.ParameterError("there is no typical path: no path was liquidated")
        return self.typical

    @core.checked
    def run(self, i: int) -> Result:
        """Return the full result of path i, the same bits as in the risk."""
        if self.runner is None:
            raise core.ParameterError(
                "a risk loaded from files has no paths to run; Backtest.liquidation_risk makes it "
                "again"
            )
        count = self.runner.paths.count
        core.Range(-count, count - 1).check("i", i, whole=True)
        return self.runner.run_path(i)

    @property
    def verdict(self) -> str:
        row = self.table.iloc[-1]
        horizon = self.table.index[-1]
        chance = core.format_chance(row["probability"])
        median = core.format_money(row["equity_50"])
        twentieth = core.format_money(row["equity_05"])
        text = (
            f"Half of the accounts have less than {median} after {horizon}, one in twenty less "
            f"than {twentieth}. The account is lost within {horizon} with a probability of {chance}"
        )

        if row["probability"] > row[BY_MODEL]:
            by_model = core.format_chance(row[BY_MODEL])
            return f"{text}, history's frequency, as the market is calm (the model: {by_model})."
        return f"{text}: {self._write_causes(row)}; history: {write_past(row)}."

    def _write_causes(self, row: Any) -> str:
        """Write the parts of the model's probability; history's has no parts."""
        kinds = [kind for kind in LOSSES if kind in row]
        return ", ".join(f"{EVENTS[kind]} {core.format_chance(row[kind])}" for kind in kinds)

    @property
    def details(self) -> str:
        sentences = [self._describe_paths()]

        n_paths = self.settings["paths"]["paths"]
        unseen = self.table.index[self.table[BY_MODEL] == 0.0]
        if len(unseen):
            sentences.append(
                f"No path lost the account within {unseen[-1]}: {n_paths:,} paths show nothing "
                f"under {core.format_chance(3.0 / n_paths)}."
            )

        calm = {name: ratio for name, ratio in self.settings["calm"].items() if ratio < CALM}
        if calm:
            sentences.append(self._describe_calm(calm))

        scored = self.list_scored()
        if scored:
            sentences.append(f"At past dates, {'; '.join(scored)}.")
        return " ".join(sentences)

    def _describe_paths(self) -> str:
        drawn = self.settings["paths"]
        model = drawn["model"]["name"]
        return f"{drawn['paths']:,} paths of the model {model}, {describe_drift(drawn)}."

    def _describe_calm(self, calm: Mapping[str, float]) -> str:
        """Say which markets are calm, by their volatility over the last year's, and what counts."""
        names = label_names(calm)
        ratios = ", ".join(f"{names[name]} {ratio:.2f}".strip() for name, ratio in calm.items())

        rule = "the larger of the model's and history's probability counts"
        if self.settings["resumed"] is not None:
            rule = "history knows no account that goes on, so expect more than the model's"
        return f"The market is calm, with a volatility of {ratios} of the last year's: {rule}."

    def list_scored(self) -> list[str]:
        """Return what was told at past dates and what came, a clause for each forecast."""
        if self.scores is None:
            return []
        whole = self.scores[self.scores["days"] == ALL]
        return [write_score(str(name), row) for name, row in whole.iterrows()]

    @property
    def _sure(self) -> str:
        return f"{100.0 * self.settings['confidence']:g} %"

    @property
    def heading(self) -> str:
        return f"Risk of liquidation: {self.title}"

    @property
    def notices(self) -> tuple[str, ...]:
        no_fill = self.settings.get("no_fill")
        if not no_fill:
            return ()
        return (f"No order was filled on any path: {no_fill}.",)

    def list_numbers(self) -> list[Headline]:
        last = self.table.iloc[-1]
        horizon = self.table.index[-1]
        numbers = [
            Headline(
                "equity_50",
                f"half have less after {horizon}",
                float(last["equity_50"]),
                "money",
                "the median account",
                is_large=True,
            ),
            Headline(
                "equity_05",
                f"one in twenty has less after {horizon}",
                float(last["equity_05"]),
                "money",
                "the worst twentieth",
                is_large=True,
            ),
        ]
        for name, row in self.table.iterrows():
            number = Headline(
                f"probability_{name}",
                f"lost within {name}",
                float(row["probability"]),
                "chance",
                self._write_note(row),
                is_large=name == horizon,
            )
            numbers.append(number)
        return numbers

    def _write_note(self, row: Any) -> str:
        causes = self._write_causes(row)
        if row["probability"] > row[BY_MODEL]:
            causes = f"history's frequency; the model: {causes}"
        if math.isnan(row["history"]):
            return f"{causes}; history: too short"

        apart = int(row["history_apart"])
        hits = round(row["history"] * row["history_apart"])
        clauses = [
            f"{causes}; history: {write_past(row)}",
            describe_apart(hits, apart, row["history_high"]),
            f"worst year {core.format_percent(row['history_worst_year'])}",
        ]
        if not self.settings["history_has_marks"]:
            clauses.append("last prices")
        return ", ".join(clauses)

    def list_parts(self) -> list[Part]:
        return [self._show_horizons(), self._show_way(), self._show_hazard(), *self.show_scores()]

    def _show_horizons(self) -> Part:
        labels = Head("horizon")
        heads = {
            "probability": Head("any cause", "", "chance"),
            BY_MODEL: Head("any, by model", "", "chance"),
        }
        low, high = name_interval(BY_MODEL)
        ranges = {low: Head("any cause", "", "chance", high)}
        for kind in (*LOSSES, "p_margin_call"):
            if kind not in self.table or self.table[kind].isna().all():
                continue
            low, high = name_interval(kind)
            heads[kind] = Head(EVENTS[kind], "", "chance")
            ranges[low] = Head(EVENTS[kind], "", "chance", high)

        shown: list[Any] = [
            ShownTable(
                self.table,
                "Probability of losing the account, and of its causes",
                labels=labels,
                heads=heads,
                columns=tuple(heads),
            )
        ]
        if self.table["history"].notna().any():
            shown.append(
                ShownTable(
                    self.table,
                    "What history did",
                    labels=labels,
                    heads=PAST_HEADS,
                    columns=PAST,
                )
            )
        shown.append(
            ShownTable(
                self.table,
                f"{self._sure} intervals of the simulation",
                labels=labels,
                heads=ranges,
                columns=tuple(ranges),
            )
        )
        shown.append(
            ShownTable(
                self.table,
                "Wealth at the horizon",
                labels=labels,
                heads=WEALTH,
                columns=tuple(WEALTH),
            )
        )
        shown.extend(summarize_funding(self.settings["paths"].get("funding_fit", {})))
        return Part(
            key="horizons",
            title="By horizon",
            lead="From the last close of the data on.",
            blocks=tuple(shown),
            shows="both",
        )

    def _show_way(self) -> Part:
        wealth = ShownChart(
            key="fan",
            title="Wealth",
            caption="Quantiles of the accounts at each close: nine in ten lie in the outer band, "
            "half of them in the inner one.",
            table=self.fan.rename(columns=name_quantile),
            kind="fan",
            has_legend=True,
            height=320,
        )
        typical = ShownChart(
            key="typical",
            title="The typical path to liquidation",
            caption="Mean price, over the last close, of the liquidated paths.",
            table=None if self.typical is None else self.typical["price"],
            colors={"price": "loss"},
            height=260,
        )
        return Part(
            key="paths",
            title="What happens on the way",
            lead="Wealth by time.",
            blocks=(wealth, typical),
        )

    def _show_hazard(self) -> Part:
        chart = ShownChart(
            key="hazard",
            title="Hazard",
            caption="Share of the accounts not liquidated before that is liquidated in each day.",
            table=self.hazard["hazard"],
            kind="bars",
            colors={"hazard": "loss"},
            x="day",
            height=240,
        )
        return Part(
            key="hazard",
            title="Hazard by day",
            lead="First liquidations, of those not liquidated before.",
            blocks=(chart,),
        )

    def show_scores(self) -> list[Part]:
        """Return the section on the scores, if there are any."""
        if self.scores is None or self.intervals is None:
            return []
        return [show_scores(self.scores, self.intervals)]


def name_quantile(column: str) -> str:
    share = str(column).removeprefix("equity_").lstrip("0")
    return "the median" if share == "50" else f"{share} %"


def write_past(row: Any) -> str:
    if math.isnan(row["history"]):
        return "too short"
    return f"{core.format_percent(row['history'])} of {row['history_starts']:,.0f} starts"


class RiskTerms(NamedTuple):
    """What is asked of a risk.

    ``horizons`` are durations, None for the usual ones; ``confidence`` is that of intervals. The
    venue defaults ``default_rate`` times a year, and then pays back the share ``recovery``.
    """

    horizons: Sequence[str] | None = None
    confidence: float = 0.95
    default_rate: float = 0.0
    recovery: float = 0.0


def tabulate_horizons(
    runner: PathsRunner,
    events: PathEvents,
    past: PastStarts,
    *,
    terms: RiskTerms,
    bars: Mapping[str, int],
    days: core.FloatArray,
    is_calm: bool,
) -> pd.DataFrame:
    """Return the table of a risk: a row per horizon of ``bars``, by name.

    ``days`` (n_bars,) are those from the start to each close. ``is_calm`` says that the account
    begins at a volatility which is low for the year.
    """
    rows = []
    for k, (name, n_bars) in enumerate(bars.items()):
        row = describe_horizon(events, k, n_bars, days, terms.confidence)
        row |= past.summarize(n_bars, core.parse_duration(name))

        # The venue defaults at a constant rate.
        years = float(days[n_bars - 1]) / YEAR_DAYS
        p_default = 1.0 - math.exp(-terms.default_rate * years)
        row["probability"] = choose_probability(row, p_default, is_calm=is_calm)
        rows.append(row)

    table = pd.DataFrame(rows, index=pd.Index(bars, name="horizon"))
    if runner.account.margin_call is None:
        table[["p_margin_call", *name_interval("p_margin_call")]] = math.nan
    if not terms.default_rate:
        table = table.drop(columns=["p_default", *name_interval("p_default")])
    return table


def measure_risk(
    runner: PathsRunner,
    terms: RiskTerms,
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> LiquidationRisk:
    """Return the risk of an account on paths; :func:`liquidation_risk` checks the terms."""
    bars = read_horizons(runner.paths, terms.horizons)
    runner = add_bridges(runner)
    paths = runner.paths

    # The closes of the bars of the paths: their times, and the days since today.
    later = paths.time[1:]
    days = np.diff(paths.calendar.time).cumsum() / DAY

    def find_left(wealth: core.FloatArray) -> core.FloatArray:
        """Return what is left of wealth after a default: the reserve, which is not at the venue."""
        kept = np.minimum(wealth, runner.account.reserve)
        return np.asarray(kept + terms.recovery * (wealth - kept))

    # All paths, block by block, until the venue defaults.
    lives = runner.run_chunks(threads=threads, progress=progress)
    last = np.array([market.close[-1] for market in paths.markets.values()])
    ended = draw_defaults(terms.default_rate, paths, days / YEAR_DAYS)
    events = reduce_lives(lives, [*bars.values()], last, ended, find_left)
    no_fill = explain_no_fill(runner, events)

    # History beside them: the same account, begun at past days. Where the volatility now is low for
    # the year, the model begins from it and history says more.
    past = runner.find_past(max(bars.values()), least=min(bars.values()))
    calm = runner.measure_calm()
    is_calm = runner.resume is None and any(ratio < CALM for ratio in calm.values())

    # A row per horizon.
    table = tabulate_horizons(
        runner,
        events,
        past,
        terms=terms,
        bars=bars,
        days=days,
        is_calm=is_calm,
    )

    settings = describe_terms(runner.policy, runner.test) | {
        "resumed": None if runner.resume is None else runner.resume.manifest["id"],
        "signal": runner.signal,
        "no_fill": no_fill,
        "confidence": terms.confidence,
        "history_has_marks": past.has_marks,
        "calm": calm,
    }
    if terms.default_rate:
        settings |= {"default_rate": terms.default_rate, "recovery": terms.recovery}
    settings["paths"] = paths.describe()

    # The mean way of the paths that are liquidated, and the quantiles of all.
    typical = None
    if events.doomed is not None:
        typical = pd.DataFrame(events.doomed.T, later, ["price", "equity"])
    quantiles = np.quantile(events.shown, [*FAN.values()], axis=0).T
    return LiquidationRisk(
        table=table,
        fan=pd.DataFrame(quantiles, later, [*FAN]),
        hazard=measure_hazard(events.firsts["p_liquidation"], days),
        typical=typical,
        settings=settings,
        paths=paths,
        runner=runner,
        market=paths.history,
    )


def add_bridges(runner: PathsRunner) -> PathsRunner:
    """Return a runner whose paths have extremes inside bars, if columns may be made of them."""
    paths = runner.paths
    has_columns = any(observed.columns for observed in runner.setup.observed)
    if paths.bridge > 1 or paths.is_resampled or not has_columns:
        return runner
    return replace(runner, paths=replace(paths, bridge=4))


def explain_no_fill(runner: PathsRunner, events: PathEvents) -> str:
    """Return why no order was filled on any path, and warn of it; nothing if some may have been."""
    for values in (events.wealth, events.shown.T):
        if (values != values[:, :1]).any():
            return ""

    no_fill = replace(runner, compile=False).run_path(0).no_fill
    if no_fill:
        core.warn_caller(
            f"no order was filled on any of {runner.paths.count:,} paths, so nothing can be "
            f"liquidated: {no_fill}",
            core.NoFillWarning,
        )
    return no_fill


def measure_hazard(firsts: core.IntArray, days: core.FloatArray) -> pd.DataFrame:
    """Return by day the paths liquidated first in it, of those not liquidated before.

    ``firsts`` are the bars of the first liquidations, ``days`` those from the start to each close.
    """
    # Days from 1 on. A close at midnight is of the day before, also where rounding puts it later.
    day = np.ceil(days - 1e-9).astype(np.int64)
    n_days = int(day[-1])

    # A path without a liquidation has a bar after the last one.
    bars = firsts[firsts < len(day)]
    counts = np.bincount(day[bars] - 1, minlength=n_days)
    liquidated_so_far = np.cumsum(counts)
    liquidated_before = np.concatenate([[0], liquidated_so_far[:-1]])
    at_risk = len(firsts) - liquidated_before

    columns = {
        "at_risk": at_risk,
        "liquidated": counts,
        "hazard": counts / np.maximum(at_risk, 1),
    }
    return pd.DataFrame(columns, index=pd.RangeIndex(1, len(counts) + 1, name="day"))


def describe_terms(policy: object, test: Conditions) -> dict[str, Any]:
    """Return the policy, its code, venue, account and overlay of a risk, as settings have them."""
    text = str(policy)
    source_hash = ""
    if isinstance(policy, Policy):
        source_hash = results.hash_source(type(policy))
    if isinstance(policy, Mapping) and policy:
        text = ", ".join(f"{name}: {single!r}" for name, single in policy.items())
    venue: Any = test.venue
    return {
        "policy": text,
        "source_hash": source_hash,
        "venue": results.describe_venue(venue),
        "account": test.account.to_dict(),
        "overlay": None if test.overlay is None else repr(test.overlay),
    }
