"""Weights from an estimator with ``fit(X).weights_``: those of skfolio, or your own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from backtest.base import FloatArray, ParameterError, PolicyError, Whole
from backtest.engine import compute_signal
from backtest.market import Markets, require_panel
from backtest.weights.refits import Segment, hold_weights, list_segments


def fitted(
    markets: Markets,
    estimator: Any,
    window: int,
    every: int = 24,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Return the weights that an estimator finds in the last returns.

    Parameters
    ----------
    markets : Markets
        Only their closes count.
    estimator : object
        With ``fit(X)``, which returns an object with ``weights_``, one number per column. X is a
        frame of simple returns, of shape (window, n_instruments), by time and name. It is copied
        before each fit. The estimators of ``skfolio.optimization`` are such objects (install
        ``leverage-backtest[allocate]``).
    window : int
        Returns in X. An instrument takes part once it has as many.
    every : int
        Bars between fits: at closes that are a multiple of it since 1970, and where the set of
        instruments changes.
    progress : callable, optional
        Called with fits done and fits in all.

    Returns
    -------
    DataFrame of shape (n_bars, n_instruments)
        0 before the first fit.

    Raises
    ------
    ParameterError
        If the estimator has no ``fit``, or a number is out of range.
    PolicyError
        If the estimator raises, returns no finite weight for each column, or gives other weights
        for the same returns.

    Examples
    --------
    >>> import backtest as bt
    >>> class Momentum:
    ...     def fit(self, X):
    ...         self.weights_ = np.sign(X.mean()) / X.shape[1]
    ...         return self
    >>> both = bt.Markets({"A": bt.Market.sample(bars=72), "B": bt.Market.sample(bars=72, seed=1)})
    >>> fitted(both, Momentum(), window=24).iloc[-1].tolist()
    [-0.5, 0.5]
    """
    require_panel(markets)
    if isinstance(estimator, type) or not callable(getattr(estimator, "fit", None)):
        raise ParameterError(
            f"estimator must be an object with fit, got {estimator!r:.80}; "
            "skfolio.optimization.MeanRisk(), for example"
        )
    window, every = Whole(2).check("window", window), Whole(1).check("every", every)

    def fit_and_report(seen: Markets) -> FloatArray:
        report = progress if seen.n_bars == markets.n_bars else None  # not the parts of the check
        return _fit_all(seen, estimator, window, every, report)

    fit_and_report.__name__ = type(estimator).__name__
    found: pd.DataFrame = compute_signal(markets, fit_and_report)
    return found


def _fit_all(
    markets: Markets,
    estimator: Any,
    window: int,
    every: int,
    report: Callable[[int, int], None] | None,
) -> FloatArray:
    returns = find_simple_returns(markets)
    segments = list(list_segments(markets, window, every))
    total, done = sum(len(segment.bars) for segment in segments), 0

    def solve(segment: Segment) -> FloatArray:
        nonlocal done
        found = []
        for t in segment.bars:
            found.append(_fit(estimator, returns.iloc[t + 1 - window : t + 1, segment.members]))
            done += 1
            if report is not None:
                report(done, total)
        return np.stack(found)

    return hold_weights(markets, iter(segments), solve)


def _fit(estimator: Any, returns: pd.DataFrame) -> FloatArray:
    name, until = type(estimator).__name__, f"up to {returns.index[-1]:%Y-%m-%d %H:%M} UTC"
    try:
        fit = copy.deepcopy(estimator).fit(returns.copy())
        weights = np.asarray(fit.weights_, dtype=np.float64)
    except Exception as error:
        raise PolicyError(
            f"{name}.fit raised {type(error).__name__}: {error}, on returns {until}"
        ) from error
    if weights.shape != (returns.shape[1],) or not np.isfinite(weights).all():
        raise PolicyError(
            f"{name} must give a finite weight for each of {returns.shape[1]} columns, "
            f"got {weights!r:.200} for returns {until}"
        )
    return weights


def find_simple_returns(markets: Markets) -> pd.DataFrame:
    close = markets.panel().close.T
    returns = np.full(close.shape, np.nan)
    returns[1:] = close[1:] / close[:-1] - 1.0
    return pd.DataFrame(returns, index=markets.times, columns=[*markets.names])
