"""Sampler by a random forest of scikit-optimize."""

from __future__ import annotations

from backtest.base import FloatArray
from backtest.tune.samplers.protocol import SamplerTerms
from backtest.tune.samplers.surrogate import ModelSearch

POINTS = 512
"""Points that the forest is fitted to."""
TREES = 12


class Forest(ModelSearch):
    """Proposes the points that a forest of extremely randomized trees rates best.

    Source: Hutter, Hoos and Leyton-Brown (2011), Sequential model-based optimization for general
    algorithm configuration, LION 5: the trees' disagreement is the standard deviation.
    """

    def __init__(self, terms: SamplerTerms) -> None:
        super().__init__(terms, Trees(terms.seed), POINTS)


class Trees:
    """Extremely randomized trees, refitted for every batch with the next seed."""

    def __init__(self, seed: int) -> None:
        from skopt.learning import ExtraTreesRegressor  # noqa: PLC0415 - takes a second to import

        self._regressor = ExtraTreesRegressor
        self._seed = seed

    def fit(self, features: FloatArray, target: FloatArray) -> None:
        """Fit to points."""
        self._seed += 1
        self._model = self._regressor(
            n_estimators=TREES, min_samples_leaf=2, random_state=self._seed % 2**32
        )
        self._model.fit(features, target)

    def predict(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return means and standard deviations."""
        mean, deviation = self._model.predict(features, return_std=True)
        return mean, deviation
