"""Evaluate and score sets; batches stored in the folder of the study are not evaluated again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base import BoolArray, DataError, FloatArray
from backtest.base.compile_choice import COMPILING
from backtest.measures import Constraint, Objective, total_violation
from backtest.sweep import count_sets, take_sets
from backtest.tune.journal import Batch, Journal

if TYPE_CHECKING:
    from backtest.sweep import Evaluator, Sets
    from backtest.tune.path_risk import PathRisk

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
        best = find_best(batch.scores[:, 0], batch.violation) if is_whole else -1
        now = self._replace(
            trials=self.trials + (count_sets(batch.sets) if is_whole else 0),
            seconds=batch.seconds,
            stage=batch.stage,
        )
        if best < 0 or batch.scores[best, 0] <= now.best_score:
            return now
        values = take_sets(batch.sets, best)
        plain = {name: v.item() if hasattr(v, "item") else v for name, v in values.items()}
        return now._replace(best_score=float(batch.scores[best, 0]), best_values=plain)


class Goal(NamedTuple):
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]

    def score(
        self, metrics: Mapping[str, FloatArray], failed: BoolArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return scores of shape (n, n_objectives), and violations of shape (n,)."""
        scores = np.full((len(failed), len(self.objectives)), np.nan)
        kept = take_sets(metrics, ~failed)
        for k, objective in enumerate(self.objectives):
            scores[~failed, k] = objective.score(kept)
        violation = total_violation(self.constraints, metrics)
        violation[failed | ~(metrics["ruined"] == 0.0)] = np.inf
        return scores, violation

    def list_broken(self, metrics: Mapping[str, float]) -> list[Constraint]:
        columns = {name: np.array([value]) for name, value in metrics.items()}
        known = (each for each in self.constraints if each.name in columns)
        return [each for each in known if each.violation(columns)[0] > 0.0]


def find_best(scores: FloatArray, violation: FloatArray) -> int:
    is_feasible = (violation == 0.0) & np.isfinite(scores)
    if not is_feasible.any():
        return -1
    return int(np.argmax(np.where(is_feasible, scores, -np.inf)))


class Examiner:
    def __init__(
        self,
        evaluator: Evaluator,
        goal: Goal,
        journal: Journal,
        *,
        risk: PathRisk | None = None,
        total: int | None = None,
        progress: Callable[[Progress], object] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.evaluator = evaluator
        self.goal = goal
        self.risk = risk
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
        return join_batches(pieces, sets, len(self.goal.objectives))

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
        if self.risk is not None:
            rows = self.risk.add(rows, asked, self.evaluator)
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


def join_batches(pieces: list[Batch], sets: Sets, n_objectives: int) -> Batch:
    if not pieces:
        return Batch(
            "", 0.0, take_sets(sets, slice(0)), {}, np.empty((0, n_objectives)), np.empty(0), []
        )
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
