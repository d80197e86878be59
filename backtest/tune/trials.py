"""Trials of a search: a sampler proposes sets, which are evaluated, scored, stored and gathered."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import BoolArray, DataError, FloatArray, IntArray, PolicyError
from backtest.base.compile_choice import COMPILING
from backtest.measures import Constraint, Objective, total_violation
from backtest.sweep import (
    ERROR,
    count_sets,
    draw_cube,
    find_different,
    name_column,
    order_columns,
    take_sets,
)
from backtest.sweep.sweep_table import SCORE, STAGE, VIOLATION
from backtest.tune.journal import PART, Batch, Journal

if TYPE_CHECKING:
    from backtest.sweep import Evaluator, Sets, Space
    from backtest.tune.samplers import Sampler, SamplerName

FIRST_PIECE = 16
"""Sets in the first piece, while the rate is unknown."""
GROWTH = 16
"""Largest ratio of the next piece to the last one."""
PIECE_SECONDS = 10.0
"""Sets are evaluated and stored in pieces of about this length, which is what a kill can lose."""
LANES = 64
"""Larger pieces are multiples of this, the sets that the evaluator takes at once."""


class Progress(NamedTuple):
    trials: int
    total: int | None
    best_score: float
    best_values: dict[str, Any]
    seconds: float
    stage: str

    def add(self, batch: Batch) -> Progress:
        is_whole = batch.stage != "part"
        best = find_best(batch) if is_whole else -1
        now = self._replace(
            trials=self.trials + (count_sets(batch.sets) if is_whole else 0),
            seconds=batch.seconds,
            stage=batch.stage,
        )
        if best < 0 or batch.scores[best] <= now.best_score:
            return now
        values = take_sets(batch.sets, best)
        plain = {name: v.item() if hasattr(v, "item") else v for name, v in values.items()}
        return now._replace(best_score=float(batch.scores[best]), best_values=plain)


class Goal(NamedTuple):
    objective: Objective
    constraints: tuple[Constraint, ...]

    def score(
        self, metrics: Mapping[str, FloatArray], failed: BoolArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return scores and violations, of shape (n,) each."""
        scores = np.full(len(failed), np.nan)
        scores[~failed] = self.objective.score(take_sets(metrics, ~failed))
        violation = total_violation(self.constraints, metrics)
        violation[failed | ~(metrics["ruined"] == 0.0)] = np.inf
        return scores, violation

    def list_broken(self, metrics: Mapping[str, float]) -> list[Constraint]:
        columns = {name: np.array([value]) for name, value in metrics.items()}
        known = (each for each in self.constraints if each.name in columns)
        return [each for each in known if each.violation(columns)[0] > 0.0]


def find_best(trials: Batch) -> int:
    """Return the row of the best set, of the first of equals; -1 if none keeps the constraints."""
    scores = worst_where_broken(trials)
    return int(np.argmax(scores)) if np.isfinite(scores).any() else -1


