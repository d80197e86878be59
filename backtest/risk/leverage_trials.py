"""Accounts of several sizes on the same paths or starts, and the searches among them."""

from __future__ import annotations

import functools
import math
from collections import Counter
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
ROUGH = 256
"""Paths on which the grid is scanned."""
SEARCHED = 2000
"""Paths on which the gap is narrowed."""
ROUNDS = 2
"""Times that the gap is narrowed after the scan."""
LANES = 6
"""Leverages inside the gap at a time."""
HISTORY = "history"
"""The row of history."""
LONG_RUN = ", long run"
"""What the name of a model has that starts at the long-run volatility."""


def name_models(drawn: Sequence[Paths]) -> dict[str, Paths]:
    """Return the paths by the name of their model; the second of a kind is ``"filtered 2"``.

    Models whose paths begin at today's volatility are there twice: the second of each begins at the
    long-run volatility, that of the last returns.
    """
    named: dict[str, Paths] = {}
    counts = Counter[str]()
    for paths in drawn:
        name = type(paths.model).__name__.lower()
        counts[name] += 1
        if counts[name] > 1:
            name = f"{name} {counts[name]}"
        named[name] = paths

        long_run: dict[str, Any] = {}
        for instrument, model in paths.models.items():
            if not hasattr(model, "variance_now"):
                continue
            market = paths.markets[instrument]
            returns = log_returns(market)[1:]
            recent = returns[-path_models.MOST_RETURNS :]
            variance = float(np.mean(recent**2))
            long_run[instrument] = model.override(variance_now=variance)
        if long_run:
            models = {**paths.models, **long_run}
            named[name + LONG_RUN] = replace(paths, models=models)
    return named


class BlockCount(NamedTuple):
    """Of some paths those on which a size is liquidated, and those that leave it with nothing."""

    liquidated: int
    ruined: int


@dataclass(eq=False)
class PathTrials:
    """Accounts of several sizes on the same paths; ``make`` returns what runs one of a size.

    ``bars`` and ``horizon``, in ns, are the time within which liquidations count. ``rough`` trials
    scan the grid, and ``count`` narrow the gap. ``kept`` has by size what runs its accounts, or of
    history what became of them; ``counted`` the liquidated paths that are known before a search,
    and ``blocks`` those of each block that was run.
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
        self.blocks: dict[tuple[float, int, int], BlockCount] = {}
        self.rough = min(ROUGH, self.paths.count)
        self.count = min(SEARCHED, self.paths.count)

    def keep(self, size: float) -> PathsRunner:
        """Return what runs accounts of a size, compiled before threads start."""
        if size not in self.kept:
            self.kept[size] = self.make(size)
            _ = self.kept[size].loop
        runner: PathsRunner = self.kept[size]
        return runner

    def count_hits(
        self,
        sizes: Sequence[float],
        count: int,
        most: float,
    ) -> list[int]:
        """Return how many of the first paths liquidate each size.

        A size that is over ``most`` is followed no further: its count is a lower bound.
        """
        for size in sizes:
            self.keep(size)
        hits = [0] * len(sizes)
        with ThreadPoolExecutor(self.threads, thread_name_prefix="paths") as pool:
            for first in range(0, count, self.paths.block):
                left = [k for k, hit in enumerate(hits) if hit <= most]
                if not left:
                    break

                stop = min(first + self.paths.block, count)
                sizes_left = [sizes[k] for k in left]
                if any((size, first, stop) not in self.blocks for size in sizes_left):
                    self.paths.draw_all(first, stop)  # which keeps them for all sizes

                count_one = functools.partial(self.count_block, first, stop)
                blocks = pool.map(count_one, sizes_left)
                for k, block in zip(left, blocks, strict=True):
                    hits[k] += block.liquidated
        return hits

    def count_ruined(self, size: float, count: int) -> int:
        """Return how many of the first paths leave an account of a size with nothing."""
        ruined = 0
        for first in range(0, count, self.paths.block):
            stop = min(first + self.paths.block, count)
            ruined += self.count_block(first, stop, size).ruined
        return ruined

    def count_block(
        self,
        first: int,
        stop: int,
        size: float,
    ) -> BlockCount:
        """Return how many of the paths from ``first`` on, before ``stop``, lose a size.

        A size is a leverage. Each block of paths is run once, and its counts are kept.
        """
        key = (size, first, stop)
        if key not in self.blocks:
            lives = self.keep(size).run_block(first, stop)
            first_bars = r.find_first(lives.liquidations[:, : self.bars])
            is_liquidated = first_bars < self.bars
            is_ruined = lives.is_ruined[:, self.bars - 1] != 0.0
            self.blocks[key] = BlockCount(
                int(np.sum(is_liquidated)),
                int(np.sum(is_ruined)),
            )
        return self.blocks[key]


class HistoryTrials(PathTrials):
    """Accounts that are new at each day's first open of history."""

    def begin(self, size: float, past: PastStarts | None = None) -> None:
        """Count the starts with the whole horizon ahead into ``count`` and ``rough``.

        It must come before any search. The starts are those of the first ``size`` that is tried;
        what became of its accounts is ``past`` where that is known, and is kept.
        """
        if past is not None:
            self.kept[size] = past
        is_whole = self.find_past(size).room >= self.bars
        self.count = int(np.sum(is_whole))
        self.rough = self.count

    def find_past(self, size: float, most: float = math.inf) -> PastStarts:
        """Return what became of the starts of a size; over ``most`` liquidations it ends.

        What is complete is kept for the next call.
        """
        if size in self.kept:
            known: PastStarts = self.kept[size]
            return known
        accounts = self.make(size)
        past = accounts.find_past(self.bars, least=self.bars, most=most)
        is_liquidated = past.firsts < self.bars
        if np.count_nonzero(is_liquidated) <= most:
            self.kept[size] = past
        return past

    def count_hits(self, sizes: Sequence[float], count: int, most: float) -> list[int]:  # noqa: ARG002 - as that of paths
        """Return how many starts with the whole horizon ahead liquidate each size."""
        hits = []
        for size in sizes:
            past = self.find_past(size, most)
            is_whole = past.room >= self.bars
            is_hit = is_whole & (past.firsts < self.bars)
            hits.append(int(np.sum(is_hit)))
        return hits

    def describe(self, size: float) -> dict[str, float]:
        """Return starts, those apart, and the largest probability that these leave possible."""
        past = self.find_past(size)
        summary = past.summarize(self.bars, self.horizon)
        apart = int(summary["history_apart"])
        (all_hits,) = self.count_hits([size], self.count, math.inf)
        hits, high = bound_apart(all_hits / self.count, apart)
        return {
            "starts": self.count,
            "apart": apart,
            "hits": hits,
            "high": high,
        }


