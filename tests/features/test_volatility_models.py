"""GARCH against ``arch``, the autoregression of realised variances against least squares."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from arch import arch_model

from backtest import Market
from backtest.features import (
    estimators,
    garch_volatility,
    har_volatility,
    log_returns,
    volatility,
)
from backtest.features.estimators import GarchFit, fit_garch
from tests.features.test_features import sessions_market
from tests.kit import check_knows_the_past_only, check_lanes_are_each_alone, market_of

HOURS = 8760.0


@pytest.fixture(scope="module")
def market() -> Market:
    return Market.sample(bars=1400)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of returns that models are fitted to, where none has been kept."""
    found: list[int] = []
    monkeypatch.setattr(estimators, "_kept", {})

    def fit(returns: np.ndarray) -> GarchFit | None:
        found.append(len(returns))
        return fit_garch(returns)

    monkeypatch.setattr(estimators, "fit_garch", fit)
    return found


def model_of(returns: np.ndarray) -> Any:
    """Return the model of ``arch``."""
    return arch_model(returns, mean="Zero", vol="GARCH", p=1, q=1, rescale=False)


@pytest.mark.slow
def test_a_model_knows_the_past_only_and_no_half_life(market: Market):
    def estimate(market: Market, half_life: Any) -> np.ndarray:
        return volatility(market, "garch", half_life)

    half_lives = np.array([2.0, 24.0, 300.0])
    check_lanes_are_each_alone(estimate, market, half_lives)
    check_knows_the_past_only(estimate, market, half_lives, (1, 999, 1000, 1001, 1101, 1250, 1399))
    found = garch_volatility(market)
    assert volatility(market, "garch", 5.0).tobytes() == found.tobytes()
    assert np.isnan(found[:1000]).all()
    assert np.isfinite(found[1000:]).all()


def test_a_model_is_fitted_on_a_schedule_of_bars_and_once(market: Market, calls: list[int]):
    garch_volatility(market)
    assert calls == [1000, 1100, 1210, 1331]
    garch_volatility(market.prefix(1300))
    volatility(market, ["garch", "ewma", "garch"], np.array([1.0, 2.0, 3.0]))
    assert calls == [1000, 1100, 1210, 1331]
    garch_volatility(market_of(market.close * 3.0))
    assert len(calls) == 8  # other rounding, other returns


def test_a_forecast_is_that_of_arch_with_the_same_parameters(market: Market):
    """Its conditional volatility of the next bar, and after the last bar its forecast."""
    found = garch_volatility(market) / math.sqrt(HOURS)
    returns = log_returns(market)[1:]
    for start, stop in ((1000, 1100), (1210, 1331), (1331, 1400)):
        fit = fit_garch(returns[:start])
        assert fit is not None
        theirs = model_of(returns[: stop - 1]).fix(fit)
        expected = theirs.conditional_volatility[start:]  # of the bars after start
        np.testing.assert_allclose(found[start : stop - 1], expected, rtol=1e-12)
        last = theirs.forecast(horizon=1).variance.to_numpy()[-1, 0]
        assert found[stop - 1] == pytest.approx(math.sqrt(last), rel=1e-12)


def test_where_a_fit_fails_the_one_before_stays(market: Market, monkeypatch: pytest.MonkeyPatch):
    """At 1000 none converges, so nothing is known; at 1210 the fit of 1100 stays."""
    monkeypatch.setattr(estimators, "_kept", {})
    whole = garch_volatility(market)
    estimators._kept.clear()
    broken = {1000, 1210}
    monkeypatch.setattr(
        estimators, "fit_garch", lambda r: None if len(r) in broken else fit_garch(r)
    )
    found = garch_volatility(market)
    assert np.isnan(found[:1100]).all()
    assert found[1100:1210].tobytes() == whole[1100:1210].tobytes()
    assert np.isfinite(found[1210:1331]).all()
    assert (found[1210:1331] != whole[1210:1331]).any()
    assert found[1331:].tobytes() == whole[1331:].tobytes()


def test_a_price_that_stands_still_has_no_model():
    assert np.isnan(garch_volatility(market_of(np.full(300, 7.0)), first=100)).all()


@pytest.fixture(scope="module")
def days() -> Market:
    """A hundred and fifty days of four hours each."""
    return Market.sample(bars=150 * 6, interval="4h")


def slow_har(market: Market, t: int, first: int) -> float:
    """Return the forecast at bar t, by pandas and numpy's least squares."""
    seen = market.prefix(t + 1)
    squares = pd.Series(log_returns(seen) ** 2, index=seen.times)
    daily = squares.groupby(squares.index.floor("D")).sum()
    n = 252.0 if market.sessions else 365.0
    week, month = (5, 22) if market.sessions else (7, 30)
    over = seen.end >= daily.index.as_unit("ns").asi8 + 86_400 * 10**9
    daily = daily[over].iloc[1:].to_numpy()
    table = pd.DataFrame({"one": 1.0, "day": daily})
    table["week"], table["month"] = (
        table["day"].rolling(week).mean(),
        table["day"].rolling(month).mean(),
    )
    x = table.to_numpy()
    pairs = len(x) - month
    if pairs < first:
        return math.nan
    rows = slice(month - 1, month - 1 + pairs)
    b = np.linalg.lstsq(x[rows], daily[month : month + pairs], rcond=None)[0]
    return math.sqrt(n * np.clip(x[-1] @ b, daily.min(), daily.max()))


@pytest.mark.parametrize("first", [100, 40])
def test_a_forecast_is_that_of_least_squares(days: Market, first: int):
    found = har_volatility(days, first=first)
    start = 6 * (1 + 30 + first) - 1
    assert np.isnan(found[:start]).all()
    assert np.isfinite(found[start:]).all()
    for t in (start - 1, start, start + 1, start + 5, start + 6, start + 40, 899):
        assert found[t] == pytest.approx(slow_har(days, t, first), rel=1e-9, nan_ok=True)


def test_the_autoregression_knows_the_past_only(days: Market):
    def estimate(market: Market, first: Any) -> np.ndarray:
        return np.column_stack([har_volatility(market, first=int(n)) for n in np.atleast_1d(first)])

    cuts = (1, 5, 6, 7, 245, 246, 786, 787, 791, 792, 850, 899)
    check_knows_the_past_only(estimate, days, np.array([10, 100]), cuts)
    check_lanes_are_each_alone(
        lambda market, h: volatility(market, "har", h), days, np.array([1.0, 5.0])
    )
    sessions = sessions_market(60, 7)
    check_knows_the_past_only(estimate, sessions, np.array([10, 20]), (1, 7, 8, 237, 238, 239, 300))


def test_a_session_is_over_with_the_first_bar_of_the_next():
    """Half-hours from 14:30 to 18:00: only the next day's first bar tells that it was the last."""
    sessions = sessions_market(60, 7)
    found = har_volatility(sessions, first=10)
    start = 7 * (1 + 22 + 10)
    assert np.isnan(found[:start]).all()
    assert np.isfinite(found[start:]).all()
    for t in (start, start + 6, start + 7, 419):
        assert found[t] == pytest.approx(slow_har(sessions, t, 10), rel=1e-9)
