"""Estimators: against their formulas by hand, against known truth, and what they refuse."""

import math

import numpy as np
import pandas as pd
import pytest

from backtest import Market, features, funding
from backtest.base.units import parse_duration
from backtest.features import (
    bars_per_year,
    close_to_close_volatility,
    ewma_volatility,
    funding_forecast,
    long_returns,
    rolling_sharpe,
    settled_funding,
    traded_returns,
)
from backtest.strategies import Constant
from tests.kit import check_refused, live


def market_of(
    close: list[float] | np.ndarray,
    freq: str = "1h",
    funding: pd.Series | None = None,
    index: pd.DatetimeIndex | None = None,
) -> Market:
    """Return a market of closes, each bar opening at the close before."""
    close = np.asarray(close, dtype=float)
    opens = np.concatenate([close[:1], close[:-1]])
    bars = {
        "open": opens,
        "high": np.maximum(opens, close),
        "low": np.minimum(opens, close),
        "close": close,
    }
    if index is None:
        index = pd.date_range("2024-01-01", periods=len(close), freq=freq, tz="UTC")
        return Market.from_frames(pd.DataFrame(bars, index=index), funding=funding)
    return Market.from_frames(pd.DataFrame(bars, index=index), sessions=True)


def sessions_market(days: int = 5, per_day: int = 7) -> Market:
    """Return half-hour bars from 14:30 UTC on, on business days."""
    opens = [
        day + pd.Timedelta(hours=14.5) + pd.Timedelta(minutes=30 * k)
        for day in pd.bdate_range("2024-01-01", periods=days, tz="UTC")
        for k in range(per_day)
    ]
    path = 100.0 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, len(opens))))
    return market_of(path, index=pd.DatetimeIndex(opens))


def test_ewma_by_hand():
    """Half-life 1: weights 1, 1/2, 1/4 from the last return back."""
    market = market_of(np.exp([0.0, 0.1, -0.1, 0.2]))
    a, b, c = 0.1**2, 0.2**2, 0.3**2
    variance = [np.nan, np.nan, (b + a / 2) / 1.5, (c + b / 2 + a / 4) / 1.75]
    np.testing.assert_allclose(
        ewma_volatility(market, 1.0), np.sqrt(np.multiply(variance, 8760.0)), rtol=1e-12
    )


def test_close_to_close_by_hand():
    """Returns 0.1, 0.3, -0.1: the last two have mean 0.1, and squares that add up to 0.08."""
    market = market_of(np.exp([0.0, 0.1, 0.4, 0.3]))
    expected = np.sqrt(np.multiply([np.nan, np.nan, 0.02, 0.08], 8760.0))
    np.testing.assert_allclose(close_to_close_volatility(market, 2), expected, rtol=1e-12)


def test_sharpe_by_hand():
    """Returns 0.1 and 0.3 less funding of 0.1: mean 0.15, deviation sqrt(0.005)."""
    stamp = pd.DatetimeIndex(["2024-01-01 02:00"], tz="UTC")
    market = market_of([1.0, 1.1, 1.43], funding=pd.Series([0.1], index=stamp))
    sharpe = rolling_sharpe(market, 2)
    per_bar = 0.15 / math.sqrt(0.005)
    assert np.isnan(sharpe.ratio[:2]).all()
    assert np.isnan(sharpe.error[:2]).all()
    assert sharpe.ratio[2] == pytest.approx(per_bar * math.sqrt(8760.0), rel=1e-12)
    error = math.sqrt(8760.0 * (1.0 + per_bar**2 / 2.0) / 2.0)
    assert sharpe.error[2] == pytest.approx(error, rel=1e-12)


def test_long_returns_pay_the_funding_known_since_the_last_close():
    """A stamp a few ms before an open is known at the close before; one at a close is not."""
    times = ["2024-01-01 00:00", "2024-01-01 01:59:59.995", "2024-01-01 03:00", "2024-01-01 03:30"]
    funding = pd.Series([0.1, 0.02, 0.003, 0.0004], index=pd.DatetimeIndex(times, tz="UTC"))
    index = pd.date_range("2024-01-01", periods=5, freq="1h", tz="UTC")
    bars = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), 5.0), index=index)
    market = Market.from_frames(bars, funding=funding, funding_gaps="zero")
    np.testing.assert_allclose(settled_funding(market), [0.1, 0.02, 0.0, 0.0034, 0.0])
    np.testing.assert_allclose(long_returns(market), [np.nan, -0.02, 0.0, -0.0034, 0.0])


def hourly(stamps: list[str], rates: list[float], n: int) -> Market:
    """Return hours of a price that stands still, and settlements at these times of 2024-01-01."""
    index = pd.date_range("2024-01-01", periods=n, freq="1h", tz="UTC")
    bars = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), 5.0), index=index)
    times = pd.DatetimeIndex([f"2024-01-01 {stamp}" for stamp in stamps], tz="UTC")
    return Market.from_frames(bars, funding=pd.Series(rates, index=times), funding_gaps="zero")


