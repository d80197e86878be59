"""Funding of presets: the published rates of each venue."""

import numpy as np
import pytest

import backtest as bt
from backtest.base.errors import BacktestError
from backtest.venue.venue import Venue
from tests.venue.test_presets import BTC


def terms(venue: str, symbol: str) -> bt.funding.FundingTerms:
    found = bt.funding.terms(venue, symbol)
    assert found is not None
    return found


@pytest.mark.parametrize(("premium", "rate"), [
    (0.0006, 1e-4), (-0.0004, 1e-4), (0.0012, 7e-4), (-0.0010, -5e-4)
])  # fmt: skip
def test_binance_funding_is_premium_and_clamp(premium, rate):
    """bin_funding_clamp_5 and _6: within the clamp the rate is the interest."""
    found = bt.funding.rate_of(terms(*BTC), premium)
    assert found == pytest.approx(rate, abs=1e-15)
    assert bt.funding.rate(premium) == found


@pytest.mark.parametrize(("size", "premium", "hour", "paid"), [
    (-10, -0.0008, -3.75e-5, 3.75), (5, 0.01, 0.0011875, 59.375), (1, 0.0, 1.25e-5, 0.125),
])  # fmt: skip
def test_hyperliquid_funding_of_an_hour(size, premium, hour, paid):
    """hl_funding_3 to _5: an eighth of the rate of 8 hours, on the oracle's price of 10,000."""
    rate = bt.funding.rate_of(terms("hyperliquid", "BTC"), premium)
    assert rate == pytest.approx(hour, abs=1e-12)
    contract = Venue.preset("hyperliquid", "BTC").contract
    assert bt.funding.payment(contract, size, 10_000, rate) == pytest.approx(paid, abs=1e-9)


def test_the_cap_of_hyperliquid_binds_per_hour():
    assert bt.funding.rate_of(terms("hyperliquid", "BTC"), 1.0) == 0.04


@pytest.mark.parametrize(("mark", "damper", "hours", "usd", "rate", "paid"), [
    (9990, None, 4.0, 50_000, -0.00075, -0.001875), (10_010, 0.0005, 1 / 60, 10_000, 0.0005,
                                                    1.0416666666666667e-06),
])  # fmt: skip
def test_deribit_funding_is_damped_and_paid_by_time(mark, damper, hours, usd, rate, paid):
    """deribit_funding_3 and _4: the second by the damper of older documents; in the coin."""
    its = terms("deribit", "BTC_USDC-PERPETUAL")
    its = its if damper is None else its.override(clamp=damper)
    premium = (mark - 10_000) / 10_000
    found = bt.funding.rate(premium, its.interest, its.clamp, its.cap)
    assert found == pytest.approx(rate, abs=1e-14)
    assert bt.funding.rate_of(its, premium) == pytest.approx(rate / 8, abs=1e-14)
    coin = bt.Contract(kind="inverse", size=1.0)
    assert bt.funding.payment(coin, usd, 10_000, found * hours / 8) == pytest.approx(
        paid, abs=1e-14
    )


def test_kraken_pays_a_24th_of_the_premium_each_hour_up_to_a_quarter_percent():
    its = terms("kraken-futures", "PF_XBTUSD")
    assert bt.funding.rate_of(its, 0.0012) == pytest.approx(0.0012 / 24, rel=1e-12)
    assert bt.funding.rate_of(its, 0.5) == 0.0025
    # kraken_funding_abs_rate: per contract of 1 USD, in the coin
    coin = bt.Contract(kind="inverse", size=1.0)
    assert bt.funding.payment(coin, 1.0, 7_000, 0.0005) == pytest.approx(7.142e-8, rel=1e-3)


def test_the_costs_of_a_day():
    contract = Venue.preset(*BTC).contract
    paid = bt.funding.payment(contract, 1.0, 20_000.0, np.full(3, 1e-4))
    assert paid.sum() == pytest.approx(6.0, abs=1e-9)  # bin_funding_day_cost
    # thalex_funding: a premium of 0.2 % in a day, 4 coins for 3 hours, no damper
    rate = bt.funding.rate(100 / 50_000, 0.0, 0.0) * 3 / 24
    assert bt.funding.payment(contract, 4.0, 50_000.0, rate) == pytest.approx(50.0, abs=1e-9)


def test_venues_without_known_terms_have_none():
    assert bt.funding.terms("reg-t", "STOCK") is None


def test_an_unknown_venue_is_refused():
    with pytest.raises(BacktestError, match="known preset"):
        bt.funding.terms("binance", "BTCUSDT")
