"""What every estimator keeps: the bits of one value among many, of a prefix, of another future."""

from collections.abc import Callable
from typing import Any

import numpy as np

from backtest import Market
from backtest.engine.lookahead import rewrite_after

Estimate = Callable[[Market, Any], np.ndarray]


def check_lanes_are_each_alone(estimate: Estimate, market: Market, values: np.ndarray) -> None:
    """Assert that each value among many has the bits it has alone, wherever it stands."""
    whole = estimate(market, values)
    assert whole.shape == (market.n_bars, len(values))
    assert whole.dtype == np.float64
    assert whole.flags.c_contiguous
    for k, value in enumerate(values):
        assert whole[:, k].tobytes() == estimate(market, value).tobytes()
    for n in (1, 2, 7, 8, 9, 31):
        assert estimate(market, values[:n]).tobytes() == whole[:, :n].tobytes()
    assert estimate(market, values[::-1]).tobytes() == whole[:, ::-1].tobytes()


def check_knows_the_past_only(
    estimate: Estimate, market: Market, values: np.ndarray, cuts: tuple[int, ...]
) -> None:
    """Assert that the first n bars have the same bits, whatever comes after them."""
    whole = estimate(market, values)
    for n in cuts:
        assert estimate(market.prefix(n), values).tobytes() == whole[:n].tobytes()
        other = estimate(rewrite_after(market, n - 1, np.random.default_rng(n)), values)
        assert other[:n].tobytes() == whole[:n].tobytes()
        if np.isfinite(whole[-1]).all() and n < market.n_bars - 20:
            assert (other[n + 1 :] != whole[n + 1 :]).any()
