"""Funding: the rate forecast from what was settled, and from the premium by the venue's formula."""

import numpy as np
import pandas as pd
import pytest

from backtest import Market, funding
from backtest.features import funding_forecast
from tests.features.test_features import market_of

HALF_LIVES = np.array([24.0, 1.0, 0.1, 3000.0, 168.0])
EIGHTS = 3 * 365.0
"""Settlements a year, every 8 hours."""


def funded(hours: list[float], rates: list[float], n: int = 100, **columns: object) -> Market:
    """Return hourly bars with settlements at these hours."""
    start = pd.Timestamp("2024-01-01", tz="UTC")
    stamps = pd.DatetimeIndex([start + pd.Timedelta(hours=hour) for hour in hours])
    index = pd.date_range(start, periods=n, freq="1h")
    price = np.full(n, 100.0)
    bars = pd.DataFrame({"open": price, "high": price, "low": price, "close": price}, index=index)
    return Market.from_frames(
        bars.assign(**columns), funding=pd.Series(rates, index=stamps), funding_gaps="zero"
    )


def test_settlements_every_8_hours_give_the_weighted_mean_of_pandas():
    """A half-life of 24 bars is one of 3 settlements; a year has 1095 of them."""
    market = Market.sample(bars=2000)
    rates = pd.Series(market.funding_rate[1:])
    expected = rates.ewm(halflife=3.0).mean().to_numpy() * EIGHTS
    found = funding_forecast(market, 24.0)
    np.testing.assert_allclose(found[8::8], expected, rtol=1e-12)
    for hour in range(9, 16):
        assert found[hour::8].tobytes() == found[8::8][: len(found[hour::8])].tobytes()


def test_a_change_of_cadence_changes_no_annual_rate():
    """0.008 % for 8 hours, then 0.001 % an hour: 8.76 % a year throughout, with any half-life."""
    hours = [*range(0, 41, 8), *range(41, 81)]
    rates = [8e-5] * 6 + [1e-5] * 40
    found = funding_forecast(funded(hours, rates), HALF_LIVES)
    np.testing.assert_allclose(found[8:], 0.0876, rtol=1e-9)


def test_hours_and_eights_are_weighed_by_their_time_by_hand():
    """Half-life 8: at hour 9, 1e-4 for 8 h weighs 2^(-1/8) and 4e-5 for 1 h weighs 1."""
    found = funding_forecast(funded([0, 8, 9], [0.05, 1e-4, 4e-5], n=12), 8.0)
    w = 0.5**0.125
    expected = (w * 1e-4 + 4e-5) / (w * 8 + 1) * 8760.0
    assert found[9] == pytest.approx(expected, rel=1e-12)
    assert found[8] == pytest.approx(1e-4 / 8 * 8760.0, rel=1e-12)


def test_a_settlement_counts_from_the_first_close_after_its_stamp():
    """Stamped at 08:00, the close of bar 7: bar 8 is the first that knows; ms later, too."""
    for late in (0.0, 0.013 / 3600, 0.9):
        found = funding_forecast(funded([0, 8 + late], [1e-4, 1e-4], n=12), 24.0)
        assert np.isnan(found[:8]).all()
        assert np.isfinite(found[8:]).all()
    early = funding_forecast(funded([0, 8 - 0.013 / 3600], [1e-4, 1e-4], n=12), 24.0)
    assert np.isfinite(early[7:]).all()


def test_all_settlements_of_a_daily_bar_count_the_same():
    market = Market.sample(bars=30, interval="1d")
    found = funding_forecast(market, 5.0)
    days = np.searchsorted(market.time + market.interval, market.funding_time, side="right")
    weights = 0.5 ** ((29 - days[1:]) / 5.0)
    expected = np.average(market.funding_rate[1:], weights=weights) * EIGHTS
    assert found[-1] == pytest.approx(expected, rel=1e-12)


def test_long_silence_leaves_the_last_rate_and_the_next_one_counts():
    """After 5000 bars the weights of a half-life of one bar are 0: only what comes then is left."""
    market = funded([0, 8, 5000, 5008], [1e-4, 2e-4, 3e-4, 4e-4], n=5010)
    found = funding_forecast(market, 1.0)
    assert found[4999] == pytest.approx(2e-4 / 8 * 8760, rel=1e-12)
    assert found[5000] == pytest.approx(3e-4 / 4992 * 8760, rel=1e-12)


def test_a_market_without_funding_has_no_forecast():
    assert np.isnan(funding_forecast(market_of(np.full(10, 1.0)), 24.0)).all()


@pytest.mark.parametrize(("premium", "terms", "rate"), [
    (0.0006, {}, 0.0001),  # Binance, Bybit, Gate: inside the band the interest
    (-0.0004, {}, 0.0001),
    (-0.0008, {}, -0.0003),  # Hyperliquid: outside it, the premium less 0.05 %
    (0.01, {}, 0.0095),
    (0.0, {}, 0.0001),
    (-0.001, {"interest": 0.0, "clamp": 0.00025}, -0.00075),  # Deribit's damper
    (0.001, {"interest": 0.0, "clamp": 0.0005}, 0.0005),
    (1.0, {"cap": 0.32}, 0.32),  # Hyperliquid's 4 % an hour, 8 of them
    (-1.0, {"cap": 0.32}, -0.32),
])  # fmt: skip
def test_the_premium_formula_gives_the_published_cases(premium, terms, rate):
    assert funding.rate(premium, **terms) == pytest.approx(rate, abs=1e-15)


def test_deribits_maximum_and_minimum_are_the_same_formula():
    """max(d, p) + min(-d, p), d the damper."""
    premium, damper = np.linspace(-2e-3, 2e-3, 41), 2.5e-4
    expected = np.maximum(damper, premium) + np.minimum(-damper, premium)
    found = funding.rate(premium, 0.0, damper)
    np.testing.assert_allclose(found, expected, atol=1e-18)
    both = funding.rate(premium, np.zeros(41), np.full((3, 1), damper))
    assert both.shape == (3, 41)