def search_leverage(
    trials: PathTrials,
    sizes: core.FloatArray,
    chance: float,
) -> tuple[dict[str, Any], list[float]]:
    """Return the row of the largest leverage at a chance, and the probability by size.

    The row has the columns of the table of ``MaxLeverage``. The probabilities are those of
    ``sizes``, counted on the first trials alone (``trials.rough`` of them): roughly, but for all
    sizes. Where they first pass the chance the search begins, which counts all trials. Every size
    that it tries has the same paths.
    """
    rough_hits = trials.count_hits(sizes.tolist(), trials.rough, math.inf)
    rough = [hits / trials.rough for hits in rough_hits]
    known = SizeHits(trials, chance)
    grid = [0.0, *map(float, sizes)]
    best = find_largest(known, grid, guess_place(rough, chance))

    chance_there = measure(trials, best, trials.count, known.hits.get(best))
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

    ruined = trials.count_ruined(best, trials.count)
    row["wiped_out"] = ruined / trials.count
    if not is_limited:
        row["leverage_error"] = measure_error(
            trials,
            best,
            chance=chance_there["p_liquidation"],
            most=float(sizes[-1]),
        )
    return row, rough


class SizeHits:
    """How many trials liquidate each size that was tried, and whether that is over a chance."""

    def __init__(self, trials: PathTrials, chance: float) -> None:
        self.trials = trials
        self.limit = chance * trials.count
        self.hits: dict[float, int] = {}

    def count(self, sizes: Sequence[float]) -> None:
        """Count the hits of sizes that were not tried, all on the same draws."""
        untried = [size for size in sizes if size not in self.hits]
        counts = self.trials.count_hits(untried, self.trials.count, self.limit)
        self.hits.update(zip(untried, counts, strict=True))

    def is_over(self, size: float) -> bool:
        """Return whether a size is liquidated more often than the chance."""
        self.count([size])
        return self.hits[size] > self.limit


def find_largest(
    known: SizeHits,
    grid: Sequence[float],
    rough_place: int,
) -> float:
    """Return the largest size that is not over the chance; what is tried is kept in ``known``.

    ``grid`` begins with 0, which is never over. ``rough_place`` is where the search begins on it.
    """
    place = find_first_over(known, grid, rough_place)
    largest = grid[place - 1]
    if place == len(grid):
        return largest
    return narrow_gap(known, largest, grid[place])


