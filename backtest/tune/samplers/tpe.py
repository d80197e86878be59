"""Sampler by the tree-structured Parzen estimator of Optuna."""

from __future__ import annotations

from typing import Any

import numpy as np

from backtest.base import FloatArray
from backtest.tune.samplers.protocol import SamplerTerms, grade, load_optional

BATCH = 64


class Tpe:
    """Proposes points of Optuna's sampler, which takes the pending ones of a batch into account.

    Source: Bergstra, Bardenet, Bengio and Kegl (2011), Algorithms for hyper-parameter optimization,
    NeurIPS, as in ``optuna.samplers.TPESampler``. Its time per point grows with their number.
    """

    def __init__(self, terms: SamplerTerms) -> None:
        optuna = load_optional("optuna", sampler="tpe")
        self._options = [len(dimension.options) for dimension in terms.space.dimensions]
        self._distributions = {
            str(k): optuna.distributions.CategoricalDistribution(range(count))
            if count
            else optuna.distributions.FloatDistribution(0.0, 1.0)
            for k, count in enumerate(self._options)
        }
        sampler = optuna.samplers.TPESampler(seed=terms.seed % 2**32, constant_liar=True)
        self._study = start_study(optuna, sampler)
        self._n = terms.size(BATCH)
        self._running: list[Any] = []

    def ask(self) -> FloatArray:
        self._running = [self._study.ask(self._distributions) for _ in range(self._n)]
        count = np.array(self._options)
        names = self._distributions
        found = np.array([[each.params[name] for name in names] for each in self._running], float)
        return np.where(count > 0, (found + 0.5) / np.maximum(count, 1), found)

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:  # noqa: ARG002 - its trials know
        grades = grade(score, violation)
        for trial, value, broken in zip(self._running, grades.score, grades.violation, strict=True):
            trial.set_constraint("violation", broken)
            self._study.tell(trial, value)


def start_study(optuna: Any, sampler: Any) -> Any:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(direction="maximize", sampler=sampler)
    finally:
        optuna.logging.set_verbosity(verbosity)
