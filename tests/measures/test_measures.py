"""The measures of returns, of runs and of forecasts, and the order they put sets in.

The expected numbers of ``RETURNS`` come from quantstats 0.0.86 and statsmodels 0.15.0, on the same
two series.
"""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import backtest as bt
from backtest import ParameterError, results
from backtest.results import (
    Constraint,
    count_cautions,
    rank_by_objective,
    read_constraints,
    read_objective,
)
from backtest.results.luck import estimate_moments, probabilistic_sharpe, probability_of_skill
from backtest.results.measure_table import Samples, measure_returns
from backtest.results.performance import calendar_returns, gain_over_loss
from tests.kit import check_refused, slow
from tests.scenes import (
    NAN,
    TRADES,
    YEAR,
    Follow,
    account_of,
    is_,
    market_of,
    measured,
    play,
    series,
    venue_of,
    walk,
)

K = np.arange(60)
MARKET = np.round(0.02 * np.sin(1.7 * K) + 0.013 * np.cos(0.9 * K * K) + 0.001, 6)
RETURNS = np.round(1.6 * MARKET + 0.008 * np.sin(3.1 * K + 0.5) - 0.0007, 6)
NOTHING = np.empty(0)
FLAT = np.full(10, 0.01)
TABLE = {
    "sharpe": np.array([3.0, 1.0, 2.0, NAN, NAN, 1.5]),
    "max_drawdown": np.array([0.9, 0.2, 0.5, 0.0, NAN, 0.3]),
    "turnover": np.array([10.0, 20.0, 30.0, 40.0, NAN, 60.0]),
    "ruined": np.array([1.0, 0.0, 0.0, 0.0, NAN, 0.0]),
    "ruin_time": np.array([5.0, NAN, NAN, NAN, NAN, NAN]),
}
FAILED = np.array([False, False, False, False, True, False])


def near(value, rel=1e-9):
    return pytest.approx(value, rel=rel)


def test_alpha_beta_and_their_errors_are_those_of_statsmodels():
    fit = results.fit_market(RETURNS, MARKET, 365.0)
    # statsmodels, least squares with HAC errors of 3 lags, no small-sample correction
    assert fit.alpha == near(-0.0006067779531068146 * 365)
    assert fit.beta == near(1.5836893408407389)
    assert fit.alpha_error == near(0.00010353934821946438 * 365)
    assert fit.beta_error == near(0.023331161962673132)


def test_the_error_of_the_sharpe_ratio_is_that_of_lo_for_normal_returns():
    returns = 0.05 + np.random.default_rng(1).standard_normal(200_000)
    sharpe = np.mean(returns) / np.std(returns, ddof=1)
    lo = math.sqrt((1 + sharpe**2 / 2) / (len(returns) - 1) * 365)
    assert results.sharpe_error(returns, 365.0) == near(lo, rel=1e-3)


def test_the_probability_of_skill_is_the_normal_quantile_of_sharpe_over_its_error():
    sharpe = np.mean(RETURNS) / np.std(RETURNS, ddof=1) * math.sqrt(365)
    n = results.effective_observations(RETURNS)
    score = sharpe / results.sharpe_error(RETURNS, 365.0, n=n)
    assert probability_of_skill(RETURNS) == near(0.5 * math.erfc(-score / math.sqrt(2)))

    # quantstats.stats.probabilistic_sharpe_ratio takes moments corrected for bias
    published = probabilistic_sharpe(**estimate_moments(RETURNS)._asdict())
    assert published == near(0.4198839324084561, rel=1e-5)


def test_autocorrelated_returns_count_as_fewer_by_hand():
    """Deviations -1.5, -0.5, 0.5, 1.5: squares 5, lag 1 gives 1.25, lag 2 gives -1.5. Of 4 returns
    2 lags, weights 2/3 and 1/3: 1 + 2 (2/3 0.25 - 1/3 0.3) = 17/15, times 1 + 3/4."""
    returns = np.array([1.0, 2.0, 3.0, 4.0])
    assert results.effective_observations(returns) == near(4.0 / (17.0 / 15.0 * 1.75))

    alternating = np.tile([1.0, -1.0], 9)
    assert results.effective_observations(alternating) == 18.0  # no more than there are
    assert results.effective_observations(FLAT) == len(FLAT)


