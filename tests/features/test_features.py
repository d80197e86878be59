"""Estimators against their formulas by hand, against known truth, and what they refuse."""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression

from backtest import Market, indicators
from backtest.core import parse_duration
from backtest.indicators import (
    close_to_close_volatility,
    ewma_volatility,
    funding_forecast,
    learned_regimes,
    log_returns,
    long_returns,
    rolling_sharpe,
    settled_funding,
    tail_losses,
    traded_returns,
    trend_sign,
    trend_strength,
)
from backtest.indicators.tails import held_returns
from backtest.indicators.trends import find_moves
from backtest.market import bars_per_year
from tests.kit import YEAR, check_refused, walk
from tests.kit import market_of as held_market

MS = 1e-3 / 3600.0
"""Hours of a millisecond."""
FEW = Market.sample(bars=10)
DAY = 1 / 365
PER_CENT = FEW.with_columns(implied_volatility=np.full(10, 55.0))
TAIL = {"level": 0.99, "horizon": 1, "window": 99, "half_life": 10.0}
HALF_LIVES = np.array([24.0, 1.0, 0.1, 3000.0, 168.0])
EIGHTS = 3 * 365.0
"""Settlements a year, every 8 hours."""
Phi = NormalDist().cdf


def market_of(close: Any, funding: pd.Series | None = None) -> Market:
    """Return hours of 2024 of closes, each opening at the close before."""
    terms = {"funding": funding, "funding_gaps": None if funding is None else "zero"}
    return held_market(np.asarray(close, dtype=float), start="2024-01-01", terms=terms)


def session_market(close: Any, index: pd.DatetimeIndex) -> Market:
    bars = market_of(close).bars().set_axis(index)
    return Market.from_frames(bars, sessions=True)


def sessions_market(days: int, per_day: int) -> Market:
    """Return half-hour bars from 14:30 UTC on, on business days."""
    starts = pd.bdate_range("2024-01-01 14:30", periods=days, tz="UTC").repeat(per_day)
    opens = starts + pd.to_timedelta(np.tile(30 * np.arange(per_day), days), "min")
    steps = np.random.default_rng(0).normal(0, 0.01, len(opens))
    return session_market(100.0 * np.exp(np.cumsum(steps)), opens)


def funded(hours: list[float], rates: list[float], n: int = 100) -> Market:
    """Return hours of a price that stands still, and settlements so many hours after the first."""
    stamps = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(hours, "h")
    return market_of(np.full(n, 5.0), pd.Series(rates, index=stamps))


def test_volatility_by_hand():
    """Half-life 1: weights 1, 1/2, 1/4 from the last return back. Returns 0.1, 0.3, -0.1: the last
    two have mean 0.1, and squares that add up to 0.08."""
    a = 0.1**2
    b = 0.2**2
    c = 0.3**2
    variance = [np.nan, np.nan, (b + a / 2) / 1.5, (c + b / 2 + a / 4) / 1.75]
    found = ewma_volatility(market_of(np.exp([0.0, 0.1, -0.1, 0.2])), 1.0)
    np.testing.assert_allclose(found, np.sqrt(np.multiply(variance, 8760.0)), rtol=1e-12)

    variance = [np.nan, np.nan, 0.02, 0.08]
    found = close_to_close_volatility(market_of(np.exp([0.0, 0.1, 0.4, 0.3])), 2)
    np.testing.assert_allclose(found, np.sqrt(np.multiply(variance, 8760.0)), rtol=1e-12)


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
    market = funded([0, 2 - 5 * MS, 3, 3.5], [0.1, 0.02, 0.003, 0.0004], n=5)

    np.testing.assert_allclose(settled_funding(market), [0.1, 0.02, 0.0, 0.0034, 0.0])
    np.testing.assert_allclose(long_returns(market), [np.nan, -0.02, 0.0, -0.0034, 0.0])