def test_funding_at_an_open_is_charged_to_the_position_carried_into_it():
    """Long by the closes of bars 0 and 1, out by that of 2, short by those of 3 and 4, then out.

    At the open of bar 3 and 7 ms later bar 2's position pays, decided at close 1: long. 5 ms before
    the open of bar 4, known at close 3, bar 3's position: none. Inside bar 4 the position of bar 4:
    short. At the open of bar 5 bar 4's position: short. At that of bar 7 bar 6's: none.
    """
    signal = np.array([1.0, 1.0, 0.0, -1.0, -0.5, 0.0, 1.0, 1.0])
    market = hourly(
        ["03:00:00.007", "03:59:59.995", "04:30", "05:00", "07:00"],
        [0.1, 0.02, 0.003, 0.0004, 0.05],
        8,
    ).with_signal(signal)
    expected = [np.nan, 0.0, 0.0, -0.1, 0.003, 0.0004, 0.0, 0.0]
    np.testing.assert_allclose(traded_returns(market), expected, atol=1e-15)
    settled = [np.nan, 0.0, 0.0, 0.12, 0.003, 0.0004, 0.0, 0.05]
    np.testing.assert_allclose(-long_returns(market), settled, atol=1e-15)
    for n in range(1, 9):
        assert traded_returns(market.prefix(n)).tobytes() == traded_returns(market)[:n].tobytes()


def test_with_a_signal_of_one_what_is_traded_is_the_long_position():
    market = Market.sample(bars=300)
    assert traded_returns(market).tobytes() == long_returns(market).tobytes()
    short = traded_returns(market.with_signal(-np.ones(300)))
    assert short[1:].tobytes() == (-long_returns(market)[1:]).tobytes()


@pytest.mark.parametrize("avoids", [True, False])
def test_a_signal_that_times_funding_earns_what_its_run_earns(avoids: bool):
    """At 1x, without costs; all rates add up to 3e-4: what is paid on what was paid is less.

    Out for the bar before each settlement at an open, or in for that bar only; stamps some ms
    before and after their open, and some inside a bar.
    """
    n = 200
    hours = np.arange(8, n - 8, 8)
    late = np.array([0.0, 0.007, -0.005, 59.0, -59.0, 1800.0])[np.arange(len(hours)) % 6]
    index = pd.date_range("2024-01-01", periods=n, freq="1h", tz="UTC")
    bars = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), 5.0), index=index)
    stamps = index[hours] + pd.to_timedelta(late, unit="s")
    rates = pd.Series(1e-6 * np.arange(1.0, len(hours) + 1), index=stamps)
    market = Market.from_frames(bars, funding=rates, funding_gaps="zero")
    signal = np.ones(n)
    signal[hours - 2] = 0.0
    signal = signal if avoids else 1.0 - signal
    result = live(market, Constant(leverage=1.0), signal=signal, compile=False)
    paid = result.bars["funding"].sum() / 1e4
    assert -np.nansum(traded_returns(market.with_signal(signal))) == pytest.approx(paid, rel=3e-4)
    at_open = late < 60.0
    assert paid == pytest.approx(rates[at_open != avoids].sum(), rel=3e-4)


def test_a_price_that_stands_still_has_no_volatility_and_no_sharpe_ratio():
    market = market_of([7.0] * 10)
    assert (ewma_volatility(market, 3.0)[2:] == 0.0).all()
    assert (close_to_close_volatility(market, 3)[3:] == 0.0).all()
    assert np.isnan(rolling_sharpe(market, 3).ratio).all()


@pytest.mark.parametrize(("interval", "expected"), [("1m", 525_600.0), ("8h", 1095.0)])
def test_a_market_that_never_closes_has_365_days(interval: str, expected: float):
    assert bars_per_year(Market.sample(bars=3, interval=interval)) == expected


def test_sessions_of_a_day_count_252():
    days = pd.bdate_range("2024-01-01", periods=10, tz="UTC")
    assert bars_per_year(market_of(np.arange(1.0, 11.0), index=days)) == 252.0


def test_bars_longer_than_a_day_count_by_calendar_time_in_a_market_with_sessions():
    """Months of 28 to 31 days are 12 a year; a week that begins on Tuesday is still a week."""
    months = pd.date_range("2015-01-01", periods=120, freq="MS", tz="UTC")
    assert bars_per_year(market_of(np.arange(1.0, 121.0), index=months))[12:] == pytest.approx(
        12.0, rel=3e-3
    )
    weeks = pd.date_range("2024-01-01", periods=60, freq="7D", tz="UTC")
    shifted = weeks.where(np.arange(60) % 9 != 3, weeks + pd.Timedelta(days=1))
    market = market_of(np.arange(1.0, 61.0), index=shifted)
    assert market.interval == parse_duration("6d")
    assert bars_per_year(market)[-1] == pytest.approx(365 / 7, rel=1e-12)


def test_bars_of_a_session_are_counted_in_the_sessions_that_have_passed():
    market = sessions_market(days=3, per_day=7)
    expected = np.where(np.arange(21) < 7, np.nan, 252.0 * 7.0)
    np.testing.assert_array_equal(bars_per_year(market), expected)


def test_the_sharpe_ratio_is_of_the_side_that_is_traded():
    """A short earns what a long loses; flat bars earn 0; an unknown side spoils its windows."""
    market = Market.sample(bars=300)
    ratio = rolling_sharpe(market, 50).ratio
    assert np.array_equal(rolling_sharpe(market.with_signal(-np.ones(300)), 50).ratio, -ratio, True)
    signal = np.where(np.arange(300) < 100, np.nan, 1.0)
    later = rolling_sharpe(market.with_signal(signal), 50).ratio
    assert np.isnan(later[:150]).all()
    np.testing.assert_allclose(later[150:], ratio[150:], rtol=1e-9)


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