def draw_returns(kind: str, draws: int, n: int) -> np.ndarray:
    """Return series of shape (draws, n) with a deviation of 1 and a mean of 1 a year."""
    steps = np.random.default_rng(n).standard_normal((n + 200, draws))
    series = steps.copy()
    variance = np.ones(draws)
    phi, theta = {"AR": (0.15, 0.0), "ARMA": (0.5, -0.3)}.get(kind, (0.0, 0.0))

    for t in range(1, n + 200):
        if kind == "GARCH":
            variance = 0.05 + 0.1 * series[t - 1] ** 2 + 0.85 * variance
            series[t] *= np.sqrt(variance)
        series[t] += phi * series[t - 1] + theta * steps[t - 1]

    scale = math.sqrt((1.0 + 2.0 * phi * theta + theta**2) / (1.0 - phi**2))
    return series[200:].T / scale + 365**-0.5


def share_held(kind: str, draws: int, n: int) -> float:
    """Return how often a true ratio of 1 lies within 1.96 errors of the estimate."""
    nothing = np.zeros(n)
    held = 0
    for k, returns in enumerate(draw_returns(kind, draws, n)):
        error = results.sharpe_error(returns, 365.0, n=results.effective_observations(returns))
        if k % 20 == 0:  # the others need no other measures
            measures = measure_returns(Samples(returns, nothing, nothing), 365.0)
            assert measures["sharpe_error"] == error

        sharpe = np.mean(returns) / np.std(returns, ddof=1) * math.sqrt(365.0)
        held += abs(sharpe - 1.0) < 1.96 * error
    return held / draws


def test_an_error_under_autocorrelation_holds_the_true_ratio():
    """Of 600 draws the published formula held it in 92 %."""
    assert 0.935 <= share_held("AR", 600, 500) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("n", [250, 500, 1_000])
@pytest.mark.parametrize("kind", ["independent", "GARCH", "AR", "ARMA"])
def test_intervals_of_the_sharpe_ratio_hold_the_true_one(kind, n):
    least = 0.92 if n == 250 else 0.93
    assert least <= share_held(kind, 2_000, n) <= 0.97


@pytest.mark.parametrize("aversion", [0.0, 0.5, 1.0, 3.0, 10.0])
def test_the_certainty_equivalent_of_lognormal_growth_is_its_closed_form(aversion):
    # E[exp(x (1 - g))]^(1 / (1 - g)) = exp(mu + (1 - g) sigma² / 2) for x ~ N(mu, sigma²)
    mu = 0.001
    sigma = 0.02
    x = np.random.default_rng(2).standard_normal(200_000)
    x = mu + sigma * (x - np.mean(x)) / np.std(x)

    expected = math.expm1(365 * (mu + (1 - aversion) * sigma**2 / 2))
    assert results.certainty_equivalent(np.expm1(x), 365.0, aversion) == near(expected, rel=2e-2)


def test_what_is_undefined_is_nan():
    assert math.isnan(probability_of_skill(NOTHING))
    assert math.isnan(probability_of_skill(FLAT))

    assert math.isnan(results.sharpe_error(RETURNS[:1], 365.0))
    assert math.isnan(results.sharpe_error(FLAT, 365.0))
    assert math.isnan(results.certainty_equivalent(NOTHING, 365.0))
    for aversion in (0.0, 1.0, 3.0):
        assert math.isnan(results.certainty_equivalent(np.array([0.01, np.nan]), 1.0, aversion))

    assert all(map(math.isnan, results.fit_market(RETURNS[:2], MARKET[:2], 365.0)))
    assert all(map(math.isnan, results.fit_market(RETURNS[:10], FLAT, 365.0)))


