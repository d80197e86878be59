"""Whole numbers beyond 64 bits on paths and in stress: asked in plain Python there, and told."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import paths as models
from tests import kit
from tests.kit import make_venue, market_of, risk_of
from tests.risk.accounts import free_account, free_venue

pytestmark = [pytest.mark.slow, pytest.mark.compiled]
BEYOND = "whole numbers beyond 64 bits are not supported"
VENUE = free_venue()


class Shifted(bt.Policy):
    """Shift the price by 56 bits: from 128 on, it has more than 63."""

    def leverage(self, bar, account):
        return 1.0 + (int(bar.close) * 2**28 * 2**28) % 1009 / 1009


def test_paths_on_which_a_formula_overflows_are_those_of_plain_python():
    """From 100 at 300 % a year, some of 60 paths of 7 days pass 128."""
    market = market_of(np.full(2, 100.0), "1h", start="2023-01-01")
    model = models.GBM(volatility=3.0)
    paths = bt.simulate_paths(market, model, horizon="7d", seed=2, paths=60)
    given = {"venue": VENUE, "account": free_account()}
    plain = risk_of(paths, Shifted(), **given, compile=False)

    for threads in (1, 2):
        with pytest.warns(UserWarning, match=BEYOND):
            fast = risk_of(paths, Shifted(), **given, threads=threads)
        pd.testing.assert_frame_equal(fast.table, plain.table, check_exact=True)
        pd.testing.assert_frame_equal(fast.fan, plain.fan, check_exact=True)


def test_paths_that_stay_small_are_compiled(recwarn):
    market = market_of(np.full(2, 50.0), "1h", start="2023-01-01")
    paths = bt.simulate_paths(market, models.GBM(volatility=0.1), horizon="1d", seed=2, paths=20)
    risk_of(paths, Shifted(), venue=VENUE, account=free_account())
    assert not [each for each in recwarn if BEYOND in str(each.message)]


def test_a_scenario_in_which_a_formula_overflows_is_that_of_plain_python():
    """The run ends near 100; a rise of half goes beyond 128, a fall does not."""
    close = 100.0 + 0.1 * np.sin(np.arange(60))
    market = kit.market_of(close, start="2023-01-01", volume=1000.0)
    given = {"venue": make_venue(taker=0.001), "account": free_account()}
    fast = bt.run(market, Shifted(), **given)
    plain = bt.run(market, Shifted(), **given, compile=False)
    assert fast.manifest["compiled"] == "yes"
    scenarios = [bt.Scenario("rise", price=0.5, over="6h"), bt.Scenario("fall", price=-0.3)]

    with pytest.warns(UserWarning, match=f"scenario 'rise' ran in plain Python: {BEYOND}"):
        found = bt.stress(fast, scenarios)
    expected = bt.stress(plain, scenarios)
    pd.testing.assert_frame_equal(found.table, expected.table, check_exact=True)
