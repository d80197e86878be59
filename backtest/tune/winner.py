"""Choose the winner among the candidates, and explain the choice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.base import FloatArray
from backtest.tune.plateau import BUDGET_SHARE, CandidateScores, Robustness
from backtest.tune.search_loop import find_knee
from backtest.tune.trials import is_feasible

if TYPE_CHECKING:
    from backtest.tune.journal import Batch

REFINEMENTS = 2
"""Rounds of further candidates after the first, chosen by estimated robust scores."""
ENOUGH = 16
"""With at least so many candidates, a winner below the median or without a robust score is
accepted."""
BY_ROBUST, BY_KEPT, BY_SCORE = "robust_score", "kept", "score"


class CandidatePlan(NamedTuple):
    """How candidates are scored: the rule, and the number of rounds after the first."""

    rule: Robustness
    rounds: int

    @property
    def candidates(self) -> int:
        """Most candidates in all rounds."""
        return (1 + self.rounds) * self.rule.candidates


class WinnerChoice(NamedTuple):
    """Position of the winner among the candidates, and the criterion that chose it."""

    place: int
    by: str


def plan_candidates(rule: Robustness, allowance: float, *, is_robust: bool) -> CandidatePlan:
    """Return the plan for a budget of ``allowance`` neighbors."""
    is_enough = allowance >= (1 + REFINEMENTS) * rule.neighbours
    rounds = REFINEMENTS if is_robust and is_enough else 0
    return CandidatePlan(rule.fit(allowance / (1 + rounds)), rounds)


def reserve_trials(rule: Robustness, trials: int, *, is_robust: bool) -> int:
    """Return how many trials are reserved for neighbors."""
    rounds = 1 + REFINEMENTS if is_robust else 1
    kept = rounds * rule.candidates * rule.neighbours
    return max(1, min(kept, int(BUDGET_SHARE * trials)))


def choose_winner(
    candidates: CandidateScores, scores: FloatArray, median: float, *, is_enough: bool
) -> WinnerChoice:
    """Return the winner among k candidates: the one with the highest robust score.

    If no candidate has one (some neighbors of each break a constraint), the winner is the one with
    the largest share of neighbors that keep them. With too few candidates (not ``is_enough``),
    such a winner, or one below the median of the sets tried, is replaced by the highest score.
    ``scores`` of shape (k, n_objectives) are the candidates' own; ``median`` is of the first.
    """
    place = find_knee(candidates.robust, np.isfinite(candidates.robust.min(axis=1)))
    by = BY_ROBUST if place >= 0 else BY_KEPT
    place = place if place >= 0 else int(np.argmax(candidates.kept))
    is_single = scores.shape[1] == 1
    is_low = is_single and bool(scores[place, 0] < median)
    if is_enough or (by == BY_ROBUST and not is_low):
        return WinnerChoice(place, by)
    return WinnerChoice(int(np.argmax(scores[:, 0])) if is_single else 0, BY_SCORE)


def find_median(trials: Batch) -> float:
    """Return the median of the first objective over the sets that keep all constraints."""
    scores = trials.scores[is_feasible(trials), 0]
    return float(np.median(scores)) if len(scores) else math.nan


def explain_choice(
    choice: WinnerChoice, candidates: CandidateScores, scores: FloatArray, median: float, name: str
) -> Iterator[str]:
    """Yield warnings if the winner is not the highest robust score, or is below the median."""
    n = len(candidates.kept)
    counted = "a single candidate was" if n == 1 else f"{n} candidates were"
    if choice.by == BY_SCORE:
        yield (
            f"too few candidates to rank by neighbors: only {counted} scored, and none of them is "
            "both robust and above the median of the sets tried; the best is the plain optimum, "
            f"the highest {name}. More trials score more candidates"
        )
    elif choice.by == BY_KEPT:
        yield (
            f"none of the {n} candidates is robust: some neighbors of each break a constraint or "
            "are ruined; the best is the one with the largest share of neighbors that do not"
        )
    if scores.shape[1] == 1 and scores[choice.place, 0] < median:
        yield (
            f"the best is below the median of the sets tried: its own {name} is "
            f"{scores[choice.place, 0]:.4g}, the median {median:.4g}; it was chosen for its "
            "neighbors"
        )
