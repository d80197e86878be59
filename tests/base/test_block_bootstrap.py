"""Lengths of blocks: those of ``arch``."""

import numpy as np
import pytest
from arch.bootstrap import optimal_block_length

from backtest.base import find_block_length


@pytest.mark.parametrize("persistence", [-0.5, 0.0, 0.9, 0.999])
@pytest.mark.parametrize("n", [8, 12, 100, 5000])
def test_blocks_are_as_long_as_those_of_arch(n, persistence):
    series = np.random.default_rng(n).standard_normal(n)
    for t in range(1, n):
        series[t] += persistence * series[t - 1]
    with np.errstate(all="ignore"):
        known = optimal_block_length(series)["stationary"].iloc[0]
    np.testing.assert_allclose(find_block_length(series), known, rtol=1e-12)


def test_a_series_that_does_not_vary_has_no_length_of_blocks():
    assert np.isnan(find_block_length(np.ones(50)))
