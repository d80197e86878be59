"""A forest of random trees, of scikit-optimize."""

from __future__ import annotations

from backtest.base.units import FloatArray
from backtest.tune.samplers.protocol import Terms
from backtest.tune.samplers.surrogate import ModelSearch

POINTS = 512
"""What the forest is fitted to."""
TREES = 12


class Forest(ModelSearch):
    """Ask where a forest of extremely randomised trees promises most.

    Source: Hutter, Hoos and Leyton-Brown (2011), Sequential model-based optimization for general
    algorithm configuration, LION 5: the trees' disagreement is the standard deviation.
    """

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms, Trees(terms.seed), POINTS)


class Trees:
    """Extremely randomised trees, grown anew for every batch, with a seed that counts up."""

    def __init__(self, seed: int) -> None:
        from skopt.learning import ExtraTreesRegressor  # noqa: PLC0415 - takes a second to import

        self._regressor = ExtraTreesRegressor
        self._seed = seed

    def fit(self, features: FloatArray, target: FloatArray) -> None:
        """Learn from points."""
        self._seed += 1
        self._model = self._regressor(
            n_estimators=TREES, min_samples_leaf=2, random_state=self._seed % 2**32
        )
        self._model.fit(features, target)

    def predict(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return means and standard deviations."""
        mean, deviation = self._model.predict(features, return_std=True)
        return mean, deviation
