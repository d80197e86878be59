"""Margin by rule: hand numbers of each rule, when it is in force, and its recorded series."""

import math
import sys
from functools import partial
from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.policies.lookahead import LookAheadCheck
from backtest.risk import PathsRunner
from backtest.strategies import Constant
from backtest.venue.margin_rules import (
    Buffer,
    DynamicMargin,
    Floor,
    Hours,
    OpenInterest,
    OpenInterestTier,
    Stressed,
    Volatility,
    compute_expanding_quantile,
    read_days,
)
from tests.kit import check_refused
from tests.scenes import bracket, venue_of

SAMPLE = bt.Market.sample()
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
Normal = partial(Volatility, shape="normal")
RULES = [
    Volatility(cap=30.0),
    Volatility(shape="normal", notice="1d"),
    Buffer(Stressed(Volatility(lambda_=0.9)), 0.25),
    Floor(Hours(Volatility(), night=1.3)),
]


def days_of(returns, per_day=2):
    """Return a market of whole days with given daily log returns, flat within a day."""
    closes = np.repeat(100.0 * np.exp(np.cumsum([0.0, *returns])), per_day)
    times = pd.date_range("2024-01-01", periods=len(closes), freq=f"{24 // per_day}h", tz="UTC")
    prices = dict.fromkeys(("open", "high", "low", "close"), closes)
    frame = pd.DataFrame(prices, index=times)
    return bt.Market.from_frames(frame, now="2200-01-01")  # generated days may be of the future


def levels(rule, market):
    return rule.compute_levels(read_days(market))


def test_volatility_is_a_quantile_times_the_weighted_root_mean_square():
    market = days_of([0.02, -0.04])
    rule = Normal(lambda_=0.9, quantile=0.99, days=4.0)
    quantile = 2.0 * 2.3263478740408408  # of four days
    second = math.sqrt((0.9 * 0.02**2 + 0.04**2) / 1.9)

    wanted = [math.nan, quantile * 0.02, quantile * second]
    np.testing.assert_allclose(levels(rule, market), wanted, rtol=1e-12)


def test_an_empirical_quantile_is_that_of_the_larger_side_of_what_is_known():
    returns = [0.02, -0.06, 0.03, 0.01]
    rule = Volatility(lambda_=0.5, quantile=0.9, days=1.0, shape="empirical")
    spread = rule.compute_volatility(np.array([math.nan, *returns]))
    ratios = np.array(returns[1:]) / spread[1:-1]

    found = levels(rule, days_of(returns))
    assert np.isnan(found[:2]).all()
    for t in (2, 3, 4):
        low, high = np.quantile(ratios[: t - 1], [0.1, 0.9])
        assert found[t] == pytest.approx(max(-low, high) * spread[t], rel=1e-12)


def test_quantiles_of_paths_are_those_of_their_history_and_their_own_days():
    """The fast count of a common history equals the quantile of each column by itself."""
    rng = np.random.default_rng(4)
    history = np.repeat(rng.standard_normal((40, 1)), 5, axis=1)
    history[0] = np.nan
    values = np.concatenate([history, rng.standard_normal((20, 5))])

    for share in (0.0, 0.01, 0.3, 0.99, 0.99999, 1.0):
        found = compute_expanding_quantile(values, share)
        assert np.isnan(found[0]).all()
        for t in (1, 39, 40, 59):
            wanted = np.quantile(values[1 : t + 1], share, axis=0)
            np.testing.assert_allclose(found[t], wanted, rtol=1e-12)

        alone = compute_expanding_quantile(values[:, 0], share)
        np.testing.assert_allclose(alone, found[:, 0], rtol=1e-12)

    # A path whose ratio is unknown on a day counts without it.
    values[45, 2] = np.nan
    found = compute_expanding_quantile(values, 0.9)
    known = values[1:46, 2]
    assert found[45, 2] == pytest.approx(np.nanquantile(known, 0.9), rel=1e-12)


def test_the_shape_is_that_of_past_returns_by_default():
    assert Volatility() == Volatility(shape="empirical")


def test_a_buffer_is_used_as_margins_rise_and_is_built_again():
    market = days_of([0.01, 0.04, 0.01, 0.01])
    inner = Normal(lambda_=0.5)
    margin = levels(inner, market)
    buffered = levels(Buffer(inner, 0.25), market)

    assert buffered[1] == margin[1]
    # margins rise over the held one: the larger
    assert margin[2] > margin[1]
    assert buffered[2] == margin[2]
    # margins fall: a quarter over them is built again
    assert buffered[3] == pytest.approx(min(margin[2], 1.25 * margin[3]), rel=1e-15)
    assert buffered[4] == pytest.approx(min(buffered[3], 1.25 * margin[4]), rel=1e-15)


