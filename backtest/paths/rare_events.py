"""Rare liquidations: paths pushed towards them, by tilting the model or by splitting paths."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest.base.errors import ParameterError
from backtest.base.units import FloatArray, IntArray
from backtest.paths.path_events import PathEvents, find_first, reduce_lives
from backtest.paths.path_model import count_per_year
from backtest.paths.path_set import DrawPlan, make_keys, mix_words
from backtest.paths.paths_runner import PathsRunner, Progress
from backtest.paths.risk_intervals import (
    LEAST_SAMPLE,
    RiskEstimate,
    estimate_repeats,
    estimate_weighted,
)

SEARCHED = 256
"""Paths of each step in the search for a force."""
DOUBLINGS = 24
WANTED = 0.5
"""Share of tilted paths that should be liquidated."""
REPEATS = 20
"""Independent repetitions of splitting, for its interval."""
KEPT = 0.2
"""Share of paths that reach the next level of splitting."""
MOST_LEVELS = 30


class Tilted(NamedTuple):
    """Paths of a tilted model: their events, and what undoes the tilt."""

    events: PathEvents
    force: float
    psi: float

    def list_path_weights(self, kind: int, bars: int) -> FloatArray:
        """Return the weights of the paths with an event of a kind within some bars, 0 for others.

        Kinds are the rows of :attr:`PathEvents.move`. The weight is that at the event: what comes
        after it does not count.
        """
        events = self.events
        first = (events.liquidated, events.ruined, events.called)[kind]
        weights = np.exp(-self.force * events.move[kind] + self.psi * (first + 1))
        return np.where(first < bars, weights, 0.0)


def run_tilted(
    runner: PathsRunner,
    bars: IntArray,
    force: float,
    count: int,
    threads: int,
    progress: Progress | None,
) -> Tilted | None:
    """Return the events of paths under a force on the log price; None if it is too strong."""
    paths = runner.paths
    moved = paths.model.tilt(force, count_per_year(paths.history))
    if moved is None:
        return None
    model, psi = moved
    own = PathsRunner(
        paths=paths.with_settings(model=model, antithetic=False, count=count),
        policy=runner.policy,
        venue=runner.venue,
        account=runner.account,
        signal=runner.signal,
        compile=runner.compile,
    )
    lives = own.run_chunks(threads=threads, progress=progress)
    return Tilted(reduce_lives(lives, bars, float(paths.history.close[-1]), force, psi), force, psi)


def find_force(runner: PathsRunner, bars: int) -> float | None:
    """Return a force under which about half of the paths are liquidated within some bars.

    Both directions are tried, the weaker one that suffices is taken. None if none does.
    """
    closes = runner.paths.with_settings(antithetic=False).closes(
        0, min(SEARCHED, len(runner.paths))
    )
    spread = float(np.std(np.diff(np.log(closes), axis=1))) * math.sqrt(bars)
    force = 0.5 / max(spread, 1e-12)

    def share(size: float) -> float:
        tilted = run_tilted(runner, np.array([bars - 1]), size, SEARCHED, 1, None)
        return -1.0 if tilted is None else float(np.mean(tilted.events.liquidated < bars))

    for _ in range(DOUBLINGS):
        for sign in (-1.0, 1.0):
            if share(sign * force) >= WANTED:
                return sign * narrow(lambda size, s=sign: share(s * size), 0.7 * force, force)
        force *= math.sqrt(2.0)
    return None


def narrow(share: object, low: float, high: float) -> float:
    """Return the smallest force, to an eighth of the gap, that moves enough paths."""
    for _ in range(3):
        middle = 0.5 * (low + high)
        if share(middle) >= WANTED:  # type: ignore[operator] # a function of the force
            high = middle
        else:
            low = middle
    return high


def check_sample(found: RiskEstimate) -> RiskEstimate:
    """Return a weighted estimate, or raise if too few paths carry it."""
    if not found.sample >= LEAST_SAMPLE:
        raise ParameterError(
            f"a weighted estimate needs an effective sample of {LEAST_SAMPLE:g} paths, "
            f"was {found.sample:.0f}",
            where="bt.liquidation_risk, method='tilt'",
            cure="simulate more paths, or use method='auto'",
        )
    return found


def estimate_tilted(tilted: Tilted, kind: int, bars: int, confidence: float) -> RiskEstimate:
    """Return the probability of an event within some bars from tilted paths."""
    return estimate_weighted(tilted.list_path_weights(kind, bars), confidence)


# ---------------------------------------------------------------------------------- splitting


def split_paths(runner: PathsRunner, bars: int, count: int, confidence: float) -> RiskEstimate:
    """Return the probability of a liquidation within some bars, by multilevel splitting.

    The margin ratio at closes measures how near a path is. Levels are set on paths of their own; in
    each repetition, paths that reach a level are drawn with replacement and go on with new random
    numbers, as many as there were. The mean over repetitions is unbiased. It saves a factor of 2 to
    10 over plain paths, not more: a margin ratio at a close says little about a jump.

    Source: Glasserman, Heidelberger, Shahabuddin and Zajic (1999), Multilevel Splitting for
    Estimating Rare Event Probabilities, Operations Research 47(4).
    """
    size = max(count // REPEATS, 100)
    levels = find_levels(runner, bars, size)
    found = [repeat_split(runner, bars, size, levels, k + 1) for k in range(REPEATS)]
    return estimate_repeats(np.array(found), confidence)


def start_plan(runner: PathsRunner, size: int, repeat: int) -> DrawPlan:
    """Return the plan of the first paths of a repetition, none of which the paths contain."""
    numbers = np.arange(size, dtype=np.int64) + (repeat + 1) * 2**40
    keys = make_keys(runner.paths.seed, numbers)
    return DrawPlan(keys[:, None], np.zeros((size, 1), np.int64), np.zeros(size, np.int64))


def run_scores(runner: PathsRunner, plan: DrawPlan, bars: int) -> tuple[FloatArray, IntArray]:
    """Return the margin ratios at closes, infinite from a liquidation on, and its bar, by path."""
    ratios, firsts = [], []
    size = max(32_768 // runner.paths.width, 1)
    for k in range(0, len(plan.keys), size):
        part = slice(k, k + size)
        lives = runner.run_plan(
            DrawPlan(plan.keys[part], plan.since[part], plan.mirrored[part]), k, has_ratio=True
        )
        hit = find_first(lives.liquidations[:, :bars])
        ratio = np.where(np.arange(bars) >= hit[:, None], math.inf, lives.ratio[:, :bars])
        ratios.append(ratio)
        firsts.append(hit)
    return np.concatenate(ratios), np.concatenate(firsts)


def find_levels(runner: PathsRunner, bars: int, size: int) -> list[float]:
    """Return margin ratios that a share of the paths at the level before reach."""
    plan, levels = start_plan(runner, size, 0), [0.0]
    for stage in range(MOST_LEVELS):
        ratio, _ = run_scores(runner, plan, bars)
        level = float(np.quantile(ratio.max(axis=1), 1.0 - KEPT, method="lower"))
        if not levels[-1] < level < math.inf:
            break
        levels.append(level)
        plan = branch(runner, plan, ratio, level, stage, 0)
    return levels[1:]


def branch(
    runner: PathsRunner, plan: DrawPlan, ratio: FloatArray, level: float, stage: int, repeat: int
) -> DrawPlan:
    """Return as many paths as before that go on, by new words, from where some reached a level."""
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
    runner: PathsRunner, bars: int, size: int, levels: list[float], repeat: int
) -> float:
    """Return one estimate of the probability of a liquidation, over fixed levels."""
    plan, chance = start_plan(runner, size, repeat), 1.0
    for stage, level in enumerate(levels):
        ratio, _ = run_scores(runner, plan, bars)
        share = float(np.mean((ratio >= level).any(axis=1)))
        if share == 0.0:
            return 0.0
        chance *= share
        plan = branch(runner, plan, ratio, level, stage, repeat)
    _, first = run_scores(runner, plan, bars)
    return chance * float(np.mean(first < bars))
