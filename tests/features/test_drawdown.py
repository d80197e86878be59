"""The drawdown of a market: depth and age, against plain loops."""

import math

import numpy as np
import pytest

from backtest import Market
from backtest.features import drawdown_state
from tests.markets import market_of


@pytest.mark.parametrize("window", [1, 2, 7, 100, math.inf])
def test_depth_and_age_are_those_of_a_plain_search(window: float):
    """Prices on a coarse tick, so that peaks are often met again: the latest one counts."""
    close = np.round(Market.sample(bars=600).close / 200.0) * 200.0
    found = drawdown_state(market_of(close), window)
    for t in range(len(close)):
        if math.isfinite(window) and t + 1 < window:
            assert math.isnan(found.depth[t])
            assert math.isnan(found.bars[t])
            continue
        first = max(0, t + 1 - window) if math.isfinite(window) else 0
        seen = close[int(first) : t + 1]
        age = int(np.argmax(seen[::-1]))
        assert found.depth[t] == 1.0 - close[t] / seen.max()
        assert found.bars[t] == age


def test_by_hand():
    """100, 80, 120, 90, 120: 20 % down, a new peak, a quarter down, the peak met again."""
    found = drawdown_state(market_of(np.array([100.0, 80.0, 120.0, 90.0, 120.0])))
    np.testing.assert_allclose(found.depth, [0.0, 0.2, 0.0, 0.25, 0.0], rtol=1e-12)
    assert found.bars.tolist() == [0.0, 1.0, 0.0, 1.0, 0.0]
