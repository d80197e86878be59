"""Each policy against its closed form, or the figures its paper published."""

import math
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import backtest as bt
from backtest import indicators, strategies
from backtest.margin import read_rules
from backtest.report import build_page
from backtest.report.render import write_html
from backtest.results import calibration
from backtest.strategies.margin_buffer import find_notional
from tests.kit import YEAR, ask_test, bars_market, check_refused, free_venue, live, market_of, walk

STEPS: dict[str, Any] = {"levels": (3.0, 1.5, 0.5), "band": 0.2}
PRESET = bt.Venue.preset("binance-usdm", "BTCUSDT")
TIERED = free_venue().override(brackets=PRESET.brackets)
COIN = {"kind": "inverse", "size": 1.0, "lot": 0.0, "tick": 1e-8, "min_notional": 0.0}


def test_decay_of_constant_in_a_market_that_goes_nowhere():
    """Up 10 %, back down, 50 times, at 3x: each time (1 + 0.3) (1 - 3 / 11) = 0.945454..."""
    market = market_of(np.tile([100.0, 110.0], 51)[:101])
    result = live(market, strategies.Constant(leverage=3.0), compile=False)

    final = 10_000 * (1.3 * 8 / 11) ** 50
    decay = -50 * math.log(1.3 * 8 / 11) / (101 / YEAR)
    assert result.metrics["final_equity"] == pytest.approx(final, rel=1e-9)
    assert result.metrics["leverage_decay"] == pytest.approx(decay, rel=1e-9)


def find_last_targets(market: bt.Market, policy: bt.Policy) -> np.ndarray:
    """Return the targets of an account that begins 100 bars before the end."""
    result = live(market, policy, start=market.times[-100], compile=False)
    return result.bars["target"].to_numpy()


@pytest.mark.parametrize("estimator", [
    pytest.param(name, marks=[pytest.mark.slow] * (name == "garch"))
    for name in indicators.VOLATILITY_ESTIMATORS
])  # fmt: skip
def test_vol_target_is_its_formula(estimator: str):
    """131 days, so that the slowest, the autoregression of days, is known at the end."""
    market = bt.Market.sample(bars=131 * 24 + 10)
    policy = strategies.VolTarget(target=0.5, half_life=24.0, power=2.0, estimator=estimator)
    assert policy == strategies.VolTarget(0.5, 24.0, 2.0, estimator)

    sigma = indicators.volatility(market, estimator, 24.0)
    assert policy.observe(market)["sigma"].tobytes() == sigma.tobytes()

    target = find_last_targets(market, policy)
    np.testing.assert_allclose(target, (0.5 / sigma[-100:]) ** 2, rtol=1e-14)
    assert np.isfinite(target[-1])


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.3, 1.2])
def test_vol_target_meets_its_target_on_a_random_walk(sigma: float):
    """Dividing by an estimate of effective size n = 2 / (1 - w) adds about 1.5 / n of volatility. n
    is 2 half_life / ln 2 = 577 here; the standard error over 40,000 bars is 0.35 %."""
    market = walk(40_000, 0.0, sigma, seed=4)
    result = live(market, strategies.VolTarget(target=0.4, half_life=200.0), sampling="1h")

    assert result.metrics["volatility"] == pytest.approx(0.4, rel=0.015)
    assert result.metrics["mean_leverage"] == pytest.approx(0.4 / sigma, rel=0.02)


