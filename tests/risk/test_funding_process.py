"""Funding on simulated paths: the autoregression, what it goes on from, and how it is drawn."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import paths as models
from backtest.risk.path_models import FundingGrid, fit_process, regress, summarize_funding
from tests.kit import bars_market
from tests.risk.accounts import Hold, free_account, free_venue

GBM = models.GBM(volatility=0.8)
ROWS = models.Stationary(block=30.0)
WEIGHTS = (0.4, 0.3, 0.15, 0.05)
SPANS = (7, 30, 180)


def draw_rates(n: int, weights=WEIGHTS, scale: float = 1e-5, seed: int = 0) -> np.ndarray:
    """Return settlements of three a day by the regression, with a mean of 1 bp."""
    shocks = scale * np.random.default_rng(seed).standard_normal(n + 500)
    rates = [1e-4] * (n + 500)
    for k in range(90, n + 500):
        means = [sum(rates[k - each : k]) / each for each in (1, 3, 21, 90)]
        rates[k] = 1e-4 * (1 - sum(weights)) + float(np.dot(weights, means)) + shocks[k]
    return np.array(rates[500:])


def settle(rates: np.ndarray, freq: str = "8h", moves: np.ndarray | None = None) -> bt.Market:
    n = len(rates)
    moves = 0.01 * np.random.default_rng(9).standard_normal(n) if moves is None else moves
    close = 100 * np.exp(np.cumsum(moves))
    index = pd.date_range("2021-01-01", periods=n, freq=freq, tz="UTC")
    funding = {"funding": pd.Series(rates, index=index)}
    return bars_market(close, close, freq, "2021-01-01", funding)


@pytest.fixture(scope="module")
def market() -> bt.Market:
    return settle(draw_rates(3000))


def spread_of_means(rates: np.ndarray) -> np.ndarray:
    """Return the standard deviation of the mean rate over 7, 30 and 180 days of 3 settlements."""
    sums = np.concatenate([[0.0], np.cumsum(rates)])
    return np.array([np.std(sums[3 * d :] - sums[: -3 * d]) / (3 * d) for d in SPANS])


def test_least_squares_find_the_weights_of_a_known_process():
    found = fit_process(draw_rates(12_000), FundingGrid(8 * 3600 * 10**9, 0), 0.1)
    assert found.kind == "heterogeneous autoregression"
    assert found.windows == (1, 3, 21, 90)
    assert found.weights == pytest.approx(WEIGHTS, abs=0.05)
    assert sum(found.weights) == pytest.approx(sum(WEIGHTS), abs=0.02)
    assert len(found.residuals) == 540  # of the last 180 days
    _, _, residuals = regress(draw_rates(12_000), found.windows)
    assert np.std(residuals) == pytest.approx(1e-5, rel=0.02)


@pytest.mark.parametrize("model", [ROWS, GBM])
def test_paths_follow_the_regression_from_the_last_settlements(market, model):
    drawn = bt.simulate_paths(market, model, paths=7, horizon="60d", seed=3)
    rates, process = drawn.draw(0, 7).rates, drawn.leader.process
    assert np.array_equal(drawn.draw(4, 5).rates[0], rates[4])
    whole = np.concatenate([market.funding_rate, rates[4]])
    shocks = []
    for k in range(len(market.funding_rate), len(whole)):
        means = [whole[k - each : k].mean() for each in process.windows]
        shocks.append(whole[k] - process.constant - float(np.dot(process.weights, means)))
    gaps = np.abs(np.array(shocks)[:, None] - process.residuals[None, :])
    assert gaps.min(axis=1).max() < 1e-15  # each shock is a residual of the fit


def test_a_path_as_long_as_history_spreads_as_history(market):
    wanted = spread_of_means(market.funding_rate)
    for model in (ROWS, GBM):
        drawn = bt.simulate_paths(market, model, paths=30, horizon="1000d", seed=1)
        found = np.mean([spread_of_means(each) for each in drawn.draw(0, 30).rates], axis=0)
        assert np.all(np.abs(found / wanted - 1.0) < (0.25, 0.25, 0.4)), found / wanted


def test_the_level_of_today_goes_on():
    rates = draw_rates(1500)
    rates[-45:] += 5e-4
    drawn = bt.simulate_paths(settle(rates), GBM, paths=200, horizon="15d", seed=1)
    found = float(drawn.draw(0, 200).rates.mean())
    assert 2e-4 < found < 6e-4
    # funding does not move prices
    for other in (None, 1e-4):
        same = bt.simulate_paths(settle(rates), GBM, paths=2, horizon="2d", seed=1, funding=other)
        assert np.array_equal(same.closes(), drawn.closes(0, 2)[:, :7])


def test_short_histories_have_simpler_processes_and_say_so(market):
    days = market.prefix(3 * 100)
    found = bt.simulate_paths(days, GBM, paths=2, horizon="5d")
    assert found.leader.process.kind == "first-order autoregression"
    (said,) = summarize_funding(found.describe()["funding_fit"])
    assert "first-order autoregression of 300 settlements every 8h" in said
    few = bt.simulate_paths(market.prefix(6), GBM, paths=2, horizon="5d")
    assert np.allclose(few.draw(0, 2).rates, market.funding_rate[:6].mean(), atol=1e-18)
    assert "funding: constant at" in summarize_funding(few.describe()["funding_fit"])[0]
    bare = bt.Market.from_frames(market.bars())
    none = bt.simulate_paths(bare, GBM, paths=2, horizon="5d")
    assert not none[0].funding_time.size
    terms = {"venue": free_venue(), "account": free_account(), "compile": False}
    risk = bt.liquidation_risk(none, Hold(5.0), **terms)
    assert "funding: none" in risk.summary()


def test_a_number_is_a_constant_none_is_none_and_terms_cap(market):
    given = {"paths": 3, "horizon": "10d", "seed": 1}
    fixed = bt.simulate_paths(market, ROWS, **given, funding=3e-4)
    assert np.array_equal(fixed.draw(0, 3).rates, np.full((3, 30), 3e-4))
    assert len(bt.simulate_paths(market, ROWS, **given, funding=None).calendar.stamps) == 0
    bare = bt.Market.from_frames(market.bars())
    paid = bt.simulate_paths(bare, GBM, **given, funding=3e-4)[0].funding()
    assert set(pd.DatetimeIndex(paid.index).hour) == {0, 8, 16}
    terms = bt.funding.terms("binance-usdm", "BTCUSDT").override(cap=1.05e-4)
    capped = bt.simulate_paths(market, GBM, **given, funding=terms).draw(0, 3).rates
    free = bt.simulate_paths(market, GBM, **given).draw(0, 3).rates
    assert np.abs(capped).max() == 1.05e-4 < np.abs(free).max()


def test_several_instruments_have_processes_of_their_own(market):
    both = bt.Markets({"A": market, "B": settle(draw_rates(3000, seed=5, scale=4e-5))})
    given = {"paths": 4, "horizon": "20d", "seed": 2}
    for model, joint in ((GBM, {"correlation": 0.5}), (ROWS, {})):
        paths = bt.simulate_paths(both, model, **given, **joint)
        alone = bt.simulate_paths(market, model, **given)
        assert np.array_equal(paths.draw(0, 4, "A").rates, alone.draw(0, 4).rates)
        deviations = [np.std(each.process.residuals) for each in paths.members.values()]
        assert deviations[1] == pytest.approx(4 * deviations[0], rel=0.1)
    mixed = bt.simulate_paths(both, GBM, **given, funding={"A": 2e-4, "B": None})
    assert [*mixed.describe()["funding_fit"].values()] == ["constant at 2 bp", "none"]


def test_the_weights_of_funding_leave_no_shock_that_grows():
    """Least squares of this walk would sum to over 1, and of that with b1 alone be negative."""
    walk = 1e-4 + 1e-5 * np.cumsum(np.random.default_rng(1).standard_normal(800))
    turns = 1e-4 + 1e-5 * (-1.0) ** np.arange(800) * (1.0 + 0.1 * np.cos(np.arange(800)))
    for rates in (walk + 1e-5 * np.arange(800), turns):
        for windows in ((1,), (1, 3, 21, 90)):
            _, weights, _ = regress(rates, windows)
            assert min(weights) >= 0.0
            assert sum(weights) <= 0.9999 + 1e-12


def test_a_repeated_rate_is_as_frequent_on_paths_as_it_was():
    """The clamp of a venue: rates within 0.5 bp of 1 bp are 1 bp."""
    rates = draw_rates(3000)
    rates[np.abs(rates - 1e-4) < 5e-6] = 1e-4
    share = np.mean(rates[-540:] == 1e-4)
    drawn = bt.simulate_paths(settle(rates), GBM, paths=100, horizon="180d", seed=1)
    found = drawn.draw(0, 100).rates
    assert 0.2 < share < 0.6
    assert np.mean(found == 1e-4) == pytest.approx(share, abs=0.05)
