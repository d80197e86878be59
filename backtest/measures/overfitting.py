"""Probability of backtest overfitting, by combinatorially symmetric cross-validation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import numpy as np

from backtest.base import Choice, FloatArray, ParameterError, check_number, checked
from backtest.base.units import TOLERANCE
from backtest.measures.deflated_sharpe import check_returns
from backtest.measures.performance import LEAST_DEVIATION

MOST_SPLITS = 20
"""20 blocks have 184,756 halves. 22 would have 705,432, without a better estimate."""
LEAST_SHARE = 1e-13
"""A variance below this share of the mean square is a rounding error of a constant."""
CHUNK = 1 << 14
"""Values per array while halves are compared, to fit in a processor's cache."""

Figure = Literal["sharpe", "mean"]


class Overfitting(NamedTuple):
    """Result of combinatorially symmetric cross-validation."""

    pbo: float
    """Share of halves whose best trial is no better than the median in the other half."""
    logits: FloatArray
    """Of shape (C(n_splits, n_splits / 2),): ln(w / (1 - w)), w the relative rank of the best
    trial of a half in the other half."""
    degradation: float
    """Slope of the best trial's figure out of sample on that in sample; 0 if all are equal."""
    loss: float
    """Share of halves whose best trial has a figure below 0 in the other half."""


@checked
def probability_of_backtest_overfitting(
    returns: FloatArray, *, n_splits: int = 16, metric: Figure = "sharpe"
) -> Overfitting:
    """Return how often the best trial of one half of the samples is no good in the other half.

    Parameters
    ----------
    returns : array of shape (n_samples, n_trials)
        Simple returns of every trial over the same samples; at least 2 trials, at least
        ``n_splits`` samples (and 4), all finite.
    n_splits : int
        Blocks of consecutive samples, S: even, from 2 to 20. If the samples do not divide evenly,
        the first blocks have one more.
    metric : {"sharpe", "mean"}
        The figure that ranks trials, in both halves.

    Returns
    -------
    Overfitting
        A logit of 0 (the median) counts as overfit; equal figures share their mean rank. So
        identical trials are overfit with certainty: choosing among them has no value.

    Raises
    ------
    ParameterError
        If the returns or the number of blocks are not as described.

    Notes
    -----
    Combinatorially symmetric cross-validation: each choice of S/2 of the S blocks is in sample
    once, and the rest out of sample; w = rank / (n_trials + 1). Source: Bailey, Borwein, Lopez de
    Prado and Zhu (2017), The Probability of Backtest Overfitting, J. Computational Finance 20(4).

    Examples
    --------
    >>> skilled = np.array([[0.3, 0.1], [0.4, 0.2], [0.3, 0.2], [0.4, 0.1]])
    >>> probability_of_backtest_overfitting(skilled, n_splits=4, metric="mean").pbo
    0.0
    """
    splits = check_splits(n_splits)
    Choice(*get_args(Figure)).check("metric", metric)
    table = check_returns(returns, samples=max(4, splits), trials=2)
    inside, outside, rank = np.hstack(list(compare_halves(table, splits, metric)))
    share = rank / (table.shape[1] + 1)
    logits = np.log(share / (1.0 - share))
    pbo, loss = np.mean(logits <= 0.0), np.mean(outside < 0.0)
    return Overfitting(float(pbo), logits, fit_slope(inside, outside), float(loss))


def compare_halves(table: FloatArray, splits: int, metric: Figure) -> Iterator[FloatArray]:
    blocks = sum_blocks(table, splits)
    for mask in choose_halves(splits, max(1, CHUNK // table.shape[1])):
        chosen, left = (
            compute_figures(mask, blocks, metric),
            compute_figures(1.0 - mask, blocks, metric),
        )
        yield follow_best(chosen, left)
        yield follow_best(left, chosen)


def follow_best(inside: FloatArray, outside: FloatArray) -> FloatArray:
    """Return, of shape (3, m), the best trial's figure in and out of sample, and its rank there.

    Figures have shape (m, n_trials). Rank 1 is the worst; trials that differ by less than 1e-12 of
    the figure share a rank. Of equals in sample the first is the best.
    """
    best = np.argmax(inside, axis=1)[:, None]
    figure = np.take_along_axis(outside, best, axis=1)
    margin = TOLERANCE * np.abs(figure)
    worse = np.count_nonzero(outside < figure - margin, axis=1)
    better = np.count_nonzero(outside > figure + margin, axis=1)
    rank = 0.5 * (outside.shape[1] + 1 + worse - better)
    return np.stack([np.take_along_axis(inside, best, axis=1)[:, 0], figure[:, 0], rank])


class Blocks(NamedTuple):
    """Sums of returns by block of samples, of shape (n_splits, n_trials) unless stated."""

    n: FloatArray
    """Samples, of shape (n_splits,)."""
    level: FloatArray
    """The mean of all returns of a trial, of shape (n_trials,)."""
    sums: FloatArray
    squares: FloatArray


def sum_blocks(table: FloatArray, splits: int) -> Blocks:
    starts = [block[0] for block in np.array_split(np.arange(len(table)), splits)]
    level = np.mean(table, axis=0)
    centered = table - level
    return Blocks(
        np.diff(starts, append=len(table)).astype(np.float64),
        level,
        np.add.reduceat(centered, starts),
        np.add.reduceat(centered**2, starts),
    )


def choose_halves(splits: int, rows: int) -> Iterator[FloatArray]:
    """Yield masks of shape (up to ``rows``, splits): 1 in half the blocks, the first among them."""
    halves = itertools.combinations(range(1, splits), splits // 2 - 1)
    while part := list(itertools.islice(halves, rows)):
        mask = np.zeros((len(part), splits))
        mask[:, 0] = 1.0
        np.put_along_axis(mask, np.array(part, dtype=np.int64), 1.0, axis=1)
        yield mask


def compute_figures(mask: FloatArray, blocks: Blocks, metric: Figure) -> FloatArray:
    """Compute figures of trials over the blocks of a mask (m, n_splits), of shape (m, n_trials)."""
    n = (mask @ blocks.n)[:, None]
    sums, squares = mask @ blocks.sums, mask @ blocks.squares
    mean = sums / n
    if metric == "mean":
        return np.asarray(mean + blocks.level)
    spread = squares - mean * sums
    known = spread > np.maximum(LEAST_SHARE * squares, LEAST_DEVIATION**2 * (n - 1.0))
    deviation = np.sqrt(np.where(known, spread, 1.0) / (n - 1.0))
    return np.where(known, (mean + blocks.level) / deviation, 0.0)


def fit_slope(x: FloatArray, y: FloatArray) -> float:
    """Return the least-squares slope of y on x, arrays of shape (n,); 0 if x is constant."""
    centered = x - np.mean(x)
    square = float(centered @ centered)
    return float(centered @ (y - np.mean(y))) / square if square >= LEAST_DEVIATION**2 else 0.0


def check_splits(n_splits: int) -> int:
    splits = int(check_number("n_splits", n_splits, whole=True))
    if splits % 2 or not 2 <= splits <= MOST_SPLITS:
        raise ParameterError(f"n_splits must be even and from 2 to {MOST_SPLITS}, got {n_splits!r}")
    return splits
