"""liquidation_risk() and max_leverage(): how likely a liquidation is, and how much it allows."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base import (
    Choice,
    FloatArray,
    Head,
    Headline,
    IntArray,
    Number,
    ParameterError,
    Part,
    Range,
    SettingsResult,
    ShownChart,
    ShownTable,
    Whole,
    checked,
    checked_only,
    count_nouns,
    format_chance,
    format_duration,
    format_leverage,
    format_percent,
    list_records,
    list_values,
    parse_duration,
    repr_plain,
    to_json,
    warn_caller,
)
from backtest.base.units import DAY
from backtest.engine import Progress, Result, describe_history, read_venues
from backtest.market import Market, Markets
from backtest.policy import Combinator, Policy
from backtest.risk.path_funding import summarize_funding, tabulate_funding
from backtest.risk.path_models import Drift, PathModel, describe_drift
from backtest.risk.paths import Paths, simulate_paths
from backtest.risk.paths_runner import (
    AnyAccount,
    AnyPolicy,
    AnyVenue,
    PathLives,
    PathsRunner,
    describe_shortfall,
    explain_idle,
    make_runner,
    warn_of_idle,
)
from backtest.venue import Venue, find_newest

USUAL = ("1d", "7d", "30d")
METHODS = Choice("auto", "plain")
BETWEEN = Number(0.0, 1.0, open_low=True, open_high=True)
PhaseProgress = Callable[[str, int, int], None]
SHOWN = 2000
"""Paths whose equity is kept bar by bar, for the fan."""


def read_horizons(paths: Paths, horizons: Sequence[str] | None) -> tuple[str, ...]:
    if horizons is None:
        fit = tuple(x for x in USUAL if parse_duration(x) <= paths.horizon)
        usable = tuple(x for x in fit if count_bars(paths, x, is_strict=False) > 0)
        is_whole = any(parse_duration(x) == paths.horizon for x in usable)
        return usable if is_whole else (*usable, format_duration(paths.horizon))
    given = (horizons,) if isinstance(horizons, str) else horizons
    if not isinstance(given, list | tuple) or not given:
        raise ParameterError(f"horizons must be a list of durations, got {repr_plain(given)}")
    return tuple(given)


def count_bars(paths: Paths, horizon: str, *, is_strict: bool = True) -> int:
    """Return the bars of a path that have closed by a horizon."""
    span = parse_duration(horizon, "horizons")
    time = paths.calendar.time
    bars = int(np.sum(time[1:] <= time[0] + span))
    if is_strict and (span > paths.horizon or bars < 1):
        raise ParameterError(
            "horizons must lie between a bar and the length of the paths, "
            f"{format_duration(paths.horizon)}, got {horizon}"
        )
    return bars


class PathEvents(NamedTuple):
    """Events of paths, and what is left at the horizons.

    ``liquidated``, ``ruined`` and ``called`` (n_paths,) are the bars of the first such event, the
    number of bars where there is none. ``wealth`` and ``bad_debt`` (n_horizons, n_paths) are wealth
    and debt at the end of each horizon. ``shown`` (up to 2000, n_bars) is the wealth of the first
    paths. ``doomed`` (2, n_bars) are the means of close (relative) and wealth over the paths that
    are liquidated; None without any.
    """

    liquidated: IntArray
    ruined: IntArray
    called: IntArray
    wealth: FloatArray
    bad_debt: FloatArray
    shown: FloatArray
    doomed: FloatArray | None


def find_first(values: FloatArray) -> IntArray:
    is_set = values != 0.0
    return np.asarray(np.where(is_set.any(axis=1), is_set.argmax(axis=1), values.shape[1]))


def reduce_lives(lives: Iterable[PathLives], bars: Sequence[int], last: FloatArray) -> PathEvents:
    """Return the events of lives, which are dropped one after the other."""
    firsts: list[IntArray] = []
    rows: list[FloatArray] = []
    shown: list[FloatArray] = []
    doomed, n_doomed = np.zeros((2, 1)), 0
    ends = np.array(bars) - 1
    for each in lives:
        found = np.array([find_first(x) for x in (each.liquidations, each.is_ruined, each.calls)])
        debt = np.cumsum(each.bad_debt, axis=1)
        firsts.append(found)
        rows.append(np.array([each.wealth[:, ends].T, debt[:, ends].T]))
        if each.first < SHOWN:
            shown.append(each.wealth[: SHOWN - each.first])
        hit = found[0] < each.wealth.shape[1]
        price = sum(
            closes[hit] / start / len(last) for closes, start in zip(each.closes, last, strict=True)
        )
        doomed = doomed + np.array([np.sum(price, axis=0), np.sum(each.wealth[hit], axis=0)])
        n_doomed += int(np.sum(hit))
    liquidated, ruined, called = np.concatenate(firsts, axis=1)
    wealth, debt = np.concatenate(rows, axis=2)
    return PathEvents(
        liquidated=liquidated,
        ruined=ruined,
        called=called,
        wealth=wealth,
        bad_debt=debt,
        shown=np.concatenate(shown),
        doomed=doomed / n_doomed if n_doomed else None,
    )


# -------------------------------------------------------------------------------------- estimates

FEW_HITS = 10
"""Below this many hits the correlation within pairs is taken as 0: it cannot be estimated."""


class RiskEstimate(NamedTuple):
    value: float
    low: float
    high: float


def exact_interval(hits: float, n: float, confidence: float) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson; hits and n may be effective, not whole.

    Source: Clopper and Pearson (1934), Biometrika 26(4).
    """
    from scipy.special import betaincinv  # noqa: PLC0415 - slow to load

    tail = 0.5 * (1.0 - confidence)
    low = 0.0 if hits <= 0.0 else float(betaincinv(hits, n - hits + 1.0, tail))
    high = 1.0 if hits >= n else float(betaincinv(hits + 1.0, n - hits, 1.0 - tail))
    return low, high


