"""Lives on paths: those of runs over them, of one position and of one beside another."""

import numpy as np
import pytest

import backtest as bt
from backtest import paths as models
from backtest.risk.paths_runner import make_runner
from backtest.strategies import Constant
from tests.risk.accounts import Hold, free_account, free_venue

GBM = models.GBM(volatility=3.0)
SAME = {"rtol": 1e-12, "atol": 1e-9}
"""Of a capital of 1,000."""


def sample(seed: int = 0) -> bt.Market:
    return bt.Market.sample(bars=60, seed=seed)


def draw(market: bt.Market | bt.Markets, **terms) -> bt.Paths:
    return bt.simulate_paths(market, GBM, **{"paths": 4, "horizon": "12h", "seed": 2, **terms})


def costly() -> bt.Venue:
    return free_venue().override({"fees.taker": 5e-4, "slippage.rate": 2e-4})


@pytest.mark.parametrize(("policy", "account", "happens"), [
    (Hold(20.0), {}, "liquidations"),
    (Constant(leverage=15.0), {"margin": "isolated", "venue_leverage": 20.0}, "liquidations"),
    (Hold(8.0), {"margin_call": 0.05, "reserve": 200.0, "top_up_to": 0.03}, "calls"),
    (Hold(12.0), {"stop_loss": 0.02, "ruin_at": 0.5}, "is_ruined"),
])  # fmt: skip
def test_a_life_is_that_of_a_run_and_of_one_beside_an_instrument_that_is_not_held(
    policy, account, happens
):
    given = {"venue": costly(), "account": free_account(**account), "compile": False}
    runner = make_runner(draw(sample()), policy, **given)
    lives = runner.run_block(0, 4)
    assert getattr(lives, happens).any()
    for i in range(4):
        whole = runner.run_path(i)
        wealth = (whole.bars["equity"] + whole.bars["reserve"]).to_numpy()[1:]
        assert np.allclose(lives.wealth[i], wealth, **SAME)
        assert lives.liquidations[i].sum() == whole.metrics["liquidations"]
        assert lives.calls[i].sum() == whole.metrics["margin_calls"]
        assert lives.is_ruined[i].any() == bool(whole.metrics["ruined"])
        assert lives.bad_debt[i].sum() == pytest.approx(whole.metrics["bad_debt"])
    both = draw(bt.Markets({"A": sample(), "B": sample(1)}))
    two = make_runner(both, policy, signal={"A": 1.0, "B": 0.0}, **given).run_block(0, 4)
    for mine, theirs in zip(lives[1:6], two[1:6], strict=True):
        assert np.allclose(mine, theirs, **SAME)
    assert np.array_equal(lives.closes[0], two.closes[0])


class Short(bt.Policy):
    """Ask for less than nothing at the last close of the first day."""

    def leverage(self, bar, account):
        return -1.0 if account.days > 0.4 else 1.0


def test_a_negative_leverage_on_a_path_is_the_error_of_its_run():
    runner = make_runner(
        draw(sample()), Short(), venue=costly(), account=free_account(), compile=False
    )
    with pytest.raises(bt.PolicyError, match="a leverage must be at least 0"):
        runner.run_block(0, 4)


def tiered() -> bt.Venue:
    """Return a venue whose fee falls by half after 20,000 traded."""
    tiers = [bt.FeeTier(volume=20_000.0, maker=2e-4, taker=2.5e-4)]
    return costly().override({"fees.tiers": tiers})


def test_a_result_of_one_goes_on_at_fee_tiers_and_with_no_other_overlay():
    """60 hours of the run leave the first tier, so its volume must go on along the paths."""
    given = {"venue": tiered(), "account": free_account(), "compile": False}
    before = bt.run(sample(), Flip(), **given)
    paths = draw(sample(), horizon="1d", paths=2)
    given |= {"account": before}
    risk = bt.liquidation_risk(paths, Flip(), **given)
    lives = next(risk.runner.run_chunks())
    for i in range(2):
        assert np.allclose(lives.wealth[i], risk.run(i).bars["equity"].to_numpy(), **SAME)
    with pytest.raises(bt.ParameterError, match="overlay must be that of the result, None"):
        bt.liquidation_risk(paths, Flip(), **given, overlay=Constant(leverage=0.5))


class Flip(bt.Policy):
    """Hold 3 and 1 turns in turn."""

    def leverage(self, bar, account):
        return 3.0 if abs(account.leverage) < 2.0 else 1.0


def test_an_overlay_scales_the_only_position_too():
    given = {"venue": free_venue(), "account": free_account(), "compile": False}
    half = bt.liquidation_risk(
        draw(sample()), Constant(leverage=4.0), overlay=Constant(leverage=0.5), **given
    )
    two = bt.liquidation_risk(draw(sample()), Constant(leverage=2.0), **given)
    assert np.allclose(half.fan, two.fan, **SAME)