def guess_place(shares: Sequence[float], chance: float) -> int:
    """Return the place on the grid of the first size whose share is over a chance, or the last one.

    ``shares`` are those of the grid after its first size, 0.
    """
    for place, share in enumerate(shares, 1):
        if share > chance:
            return place
    return len(shares)


def find_first_over(
    known: SizeHits,
    grid: Sequence[float],
    place: int,
) -> int:
    """Return the place of the first size of the grid that is over, ``len(grid)`` if none is.

    From a rough place it goes up to a size that is over, then down while the one below is too.
    """
    # The two that most probably enclose it are counted together, which draws their paths once.
    lower = max(place - 1, 1)
    known.count(grid[lower : place + 1])
    while place < len(grid) and not known.is_over(grid[place]):
        place += 1
    while 1 < place < len(grid) and known.is_over(grid[place - 1]):
        place -= 1
    return place


def narrow_gap(known: SizeHits, low: float, high: float) -> float:
    """Return the largest size found not over between one that is not, and one that is.

    In each round some sizes between them are tried at once. Where the first is over, the gap ends
    at it, and begins at the size before.
    """
    for _ in range(ROUNDS):
        # In logarithms, which a size of 0 has not.
        lowest = max(low, 0.01 * high)
        inside = np.geomspace(lowest, high, LANES + 2)[1:-1].tolist()
        known.count(inside)
        for size in inside:
            if known.is_over(size):
                high = size
                break
            low = size
    return low


class Searched(NamedTuple):
    """What a search found: the sizes tried, increasing, and what each source says of them."""

    sizes: core.FloatArray
    rows: dict[str, dict[str, Any]]
    columns: dict[str, list[float]]


def search_grid(
    trials: Sequence[PathTrials],
    sizes: core.FloatArray,
    chance: float,
    progress: Progress | None,
) -> Searched:
    """Return the largest leverage of each source whose probability of a loss is at most ``chance``.

    ``sizes`` are the grid of leverages, which rise. A search uses some of the paths of a source.
    The smallest leverage of all sources is what counts, so it is confirmed on all paths of its own.
    """
    rows: dict[str, dict[str, Any]] = {}
    shares_by_source: dict[str, list[float]] = {}
    for n_done, source in enumerate(trials):
        core.report_progress(progress, n_done, len(trials))
        row, shares = search_leverage(source, sizes, chance)
        rows[source.name] = row
        shares_by_source[source.name] = shares

    # To confirm a leverage writes into its row. That may make another source the smallest, which is
    # confirmed next, until the smallest has been. History has no more paths than it has.
    unconfirmed = {}
    for source in trials:
        if not isinstance(source, HistoryTrials):
            unconfirmed[source.name] = source

    def find_smallest() -> str:
        return min(rows, key=lambda name: rows[name]["leverage"])

    smallest = find_smallest()
    while smallest in unconfirmed:
        source = unconfirmed.pop(smallest)
        confirm(source, rows[smallest], chance, most=float(sizes[-1]))
        smallest = find_smallest()
    core.report_progress(progress, len(rows), len(rows))
    return Searched(sizes, rows, shares_by_source)


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
    # By size, the share of accounts that each source that was asked liquidates.
    shares: dict[float, dict[str, float]] = {}
    best = 0.0
    least_over = most
    is_limited = True
    size = start
    for done in range(evaluations):
        shares[size] = measure_sources(sources, size, chance)
        if max(shares[size].values()) > chance:
            least_over = size
            is_limited = False
        else:
            best = size
        core.report_progress(progress, done + 1, evaluations)

        # The middle in logarithms; where no size is known to do, a tenth of the one that is over.
        size = math.sqrt(max(best, 0.01 * least_over) * least_over)

    sizes = sorted(shares)
    columns = {}
    for source in sources:
        columns[source.name] = [shares[size].get(source.name, math.nan) for size in sizes]

    rows = {}
    for source in sources[::-1]:
        # Of a size that is over, paths were counted until it was: its share is a lower bound.
        complete = [share for share in columns[source.name] if share <= chance]
        share_of_best = shares.get(best, {}).get(source.name, 0.0)
        hits = round(share_of_best * source.count)
        rows[source.name] = {
            "leverage": best,
            "leverage_error": math.nan,
            **measure(source, best, source.count, hits),
            "wiped_out": math.nan,
            "is_monotone": complete == sorted(complete),
            "is_limited": is_limited,
        }
    return Searched(np.array(sizes), rows, columns)


def measure_sources(
    sources: Sequence[PathTrials],
    size: float,
    chance: float,
) -> dict[str, float]:
    """Return the share of each source on which a size is liquidated, until one is over a chance."""
    shares: dict[str, float] = {}
    for source in sources:
        hits = source.counted.get(size)
        if hits is None:
            most = chance * source.count
            (hits,) = source.count_hits([size], source.count, most)

        shares[source.name] = hits / source.count
        if shares[source.name] > chance:
            break

    return shares


