"""Searches on made-up surfaces: an evaluator whose Sharpe ratios are a formula of the parameters.

Nothing is run, so that a thousand sets take a millisecond, and the best place is known.
"""

import math
import time
import zlib
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np

import backtest as bt
from backtest.results.measure_table import CORE
from backtest.search import Study, samplers, winner
from backtest.sweep import Rows, VariedTest, count_sets, read_space, set_runs
from tests.kit import ask_test
from tests.scenes import venue_of

MARKET = bt.Market.sample(bars=24 * 40)
SAMPLES = 80
"""Returns per set."""

Columns = dict[str, np.ndarray]


class Hills(bt.Policy):
    x: Annotated[float, bt.Range(0.0, 10.0)] = 5.0
    y: Annotated[float, bt.Range(1.0, 100.0, log=True)] = 10.0

    def leverage(self, bar, account):
        return self.x


class Mixed(bt.Policy):
    """A parameter of every kind; ``depth`` matters in mode b only."""

    x: Annotated[float, bt.Range(0.0, 10.0)] = 5.0
    n: Annotated[int, bt.Range(1, 6)] = 3
    mode: Annotated[str, bt.Choice("a", "b")] = "a"
    depth: Annotated[float, bt.Range(0.0, 1.0, when=("mode", "b"))] = 0.5
    fast: bool = False

    def leverage(self, bar, account):
        return self.x


def dome(sets: Columns) -> Columns:
    """Return a smooth hill: the Sharpe ratio is 2 at x = 6, y = 20 (where there is a y)."""
    far = ((sets["x"] - 6.0) / 5.0) ** 2 + np.log(sets.get("y", 20.0) / 20.0) ** 2
    return {"sharpe": 2.0 - far}


def spike_and_plateau(sets: Columns) -> Columns:
    """Return a plateau of 1 for x from 6 to 9, and a needle of 3 within 0.05 of x = 2."""
    plateau = np.where(np.abs(sets["x"] - 7.5) < 1.5, 1.0 - 0.001 * np.abs(sets["x"] - 7.5), 0.0)
    return {"sharpe": np.where(np.abs(sets["x"] - 2.0) < 0.05, 3.0, plateau)}


class Clock:
    """A clock that only pauses move on, so that no other process takes of a budget in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


class MadeUp:
    """Stands in for the evaluator: measures are a formula of the sets."""

    surface: Callable[[Columns], Columns] = staticmethod(dome)
    pause = 0.0
    """Seconds per call."""
    first = 0
    """The bar with which accounts begin."""
    wait = staticmethod(time.sleep)

    def __init__(self, varied: VariedTest, **_: Any) -> None:
        self.market = varied.test.market
        self.varied = varied
        self.asked: list[tuple[int, int, int | None]] = []

    is_pooled = False

    def evaluate(self, sets, *, first=0, stop=None, returns=False, progress=None) -> Rows:
        """Return the formula's values; zeros for measures it does not give, NaN of failed sets.

        Each set fills 100 orders, unless the formula says otherwise.
        """
        self.wait(self.pause)
        n = count_sets(sets)
        self.asked.append((n, first, stop))

        metrics = {name: np.zeros(n) for name in CORE} | {"ruin_time": np.full(n, math.nan)}
        metrics |= {"turnover": np.ones(n), "fills": np.full(n, 100.0)}
        columns = {name: np.asarray(values) for name, values in sets.items()}
        measures = type(self).surface(columns)
        errors = [str(error) for error in measures.pop("error", [""] * n)]
        metrics |= measures
        has_failed = np.array([error != "" for error in errors])
        for values in metrics.values():
            values[has_failed] = math.nan

        drawn = {}
        if returns:
            drawn = dict(enumerate(self._draw(sets, metrics["sharpe"]).T))
        return Rows(metrics, drawn, errors, np.ones(n, dtype=np.bool_))

    doubts: tuple[str, ...] = ()

    def check_causal(self, sets: Any) -> None:
        """Observe nothing: there is nothing to check."""

    def check_set(self, values: Any) -> None:
        """Observe nothing: there is nothing to check."""

    def _draw(self, sets, sharpes) -> np.ndarray:
        columns = []
        for k, sharpe in enumerate(sharpes):
            word = zlib.crc32(repr([values[k] for values in sets.values()]).encode())
            noise = np.random.default_rng(word).standard_normal(SAMPLES)
            columns.append(0.01 * (noise - noise.mean()) / noise.std() + 0.01 * sharpe / 365**0.5)
        return np.stack(columns, axis=1)


class Drawn:
    """Stands in for a sampler: batches of 32; it keeps the eight best to draw near."""

    batch = 32

    def __init__(self, space, seed, trials) -> None:
        self.rng = np.random.default_rng(seed)
        self.d = len(space.dimensions)
        self.left = trials
        self.kept = np.empty((0, self.d))
        self.scores = np.empty(0)

    def ask(self) -> np.ndarray:
        n = self.batch
        if self.left is not None:
            n = min(self.batch, self.left)
            self.left -= n

        cube = self.rng.random((n, self.d))
        if len(self.kept):
            near = self.kept[self.rng.integers(0, len(self.kept), n // 2)]
            cube[: n // 2] = np.clip(near + 0.05 * self.rng.standard_normal(near.shape), 0.0, 1.0)
        return cube

    def tell(self, cube, score, violation) -> None:
        score = score if score.ndim == 1 else score.mean(axis=1)
        worth = np.where((violation == 0.0) & ~np.isnan(score), score, -1e9)
        everything = np.concatenate([self.scores, worth])
        best = np.argsort(-everything, kind="stable")[:8]
        self.kept = np.concatenate([self.kept, cube])[best]
        self.scores = everything[best]


def make_drawn(name: str, space, *, seed, trials=None, objectives=1) -> Drawn:
    return Drawn(space, seed, trials)


def stand_in(
    surface: Callable[[Columns], Columns] = dome,
    pause: float = 0.0,
    put: Callable[[object, str, object], None] = setattr,
) -> None:
    """Put a surface in place of the evaluator, and the plain sampler in place of the others."""
    evaluator = type("Surface", (MadeUp,), {"surface": staticmethod(surface), "pause": pause})
    put(set_runs, "choose_evaluator", lambda pool, *, is_separate: evaluator)
    put(samplers, "make_sampler", make_drawn)
    put(winner, "list_benchmarked", lambda task, values, has_holdout: [])  # nothing is run


def space_of(policy: type[bt.Policy], given: Any = None):
    test = bt.Backtest(MARKET, venue=venue_of(), account=bt.Account())
    return read_space(VariedTest(test, policy), given)


def seek(policy: Any = Hills, **settings) -> Study:
    terms = {"venue": venue_of(), "account": bt.Account(), "trials": 400, **settings}
    return ask_test("tune", terms.pop("market", MARKET), policy, **terms)