def hits_of(n: int, x: int) -> np.ndarray:
    """Return n observations with x violations, spread out."""
    hits = np.zeros(n, dtype=bool)
    hits[(np.arange(x) * n) // max(x, 1)] = True
    return hits


def judge(hits, probability: float):
    return results.calibration(np.full(len(hits), probability), hits)


KUPIEC = {
    0.01: [(255, 0, 7), (510, 1, 11), (1000, 4, 17)],
    0.025: [(255, 2, 12), (510, 6, 21), (1000, 15, 36)],
    0.05: [(255, 6, 21), (510, 16, 36), (1000, 37, 65)],
    0.10: [(255, 16, 36), (510, 38, 65), (1000, 81, 120)],
}
"""By probability: days, and the numbers of failures between which a model stands at 95 %:
Kupiec (1995), as in Jorion (2007), Value at Risk, chapter 6. For 255 days at 1 % they give no lower
end; the ratio of no failure is 5.13 there, and would refuse it."""


@pytest.mark.parametrize("probability", KUPIEC)
def test_kupiec_stands_in_the_regions_of_his_table(probability):
    for days, low, high in KUPIEC[probability]:
        for failures in range(low + 1, high):
            assert judge(hits_of(days, failures), probability).kupiec_p > 0.05

        for failures in {low, high} - {0}:
            assert judge(hits_of(days, failures), probability).kupiec_p < 0.05


def test_both_tests_give_the_figures_of_the_risk_management_toolbox():
    """MathWorks, Risk Management Toolbox, help page of varbacktest.cc: 57 violations in 1043 days
    at 95 %, N00 932, N01 53, N10 53, N11 4; jointly 0.72013 with a p-value of 0.69763."""
    hits = [0] + [1] * 5 + [0, 1] * 52 + [0] * 933
    assert len(hits) == 1043
    assert sum(hits) == 57

    found = judge(hits, 0.05)
    assert found.kupiec == pytest.approx(0.46147, abs=5e-6)
    assert found.kupiec_p == pytest.approx(0.49694, abs=5e-6)
    assert found.christoffersen == pytest.approx(0.25866, abs=5e-6)
    assert found.christoffersen_p == pytest.approx(0.61104, abs=5e-6)

    assert stats.chi2.sf(found.kupiec + found.christoffersen, 2) == pytest.approx(0.69763, abs=5e-6)


def test_scores_by_hand():
    """Forecasts .1 .4 .4 .8 of 0 0 1 1: Brier (.01 + .16 + .36 + .04) / 4; of .5 always .25."""
    found = results.calibration([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1])
    assert found.count == 4
    assert found.frequency == 0.5
    assert found.base_brier == 0.25
    assert found.forecast == pytest.approx(0.425, rel=1e-15)
    assert found.brier == pytest.approx(0.1425, rel=1e-15)

    # p = .425: L_0 = .575^2 .425^2, L_1 = .5^4
    likelihood = 4 * math.log(0.25 / (0.575 * 0.425))
    assert found.kupiec == pytest.approx(likelihood, rel=1e-12)
    assert found.kupiec_p == pytest.approx(stats.chi2.sf(found.kupiec, 1), rel=1e-12)


def test_independence_by_hand():
    """0 0 1 1 1 0: n00 1, n01 1, n10 1, n11 2; q0 1/2, q1 2/3, q 3/5 of five transitions. ln L_1 =
    2 ln(1/2) + 2 ln(2/3) + ln(1/3), ln L_0 = 2 ln(2/5) + 3 ln(3/5)."""
    found = judge([0, 0, 1, 1, 1, 0], 0.3)

    apart = 2 * math.log(1 / 2) + 2 * math.log(2 / 3) + math.log(1 / 3)
    alike = 2 * math.log(2 / 5) + 3 * math.log(3 / 5)

    assert found.christoffersen == pytest.approx(2.0 * (apart - alike), rel=1e-12)
    assert found.christoffersen_p == pytest.approx(stats.chi2.sf(found.christoffersen, 1))


def test_pairs_that_are_not_known_do_not_count():
    """What is left stands side by side: 1 0 1 1."""
    forecast = pd.Series([0.2, np.nan, 0.3, 0.4, 0.5, np.nan])
    outcome = np.array([1.0, 1.0, 0.0, 1.0, 1.0, np.nan])

    known = results.calibration([0.2, 0.3, 0.4, 0.5], [True, False, True, True])
    assert known.count == 4
    assert results.calibration(forecast, outcome) == known


@pytest.mark.parametrize(("forecast", "outcome", "message"), [
    ([0.5, 0.5], [0.5, 1.0], "outcome must be 0 or 1, got 0.5 in 1 of 2"),
    ([0.5, 1.5], [0.0, 1.0], "forecast must be probabilities from 0 to 1, got 1.5"),
    ([0.5, 0.5, 0.5], [0, 1], "outcome must"),
    ([0.5, np.nan], [0, 1], "at least 2 forecasts with a known outcome, got 1"),
])  # fmt: skip
def test_what_is_no_forecast_with_an_outcome_is_refused(forecast, outcome, message):
    check_refused(lambda: results.calibration(forecast, outcome), message, ParameterError)


def measure(result: bt.Result, periods: float = YEAR) -> dict[str, float]:
    """Return the measures of §7 from the tables alone."""
    bars = result.bars
    returns = result.returns.to_numpy()
    hours = (bars.index[1] - bars.index[0]) / pd.Timedelta("1h")
    years = len(bars) * hours / 24 / YEAR
    unit = np.array([1.0, *bars["unit"]])

    # Returns over what cash earns; bar 0 earns no interest.
    bars_held = np.full(len(returns), 24 / hours)
    bars_held[0] -= 1
    excess = returns - ((1 + result.venue.cash_rate * hours / 24 / YEAR) ** bars_held - 1)
    downside = math.sqrt(np.mean(np.minimum(excess, 0) ** 2))

    # The deepest fall: its peak, its trough and the first bar that is back at the peak.
    peak = np.maximum.accumulate(unit)
    fall = 1 - unit / peak
    trough = int(np.argmax(fall))
    top = int(np.flatnonzero(unit[: trough + 1] == peak[trough])[-1])
    back = np.flatnonzero(unit[trough:] >= peak[trough])
    end = trough + int(back[0]) if back.size else len(bars)

    losses = np.sort(-returns)
    tail = {}
    for level in (95, 99):
        var = losses[math.ceil(level / 100 * (len(losses) - 1))]
        tail |= {f"var_{level}": var, f"es_{level}": losses[losses >= var].mean()}
    low, high = np.quantile(returns, [0.05, 0.95])

    traded = result.events[result.events["kind"].isin(TRADES)]
    kinds = ("liquidation", "stop", "margin_call")
    counts = {f"{kind}s": float((result.events["kind"] == kind).sum()) for kind in kinds}
    sums = {name: bars[name].sum() for name in ("price_pnl", "fees", "slippage", "funding")}
    earned = bars["equity"].iloc[-1] - result.account.capital - bars["flows"].sum()
    near = np.abs(bars["mark"] / bars["liquidation_price"] - 1) <= 0.1

    cagr = unit[-1] ** (1 / years) - 1
    ends_of_days = bars["unit"].groupby(bars.index.strftime("%Y-%m-%d")).last()
    ends_of_months = bars["unit"].groupby(bars.index.strftime("%Y-%m")).last()
    by_day = ends_of_days / ends_of_days.shift(fill_value=1.0) - 1.0
    by_month = ends_of_months / ends_of_months.shift(fill_value=1.0) - 1.0

    return {
        **tail, **counts, **sums,
        "skewness": stats.skew(returns, bias=False),
        "excess_kurtosis": stats.kurtosis(returns, bias=False),
        "omega": returns[returns > 0].sum() / -returns[returns < 0].sum(),
        "tail_ratio": abs(high) / abs(low),
        "gain_to_pain": by_month.sum() / (-by_month[by_month < 0].sum() or math.nan),
        "ulcer": math.sqrt(np.mean(fall[1:] ** 2)),
        "best_day": by_day.max(),
        "worst_day": by_day.min(),
        "best_month": by_month.max(),
        "worst_month": by_month.min(),
        "positive_days": (by_day > 0).mean(),
        "total_return": unit[-1] - 1,
        "cagr": cagr,
        "volatility": returns.std(ddof=1) * math.sqrt(periods),
        "sharpe": excess.mean() / excess.std(ddof=1) * math.sqrt(periods),
        "sortino": excess.mean() / downside * math.sqrt(periods),
        "max_drawdown": fall.max(),
        "drawdown_days": (end - top) * hours / 24,
        "recovered": float(back.size > 0),
        "calmar": cagr / fall.max(),
        "turnover": traded["amount"].sum() / bars["equity"].mean() / years,
        "mean_leverage": bars["leverage"].abs().mean(),
        "peak_leverage": bars["leverage"].abs().max(),
        "gross_over_cap": 0.0,  # of several positions: tests/account/test_several.py
        "peak_margin_ratio": bars["margin_ratio"].max(),
        "mean_margin_use": (bars["initial_margin"] / bars["equity"]).mean(),
        "return_on_margin": earned / bars["initial_margin"].mean() / years,
        "fills": float(traded["kind"].ne("liquidation").sum()),
        "near_liquidation_share": near.mean(),
        "final_equity": bars["equity"].iloc[-1],
    }  # fmt: skip


@pytest.mark.parametrize("terms", [
    {}, {"inverse": True}, {"leverage": 9.0, "liquidated": True}
], ids=["linear", "inverse", "liquidations, near misses and bad days"])  # fmt: skip
@pytest.mark.parametrize("seed", [1, *slow([2, 3, 4])])
def test_the_measures_equal_an_independent_computation(seed, terms):
    result = measured(seed, **terms)

    expected = measure(result)
    found = {name: result.metrics[name] for name in expected}

    assert found == pytest.approx(expected, rel=1e-9, abs=1e-10, nan_ok=True)


def test_margin_in_use_and_the_return_on_it_by_hand():
    """100 contracts at 10, then 110, 99, 99; margin at 16x: 0, 62.5, 68.75, 61.875, 0.

    Bought at the open of the second bar with fees of 1 (.1 %), sold at the open of the last: .99.
    """
    venue = venue_of(fees={"taker": 0.001, "maker": 0.001})
    result = play(
        10.0, (10.0, 10.0, 10.0, 10.0), (10.0, 11.0, 10.0, 11.0), (11.0, 11.0, 9.9, 9.9), 9.9,
        targets=[1.0, NAN, NAN, 0.0], venue=venue, interval="1d",
    )  # fmt: skip
    equity = np.array([1000.0, 999.0, 1099.0, 989.0, 988.01])
    margin = np.array([0.0, 62.5, 68.75, 61.875, 0.0])
    assert result.bars["equity"].to_numpy() == near(equity)
    assert result.bars["initial_margin"].to_numpy() == near(margin)

    assert result.metrics["fills"] == 2
    assert result.metrics["mean_margin_use"] == near(np.mean(margin / equity))
    assert result.metrics["return_on_margin"] == near(-11.99 / np.mean(margin) * 365 / 5)


def test_calendar_months_compound_and_may_be_partial_at_both_ends():
    """From 21 January by the day: ten days of January, February whole, two of March."""
    days = pd.date_range("2023-01-21", periods=41, freq="D").as_unit("ns").asi8
    unit = np.array([*np.full(11, 1.1), *np.full(28, 0.88), *np.full(2, 0.968)])
    months = calendar_returns(days, unit, 1.0, "M")
    assert months == pytest.approx([0.1, -0.2, 0.1])
    assert gain_over_loss(months) - 1.0 == pytest.approx(0.0)


def test_costs_a_year_are_over_the_mean_equity():
    result = measured(1)
    bars = result.bars
    years = len(bars) / 24 / YEAR

    rates = results.find_cost_rates(result.tally, result.span)

    for name in ("fees", "slippage", "funding"):
        expected = bars[name].sum() / bars["equity"].mean() / years
        assert rates[name] == is_(expected, 1e-9), name
    assert rates["fees"] > 0.0


def test_the_sampling_period_and_the_sessions_scale_the_ratios():
    market = market_of(*walk(24 * 20, seed=8, sigma=0.006))
    for sampling, calendar, periods in (("1d", "252", 252.0), ("4h", "365", 6 * YEAR)):
        terms = {"account": account_of(), "sampling": sampling, "calendar": calendar}
        result = bt.run(market, Follow(), venue=venue_of(), **terms, compile=False)

        expected = measure(result, periods)
        for name in ("sharpe", "sortino", "volatility", "var_95", "es_95"):
            assert result.metrics[name] == is_(expected[name], 1e-9), name
        n_returns = 20 if sampling == "1d" else 120
        assert len(result.returns) == n_returns


def test_daily_returns_are_those_of_the_last_closes_of_the_days():
    result = measured(1)
    unit = result.bars["unit"]

    ends = np.array([1.0, *unit[unit.index.hour == 23]])
    assert result.returns.to_numpy() == is_(ends[1:] / ends[:-1] - 1)


def test_a_deviation_of_zero_gives_nan_and_not_infinity():
    metrics = play(*[100] * 96, targets=1.0).metrics
    assert math.isnan(metrics["sharpe"])
    assert math.isnan(metrics["sortino"])
    assert metrics["max_drawdown"] == 0.0
    assert metrics["recovered"] == 1.0
    assert math.isnan(metrics["calmar"])


def test_the_drawdown_runs_from_its_peak_to_its_recovery():
    # 1x by the day: peak at the close of day 2, trough on day 4, back at the peak on day 6
    closes = [100, 100, 120, 110, 90, 100, 120, 130]
    bars = [(a, max(a, b), min(a, b), b) for a, b in zip([100, *closes], closes, strict=False)]

    metrics = play(*bars, targets=(1.0, NAN), interval="1d").metrics

    assert metrics["max_drawdown"] == is_(0.25)
    assert metrics["drawdown_days"] == is_(4.0)
    assert metrics["recovered"] == 1.0


def test_ruin_is_dated_and_later_returns_are_zero():
    result = play(100, 100, 80, *[90.0] * 5, targets=(10.0, 1.0), interval="1d")
    metrics = result.metrics
    assert metrics["ruined"] == 1.0
    assert metrics["ruin_time"] == is_(3.0)
    assert metrics["time_to_first_liquidation"] == is_(3.0)

    assert result.returns.tolist() == [0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert metrics["cagr"] == -1.0
    assert math.isnan(metrics["leverage_decay"])

    assert metrics["max_drawdown"] == 1.0
    assert metrics["recovered"] == 0.0


def test_returns_after_ruin_are_zero_also_where_wealth_is_left_and_earns():
    # ruined on day 2 with 500 of wealth in the reserve; a deposit on day 3 earns 0.1 % a day
    account = account_of(flows=series({72: 1000.0}), reserve=500.0, margin_call=0.8, top_up_to=0.5)
    venue = venue_of(interest_on="balance", cash_rate=0.365)
    terms = {"venue": venue, "account": account, "interval": "1d"}

    result = play(100, 100, 10, *[100] * 3, targets=10.0, **terms)

    assert result.metrics["ruined"] == 1.0
    assert result.returns.tolist()[3:] == [0.0, 0.0, 0.0]


def test_wealth_counts_the_reserve():
    account = account_of(margin_call=0.8, top_up_to=0.5, reserve=500.0)

    result = play(100, (100, 100, 95.5, 95.5), 95.5, targets=(10.0, NAN), account=account)

    # 1,500 of wealth lose 450; the top-up moves 405 within it
    assert result.bars["unit"].tolist() == [1.0, is_(1050 / 1500), is_(1050 / 1500)]
    assert result.metrics["total_return"] == is_(-0.3)


@pytest.mark.parametrize(("objective", "name", "scores"), [
    ("sharpe", "sharpe", [3.0, 1.0]),
    ("-sharpe", "-sharpe", [-3.0, -1.0]),
    ("max_drawdown", "-max_drawdown", [-0.9, -0.2]),
    ("-max_drawdown", "-max_drawdown", [-0.9, -0.2]),
    ({"sharpe": 1.0, "turnover": -0.01}, "sharpe - 0.01 * turnover", [2.9, 0.8]),
    (lambda row: row["sharpe"] / row["max_drawdown"], "<lambda>", [3.0 / 0.9, 5.0]),
])  # fmt: skip
def test_an_objective_is_a_measure_a_sum_or_a_function(objective, name, scores):
    read = read_objective(objective)
    assert read.name == name
    assert read.score(TABLE)[:2].tolist() == pytest.approx(scores)
    assert np.isnan(read.score(TABLE)[4])


BAD = {
    "a mistyped measure": (lambda: read_objective("sharp"), "did you mean 'sharpe'"),
    "weights of one": (lambda: read_objective({"sharp": 1.0}), "no measure 'sharp'"),
    "a NaN weight": (lambda: read_objective({"sharpe": NAN}), "weight of sharpe must be a number"),
    "no measure": (lambda: read_objective({}), "objective must be a measure"),
    "not taken": (lambda: read_objective("sortino").score(TABLE), "metrics='all'"),
    "of a path": (lambda: read_objective("es_95").score(TABLE), "sweep.detail"),
    "a function that raises": (
        lambda: read_objective(lambda row: row["sharp"]).score(TABLE), "raised KeyError: 'sharp'"),
    "no mapping": (lambda: read_constraints("max_drawdown <= 0.4"), "constraints must map"),
    "no comparison": (lambda: read_constraints({"max_drawdown": 0.4}), "got 0.4 for max_drawdown"),
    "a NaN bound": (lambda: read_constraints({"max_drawdown": "<= nan"}), "got '<= nan'"),
    "a mistyped bound": (lambda: read_constraints({"max_drawdwn": "<= 1"}), "'max_drawdown'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    check_refused(*BAD[case], kind=ParameterError)


@pytest.mark.parametrize(("text", "value", "violation"), [
    ("<= 0.4", 0.4, 0.0),
    ("<= 0.4", 0.5, 0.25),
    ("<=0.4", 0.3, 0.0),
    (">= 2", 1.0, 0.5),
    (">= 2", 3.0, 0.0),
    ("== 0", 0.0, 0.0),
    ("== 0", -3.0, 3.0),
    ("< 1", 2.0, 1.0),
    ("> -1", -0.5, 0.0),
    ("<= 0.4", NAN, math.inf),
    (">= 2", math.inf, 0.0),
    ("<= 2", math.inf, math.inf),
    ("< 1", 1.0, None),
    ("> 1", 1.0, None),
])  # fmt: skip
def test_a_violation_is_in_units_of_the_bound_and_equality_breaks_some(text, value, violation):
    _, constraint = read_constraints({"sharpe": text})
    found = constraint.violation({"sharpe": np.array([value])})[0]
    if violation is None:
        assert found > 0.0
    else:
        assert found == pytest.approx(violation)


@pytest.mark.parametrize("name", ["time_to_first_liquidation", "ruin_time"])
def test_what_never_came_came_later_than_any_bound_but_not_in_a_set_that_failed(name):
    metrics = {name: np.array([NAN, 45.0, 15.0, NAN]), "ruined": np.array([0.0, 0.0, 0.0, NAN])}
    late = [0.0, 0.0, 0.5, math.inf]
    early = [math.inf, 0.5, 0.0, math.inf]

    for text, expected in {">= 30": late, "> 30": late, "<= 30": early}.items():
        _, constraint = read_constraints({name: text})

        assert constraint.violation(metrics).tolist() == expected

    assert np.isnan(metrics[name][0])


def test_no_ruin_is_always_a_constraint():
    assert read_constraints() == (Constraint("ruined", "==", 0.0),)
    assert read_constraints({"ruined": "== 0"}) == read_constraints(None)

    both = read_constraints({"sharpe": "> 1"})
    assert [*map(str, both)] == ["ruined == 0", "sharpe > 1"]


def test_a_lucky_sharpe_before_ruin_never_wins():
    assert rank_by_objective(TABLE, "sharpe", None, FAILED).tolist() == [2, 5, 1, 3, 0, 4]


def test_constraints_come_before_objectives():
    found = rank_by_objective(TABLE, "sharpe", {"max_drawdown": "<= 0.2"}, FAILED)
    assert found.tolist() == [1, 3, 5, 2, 0, 4]


CALM, POOR = {"cagr": 0.1}, {"cagr": -0.1}
CAUTION = "negative growth or a drawdown over 80 %"


@pytest.mark.parametrize(("sets", "said"), [
    ([CALM, CALM], ""),
    ([POOR], f"this set has {CAUTION}"),
    ([POOR, POOR], f"all of these 2 sets have {CAUTION}"),
    ([POOR, CALM], f"the best of these 2 sets has {CAUTION}"),
    ([CALM, POOR], f"1 of these 2 sets has {CAUTION}"),
    ([POOR, POOR, CALM], f"2 of these 3 sets, the best one among them, have {CAUTION}"),
])  # fmt: skip
def test_cautions_of_the_best_sets_are_counted_in_words(sets, said):
    assert count_cautions(sets) == said
