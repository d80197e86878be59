"""What each sampler finds per second of wall time. Prints JSON.

    python benchmarks/tune.py [--seconds 1 10 60] [--seeds 5] [--only NAME ...]

The problem: four parameters (target, half-life, cap, band) of a volatility target on 61,320 hourly
bars of a simulated market that rises by a half a year on top of its noise, so that leverage is
worth having; the highest Calmar ratio, growth over drawdown, which one lucky trade can mend. In
calm times the lowest target asks for more leverage than the widest band, so that every set trades.
Every search calls the same evaluator on both cores, in one process, in turns.

* ``regret``: (best ever - best so far) / best ever, the median over seeds, after so many seconds;
  best ever is that of all runs of all searches; 1 at most, and until any gain was found;
* ``found``: how many seeds end within 0.5 % of the best ever, and the worst regret of all;
* ``evaluations``: the median number of sets it took;
* ``ask_microseconds``: what samplers take to think, per set, evaluation apart.

Searches: auto, sobol and random in bulk, and gp, a set at a time.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from timing import describe_machine, print_json, read_flags

import backtest as bt
from backtest.results import read_objective
from backtest.search.samplers import make_sampler
from backtest.strategies import VolTarget
from backtest.sweep import Evaluator, VariedTest, read_space

VENUE = bt.Venue.simple(
    taker=5e-4, slippage=1e-4, maintenance_rate=0.005, max_leverage=100, liquidation_fee=0.0125,
    lot=0.001,
)  # fmt: skip
ACCOUNT = bt.Account()
SPACE = {
    "target": (0.2, 2.0),
    "half_life": (2.0, 2000.0),
    "account.max_leverage": (1.0, 10.0),
    "account.band": (0.0, 0.2),
}
OBJECTIVE = "calmar"
NEAR = 0.005
"""Regret that counts as found."""
SAMPLERS = ("auto", "gp", "sobol", "random")
GROWTH = 0.5
MARKET_SEED = 7


class TimeUpError(Exception):
    """The seconds of a search are over."""


def make_market(bars: int, seed: int) -> bt.Market:
    """Return the synthetic sample with a steady growth added to its log prices."""
    market = bt.Market.sample(bars=bars, seed=seed)

    def grow(prices: pd.DataFrame | None) -> pd.DataFrame:
        assert prices is not None  # noqa: S101 - the sample has mark prices
        columns = ["open", "high", "low", "close"]
        years = (prices.index - prices.index[0]) / pd.Timedelta(days=365)
        growth = np.exp(GROWTH * np.asarray(years))
        return prices.assign(**{name: prices[name] * growth for name in columns})

    funding = market.funding()
    rates = None if funding is None else funding["rate"]
    frames = {"bars": grow(market.bars()), "mark": grow(market.mark()), "funding": rates}
    return bt.Market.from_frames(**frames, now="2100-01-01")


class Problem:
    """The market and what is to be found; searches see points of the unit cube and their scores."""

    def __init__(
        self, market: bt.Market, venue: bt.Venue = VENUE, space: Mapping[str, Any] = SPACE
    ) -> None:
        self.names = [*space]
        varied = VariedTest(bt.Backtest(market, venue=venue, account=ACCOUNT), VolTarget)
        self.space = read_space(varied, space)
        self.evaluator = Evaluator(varied, metrics="core")
        self.objective = read_objective(OBJECTIVE)

    def judge(self, cube: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and violations, which are of ruin alone, of shape (n,)."""
        metrics = self.evaluator.evaluate(self.space.decode(cube)).metrics
        return self.objective.score(metrics), np.where(metrics["ruined"] > 0, np.inf, 0.0)


