"""max_leverage() and leverage_frontier(): leverage against the probability of liquidation."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core, engine
from backtest.core import Progress
from backtest.core.fields import INNER_SHARE
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY, YEAR_DAYS
from backtest.engine import AnyPolicy, Conditions, plain
from backtest.indicators import log_returns
from backtest.market import label_names
from backtest.policies import Combinator, Policy
from backtest.results.settings_result import SettingsResult
from backtest.risk import liquidations as r
from backtest.risk import path_models
from backtest.risk.funding_process import summarize_funding
from backtest.risk.liquidations import LiquidationRisk
from backtest.risk.past_starts import PastStarts, bound_apart, describe_apart
from backtest.risk.path_drift import Drift, describe_drift
from backtest.risk.path_runner import PathsRunner
from backtest.risk.paths import Paths, choose_funding, simulate_paths
from backtest.risk.replays import replay_held
from backtest.risk.scenarios import fix_margin_tables
from backtest.risk.scores import ALL, show_scores, write_score
from backtest.venue import find_newest

YEAR = YEAR_DAYS * DAY
USUAL_MODELS = ("filtered", "stationary", "gbm")
SLOPE_STEP = 0.2
"""How far down and up, in the log of the size, the slope of the probability is measured."""
CONFIRMED = 6
"""Times that the answer is halved on all paths: to 1/64 of three standard errors on each side."""
LEAST_HITS = 20
"""Expected liquidations below which paths are too few for a probability."""
ROUGH, SEARCHED = 256, 2000
"""Paths on which the grid is scanned, and those on which the gap is narrowed."""
ROUNDS, LANES = 2, 6
"""Times that the gap is narrowed after the scan, and leverages inside it at a time."""
HISTORY, LONG_RUN = "history", ", long run"
"""The row of history, and what the name of a model has that starts at the long-run volatility."""


class HoldOnce(Policy):
    size: Annotated[float, core.Range(0.0, 1000.0, "x of equity")] = 1.0

    def leverage(self, bar: Any, account: Any) -> float:  # noqa: ARG002 - the signature of a formula
        if account.position != 0.0 or account.bars_since_liquidation < 1e300:
            return math.nan
        return self.size


class Scaled(Combinator):
    factor: Annotated[float, core.Range(0.0, 1000.0, "times")] = 1.0

    def combine(self, bar: Any, account: Any, asked: Any) -> Any:  # noqa: ARG002 - as above
        return self.factor * asked[0]


@dataclass(frozen=True, eq=False, repr=False)
class MaxLeverage(SettingsResult):
    """Largest leverage, or factor on a policy, at a probability of liquidation.

    Attributes
    ----------
    table : DataFrame
        A row per model, those with a volatility of today's again with the long-run one
        (``filtered, long run``), ``history`` where it has a year, and ``worst`` last: ``leverage``
        (or the factor) and its standard error over the paths, ``leverage_error`` (NaN for history,
        at the end of the grid, and with ``evaluations``), ``p_liquidation`` at it with
        ``p_liquidation_simulation_low`` and ``p_liquidation_simulation_high`` (NaN for history),
        ``paths`` (of history: starts) behind them, ``wiped_out``, the share of the first 2,000
        paths that leave nothing (NaN as the error is), ``is_monotone`` (whether the probability
        never fell along the scanned grid), ``is_limited`` (whether no leverage allowed by venue and
        account reaches the probability: it is the end of the grid).
    grid : DataFrame
        The probability by leverage, a column per row, on the first 256 paths or on all starts. With
        ``evaluations`` a leverage that is over the probability has a lower bound of it.
    scores, forecasts : DataFrame, optional
        With ``score``: the leverage found, held at past dates: what was told and what came.
    """

    table: pd.DataFrame
    grid: pd.DataFrame
    scores: pd.DataFrame | None = None
    forecasts: pd.DataFrame | None = None

    kind = "max-leverage"
    called = "largest leverage"
    long_tables = ("forecasts",)

    @property
    def note(self) -> str:
        return f"{self.leverage:.3g} at {self.settings['probability']:g}"

    @property
    def leverage(self) -> float:
        """The smallest over the models."""
        return float(self.table["leverage"].iloc[-1])

    @property
    def heading(self) -> str:
        chance = core.format_chance(self.settings["probability"])
        return f"Largest {self.grid.index.name} at {chance} in {self.settings['horizon']}"

    @property
    def bound_by(self) -> str:
        """The row that decides, the smallest."""
        return str(self.table.index[int(np.argmin(self.table["leverage"].iloc[:-1].to_numpy()))])

    @property
    def verdict(self) -> str:
        bound = core.format_chance(self.settings["probability"])
        row: Any = self.table.iloc[-1]
        name, chance = self.bound_by, core.format_chance(row["p_liquidation"])
        if name == HISTORY:
            past = self.settings["history"]
            apart = describe_apart(past["hits"], past["apart"], past["high"])
            name = f"history's own frequency, {chance} there ({apart})"
        else:
            name = f"{self._describe_model(name)}, {chance} there"
        error = f" ± {row['leverage_error']:.2g}" if row["leverage_error"] > 0.0 else ""
        end = ", the end of those tried" if row["is_limited"] else ""
        lost = ""
        if row["wiped_out"] >= 0.0:
            lost = f", and {core.format_chance(float(row['wiped_out']))} of accounts are wiped out"
        return (
            f"Up to a {self.grid.index.name} of {self.leverage:.3g}{error}{end}, the account is "
            f"liquidated within {self.settings['horizon']} with a probability of at most {bound}; "
            f"the bound is {name}{lost}."
        )

    def _describe_model(self, name: str) -> str:
        if name.endswith(LONG_RUN):
            return f"{name.removesuffix(LONG_RUN)} from the long-run volatility"
        if name + LONG_RUN in self.table.index:
            return f"{name} from today's volatility"
        return name

    @property
    def details(self) -> str:
        past = self.settings["history"]
        history = "History is too short to count: a year is needed."
        if past is not None:
            apart = describe_apart(past["hits"], past["apart"], past["high"])
            history = f"History: {past['starts']:,} starts, one a day, {apart}."
        held = self.settings["weights"]
        weights = (f"{text or 'signal'} {held[x]:.3g}" for x, text in label_names(held).items())
        return (
            "The smallest of all rows is the one to use: models start at today's volatility and at "
            f"the long-run one. Their paths have {describe_drift(self._drawn)}. "
            f"{history} Weights: {', '.join(weights)}.{self._write_held()}"
        )

    def _write_held(self) -> str:
        """Return what came where today's number was held at past dates, if that was asked for."""
        if self.scores is None:
            return ""
        whole = self.scores[self.scores["days"] == ALL]
        texts = [write_score(str(name), row) for name, row in whole.iterrows()]
        return f" Held at past dates, {'; '.join(texts)}."

    @property
    def _drawn(self) -> Any:
        return next(iter(self.settings["paths"].values()))  # all models draw the same funding

    def list_numbers(self) -> list[Headline]:
        return [
            Headline("leverage", f"largest {self.grid.index.name}", self.leverage,
                     note=self.bound_by, text=f"{self.leverage:.3g}")
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        size, (low, high) = str(self.grid.index.name), r.name_interval("p_liquidation")
        heads = {
            "leverage": Head(size),
            "leverage_error": Head("± its error", "over paths", "decimals"),
            "wiped_out": Head("wiped out", "of accounts", "chance"),
            low: Head("95 % interval of the simulation", "", "chance", high),
            "paths": Head("paths", "or starts", "count"),
            "is_monotone": Head("monotone in size", "", "claim"),
            "is_limited": Head("venue's maximum", "", "claim"),
        }
        chart = ShownChart(
            "grid", "Probability by size", "On the first 256 paths of each model.", self.grid,
            x=size, y="probability", has_legend=True, height=320,
        )  # fmt: skip
        models = ShownTable(self.table, labels=Head("model"), heads=heads)
        funding = summarize_funding(self._drawn.get("funding_fit", {}))
        lead = "All sizes see the same paths."
        parts = [Part("models", "By model", lead, (models, chart, *funding), shows="both")]
        if self.scores is not None:
            parts.append(show_scores(self.scores))
        return parts


@core.checked_only("compile", "progress", "models")
def max_leverage(  # noqa: PLR0913 - as the method
    conditions: Conditions,
    policy: AnyPolicy | None = None,
    *,
    probability: float = 0.01,
    horizon: str = "30d",
    models: Sequence[str | path_models.PathModel | type[path_models.PathModel]] = USUAL_MODELS,
    paths: int = 10_000,
    seed: int = 0,
    drift: Drift | None = None,
    evaluations: int | None = None,
    score: bool = False,
    threads: int = 1,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
) -> MaxLeverage:
    """Answer :meth:`backtest.Backtest.max_leverage`, which documents it."""
    INNER_SHARE.check("probability", probability)
    if not models:
        raise core.ParameterError("models must be a list with at least one model, got none")
    if evaluations is not None:
        core.Whole(1).check("evaluations", evaluations)
        if len(models) != 1:
            raise core.ParameterError(
                f"evaluations are of one model, ['filtered'] for example, got {len(models)} models"
            )
    test: Any = plain(conditions)
    how: Any = {"paths": paths, "horizon": horizon, "seed": seed, "drift": drift}
    how["funding"] = choose_funding(test.venue)
    drawn = [simulate_paths(test.market, each, **how) for each in models]
    return search_paths(
        conditions,
        policy,
        drawn,
        probability=probability,
        horizon=horizon,
        evaluations=evaluations,
        score=score,
        threads=threads,
        compile=compile,
        progress=progress,
    )


def search_paths(
    conditions: Conditions,
    policy: AnyPolicy | None,
    drawn: Sequence[Paths],
    *,
    probability: float,
    horizon: str,
    evaluations: int | None,
    score: bool,
    threads: int,
    compile: bool,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
    risk: LiquidationRisk | None = None,
) -> MaxLeverage:
    """Return the largest leverage on paths, one batch a model; :func:`max_leverage` checks.

    ``risk`` is that of the policy itself on the first batch, if it was measured before: the first
    of the ``evaluations`` is then known.
    """
    chance = probability
    paths = drawn[0].count
    if not chance * paths >= LEAST_HITS:
        raise core.ParameterError(
            f"paths must be at least {math.ceil(LEAST_HITS / chance)} for the probability "
            f"{chance:g}, got {paths}"
        )
    sizes = choose_grid(policy, conditions, drawn[0])
    named = name_models(drawn)
    if evaluations is not None:
        named = dict(itertools.islice(named.items(), 1))

    begun: dict[int, PathsRunner] = {}

    def make(each: Paths, size: float) -> PathsRunner:
        """Return the account of a size; what does not depend on the size is made once."""
        scaled = scale_policy(policy, size)
        if id(each) not in begun:
            begun[id(each)] = PathsRunner(each, scaled, conditions, compile=compile)
            return begun[id(each)]
        return begun[id(each)].with_policy(scaled)

    core.report_progress(progress, 0, len(named) + 1)
    bars, span = r.read_horizons(drawn[0], horizon)[horizon], core.parse_duration(horizon)
    trials: list[PathTrials] = [
        PathTrials(name, each, functools.partial(make, each), bars, span, threads)
        for name, each in named.items()
    ]
    first = make(drawn[0], float(sizes[0]))
    start = float(sizes[0])
    if evaluations is not None:
        start = 1.0 if policy is not None else math.sqrt(float(sizes[0] * sizes[-1]))
    past = HistoryTrials(HISTORY, drawn[0], functools.partial(make, drawn[0]), bars, span)
    if risk is None:
        past.begin(start)
    else:
        share: Any = risk.table.loc[horizon, "p_liquidation"]
        trials[0].counted[start] = round(float(share) * paths)
        past.begin(start, risk.find_past(horizon))
    if past.count:
        trials.append(past)
    if evaluations is None:
        tried = search_grid(trials, sizes, chance, progress)
    else:
        drawn[0].keep_all()
        quick_first = trials[::-1]  # history takes a third of the time of the paths
        most = float(sizes[-1])
        tried = bisect_leverage(quick_first, start, most, chance, evaluations, progress)
    sizes, rows, columns = tried
    least = min(rows, key=lambda name: rows[name]["leverage"])
    table = pd.DataFrame(rows.values(), index=pd.Index(rows, name="model"))
    table.loc["worst"] = table.loc[least]
    label = "leverage" if policy is None else "factor"
    weights = first.list_weights(drawn[0].markets)[:, -1].tolist()
    settings = r.describe_terms(policy or "one position, held", conditions) | {
        "probability": chance,
        "horizon": horizon,
        "signal": None if conditions.signal is None else first.signal,
        "weights": dict(zip(drawn[0].names, weights, strict=True)),
        "history": past.describe(rows[HISTORY]["leverage"]) if past.count else None,
        **({} if evaluations is None else {"evaluations": evaluations}),
        "paths": {name: each.describe() for name, each in named.items()},
    }
    grid = pd.DataFrame(columns, index=pd.Index(sizes, name=label))
    found = MaxLeverage(table, grid, settings=settings, market=conditions.market)
    if not score:
        return found
    name = f"{label} {found.leverage:.3g} liquidated within {horizon}"
    held = replay_held(make(drawn[0], found.leverage), name, bars, chance).tabulate()
    return replace(found, scores=held.scores, forecasts=held.forecasts)


def name_models(drawn: Sequence[Paths]) -> dict[str, Paths]:
    """Return the paths by name, those from today's volatility also from the long-run one."""
    found: dict[str, Paths] = {}
    for each in drawn:
        name = type(each.model).__name__.lower()
        name = f"{name} {len(found) + 1}" if name in found else name
        found[name] = each
        models: dict[str, Any] = {}
        for instrument, model in each.models.items():
            squares = log_returns(each.markets[instrument])[1:][-path_models.MOST_RETURNS :] ** 2
            if hasattr(model, "variance_now"):
                models[instrument] = model.override(variance_now=float(np.mean(squares)))
        if models:
            found[name + LONG_RUN] = replace(each, models={**each.models, **models})
    return found


@dataclass(eq=False)
class PathTrials:
    """Accounts of several sizes on the same paths; ``make`` returns what runs one of a size.

    ``bars`` and ``horizon``, in ns, are the time within which liquidations count. ``rough`` trials
    scan the grid, and ``count`` narrow the gap.
    """

    name: str
    paths: Paths
    make: Callable[[float], PathsRunner]
    bars: int
    horizon: int
    threads: int = 1

    def __post_init__(self) -> None:
        self.kept: dict[float, Any] = {}
        self.counted: dict[float, int] = {}
        self.rough, self.count = min(ROUGH, self.paths.count), min(SEARCHED, self.paths.count)

    def keep(self, size: float) -> PathsRunner:
        """Return what runs accounts of a size, compiled before threads start."""
        if size not in self.kept:
            self.kept[size] = self.make(size)
            _ = self.kept[size].loop
        runner: PathsRunner = self.kept[size]
        return runner

    def count_hits(self, sizes: Sequence[float], count: int, most: float) -> list[int]:
        """Return how many of the first paths liquidate each size; over ``most`` it ends."""
        for size in sizes:
            self.keep(size)
        hits = [0] * len(sizes)
        with ThreadPoolExecutor(self.threads, thread_name_prefix="paths") as pool:
            for first in range(0, count, self.paths.block):
                stop = min(first + self.paths.block, count)
                self.paths.draw_all(first, stop)  # which keeps them for all sizes
                left = [k for k, hit in enumerate(hits) if hit <= most]
                runners = [self.kept[sizes[k]] for k in left]

                def live(runner: PathsRunner, first: int = first, stop: int = stop) -> int:
                    lives = runner.run_block(first, stop)
                    return int(np.sum(r.find_first(lives.liquidations[:, : self.bars]) < self.bars))

                for k, hit in zip(left, pool.map(live, runners), strict=True):
                    hits[k] += hit
        return hits

    def count_ruined(self, size: float, count: int) -> int:
        """Return how many of the first paths leave an account of a size with nothing."""
        runner, ruined = self.keep(size), 0
        for first in range(0, count, self.paths.block):
            stop = min(first + self.paths.block, count)
            self.paths.draw_all(first, stop)  # which keeps them for all sizes
            lives = runner.run_block(first, stop)
            ruined += int(np.sum(lives.is_ruined[:, self.bars - 1] != 0.0))
        return ruined


class HistoryTrials(PathTrials):
    """Accounts that are new at each day's first open of history."""

    def begin(self, size: float, past: PastStarts | None = None) -> None:
        """Count the starts with the whole horizon ahead, by those of the size that is tried first.

        What became of its accounts is ``past`` where that is known.
        """
        if past is not None:
            self.kept[size] = past
        self.rough = self.count = int(np.sum(self.live(size).room >= self.bars))

    def live(self, size: float, most: float = math.inf) -> PastStarts:
        """Return what became of the starts of a size; over ``most`` liquidations it ends."""
        if size in self.kept:
            known: PastStarts = self.kept[size]
            return known
        past = self.make(size).find_past(self.bars, least=self.bars, most=most)
        if np.count_nonzero(past.firsts < self.bars) <= most:
            self.kept[size] = past
        return past

    def count_hits(self, sizes: Sequence[float], count: int, most: float) -> list[int]:  # noqa: ARG002 - as that of paths
        """Return how many starts with the whole horizon ahead liquidate each size."""
        past = [self.live(size, most) for size in sizes]
        return [int(np.sum((x.room >= self.bars) & (x.firsts < self.bars))) for x in past]

    def describe(self, size: float) -> dict[str, float]:
        """Return starts, those apart, and the largest probability that these leave possible."""
        past = self.live(size)
        found = past.summarize(self.bars, self.horizon)
        apart = int(found["history_apart"])
        share = self.count_hits([size], self.count, math.inf)[0] / self.count
        hits, high = bound_apart(share, apart)
        return {"starts": self.count, "apart": apart, "hits": hits, "high": high}


def search_leverage(
    trials: PathTrials, sizes: core.FloatArray, chance: float
) -> tuple[dict[str, Any], list[float]]:
    """Return a row, and the probability by size on the first trials."""
    grid, count = [0.0, *map(float, sizes)], trials.count
    rough = [hit / trials.rough for hit in trials.count_hits(grid[1:], trials.rough, math.inf)]
    known: dict[float, int] = {}

    def is_over(*asked: float) -> list[bool]:
        new = [size for size in asked if size not in known]
        known.update(zip(new, trials.count_hits(new, count, chance * count), strict=True))
        return [known[size] > chance * count for size in asked]

    at = next((k for k, p in enumerate(rough, 1) if p > chance), len(grid) - 1)
    is_over(*grid[max(at - 1, 1) : at + 1])  # both on the same draws
    while at < len(grid) and not is_over(grid[at])[0]:
        at += 1
    while 1 < at < len(grid) and is_over(grid[at - 1])[0]:
        at -= 1
    best, high = grid[at - 1], grid[min(at, len(grid) - 1)]
    for _ in range(ROUNDS if at < len(grid) else 0):
        inside = np.geomspace(max(best, 0.01 * high), high, LANES + 2)[1:-1].tolist()
        over = [*is_over(*inside), True]
        first = over.index(True)
        best, high = [best, *inside][first], [*inside, high][first]
    chance_there = measure(trials, best, count, known.get(best))
    is_limited = bool(best == sizes[-1])
    row = {
        "leverage": best,
        "leverage_error": math.nan,
        **chance_there,
        "wiped_out": math.nan,
        "is_monotone": bool(np.all(np.diff(rough) >= 0.0)),
        "is_limited": is_limited,
    }
    if isinstance(trials, HistoryTrials):
        return row, rough  # whose starts overlap
    row["wiped_out"] = trials.count_ruined(best, count) / count
    if not is_limited:
        known_chance = chance_there["p_liquidation"]
        row["leverage_error"] = measure_error(trials, best, known_chance, most=float(sizes[-1]))
    return row, rough


class Searched(NamedTuple):
    """What a search found: the sizes tried, increasing, and what each source says of them."""

    sizes: core.FloatArray
    rows: dict[str, dict[str, Any]]
    columns: dict[str, list[float]]


def search_grid(
    trials: Sequence[PathTrials], sizes: core.FloatArray, chance: float, progress: Progress | None
) -> Searched:
    """Return the largest size of each source on a grid; the smallest is confirmed on all paths."""
    rows: dict[str, dict[str, Any]] = {}
    columns: dict[str, list[float]] = {}
    for done, each in enumerate(trials):
        core.report_progress(progress, done, len(trials))
        rows[each.name], columns[each.name] = search_leverage(each, sizes, chance)

    # The smallest is measured on all paths, which may make another one the smallest.
    models = {each.name: each for each in trials if not isinstance(each, HistoryTrials)}
    least = min(rows, key=lambda name: rows[name]["leverage"])
    while least in models:
        confirm(models.pop(least), rows[least], chance, most=float(sizes[-1]))
        least = min(rows, key=lambda name: rows[name]["leverage"])
    core.report_progress(progress, len(rows), len(rows))
    return Searched(sizes, rows, columns)


def bisect_leverage(
    sources: Sequence[PathTrials],
    start: float,
    most: float,
    chance: float,
    evaluations: int,
    progress: Progress | None,
) -> Searched:
    """Return the largest size that is over a chance on none of some sources, by bisection.

    All sizes see the same paths. From ``start`` upwards to ``most``, or down to 0, in logarithms; a
    size that is over on one source is not tried on the others. Where the probability is not
    monotone in size, it is one of the sizes at which it crosses the chance.
    """
    shares: dict[float, dict[str, float]] = {}
    best = 0.0
    high = most
    size = start
    for done in range(evaluations):
        shares[size] = measure_sources(sources, size, chance)
        if max(shares[size].values()) > chance:
            high = size
        else:
            best = size
        core.report_progress(progress, done + 1, evaluations)
        size = math.sqrt(max(best, 0.01 * high) * high)

    sizes = sorted(shares)
    overs = [max(shares[each].values()) > chance for each in sizes]
    rows = {}
    for each in sources[::-1]:
        hits = shares.get(best, {}).get(each.name, 0.0)
        rows[each.name] = {
            "leverage": best,
            "leverage_error": math.nan,
            **measure(each, best, each.count, round(hits * each.count)),
            "wiped_out": math.nan,
            "is_monotone": overs == sorted(overs),
            "is_limited": not any(overs),
        }
    columns = {each.name: [shares[x].get(each.name, math.nan) for x in sizes] for each in sources}
    return Searched(np.array(sizes), rows, columns)


def measure_sources(sources: Sequence[PathTrials], size: float, chance: float) -> dict[str, float]:
    """Return the share of each source on which a size is liquidated, until one is over a chance."""
    shares: dict[str, float] = {}
    for each in sources:
        hits = each.counted.get(size)
        if hits is None:
            hits = each.count_hits([size], each.count, chance * each.count)[0]
        shares[each.name] = hits / each.count
        if shares[each.name] > chance:
            break
    return shares


def measure(
    trials: PathTrials, size: float, count: int, hits: int | None = None
) -> dict[str, float]:
    """Return the probability of a size on the first trials; ``hits`` are counted if not given."""
    if hits is None:
        hits = trials.count_hits([size], count, math.inf)[0]
    found = r.describe_share("p_liquidation", hits, count) | {"paths": count}
    if isinstance(trials, HistoryTrials):
        found |= dict.fromkeys(r.name_interval("p_liquidation"), math.nan)
    return found


def measure_error(trials: PathTrials, size: float, chance: float, *, most: float) -> float:
    """Return the standard error of the size that is liquidated with a chance, over the paths.

    By the delta method in logarithms: that of the chance of n paths, sqrt((1 - chance) / (n
    chance)), over the slope of the chance, from sizes on both sides of it, of at most ``most``, on
    the same paths. NaN if it has no slope, or none was liquidated.
    """
    smaller = size * math.exp(-SLOPE_STEP)
    larger = min(size * math.exp(SLOPE_STEP), most)
    fewer, more = trials.count_hits([smaller, larger], trials.count, math.inf)
    if not more > fewer or chance == 0.0:
        return math.nan

    # Half a hit more, so that none has a logarithm.
    slope = math.log((more + 0.5) / (fewer + 0.5)) / math.log(larger / smaller)
    of_chance = math.sqrt((1.0 - chance) / (trials.count * chance))
    return size * of_chance / slope


def confirm(trials: PathTrials, row: dict[str, Any], chance: float, *, most: float) -> None:
    """Bisect the leverage of a row on all paths, and scale its error to them; in place.

    The first paths leave it within three of their standard errors. Where they know none, or all
    paths are over at the lower end, it is lowered while they are over.
    """
    count = trials.paths.count
    size, error = row["leverage"], row["leverage_error"]
    if error > 0.0 and count > trials.count:
        row["leverage_error"] = error * math.sqrt(trials.count / count)
        high = min(math.log(size) + 3.0 * error / size, math.log(most))
        size *= math.exp(-3.0 * error / size)
        for _ in range(CONFIRMED):
            middle = math.exp(0.5 * (math.log(size) + high))
            if trials.count_hits([middle], count, chance * count)[0] > chance * count:
                high = math.log(middle)
            else:
                size = middle
        row["leverage"] = size

    row |= measure(trials, row["leverage"], count)
    while row["p_liquidation"] > chance:
        row["leverage"] *= min((chance / row["p_liquidation"]) ** 0.25, 0.99)
        row |= measure(trials, row["leverage"], count)


def choose_grid(policy: AnyPolicy | None, test: Conditions, paths: Paths) -> core.FloatArray:
    """Return the leverages, or factors on those of a policy, that a search scans, increasing."""
    if policy is not None:
        return np.geomspace(0.1, 20.0, 16)
    account = test.account
    venues = [*engine.read_venues(test.venue, paths.markets).values()]
    most = min(1000.0, *(max(row.max_leverage for row in each.brackets) for each in venues))
    if len(venues) == 1:
        (own,) = fix_margin_tables({"": venues[0]}, paths.calendar.time[0]).values()
        cost = find_newest(own.fees.taker) + find_newest(own.slippage.rate)
        held = (
            min(row.cap / account.capital, row.max_leverage / (1.0 + cost * row.max_leverage))
            for row in own.brackets
        )
        most = min(most, max(held))
    limits = [*core.list_values(account.max_leverage), *core.list_values(account.venue_leverage)]
    most = min([most, *(each for each in limits if isinstance(each, int | float))])
    return np.geomspace(min(0.5, 0.5 * most), most, 16)


def scale_policy(policy: AnyPolicy | None, size: float) -> AnyPolicy:
    scaled: Any = Scaled  # a combinator takes its policies first
    if isinstance(policy, Mapping):
        return {name: scaled(each, factor=size) for name, each in policy.items()}
    return HoldOnce(size=size) if policy is None else scaled(policy, factor=size)


@dataclass(frozen=True, eq=False, repr=False)
class LeverageFrontier(SettingsResult):
    """Growth against the probability of liquidation, by leverage or by factor on a policy.

    Attributes
    ----------
    table : DataFrame
        By ``source`` (paths with the drift, paths with none, history) and ``leverage`` or
        ``factor``: ``growth``, the median log growth per year (minus infinity where half of the
        accounts have nothing left), ``p_liquidation`` with ``p_liquidation_simulation_low`` and
        ``p_liquidation_simulation_high`` (95 %, Clopper and Pearson), and ``accounts``, their
        number: paths, or starts in history that have no bar in common.
    best : DataFrame
        By ``source``, where the median account grows most: ``size``, ``growth``, their standard
        errors over the accounts, ``size_error`` and ``growth_error`` (bootstrap), there
        ``p_liquidation`` and ``wiped_out``, the share of ruined accounts, and ``is_at_end``:
        whether it is the lowest or the highest size that was tried. On paths it is refined between
        the sizes of the table.
    """

    table: pd.DataFrame
    best: pd.DataFrame

    kind = "leverage-frontier"
    called = "leverage frontier"

    @property
    def heading(self) -> str:
        return f"How much leverage: {self.note}, within {self.settings['horizon']}"

    @property
    def note(self) -> str:
        return f"{self.settings['drift']}, and none beside it"

    @property
    def verdict(self) -> str:
        source, size = self.best.index[0], self.table.index.names[1]
        row: Any = self.best.iloc[0]
        chance, lost = (core.format_chance(float(row[x])) for x in ("p_liquidation", "wiped_out"))
        error = f" ± {row['size_error']:.2g}" if row["size_error"] > 0.0 else ""
        end = ", the end of those tried," if row["is_at_end"] else ""
        return (
            f"The median account grows most at a {size} of {row['size']:.3g}{error}{end} on "
            f"{source}; {lost} are wiped out, and {chance} of accounts are liquidated there."
        )

    def find_best(self, source: str) -> float:
        """Return the leverage, or factor, at which the median account of a source grows most."""
        best: Any = self.best.loc[source, "size"]
        return float(best)

    @property
    def details(self) -> str:
        past = "History's accounts are new at opens a horizon apart."
        if HISTORY not in self.table.index.get_level_values(0):
            past = f"History has no row: it is no longer than {self.settings['horizon']}."
        sources = list(dict.fromkeys(self.table.index.get_level_values(0)))
        others = [f"{self.find_best(name):.3g} on {name}" for name in sources[1:]]
        return (
            f"It grows most at {', '.join(others)}. The drift is an assumption: without one, the "
            f"median only falls with leverage, and that of history is mostly noise. {past}"
        )

    def list_parts(self) -> list[Part]:
        flat = self.table.reset_index()
        sources, size = list(dict.fromkeys(flat["source"])), self.table.index.names[1]
        colors = dict(zip(sources, ("accent", "neutral", "ink"), strict=False))
        growth = self.table["growth"].replace(-np.inf, np.nan)
        risk = pd.DataFrame({name: growth.where(flat["source"].to_numpy() == name).to_numpy()
                             for name in sources}, flat["p_liquidation"])  # fmt: skip
        by_size = growth.where(growth >= -1.0).unstack(0)[sources].dropna(how="all")
        caption = "Growth under -100 % a year is not drawn."
        low, high = r.name_interval("p_liquidation")
        heads = {
            "growth": Head("median log growth", "per year", "growth"),
            low: Head("95 % interval", "", "chance", high),
            "accounts": Head("accounts", "", "count"),
        }
        best = {
            "size": Head(str(size), "highest growth", "decimals"),
            "size_error": Head("± its error", "", "decimals"),
            "growth": Head("median log growth", "per year", "growth"),
            "growth_error": Head("± its error", "", "growth"),
            "wiped_out": Head("wiped out", "of accounts", "chance"),
            "is_at_end": Head("at the end of the grid", "", "claim"),
        }
        return [Part("frontier", "Growth and risk", "All leverages see the same paths.", (
            ShownChart("risk", "Median log growth a year by probability of liquidation", "",
                       risk, "cloud", colors, "probability of liquidation", "log growth",
                       percent="xy", has_legend=True, height=380),
            ShownChart("size", f"Median log growth a year by {size}", caption, by_size, "points",
                       colors, str(size), percent="y", has_legend=True),
            ShownTable(self.best, "Highest median growth", labels=Head("source"), heads=best),
            ShownTable(self.table, labels=Head("source"), heads=heads),
        ), shows="both")]  # fmt: skip


class Outcomes(NamedTuple):
    """What became of the accounts of one size, each of shape (n,): log growth per year, events."""

    growth: core.FloatArray
    is_liquidated: core.BoolArray
    is_ruined: core.BoolArray

    @property
    def median(self) -> float:
        return float(np.median(self.growth))


GOLDEN = 0.5 * (math.sqrt(5.0) - 1.0)
REFINED = 12
"""Evaluations of the golden section, which narrow the gap to .618^11 = .5 % of it."""
RESAMPLED = 200
"""Bootstrap samples of the accounts behind a standard error."""


def refine_best(known: dict[float, Outcomes], simulate: Callable[[float], Outcomes]) -> None:
    """Add sizes between the neighbors of the best one, by the golden section of its log."""
    sizes = sorted(known)
    place = max(range(len(sizes)), key=lambda k: known[sizes[k]].median)
    low = math.log(sizes[max(place - 1, 0)])
    high = math.log(sizes[min(place + 1, len(sizes) - 1)])
    if not high > low:
        return

    def measure_at(log: float) -> float:
        size = math.exp(log)
        if size not in known:
            known[size] = simulate(size)
        return known[size].median

    inner = high - GOLDEN * (high - low)
    outer = low + GOLDEN * (high - low)
    at_inner, at_outer = measure_at(inner), measure_at(outer)
    for _ in range(REFINED - 2):
        if at_inner >= at_outer:
            high, outer, at_outer = outer, inner, at_inner
            inner = high - GOLDEN * (high - low)
            at_inner = measure_at(inner)
        else:
            low, inner, at_inner = inner, outer, at_outer
            outer = low + GOLDEN * (high - low)
            at_outer = measure_at(outer)


def describe_best(known: Mapping[float, Outcomes], seed: int) -> dict[str, Any]:
    """Return the size whose median account grows most, and standard errors over the accounts.

    They are the deviations of its size, and of its growth, over bootstrap samples of the accounts,
    the same accounts at all sizes.
    """
    sizes = np.array(sorted(known))
    growth = np.array([known[size].growth for size in sizes.tolist()])
    medians = np.median(growth, axis=1)
    best = int(np.argmax(medians))
    rng, n = np.random.default_rng(seed), growth.shape[1]
    drawn_sizes, drawn_growth = np.empty((2, RESAMPLED))
    for k in range(RESAMPLED):
        again = np.median(growth[:, rng.integers(0, n, n)], axis=1)
        drawn_sizes[k] = sizes[int(np.argmax(again))]
        drawn_growth[k] = again[best]
    finite = drawn_growth[np.isfinite(drawn_growth)]
    chosen = known[float(sizes[best])]
    return {
        "size": float(sizes[best]),
        "size_error": float(np.std(drawn_sizes)),
        "growth": float(medians[best]),
        "growth_error": float(np.std(finite)) if len(finite) else math.nan,
        "p_liquidation": float(np.mean(chosen.is_liquidated)),
        "wiped_out": float(np.mean(chosen.is_ruined)),
        "is_at_end": best in {0, len(sizes) - 1},
    }


@core.checked_only("compile", "progress", "model")
def leverage_frontier(
    conditions: Conditions,
    policy: AnyPolicy | None = None,
    *,
    drift: Drift,
    horizon: str = "90d",
    model: str | path_models.PathModel | type[path_models.PathModel] = "filtered",
    paths: int = 2_000,
    seed: int = 0,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
) -> LeverageFrontier:
    """Answer :meth:`backtest.Backtest.leverage_frontier`, which documents it."""
    how: Any = {"paths": paths, "horizon": horizon, "seed": seed}
    drawn = [simulate_paths(plain(conditions).market, model, **how, drift=x) for x in (drift, 0.0)]
    sizes = choose_grid(policy, conditions, drawn[0])
    bars = r.read_horizons(drawn[0], horizon)[horizon]
    years = core.parse_duration(horizon) / YEAR
    begun = float(conditions.account.capital + conditions.account.reserve)
    told = [describe_drift(each.describe()).partition(";")[0] for each in drawn]
    named = {
        "paths without drift" if x == "no drift" else f"paths with {x}": each
        for x, each in zip(told, drawn, strict=True)
    }
    rows: dict[tuple[str, float], dict[str, float]] = {}
    found: dict[str, dict[float, Outcomes]] = {}
    total = len(sizes) * (len(named) + 1) + REFINED * len(named)

    def report() -> None:
        core.report_progress(progress, min(sum(map(len, found.values())), total), total)

    def read(wealth: Any, is_hit: Any, is_ruined: Any) -> Outcomes:
        with np.errstate(divide="ignore"):
            growth = np.log(np.maximum(wealth, 0.0) / begun) / years
        return Outcomes(growth, np.asarray(is_hit), np.asarray(is_ruined))

    def add(source: str, size: float, known: Outcomes) -> None:
        n = len(known.growth)
        share = r.describe_share("p_liquidation", int(known.is_liquidated.sum()), n)
        rows[source, size] = {"growth": known.median, **share, "accounts": n}

    for source, each in named.items():
        known = found[source] = {}
        first = PathsRunner(each, scale_policy(policy, sizes[0]), conditions, compile=compile)

        def simulate(size: float, first: PathsRunner = first) -> Outcomes:
            runner = first.with_policy(scale_policy(policy, size))
            lives = [*runner.run_chunks()]
            report()
            return read(
                np.concatenate([x.wealth[:, bars - 1] for x in lives]),
                np.concatenate([r.find_first(x.liquidations[:, :bars]) < bars for x in lives]),
                np.concatenate([x.is_ruined[:, bars - 1] != 0.0 for x in lives]),
            )

        for size in sizes.tolist():
            known[size] = simulate(size)
            add(source, size, known[size])
        refine_best(known, simulate)
    begins = np.arange(0, drawn[0].markets.n_bars - bars, bars)  # no bar is in two accounts
    first = PathsRunner(drawn[0], scale_policy(policy, sizes[0]), conditions, compile=compile)
    for size in sizes.tolist() if len(begins) else ():
        runner = first.with_policy(scale_policy(policy, size))
        begins = begins[begins >= runner.warm_up.known]
        if not len(begins):
            continue
        past = [
            (life[engine.WEALTH, -1], life[engine.LIQUIDATED, 1:].any(), life[engine.RUINED, -1])
            for _, life in runner.live_past(begins, bars + 1)
        ]
        wealth, is_hit, is_ruined = map(np.array, zip(*past, strict=True))
        found.setdefault(HISTORY, {})[size] = read(wealth, is_hit, is_ruined != 0.0)
        add(HISTORY, size, found[HISTORY][size])
        report()
    label = "leverage" if policy is None else "factor"
    index = pd.MultiIndex.from_tuples(rows, names=["source", label])
    settings = r.describe_terms(policy or "one position, held", conditions) | {
        "horizon": horizon, "drift": next(iter(named)), "paths": drawn[0].describe(),
    }  # fmt: skip
    table = pd.DataFrame(list(rows.values()), index=index)
    best = pd.DataFrame(
        {source: describe_best(known, seed) for source, known in found.items()}
    ).T.rename_axis("source")
    best = best.astype({name: bool if name == "is_at_end" else float for name in best})
    return LeverageFrontier(table, best, settings=settings, market=conditions.market)