def test_funding_at_an_open_is_charged_to_the_position_carried_into_it():
    """Long by the closes of bars 0 and 1, out by that of 2, short by those of 3 and 4, then out. At
    the open of bar 3 and 7 ms later bar 2's position pays, decided at close 1: long. 5 ms before
    the open of bar 4, known at close 3, bar 3's position: none. Inside bar 4 the position of bar 4:
    short. At the open of bar 5 bar 4's position: short. At that of bar 7 bar 6's: none."""
    signal = np.array([1.0, 1.0, 0.0, -1.0, -0.5, 0.0, 1.0, 1.0])
    hours = [3 + 7 * MS, 4 - 5 * MS, 4.5, 5, 7]
    market = funded(hours, [0.1, 0.02, 0.003, 0.0004, 0.05], n=8).with_signal(signal)
    earned = traded_returns(market)

    # bar        0       1    2    3     4      5       6    7
    expected = [np.nan, 0.0, 0.0, -0.1, 0.003, 0.0004, 0.0, 0.0]
    np.testing.assert_allclose(earned, expected, atol=1e-15)
    settled = [np.nan, 0.0, 0.0, 0.12, 0.003, 0.0004, 0.0, 0.05]
    np.testing.assert_allclose(-long_returns(market), settled, atol=1e-15)

    for n in range(1, 9):
        assert traded_returns(market.prefix(n)).tobytes() == earned[:n].tobytes()


def test_with_a_signal_of_one_what_is_traded_is_the_long_position():
    market = Market.sample(bars=300)
    long = long_returns(market)

    assert traded_returns(market).tobytes() == long.tobytes()

    short = traded_returns(market.with_signal(-np.ones(300)))
    assert short[1:].tobytes() == (-long[1:]).tobytes()


def test_bars_are_counted_in_days_of_365_and_sessions_of_252():
    """Bars of a session by the sessions that have passed."""
    assert bars_per_year(Market.sample(bars=3, interval="1m")) == 525_600.0
    assert bars_per_year(Market.sample(bars=3, interval="8h")) == 1095.0

    days = pd.bdate_range("2024-01-01", periods=10, tz="UTC")
    assert bars_per_year(session_market(np.arange(1.0, 11.0), days)) == 252.0

    # Seven bars a session: unknown in the first.
    expected = np.where(np.arange(21) < 7, np.nan, 252.0 * 7.0)
    np.testing.assert_array_equal(bars_per_year(sessions_market(days=3, per_day=7)), expected)


def test_bars_longer_than_a_day_count_by_calendar_time_in_a_market_with_sessions():
    """Months of 28 to 31 days are 12 a year; a week that begins on Tuesday is still a week."""
    months = pd.date_range("2015-01-01", periods=120, freq="MS", tz="UTC")
    monthly = session_market(np.arange(1.0, 121.0), months)
    assert bars_per_year(monthly)[12:] == pytest.approx(12.0, rel=3e-3)

    weeks = pd.date_range("2024-01-01", periods=60, freq="7D", tz="UTC")
    shifted = weeks.where(np.arange(60) % 9 != 3, weeks + pd.Timedelta(days=1))
    market = session_market(np.arange(1.0, 61.0), shifted)
    assert market.interval == parse_duration("6d")
    assert bars_per_year(market)[-1] == pytest.approx(365 / 7, rel=1e-12)


def test_the_sharpe_ratio_is_of_the_side_that_is_traded():
    """A short earns what a long loses; flat bars earn 0; an unknown side spoils its windows."""
    market = Market.sample(bars=300)

    ratio = rolling_sharpe(market, 50).ratio
    short = rolling_sharpe(market.with_signal(-np.ones(300)), 50).ratio
    assert np.array_equal(short, -ratio, equal_nan=True)

    signal = np.where(np.arange(300) < 100, np.nan, 1.0)
    later = rolling_sharpe(market.with_signal(signal), 50).ratio
    assert np.isnan(later[:150]).all()
    np.testing.assert_allclose(later[150:], ratio[150:], rtol=1e-9)


def reach(**changed):
    terms = {"probability": 0.01, "horizon": 24.0, **changed}
    return lambda: indicators.forecast_reach(FEW, **terms)


def tail(**changed):
    return lambda: indicators.tail_losses(FEW, "historical", **{**TAIL, **changed})


