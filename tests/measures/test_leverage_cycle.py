"""How leverage was used: every number by hand, and what it is for on markets made to show it."""

import math
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.measures.leverage_cycle import (
    LeverageProfile,
    correlate,
    find_episodes,
    group_by_leverage,
    pair_with_next,
    skewness,
    time_by_leverage,
)
from backtest.strategies import Constant, VolTarget
from tests.markets import YEAR, live, market_of, walk
from tests.scenes import Follow, isolated, play, venue_of

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_time_is_counted_by_leverage_with_zero_alone():
    """Four bars at 0, 0.25, 1.2 and 1.5 over two days: half a day each."""
    table = time_by_leverage(np.array([0.0, 0.25, 1.2, 1.5]), 2.0)
    assert table["bars"].tolist() == [1, 1, 0, 0, 2]
    assert table["days"].tolist() == [0.5, 0.5, 0.0, 0.0, 1.0]
    assert table["share"].tolist() == [0.25, 0.25, 0.0, 0.0, 0.5]
    assert str(table.index[-1]) == "(1.0, 1.5]"


def test_leverage_over_the_highest_bound_is_counted_too():
    table = time_by_leverage(np.array([0.1, 80.0]), 1.0)
    assert table["bars"].sum() == 2
    assert table["share"].iloc[-1] == 0.5


def test_skew_is_positive_where_leverage_is_mostly_low():
    assert skewness(np.array([1.0, 1.0, 1.0, 5.0])) == pytest.approx(2 / math.sqrt(3))
    assert skewness(np.array([5.0, 5.0, 5.0, 1.0])) == pytest.approx(-2 / math.sqrt(3))
    assert math.isnan(skewness(np.full(9, 2.0)))


def test_what_follows_is_compounded_and_annualized_and_an_incomplete_period_left_out():
    """Periods of two bars: (1.1)(0.9) - 1 = -1 %, (1.2)(1.0) - 1 = 20 %; the fifth bar is over."""
    leverage = np.array([1.0, 9.0, 2.0, 9.0, 9.0])
    ahead = pair_with_next(leverage, np.array([0.1, -0.1, 0.2, 0.0, 0.5]), 2, 100.0)
    assert ahead["leverage"].tolist() == [1.0, 2.0]
    assert ahead["next_return"].tolist() == pytest.approx([-0.01, 0.2])
    assert ahead["next_volatility"].tolist() == pytest.approx([1.0, math.sqrt(2.0)])


def test_groups_hold_equal_numbers_from_the_lowest_leverage_up():
    ahead = pd.DataFrame(
        {
            "leverage": [4.0, 1.0, 3.0, 2.0],
            "next_return": [0.4, 0.1, 0.2, 0.3],
            "next_volatility": [3.0, 1.0, 4.0, 1.0],
        }
    )
    table = group_by_leverage(ahead, 2)
    assert table["leverage"].tolist() == [1.5, 3.5]
    assert table["periods"].tolist() == [2, 2]
    assert table["next_return"].tolist() == pytest.approx([0.2, 0.3])
    assert table["next_return_error"].tolist() == pytest.approx([0.1, 0.1])
    assert table["next_volatility"].tolist() == pytest.approx([1.0, math.sqrt(12.5)])


def test_leverage_that_repeats_makes_fewer_groups():
    ahead = pair_with_next(np.full(20, 2.0), np.linspace(-0.1, 0.1, 20), 1, 365.0)
    assert len(group_by_leverage(ahead, 5)) == 1


def test_an_episode_by_hand():
    """Peak 120, trough 90 (25 %), back at 120: 2x before, 1x at the lowest, 1.5x two bars later."""
    unit = np.array([100, 120, 108, 90, 95, 100, 110, 120, 119.0])
    leverage = np.array([2.0, 2.0, 2.0, 1.5, 1.0, 1.2, 1.5, 2.0, 2.0])
    (only,) = find_episodes(leverage, unit, 100.0, 0.1, 10)
    assert (only.peak, only.trough, only.recovery) == (1, 3, 7)
    assert only.depth == pytest.approx(0.25)
    assert (only.before, only.low) == (2.0, 1.0)
    assert (only.half, only.back) == (2.0, 3.0)  # counted from bar 4, the first it could change


def test_a_fall_from_before_the_first_bar_and_one_that_lasts():
    unit = np.array([80.0, 100.0, 101.0, 70.0])
    first, last = find_episodes(np.array([1.0, 3.0, 1.0, 1.0]), unit, 100.0, 0.1, 2)
    assert (first.peak, first.trough, first.recovery) == (-1, 0, 1)
    assert math.isnan(first.before)
    assert (last.peak, last.recovery) == (2, -1)
    assert last.before == 2.0
    assert math.isnan(last.back)