def estimate_plain(is_hit: FloatArray, confidence: float) -> RiskEstimate:
    """Return the share of independent paths that were hit; ``is_hit`` has shape (n_paths,)."""
    n, hits = len(is_hit), float(np.sum(is_hit))
    return RiskEstimate(hits / n, *exact_interval(hits, n, confidence))


def estimate_pairs(is_hit: FloatArray, confidence: float) -> RiskEstimate:
    """Return the share of paths that were hit, of pairs of mirrored paths side by side.

    The interval is that of Clopper and Pearson for the effective number of independent paths, p (1
    - p) over the variance of the pair means. Source: Korn and Graubard (1998), Confidence Intervals
    for Proportions with Small Expected Number of Positive Counts, Survey Methodology 24(2).
    """
    pairs = is_hit[: len(is_hit) // 2 * 2].reshape(-1, 2)
    if len(pairs) < 2:
        return estimate_plain(is_hit, confidence)
    p = float(np.mean(is_hit))
    variance = float(np.var(pairs.mean(axis=1), ddof=1)) / len(pairs)
    n = float(len(is_hit))
    if min(np.sum(is_hit), n - np.sum(is_hit)) >= FEW_HITS and variance > 0.0:
        n = p * (1.0 - p) / variance
    return RiskEstimate(p, *exact_interval(p * n, n, confidence))


EVENTS = {"p_liquidation": "liquidation", "p_ruin": "ruin", "p_margin_call": "margin call"}
QUANTILES = {"equity_05": 0.05, "equity_50": 0.5, "equity_95": 0.95}
FAN = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the fan."""


def describe_horizon(
    runner: PathsRunner, events: PathEvents, k: int, bars: int, confidence: float
) -> dict[str, Any]:
    paths, row = runner.paths, dict[str, float]()
    estimate = estimate_pairs if paths.antithetic else estimate_plain
    firsts = (events.liquidated, events.ruined, events.called)
    for kind, first in zip(EVENTS, firsts, strict=True):
        found = estimate((first < bars).astype(np.float64), confidence)
        if kind == "p_margin_call" and runner.terms.margin_call is None:
            found = RiskEstimate(math.nan, math.nan, math.nan)
        row |= {kind: found.value, f"{kind}_low": found.low, f"{kind}_high": found.high}
    died = events.liquidated[events.liquidated < bars]
    return {
        **row,
        "bad_debt": float(np.mean(events.bad_debt[k])),
        **{name: float(np.quantile(events.wealth[k], q)) for name, q in QUANTILES.items()},
        "days_to_liquidation": float(np.median(find_days(paths)[died])) if died.size else math.nan,
        "method": "antithetic" if paths.antithetic else "plain",
    }


def find_days(paths: Paths) -> FloatArray:
    """Return the days from the start to the close of each bar, of shape (n_bars,)."""
    time = paths.calendar.time
    return np.asarray((time[1:] - time[0]) / DAY, dtype=np.float64)


def tabulate_fan(paths: Paths, events: PathEvents) -> pd.DataFrame:
    values = np.quantile(events.shown, FAN, axis=0).T
    names = [f"equity_{round(100 * q):02d}" for q in FAN]
    return pd.DataFrame(values, columns=names, index=paths.time[1:])


def tabulate_hazard(paths: Paths, events: PathEvents) -> pd.DataFrame:
    day = np.ceil(find_days(paths) - 1e-9).astype(np.int64)
    n_days = int(day[-1])
    died = events.liquidated[events.liquidated < paths.n_bars]
    counts = np.bincount(day[died] - 1, minlength=n_days)
    at_risk = len(events.liquidated) - np.concatenate([[0], np.cumsum(counts)[:-1]])
    share = counts / np.maximum(at_risk, 1)
    columns = {"at_risk": at_risk, "liquidated": counts, "hazard": share}
    return pd.DataFrame(columns, index=pd.RangeIndex(1, n_days + 1, name="day"))


# ------------------------------------------------------------------------------------- the result

MONEY = "settlement currency"
WEALTH = {
    "equity_05": Head("5 % quantile", MONEY, "money"),
    "equity_50": Head("median", MONEY, "money"),
    "equity_95": Head("95 % quantile", MONEY, "money"),
    "bad_debt": Head("expected bad debt", MONEY, "money"),
    "days_to_liquidation": Head("median time to a liquidation", "days"),
}
HAZARD = {
    "at_risk": Head("not liquidated before", "paths", "count"),
    "liquidated": Head("liquidated in it", "paths", "count"),
    "hazard": Head("hazard", "share of those", "chance"),
}
DAYS_SHOWN = 60
ESTIMATORS = {"plain": "independent paths", "antithetic": "mirrored pairs"}


@dataclass(frozen=True, eq=False)
class LiquidationRisk(SettingsResult):
    """Risk of liquidation on many paths.

    Attributes
    ----------
    table : DataFrame
        A row per horizon: ``p_liquidation``, ``p_ruin``, ``p_margin_call`` (NaN without margin
        calls), each with ``_low`` and ``_high``, the ends of its interval; ``bad_debt``, the
        expected loss of the venue; ``equity_05``, ``equity_50``, ``equity_95``, quantiles of wealth
        at the horizon; ``days_to_liquidation``, the median over the paths that are liquidated (NaN
        without any); ``method``.
    fan : DataFrame
        Quantiles of wealth by time, of the first 2,000 paths.
    hazard : DataFrame
        By day: paths liquidated in it for the first time, over those not liquidated before.
    settings : dict
        What the numbers come from: model, seed, policy, venue, account, confidence.
    paths : Paths
        The paths that the account was taken through.
    outcomes : DataFrame
        A row per path, not saved: ``wealth`` at the last horizon, ``is_liquidated`` and
        ``is_ruined`` within it. Accounts on the same paths are compared row by row.
    """

    table: pd.DataFrame
    fan: pd.DataFrame
    hazard: pd.DataFrame
    typical: pd.DataFrame | None
    settings: dict[str, Any]
    paths: Paths | None = None
    runner: PathsRunner | None = None
    outcomes: pd.DataFrame | None = None

    kind = "liquidation-risk"
    called = "risk"
    table_names = ("table", "fan", "hazard", "typical")
    long_tables = ("fan", "hazard", "typical")

    def describe_data(self) -> Mapping[str, Any]:
        """Return the data that the paths continue."""
        return describe_history(None if self.paths is None else self.paths.history)

    @property
    def note(self) -> str:
        """The probability of liquidation within the longest horizon."""
        if "no_fill" in self.settings:
            return "no order was filled"
        chance = float(self.table["p_liquidation"].iloc[-1])
        return f"{format_percent(chance)} liquidated in {self.table.index[-1]}"

    @property
    def funding(self) -> pd.DataFrame:
        """What draws the funding of paths: a row per instrument, rates per settlement."""
        return tabulate_funding(self.settings["paths"].get("funding_fit", {}))

    def path(self) -> pd.DataFrame:
        """Return the typical path to liquidation: the mean of the paths that are liquidated.

        Returns
        -------
        DataFrame
            By time: ``price``, the mean close of the liquidated paths over the last close of
            history, and ``equity``, their mean wealth.

        Raises
        ------
        ParameterError
            If no path was liquidated.
        """
        if self.typical is None:
            raise ParameterError("there is no typical path: no path was liquidated")
        return self.typical

    @checked
    def run(self, i: int) -> Result:
        """Return the full result of path i, the same bits as in the risk.

        Raises
        ------
        ParameterError
            If there is no such path, or the risk was loaded from files, which hold none.
        """
        if self.runner is None:
            raise ParameterError(
                "a risk loaded from files has no paths to run; bt.liquidation_risk makes it again"
            )
        count = self.runner.paths.count
        if not -count <= i < count:
            raise ParameterError(
                f"i must be the number of a path, from {-count} to {count - 1}, got {i}"
            )
        return self.runner.run_path(i)

    def __repr__(self) -> str:
        chance, horizon = self.table["p_liquidation"].iloc[-1], self.table.index[-1]
        policy = self.settings["policy"]
        return f"<LiquidationRisk of {policy}: p_liquidation {chance:.3g} in {horizon}>"

    @property
    def verdict(self) -> str:
        """The probability of liquidation within the longest horizon, as a sentence."""
        row, horizon = self.table.iloc[-1], self.table.index[-1]
        held = self.settings.get("leverage")
        account = "The" if held is None else f"Beginning at {format_leverage(held)}, the"
        return (
            f"{account} account is liquidated within {horizon} with a probability of "
            f"{format_chance(row['p_liquidation'])} ({self._sure} interval: "
            f"{write_interval(row, 'p_liquidation')})."
        )

    @property
    def details(self) -> str:
        """What was drawn, and how little the paths can show."""
        drawn, method = self.settings["paths"], ESTIMATORS[self.table["method"].iloc[-1]]
        text = (
            f"{drawn['paths']:,} paths of {drawn['model']['name']}, {describe_drift(drawn)}; the "
            f"shares are those of {method}."
        )
        unseen = self.table.index[self.table["p_liquidation"] == 0.0]
        if len(unseen):
            text += (
                f" No path was liquidated within {unseen[-1]}: {drawn['paths']:,} paths show "
                f"nothing under {format_chance(3.0 / drawn['paths'])}."
            )
        return text

    @property
    def _sure(self) -> str:
        return f"{100.0 * self.settings['confidence']:g} %"

    @property
    def heading(self) -> str:
        """The title of the page."""
        return f"Risk of liquidation: {self.title}"

    @property
    def notices(self) -> tuple[str, ...]:
        """That no order was filled."""
        no_fill = self.settings.get("no_fill")
        return (f"No order was filled on any path: {no_fill}.",) if no_fill else ()

    def list_numbers(self) -> list[Headline]:
        """Return the probability of liquidation within each horizon."""
        return [
            Headline(f"p_liquidation_{name}", f"liquidated within {name}",
                     float(row["p_liquidation"]), "chance", write_interval(row, "p_liquidation"),
                     "less")
            for name, row in self.table.iterrows()
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        """Return the probabilities by horizon, the way there, and the hazard by day."""
        heads: dict[str, Head] = {}
        for kind in (kind for kind in EVENTS if not self.table[kind].isna().all()):
            low, high = f"{kind}_low", f"{kind}_high"
            heads[kind] = Head(EVENTS[kind], "probability", "chance")
            heads[low] = Head(f"{self._sure} interval of {EVENTS[kind]}", "", "chance", high)
        fan = self.fan.rename(columns=lambda name: f"{str(name).removeprefix('equity_')} %")
        colors = {str(name): "accent" if name == "50 %" else "neutral" for name in fan}
        price = None if self.typical is None else self.typical["price"]
        labels, fits = Head("horizon"), self.settings["paths"].get("funding_fit", {})
        return [
            Part("horizons", "By horizon", "From the last close of the data on.", (
                ShownTable(self.table, "Probabilities", labels=labels, heads=heads,
                           columns=tuple(heads)),
                ShownTable(self.table, "Wealth at the horizon", labels=labels, heads=WEALTH,
                           columns=tuple(WEALTH)),
                *summarize_funding(fits),
            ), shows="both"),
            Part("paths", "What happens on the way", "Wealth by time.", (
                ShownChart("fan", "Wealth", "Quantiles of 5, 25, 50, 75 and 95 % at each close.",
                           fan, colors=colors, height=320),
                ShownChart("typical", "The typical path to liquidation",
                           "Mean price, over the last close, of the liquidated paths.", price,
                           colors={"price": "loss"}, height=260),
            )),
            Part("hazard", "Hazard by day", "First liquidations, of those not liquidated before.", (
                ShownChart("hazard", "Hazard", "Share of the accounts not liquidated before that "
                           "is liquidated in each day.", self.hazard["hazard"], "bars",
                           {"hazard": "loss"}, x="day", height=240),
                ShownTable(self.hazard, "By day", labels=Head("day"), heads=HAZARD,
                           most=DAYS_SHOWN, columns=tuple(HAZARD)),
            )),
        ]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return the result as data for JSON."""
        return {**super().to_dict(), "funding": to_json(list_records(self.funding))}


def write_interval(row: Any, name: str) -> str:
    return f"{format_chance(row[f'{name}_low'])} to {format_chance(row[f'{name}_high'])}"


@checked_only("paths", "compile", "progress", "overlay")
def liquidation_risk(
    paths: Paths,
    policy: AnyPolicy,
    *,
    venue: AnyVenue,
    account: AnyAccount,
    horizons: Sequence[str] | None = None,
    confidence: float = 0.95,
    method: str = "auto",
    signal: float | Mapping[str, float] | None = None,
    overlay: Policy | None = None,
    threads: int = 1,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    progress: PhaseProgress | None = None,
) -> LiquidationRisk:
    """Return the probabilities that an account is liquidated, ruined or called from now on.

    Parameters
    ----------
    paths : Paths
        From :func:`backtest.simulate_paths`.
    policy : Policy
        Decides at each close, first at the last one of history. Of several instruments, one for
        all or one for each.
    venue : Venue
        Of dated margin tables, the one in force at the start holds for all bars. Of several
        instruments, one for all or one for each.
    account : Account, Result
        A new account, or a result that ended where the paths begin: positions, pending decisions
        and memory go on.
    horizons : sequence of str, optional
        Not longer than the paths; by default those of 1, 7 and 30 days that fit, and the whole.
    confidence : float
        Of the intervals, in (0, 1).
    method : str
        ``"plain"``: the paths as they are. ``"auto"``: with mirrored pairs where the model has
        them.
    signal : float, or mapping of str to float
        Direction and scale in [-1, 1], 1 by default. Of several instruments, direction times weight
        of each, by default 1/n, or what the result had at its last close.
    overlay : Policy, optional
        Scales all targets.
    threads : int
        The result does not depend on it.
    compile : bool
        False runs the policy in plain Python; the numbers are the same bits.
    progress : callable, optional
        Called with the name of a phase, the units of it that are done, and all of them (0 where
        that is not known): the policy, and the paths.

    Returns
    -------
    LiquidationRisk

    Warns
    -----
    NoFillWarning
        If no path filled an order: nothing can be liquidated.

    Raises
    ------
    ParameterError
        If an argument is not allowed, or the account holds or trades options.
    DataError
        If the paths do not begin where the result ended.

    Notes
    -----
    Intervals: Clopper-Pearson for independent paths; the same with the effective number of paths
    for mirrored pairs. n paths show nothing under 3 / n. Where a policy has columns and paths a
    bridge of one step, bars get four steps, so that ranges are right: ``risk.paths`` are the paths
    used.
    """
    METHODS.check("method", method)
    sure = BETWEEN.check("confidence", confidence)
    threads = Whole(1).check("threads", threads)
    names = read_horizons(paths, horizons)
    bars = [count_bars(paths, name) for name in names]
    runner = make_runner(
        paths, policy, venue=venue, account=account, signal=signal, overlay=overlay,
        compile=compile,
    )  # fmt: skip
    runner = refine_runner(runner, method)
    report = (lambda *_: None) if progress is None else progress
    report("checking and compiling the policy", 0, 0)
    runner.prepare()
    report("checking and compiling the policy", 1, 1)
    lives = runner.run_chunks(threads=threads, progress=functools.partial(report, "paths"))
    events = reduce_lives(lives, bars, runner.last)
    no_fill = explain_idle(runner, events.wealth, events.shown.T)
    warn_of_idle(no_fill, paths.count)
    rows = [describe_horizon(runner, events, k, n, sure) for k, n in enumerate(bars)]
    settings = describe_settings(runner, sure, method) | ({"no_fill": no_fill} if no_fill else {})
    typical, drawn = None, runner.paths
    if events.doomed is not None:
        columns = dict(zip(("price", "equity"), events.doomed, strict=True))
        typical = pd.DataFrame(columns, index=drawn.time[1:])
    outcomes = {
        "wealth": events.wealth[-1],
        "is_liquidated": events.liquidated < bars[-1],
        "is_ruined": events.ruined < bars[-1],
    }
    return LiquidationRisk(
        table=pd.DataFrame(rows, index=pd.Index(names, name="horizon")),
        fan=tabulate_fan(drawn, events),
        hazard=tabulate_hazard(drawn, events),
        typical=typical,
        settings=settings,
        paths=drawn,
        runner=runner,
        outcomes=pd.DataFrame(outcomes, index=pd.RangeIndex(len(events.ruined), name="path")),
    )


def refine_runner(runner: PathsRunner, method: str) -> PathsRunner:
    """Return a runner on mirrored paths, or on bars of four steps, where that is better."""
    paths, changes = runner.paths, dict[str, Any]()
    if method == "auto" and paths.is_symmetric and paths.count >= 2:
        changes["antithetic"] = True
    if paths.bridge == 1 and not paths.is_resampled and runner.has_columns:
        changes["bridge"] = 4
    return replace(runner, paths=paths.with_settings(**changes)) if changes else runner


def describe_settings(runner: PathsRunner, confidence: float, method: str) -> dict[str, Any]:
    resume, overlay = runner.resume, runner.overlay
    return {
        "policy": name_policies(runner.policy),
        "leverage": find_leverage(runner),
        "venue": describe_each(runner.venue, lambda each: each.to_dict()),
        "account": runner.terms.to_dict(),
        "overlay": None if overlay is None else repr(overlay),
        "resumed": None if resume is None else resume.manifest["id"],
        "signal": runner.signal,
        "confidence": confidence,
        "method": method,
        "paths": runner.paths.describe(),
    }


def find_leverage(runner: PathsRunner) -> float | None:
    """Return the leverage that the account begins at, where it is known beforehand."""
    if not isinstance(runner.signal, float) or runner.overlay is not None:
        return None
    if runner.resume is not None:
        bars, positions = runner.resume.bars, runner.resume.positions
        return float((bars if "leverage" in bars else positions)["leverage"].iloc[-1])
    policy: Any = runner.policy
    stated = policy.settings().get("leverage")
    return stated * runner.signal if isinstance(stated, float) else None


def name_policies(policy: AnyPolicy) -> str:
    if isinstance(policy, Mapping):
        return ", ".join(f"{name}: {each!r}" for name, each in policy.items())
    return repr(policy)


def describe_each(given: Any, describe: Callable[[Any], Any]) -> Any:
    if isinstance(given, Mapping):
        return {name: describe(each) for name, each in given.items()}
    return describe(given)


# ------------------------------------------------------------------------------- largest leverage

USUAL_MODELS = ("filtered", "stationary", "garch", "gbm")
LEAST_HITS = 20
"""Expected liquidations below which paths are too few for a probability."""
SCANNED = 2000
"""Paths on which the grid is scanned."""
STEPS = 10
"""Bisections after the scan."""
LARGEST_FACTOR = 20.0


class HoldOnce(Policy):
    size: Annotated[float, Range(0.0, 1000.0, "turns of equity")] = 1.0

    def leverage(self, bar: Any, account: Any) -> float:  # noqa: ARG002 - the signature of a formula
        if account.position != 0.0 or account.bars_since_liquidation < 1e300:
            return math.nan
        return self.size


class Scaled(Combinator):
    factor: Annotated[float, Range(0.0, 1000.0, "times")] = 1.0

    def combine(self, bar: Any, account: Any, asked: Any) -> Any:  # noqa: ARG002 - as above
        return self.factor * asked[0]


@dataclass(frozen=True, eq=False)
class MaxLeverage(SettingsResult):
    """Largest leverage, or factor on a policy, at a probability of liquidation.

    Attributes
    ----------
    table : DataFrame
        A row per model, and ``worst`` last: ``leverage`` (or the factor), ``p_liquidation`` at it
        with ``p_liquidation_low`` and ``p_liquidation_high``, ``is_monotone`` (whether the
        probability never fell along the scanned grid), ``is_limited`` (whether no leverage allowed
        by venue and account reaches the probability).
    grid : DataFrame
        The probability by leverage, a column per model, on the first 2,000 paths.
    settings : dict
        What the numbers come from.
    market : Market or None
        The history; None for a loaded result.
    """

    table: pd.DataFrame
    grid: pd.DataFrame
    settings: dict[str, Any]
    market: Market | Markets | None = None

    kind = "max-leverage"
    called = "largest leverage"
    table_names = ("table", "grid")

    @property
    def note(self) -> str:
        """The worst of the models."""
        return f"{self.leverage:.3g} at {self.settings['probability']:g}"

    @property
    def leverage(self) -> float:
        """The smallest over the models."""
        return float(self.table["leverage"].iloc[-1])

    @property
    def heading(self) -> str:
        """The title of the page."""
        chance = format_chance(self.settings["probability"])
        return f"Largest {self.grid.index.name} at {chance} in {self.settings['horizon']}"

    @property
    def notices(self) -> tuple[str, ...]:
        """What the account did not hold."""
        cautions = self.settings.get("cautions", ())
        return tuple(f"The account did not hold what was found, {each}." for each in cautions)

    @property
    def verdict(self) -> str:
        """The largest leverage, and over which models."""
        bound = format_chance(self.settings["probability"])
        return (
            f"Up to a {self.grid.index.name} of {self.leverage:.3g}, the account is liquidated "
            f"within {self.settings['horizon']} with a probability of at most {bound}, under the "
            f"worst of {count_nouns(len(self.table) - 1, 'model')}."
        )

    @property
    def details(self) -> str:
        """How to read the models, and their drift."""
        return (
            "The smallest over the models is the one to use: they differ in what they assume. "
            f"Their paths have {describe_drift(self._drawn)}."
        )

    @property
    def _drawn(self) -> Any:
        return next(iter(self.settings["paths"].values()))  # all models draw the same funding

    def list_numbers(self) -> list[Headline]:
        """Return the largest leverage."""
        return [
            Headline("leverage", f"largest {self.grid.index.name}", self.leverage,
                     note="worst model", better="more", text=f"{self.leverage:.3g}")
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        """Return the largest leverage by model, and the probability by size."""
        size = str(self.grid.index.name)
        heads = {
            "leverage": Head(size),
            "p_liquidation_low": Head("95 % interval", "", "chance", "p_liquidation_high"),
            "is_monotone": Head("rises with size throughout", "", "claim"),
            "is_limited": Head("the largest allowed", "", "claim"),
        }
        chart = ShownChart(
            "grid", "Probability by size", "On the first 2,000 paths of each model.", self.grid,
            x=size, y="probability", has_legend=True, height=320,
        )  # fmt: skip
        models = ShownTable(self.table, labels=Head("model"), heads=heads)
        funding = summarize_funding(self._drawn.get("funding_fit", {}))
        lead = "All sizes see the same paths."
        return [Part("models", "By model", lead, (models, chart, *funding), shows="both")]

    def __repr__(self) -> str:
        chance = self.settings["probability"]
        return f"<MaxLeverage {self.leverage:.3g} at {chance:g} in {self.settings['horizon']}>"


@checked_only("compile", "progress", "overlay", "market")
def max_leverage(  # noqa: PLR0913 - by name, as in bt.run
    market: Market | Markets,
    policy: AnyPolicy | None = None,
    *,
    venue: AnyVenue,
    account: Account,
    probability: float = 0.01,
    horizon: str = "30d",
    models: Sequence[str | PathModel | type[PathModel]] = USUAL_MODELS,
    paths: int = 10_000,
    seed: int = 0,
    drift: Drift | None = None,
    signal: float | Mapping[str, float] | None = None,
    overlay: Policy | None = None,
    threads: int = 1,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
) -> MaxLeverage:
    """Return the largest leverage whose probability of liquidation stays within a bound.

    Parameters
    ----------
    market : Market or Markets
        The history from whose end paths go on.
    policy : Policy, optional
        By default, a position that is opened once at the leverage and kept; of several instruments
        one in each, at the leverage times its weight. Otherwise the result is the largest factor on
        the leverage of this policy, or of those of all instruments.
    venue, account : Venue, Account
        As in :func:`backtest.run`; the leverage stays within their limits.
    probability : float
        The bound, in (0, 1); paths times this must be at least 20.
    horizon : str
        The time within which liquidations count.
    models : sequence
        Models of paths, as :func:`backtest.simulate_paths` takes them. The row ``worst`` is the
        smallest over them: how far models differ is part of the answer.
    paths, seed, drift, threads, compile, progress
        As in :func:`backtest.simulate_paths` and :func:`backtest.liquidation_risk`.
    signal, overlay
        As in :func:`backtest.liquidation_risk`.

    Returns
    -------
    MaxLeverage

    Warns
    -----
    UserWarning
        If the account fills no order at the leverage found, or limits cut it to less.

    Raises
    ------
    ParameterError
        If an argument is not allowed.

    Notes
    -----
    All leverages see the same paths. A grid is scanned upwards to the first that exceeds the bound;
    then the gap is bisected. Above the result the probability may fall again, if a policy cuts its
    position; ``is_monotone`` says so.
    """
    chance = BETWEEN.check("probability", probability)
    if isinstance(models, str) or not isinstance(models, Sequence) or not len(models):
        raise ParameterError(
            f"models must be a list with at least one model, got {repr_plain(models)}"
        )
    drawn = [
        simulate_paths(market, each, paths=paths, horizon=horizon, seed=seed, drift=drift)
        for each in models
    ]
    if not chance * paths >= LEAST_HITS:
        raise ParameterError(
            f"paths must be at least {math.ceil(LEAST_HITS / chance)} for the probability "
            f"{chance:g}, got {paths}"
        )
    terms: dict[str, Any] = {"venue": venue, "account": account, "signal": signal,
                             "overlay": overlay, "compile": compile}  # fmt: skip
    sizes = choose_grid(policy, venue, account, drawn[0])
    rows: dict[str, dict[str, Any]] = {}
    columns: dict[str, list[float]] = {}
    cautions: dict[str, list[str]] = {}
    for done, each in enumerate(drawn, 1):
        scan = LeverageScan(each, policy, horizon, threads, terms)
        name = type(each.model).__name__.lower()
        name = f"{name} {len(rows) + 1}" if name in rows else name
        rows[name], columns[name] = scan.search(sizes, chance)
        best = rows[name]["leverage"]
        if best > 0.0 and (caution := describe_shortfall(scan.make_runner(best))):
            cautions.setdefault(caution, []).append(name)
        if progress is not None:
            progress(done, len(drawn))
    table = pd.DataFrame(rows.values(), index=pd.Index(rows, name="model"))
    table.loc["worst"] = table.iloc[int(np.argmin(table["leverage"].to_numpy()))]
    label = "leverage" if policy is None else "factor"
    settings = {
        "policy": name_policies(policy) if policy is not None else "one position, held",
        "venue": describe_each(venue, lambda each: each.to_dict()),
        "overlay": None if overlay is None else repr(overlay),
        "account": account.to_dict(),
        "probability": chance,
        "horizon": horizon,
        "signal": signal,
        "paths": {name: each.describe() for name, each in zip(rows, drawn, strict=True)},
    }
    for caution, names in cautions.items():
        said = f"{', '.join(names)}: {caution}"
        settings.setdefault("cautions", []).append(said)
        warn_caller(f"the account did not hold the {label} found for {said}", UserWarning)
    grid = pd.DataFrame(columns, index=pd.Index(sizes, name=label))
    return MaxLeverage(table, grid, settings, market)


def choose_grid(
    policy: AnyPolicy | None, venue: AnyVenue, account: Account, paths: Paths
) -> FloatArray:
    """Return the sizes that are scanned: factors, or leverages that venue and account allow."""
    if policy is not None:
        return np.geomspace(0.1, LARGEST_FACTOR, 16)
    venues = [*read_venues(venue, paths.markets).values()]
    most = min(1000.0, *(max(row.max_leverage for row in each.brackets) for each in venues))
    if len(venues) == 1:
        (own,) = venues
        first = own.in_use(paths.calendar.time[:1])[0]
        most = min(most, find_most_held(own.with_table(first), account))
    for limit in (account.max_leverage, account.venue_leverage):
        most = min([most, *(each for each in list_values(limit) if isinstance(each, int | float))])
    return np.geomspace(min(0.5, 0.5 * most), most, 16)


def find_most_held(venue: Venue, account: Account) -> float:
    cost = find_newest(venue.fees.taker) + find_newest(venue.slippage.rate)
    return max(
        min(row.cap / account.capital, row.max_leverage / (1.0 + cost * row.max_leverage))
        for row in venue.brackets
    )


@dataclass(frozen=True)
class LeverageScan:
    """The probability of a liquidation by size, on the same paths; ``terms`` are of a runner."""

    paths: Paths
    policy: AnyPolicy | None
    horizon: str
    threads: int
    terms: Mapping[str, Any]

    def make_runner(self, size: float) -> PathsRunner:
        scaled: Any = Scaled  # a combinator takes its policies first
        held: AnyPolicy = HoldOnce(size=size)
        if isinstance(self.policy, Mapping):
            held = {name: scaled(each, factor=size) for name, each in self.policy.items()}
        elif self.policy is not None:
            held = scaled(self.policy, factor=size)
        return make_runner(self.paths, held, **self.terms)

    def estimate(self, size: float, count: int) -> RiskEstimate:
        bars = count_bars(self.paths, self.horizon)
        hits = [
            find_first(lives.liquidations[:, :bars]) < bars
            for lives in self.make_runner(size).run_chunks(count=count, threads=self.threads)
        ]
        return estimate_plain(np.concatenate(hits).astype(np.float64), 0.95)

    def search(self, sizes: FloatArray, chance: float) -> tuple[dict[str, Any], list[float]]:
        """Return the row of the largest size, and the probability by size on the first paths."""
        scanned = min(SCANNED, self.paths.count)
        grid = [self.estimate(float(size), scanned).value for size in sizes]
        over = np.flatnonzero(np.array(grid) > chance)
        best, found = self.bisect(sizes, int(over[0]) if over.size else len(sizes) - 1, chance)
        row = {
            "leverage": best,
            "p_liquidation": found.value,
            "p_liquidation_low": found.low,
            "p_liquidation_high": found.high,
            "is_monotone": bool(np.all(np.diff(grid) >= 0.0)),
            "is_limited": best == sizes[-1],
        }
        return row, grid

    def bisect(self, sizes: FloatArray, k: int, chance: float) -> tuple[float, RiskEstimate]:
        """Return the edge next to size k on all paths; the first ones may have it elsewhere."""
        estimate = functools.cache(lambda size: self.estimate(size, self.paths.count))
        grid = [0.0, *map(float, sizes)]
        at = k + 1
        while at < len(grid) and estimate(grid[at]).value <= chance:
            at += 1
        if at == len(grid):
            return grid[-1], estimate(grid[-1])
        while at > 1 and estimate(grid[at - 1]).value > chance:
            at -= 1
        low, high = grid[at - 1], grid[at]
        for _ in range(STEPS):
            middle = math.sqrt(low * high) if low > 0.0 else 0.5 * high
            low, high = (middle, high) if estimate(middle).value <= chance else (low, middle)
        return low, estimate(low)
