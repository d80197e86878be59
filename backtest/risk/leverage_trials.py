"""Accounts of several sizes on the same paths or starts, and the searches among them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest.core import Progress
from backtest.indicators import log_returns
from backtest.risk import liquidations as r
from backtest.risk import path_models
from backtest.risk.past_starts import PastStarts, bound_apart
from backtest.risk.path_runner import PathsRunner
from backtest.risk.paths import Paths

SLOPE_STEP = 0.2
"""How far down and up, in the log of the size, the slope of the probability is measured."""
CONFIRMED = 6
"""Times that the answer is halved on all paths: to 1/64 of three standard errors on each side."""
ROUGH, SEARCHED = 256, 2000
"""Paths on which the grid is scanned, and those on which the gap is narrowed."""
ROUNDS, LANES = 2, 6
"""Times that the gap is narrowed after the scan, and leverages inside it at a time."""
HISTORY, LONG_RUN = "history", ", long run"
"""The row of history, and what the name of a model has that starts at the long-run volatility."""


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