def ar1(rng, phi, n):
    noise = rng.standard_normal(n)
    values = np.empty(n)
    values[0] = noise[0] / math.sqrt(1.0 - phi**2)
    for t in range(1, n):
        values[t] = phi * values[t - 1] + noise[t]
    return values


@pytest.mark.parametrize("phi", [0.0, 0.8])
def test_the_standard_error_of_a_correlation_allows_for_persistence(phi):
    """Independent series of 400, 300 times: correlation / error has deviation 1 +- 4 % by chance.

    The error is itself estimated from 400 values, which widens that a little.
    """
    rng = np.random.default_rng(7)
    pairs = [correlate(ar1(rng, phi, 400), ar1(rng, phi, 400)) for _ in range(300)]
    scores = [rho / error for rho, error in pairs]
    assert np.std(scores) == pytest.approx(1.0, abs=3 * math.sqrt(0.5 / 300) + 0.06)
    plain = 1.0 / math.sqrt(400)
    expected = plain * math.sqrt((1 + phi**2) / (1 - phi**2))  # Bartlett's for two such series
    assert np.mean([error for _, error in pairs]) == pytest.approx(expected, rel=0.15)


def test_the_correlation_is_the_usual_one():
    rng = np.random.default_rng(1)
    x = rng.standard_normal(500)
    y = 0.5 * x + rng.standard_normal(500)
    rho, error = correlate(x, y)
    assert rho == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-12)
    assert error == pytest.approx((1 - rho**2) / math.sqrt(500), rel=0.2)
    assert all(math.isnan(value) for value in correlate(x, np.ones(500)))


@pytest.fixture(scope="module")
def cycle():
    """Volatility from 0.4 to 2 over months under a volatility target: leverage answers it."""
    n = YEAR
    sigma = 0.9 * np.exp(0.8 * np.sin(2 * np.pi * np.arange(n) / 2000))
    return live(walk(n, 0.0, sigma, seed=5), VolTarget(target=0.8, half_life=48.0), compile=False)


@pytest.mark.slow
def test_a_volatility_target_holds_less_before_wild_days(cycle):
    profile = cycle.leverage_profile()
    assert profile.volatility_correlation < -5 * profile.volatility_correlation_error
    assert abs(profile.return_correlation) < 3 * profile.return_correlation_error
    table = profile.next_by_leverage
    assert table["leverage"].is_monotonic_increasing
    assert table["next_volatility"].is_monotonic_decreasing
    assert table["periods"].sum() == (YEAR - 1) // 24
    assert profile.time_at["bars"].sum() == YEAR - 1
    assert profile.time_at["share"].sum() == pytest.approx(1.0)
    assert profile.time_at["days"].sum() == pytest.approx((YEAR - 1) / 24, rel=1e-12)


def test_leverage_is_what_was_held_from_the_second_bar_on(cycle):
    profile = cycle.leverage_profile()
    close = cycle.market.close
    wealth = np.concatenate([[10_000.0], cycle.bars["equity"].to_numpy()[:-1]])
    held = cycle.bars["position"].to_numpy()[1:] * close[:-1] / wealth[1:]
    assert profile.mean == pytest.approx(held.mean(), rel=1e-12)
    assert profile.median == pytest.approx(np.median(held), rel=1e-12)
    assert profile.skew == pytest.approx(skewness(held), rel=1e-9)


def test_a_short_has_the_same_profile_as_its_leverage_is_without_sign():
    market = walk(1000, 0.0, 0.8, seed=2)
    policy = VolTarget(target=0.8, half_life=24.0)
    long, short = (
        live(market, policy, signal=side, compile=False).leverage_profile() for side in (1.0, -1.0)
    )
    assert short.mean == pytest.approx(long.mean, rel=1e-12)
    assert short.return_correlation == pytest.approx(-long.return_correlation, abs=0.01)


def test_constant_leverage_is_back_at_once():
    result = live(walk(2000, 0.0, 0.8, seed=2), Constant(leverage=3.0), compile=False)
    profile = result.leverage_profile(depth=0.2)
    table = profile.releveraging
    assert len(table) > 0
    assert (table["depth"] >= 0.2).all()
    assert (table["days_back"] == 0.0).all()
    assert profile.days_back == profile.half_life_days == 0.0
    assert math.isnan(profile.skew)
    assert math.isnan(profile.return_correlation)


