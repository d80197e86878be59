"""Indicators of columns that a venue gives with its bars: by hand, and causal."""

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

import backtest as bt
from tests.kit import check_refused

HOUR = pd.Timedelta(hours=1)


def make_market(
    n: int, freq: str = "1h", start: str = "2024-01-01", **columns: object
) -> bt.Market:
    index = pd.date_range(start, periods=n, freq=freq, tz="UTC")
    price = np.full(n, 100.0)
    bars = {"open": price, "high": price, "low": price, "close": price, "volume": 10.0, **columns}
    return bt.Market.from_frames(pd.DataFrame(bars, index=index), now="2030-01-01")


def terms(**more: object) -> bt.funding.FundingTerms:
    usual = {"interval": "8h", "interest": 0.0001, "clamp": 0.0005}
    return bt.funding.FundingTerms(**{**usual, **more})


def test_predicted_funding_weighs_premia_by_their_place_since_the_last_settlement():
    """Mean of 1, 2, 3 ... thousandths weighted 1, 2, 3: (1 + 4 + 9) / 6 = 14/6 after three.

    Over the clamp: P + clamp(interest - P) = P - .0005. The 9th hour begins anew.
    """
    premium = np.arange(1.0, 17.0) * 1e-3

    found = bt.indicators.predicted_funding(make_market(16, premium=premium), terms())

    expected = []
    for k in range(16):
        seen = premium[k // 8 * 8 : k + 1]
        weights = np.arange(1, len(seen) + 1)
        mean = float(np.sum(weights * seen) / np.sum(weights))
        expected.append(mean - 0.0005)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)

    assert found[2] == pytest.approx(14e-3 / 6 - 0.0005, abs=1e-15)
    assert found[8] == pytest.approx(9e-3 - 0.0005, abs=1e-15)


@pytest.mark.parametrize(("premium", "more", "rate"), [
    # premium, terms, rate of the settlement
    (0.0004, {}, 0.0001),  # within the clamp it is the interest
    (-0.001, {}, -0.0005), (0.01, {"cap": 0.003}, 0.003), (-0.01, {"cap": 0.003}, -0.003),
    (-0.01, {"cap": 0.003, "floor": -0.002}, -0.002),
    (0.004, {"interval": "1h", "period": "8h"}, 0.0035 / 8),  # an hour pays an eighth
])  # fmt: skip
def test_predicted_funding_goes_through_the_terms(premium, more, rate):
    market = make_market(5, premium=np.full(5, premium))
    found = bt.indicators.predicted_funding(market, terms(**more))

    np.testing.assert_allclose(found, rate, rtol=0, atol=1e-15)


def test_a_missing_premium_takes_no_place_and_a_span_without_one_is_unknown():
    premium = [0.002, np.nan, 0.004, *[np.nan] * 6]
    market = make_market(9, premium=premium)

    found = bt.indicators.predicted_funding(market, terms())

    mean = (0.002 + 2 * 0.004) / 3 - 0.0005
    np.testing.assert_allclose(found[:8], [0.0015, 0.0015, *[mean] * 6], rtol=0, atol=1e-15)
    assert np.isnan(found[8])

    bare = make_market(3)
    said = "`backtest data fetch --with premium`"
    check_refused(lambda: bt.indicators.predicted_funding(bare, terms()), said, bt.ParameterError)


def test_the_mean_of_a_month_of_minutes_is_that_of_exact_sums():
    rng = np.random.default_rng(7)
    n = 31 * 1440
    premium = rng.normal(2e-4, 6e-4, n)
    market = make_market(n, "1min", premium=premium)
    found = bt.indicators.predicted_funding(market, terms(clamp=0.0, interest=0.0))

    for k in rng.integers(0, n, 40).tolist():
        seen = premium[k // 480 * 480 : k + 1]
        weights = np.arange(1, len(seen) + 1)
        mean = np.sum(weights * seen) / weights.sum()
        assert found[k] == pytest.approx(mean, abs=1e-12)

    part = bt.indicators.predicted_funding(market.prefix(1000), terms(clamp=0.0, interest=0.0))
    np.testing.assert_array_equal(part, found[:1000])


def test_minutes_of_a_generated_month_miss_the_mean_of_five_seconds_by_little():
    """A generated month, not a recorded one: p = 1e-4 + x, x' = .5^(1/360) x + shock, a point
    each 5 seconds, of which minutes have the last of twelve. Settlements are each 5,760 points."""
    rng = np.random.default_rng(5)
    n = 31 * 17_280
    decay = 0.5 ** (1 / 360)
    deviation = 3e-4
    shocks = rng.normal(0.0, deviation * np.sqrt(1.0 - decay**2), n)
    points = 1e-4 + lfilter([1.0], [1.0, -decay], shocks)
    weights = np.arange(1, 5_761)
    venue = (points.reshape(-1, 5_760) * weights).sum(axis=1) / weights.sum()

    market = make_market(n // 12, "1min", premium=points[11::12])
    ours = bt.indicators.predicted_funding(market, terms(clamp=0.0, interest=0.0))

    missed = np.abs(ours[479::480] - venue)
    assert np.median(missed) == pytest.approx(6.84e-7, rel=0.01)
    assert missed.max() == pytest.approx(2.52e-6, rel=0.01)


def test_taker_imbalance_is_the_weighted_excess_of_what_takers_bought():
    """Bought 10, 0 and 5 of 10: excess 10, -10, 0; at half-life 1: (0 - 5 + 2.5) / 17.5."""
    market = make_market(3, taker_buy_volume=[10.0, 0.0, 5.0])

    found = bt.indicators.taker_imbalance(market, 1.0)
    np.testing.assert_allclose(found, [np.nan, -5 / 15, -2.5 / 17.5], rtol=1e-12)

    both = bt.indicators.taker_imbalance(market, np.array([1.0, 2.0]))
    assert both.shape == (3, 2)
    assert np.isnan(both[0, 1])

    bare = make_market(3)
    said = "klines of Binance"
    check_refused(lambda: bt.indicators.taker_imbalance(bare, 1.0), said, bt.ParameterError)


def test_open_interest_change_is_relative_and_knows_what_is_missing():
    market = make_market(5, open_interest=[100.0, 110.0, np.nan, 121.0, 0.0])

    found = bt.indicators.open_interest_change(market, 1)
    np.testing.assert_allclose(found, [np.nan, 0.1, np.nan, np.nan, -1.0], rtol=1e-12)

    said = "at least 1"
    check_refused(lambda: bt.indicators.open_interest_change(market, 0), said, bt.ParameterError)

    bare = make_market(5)
    said = "`backtest data fetch --with metrics` has it"
    check_refused(lambda: bt.indicators.open_interest_change(bare, 1), said, bt.ParameterError)