class PlainTarget(bt.Policy):
    """A volatility target that learns nothing."""

    target: Annotated[float, bt.Range(0.05, 2.0)] = 0.4

    def observe(self, market: bt.Market) -> bt.Columns:
        """Return the volatility of a half-life of 24 bars."""
        return {"sigma": indicators.ewma_volatility(market, 24.0)}

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return target over sigma."""
        return self.target / bar.sigma


def test_a_volatility_target_without_feedback_learns_nothing_to_the_bit():
    market = bt.Market.sample(bars=400)
    plain = live(market, PlainTarget(), compile=False).bars
    policy = strategies.VolTarget(half_life=24.0, feedback=0.0)
    learning = live(market, policy, compile=False).bars

    for column in ("target", "equity"):
        assert learning[column].to_numpy().tobytes() == plain[column].to_numpy().tobytes()

    assert {*policy.observe(market)} == {"sigma"}


def test_feedback_is_its_recursion_by_hand():
    """Returns of +-x by bar, and a forecast of 0.8 of what comes: 1.25 times the target is earned.

    Known from the second held bar on: kappa is 1 + 0.1 (1 - 1.25) = 0.975, then 0.975 (1 + 0.1
    (1 - s)) with s^2 = (1.25^2 + 1.25^2 + (1.25 * 0.975)^2) / 3, all bars weighing alike."""
    market = market_of(100.0 * np.exp(0.01 * (np.arange(6) % 2)))
    came = 0.01 * math.sqrt(YEAR)
    sigma = np.full(6, 0.8 * came)
    kappa = indicators.volatility_feedback(market, sigma, 0.4, 0.1, math.inf)

    third = math.sqrt((2.0 * 1.25**2 + (1.25 * 0.975) ** 2) / 3.0)
    expected = [1.0, 1.0, 0.975, 0.975 * (1.0 + 0.1 * (1.0 - third))]
    np.testing.assert_allclose(kappa[:4], expected, rtol=1e-12)


@pytest.mark.parametrize(("bias", "factor"), [
    (0.8, 0.8), (1.0, 1.0), (1.5, 1.5), (3.0, 2.0), (0.3, 0.5),
])  # fmt: skip
def test_feedback_finds_the_bias_of_a_forecast_within_its_bounds(bias: float, factor: float):
    """Held is kappa target / (bias came), which is the target where kappa is the bias."""
    market = market_of(100.0 * np.exp(0.01 * (np.arange(3000) % 2)))
    sigma = np.full(3000, bias * 0.01 * math.sqrt(YEAR))
    kappa = indicators.volatility_feedback(market, sigma, 0.4, 0.02, 5.0)

    assert kappa[-1] == pytest.approx(factor, rel=1e-9)


def test_bars_after_an_unknown_or_no_volatility_teach_nothing():
    market = market_of(100.0 * np.exp(0.01 * (np.arange(40) % 2)))
    sigma = np.full(40, 0.8 * 0.01 * math.sqrt(YEAR))
    whole = indicators.volatility_feedback(market, sigma, 0.4, 0.1, 2.0)

    sigma[20] = math.nan
    sigma[21] = 0.0
    kappa = indicators.volatility_feedback(market, sigma, 0.4, 0.1, 2.0)
    assert kappa[20] == kappa[21] == kappa[22] == whole[20]
    assert kappa[23] != kappa[22]


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_feedback_sees_the_leverage_that_the_policy_decides(power: float):
    """The recursion over the targets of the run itself, by another hand."""
    market = bt.Market.sample(bars=600)
    policy = strategies.VolTarget(0.5, 24.0, power, feedback=0.05)
    kappa = policy.observe(market)["kappa"]
    target = live(market, policy, compile=False).bars["target"].to_numpy()
    earned = (target[:-1] * np.diff(np.log(market.close)))[24:]

    factor = 1.0
    for n in range(24, len(earned) + 1):
        weights = 0.5 ** (np.arange(n)[::-1] / 24.0)
        realized = math.sqrt(YEAR * np.average(earned[:n] ** 2, weights=weights))
        factor *= 1.0 + 0.05 * (1.0 - realized / 0.5)
        factor = float(np.clip(factor, 0.5, 2.0))
        assert kappa[24 + n] == pytest.approx(factor, rel=1e-9)

    assert 0.5 < factor < 2.0


def test_the_factor_that_a_target_learned_is_on_its_page(tmp_path):
    """Of a run and of the saved one, also where the policy decides on longer bars."""
    market = bt.Market.sample(bars=200)
    policy = strategies.VolTarget(half_life=24.0, feedback=0.05)
    result = live(market, policy, compile=False)
    charted = result.charted["kappa"].values
    np.testing.assert_array_equal(charted, policy.observe(market)["kappa"])

    loaded = bt.Result.load(result.save(tmp_path))
    np.testing.assert_array_equal(loaded.charted["kappa"].values, charted)
    for shown in (result, loaded):
        page = write_html(build_page(shown))
        assert "Factor of the target that the policy learned" in page

    plain = live(market, strategies.VolTarget(half_life=24.0), compile=False)
    assert not plain.charted
    assert "What the policy computed" not in write_html(build_page(plain))


def test_the_factor_of_longer_bars_is_charted_from_their_closes_on():
    """The first bar of four hours closes with the fourth hour."""
    market = bt.Market.sample(bars=200)
    policy = strategies.VolTarget(half_life=24.0, feedback=0.05)
    result = live(market, policy, decision_interval="4h", compile=False)
    charted = result.charted["kappa"].values

    by_four_hours = policy.observe(market.resample("4h"))["kappa"]
    by_hours = np.concatenate((np.full(3, np.nan), np.repeat(by_four_hours, 4)))
    np.testing.assert_allclose(charted, by_hours[: len(charted)])


def test_feedback_of_lanes_and_of_parts_is_that_of_one():
    market = bt.Market.sample(bars=300)
    gains = np.array([0.0, 0.02, 0.5])
    lives = np.array([12.0, 24.5, 60.0])
    sigma = indicators.ewma_volatility(market, lives)
    lanes = indicators.volatility_feedback(market, sigma, 0.4, gains, lives)

    for k in range(3):
        one = indicators.volatility_feedback(market, sigma[:, k], 0.4, gains[k], lives[k])
        assert one.tobytes() == lanes[:, k].tobytes()

    cut = indicators.volatility_feedback(market.prefix(200), sigma[:200], 0.4, gains, lives)
    assert cut.tobytes() == lanes[:200].tobytes()


def test_feedback_of_sweeps_is_that_of_runs():
    gains = [0.0, 0.02, 0.5]
    test = bt.Backtest(bt.Market.sample(bars=300), venue=free_venue(), account=bt.Account())
    sets = {"feedback": gains, "half_life": [24.0]}
    table = test.sweep(strategies.VolTarget, sets, compile=False).table

    for gain in gains:
        run = test.run(strategies.VolTarget(half_life=24.0, feedback=gain), compile=False)
        row = table[table["feedback"] == gain].iloc[0]
        assert row["final_equity"] == pytest.approx(run.metrics["final_equity"], rel=1e-12)


def test_feedback_mends_a_range_that_is_always_too_wide():
    """Wicks of 0.3 % and more forecast too much: held is too little, until kappa has learned it."""
    market = walk(20_000, 0.0, 0.6, seed=11)
    wicks = bars_market(
        market.open,
        market.close,
        high=1.003 * np.maximum(market.open, market.close),
        low=np.minimum(market.open, market.close) / 1.003,
    )
    terms: dict[str, Any] = {"half_life": 100.0, "estimator": "parkinson"}

    plain = live(wicks, strategies.VolTarget(**terms), sampling="1h")
    assert plain.metrics["volatility"] < 0.37

    learning = strategies.VolTarget(**terms, feedback=0.01)
    mended = live(wicks, learning, sampling="1h")
    assert mended.metrics["volatility"] == pytest.approx(0.4, rel=0.03)


@pytest.mark.parametrize(("change", "words"), [
    ({"gain": 1.5}, "gain"),
    ({"gain": -0.1}, "gain"),
    ({"target": 0.0}, "target"),
    ({"sigma": np.ones(3)}, r"sigma must have one number per bar, 40, got .* \(3,\)"),
    ({"half_life": 0.0}, "half_life"),
])  # fmt: skip
def test_bad_feedback_is_refused(change: dict[str, Any], words: str):
    market = bt.Market.sample(bars=40)
    good = {"sigma": np.ones(40), "target": 0.4, "gain": 0.1, "half_life": 10.0}
    with pytest.raises(bt.ParameterError, match=words):
        indicators.volatility_feedback(market, **{**good, **change})
    with pytest.raises(bt.ParameterError, match=r"VolTarget.feedback must be 0 to 1"):
        strategies.VolTarget(feedback=1.5)


def decide(policy: bt.Policy, **columns: float) -> float:
    """Return what a policy decides at a bar with these columns."""
    bar = SimpleNamespace(**{name: np.float64(value) for name, value in columns.items()})
    with np.errstate(divide="ignore"):
        return policy.leverage(bar, None)


def test_sharpe_scaling_sees_the_estimate_of_its_window():
    """SR = sqrt(8760) mean / std of the last 100 returns net of funding; Lo's error beside it."""
    market = bt.Market.sample(bars=400)
    columns = strategies.SharpeScaling(window=100).observe(market)
    closes = market.time + market.interval
    assert np.isnan(columns["sharpe"][:100]).all()

    for t in (100, 237, 399):
        returns = []
        for s in range(t - 99, t + 1):
            is_paid = (market.funding_time < closes[s]) & (market.funding_time >= closes[s - 1])
            funding = market.funding_rate[is_paid].sum()
            returns.append(market.close[s] / market.close[s - 1] - 1.0 - funding)

        per_bar = np.mean(returns) / np.std(returns, ddof=1)
        sharpe = math.sqrt(YEAR) * per_bar
        error = math.sqrt(YEAR) * math.sqrt((1 + per_bar**2 / 2) / 100)
        assert columns["sharpe"][t] == pytest.approx(sharpe, rel=1e-9)
        assert columns["error"][t] == pytest.approx(error, rel=1e-12)


