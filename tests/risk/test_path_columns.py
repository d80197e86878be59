"""Columns on paths: those of a run over history and path, bit for bit."""

import numpy as np
import pytest

import backtest as bt
from backtest import features, strategies
from backtest.risk.path_bars import MARKS, PRICES
from backtest.risk.paths_runner import make_runner
from tests.risk.accounts import free_account, free_venue

FIELDS = (*PRICES, *MARKS, "volume", "funding_time", "funding_rate", "funding_mark", "time")
ESTIMATORS = [
    lambda m: features.volatility(m, np.array(features.WEIGHTED_ESTIMATORS, object), 24.0),
    lambda m: features.har_volatility(m, first=10),
    lambda m: features.funding_forecast(m, 24.0),
    lambda m: m.bars().rolling(5).mean()["close"].to_numpy(),
]


@pytest.mark.parametrize("has_mark", [True, False])
def test_a_path_is_joined_with_its_history_as_a_run_sees_it(has_mark):
    market = bt.Market.sample(bars=700)
    if not has_mark:
        market = bt.Market.from_frames(market.bars(), funding=market.funding())
    paths = bt.simulate_paths(market, horizon="1d", paths=3, seed=3)
    pattern, bars = paths.join_history(paths[0], 500), paths.draw(0, 3)
    for k in range(3):
        wanted = paths.join_history(paths[k], 500)
        found = paths.leader.put_at_end(pattern, bars, k)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
        assert found.content_hash == wanted.content_hash
        for estimate in ESTIMATORS:
            np.testing.assert_array_equal(estimate(found), estimate(wanted))
        with pytest.raises(ValueError, match="read-only"):
            found.close[0] = 1.0


class HalfOnPathsThatRise(strategies.VolTarget):
    """The estimator's own column, or half of it, by the closes of the path."""

    def observe(self, market):
        """Return sigma."""
        columns = super().observe(market)
        columns["sigma"] *= 0.5 if market.close[-1] > market.close[-20] else 1.0
        return columns


@pytest.mark.filterwarnings("ignore:.*looks ahead")
def test_columns_of_a_policy_of_the_user_are_made_for_each_path(monkeypatch):
    paths = bt.simulate_paths(bt.Market.sample(bars=700), horizon="1d", paths=3, seed=3)
    runner = make_runner(
        paths, strategies.VolTarget(), venue=free_venue(), account=free_account(), compile=False
    )
    (own,) = runner.prepared.setup.observed
    own = own._replace(policy=HalfOnPathsThatRise())
    found = runner.observe(own, paths.names[0], paths.draw(0, 3))["sigma"].reshape(3, -1)
    for k in range(3):
        column = own.policy.observe(paths.join_history(paths[k], 2000))["sigma"]
        np.testing.assert_array_equal(found[k], column[-paths.width :])
