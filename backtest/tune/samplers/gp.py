"""Sampler by a Gaussian process of scikit-optimize."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

from backtest.base import FloatArray
from backtest.tune.samplers.protocol import SamplerTerms
from backtest.tune.samplers.surrogate import ModelSearch

POINTS = 192
"""Points that the process is fitted to; the time grows with their cube."""
LEARNT_FROM = 64
"""Points that the length scales are fitted to."""
STEPS = 20
"""Iterations of the optimizer that fits them."""


class GaussianProcess(ModelSearch):
    """Proposes the points that a Gaussian process rates best.

    ``skopt.Optimizer`` fits the kernel for every single point, which takes up to a second. Here a
    batch costs about as much as its evaluation.
    """

    def __init__(self, terms: SamplerTerms) -> None:
        super().__init__(terms, Process(terms.seed), POINTS)


class Process:
    """Gaussian process with a Matern 5/2 kernel and noise; the kernel is seldom refitted.

    Source: Rasmussen and Williams (2006), Gaussian Processes for Machine Learning, algorithm 2.1.
    """

    def __init__(self, seed: int) -> None:
        from skopt import learning  # noqa: PLC0415 - takes a second to import

        self._regressor = learning.GaussianProcessRegressor
        self._kernels = learning.gaussian_process.kernels
        self._seed = seed % 2**32
        self._fits = 0
        self._kernel: Any = None
        self._model: Any = None

    def fit(self, features: FloatArray, target: FloatArray) -> None:
        """Fit to points; the length scales only at the 1st, 2nd, 4th, 8th ... time."""
        self._fits += 1
        if self._fits & (self._fits - 1) == 0:
            step = -(-len(target) // LEARNT_FROM)
            self._kernel = self._learn_kernel(features[::step], target[::step])
        self._model = self._regress(features, target, self._kernel, None)

    def predict(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return means and standard deviations."""
        model = self._model
        covariance = model.kernel_(features, model.X_train_)
        mean = covariance @ model.alpha_
        known = solve_triangular(model.L_, covariance.T, lower=True, check_finite=False)
        variance = model.kernel_.diag(features) - (known**2).sum(axis=0)
        return mean, np.sqrt(np.maximum(variance, 0.0))

    def _learn_kernel(self, features: FloatArray, target: FloatArray) -> Any:
        kernels = self._kernels
        scales = np.full(features.shape[1], 0.5)
        matern = kernels.Matern(scales, length_scale_bounds=(0.02, 10.0), nu=2.5)
        signal = kernels.ConstantKernel(1.0, (0.05, 20.0)) * matern
        noise = kernels.WhiteKernel(0.1, (1e-4, 1.0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a scale may be at its bound
            found = self._regress(features, target, signal + noise, descend)
        return found.kernel_.k1 + kernels.WhiteKernel(found.noise_)

    def _regress(
        self, features: FloatArray, target: FloatArray, kernel: Any, optimizer: Any
    ) -> Any:
        model = self._regressor(
            kernel, noise="gaussian", optimizer=optimizer, random_state=self._seed
        )
        return model.fit(features, target)


def descend(
    function: Callable[..., Any], start: FloatArray, bounds: Any
) -> tuple[FloatArray, float]:
    """Return a point where a function is small, and its value, after a few iterations."""
    found = minimize(
        function, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": STEPS}
    )
    return found.x, float(found.fun)