BAD = [
    (lambda: indicators.ewma_volatility(FEW, math.nan), "half_life must be a number"),
    (lambda: indicators.close_to_close_volatility(FEW, 1), "window must be 2"),
    (lambda: indicators.trend_sign(FEW, math.inf), "lookback must be a whole number"),
    (lambda: indicators.trend_strength(FEW, 2, 10.0, np.array([1.0, 0.0])), "full must be over 0"),
    (lambda: indicators.learned_regimes(FEW, 10, 1.0, 20), "calm_bars must be over 1"),
    (lambda: indicators.volatility(FEW, "parkinsen"), "got 'parkinsen' (did you mean 'parkinson'"),
    (lambda: indicators.implied_volatility(FEW), "market.with_columns(implied_volatility="),
    (lambda: indicators.implied_volatility(PER_CENT), "10 of 10 bars; divide per cent by 100"),
    (lambda: indicators.garch_volatility(FEW, first=100.5), "first must be a whole number"),
    (lambda: indicators.har_volatility(Market.sample(bars=10, interval="24h")), "got bars of 1d"),
    (tail(level=0.5), "level must be over 0.5"),
    (tail(horizon=0), "horizon must be 1"),
    (tail(window=98), "window must hold at least 99 losses for the level 0.99, got 98"),
    (reach(horizon=0.0), "horizon must be over 0"),
    (reach(degrees_of_freedom=2.0), "degrees_of_freedom must be over 2"),
    (lambda: indicators.touch_probability(0.1, -0.5, DAY), "sigma must be at least 0, got"),
    (lambda: indicators.touch_probability(0.1, 0.5, DAY, -math.inf), "drift must be finite"),
    (lambda: indicators.touch_distance(1.5, 0.5, DAY), "probability must be at least 0 and"),
    (lambda: indicators.touch_probability(0.1, 0.5, DAY, 0.1, degrees_of_freedom=4), "drift must"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_input_is_refused(call, words):
    check_refused(call, words)


def test_settlements_every_8_hours_give_the_weighted_mean_of_pandas():
    """A half-life of 24 bars is one of 3 settlements, until which nothing is known; a year has 1095
    of them."""
    market = Market.sample(bars=2000)
    rates = pd.Series(market.funding_rate[1:])
    expected = rates.ewm(halflife=3.0).mean().to_numpy() * EIGHTS

    found = funding_forecast(market, 24.0)

    np.testing.assert_allclose(found[24::8], expected[2:], rtol=1e-12)
    assert np.isnan(found[:24]).all()

    # Nothing changes between settlements.
    for hour in range(9, 16):
        column = found[hour::8]
        assert column.tobytes() == found[8::8][: len(column)].tobytes()


def test_a_change_of_cadence_changes_no_annual_rate():
    """0.008 % for 8 hours, then 0.001 % an hour: 8.76 % a year throughout, with any half-life."""
    hours = [*range(0, 41, 8), *range(41, 81)]
    market = funded(hours, [8e-5] * 6 + [1e-5] * 40)

    found = funding_forecast(market, HALF_LIVES)

    for half_life, column in zip(HALF_LIVES.tolist(), found.T, strict=True):
        first = max(8, math.ceil(half_life))
        np.testing.assert_allclose(column[first:], 0.0876, rtol=1e-9)
        assert np.isnan(column[:first]).all()


def test_hours_and_eights_are_weighed_by_their_time_by_hand():
    """Half-life 8: at hour 9, 1e-4 for 8 h weighs 2^(-1/8) and 4e-5 for 1 h weighs 1."""
    market = funded([0, 8, 9], [0.05, 1e-4, 4e-5], n=12)

    found = funding_forecast(market, 8.0)
    w = 0.5**0.125
    assert found[9] == pytest.approx((w * 1e-4 + 4e-5) / (w * 8 + 1) * 8760.0, rel=1e-12)
    assert found[8] == pytest.approx(1e-4 / 8 * 8760.0, rel=1e-12)

    all_alike = funding_forecast(market, math.inf)
    assert all_alike[9] == pytest.approx(1.4e-4 / 9 * 8760.0, rel=1e-12)


def test_a_settlement_counts_from_the_first_close_after_its_stamp():
    """Stamped at 08:00, the close of bar 7: bar 8 is the first that knows; ms later, too."""
    for late in (0.0, 0.013 / 3600, 0.9):
        found = funding_forecast(funded([0, 8 + late], [1e-4, 1e-4], n=12), 4.0)
        assert np.isnan(found[:8]).all()
        assert np.isfinite(found[8:]).all()

    early = funding_forecast(funded([0, 8 - 0.013 / 3600], [1e-4, 1e-4], n=12), 4.0)
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


STILL = {
    "ewma": (lambda market: ewma_volatility(market, 3.0)[3:], 0.0),
    "close to close": (lambda market: close_to_close_volatility(market, 3)[3:], 0.0),
    "sharpe": (lambda market: rolling_sharpe(market, 3).ratio, math.nan),
    "funding": (lambda market: funding_forecast(market, 24.0), math.nan),
    "trend": (lambda market: trend_sign(market, 5)[5:], 0.0),
    "strength": (lambda market: trend_strength(market, 5, 10.0)[10:], 0.0),
    "stress is far": (lambda m: learned_regimes(m, 50, 200, 20).filtered[100:] < 0.1, True),
    **{f"{name}, {part}": (lambda market, name=name, part=part: tail_losses(
        market, name, window=100, half_life=10.0, level=0.99)[part][110:], value)
       for name, value in (("historical", 0.0), ("filtered-historical", math.nan))
       for part in (0, 1)},
}  # fmt: skip


@pytest.mark.parametrize("name", STILL)
def test_of_a_price_that_stands_still_without_funding(name):
    estimate, expected = STILL[name]
    market = held_market(np.full(400, 7.0))

    np.testing.assert_array_equal(estimate(market), expected)


def test_momentum_is_the_log_return_net_of_funding():
    """ln 1.1, ln 1.2, ln(1.2 / 1.1) less the 0.01 settled in the third bar, with its stamp."""
    stamp = pd.DatetimeIndex(["2024-01-01 02:00"], tz="UTC")
    market = market_of([1.0, 1.1, 1.2], funding=pd.Series([0.01], index=stamp))

    found = find_moves(market, np.array([1, 2, 3]))

    nan = math.nan
    expected = [
        # over 1 bar, 2, 3
        [nan, nan, nan],
        [math.log(1.1), nan, nan],
        [math.log(1.2 / 1.1) - 0.01, math.log(1.2) - 0.01, nan],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_strength_is_the_move_in_deviations_clipped():
    """Moves of 1 %, 1 %, 2 %: sigma^2 = 0.0001 (4 + 1/2 + 1/4) / 1.75 with half-life 1."""
    market = held_market(np.exp([0.0, 0.01, 0.02, 0.04]))
    z = 0.04 / (0.01 * math.sqrt(4.75 / 1.75) * math.sqrt(3.0))
    assert trend_strength(market, 3, 1.0, full=5.0)[3] == pytest.approx(z / 5.0, rel=1e-12)
    assert trend_strength(market, 3, 1.0, full=1.0)[3] == 1.0

    falling = held_market(np.exp([0.0, -0.01, -0.02, -0.04]))
    assert trend_strength(falling, 3, 1.0, full=1.0)[3] == -1.0
    assert np.isnan(trend_strength(market, 3, 1.0)[:3]).all()


@pytest.mark.parametrize(("drift", "sigma", "lookback"), [(1.0, 0.5, 720), (-0.6, 0.8, 2160)])
def test_the_sign_is_right_as_often_as_the_normal_law_has_it(drift, sigma, lookback):
    """P = Phi(|m| sqrt(T) / sigma), m the drift of log prices; windows apart are independent.
    Standard error sqrt(P (1 - P) / windows); over 400 windows that is 2.5 % at most."""
    start = 1e-9 if drift > 0.0 else 1e14  # decades away from the largest and smallest price
    mu = drift + 0.5 * sigma**2
    market = walk(400 * lookback + 1, mu, sigma, seed=lookback, start=start)

    signs = trend_sign(market, lookback)[lookback::lookback]

    chance = Phi(abs(drift) * math.sqrt(lookback / YEAR) / sigma)
    found = np.mean(signs == np.sign(drift))
    assert len(signs) == 400

    assert found == pytest.approx(chance, abs=3 * math.sqrt(chance * (1 - chance) / 400))


def test_the_strategy_of_the_paper_earns_what_the_sign_is_right():
    """sign(r_{t-n,t}) 40 % / sigma r_{t,t+1}: mean 0.4 SR (2 Phi(SR sqrt T) - 1) per year. SR = m /
    sigma, with a drift of log prices whose sign changes every year; the first lookback of each year
    is left out. 40 years of hours at a volatility of 40 % have an error of 0.4 / sqrt 40."""
    drift = 2.0
    sigma = 0.5
    lookback = 720
    years = 40
    rng = np.random.default_rng(5)
    sides = np.repeat(np.tile([1.0, -1.0], years // 2), YEAR)
    noise = sigma / math.sqrt(YEAR) * rng.standard_normal(years * YEAR)
    steps = sides * drift / YEAR + noise
    market = held_market(100.0 * np.exp(np.cumsum(steps)))

    weight = trend_sign(market, lookback) * 0.4 / ewma_volatility(market, 2000.0)
    earned = (weight[:-1] * steps[1:]).reshape(-1)
    settled = (np.arange(1, years * YEAR) % YEAR > lookback) & np.isfinite(earned)

    ratio = drift / sigma
    expected = 0.4 * ratio * (2 * Phi(ratio * math.sqrt(lookback / YEAR)) - 1)
    error = 0.4 / math.sqrt(settled.sum() / YEAR)
    assert earned[settled].mean() * YEAR == pytest.approx(expected, abs=3 * error)


def filter_known(market: Market, volatility, bars) -> np.ndarray:
    """Return the probabilities of stress by statsmodels, at the parameters of a simulation."""
    returns = log_returns(market)[1:]
    model = MarkovRegression(returns, k_regimes=2, trend="n", switching_variance=True)
    chances = [1 - 1 / bars[0], 1 / bars[1]]
    found = model.filter([*chances, *(np.square(volatility) / YEAR)])
    return np.append(np.nan, found.filtered_marginal_probabilities[:, 1])


def simulate(
    n: int, volatility: tuple[float, float], bars: tuple[float, float], seed: int
) -> tuple[Market, np.ndarray]:
    """Return an hourly market whose volatility jumps between two values, and which it has."""
    rng = np.random.default_rng(seed)
    moves = rng.random(n)
    state = np.zeros(n, dtype=int)
    for t in range(1, n):
        before = state[t - 1]
        changes = moves[t] < 1.0 / bars[before]
        state[t] = 1 - before if changes else before

    steps = np.array(volatility)[state] / math.sqrt(YEAR) * rng.standard_normal(n)
    return held_market(100.0 * np.exp(np.cumsum(steps))), state


@pytest.mark.parametrize(
    ("volatility", "bars"), [((0.4, 1.2), (200.0, 50.0)), ((0.4, 0.8), (200.0, 100.0))]
)
def test_learning_recovers_the_states_nearly_as_well_as_knowing(volatility, bars):
    """The best filter knows the volatilities; learning with 0.4 and 1.2 loses hardly anything. Bars
    told right differ between both only where they disagree, a share d of the bars; if one is right
    as often as the other there, by sqrt(d / n_eff), n_eff = n / 50."""
    market, state = simulate(30_000, volatility, bars, seed=3)
    best = filter_known(market, volatility, bars)
    found = learned_regimes(market, 2000, *bars)

    later = slice(2000, None)
    said = found.filtered > 0.5
    right = (said == state)[later].mean()
    most = ((best > 0.5) == state)[later].mean()
    differ = (said != (best > 0.5))[later].mean()
    assert right >= most - 3 * math.sqrt(differ / (28_000 / 50))
    assert differ < 0.01


def test_a_market_of_one_regime_is_called_calm_and_can_still_part_in_two():
    """One regime first: stress keeps its distance, and is found when it comes."""
    one, _ = simulate(8000, (0.5, 0.5), (200.0, 50.0), seed=6)
    two, state = simulate(12_000, (0.5, 1.5), (200.0, 50.0), seed=7)
    market = held_market(np.concatenate([one.close, one.close[-1] / 100.0 * two.close]))

    found = learned_regimes(market, 500, 200, 50)

    assert np.mean(found.filtered[2000:8000]) < 0.2
    assert ((found.filtered[12_000:] > 0.5) == state[4000:]).mean() > 0.95


def test_nothing_is_said_before_a_hundred_returns_are_known():
    for column in learned_regimes(Market.sample(bars=150), 50, 200, 20):
        assert np.isnan(column[:100]).all()
        assert np.isfinite(column[100:]).all()


def flipping() -> Market:
    """Return a market whose signal changes sides."""
    flips = np.array([1.0, 0.5, -1.0, 0.0, -0.3])
    return Market.sample(bars=1200).with_signal(flips[np.arange(1200) // 89 % 5])


@pytest.fixture(scope="module")
def sided() -> Market:
    return flipping()


def forecast_spread(market: Market, horizon: int) -> np.ndarray:
    """Return sigma over a horizon by pandas, with a half-life of 24 bars."""
    squares = pd.Series(long_returns(market) ** 2)
    per_bar = squares.ewm(halflife=24.0, min_periods=24).mean().to_numpy()
    return np.sqrt(per_bar * horizon)


def sorted_tail(losses: np.ndarray, level: float) -> tuple[float, float]:
    """Return quantile and tail mean, the latter with a fraction of the last loss."""
    worst = np.sort(losses)[::-1]
    size = len(losses) * (1.0 - level)
    whole = int(size)
    total = worst[:whole].sum() + (size - whole) * worst[whole]
    return float(np.quantile(losses, level, method="weibull")), total / size


@pytest.mark.parametrize(("model", "window", "level"), [
    ("historical", 25, 0.95), ("historical", 137, 0.975), ("historical", 500, 0.99),
    ("historical", 9, 0.9), ("filtered-historical", 100, 0.95), ("historical", 640, 0.9),
])  # fmt: skip
@pytest.mark.parametrize("horizon", [1, 6])
def test_a_model_of_history_is_the_tail_of_the_losses_in_its_window(
    sided: Market, model: str, window: int, level: float, horizon: int
):
    """Filtered losses are scaled from the forecast that they met to that of now. Fewer than 10
    independent losses beyond the level are those of single bars, times the deviation of their
    sum."""
    is_filtered = model.startswith("filtered")
    bars = 1 if (1 - level) * window < 60 else horizon
    sigma = forecast_spread(sided, bars) if is_filtered else np.ones(sided.n_bars)
    ahead = np.concatenate([np.full(bars, np.nan), sigma[:-bars]])
    earned = held_returns(sided, bars)

    terms = {"window": window, "half_life": 24.0, "level": level, "horizon": horizon}
    found = tail_losses(sided, model, **terms)

    first = window + bars - 1 + 24 * is_filtered
    for t in range(first, sided.n_bars, 3):
        side = -1.0 if sided.signal[t] < 0 else 1.0
        ends = np.arange(t - window + 1, t + 1)
        tail = sorted_tail(-side * earned[ends] / ahead[ends], level)

        # The deviation of a sum of bars that are correlated with the bar before.
        x = np.nan_to_num(earned / ahead)
        rho = x[ends] @ x[ends - 1] / (x[ends] @ x[ends])
        many = horizon if bars < horizon else 1
        spread = many + 2 * sum((many - k) * rho**k for k in range(1, many))

        wanted = np.multiply(tail, sigma[t] * math.sqrt(spread))
        assert [part[t] for part in found] == pytest.approx(wanted, rel=1e-9, abs=1e-16)

    assert np.isnan(found.value_at_risk[:first]).all()


def test_what_is_held_over_a_horizon_pays_the_funding_settled_in_it(sided: Market):
    """Over 3 bars: the price relative less the rates stamped before the close and not before."""
    closes = sided.time + sided.interval
    earned = held_returns(sided, 3)
    for t in range(3, 200):
        inside = (sided.funding_time < closes[t]) & (sided.funding_time >= closes[t - 3])
        carry = sided.funding_rate[inside].sum()
        expected = sided.close[t] / sided.close[t - 3] - 1.0 - carry
        assert earned[t] == pytest.approx(expected, abs=1e-14)

    np.testing.assert_allclose(held_returns(sided, 1), long_returns(sided), atol=1e-15)


def test_true_range_and_atr_by_hand():
    """Ranges 4, 6 (a gap up from 102 to 108), 2 and 10 (a gap down): (4 + 6) / 2, then halves."""
    bars = pd.DataFrame(
        {
            "open": [100.0, 105, 107, 100],
            "high": [103.0, 108, 108, 100],
            "low": [99.0, 104, 106, 97],
            "close": [102.0, 107, 107, 98],
        },
        index=pd.date_range("2024-01-01", periods=4, freq="1h", tz="UTC"),
    )
    market = Market.from_frames(bars)

    np.testing.assert_array_equal(indicators.true_range(market), [4.0, 6.0, 2.0, 10.0])

    both = indicators.atr(market, [1, 2])
    np.testing.assert_array_equal(both[:, 0], [4.0, 6.0, 2.0, 10.0])
    np.testing.assert_array_equal(both[:, 1], [np.nan, 5.0, 3.5, 6.75])
    np.testing.assert_array_equal(indicators.atr(market, 2), both[:, 1])