def test_the_days_back_are_those_between_the_closes():
    """From 2x to 1x at the fall, 1.5x and 2x again 24 and 48 hours after the first answer."""
    close = np.concatenate([np.full(30, 100.0), [70.0], np.full(100, 70.0)])
    target = np.concatenate([np.full(30, 2.0), np.full(24, 1.0), np.full(24, 1.5), np.full(53, 2)])
    result = live(market_of(close, target=target), Follow(), compile=False)
    table = result.leverage_profile().releveraging
    assert len(table) == 1
    row = table.iloc[0]
    assert row["peak"] == pd.Timestamp("2020-01-02 06:00", tz="UTC")
    assert row["trough"] == pd.Timestamp("2020-01-02 07:00", tz="UTC")
    assert pd.isna(row["recovery"])
    assert (row["leverage_before"], row["leverage_low"]) == pytest.approx((2.0, 1.0))
    assert (row["half_life_days"], row["days_back"]) == pytest.approx((1.0, 2.0))


def test_an_account_that_never_comes_back_has_an_infinite_median():
    close = np.concatenate([np.full(30, 100.0), np.full(30, 70.0)])
    target = np.concatenate([np.full(30, 2.0), np.full(30, 0.5)])
    profile = live(market_of(close, target=target), Follow(), compile=False).leverage_profile()
    assert profile.days_back == profile.half_life_days == math.inf
    assert profile.releveraging["days_back"].isna().all()


def test_a_run_without_a_drawdown_and_shorter_than_a_period_has_empty_tables():
    profile = play(100.0, 101.0, 102.0).leverage_profile()
    assert profile.releveraging.empty
    assert profile.next_by_leverage.empty
    assert math.isnan(profile.days_back)
    assert math.isnan(profile.return_correlation)
    assert "0 (medians)" in str(profile)


def test_only_the_bars_up_to_ruin_count():
    venue = venue_of(liquidation={"mode": "takeover"})
    bars = (100.0, 100.0, (100.0, 100.0, 50.0, 50.0), *[50.0] * 50)
    profile = play(*bars, targets=10.0, venue=venue).leverage_profile()
    assert profile.time_at["bars"].sum() == 2
    assert profile.median == pytest.approx(10.0)


def test_a_liquidated_bar_counts_with_what_was_held_in_it():
    bars = (100.0, (100.0, 100.0, 50.0, 50.0), 50.0)
    result = play(*bars, targets=[5.0, 0.0], account=isolated(10.0))
    assert result.leverage_profile().time_at["bars"].tolist()[-1] == 1


@pytest.mark.slow
def test_a_loaded_result_has_the_same_profile(cycle, tmp_path):
    loaded = bt.Result.load(cycle.save(tmp_path)).leverage_profile()
    for field in fields(LeverageProfile):
        ours, theirs = (getattr(each, field.name) for each in (cycle.leverage_profile(), loaded))
        if isinstance(ours, pd.DataFrame):
            pd.testing.assert_frame_equal(ours, theirs)
        else:
            assert ours == theirs


@pytest.mark.parametrize(
    ("argument", "value"), [("groups", 1), ("depth", 0.0), ("depth", 1.0), ("horizon", "soon")]
)
def test_an_argument_that_is_not_allowed_is_refused(cycle, argument, value):
    with pytest.raises(bt.ParameterError, match=argument if argument != "horizon" else "duration"):
        cycle.leverage_profile(**{argument: value})


def test_an_account_that_never_lived_a_second_bar_has_no_profile():
    venue = venue_of(liquidation={"mode": "takeover"})
    first = play(100.0, 100.0, (100.0, 100.0, 50.0, 50.0), targets=10.0, venue=venue)
    settings = {"venue": venue, "account": first.account, "compile": False}
    longer = play(100.0, 100.0, (100.0, 100.0, 50.0, 50.0), 50.0, 50.0, targets=10.0).market
    after = bt.run(longer, Follow(), resume=first, **settings)
    with pytest.raises(bt.ParameterError, match="two bars"):
        after.leverage_profile()
    assert after.attribution().growth == 0.0


def test_the_text_holds_the_main_numbers(cycle):
    profile = cycle.leverage_profile()
    text = str(profile)
    assert f"mean {profile.mean:.2f}" in text
    assert f"{profile.volatility_correlation:+.3f}" in text
    assert "none" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "LeverageProfile" in repr(profile)


def test_every_field_is_explained():
    section = DOCS.read_text(encoding="utf-8").split("## How leverage was used")[1]
    named = set(re.findall(r"`(\w+)`", section))
    names = {field.name for field in fields(LeverageProfile)}
    names |= {"groups", "horizon", "depth", "window", "leverage_before", "leverage_low"}
    assert names <= named
