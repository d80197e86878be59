"""Every estimator has the bits of one value among many, of a prefix, and of another future."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from backtest import Market
from backtest.features import (
    TAIL_MODELS,
    close_to_close_volatility,
    ewma_volatility,
    forecast_reach,
    funding_forecast,
    learned_regimes,
    rolling_sharpe,
    tail_losses,
    trend_sign,
    trend_strength,
)
from tests.features.test_features import sessions_market
from tests.features.test_volatility import MANY as RANGES
from tests.kit import Estimate, check_knows_the_past_only, check_lanes_are_each_alone


class Family(NamedTuple):
    """Estimators of many values, and where their columns are cut, beside the last bar."""

    values: Any
    cuts: tuple[int, ...]
    estimates: dict[str, Estimate]
    make: Callable[[], Market] = lambda: Market.sample(bars=500)


FLIPS = np.array([1.0, 0.5, -1.0, 0.0, -0.3])
TAILS = np.array(["historical", "normal", "historical", "filtered-historical", "normal"])
TAIL = {
    "level": np.array([0.9, 0.95, 0.975, 0.99, 0.995]),
    "horizon": np.array([1, 2, 24, 7, 1]),
    "window": np.array([25, 100, 101, 300, 640]),
    "half_life": np.array([2.0, 10.0, 72.0, 0.5, 300.0]),
}
REACH = {
    "probability": np.geomspace(1e-6, 0.5, 9),
    "horizon": np.geomspace(1.0, 2000.0, 9),
    "half_life": np.geomspace(2.0, 900.0, 9),
    "degrees_of_freedom": np.append(np.linspace(2.1, 9.0, 8), math.inf),
    "estimator": np.array(["ewma", "parkinson", "garman-klass"] * 3),
}
ONE = {"probability": 0.01, "horizon": 24.0}


def tail_of(model: str, part: int) -> Estimate:
    """Return value at risk (0) or expected shortfall (1) of a model, or of several by name."""

    def estimate(market: Market, at: Any) -> np.ndarray:
        given = {name: values[at] for name, values in TAIL.items()}
        return tail_losses(market, TAILS[at] if model == "by name" else model, **given)[part]

    return estimate


def reach_of(*names: str) -> Estimate:
    return lambda m, at: forecast_reach(m, **{**ONE, **{each: REACH[each][at] for each in names}})


def flipping() -> Market:
    """Return a market whose signal changes sides."""
    return Market.sample(bars=1200).with_signal(FLIPS[np.arange(1200) // 89 % 5])


FAMILIES = {
    "half-lives": Family(
        np.geomspace(0.3, 3000.0, 67), (1, 2, 3, 63, 64, 65, 129, 1201), {"ewma": ewma_volatility},
        lambda: Market.sample(bars=1500),
    ),
    "windows": Family(
        np.unique(np.geomspace(2, 1200, 80).astype(int)), (1, 2, 3, 63, 64, 65, 127, 128, 1201),
        {"close to close": close_to_close_volatility,
         "sharpe": lambda m, n: rolling_sharpe(m, n).ratio,
         "sharpe error": lambda m, n: rolling_sharpe(m, n).error},
        lambda: Market.sample(bars=1500),
    ),
    **{name: Family(values, (1, 2, 3, 64, 65, 251), {"range": estimate},
                    lambda: Market.sample(bars=400))
       for name, (estimate, values) in RANGES.items()},
    "tail": Family(
        np.arange(5), (1, 2, 24, 25, 26, 63, 64, 65, 128, 700),
        {f"{name}, {part}": tail_of(name, part)
         for name in (*TAIL_MODELS, "by name") for part in (0, 1)}, flipping,
    ),
    "reach": Family(
        np.arange(9), (1, 2, 3, 63, 64, 65),
        {"all": reach_of(*REACH)} | {name: reach_of(name) for name in REACH},
    ),
    "funding": Family(
        np.array([24.0, 1.0, 0.1, 3000.0, 168.0]), (1, 2, 8, 9, 10, 16, 17, 200),
        {"forecast": funding_forecast},
    ),
    "trend": Family(
        np.array([1, 24, 2, 300, 168, 5000]), (1, 2, 3, 24, 25, 168, 301),
        {"sign": trend_sign,
         "strength by lookback": lambda m, bars: trend_strength(m, bars, 36.0),
         "strength by half-life": lambda m, bars: trend_strength(m, 48, bars, 1.5),
         "strength by both": lambda m, bars: trend_strength(m, bars, bars, bars / 50.0)},
    ),
    "regimes": Family(
        np.array([200.0, 30.0, 1.5, 2000.0, 77.0]), (1, 2, 19, 20, 21, 22, 99, 100, 101, 102, 300),
        {"learned, filtered": lambda m, bars: learned_regimes(m, 200, bars, 30).filtered,
         "learned, predicted": lambda m, bars: learned_regimes(m, bars, 200, bars).predicted},
    ),
}  # fmt: skip
CASES = [(family, name) for family, each in FAMILIES.items() for name in each.estimates]


@pytest.mark.parametrize("make", [None, lambda: sessions_market(40, 13)], ids=["24/7", "sessions"])
@pytest.mark.parametrize(("family", "name"), CASES)
def test_the_bits_do_not_depend_on_other_values_nor_on_the_future(family: str, name: str, make):
    values, cuts, estimates, own = FAMILIES[family]
    market = (make or own)()
    check_lanes_are_each_alone(estimates[name], market, values)
    cuts = tuple(n for n in cuts if n < market.n_bars)
    check_knows_the_past_only(estimates[name], market, values, (*cuts, market.n_bars - 1))
