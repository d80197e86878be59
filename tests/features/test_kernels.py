"""Many values of a parameter at once: the bits of each alone, and what pandas and fractions say."""

import numpy as np
import pandas as pd
import pytest

from backtest import Market
from backtest.base.kernels import compile_module
from backtest.features import (
    ewma_volatility,
    kernels,
    log_returns,
    long_returns,
    rolling_sharpe,
)
from tests.features.test_features import market_of

HOURS = 8760.0
HALF_LIVES = np.geomspace(0.3, 3000.0, 67)


@pytest.fixture(scope="module")
def market() -> Market:
    return Market.sample(bars=1500)


def test_compiled_kernels_have_the_bits_of_plain_python(market: Market):
    """Fused or reordered arithmetic would show."""
    n, decay = 200, 0.5 ** (1.0 / np.array([0.5, 3.0, 64.0]))
    returns = np.where(np.arange(n) % 7 < 3, 0.0, log_returns(market)[:n])
    leave = np.array([[0.01, 0.5, 0.1], [0.05, 0.9, 0.1]])
    found = []
    for each in (kernels, compile_module(kernels)):
        mean, filtered, tail = np.zeros((n, 3)), np.zeros((n, 3)), np.zeros((2, n))
        each.ewma_lanes(returns**2, decay, np.linspace(1.0, 2.0, n), np.zeros((3, 3)), mean)
        each.learn_lanes(returns**2, 1.0 - decay, leave, np.zeros((10, 3)), filtered)
        each.tail_lane(-returns, 2.05, 2.0, np.zeros(40), np.full(40, -np.inf), tail)
        found.append([array.tobytes() for array in (mean, filtered, tail)])
    assert found[0] == found[1]


def test_ewma_is_that_of_pandas(market: Market):
    squares = pd.Series(log_returns(market) ** 2)
    expected = [squares.ewm(halflife=h, min_periods=2).mean() for h in HALF_LIVES]
    found = ewma_volatility(market, HALF_LIVES)
    np.testing.assert_allclose(found, np.sqrt(np.transpose(expected) * HOURS), rtol=1e-12)


def test_equal_funding_on_a_price_that_stands_still_has_no_sharpe_ratio():
    """Each bar earns -0.0003, which no binary number is: the deviation is 0 all the same."""
    index = pd.date_range("2024-01-01 00:30", periods=300, freq="1h", tz="UTC")
    market = market_of([7.0] * 300, funding=pd.Series(0.0003, index=index))
    earned = long_returns(market)
    assert len(set(earned[10:])) == 1
    assert np.isnan(rolling_sharpe(market, np.array([2, 7, 100])).ratio).all()