def test_sharpe_scaling_weighs_the_estimate_with_the_prior():
    """Error 2 and prior error 1: weights 1/5 and 4/5; 0.2 * 3 + 0.8 * 0.5 = 1 of 2 wanted."""
    policy = strategies.SharpeScaling(target=0.4, prior=0.5, prior_error=1.0, reference=2.0)
    assert decide(policy, sigma=0.8, sharpe=3.0, error=2.0) == pytest.approx(0.25, rel=1e-12)


def gentle_walk(n: int, largest: float, seed: int) -> bt.Market:
    rng = np.random.default_rng(seed)
    moves = np.clip(rng.normal(0.0, largest, n), -largest, largest)
    return market_of(100.0 * np.cumprod(1.0 + moves))


def test_cppi_is_its_formula_at_every_bar():
    market = bt.Market.sample(bars=300)
    result = live(market, strategies.Cppi(multiplier=4.0, floor=0.9, growth=0.2), compile=False)

    equity = result.bars["equity"].to_numpy()
    floor = 9000.0 * 1.2 ** (np.arange(1, 301) / YEAR)
    expected = np.maximum(0.0, 4.0 * (equity - floor) / equity)
    np.testing.assert_allclose(result.bars["target"], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("policy", "turns", "floor", "gap"), [
    (strategies.Cppi(multiplier=3.0, floor=0.7), 0.9, 0.7, 0.5),
    (strategies.Cppi(multiplier=10.0, floor=0.8), 2.0, 0.8, 0.3),
    (strategies.DrawdownControl(at_peak=1.5, floor=0.7), 1.5, 0.7, 0.3),
    (strategies.DrawdownControl(at_peak=4.0, floor=0.9), 4.0, 0.9, 0.1),
])  # fmt: skip
def test_a_gap_goes_under_the_floor_by_the_closed_form_and_ends_trading(policy, turns, floor, gap):
    """From E to E - k E d with k turns, m (1 - F / E) or those at the peak, and no risk after it. A
    shortfall of (d k / (1 - F / E) - 1) (E - F), also where the price comes back."""
    close = np.array([100.0] * 5 + [100.0 * (1.0 - gap)] * 5 + [200.0] * 3)
    bars = live(bars_market(close, close), policy, compile=False).bars
    assert bars["leverage"].iloc[4] == pytest.approx(turns, rel=1e-12)

    shortfall = 10_000.0 * floor - bars["equity"].iloc[5]
    expected = (gap * turns / (1.0 - floor) - 1.0) * (1.0 - floor) * 10_000.0
    assert shortfall == pytest.approx(expected, rel=1e-9)

    assert (bars["target"].iloc[5:] == 0.0).all()
    assert (bars["position"].iloc[6:] == 0.0).all()


