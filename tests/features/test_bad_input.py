"""Arguments that the features refuse, and columns that they miss."""

import math

import numpy as np
import pytest

from backtest import Market, features
from tests.kit import check_refused

FEW = Market.sample(bars=10)
DAY = 1 / 365
PER_CENT = FEW.with_columns(implied_volatility=np.full(10, 55.0))
TAIL = {"level": 0.99, "horizon": 1, "window": 99, "half_life": 10.0}


def reach(**changed):
    return lambda: features.forecast_reach(FEW, **{"probability": 0.01, "horizon": 24.0, **changed})


def tail(**changed):
    return lambda: features.tail_losses(FEW, "historical", **{**TAIL, **changed})


BAD = [
    (lambda: features.ewma_volatility(FEW, math.nan), "half_life must be a number"),
    (lambda: features.close_to_close_volatility(FEW, 1), "window must be 2"),
    (lambda: features.trend_sign(FEW, math.inf), "lookback must be a whole number"),
    (lambda: features.trend_strength(FEW, 2, 10.0, np.array([1.0, 0.0])), "full must be over 0"),
    (lambda: features.learned_regimes(FEW, 10, 1.0, 20), "calm_bars must be over 1"),
    (lambda: features.volatility(FEW, "parkinsen"), "got 'parkinsen'; did you mean 'parkinson'"),
    (lambda: features.implied_volatility(FEW), "market.with_columns(implied_volatility="),
    (lambda: features.implied_volatility(PER_CENT), "10 of 10 bars; divide per cent by 100"),
    (lambda: features.garch_volatility(FEW, first=100.5), "first must be a whole number"),
    (lambda: features.har_volatility(Market.sample(bars=10, interval="24h")), "got bars of 1d"),
    (tail(level=0.5), "level must be over 0.5"),
    (tail(horizon=0), "horizon must be 1"),
    (tail(window=98), "window must hold at least 99 losses for the level 0.99, got 98"),
    (reach(horizon=0.0), "horizon must be over 0"),
    (reach(degrees_of_freedom=2.0), "degrees_of_freedom must be over 2"),
    (lambda: features.touch_probability(0.1, -0.5, DAY), "sigma must be at least 0 and finite"),
    (lambda: features.touch_probability(0.1, 0.5, DAY, -math.inf), "drift must be finite"),
    (lambda: features.touch_distance(1.5, 0.5, DAY), "probability must be at least 0 and at most"),
    (lambda: features.touch_probability(0.1, 0.5, DAY, 0.1, degrees_of_freedom=4), "drift must"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_input_is_refused(call, words):
    check_refused(call, words)
