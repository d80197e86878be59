"""Rounding is no peek: honest columns by FFT of long histories, of ticks, and near 0."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import signal as filters

import backtest as bt
from backtest.engine.lookahead.causality import check_causality, observe
from backtest.engine.lookahead.causality_checker import ENOUGH, Causality
from tests.honest_columns import HONEST
from tests.markets import market_of, walk
from tests.peeks import PEEKS, log_returns, observing

LONG = walk(35_064, 1.1, 0.8, seed=4)
"""Four years of hours in which the price rises from 100 to several thousand."""
TICKS = market_of(100.0 + 0.5 * np.cumsum(np.random.default_rng(2).integers(-2, 3, 2000)) % 50)
"""Prices in ticks of 0.5 %: a third of all sums of a few moves are 0."""
ONE_TICK = market_of(100.0 + 1e-5 * np.cumsum(np.random.default_rng(1).integers(-1, 2, 2000)))
"""Bars of at most one small tick: a flag that looks ahead shows only where moves are equal."""


def check(function: Any, market: bt.Market) -> Causality:
    policy = observing(function)
    return check_causality(policy, market, observe(policy, market))


def momentum_by_fft(market: Any) -> Any:
    """Return an exponentially weighted sum of returns, which is 0 in the first bar."""
    weights = 0.5 ** (np.arange(5000) / 500.0)
    return filters.fftconvolve(log_returns(market), weights)[: market.n_bars]


@pytest.mark.parametrize("name", ["fft deviation 1, value", "single deviation, value"])
def test_an_fft_of_a_long_history_is_not_accused(name: str):
    """Its rounding is that of the highest prices, also in the rows of the lowest."""
    assert check(HONEST[name], LONG).cuts >= ENOUGH


@pytest.mark.parametrize("name", ["fft 1, claim", "fft 5, sign", "fft 13, sign", "fft 24, claim"])
def test_signs_of_sums_of_ticks_are_not_accused(name: str):
    assert check(HONEST[name], TICKS).cuts >= ENOUGH


@pytest.mark.parametrize("name", ["centered 1, claim", "gradient, claim", "interpolate 1, claim"])
def test_a_peek_that_shows_only_at_equal_moves_is_caught(name: str):
    """The sign of 0 is arbitrary, but noise gives it no other sign in the longer part."""
    with pytest.raises(bt.PolicyError, match="looks ahead"):
        check(PEEKS[name], ONE_TICK)


@pytest.mark.parametrize("share", [1e-4, 1e-6, 1e-8])
def test_a_small_share_of_a_mean_of_all_bars_is_caught(share: float):
    def tilted(market: Any) -> Any:
        moves = log_returns(market)
        return momentum_by_fft(market) - share * moves.mean()

    with pytest.raises(bt.PolicyError, match="looks ahead"):
        check(tilted, LONG)


def test_a_sign_that_rounding_alone_decides_has_a_cure_of_its_own():
    """The first sum is 0. Its sign depends on the number of bars, as that of a peek does."""
    with pytest.raises(bt.PolicyError) as caught:
        check(lambda market: np.sign(momentum_by_fft(market)), LONG)
    assert "if only rounding decides the first rows" in str(caught.value)

    def known(market: Any) -> Any:
        return np.where(np.arange(market.n_bars) == 0, np.nan, np.sign(momentum_by_fft(market)))

    assert check(known, LONG).cuts >= ENOUGH


@pytest.mark.slow
@pytest.mark.parametrize("market", [LONG, TICKS], ids=["long", "ticks"])
@pytest.mark.parametrize("name", [name for name in HONEST if "fft" in name or "single" in name])
def test_no_fft_is_accused(name: str, market: bt.Market):
    assert check(HONEST[name], market).cuts >= ENOUGH


@pytest.mark.slow
def test_signs_of_sums_of_ticks_are_not_accused_in_a_panel():
    """B is listed later; its first row is unknown, as rounding alone would decide it."""
    markets = bt.Markets({"A": TICKS, "B": TICKS.slice(700, 2000)})

    def sign(markets: Any) -> pd.DataFrame:
        columns = {}
        for name in markets.names:
            market = markets[name]
            sums = filters.fftconvolve(log_returns(market), np.ones(6))[: market.n_bars]
            columns[name] = pd.Series(np.sign(sums), index=market.times)
            columns[name].iloc[0] = 0.0
        return pd.DataFrame(columns).fillna(0.0)

    assert "B" in bt.signals.from_function(markets, sign)
    with pytest.raises(bt.PolicyError, match="looks ahead"):
        bt.signals.from_function(markets, lambda seen: sign(seen).shift(-1).fillna(0.0))


def test_a_chaotic_map_of_an_fft_of_the_whole_cannot_be_verified():
    """It is honest, but amplifies rounding as it would amplify a peek: here lies the line."""

    def chaotic(market: Any) -> Any:
        x = np.mod(momentum_by_fft(market), 0.9) + 0.05
        for _ in range(80):
            x = 3.99 * x * (1.0 - x)
        return x

    with pytest.raises(bt.PolicyError, match="cannot be verified") as caught:
        check(chaotic, TICKS)
    assert "seed generators with a constant" in str(caught.value)
