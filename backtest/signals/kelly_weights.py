"""Weights of fastest growth whose probability of a loss is bounded."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from backtest import core
from backtest.core.code_names import is_frame, is_series, pd
from backtest.core.one_thread import one_thread

LEAST_WEIGHT = 1e-7
"""A weight below it is an error of the solver, and none."""


MOST_WEIGHT = 1e6
"""A multiple of the equity above which the best weights are taken to be infinite."""
MOST_EXCESS = 1e-7
"""By how much improved weights may be over the scaled bound: solved ones were by up to 6e-9."""


@core.checked_only("loss", "probability", "max_gross", "short")
def rck_weights(
    returns: core.FloatArray | pd.DataFrame,
    loss: float,
    probability: float,
    *,
    chances: core.FloatArray | None = None,
    max_gross: float | None = None,
    short: bool = False,
) -> pd.Series:
    """Return the weights of fastest growth with a bounded probability of ever losing a share.

    Parameters
    ----------
    returns : FloatArray or DataFrame of shape (n, k)
        Simple returns of k assets in n periods, or n outcomes of one, in excess of cash.
    loss : float
        Share of the *starting* capital, over 0 and under 1. Under the peak any depth comes.
    probability : float
        Bound on the probability that wealth ever falls to 1 - ``loss``, over 0 and under 1.
    chances : FloatArray of shape (n,), optional
        Probability of each row, adding up to 1; equal by default.
    max_gross : float, optional
        Largest sum of the sizes of the weights.
    short : bool
        Whether weights may be negative.

    Returns
    -------
    Series of shape (k,)
        Multiples of the equity by asset, rebalanced each period; the rest is cash. More than 1 is
        leverage. The bound holds if the outcomes are drawn independently from these rows.

    Raises
    ------
    ParameterError
        If a number is out of range, or no weights are best: an asset, or a mix, that never loses.

    Notes
    -----
    maximize E log(1 + w'r) with E (1 + w'r)^-lambda <= 1, lambda = ln probability / ln (1 - loss).
    By cvxpy with its solver Clarabel (``pip install 'leverage-backtest[allocate]'``), then by
    sequential quadratic programs, unless ``max_gross`` binds, to some eight digits. For small steps
    of a geometric Brownian motion they are 2 / (1 + lambda) of the Kelly weights, at most 1, as
    ``Kelly(floor_loss=...)`` holds. Source: Busseti, Ryu and Boyd (2016), Risk-Constrained Kelly
    Gambling, J. of Investing 25(3).

    Examples
    --------
    >>> even = np.array([[1.0]] * 6 + [[-1.0]] * 4)  # wins six times of ten
    >>> float(rck_weights(even, loss=0.5, probability=0.5).round(4).iloc[0])  # lambda 1: Kelly
    0.2
    >>> float(rck_weights(even, loss=0.5, probability=0.1).round(4).iloc[0])
    0.0934
    """
    names, table = read_outcomes(returns)
    core.check_range(
        "loss",
        loss,
        low=0.0,
        high=1.0,
        open_low=True,
        open_high=True,
    )
    core.check_range(
        "probability",
        probability,
        low=0.0,
        high=1.0,
        open_low=True,
        open_high=True,
    )
    if max_gross is not None:
        core.check_range(
            "max_gross",
            max_gross,
            low=0.0,
            open_low=True,
        )
    shares = read_chances(chances, len(table))

    power = math.log(probability) / math.log1p(-loss)
    weights = solve_weights(
        table,
        shares,
        power,
        max_gross,
        short=short,
    )
    is_dust = np.abs(weights) < LEAST_WEIGHT
    held = np.where(is_dust, 0.0, weights)
    return pd.Series(held, names, name="weight")


def read_outcomes(returns: Any) -> tuple[Any, core.FloatArray]:
    """Return the names of the assets, and their returns, checked to be finite and to lose."""
    if is_series(returns):
        returns = returns.to_frame()
    names = list(returns.columns) if is_frame(returns) else None
    try:
        table = np.asarray(returns, dtype=np.float64)
    except (TypeError, ValueError):
        raise core.ParameterError(
            "returns must be an array of numbers or a DataFrame, got "
            f"{core.repr_plain(returns):.60}"
        ) from None
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 1:
        raise core.ParameterError(
            "returns must be of shape (n, k) with at least 2 rows and 1 asset, got shape "
            f"{table.shape}"
        )

    is_return = np.isfinite(table) & (table >= -1.0)
    bad = np.argwhere(~is_return)
    if len(bad):
        row, column = bad[0]
        raise core.ParameterError(
            f"returns must be finite and at least -1, got {table[row, column]:g} in row {row} of "
            f"{name_asset(names, column)}; leave out rows that are not known"
        )
    return names, table


def name_asset(names: Any, column: int) -> str:
    """Return the name of a column, or its number if columns have no names."""
    return f"asset {column}" if names is None else str(names[column])


def read_chances(chances: Any, n: int) -> core.FloatArray:
    """Return the checked probabilities of n rows; equal ones for None."""
    if chances is None:
        return np.full(n, 1.0 / n)
    shares = np.asarray(chances, dtype=np.float64)
    is_each_one = shares.shape == (n,) and bool(np.all(shares >= 0.0))
    if not is_each_one or abs(shares.sum() - 1.0) > 1e-9:
        raise core.ParameterError(
            f"chances must be {n} probabilities that add up to 1, got shape {shares.shape}, sum "
            f"{float(np.sum(shares)):g}"
        )
    return shares


def solve_weights(
    table: core.FloatArray,
    shares: core.FloatArray,
    power: float,
    max_gross: float | None,
    *,
    short: bool,
) -> core.FloatArray:
    """Return the weights, of shape (k,), by a convex program with exponential cones.

    ``table`` (n, k) are returns of k assets in n outcomes, and ``shares`` (n,) the probabilities of
    the outcomes. ``power`` is lambda of :func:`rck_weights`. Raises ParameterError if the solver
    fails, or no weights are best.
    """
    cvxpy = import_solver()

    # An outcome without probability must not bound the weights.
    is_possible = shares > 0.0
    table = table[is_possible]
    shares = shares[is_possible]

    # Growth and the bound are of the order of squared returns: both are brought near 1.
    sums = table.sum(axis=1)
    mean_square = float(np.mean(sums**2))
    scale = 1.0 / max(mean_square, 1e-18)

    # E[wealth^-power] <= 1 bounds the probability of the loss.
    weights = cvxpy.Variable(table.shape[1], nonneg=not short)
    growth = cvxpy.log(1.0 + table @ weights)
    excess = cvxpy.exp(-power * growth) - 1.0
    rules = [shares @ (scale * excess) <= 0.0]
    if max_gross is not None:
        rules.append(cvxpy.norm1(weights) <= max_gross)

    mean_growth = scale * (shares @ growth)
    problem = cvxpy.Problem(cvxpy.Maximize(mean_growth), rules)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of inexact solutions, which are improved below
            problem.solve(solver=cvxpy.CLARABEL)
    except cvxpy.SolverError as error:
        raise core.ParameterError(f"the weights could not be solved for: {error}") from None
    if weights.value is None or np.abs(weights.value).max() > MOST_WEIGHT:
        raise core.ParameterError(
            f"no weights are best ({problem.status}): some mix of the assets never loses in these "
            "rows; give more rows, or max_gross"
        )

    # Where the limit binds, the weights stay as exact as the cones are: the next step knows no
    # limit.
    solved = np.asarray(weights.value, dtype=np.float64)
    gross = np.abs(solved).sum()
    if max_gross is not None and gross > max_gross * (1.0 - 1e-4):
        return solved
    return improve_weights(
        solved,
        table,
        shares,
        power,
        short=short,
    )


def improve_weights(
    weights: core.FloatArray,
    table: core.FloatArray,
    shares: core.FloatArray,
    power: float,
    *,
    short: bool,
) -> core.FloatArray:
    """Return weights that are exact, from those of the cones, which are to some four digits.

    Arguments are those of :func:`solve_weights`. The weights of the cones stay where the solver
    leaves the bound, or finds less growth.
    """
    size = float(np.abs(weights).max())
    if size < LEAST_WEIGHT:
        return weights

    # Solved for ``point``, the weights over the largest of them. Growth and the bound are scaled by
    # the mean square of the return, so that all are of the order of 1.
    moves = table * size
    scale = 1.0 / float(shares @ (table @ weights) ** 2)

    def find_wealth(point: core.FloatArray) -> core.FloatArray:
        """Return the wealth after each outcome, kept over 0 so that its log is finite."""
        return np.maximum(1.0 + moves @ point, 1e-12)

    def lose_growth(point: core.FloatArray) -> tuple[float, core.FloatArray]:
        """Return the negative of mean log wealth, and its slopes."""
        wealth = find_wealth(point)
        loss = -scale * float(shares @ np.log(wealth))
        slopes = -scale * (moves.T @ (shares / wealth))
        return loss, slopes

    def leave_room(point: core.FloatArray) -> float:
        """Return what the bound leaves: 1 - E wealth^-power, scaled."""
        log_wealth = np.log(find_wealth(point))
        excess = np.expm1(-power * log_wealth)
        return -scale * float(shares @ excess)

    def change_room(point: core.FloatArray) -> core.FloatArray:
        """Return the slopes of the room."""
        slopes = shares * find_wealth(point) ** (-power - 1.0)
        return np.asarray(scale * power * (moves.T @ slopes))

    bounds = None if short else [(0.0, None)] * len(weights)
    start = weights / size
    with one_thread():
        solved = core.sp.optimize.minimize(
            lose_growth,
            start,
            jac=True,
            method="SLSQP",
            bounds=bounds,
            constraints=[
                {
                    "type": "ineq",
                    "fun": leave_room,
                    "jac": change_room,
                }
            ],
            options={"ftol": 1e-15, "maxiter": 200},
        )

    # Its status does not tell: where digits end before its own tolerance, it reports a failure.
    point = np.asarray(solved.x)
    is_within = np.isfinite(point).all() and leave_room(point) >= -MOST_EXCESS
    if not is_within:
        return weights
    loss, _ = lose_growth(point)
    loss_at_start, _ = lose_growth(start)
    if loss > loss_at_start:
        return weights
    return point * size


def import_solver() -> Any:
    """Return cvxpy, an extra; raise ParameterError with the command that installs it."""
    try:
        import cvxpy  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise core.ParameterError(
            f"rck_weights needs cvxpy: {error}; pip install 'leverage-backtest[allocate]'"
        ) from None
    return cvxpy