def test_the_floor_of_tipp_follows_the_peak_and_never_falls():
    """100 -> 200 -> 150 -> 180 at one turn a bar; phi 0.5, m 2: L = 2 (1 - 0.5 M / E)."""
    close = np.array([100.0, 100.0, 200.0, 150.0, 180.0, 180.0])
    policy = strategies.Cppi(multiplier=2.0, floor=0.0, ratchet=0.5)
    bars = live(market_of(close), policy, compile=False).bars

    equity = bars["equity"].to_numpy()
    np.testing.assert_allclose(equity[:4], [10_000, 10_000, 20_000, 15_000], rtol=1e-12)

    peak = np.maximum.accumulate(equity)
    np.testing.assert_allclose(bars["target"], 2.0 * (1.0 - 0.5 * peak / equity), rtol=1e-12)
    assert bars["target"].iloc[3] == pytest.approx(2.0 * (1.0 - 10_000 / 15_000), rel=1e-12)


def test_regime_weighs_two_leverages_with_the_probability_of_the_next_bar():
    lives = {"half_life": 500.0, "calm_bars": 100.0, "stress_bars": 25.0}
    policy = strategies.Regime(calm=3.0, stress=1.0, **lives)
    assert decide(policy, probability=0.25) == 2.5

    market = bt.Market.sample(bars=400)
    target = live(market, policy, compile=False).bars["target"].to_numpy()
    probability = indicators.learned_regimes(market, 500.0, 100.0, 25.0).predicted
    np.testing.assert_allclose(target, 3.0 - 2.0 * probability, rtol=1e-12)
    assert np.isnan(target[:100]).all()


@pytest.mark.parametrize("measure", ["sign", "strength"])
def test_trend_vol_is_its_formula(measure: str):
    policy = strategies.TrendVol(
        target=0.5, measure=measure, full=1.5, short=12, middle=36, long=90, half_life=24.0
    )
    market = bt.Market.sample(bars=300)
    if measure == "sign":
        trends = [indicators.trend_sign(market, look) for look in (12, 36, 90)]
    else:
        trends = [indicators.trend_strength(market, look, 24.0, 1.5) for look in (12, 36, 90)]
    trend = np.mean(trends, axis=0)
    base = 0.5 / indicators.ewma_volatility(market, 24.0)

    turning = np.where(np.arange(300) % 50 < 25, 1.0, -0.4)
    for signal, side in ((None, 1.0), (-1.0, -1.0), (turning, np.sign(turning))):
        target = live(market, policy, signal=signal, compile=False).bars["target"].to_numpy()
        expected = base * np.maximum(side * trend, 0.0)
        np.testing.assert_allclose(target, expected, rtol=1e-12)
        assert np.isnan(target[:90]).all()
        assert (target[90:] == 0.0).any()
        assert (target[90:] > 0.0).any()


