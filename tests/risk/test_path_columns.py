"""Columns on paths: those of a run over history and path, bit for bit; rare liquidations."""

import numpy as np
import pytest

import backtest as bt
from backtest import features, strategies
from backtest.engine.lookahead import observe
from backtest.policy.policy import find_policies
from backtest.risk.liquidation import path_columns
from backtest.risk.liquidation.path_columns import join_path, observe_paths
from backtest.risk.paths.instrument_paths import MARKS, PRICES

FIELDS = (*PRICES, *MARKS, "volume", "funding_time", "funding_rate", "funding_mark", "time")
ESTIMATORS = [
    lambda m: features.volatility(m, np.array(features.WEIGHTED_ESTIMATORS, object), 24.0),
    lambda m: features.har_volatility(m, first=10),
    lambda m: features.garman_klass_volatility(m, 48),
    lambda m: features.rolling_sharpe(m, 48).ratio,
    lambda m: features.rolling_drift(m, 48).error,
    lambda m: features.drawdown_state(m, 48).bars,
    lambda m: features.funding_forecast(m, 24.0),
    lambda m: features.trend_strength(m, 24, 24.0),
    lambda m: features.learned_volatility(m, 48.0, 200.0, 50.0).stress,
    lambda m: (
        features.tail_losses(
            m, "filtered-historical", level=0.95, horizon=2, window=100, half_life=24.0
        ).expected_shortfall
    ),
    lambda m: m.bars().rolling(5).mean()["close"].to_numpy(),
]


def paths_of(market: bt.Market) -> bt.Paths:
    return bt.simulate_paths(market, horizon="1d", paths=3, seed=3)


@pytest.mark.parametrize("has_mark", [True, False])
def test_a_path_is_joined_with_its_history_as_a_run_sees_it(has_mark):
    market = bt.Market.sample(bars=700)
    if not has_mark:
        market = bt.Market.from_frames(market.bars(), funding=market.funding())
    paths = paths_of(market)
    pattern, bars = paths.join_history(paths[0], 500), paths.draw(0, 3)
    for k in range(3):
        wanted = paths.join_history(paths[k], 500)
        found = join_path(pattern, bars, k, paths.width, wanted.source)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
        assert found.content_hash == wanted.content_hash
        assert repr(found) == repr(wanted)
        for estimate in ESTIMATORS:
            np.testing.assert_array_equal(estimate(found), estimate(wanted))
        with pytest.raises(ValueError, match="read-only"):
            found.close[0] = 1.0
        with pytest.raises(AttributeError, match="no attribute 'closes'"):
            _ = found.closes


POLICIES = [each for each in find_policies(strategies) if each is not strategies.ImpliedVolTarget]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda each: each.__name__)
def test_columns_of_library_policies_are_those_of_history_and_path(policy):
    parts = policy.takes[0] if issubclass(policy, bt.Combinator) else 0
    given = policy(*[strategies.VolTarget()] * parts)
    paths = paths_of(bt.Market.sample(bars=700))
    pattern = paths.join_history(paths[0], 500)
    names = observe(given, pattern)
    found = observe_paths(given, pattern, paths.draw(0, 3), names, paths.width)
    for k in range(3):
        for name, column in observe(given, paths.join_history(paths[k], 500)).items():
            own = found[name].reshape(3, -1)[k]
            np.testing.assert_array_equal(own, column[-paths.width :])


class HalfOnPathsThatRise(strategies.VolTarget):
    """The estimator's own column, or half of it, by the closes of the path."""

    def observe(self, market):
        """Return sigma."""
        columns = super().observe(market)
        columns["sigma"] *= 0.5 if market.close[-1] > market.close[-20] else 1.0
        return columns


def test_columns_of_a_policy_of_the_user_are_made_for_each_path():
    check_columns_of_each_path(HalfOnPathsThatRise(), "sigma")


def check_columns_of_each_path(given, name):
    """Check that a column on three paths is the one observed on each with its history."""
    paths = paths_of(bt.Market.sample(bars=700))
    pattern = paths.join_history(paths[0], 500)
    found = observe_paths(given, pattern, paths.draw(0, 3), [name], paths.width)[name]
    for k in range(3):
        column = given.observe(paths.join_history(paths[k], 500))[name]
        np.testing.assert_array_equal(found.reshape(3, -1)[k], column[-paths.width :])


class StrengthAlone(bt.Policy):
    """A column that is written over a volatility."""

    def observe(self, market):
        """Return the strength of the trend."""
        return {"strength": features.trend_strength(market, 24, 24.0)}

    def leverage(self, bar, account):
        """Return the strength."""
        return max(bar.strength, 0.0)


def test_an_average_that_is_written_over_does_not_go_on(monkeypatch):
    monkeypatch.setattr(path_columns, "is_ours", lambda _: True)
    check_columns_of_each_path(StrengthAlone(), "strength")


@pytest.mark.parametrize("before", [0, 1, 2, 3, 60])
def test_averages_go_on_along_paths_with_the_bits_of_history_and_path(before):
    market = bt.Market.sample(bars=700)
    paths = paths_of(market)
    pattern = paths.join_history(paths[0], before)
    kept = features.keep_continuations(pattern)
    column = features.ewma_volatility(pattern, 24.0)
    found = features.find_continuation(kept, column).extend(paths.closes())
    for k in range(3):
        wanted = features.ewma_volatility(paths.join_history(paths[k], before), 24.0)
        np.testing.assert_array_equal(found[k], wanted[-paths.width :])
