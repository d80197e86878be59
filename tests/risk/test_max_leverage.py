"""max_leverage(): against the closed form, and its refusals."""

import math

import pytest

import backtest as bt
from backtest import paths as models
from backtest.features import touch_distance
from backtest.risk.liquidations import Scaled
from backtest.strategies import VolTarget
from tests.risk.accounts import free_account, free_venue, still_market

TERMS = {"venue": free_venue(), "account": free_account()}


@pytest.mark.slow
def test_it_finds_the_leverage_of_the_closed_form():
    # without drift of the log price, 5 % in 7 days: |ln x| = -sigma sqrt(T) Phi^-1(0.025), and the
    # price of liquidation x = (L - 1) / (0.995 L), so L = 1 / (1 - 0.995 x)
    model = models.GBM(volatility=0.8, drift=0.32)
    found = bt.max_leverage(
        still_market(), **TERMS, probability=0.05, horizon="7d", models=[model], paths=4000, seed=1
    )
    x = math.exp(-touch_distance(0.05, 0.8, 7 / 365))
    # the error of p is sqrt(0.05 * 0.95 / 4000) = 0.0034, 7 % of it; that of L some 3 %
    assert found.leverage == pytest.approx(1 / (1 - 0.995 * x), rel=0.04)
    row = found.table.loc["gbm"]
    assert row["p_liquidation"] <= 0.05 < row["p_liquidation_high"]
    assert row["is_monotone"]
    assert not row["is_limited"]
    assert found.grid["gbm"].is_monotonic_increasing


@pytest.mark.slow
def test_the_worst_model_decides():
    calm, wild = models.GBM(volatility=0.3), models.GBM(volatility=1.5)
    found = bt.max_leverage(
        still_market(), **TERMS, probability=0.1, horizon="2d", models=[calm, wild], paths=1000
    )
    assert list(found.table.index) == ["gbm", "gbm 2", "worst"]
    assert found.leverage == found.table.loc["gbm 2", "leverage"]
    assert found.leverage < 0.5 * found.table.loc["gbm", "leverage"]


def test_a_policy_is_scaled_by_a_factor():
    doubled = Scaled(VolTarget(target=0.3), factor=2.0)
    market = bt.Market.sample(bars=300)
    venue, account = free_venue(), free_account()
    runs = [
        bt.run(market, policy, venue=venue, account=account, compile=False)
        for policy in (doubled, VolTarget(target=0.6))
    ]
    assert runs[0].metrics["final_equity"] == pytest.approx(runs[1].metrics["final_equity"])


@pytest.mark.parametrize(("settings", "words"), [
    ({"probability": 0.0}, "probability must be"),
    ({"probability": math.nan}, "probability must be a number"),
    ({"probability": 0.001, "paths": 1000}, "at least 20"),
    ({"models": []}, "at least one model"),
    ({"models": "gbm"}, "list with at least one"),
])  # fmt: skip
def test_bad_arguments_are_refused(settings, words):
    with pytest.raises(bt.ParameterError, match=words):
        bt.max_leverage(still_market(), **TERMS, **{"models": [models.GBM(0.5)], **settings})
