"""Rare liquidations: paths pushed towards them, by tilting the model or by splitting paths."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray, ParameterError
from backtest.engine import Progress
from backtest.risk.liquidation.path_events import PathEvents, Push, find_first, reduce_lives
from backtest.risk.liquidation.paths_runner import PathsRunner
from backtest.risk.liquidation.risk_intervals import LEAST_SAMPLE, RiskEstimate
from backtest.risk.paths.draw_plan import DrawPlan, make_keys, mix_words
from backtest.risk.paths.tilted_models import tilt_models

SEARCHED = 256
"""Paths of each step in the search for a force, at most as many as are asked for."""
TILTED_SEED = 2**61
"""What the seed of tilted paths is larger by: they join plain paths in one sample."""
STEPS = 12
"""Forces that the search tries, up to 32 standard deviations of the log prices at the horizon."""
WANTED = 0.5
"""Share of tilted paths that should be liquidated."""
REPEATS = 20
"""Independent repetitions of splitting, for its interval."""
KEPT = 0.2
"""Share of paths that reach the next level of splitting."""
MOST_LEVELS = 10
"""Levels that are searched: a tenth one is reached with a probability of 1e-7."""
STAGE_BARS = 32_768
"""Bars of the paths of a stage that are drawn at once."""


def run_tilted(
    runner: PathsRunner,
    bars: IntArray,
    direction: FloatArray,
    force: float,
    count: int,
    threads: int,
    progress: Progress | None,
) -> PathEvents | None:
    paths = runner.paths
    moved = tilt_models(paths, force * direction)
    if moved is None:
        return None
    models, psi = moved
    drawn = paths.with_settings(
        models=models, antithetic=False, count=count, seed=paths.seed + TILTED_SEED
    )
    lives = replace(runner, paths=drawn).run_chunks(threads=threads, progress=progress)
    return reduce_lives(lives, bars, runner.last, Push(direction, force, psi))


def find_force(runner: PathsRunner, bars: int, direction: FloatArray) -> float | None:
    paths = runner.paths.with_settings(antithetic=False)
    count = min(SEARCHED, len(paths))
    logs = [np.log(paths.closes(0, count, name)) for name in paths.names]
    joint = functools.reduce(np.add, (w * each for w, each in zip(direction, logs, strict=True)))
    spread = float(np.std(np.diff(joint, axis=1))) * math.sqrt(bars)
    force = 0.5 / max(spread, 1e-12)

    def share(size: float) -> float:
        last = np.array([bars - 1])
        tilted = run_tilted(runner, last, direction, size, count, 1, None)
        return -1.0 if tilted is None else float(np.mean(tilted.liquidated < bars))

    for _ in range(STEPS):
        for sign in (-1.0, 1.0):
            if share(sign * force) >= WANTED:
                return sign * narrow(lambda size, s=sign: share(s * size), 0.7 * force, force)
        force *= math.sqrt(2.0)
    return None


def narrow(share: object, low: float, high: float) -> float:
    for _ in range(3):
        middle = 0.5 * (low + high)
        if share(middle) >= WANTED:  # type: ignore[operator] # a function of the force
            high = middle
        else:
            low = middle
    return high


def check_sample(found: RiskEstimate) -> RiskEstimate:
    if not found.sample >= LEAST_SAMPLE:
        raise ParameterError(
            f"a weighted estimate needs an effective sample of {LEAST_SAMPLE:g} paths, "
            f"got {found.sample:.0f}",
            where="bt.liquidation_risk, method='tilt'",
            cure="simulate more paths, or use method='auto'",
        )
    return found


# ---------------------------------------------------------------------------------- splitting


class SplitPaths(NamedTuple):
    """The last paths of one repetition of splitting, up to a horizon; their weights add up to 1.

    ``firsts`` (3, n_paths) are the bars of the first liquidation, ruin and margin call, the number
    of bars where there is none; ``wealth`` and ``bad_debt`` (n_paths,) those at the horizon.
    """

    weights: FloatArray
    firsts: IntArray
    wealth: FloatArray
    bad_debt: FloatArray


class StagePaths(NamedTuple):
    ratio: FloatArray
    firsts: IntArray
    wealth: FloatArray
    bad_debt: FloatArray

    def weigh(self, chosen: BoolArray, weight: float) -> SplitPaths:
        n = int(chosen.sum())
        return SplitPaths(
            np.full(n, weight), self.firsts[:, chosen], self.wealth[chosen], self.bad_debt[chosen]
        )


class PathCount:
    def __init__(self, progress: Progress | None, per_repeat: int) -> None:
        self.progress = progress
        self.per_repeat = per_repeat
        self.done = 0

    def add(self, paths: int) -> None:
        self.done += paths
        if self.progress is not None:
            self.progress(self.done, REPEATS * self.per_repeat)

    def end_repeat(self, number: int) -> None:
        self.add(number * self.per_repeat - self.done)


def split_paths(
    runner: PathsRunner,
    bars: int,
    count: int,
    find_progress: Callable[[str], Progress | None],
) -> list[SplitPaths]:
    """Return independent repetitions of paths up to some bars, by multilevel splitting.

    Source: Glasserman, Heidelberger, Shahabuddin and Zajic (1999), Multilevel Splitting for
    Estimating Rare Event Probabilities, Operations Research 47(4).
    """
    size = max(count // REPEATS, 100)
    search = find_progress("searching levels of splitting")
    if search is not None:
        search(0, 0)
    levels = find_levels(runner, bars, size)
    if levels is None:
        return []
    counted = PathCount(find_progress("splitting paths"), size * (len(levels) + 1))
    counted.add(0)
    found = []
    for k in range(1, REPEATS + 1):
        found.append(repeat_split(runner, bars, size, levels, k, counted))
        counted.end_repeat(k)
    return found


def start_plan(runner: PathsRunner, size: int, repeat: int) -> DrawPlan:
    numbers = np.arange(size, dtype=np.int64) + (repeat + 1) * 2**40
    keys = make_keys(runner.paths.seed, numbers)
    return DrawPlan(keys[:, None], np.zeros((size, 1), np.int64), np.zeros(size, np.int64))


def run_stage(
    runner: PathsRunner, plan: DrawPlan, bars: int, counted: PathCount | None = None
) -> StagePaths:
    found = []
    size = min(runner.loop.block, max(STAGE_BARS // runner.paths.width, 1))
    for k in range(0, len(plan.keys), size):
        lives = runner.run_plan(plan.part(k, k + size), k, has_ratio=True)
        events = (lives.liquidations, lives.is_ruined, lives.calls)
        firsts = np.array([find_first(each[:, :bars]) for each in events])
        ratio = np.where(np.arange(bars) >= firsts[0][:, None], math.inf, lives.ratio[:, :bars])
        debt = np.sum(lives.bad_debt[:, :bars], axis=1)
        found.append((ratio, firsts.T, lives.wealth[:, bars - 1], debt))
        if counted is not None:
            counted.add(len(debt))
    ratio, by_path, wealth, debt = (np.concatenate(each) for each in zip(*found, strict=True))
    return StagePaths(ratio, by_path.T, wealth, debt)


def find_levels(runner: PathsRunner, bars: int, size: int) -> list[float] | None:
    plan, levels = start_plan(runner, size, 0), [0.0]
    for stage in range(MOST_LEVELS):
        ratio = run_stage(runner, plan, bars).ratio
        level = float(np.quantile(ratio.max(axis=1), 1.0 - KEPT, method="lower"))
        if not levels[-1] < level < math.inf:
            break
        levels.append(level)
        plan = branch(runner, plan, ratio, level, stage, 0)
    return levels[1:] if np.isinf(ratio).any() else None


def branch(
    runner: PathsRunner, plan: DrawPlan, ratio: FloatArray, level: float, stage: int, repeat: int
) -> DrawPlan:
    reached = np.flatnonzero((ratio >= level).any(axis=1))
    n = len(ratio)
    words = make_keys(runner.paths.seed, np.arange(2 * n) + ((repeat + 1) * 64 + stage) * 2**44)
    chosen = reached[(words[:n] % np.uint64(len(reached))).astype(np.int64)]
    at = (ratio[chosen] >= level).argmax(axis=1)
    fresh = mix_words(words[n:])
    return DrawPlan(
        np.concatenate([plan.keys[chosen], fresh[:, None]], axis=1),
        np.concatenate([plan.since[chosen], at[:, None] + 2], axis=1),
        plan.mirrored,
    )


def repeat_split(
    runner: PathsRunner,
    bars: int,
    size: int,
    levels: list[float],
    repeat: int,
    counted: PathCount,
) -> SplitPaths:
    plan, chance, found = start_plan(runner, size, repeat), 1.0, []
    for stage, level in enumerate([*levels, None]):
        lives = run_stage(runner, plan, bars, counted)
        is_near = lives.ratio >= (math.inf if level is None else level)
        reached = np.asarray(is_near.any(axis=1) & (level is not None))
        found.append(lives.weigh(~reached, chance / size))
        if level is None or not reached.any():
            break
        chance *= float(np.mean(reached))
        plan = branch(runner, plan, lives.ratio, level, stage, repeat)
    weights, by_path, wealth, debt = (
        np.concatenate(each)
        for each in zip(
            *((x.weights, x.firsts.T, x.wealth, x.bad_debt) for x in found), strict=True
        )
    )
    return SplitPaths(weights, by_path.T, wealth, debt)