def funded(rate: float, n: int = 500, seed: int = 1) -> bt.Market:
    """Return a driftless walk at 60 % volatility whose longs pay a rate every 8 hours."""
    steps = 0.6 / math.sqrt(8760) * np.random.default_rng(seed).standard_normal(n)
    stamps = pd.date_range("2020-01-01", periods=-(-n // 8), freq="8h", tz="UTC")
    terms = {"funding": pd.Series(rate, index=stamps)}
    return market_of(100.0 * np.exp(np.cumsum(steps)), terms=terms)


def cut(policy: strategies.FundingAware, paid: float, sigma: float, asked: float = 2.0) -> float:
    """Return what is left of the leverage asked for."""
    return policy.combine(SimpleNamespace(paid=paid, sigma=sigma), None, (asked,))


def test_the_cut_is_linear_in_the_funding_over_the_break_even():
    """k 2, f_0 0.1, sigma 0.5: 0.2 a year costs 2 * 0.1 / 0.5 = 0.4 of the leverage."""
    policy = strategies.FundingAware(strategies.Constant(), sensitivity=2.0, break_even=0.1)

    assert cut(policy, 0.2, 0.5) == pytest.approx(2.0 * 0.6, rel=1e-12)
    assert cut(policy, 0.35, 0.5) == pytest.approx(0.0, abs=1e-12)
    assert cut(policy, 9.0, 0.5) == 0.0

    assert cut(policy, 0.1, 0.5) == cut(policy, -3.0, 0.5) == cut(policy, math.nan, 0.5) == 2.0
    assert math.isnan(cut(policy, 0.2, 0.5, asked=math.nan))


def test_the_side_that_receives_funding_is_not_cut():
    """0.05 % every 8 hours is 55 % a year: a long is cut, a short of any size is not."""
    market = funded(0.0005)
    policy = strategies.FundingAware(strategies.Constant(2.0), sensitivity=2.0)
    first = 168  # its half-life, of funding from the first bar on

    long = live(market, policy, compile=False).bars["target"]
    assert long[:first].isna().all()
    assert (long[first:] < 2.0).all()

    paid = indicators.funding_forecast(market, 72.0)
    sigma = indicators.ewma_volatility(market, 72.0)
    expected = 2.0 * max(0.0, 1.0 - 2.0 * (paid[-1] - 0.1) / sigma[-1])
    assert long.iloc[-1] == pytest.approx(expected, rel=1e-9)

    for size in (-1.0, -0.3):
        short = live(market, policy, signal=size, compile=False).bars["target"]
        assert (short[first:] == 2.0).all()

    half = live(market, policy, signal=0.5, compile=False).bars["target"]
    assert half.equals(long)  # what is paid per unit of the position is the same


@pytest.mark.parametrize("model", indicators.TAIL_MODELS)
@pytest.mark.parametrize("measure", ["VaR", "ES"])
def test_tail_risk_is_its_formula(model: str, measure: str):
    market = bt.Market.sample(bars=1300)
    terms = {"level": 0.975, "horizon": 8, "window": 1000, "half_life": 48.0}
    policy = strategies.TailRisk(measure=measure, model=model, budget=0.1, **terms)

    tail = indicators.tail_losses(market, model, **terms)
    risk = tail.value_at_risk if measure == "VaR" else tail.expected_shortfall
    assert policy.observe(market)["risk"].tobytes() == risk.tobytes()

    target = find_last_targets(market, policy)
    np.testing.assert_allclose(target, np.minimum(0.1 / risk[-100:], 10.0), rtol=1e-14)


@pytest.mark.slow
def test_the_account_loses_more_than_its_budget_as_often_as_the_level_says():
    """Volatility from 0.3 to 1.5 over months, returns of Student's t with 4 degrees, an hour ahead.
    5 % of hours lose more than 1 % of equity, spread evenly."""
    n = 20_000
    noise = np.random.default_rng(22).standard_t(4, n) / math.sqrt(2.0)
    cycle = np.sin(2 * np.pi * np.arange(n) / 8000)
    sigma = 0.67 * np.exp(0.8 * cycle) / math.sqrt(YEAR)
    market = market_of(100.0 * np.exp(np.cumsum(sigma * noise)))
    policy = strategies.TailRisk(
        measure="VaR", level=0.95, horizon=1, budget=0.01, half_life=72.0, window=1000, cap=100.0
    )
    equity = live(market, policy).bars["equity"].to_numpy()[1100:]

    is_over = -np.diff(equity) / equity[:-1] > 0.01
    tests = calibration(np.full(n - 1101, 0.05), is_over)
    assert stats.chi2.sf(tests.kupiec + tests.christoffersen, 2) > 0.01


@pytest.mark.parametrize(("power", "haircut", "implied", "expected"), [
    (1.0, 0.0, 0.8, 0.5),
    (2.0, 0.0, 0.8, 0.25),
    (1.0, 0.36, 1.0, 0.5),  # of an implied variance of 1, 0.64 is expected
])  # fmt: skip
def test_implied_vol_target_is_its_formula(power, haircut, implied, expected):
    policy = strategies.ImpliedVolTarget(target=0.4, power=power, haircut=haircut)

    assert decide(policy, implied=implied) == pytest.approx(expected, rel=1e-15)


def test_implied_vol_target_waits_for_its_column():
    assert math.isnan(decide(strategies.ImpliedVolTarget(), implied=math.nan))


def test_the_drift_is_that_of_what_is_traded():
    market = bt.Market.sample(bars=400)
    signal = np.where(np.arange(400) // 50 % 2, 1.0, -0.5)
    seen = market.with_signal(signal)
    windows = np.array([2, 30, 100])
    drift = indicators.rolling_drift(seen, windows)
    earned = indicators.long_returns(market)[1:] * signal[:-1]  # no settlement where it changes

    for k, n in enumerate(windows):
        for t in (100, 237, 399):
            part = earned[t - n : t]
            mean = YEAR * part.mean()
            error = YEAR * part.std(ddof=1) / math.sqrt(n)
            assert drift.mean[t, k] == pytest.approx(mean, rel=1e-9, abs=1e-12)
            assert drift.error[t, k] == pytest.approx(error, rel=1e-9)

        assert np.isnan(drift.mean[:n, k]).all()
        assert np.isnan(drift.error[:n, k]).all()

        alone = indicators.rolling_drift(seen, int(n))
        assert alone.mean.tobytes() == drift.mean[:, k].tobytes()
        assert alone.error.tobytes() == drift.error[:, k].tobytes()

    for n in (1, 2, 31, 101, 399):
        cut = indicators.rolling_drift(seen.prefix(n), windows)
        assert cut.mean.tobytes() == drift.mean[:n].tobytes()
        assert cut.error.tobytes() == drift.error[:n].tobytes()


def test_kelly_is_its_formula():
    market = bt.Market.sample(bars=300)
    policy = strategies.Kelly(fraction=0.7, window=100, shrinkage=2.0, half_life=24.0, cap=3.0)
    drift = indicators.rolling_drift(market, 100)
    sigma = indicators.ewma_volatility(market, 24.0)
    t = drift.mean / drift.error
    shrunk = drift.mean * t**2 / (t**2 + 2.0)
    expected = np.clip(0.7 * shrunk / sigma**2, 0.0, 3.0)

    bars = live(market, policy, compile=False).bars
    np.testing.assert_allclose(bars["target"], expected, rtol=1e-12)
    assert 0.0 < (expected[100:] == 0.0).mean() < 1.0


def test_a_drift_of_one_standard_error_counts_for_half():
    policy = strategies.Kelly(fraction=1.0, shrinkage=1.0, cap=50.0)
    assert decide(policy, drift=0.6, error=0.6, sigma=0.5) == pytest.approx(1.2, rel=1e-12)
    assert decide(policy, drift=0.6, error=1e-9, sigma=0.5) == pytest.approx(2.4, rel=1e-12)
    assert decide(policy, drift=0.6, error=1.2, sigma=0.5) == pytest.approx(0.48, rel=1e-12)

    plain = strategies.Kelly(fraction=1.0, shrinkage=0.0, cap=50.0)
    assert decide(plain, drift=0.6, error=6.0, sigma=0.5) == pytest.approx(2.4, rel=1e-12)


def test_kelly_stays_out_of_what_loses_and_is_capped():
    policy = strategies.Kelly(fraction=1.0, shrinkage=0.0, cap=3.0)
    assert decide(policy, drift=-0.1, error=0.1, sigma=0.5) == 0.0
    assert decide(policy, drift=0.0, error=0.0, sigma=0.0) == 0.0
    assert decide(policy, drift=9.0, error=0.1, sigma=0.5) == 3.0
    assert decide(policy, drift=0.1, error=0.1, sigma=0.0) == 3.0
    assert math.isnan(decide(policy, drift=math.nan, error=math.nan, sigma=math.nan))


def test_drawdown_control_is_its_formula_at_every_bar():
    market = bt.Market.sample(bars=300)
    bars = live(market, strategies.DrawdownControl(at_peak=2.0, floor=0.8), compile=False).bars
    equity = bars["equity"].to_numpy()

    peak = np.maximum.accumulate(equity)
    expected = 2.0 * (1.0 - 0.8 * peak / equity) / 0.2
    np.testing.assert_allclose(bars["target"], np.maximum(expected, 0.0), rtol=1e-9)
    assert bars["target"].iloc[0] == pytest.approx(2.0, rel=1e-12)


@pytest.mark.slow
def test_what_lies_over_the_floor_is_an_account_without_one_against_its_peak():
    """(E / M - alpha) / (1 - alpha) = V / max V at every bar: the cushion has k / (1 - alpha) turns
    and starts anew at each peak. Cvitanic and Karatzas (1995), in discrete time. V always holds
    Kelly's leverage: mu 2, sigma 0.5, SR 4, Kelly 8. ln(V / max V) is a Brownian motion with drift
    SR^2 / 2 and variance SR^2, reflected at 0: exponential with mean 1, so that V / max V is
    uniform. It forgets in 8 / SR^2 years: 46 independent values in 23 years, a standard error of
    0.07 for a half. Seen by the hour the share is lower by 0.58 SR / sqrt(8760) = 2.5 %."""
    alpha = 0.9
    kelly = 8.0
    market = walk(200_000, 2.0, 0.5, seed=41, start=1e-6)  # it ends 19 decades higher
    policy = strategies.DrawdownControl(at_peak=kelly * (1.0 - alpha), floor=alpha)
    result = live(market, policy)
    equity = result.bars["equity"].to_numpy()
    over = (equity / np.maximum.accumulate(equity) - alpha) / (1.0 - alpha)

    returns = np.concatenate([[0.0], market.close[1:] / market.close[:-1] - 1.0])
    unfloored = np.cumsum(np.log1p(kelly * returns))
    expected = np.exp(unfloored - np.maximum.accumulate(unfloored))
    np.testing.assert_allclose(over, expected, rtol=1e-6, atol=1e-9)
    assert result.metrics["max_drawdown"] < 1.0 - alpha
    assert 30.0 < result.metrics["drawdown_days"] < 3 * 365

    for share in (0.25, 0.5, 0.75):
        error = math.sqrt(share * (1.0 - share) / 46)
        assert np.mean(over < share) == pytest.approx(share * 0.975, abs=3 * error)


def climb(policy: strategies.Ladder, values: np.ndarray) -> np.ndarray:
    """Return what a ladder decides at volatilities, or drawdowns, in their order."""
    memory = policy.start()
    by_volatility = float(policy.by == "volatility")
    levels = []
    for value in values:
        sigma = value if by_volatility else 0.0
        bar = SimpleNamespace(sigma=sigma, by_volatility=by_volatility)
        level, memory = policy.leverage(bar, SimpleNamespace(drawdown=value), memory)
        levels.append(level)
    return np.array(levels)


def test_a_ladder_steps_at_its_thresholds_and_back_under_their_bands():
    """Thresholds 0.5 and 1.0, band a fifth: passed back under 0.4 and 0.8, not before."""
    policy = strategies.Ladder(by="volatility", volatilities=(0.5, 1.0), **STEPS)
    sigma = np.array([0.3, 0.499, 0.5, 0.41, 0.399, 1.2, 0.81, 0.79, 0.45, 0.39, 1.0, 0.1])
    expected = [3.0, 3.0, 1.5, 1.5, 3.0, 0.5, 0.5, 1.5, 1.5, 3.0, 0.5, 3.0]
    assert climb(policy, sigma).tolist() == expected


def test_a_ladder_by_drawdown_follows_the_account():
    """Levels 2, 1 and 0.5 at falls of 10 % and 20 %, each held until the next close."""
    close = 100.0 * np.cumprod([1.0, 1.0, 0.96, 0.98, 0.9, 0.9, 1.1, 1.3, 1.3, 1.3, 1.01])
    policy = strategies.Ladder(by="drawdown", levels=(2.0, 1.0, 0.5), drawdowns=(0.1, 0.2))
    bars = live(market_of(close), policy, compile=False).bars

    equity = 1.0
    peak = 1.0
    step = 0
    held = 0.0
    expected = []
    for r in [0.0, *(close[1:] / close[:-1] - 1.0)]:
        equity *= 1.0 + held * r
        peak = max(peak, equity)
        fall = 1.0 - equity / peak

        # Down at a threshold, and up again under four fifths of it.
        step = max(step, sum(fall >= threshold for threshold in (0.1, 0.2)))
        step = min(step, sum(fall >= 0.8 * threshold for threshold in (0.1, 0.2)))
        held = (2.0, 1.0, 0.5)[step]
        expected.append(held)

    assert bars["target"].tolist() == expected
    assert set(expected) == {2.0, 1.0, 0.5}


@pytest.mark.parametrize("multiplier", [1.0, 3.0])
@pytest.mark.parametrize("close_fee", [0.0, 0.0005])
def test_the_notional_of_a_margin_is_the_inverse_of_that_of_a_notional(multiplier, close_fee):
    """Over all brackets, at their floors and beyond the last; and with a single bracket."""
    floors = [row.floor for row in PRESET.brackets[1:]]
    for venue in (TIERED, free_venue()):
        rules = read_rules(venue)._replace(multiplier=multiplier, close_fee=close_fee)
        for notional in [1e-3, *np.geomspace(10.0, 1e10, 60), *floors]:
            needed = bt.margin.maintenance(rules, notional)
            assert find_notional(rules, needed) == pytest.approx(notional, rel=1e-9)

    one = {"floors": (0.0,), "caps": (math.inf,), "rates": (0.01,), "amounts": (0.0,)}
    single = read_rules(TIERED)._replace(**one, leverages=(50.0,))
    assert find_notional(single, 25.0) == pytest.approx(2500.0, rel=1e-12)


@pytest.mark.parametrize("capital", [1e4, 3e6, 1e8])
@pytest.mark.parametrize("signal", [1.0, -1.0, 0.5])
def test_margin_buffer_starts_at_its_target_in_any_bracket(capital: float, signal: float):
    """At a standing price the ratio is the target, or half of it with half a signal."""
    market = market_of(np.full(10, 20_000.0))
    account = bt.Account(capital=capital)
    terms = {"venue": TIERED, "account": account, "signal": signal, "compile": False}
    bars = live(market, strategies.MarginBuffer(target=0.03), **terms).bars

    ratio = bars["margin_ratio"].to_numpy()[1:]
    np.testing.assert_allclose(ratio, 0.03 * abs(signal), rtol=1e-9)
    assert bars["target"].isna().tolist() == [False] + 9 * [True]


@pytest.mark.slow
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_margin_ratio_leaves_the_band_for_one_close_at_most(side: float):
    """Moves of up to 0.3 % an hour: over the band only where the bar itself took it there, by no
    more than one such move, and from the next open on at the target but for that bar's move."""
    market = gentle_walk(6000, 0.003, seed=44)
    terms = {"venue": TIERED, "account": bt.Account(capital=5e6), "signal": side}
    policy = strategies.MarginBuffer(target=0.06, low=0.8, high=1.25)
    result = live(market, policy, **terms)
    ratio = result.bars["margin_ratio"].to_numpy()[1:]
    target = result.bars["target"].to_numpy()[1:]

    is_out = (ratio < 0.048) | (ratio > 0.075)
    np.testing.assert_array_equal(is_out, ~np.isnan(target))
    assert is_out.sum() > 3
    assert not (is_out[1:] & is_out[:-1]).any()

    # 0.06 / 0.4 % = 15 turns at most: a move of 0.3 % changes equity by less than 5 %
    assert ratio.max() <= 0.075 * 1.07
    np.testing.assert_allclose(ratio[1:][is_out[:-1]], 0.06, rtol=0.07)
    assert result.metrics["liquidations"] == 0


def test_margin_buffer_takes_up_leverage_again_when_the_price_has_run_with_it():
    """A rate of 0.4 %, 5 turns, and the price doubles: 5 * 2 / 6 turns, a third of the target."""
    market = market_of(np.array([100.0, 100.0, 200.0, 200.0, 200.0]))
    settings = {"venue": TIERED, "account": bt.Account(capital=1000.0), "compile": False}
    bars = live(market, strategies.MarginBuffer(target=0.02), **settings).bars
    np.testing.assert_allclose(bars["leverage"][1:4], [5.0, 5.0 * 2.0 / 6.0, 5.0], rtol=1e-9)
    assert bars["margin_ratio"].iloc[3] == pytest.approx(0.02, rel=1e-9)


def test_margin_buffer_follows_the_signal_at_once():
    """Long, short, half, out and in again, at a standing price."""
    signal = np.repeat([1.0, -1.0, -0.5, -1.0, 0.0, 1.0], 4)
    market = market_of(np.full(24, 20_000.0))
    policy = strategies.MarginBuffer(target=0.02, low=0.9, high=1.5)
    bars = live(market, policy, venue=TIERED, signal=signal, compile=False).bars

    held = bars["position"].to_numpy()[2::4]
    assert held[0] > 0.0
    np.testing.assert_allclose(held, held[0] * np.array([1, -1, -0.5, -1, 0, 1]), rtol=1e-9)


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("kind", ["linear", "inverse"])
@pytest.mark.parametrize("stop", [0.05, bt.Multiple(2.0, "width"), None])
def test_the_stop_of_fixed_risk_costs_its_share(stop, kind, side):
    """Linear long at d = .05, f = .0005, s = .001: L = .02 / {1.001 [1 - .95 x .999 + .0005 +
    .0005 x .95 x .999]} = .384805..., and the stop leaves 98 % of the capital."""
    venue = free_venue().override({"fees.taker": 5e-4, "slippage.rate": 1e-3})
    if kind == "inverse":
        venue = venue.override(contract=bt.Contract(**COIN))
    stops = {"trailing_stop": 0.05} if stop is None else {"stop_loss": stop}
    account = bt.Account(capital=10.0, **stops)

    # The price goes 8 % against the position; twice the column is a stop of 5 %, too.
    close = 100.0 * np.array([1.0, 1.0, 1.0, 1.0, 1.0 - side * 0.08, 1.0 - side * 0.08])
    market = market_of(close).with_columns(width=np.full(6, 2.5))
    policy = strategies.FixedRisk(share=0.02)
    bars = bt.run(market, policy, venue=venue, account=account, signal=side, compile=False).bars

    if (kind, side, stop) == ("linear", 1.0, 0.05):
        sold_at = 0.95 * 0.999
        leverage = 0.02 / (1.001 * (1.0 - sold_at + 5e-4 + 5e-4 * sold_at))
        assert bars["target"].iloc[0] == pytest.approx(leverage, rel=1e-12)
    assert bars["target"].iloc[1:3].isna().all()
    assert bars["equity"].iloc[4] == pytest.approx(9.8, rel=1e-9)


def test_fixed_risk_stays_where_the_stop_comes_before_the_liquidation():
    """Half of equity at a stop of 5 % is 10x; at 12 % maintenance a fall of 5 % kills 1 / .164."""
    venue = free_venue().override({"brackets": [bt.Bracket(0.0, 1e12, 8.0, 0.12)]})
    market = market_of(np.array([100.0, 100.0, 100.0, 94.0, 94.0]))
    terms = {"venue": venue, "account": bt.Account(stop_loss=0.05), "compile": False}
    policy = strategies.FixedRisk(share=0.5)

    result = bt.run(market, policy, **terms)
    leverage = 1.0 / (0.05 + 0.12 * 0.95)
    assert result.bars["target"].iloc[0] == pytest.approx(leverage, rel=1e-5)
    assert {*result.events["kind"]} >= {"stop"}
    assert result.metrics["liquidations"] == 0.0

    capped = bt.run(market, strategies.Capped(policy, cap=2.0), **terms)
    assert capped.bars["target"].iloc[0] == 2.0


def test_fixed_risk_needs_a_stop():
    market = market_of(np.full(5, 100.0))
    terms = {"venue": free_venue(), "account": bt.Account(), "compile": False}
    cure = "Account(stop_loss=0.05)"
    check_refused(lambda: bt.run(market, strategies.FixedRisk(), **terms), cure, bt.ParameterError)


def test_a_sweep_of_the_stop_sizes_each_set_by_its_own():
    terms = {"venue": free_venue(), "account": bt.Account(stop_loss=0.5), "compile": False}
    market = bt.Market.sample(bars=60)
    sets = {"account.stop_loss": [0.02, 0.05]}
    table = ask_test("sweep", market, strategies.FixedRisk, sets, **terms).table

    for stop, row in zip((0.02, 0.05), table.to_dict("records"), strict=True):
        account = bt.Account(stop_loss=stop)
        run = bt.run(market, strategies.FixedRisk(), **{**terms, "account": account})
        assert row["total_return"] == run.metrics["total_return"]
