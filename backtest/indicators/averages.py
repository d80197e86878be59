"""Averages over bars that other indicators are built on: weighted, rolling, and covariances."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from backtest import _compile, core
from backtest.core.code_names import pd
from backtest.indicators import kernels, lanes
from backtest.indicators.lanes import OneOrMany


def ewma_deviation(
    returns: core.FloatArray,
    half_life: OneOrMany,
    scale: float | core.FloatArray,
) -> core.FloatArray:
    """Return roots of weighted means of squares, (n_bars, k); the first return does not count.

    ``returns`` has shape (n_bars,), or (n_bars, k) of paths. ``scale``, one or (n_bars,), is what
    means are multiplied by before the root.
    """
    scales = np.array(np.broadcast_to(scale, len(returns)))

    # A column for each path, or one for all half-lives.
    columns = np.atleast_2d(returns.T).T
    n_bars, n_paths = columns.shape
    k = max(np.size(half_life), n_paths)

    # The first return is not known. Paths share their first bars, the head: it is averaged once.
    out = np.empty((n_bars, k))
    out[:1] = np.nan
    first = 1 + count_head(columns[1:], half_life)
    head = columns[1:first, :1] ** 2
    rows = np.square(columns[first:], order="C")
    write_roots(head, rows, half_life, scales[1:], out[1:])
    return out


def weighted_root(
    squares: core.FloatArray,
    half_life: OneOrMany,
    scale: core.FloatArray,
) -> core.FloatArray:
    """Return roots of weighted means times ``scale`` (n_bars,), of shape (n_bars, k).

    NaN until as many squares as the half-life. ``squares`` has shape (n_bars,) or (n_bars, k).
    """
    # A column for each path, or one for all half-lives.
    columns = np.atleast_2d(squares.T).T
    n_bars, n_paths = columns.shape
    k = max(np.size(half_life), n_paths)

    # Paths share their first bars, the head: it is averaged once.
    first = count_head(columns, half_life)
    head = columns[:first, :1].copy()
    rows = np.ascontiguousarray(columns[first:])
    out = np.empty((n_bars, k))
    write_roots(head, rows, half_life, scale, out)
    return out


def count_head(columns: core.FloatArray, half_life: OneOrMany) -> int:
    """Return how many first rows of (n_bars, k) columns have the same average in all of them.

    That is the history in front of paths, if all have one half-life. Of a single column there is
    none, so that it is averaged as it is.
    """
    if columns.shape[1] == 1:
        return 0
    half_lives = np.ravel(half_life)
    if not np.all(half_lives == half_lives[0]):
        return 0
    return lanes.count_shared(columns)


def write_roots(
    head: core.FloatArray,
    rows: core.FloatArray,
    half_life: OneOrMany,
    scale: core.FloatArray,
    out: core.FloatArray,
) -> None:
    """Write roots of weighted means of squares times ``scale`` (n_bars,) to ``out`` (n_bars, k).

    ``head`` (n, 1) are the first squares, which all columns share and which are averaged once, and
    ``rows`` (n_bars - n, k), or (n_bars - n, 1) of all, those after them.
    """
    k = out.shape[1]
    decays = lanes.find_decay(half_life)
    counts = lanes.count_needed(half_life)
    decay = np.array(np.broadcast_to(decays, k))
    needed = np.array(np.broadcast_to(counts, k))
    average = _compile.compile_module(kernels).ewma_lanes

    # The kernel leaves its sums in the state: those of the head are where all columns begin.
    n_head = len(head)
    state = np.zeros((2, k))
    if n_head > 0:
        head_out = np.empty((n_head, 1))
        state_of_head = np.zeros((2, 1))
        average(head, decay[:1], needed[:1], scale[:n_head], state_of_head, head_out)
        out[:n_head] = np.sqrt(head_out)
        state[:] = state_of_head

    # ``tail`` is a view of ``out``, so both of these write there.
    still_needed = np.maximum(needed - n_head, 1)
    tail = out[n_head:]
    average(rows, decay, still_needed, scale[n_head:], state, tail)
    np.sqrt(tail, out=tail)


def roll_moments(
    values: core.FloatArray, windows: core.IntArray
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return means and deviations (ddof 1) of the last values, of shape (n_bars, k) each."""
    series = pd.Series(values)
    shape = (len(values), len(windows))
    means = np.empty(shape)
    deviations = np.empty(shape)

    for j, window in enumerate(windows.tolist()):
        rolling = series.rolling(window)
        means[:, j] = rolling.mean()
        deviations[:, j] = rolling.std()
    return means, deviations


def sum_weighted(values: core.FloatArray, decay: float) -> core.FloatArray:
    """Return sum_i decay^(t - i) x_i at each t; the decay of an endless half-life is 1."""
    if decay == 1.0:
        return np.cumsum(values)
    weighted = pd.Series(values).ewm(alpha=1.0 - decay)
    sums: core.FloatArray = weighted.sum().to_numpy()
    return sums


MAX_PRODUCTS = 1_000_000
"""Products of returns held at once: 8 MB."""
MAX_HALVINGS = 200.0
"""How many half-lives a block has: its weights grow by 2^200 at most, far below the largest."""


class Covariances(NamedTuple):
    """Covariances (k, n, n) at the wanted bars ``first`` and later, counted among the wanted."""

    first: int
    values: core.FloatArray


def walk_covariances(
    returns: core.FloatArray,
    half_life: float,
    wanted: core.IntArray,
) -> Iterator[Covariances]:
    """Yield the covariances of returns (n_bars, n) at the ``wanted`` bars, which rise, in order.

    Exponentially weighted means of products, about zero; NaN before the first bar at which all
    returns are known, and bars at which one is not known only age the others. Memory is bounded
    by a block of bars, whatever their number.
    """
    n_bars, n = returns.shape
    decay = 0.5 ** (1.0 / half_life)
    block = choose_block(n, half_life)

    # The sums of weighted products and of weights at the last bar before a block.
    sum_before = np.zeros((n, n))
    weight_before = 0.0

    for start in range(0, n_bars, block):
        stop = min(start + block, n_bars)
        rows = returns[start:stop]
        is_known: core.BoolArray = np.all(np.isfinite(rows), axis=1)
        rows = np.where(is_known[:, None], rows, 0.0)

        # At bar t the product of bar s weighs decay^(t - s). The running sums have decay^-s, which
        # is the same for every t, and decay^t is multiplied after them.
        decay_to = decay ** np.arange(1.0, len(rows) + 1.0)
        scale = is_known / decay_to
        weights = decay_to * (weight_before + np.cumsum(scale))
        scaled = scale[:, None] * rows
        products = scaled[:, :, None] * rows[:, None, :]
        sums = np.cumsum(products, axis=0)

        # The wanted bars of the block.
        first, last = np.searchsorted(wanted, (start, stop))
        picked = wanted[first:last] - start
        if len(picked):
            sums_picked = sum_before + sums[picked]
            weighted = decay_to[picked, None, None] * sums_picked
            with np.errstate(invalid="ignore"):  # no weight before the first known bar
                means = weighted / weights[picked, None, None]
            yield Covariances(int(first), means)

        sum_before = decay_to[-1] * (sum_before + sums[-1])
        weight_before = float(weights[-1])


def choose_block(n: int, half_life: float) -> int:
    """Return how many bars of n returns are summed at once, for memory and for precision."""
    of_memory = MAX_PRODUCTS // n**2
    of_precision = int(MAX_HALVINGS * half_life)
    return max(1, min(of_memory, of_precision))
