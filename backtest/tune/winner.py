"""Which candidate wins, and by what; what is said where it could not be the robust score."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.base.units import FloatArray
from backtest.tune.plateau import BUDGET_SHARE, Judgement, Robustness
from backtest.tune.search_loop import find_knee
from backtest.tune.trials import is_feasible

if TYPE_CHECKING:
    from backtest.tune.journal import Batch

REFINEMENTS = 2
"""How often more candidates are chosen after the first, by what is known then."""
ENOUGH = 16
"""So many candidates are enough to take one that looks poor, or safest: fewer may all be odd."""
BY_ROBUST, BY_KEPT, BY_SCORE = "robust_score", "kept", "score"


class Plan(NamedTuple):
    """How candidates are judged: by which rule, and in how many rounds after the first."""

    rule: Robustness
    rounds: int

    @property
    def candidates(self) -> int:
        """How many candidates there can be in all."""
        return (1 + self.rounds) * self.rule.candidates


class Choice(NamedTuple):
    """The place of the winner among the candidates, and by what it was chosen."""

    place: int
    by: str


def plan_judging(rule: Robustness, allowance: float, *, is_robust: bool) -> Plan:
    """Return how candidates are judged where the budget allows so many neighbours."""
    is_enough = allowance >= (1 + REFINEMENTS) * rule.neighbours
    rounds = REFINEMENTS if is_robust and is_enough else 0
    return Plan(rule.fit(allowance / (1 + rounds)), rounds)


def reserve(rule: Robustness, trials: int, *, is_robust: bool) -> int:
    """Return how many of some trials the search leaves for neighbours."""
    rounds = 1 + REFINEMENTS if is_robust else 1
    kept = rounds * rule.candidates * rule.neighbours
    return max(1, min(kept, int(BUDGET_SHARE * trials)))


def choose(judged: Judgement, scores: FloatArray, median: float, *, is_enough: bool) -> Choice:
    """Return the winner among k candidates: the highest robust score.

    Where no candidate has one (some neighbours of each break a constraint), the one most of whose
    neighbours keep them. Where too few were judged, neither that nor a winner below the median of
    the sets tried is trusted: then it is the highest score.

    Parameters
    ----------
    judged : Judgement
        Of the candidates.
    scores : array of shape (k, n_objectives)
        Their own.
    median : float
        Of the first objective over the sets tried.
    is_enough : bool
        Whether the budget was enough to judge many.
    """
    place = find_knee(judged.robust, np.isfinite(judged.robust.min(axis=1)))
    by = BY_ROBUST if place >= 0 else BY_KEPT
    place = place if place >= 0 else int(np.argmax(judged.kept))
    is_single = scores.shape[1] == 1
    is_low = is_single and bool(scores[place, 0] < median)
    if is_enough or (by == BY_ROBUST and not is_low):
        return Choice(place, by)
    return Choice(int(np.argmax(scores[:, 0])) if is_single else 0, BY_SCORE)


def find_median(trials: Batch) -> float:
    """Return the median of the first objective over the sets that keep all constraints."""
    scores = trials.scores[is_feasible(trials), 0]
    return float(np.median(scores)) if len(scores) else math.nan


def explain_choice(
    choice: Choice, judged: Judgement, scores: FloatArray, median: float, name: str
) -> Iterator[str]:
    """Yield what a reader must know of how a winner was chosen where robust was asked for."""
    n = "a single candidate was" if len(judged.kept) == 1 else f"{len(judged.kept)} candidates were"
    if choice.by == BY_SCORE:
        yield (
            f"too little was judged to rank by neighbours: only {n}, and none of them is both "
            f"robust and above the median of the sets tried; the best is the plain optimum, the "
            f"highest {name}. More trials judge more candidates"
        )
    elif choice.by == BY_KEPT:
        yield (
            f"none of the {len(judged.kept)} candidates is robust: some neighbours of each break a "
            "constraint or are ruined; the best is the one most of whose neighbours keep them"
        )
    if scores.shape[1] == 1 and scores[choice.place, 0] < median:
        yield (
            f"the best is below the median of the sets tried: its own {name} is "
            f"{scores[choice.place, 0]:.4g}, the median {median:.4g}; it was chosen for its "
            "neighbours"
        )