def measure(
    trials: PathTrials,
    size: float,
    count: int,
    hits: int | None = None,
) -> dict[str, float]:
    """Return the probability of a size on the first trials; ``hits`` are counted if not given."""
    if hits is None:
        (hits,) = trials.count_hits([size], count, math.inf)
    row = r.describe_share("p_liquidation", hits, count)
    row |= {"paths": count}
    if isinstance(trials, HistoryTrials):  # whose starts overlap
        interval = r.name_interval("p_liquidation")
        row |= dict.fromkeys(interval, math.nan)
    return row


def measure_error(
    trials: PathTrials,
    size: float,
    chance: float,
    *,
    most: float,
) -> float:
    """Return the standard error of the size that is liquidated with a chance, over the paths.

    By the delta method in logarithms: the relative error of the chance over the slope d log(chance)
    / d log(size). NaN if there is no slope, or none was liquidated.
    """
    # The slope, from a size on each side of it; none is over ``most``. All have the same paths.
    smaller = size * math.exp(-SLOPE_STEP)
    larger = min(size * math.exp(SLOPE_STEP), most)
    counts = trials.count_hits([smaller, larger], trials.count, most=math.inf)
    fewer_hits, more_hits = counts
    if not more_hits > fewer_hits or chance == 0.0:
        return math.nan

    # Half a hit is added to each, as 0 hits have no logarithm.
    ratio_of_hits = (more_hits + 0.5) / (fewer_hits + 0.5)
    log_ratio_of_hits = math.log(ratio_of_hits)
    slope = log_ratio_of_hits / math.log(larger / smaller)

    # The chance of n paths has the variance chance (1 - chance) / n.
    relative_variance = (1.0 - chance) / (trials.count * chance)
    relative_error = math.sqrt(relative_variance)
    return size * relative_error / slope


def confirm(
    trials: PathTrials,
    row: dict[str, Any],
    chance: float,
    *,
    most: float,
) -> None:
    """Search the leverage of a row once more, among all paths, and write the row anew.

    ``row`` has the leverage that the first paths found, and its error. Where the error is 0 or NaN
    there is nothing to search: the first paths are all of them, or have no event. At the leverage
    that is written at most ``chance`` of all paths have the event. ``most`` is the largest leverage
    that was asked for. Error, probabilities and the share that is wiped out are of all paths too.
    """
    count = trials.paths.count
    hits = None
    error = row["leverage_error"]
    if error > 0.0 and count > trials.count:
        row["leverage_error"] = error * math.sqrt(trials.count / count)

        # Within three standard errors in logarithms, and up to the largest that was asked for. The
        # upper end is passed as a logarithm, as it is halved there.
        farthest = 3.0 * error / row["leverage"]
        low = row["leverage"] * math.exp(-farthest)
        log_high = min(math.log(row["leverage"]) + farthest, math.log(most))
        row["leverage"], hits = bisect_on_all(trials, low, log_high, chance * count)

    searched = row["leverage"]
    row |= measure(trials, row["leverage"], count, hits)

    # Even the lower end may be over, at which nothing was counted. Each step goes down to where the
    # probability would be right if it grew with the fourth power of the leverage, by 1 % or more.
    while row["p_liquidation"] > chance:
        factor = (chance / row["p_liquidation"]) ** 0.25
        row["leverage"] *= min(factor, 0.99)
        row |= measure(trials, row["leverage"], count)

    # What else the row says is of this leverage, too. One that was lowered is under the largest.
    ruined = trials.count_ruined(row["leverage"], count)
    row["wiped_out"] = ruined / count
    if row["leverage"] < searched:
        row["is_limited"] = False


def bisect_on_all(
    trials: PathTrials,
    low: float,
    log_high: float,
    allowed: float,
) -> tuple[float, int | None]:
    """Return the largest leverage found at which at most ``allowed`` of all paths have the event.

    It lies between ``low`` and the exponential of ``log_high``, and is halved in logarithms. With
    it comes how many paths have the event: None where it is ``low``, at which nothing was counted.
    """
    leverage = low
    hits = None
    for _ in range(CONFIRMED):
        middle = math.exp(0.5 * (math.log(leverage) + log_high))
        (hits_of_middle,) = trials.count_hits([middle], trials.paths.count, allowed)
        if hits_of_middle > allowed:
            log_high = math.log(middle)
        else:
            leverage = middle
            hits = hits_of_middle
    return leverage, hits
