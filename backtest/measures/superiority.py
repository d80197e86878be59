"""Tests over many accounts: whether any beats a baseline, and which may be the best."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray, Range, check_shape, checked
from backtest.measures.paired_bootstrap import choose_block, resampling_error


class Superiority(NamedTuple):
    """Result of Hansen's test for superior predictive ability.

    Small p-values are evidence against the hypothesis that no account beats the baseline.
    """

    p_value: float
    """Consistent p-value: accounts that are worse by more than chance do not count."""
    p_lower: float
    """Lower bound: accounts that look worse are assumed to be worse by that much."""
    p_upper: float
    """Upper bound: accounts that look worse are assumed to be as good as the baseline."""
    best: int
    """Row with the largest difference in standard errors; -1 if none differs."""
    block: int
    """Mean length of blocks, in samples."""


@checked
def find_superiority(
    gains: FloatArray, baseline: FloatArray, *, draws: int, seed: int
) -> Superiority:
    """Test whether the best of some accounts has a higher mean gain than the baseline.

    Parameters
    ----------
    gains : FloatArray of shape (k, n)
        Gains of the accounts.
    baseline : FloatArray of shape (n,)
        Gains of the account they are compared with.
    draws, seed : int
        Resampled histories, and the seed of them.

    Notes
    -----
    T = max over k of sqrt(n) d_k / s_k, d_k the mean difference and s_k its deviation under the
    stationary bootstrap. Source: Hansen (2005), A Test for Superior Predictive Ability, J. Business
    & Economic Statistics 23(4). ``arch.bootstrap.SPA`` leaves its statistic in the units of the
    differences (of 8.0, whatever ``studentize`` says), so they are divided by s_k before. Accounts
    that are the same as the baseline are left out.
    """
    check_shape("gains", gains, (-1, -1))
    gains = np.asarray(gains)
    check_shape("baseline", baseline, (len(gains[0]),))
    from arch.bootstrap import SPA  # noqa: PLC0415 - it takes a second to import

    difference = gains - baseline
    moves = np.ptp(difference, axis=1) > 0.0
    block = choose_block(difference)
    if not moves.any():
        return Superiority(1.0, 1.0, 1.0, -1, block)
    error = resampling_error(difference[moves], block) * math.sqrt(difference.shape[1])
    scaled = difference[moves] / error[:, None]
    still = np.zeros(difference.shape[1])
    test = SPA(still, -scaled.T, block_size=block, reps=draws, nested=True, seed=seed)
    test.compute()
    best = np.flatnonzero(moves)[np.argmax(np.mean(scaled, axis=1))]
    found = {name: float(value) for name, value in test.pvalues.items()}
    return Superiority(found["consistent"], found["lower"], found["upper"], int(best), block)


@checked
def find_confidence_set(gains: FloatArray, *, draws: int, seed: int) -> tuple[FloatArray, int]:
    """Return the p-value of each account being the best, and the mean length of blocks.

    Parameters
    ----------
    gains : FloatArray of shape (k, n)
        Gains of at least two accounts.
    draws, seed : int
        Resampled histories, and the seed of them.

    Returns
    -------
    FloatArray of shape (k,)
        The model confidence set at confidence c contains accounts with a p-value over 1 - c.
    int

    Notes
    -----
    T_R = max over i, j of |t_ij|, with elimination of the worst in its largest t. Source: Hansen,
    Lunde and Nason (2011), The Model Confidence Set, Econometrica 79(2). Accounts that are the same
    count once, and share their p-value.
    """
    check_shape("gains", gains, (-1, -1))
    gains = np.array(gains, dtype=np.float64)
    Range(2, math.inf).check("samples", gains.shape[1])
    from arch.bootstrap import MCS  # noqa: PLC0415 - it takes a second to import

    distinct, place = np.unique(gains, axis=0, return_inverse=True)
    pairs = np.array(np.triu_indices(len(distinct), 1)).T
    block = choose_block(distinct[pairs[:, 0]] - distinct[pairs[:, 1]])
    if len(distinct) == 1:
        return np.ones(len(gains)), block
    test = MCS(-distinct.T, size=0.05, reps=draws, block_size=block, seed=seed)
    test.compute()
    values = np.empty(len(distinct))
    for models, value in test.pvalues["Pvalue"].items():
        values[np.array(models)] = value  # several, if they left together
    return values[place.ravel()], block
