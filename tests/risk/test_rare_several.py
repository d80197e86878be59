"""Rare liquidations of several positions: tilted and split paths against counts and formulas."""

import math

import numpy as np
import pytest

import backtest as bt
from backtest import paths as models
from backtest.features.first_passage import touch_probability
from backtest.risk.liquidation import rare_events
from backtest.risk.paths.tilted_models import tilt_models
from tests.risk.accounts import Hold, free_account, free_venue, liquidation_distance, still_market

GBM = models.GBM(volatility=3.0)
HOURS = 6
TERMS = {"venue": free_venue(), "account": free_account(), "compile": False}


def draw(model=GBM, **terms) -> bt.Paths:
    markets = bt.Markets({"A": still_market(), "B": still_market()})
    return bt.simulate_paths(markets, model, **{"horizon": f"{HOURS}h", "seed": 2, **terms})


def estimate(paths: bt.Paths, lever: float, method: str, **terms):
    given = {**TERMS, "confidence": 0.9999, "horizons": (f"{HOURS}h",), **terms}
    return bt.liquidation_risk(paths, Hold(lever), method=method, **given).table.iloc[0]


def test_the_likelihood_ratio_of_tilted_models_averages_1():
    """E[exp(-f x + t psi)] = 1 under the tilted model, whose moves are larger by Sigma f."""
    paths = draw({"A": GBM, "B": models.GBM(volatility=1.5)}, paths=4000, correlation=-0.4)
    force = np.array([4.0, -7.0])
    tilted, psi = tilt_models(paths, force)
    own, moved = (
        np.log([each.closes(name=name)[:, -1] / 100.0 for name in "AB"])
        for each in (paths, paths.with_settings(models=tilted))
    )
    ratio = np.exp(-force @ moved + HOURS * psi)
    assert ratio.mean() == pytest.approx(1.0, abs=4 * ratio.std() / math.sqrt(4000))
    year = HOURS / 8760
    cross = -0.4 * 3.0 * 1.5
    shift = np.array([[9.0, cross], [cross, 2.25]]) @ force * year
    assert (moved - own).mean(axis=1) == pytest.approx(shift, rel=1e-9)  # the same normal numbers


@pytest.fixture
def _quick(monkeypatch):
    """Search a force on fewer paths, and split in fewer repetitions: plain Python is slow."""
    monkeypatch.setattr(rare_events, "SEARCHED", 64)
    monkeypatch.setattr(rare_events, "REPEATS", 8)


@pytest.mark.slow
@pytest.mark.usefixtures("_quick")
def test_tilted_paths_of_two_find_the_closed_form_of_one():
    """At a correlation of 1, half of the account in each is one position."""
    lever = 4.4
    wanted = touch_probability(liquidation_distance(lever), 3.0, HOURS / 8760, drift=-4.5)
    assert 5e-4 < wanted < 5e-3
    row = estimate(draw(paths=1200, correlation=1.0), lever, "tilt")
    assert row.p_liquidation_low <= wanted <= row.p_liquidation_high
    assert row.p_liquidation_high < 3.0 * row.p_liquidation_low


@pytest.mark.slow
@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(("margin", "signal"), [
    ({}, {"A": 0.9, "B": -0.5}),
    ({"margin": "isolated", "venue_leverage": 8.0}, {"A": 0.5, "B": 0.5}),
])  # fmt: skip
def test_plain_tilted_and_split_estimates_of_two_agree(margin, signal):
    """Within intervals of 99.99 %, at fixed seeds."""
    given = {"signal": signal, "account": free_account(**margin)}
    plain = estimate(draw(paths=1500, correlation=0.5), 8.0, "plain", **given)
    assert plain.p_liquidation > 0.005
    for method, count in (("tilt", 600), ("split", 800)):
        row = estimate(draw(paths=count, correlation=0.5), 8.0, method, **given)
        assert row.method == method
        assert max(plain.p_liquidation_low, row.p_liquidation_low) <= min(
            plain.p_liquidation_high, row.p_liquidation_high
        )
        assert row.equity_50 == pytest.approx(plain.equity_50, rel=0.05)


def test_models_of_several_with_jumps_are_not_tilted():
    """Jumps that are common in some bars only leave the family; auto splits them."""
    merton = models.Merton(volatility=1.0, jumps=50, jump_mean=-0.01, jump_deviation=0.01)
    with pytest.raises(bt.ParameterError, match="GBM of several instruments"):
        estimate(draw(merton, paths=4, correlation=0.5), 5.0, "tilt")