class Examiner:
    def __init__(
        self,
        evaluator: Evaluator,
        goal: Goal,
        journal: Journal,
        *,
        total: int | None = None,
        progress: Callable[[Progress], object] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.evaluator = evaluator
        self.goal = goal
        self.journal = journal
        self.batches: list[Batch] = []
        self.progress = progress
        self.now = Progress(0, total, math.nan, {}, 0.0, "search")
        self.clock = clock
        self.stored = journal.read_next()
        self.seconds = 0.0
        self.since = clock()
        self.piece = FIRST_PIECE
        self.is_warm = False

    @property
    def elapsed(self) -> float:
        return self.seconds + self.clock() - self.since

    def start_clock(self) -> None:
        self.since = self.clock()

    def evaluate(
        self,
        sets: Sets,
        stage: str,
        *,
        first: int = 0,
        stop: int | None = None,
        deadline: float = math.inf,
    ) -> Batch:
        pieces: list[Batch] = []
        n, done = count_sets(sets), 0
        while done < n:
            if not self._has_time(stage, deadline):
                break
            rest = take_sets(sets, slice(done, None))
            if self.stored is not None:
                piece = self._read_stored(rest, stage)
            else:
                piece = self._evaluate(rest, stage, first, stop, deadline)
            pieces.append(piece)
            done += count_sets(piece.sets)
        return join_batches(pieces, sets)

    def _has_time(self, stage: str, deadline: float) -> bool:
        if deadline == math.inf:
            return True
        if self.stored is not None:
            return self.stored.stage == stage
        return self.elapsed < deadline or not self.batches

    def _read_stored(self, sets: Sets, stage: str) -> Batch:
        batch = self.stored
        if batch is None or batch.stage != stage or not starts_with(sets, batch.sets):
            raise DataError(
                f"{self.journal.folder}: batch {self.journal.position - 1:06d} does not hold the "
                "sets that the sampler proposes now; resume with the versions in its manifest"
            )
        self.stored = self.journal.read_next()
        self._add(batch)
        return batch

    def _evaluate(
        self, sets: Sets, stage: str, first: int, stop: int | None, deadline: float
    ) -> Batch:
        if deadline < math.inf and not self.is_warm:
            self._warm_up(sets, first, stop)
        began = self.clock()
        asked = take_sets(sets, slice(self.piece))
        compiled = COMPILING.seconds
        rows = self.evaluator.evaluate(asked, first=first, stop=stop)
        if deadline < math.inf:  # compiling does not count
            compiled = COMPILING.seconds - compiled
            began, self.since = began + compiled, self.since + compiled
        n = count_sets(asked) if rows.done.all() else int(np.argmin(rows.done))
        failed = np.array([error != "" for error in rows.errors[:n]], dtype=np.bool_)
        asked, metrics = take_sets(asked, slice(n)), take_sets(rows.metrics, slice(n))
        scores, violation = self.goal.score(metrics, failed)
        batch = Batch(stage, self.elapsed, asked, metrics, scores, violation, rows.errors[:n])
        if n > 0:
            self.journal.append(batch)
            self._add(batch)
            self._set_piece(n, self.clock() - began, deadline)
        if not rows.done.all():
            raise KeyboardInterrupt
        return batch

    def _warm_up(self, sets: Sets, first: int, stop: int | None) -> None:
        began = self.clock()
        if not self.evaluator.evaluate(
            take_sets(sets, slice(2)), first=first, stop=stop
        ).done.all():
            raise KeyboardInterrupt
        self.since += self.clock() - began
        self.is_warm = True

    def _add(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.seconds, self.since = batch.seconds, self.clock()
        self.now = self.now.add(batch)
        if self.progress is not None:
            self.progress(self.now)

    def _set_piece(self, n: int, seconds: float, deadline: float) -> None:
        left = min(PIECE_SECONDS, max(0.0, deadline - self.elapsed))
        affordable = n * left / seconds if seconds > 0.0 else math.inf
        size = int(min(affordable, max(GROWTH * n, self.piece)))
        self.piece = max(1, size if size < LANES else size // LANES * LANES)


def starts_with(sets: Sets, first: Sets) -> bool:
    n = count_sets(first)
    return list(sets) == list(first) and all(
        np.array_equal(sets[name][:n], values, equal_nan=values.dtype.kind == "f")
        for name, values in first.items()
    )


def join_batches(pieces: list[Batch], sets: Sets) -> Batch:
    if not pieces:
        return Batch("", 0.0, take_sets(sets, slice(0)), {}, np.empty(0), np.empty(0), [])
    if len(pieces) == 1:
        return pieces[0]
    return Batch(
        stage=pieces[-1].stage,
        seconds=pieces[-1].seconds,
        sets=join_columns([piece.sets for piece in pieces]),
        metrics=join_columns([piece.metrics for piece in pieces]),
        scores=np.concatenate([piece.scores for piece in pieces]),
        violation=np.concatenate([piece.violation for piece in pieces]),
        errors=[error for piece in pieces for error in piece.errors],
    )


def join_columns(parts: list[Any]) -> dict[str, Any]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# ------------------------------------------------------------------------------ all trials


def gather(batches: Sequence[Batch]) -> Batch:
    whole = [batch for batch in batches if batch.stage != PART]
    if not whole:
        return Batch("", 0.0, {}, {}, np.empty(0), np.empty(0), [])
    return join_batches(whole, whole[0].sets)


def is_feasible(trials: Batch) -> BoolArray:
    kept: BoolArray = (trials.violation == 0.0) & np.isfinite(trials.scores)
    return kept


def find_distinct(sets: Sets) -> IntArray:
    return find_different(sets)[0] if sets else np.empty(0, dtype=np.int64)


def tabulate_trials(batches: Sequence[Batch]) -> pd.DataFrame:
    trials = gather(batches)
    parameters = {name_column(name): values for name, values in trials.sets.items()}
    table = pd.DataFrame({**parameters, **trials.metrics})
    table[ERROR] = np.array(trials.errors, dtype=object)
    table = order_columns(table, tuple(parameters))
    table[SCORE] = trials.scores
    table[VIOLATION] = trials.violation
    sizes = [0 if batch.stage == PART else count_sets(batch.sets) for batch in batches]
    table[STAGE] = np.repeat([batch.stage for batch in batches], sizes).astype(object)
    return table.rename_axis("trial")


def spread_sample(
    space: Space, sets: Sets, places: IntArray, n: int, rng: np.random.Generator
) -> IntArray:
    if len(places) <= n:
        return places
    from scipy.spatial import KDTree  # noqa: PLC0415 - loads where it is used

    cube = space.encode(take_sets(sets, places))
    nearest = KDTree(cube).query(draw_cube(cube.shape[1], n, "sobol", rng))[1]
    return places[np.unique(nearest)]


def worst_where_broken(trials: Batch) -> FloatArray:
    return np.where(is_feasible(trials), trials.scores, -np.inf)


# ---------------------------------------------------------------------------- the search loop

SEARCH = "search"
FAILURES = 16
"""If a batch of at least so many sets fails as a whole, the search stops."""


class Budget(NamedTuple):
    trials: int | None
    deadline: float


def start_sampler(sampler: SamplerName, space: Space, trials: int | None, seed: int) -> Sampler:
    from backtest.tune.samplers import make_sampler  # noqa: PLC0415 - they load SciPy and more

    return make_sampler(sampler, space, seed=seed, trials=trials)


def search(examiner: Examiner, space: Space, name: SamplerName, budget: Budget, seed: int) -> None:
    sampler, left = start_sampler(name, space, budget.trials, seed), budget.trials
    while left is None or left > 0:
        asked = sampler.ask()
        cube = asked[:left]
        if not len(cube):
            return
        batch = examiner.evaluate(space.decode(cube), SEARCH, deadline=budget.deadline)
        if len(batch.errors) >= FAILURES and all(batch.errors):
            raise PolicyError(
                f"all {len(batch.errors)} sets failed, the first with: {batch.errors[0]}"
            )
        n = count_sets(batch.sets)
        if n < len(cube):
            return  # time is up
        if n == len(asked):
            scores = np.where(np.isfinite(batch.scores), batch.scores, np.nan)
            sampler.tell(cube, scores, batch.violation)
        left = None if left is None else left - n