class Recorder:
    """Evaluates for one search, and keeps the best so far and when it was known."""

    def __init__(self, problem: Problem, seconds: float) -> None:
        self.problem, self.seconds = problem, seconds
        self.trace: list[tuple[float, float, int]] = []
        self.evaluated = 0
        self.evaluating = 0.0
        self.begun = time.perf_counter()

    def judge(self, cube: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and violations; end the search when its time is up."""
        start = time.perf_counter()
        score, violation = self.problem.judge(cube)

        now = time.perf_counter()
        self.evaluating += now - start
        self.evaluated += len(cube)

        best = float(np.max(score[(violation == 0.0) & np.isfinite(score)], initial=-math.inf))
        before = self.trace[-1][1] if self.trace else -math.inf
        self.trace.append((now - self.begun, max(best, before), self.evaluated))
        if now - self.begun > self.seconds:
            raise TimeUpError
        return score, violation

    def after(self, seconds: float) -> tuple[float, int]:
        """Return the best known after some seconds, and the evaluations it took."""
        known = [(best, n) for at, best, n in self.trace if at <= seconds]
        return known[-1] if known else (-math.inf, 0)


Search = Callable[[Recorder, int], None]


def search_with(name: Any) -> Search:
    """Return a search by a sampler."""

    def search(recorder: Recorder, seed: int) -> None:
        sampler = make_sampler(name, recorder.problem.space, seed=seed)
        while len(cube := sampler.ask()):
            sampler.tell(cube, *recorder.judge(cube))

    return search


def race(
    problem: Problem, searches: dict[str, Search], seconds: float, seeds: int
) -> dict[str, list[Recorder]]:
    """Run every search with every seed, the searches taking turns."""
    runs: dict[str, list[Recorder]] = {name: [] for name in searches}
    for seed in range(seeds):
        for name, search in searches.items():
            recorder = Recorder(problem, seconds)
            with contextlib.suppress(TimeUpError):
                search(recorder, seed)

            runs[name].append(recorder)
            found, n = recorder.after(math.inf)
            sys.stderr.write(f"seed {seed}, {name}: {found:.6g} after {n} evaluations\n")
    return runs


def report_race(runs: dict[str, list[Recorder]], seconds: list[float]) -> dict[str, Any]:
    """Return regrets and costs."""
    best = max(run.after(math.inf)[0] for seeds in runs.values() for run in seeds)

    report: dict[str, Any] = {"best_ever": best, "searches": {}}
    for name, seeds in runs.items():
        regrets = {}
        evaluations = {}
        for limit in seconds:
            ends = [run.after(limit) for run in seeds]
            regrets[f"{limit:g}"] = [min((best - found) / best, 1.0) for found, _ in ends]
            evaluations[f"{limit:g}"] = float(np.median([n for _, n in ends]))

        thinking = [(run.trace[-1][0] - run.evaluating) / run.evaluated * 1e6 for run in seeds]

        report["searches"][name] = {
            "regret": {limit: float(np.median(column)) for limit, column in regrets.items()},
            "found": sum(regret <= NEAR for regret in regrets[f"{max(seconds):g}"]),
            "worst": max(regrets[f"{max(seconds):g}"]),
            "regrets": regrets,
            "evaluations": evaluations,
            "ask_microseconds": float(np.median(thinking)),
            "ended_after_seconds": [run.trace[-1][0] for run in seeds],
        }
    return report


def main() -> None:
    """Measure and print."""
    given = {"seconds": [1.0, 10.0, 60.0], "only": ("none", *SAMPLERS)}
    wanted = read_flags(__doc__, bars=61_320, seeds=5, **given)
    problem = Problem(make_market(wanted.bars, MARKET_SEED))
    searches = {name: search_with(name) for name in SAMPLERS if name in wanted.only}
    start = time.perf_counter()

    problem.judge(np.random.default_rng(0).random((1024, len(problem.names))))
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "bars": problem.evaluator.market.n_bars,
        "sets_per_second": 1024 / (time.perf_counter() - start),
    }

    if searches:
        runs = race(problem, searches, max(wanted.seconds), wanted.seeds)
        report |= report_race(runs, wanted.seconds)
    print_json(report)


if __name__ == "__main__":
    main()