def test_stress_weighs_the_worst_window_and_a_floor_holds_what_years_say():
    returns = [0.05, -0.05, 0.01, 0.01, 0.01, 0.01]
    market = days_of(returns)
    inner = Normal(lambda_=0.5, days=1.0)
    margin = levels(inner, market)
    quantile = 2.3263478740408408
    stressed = levels(Stressed(inner, 0.25, 2), market)
    worst = quantile * 0.05
    assert stressed[-1] == pytest.approx(0.75 * margin[-1] + 0.25 * worst, rel=1e-12)

    whole = math.sqrt(np.mean(np.square(returns)))
    assert levels(Floor(inner, 10.0), market)[-1] == pytest.approx(quantile * whole, rel=1e-12)
    assert Floor(inner, 10.0).count_years(market) == pytest.approx(6 / 365)


def test_hours_multiply_weekends_and_nights():
    rule = Hours(Volatility(), weekend=2.0, night=1.5)
    # a Friday's noon and night, a Saturday, a Monday before six
    stamps = ["2024-01-05 12:00", "2024-01-05 22:00", "2024-01-06 03:00", "2024-01-08 05:59"]
    times = pd.DatetimeIndex(stamps).as_unit("ns").asi8

    assert rule.scale_hours(times).tolist() == [1.0, 1.5, 2.0, 1.5]


def test_open_interest_has_tiers():
    tiers = [OpenInterestTier(0.0, 0.01), OpenInterestTier(500.0, 0.02)]
    market = days_of([0.0, 0.0, 0.0])
    rule = OpenInterest("oi", tiers)

    found = levels(rule, market.with_columns(oi=[9, 100, 9, 500, 9, 499, 9, 9]))
    np.testing.assert_array_equal(found, [0.01, 0.02, 0.01, 0.01])


def test_a_missing_open_interest_is_the_last_known_one():
    """The tier is kept while nothing is known; before the first value there is none to keep."""
    tiers = [OpenInterestTier(0.0, 0.01), OpenInterestTier(500.0, 0.02)]
    market = days_of([0.0, 0.0, 0.0])
    rule = OpenInterest("oi", tiers)
    nan = np.nan

    found = levels(rule, market.with_columns(oi=[9, 500, nan, nan, 100, nan, nan, nan]))
    np.testing.assert_array_equal(found, [0.02, 0.02, 0.01, 0.01])

    late = market.with_columns(oi=[nan, nan, 9, 9, 9, 9, 9, 9])
    check_refused(lambda: levels(rule, late), "got NaN until 2024-01-02;", bt.DataError)
    never = market.with_columns(oi=[nan] * 8)
    check_refused(lambda: levels(rule, never), "got NaN until 2024-01-05;", bt.DataError)


@pytest.mark.parametrize(("notice", "begins"), [(None, 4), ("12h", 5), ("13h", 6), ("1d", 6)])
def test_a_margin_is_in_force_from_the_first_open_after_its_notice(notice, begins):
    market = days_of([0.05, 0.05])
    venue = venue_of().override(margin=Normal(notice=notice, floor=0.5, cap=40.0))

    in_force, announced = venue.multiply_margin(market)

    rate = venue.brackets[0].maintenance_rate
    level = 2.3263478740408408 * 0.05 * math.sqrt(2.0) / rate
    wanted = min(level, 40.0)
    np.testing.assert_allclose(in_force, [0.5] * begins + [wanted] * (6 - begins))
    np.testing.assert_allclose(announced, [0.5] * 3 + [wanted] * 3)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_an_account_under_a_rule_is_that_under_its_recorded_series(rule):
    venue = VENUE.override(margin=rule)
    account = bt.Account(margin_call=0.5, max_leverage=10.0)
    market = SAMPLE.slice(0, 400)

    found = bt.run(market, Constant(9.0), venue=venue, account=account)
    series = found.margin_multipliers.iloc[:, 0]
    assert series.nunique() >= 8

    other = VENUE.override(margin_multiplier=series)
    same = bt.run(market, Constant(9.0), venue=other, account=account)
    assert repr(dict(found.metrics)) == repr(dict(same.metrics))
    np.testing.assert_array_equal(found.bars["equity"], same.bars["equity"])


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_rules_see_no_future(rule):
    venue = VENUE.override(margin=rule)

    def observe(market):
        in_force, announced = venue.multiply_margin(market)
        return {"in force": in_force, "announced": announced}

    check = LookAheadCheck("margin", observe, SAMPLE)
    check.run(lambda: observe(SAMPLE))
    assert check.causality.cuts > 3


def test_a_day_of_a_session_is_over_at_midnight():
    """No bar says that it is the last of its session: what it makes known is announced later."""
    times = pd.date_range("2024-01-01", periods=24 * 4, freq="1h", tz="UTC")
    times = times[(times.hour >= 14) & (times.hour < 20)]
    closes = 100.0 * np.exp(np.cumsum(np.repeat([0.0, 0.02, -0.04, 0.01], 6) / 6))
    prices = dict.fromkeys(("open", "high", "low", "close"), closes)
    market = bt.Market.from_frames(pd.DataFrame(prices, index=times), sessions=True)
    venue = venue_of().override(margin=Normal(lambda_=0.5, floor=0.5, cap=100.0))

    whole = venue.multiply_margin(market)

    in_force, announced = whole
    assert np.unique(announced).size == 3
    assert np.unique(in_force).size == 3

    for cut in (12, 13, 18, 20):
        for before, after in zip(venue.multiply_margin(market.prefix(cut)), whole, strict=True):
            np.testing.assert_array_equal(before, after[:cut])


