"""The probability of backtest overfitting, by combinatorially symmetric cross-validation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import numpy as np

from backtest import core
from backtest.core.units import TOLERANCE
from backtest.results.luck import check_returns
from backtest.results.performance import LEAST_DEVIATION

MOST_SPLITS = 20
"""20 blocks have 184,756 halves. 22 would have 705,432, without a better estimate."""
LEAST_VARIANCE = 1e-13
"""A variance below this share of the mean square is a rounding error of a constant."""
CHUNK = 1 << 14
"""Values per array while halves are compared, to fit in a processor's cache."""

Figure = Literal["sharpe", "mean"]


class Overfitting(NamedTuple):
    """Result of combinatorially symmetric cross-validation."""

    pbo: float
    """Share of halves whose best trial is no better than the median in the other half."""
    logits: core.FloatArray
    """Of shape (C(n_splits, n_splits / 2),): ln(w / (1 - w)), w the relative rank of the best
    trial of a half in the other half."""


@core.checked
def probability_of_backtest_overfitting(
    returns: core.FloatArray,
    *,
    n_splits: int = 16,
    metric: Figure = "sharpe",
) -> Overfitting:
    """Return how often the best trial of one half of the samples is no good in the other half.

    ``returns`` (n_samples, n_trials) are finite, of 2 trials or more; ``n_splits`` blocks of
    consecutive samples, even, from 2 to 20; ``metric`` ranks the trials in both halves. A logit of
    0 (the median) counts as overfit; equal figures share their mean rank, so identical trials are
    overfit with certainty: choosing among them has no value.

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
    splits: int = core.ANY_NUMBER.check("n_splits", n_splits, whole=True)
    if splits % 2 or not 2 <= splits <= MOST_SPLITS:
        raise core.ParameterError(
            f"n_splits must be even and from 2 to {MOST_SPLITS}, got {n_splits!r}"
        )
    core.Choice(*get_args(Figure)).check("metric", metric)

    table = check_returns(returns, samples=max(4, splits), trials=2)
    rank = np.concatenate([*rank_winners(table, splits, metric)])
    share = rank / (table.shape[1] + 1)
    logits = np.log(share / (1.0 - share))
    return Overfitting(float(np.mean(logits <= 0.0)), logits)


def rank_winners(
    table: core.FloatArray,
    splits: int,
    metric: Figure,
) -> Iterator[core.FloatArray]:
    """Yield the ranks of the best trials of some halves in the other half, of shape (m,).

    Rank 1 is the worst; trials that differ by less than 1e-12 of the figure share a rank. Of equals
    in sample the first is the best.
    """
    n_trials = table.shape[1]
    blocks = Blocks.of(table, splits)

    # Each pair of halves is met once: by its half with block 0, of which these are the others.
    halves = itertools.combinations(range(1, splits), splits // 2 - 1)
    n_at_once = max(1, CHUNK // n_trials)
    while part := list(itertools.islice(halves, n_at_once)):
        # A mask has 1 in the blocks of a half. Its complement has the other half.
        mask = np.zeros((len(part), splits))
        mask[:, 0] = 1.0
        chosen_blocks = np.array(part, dtype=np.int64)
        np.put_along_axis(mask, chosen_blocks, 1.0, axis=1)
        figures = blocks.measure(mask, metric)
        figures_of_rest = blocks.measure(1.0 - mask, metric)

        # Each of the two halves is in sample once, and the other one out of sample.
        for inside, outside in ((figures, figures_of_rest), (figures_of_rest, figures)):
            winner = np.argmax(inside, axis=1)[:, None]
            figure = np.take_along_axis(outside, winner, axis=1)
            margin = TOLERANCE * np.abs(figure)
            n_worse = np.count_nonzero(outside < figure - margin, axis=1)
            n_better = np.count_nonzero(outside > figure + margin, axis=1)

            # The mean rank of all that are as good as the winner.
            yield 0.5 * (n_trials + 1 + n_worse - n_better)


class Blocks(NamedTuple):
    """Sums of returns over blocks of samples, from which those of any half follow.

    ``sizes`` (n_splits,) are samples; ``sums`` and ``squares`` (n_splits, n_trials) are of the
    returns less ``level``, the mean of each trial, so that little is lost to rounding.
    """

    sizes: core.FloatArray
    level: core.FloatArray
    sums: core.FloatArray
    squares: core.FloatArray

    @classmethod
    def of(cls, table: core.FloatArray, splits: int) -> Blocks:
        """Return the blocks of a table of returns, (n_samples, n_trials), as equal as can be."""
        blocks = np.array_split(np.arange(len(table)), splits)
        starts = [block[0] for block in blocks]
        level = np.mean(table, axis=0)
        centered = table - level
        return cls(
            sizes=np.diff(starts, append=len(table)).astype(np.float64),
            level=level,
            sums=np.add.reduceat(centered, starts),
            squares=np.add.reduceat(centered**2, starts),
        )

    def measure(self, mask: core.FloatArray, metric: Figure) -> core.FloatArray:
        """Return the figure of each trial in the blocks of each mask, of shape (m, n_trials).

        ``mask`` (m, n_blocks) is 1 for the blocks that count, else 0. Sums of a block are of
        returns less ``level``, the mean of each trial, which is added to the mean again.
        """
        n = (mask @ self.sizes)[:, None]
        sums = mask @ self.sums
        squares = mask @ self.squares
        mean = sums / n
        if metric == "mean":
            return np.asarray(mean + self.level)

        # The sum of squared deviations. One that may be rounding is that of a constant, whose ratio
        # is 0.
        spread = squares - mean * sums
        least_of_rounding = LEAST_VARIANCE * squares
        least_of_deviation = LEAST_DEVIATION**2 * (n - 1.0)
        is_moving = spread > np.maximum(least_of_rounding, least_of_deviation)
        deviation = np.sqrt(np.where(is_moving, spread, 1.0) / (n - 1.0))
        return np.where(is_moving, (mean + self.level) / deviation, 0.0)
