"""Indicators are unknown until they have seen their half-life, window or fit."""

import math
from typing import Any

import numpy as np
import pytest

import backtest as bt
from backtest import indicators
from backtest.indicators import warm_up
from backtest.indicators.needed_bars import NEEDED

HALF_LIVES = (0.3, 2.0, 71.5, 72.0, 72.5, 300.0)
RANGES = {"calm_bars": 100.0, "stress_bars": 50.0}
FEEDBACK = {"target": 0.4, "gain": 0.1, "half_life": 24.0}
TAIL = {"level": 0.9, "window": 300, "half_life": 72.0}
CASES: list[tuple[str, dict[str, Any], int]] = [
    *(("ewma_volatility", {"half_life": h}, max(2, math.ceil(h))) for h in HALF_LIVES),
    *(
        ("volatility", {"estimator": name, "half_life": h}, max(2, math.ceil(h)) - 1)
        for name in ("parkinson", "garman-klass", "yang-zhang")
        for h in (0.5, 33.2)
    ),
    ("volatility", {}, 72),
    ("volatility", {"half_life": math.inf}, 2),
    ("volatility", {"estimator": "garch"}, 1000),
    ("garch_volatility", {"first": 500}, 500),
    ("har_volatility", {"first": 20}, 51 * 24 - 1),
    ("volatility", {"estimator": "har"}, 131 * 24 - 1),
    ("close_to_close_volatility", {"window": 48}, 48),
    ("atr", {"window": 24}, 23),
    ("atr", {}, 13),
    ("forecast_reach", {"probability": 0.01, "horizon": 24.0, "half_life": 55.0}, 55),
    ("funding_forecast", {"half_life": 3.0}, 8),
    ("funding_forecast", {"half_life": 100.0}, 100),
    ("learned_regimes", {"half_life": 50.0, **RANGES}, 100),
    ("learned_regimes", {"half_life": 450.5, **RANGES}, 451),
    ("rolling_drift", {"window": 99}, 99),
    ("rolling_sharpe", {"window": 99}, 99),
    ("trend_sign", {"lookback": 33}, 33),
    ("trend_strength", {"lookback": 33, "half_life": 72.0}, 72),
    ("trend_strength", {"lookback": 133, "half_life": 72.0}, 133),
    ("tail_losses", {"model": "historical", **TAIL}, 300),
    ("tail_losses", {"model": "filtered-historical", **TAIL}, 372),
    *((name, {}, 1) for name in ("log_returns", "long_returns", "traded_returns")),
    *((name, {}, 0) for name in ("settled_funding", "true_range", "implied_volatility")),
    ("leverage_skew", {"column": "ratio"}, 0),
    ("open_interest_change", {"bars": 24}, 24),
    ("taker_imbalance", {"half_life": 33.2}, 33),
    ("predicted_funding", {"terms": bt.funding.terms("binance-usdm", "BTCUSDT")}, 0),
    ("volatility_feedback", {"sigma": np.ones(3500), **FEEDBACK}, 0),
]


@pytest.fixture(scope="module")
def market() -> bt.Market:
    ones = np.ones(3500)
    return bt.Market.sample(bars=3500).with_columns(
        implied_volatility=0.5 * ones, ratio=ones, open_interest=ones, premium=ones,
        taker_buy_volume=ones,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "bars"), CASES)
def test_the_first_value_is_at_the_bar_that_warm_up_says(market, name, settings, bars):
    found = getattr(indicators, name)(market, **settings)
    values = np.asarray(found[0] if isinstance(found, tuple) else found)
    assert np.flatnonzero(~np.isnan(values))[0] == bars
    assert warm_up(name, interval="1h", **settings) == bars


def test_of_several_values_the_longest_counts(market):
    half_lives = np.array([2.0, 5.5, 40.0])
    assert warm_up("ewma_volatility", half_life=half_lives) == 40
    found = indicators.ewma_volatility(market, half_lives)
    assert np.isnan(found).sum(axis=0).tolist() == [2, 6, 40]


def test_every_public_indicator_of_a_market_is_known():
    others = {
        "TAIL_MODELS", "VOLATILITY_ESTIMATORS", "WEIGHTED_ESTIMATORS", "Drift", "Regimes",
        "Sharpe", "Tail", "bars_per_year", "floored_kelly", "touch_distance",
        "touch_probability", "warm_up",
    }  # fmt: skip
    assert {*indicators.__all__} - others == {*NEEDED}


@pytest.mark.parametrize(("name", "settings", "words"), [
    ("ewma_volatilty", {"half_life": 3}, "did you mean 'ewma_volatility'"),
    ("ewma_volatility", {"half_live": 3}, r"no setting 'half_live' \(did you mean 'half_life'"),
    ("ewma_volatility", {}, "needs half_life, which has no default"),
    ("ewma_volatility", {"half_life": -1}, "half_life must be over 0, got -1"),
    ("har_volatility", {}, "needs the interval of the bars to count them, interval='1h'"),
    ("har_volatility", {"interval": "1x"}, "interval must be a duration"),
    ("volatility", {"estimator": "ewm"}, "estimator must be one of"),
])  # fmt: skip
def test_what_is_not_known_is_refused_by_name(name, settings, words):
    with pytest.raises(bt.ParameterError, match=words):
        warm_up(name, **settings)


def test_a_half_life_of_returns_is_half_of_the_weight():
    """After n returns of a half-life n the weights seen are 1 - 2^-1 of all, one less before."""
    weights = 0.5 ** (np.arange(10_000) / 72.0)
    assert weights[:72].sum() / weights.sum() == pytest.approx(0.5)
