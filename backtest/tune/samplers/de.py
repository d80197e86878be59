"""SciPy's differential evolution, turned inside out.

SciPy calls a function for every generation; a sampler is called. So SciPy runs in a thread of its
own, which puts each generation as a question and waits for the answer. It computes while its
sampler waits, never beside it, and ends when the sampler is forgotten.
"""

from __future__ import annotations

import threading
import weakref
from queue import SimpleQueue
from typing import Any

import numpy as np
from scipy.optimize import differential_evolution

from backtest.base.units import FloatArray
from backtest.tune.samplers.feasibility import Grades, grade
from backtest.tune.samplers.protocol import Terms, no_points
from backtest.tune.samplers.sobol_random import EvenStream

MEMBERS = 128
GENERATIONS = 10**9
CONVERGED = 1e-4
"""The search ends when the scores of the population differ by no more than this, relatively."""
UNKNOWN, BROKEN = 1e110, 1e120
"""Energies of no score, and of broken constraints; scores count up to 1e100."""

Question = FloatArray | BaseException | None
Answer = FloatArray | None


class DifferentialEvolution:
    """Ask for SciPy's generations, until its population has converged.

    Source: Storn and Price (1997), Differential evolution, J. Global Optimization 11(4), as in
    ``scipy.optimize.differential_evolution`` (best1bin, dithered, one generation at a time).
    """

    def __init__(self, terms: Terms) -> None:
        self._questions: SimpleQueue[Question] = SimpleQueue()
        self._answers: SimpleQueue[Answer] = SimpleQueue()
        self._none = no_points(terms.n_dimensions)
        self._question: Question = None
        self._is_waiting = False
        stream, rng = (
            np.random.default_rng(child) for child in np.random.SeedSequence(terms.seed).spawn(2)
        )
        first = EvenStream(terms.n_dimensions, stream).take(terms.size(MEMBERS, least=5))
        arguments = (first, rng, self._questions, self._answers)
        threading.Thread(target=evolve, args=arguments, name="search", daemon=True).start()
        weakref.finalize(self, self._answers.put, None)

    def ask(self) -> FloatArray:
        """Return the next generation, none when the population has converged."""
        if not self._is_waiting:
            self._question = self._questions.get()
            self._is_waiting = True
        if isinstance(self._question, BaseException):
            raise self._question
        return self._none if self._question is None else self._question

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:  # noqa: ARG002 - SciPy knows
        """Take their scores."""
        self._is_waiting = False
        self._answers.put(weigh(grade(score, violation)))


class Forgotten(BaseException):
    """Nobody will answer any more."""


def evolve(
    first: FloatArray,
    rng: np.random.Generator,
    questions: SimpleQueue[Question],
    answers: SimpleQueue[Answer],
) -> None:
    """Run SciPy's search from its first points; the end, or an error, is the last question."""

    def ask_for(columns: Any) -> FloatArray:
        questions.put(np.ascontiguousarray(columns.T))
        answer = answers.get()
        if answer is None:
            raise Forgotten
        return answer

    search: Any = differential_evolution  # its types know no vectorised function
    last: Question = None
    try:
        search(
            ask_for,
            [(0.0, 1.0)] * first.shape[1],
            init=first,
            rng=rng,
            maxiter=GENERATIONS,
            tol=CONVERGED,
            polish=False,
            updating="deferred",
            vectorized=True,
        )
    except Forgotten:
        pass
    except BaseException as error:  # whatever it is, it belongs to the thread that asks
        last = error
    questions.put(last)


def weigh(grades: Grades) -> FloatArray:
    """Return energies of shape (n,) in the order of the grades, for SciPy to make small.

    Infinite where constraints are broken without bound: SciPy does not take such a population as
    converged.
    """
    known = np.where(np.isneginf(grades.score), UNKNOWN, np.clip(-grades.score, -1e100, 1e100))
    share = 1.0 - 1.0 / (1.0 + grades.violation)
    broken = np.where(np.isinf(grades.violation), np.inf, BROKEN * (1.0 + share))
    return np.where(grades.violation > 0.0, broken, known)