def test_paths_and_scenarios_know_all_days_of_history(monkeypatch):
    """As many bars as policies have in front of a path are fewer than a rule knows."""
    market = bt.Market.sample(bars=24 * 20)
    venue = VENUE.override(margin=Volatility(lambda_=0.99, cap=50.0))
    test = bt.Backtest(market, venue=venue, account=bt.Account())
    paths = bt.simulate_paths(market, "gbm", paths=2, horizon="3d", seed=1)
    result = test.run(Constant(3.0))

    found = []
    for least in (10_000, 30):
        monkeypatch.setattr(sys.modules["backtest.risk.warm_up"], "LEAST_BARS", least)
        path = PathsRunner(paths, Constant(3.0), test).run_path(1)
        hit = bt.stress(result, bt.Scenario("fall", price=-0.2))
        found.append([*path.margin_multipliers.iloc[:, 0], hit.table["distance"].iloc[0]])
    assert found[0] == found[1]
    assert found[0][0] > 5.0


class Wary(bt.Policy):
    """Less leverage as the announced margin rises."""

    share: Annotated[float, bt.Range(0.0, 100.0)] = 10.0

    def observe(self, market):
        return {"after": market.columns["announced_multiplier"]}

    def leverage(self, bar, account):
        return self.share / bar.after


def test_policies_see_what_is_announced_in_runs_and_in_rows_of_a_sweep():
    venue = VENUE.override(margin=Volatility())
    test = bt.Backtest(SAMPLE.slice(0, 200), venue=venue, account=bt.Account())
    sets = {"share": [5.0, 10.0], "venue.margin.lambda_": [0.9, 0.99]}

    for _, row in test.sweep(Wary, sets).table.iterrows():
        venue = VENUE.override(margin=Volatility(lambda_=row["venue.margin.lambda_"]))
        alone = test.replace(venue=venue).run(Wary(share=row["share"]))
        assert alone.metrics["total_return"] == pytest.approx(row["total_return"], rel=1e-9)


def test_rules_are_stored_and_changed():
    for rule in RULES:
        venue = VENUE.override(margin=rule)
        assert bt.Venue.from_dict(venue.to_dict()) == venue

    nested = VENUE.override(margin=RULES[2])
    inside = nested.override({"margin.rule.rule.lambda_": 0.8})
    assert inside.margin.rule.rule.lambda_ == 0.8


def test_bad_rules_are_refused():
    check_refused(lambda: Volatility(floor=2.0, cap=1.0), "cap: must be at least floor, 2")
    check_refused(lambda: Buffer(Volatility(cap=3.0)), "rule.cap: must be given to the outermost")
    tiers = [OpenInterestTier(1.0, 0.01)]
    wrong = "rule: must be of volatility, such as Volatility()"
    check_refused(lambda: Floor(OpenInterest("oi", tiers)), wrong)
    check_refused(lambda: OpenInterest("oi", tiers[::-1] + tiers), "rising open_interest")
    check_refused(lambda: OpenInterest("oi", 3), "open_interest.tiers: must be a list, got 3")
    check_refused(lambda: Buffer(Volatility(), 0.2, 3.0), "accepts 2 positional values")

    class Own(DynamicMargin):
        pass

    check_refused(lambda: VENUE.override(margin=Own()), "must be a rule of bt.margin_rules")
    missing = VENUE.override(margin=OpenInterest("oi", tiers))
    with pytest.raises(bt.ParameterError, match=r"margin.column: the market has no column 'oi'"):
        bt.run(SAMPLE, Constant(1.0), venue=missing, account=bt.Account())

    spot = bt.Venue.spot(taker=0.001, slippage=1e-4, haircut=0.05, borrow_rate=0.04)
    check_refused(lambda: spot.override(margin=Volatility()), "margin: must be left out for a spot")


def test_a_rise_of_initial_margin_reduces_no_position():
    """Only maintenance calls or liquidates: 6x is kept where new orders get at most 4x."""
    market = days_of([0.001, 0.03, 0.0, 0.0])
    venue = venue_of(brackets=[bracket(leverage=40.0, rate=0.005)])
    venue = venue.override(margin=Volatility(lambda_=0.5, cap=10.0))
    terms = {"venue": venue, "account": bt.Account(band=1.0)}

    result = bt.run(market, Constant(6.0), **terms)

    assert result.margin_multipliers.iloc[-1, 0] == 10.0
    assert len(result.events) == 1
    assert result.bars["leverage"].iloc[-1] > 5.0

    late = bt.run(market, Constant(6.0), **terms, start=market.times[6])
    assert late.bars["leverage"].iloc[-1] == pytest.approx(4.0)
