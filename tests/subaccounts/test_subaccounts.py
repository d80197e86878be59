"""One capital in subaccounts: transfers by hand, a ledger that adds up to 0, and a ruin."""

import math
from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant
from backtest.subaccounts.subaccounts_run import plan_transfers
from tests import scenes
from tests.markets import free_venue, market_of, walk

TERMS = {"venue": free_venue(), "account": bt.Account(capital=1000.0), "compile": False}
ALIVE = np.zeros(2, dtype=bool)


class Hold(bt.Policy):
    """Buy once at a leverage, and leave the position alone."""

    size: Annotated[float, bt.Range(0.0, 10.0)] = 1.0

    def leverage(self, bar, account):
        return self.size if account.position == 0.0 else math.nan


def pair(**settings) -> bt.Subaccounts:
    return bt.Subaccounts({"bold": (Constant(2.0), 0.6), "cash": (Constant(0.0), 0.4)}, **settings)


def test_every_subaccount_goes_back_to_its_share():
    """600 at 2x from 100 to 150: bought at the open of hour 1, 12 coins earn 600: 1,200 and 400.

    At the open of hour 3 the whole is 1,600, of which 60 % are 960: 240 move.
    """
    market = scenes.market_of(100.0, 100.0, (100.0, 150.0, 100.0, 150.0), 150.0, 150.0)
    plan = bt.Subaccounts({"bold": (Hold(2.0), 0.6), "cash": (Constant(0.0), 0.4)}, rebalance="3h")
    done = plan.run(market, **TERMS)
    assert done.transfers.index.tolist() == [market.times[3]]
    assert done.transfers.iloc[0].tolist() == pytest.approx([-240.0, 240.0])
    assert done.equity["bold"].tolist() == pytest.approx([600.0, 600.0, 1200.0, 960.0, 960.0])
    assert done.equity["cash"].tolist() == pytest.approx([400.0, 400.0, 400.0, 640.0, 640.0])
    assert done.equity["whole"].tolist() == pytest.approx([1000.0, 1000.0, 1600.0, 1600.0, 1600.0])
    row = done.table.loc["bold"]
    assert row["transfers"] == pytest.approx(-240.0)
    assert row["final_equity"] == pytest.approx(960.0)


@pytest.mark.parametrize(("equity", "moved"), [
    ([1200.0, 400.0], [0.0, 0.0]),  # nobody lacks anything
    ([1200.0, 300.0], [-100.0, 100.0]),
    ([650.0, 300.0], [-50.0, 50.0]),  # no more than the surplus
    ([500.0, 300.0], [0.0, 0.0]),  # no surplus
])  # fmt: skip
def test_only_losses_are_made_up(equity, moved):
    shares = np.array([0.6, 0.4])
    found = plan_transfers("losses-only", np.array(equity), shares, 1000.0, ALIVE)
    assert found.tolist() == pytest.approx(moved)


def test_three_subaccounts_share_lack_and_surplus_in_proportion():
    shares = np.array([0.5, 0.25, 0.25])
    equity = np.array([900.0, 100.0, 200.0])
    found = plan_transfers("losses-only", equity, shares, 1000.0, np.zeros(3, dtype=bool))
    assert found.tolist() == pytest.approx([-200.0, 150.0, 50.0])
    ruined = np.array([False, True, False])
    found = plan_transfers("to-target", np.array([900.0, 0.0, 300.0]), shares, 1000.0, ruined)
    assert found.tolist() == pytest.approx([-100.0, 0.0, 100.0])  # 2 : 1 of 1,200


def test_the_ledger_adds_up_to_0_and_the_whole_is_the_sum_of_its_subaccounts():
    market = walk(24 * 6, 0.3, 0.8, seed=3)
    plan = bt.Subaccounts(
        {"a": (Constant(3.0), 0.5), "b": (Constant(1.5), 0.3), "c": (Constant(0.0), 0.2)},
        rebalance="12h",
    )
    done = plan.run(market, **TERMS)
    assert len(done.transfers) == 11
    np.testing.assert_allclose(done.transfers.sum(axis=1), 0.0, atol=1e-9)
    subaccounts = done.equity.drop(columns="whole")
    np.testing.assert_allclose(subaccounts.sum(axis=1), done.equity["whole"], rtol=1e-12)
    assert done.results is not None
    for name, each in done.results.items():
        np.testing.assert_allclose(
            each.bars["flows"][each.bars["flows"] != 0.0],
            done.transfers[name][done.transfers[name] != 0.0],
        )
    # a subaccount is back at its share of what there was at the close before
    before = done.equity["whole"].shift(1).loc[done.transfers.index]
    held = done.equity["c"].loc[done.transfers.index]
    np.testing.assert_allclose(held, 0.2 * before, rtol=1e-9)


def test_without_transfers_each_subaccount_is_the_run_of_its_part():
    market = walk(240, 0.3, 0.8, seed=4)
    done = pair(transfer="none").run(market, **TERMS)
    alone = bt.run(market, Constant(2.0), **TERMS | {"account": bt.Account(capital=600.0)})
    assert len(done.transfers) == 0
    np.testing.assert_array_equal(done.equity["bold"], alone.bars["equity"])
    assert done.table.loc["bold", "sharpe"] == alone.metrics["sharpe"]


def test_subaccounts_of_one_policy_are_the_account_as_a_whole():
    """Without lots and costs, halves of an account are the account."""
    market = walk(24 * 8, 0.3, 0.8, seed=5)
    plan = bt.Subaccounts({"a": (Constant(1.5), 0.5), "b": (Constant(1.5), 0.5)}, rebalance="2d")
    done = plan.run(market, **TERMS)
    alone = bt.run(market, Constant(1.5), **TERMS)
    np.testing.assert_allclose(done.equity["whole"], alone.bars["equity"], rtol=1e-9)
    for name in ("volatility", "sharpe", "max_drawdown"):
        assert done.table.loc["whole", name] == pytest.approx(alone.metrics[name], rel=1e-6)
    assert done.table.loc["whole", "growth"] == pytest.approx(alone.metrics["cagr"], rel=1e-6)


def test_a_ruined_subaccount_leaves_the_others_and_gets_nothing():
    fall = np.array([100.0, 100.0, 60.0, 60.0, 60.0, 60.0, 60.0])
    plan = bt.Subaccounts(
        {"bold": (Constant(5.0), 0.5), "a": (Constant(0.0), 0.3), "b": (Constant(0.0), 0.2)},
        rebalance="4h",
    )
    account = bt.Account(capital=1000.0, ruin_at=0.01)
    done = plan.run(market_of(fall), **TERMS | {"account": account})
    assert done.table.loc["bold", "ruin_days"] > 0.0
    assert math.isnan(done.table.loc["whole", "ruin_days"])
    assert done.table.loc["whole", "final_equity"] == pytest.approx(500.0, rel=1e-4)
    assert (done.transfers["bold"] == 0.0).all()


def test_subaccounts_trade_their_own_instruments_on_one_clock():
    markets = bt.Markets(
        {"AAA": market_of(np.array([100.0, 100.0, 110.0, 110.0])),
         "BBB": market_of(np.array([50.0, 50.0, 50.0, 100.0]))}, currency="USD",
    )  # fmt: skip
    plan = bt.Subaccounts(
        {"a": bt.Subaccount(Hold(1.0), 0.5, instrument="AAA"),
         "b": bt.Subaccount(Hold(1.0), 0.5, instrument="BBB", signal=-0.5)}, transfer="none",
    )  # fmt: skip
    done = plan.run(markets, **TERMS | {"venue": {"AAA": free_venue(), "BBB": free_venue()}})
    assert done.equity["a"].iloc[-1] == pytest.approx(550.0)
    assert done.equity["b"].iloc[-1] == pytest.approx(250.0)  # 5 coins short at 50, at 100


@pytest.mark.parametrize("margin", ["cross", pytest.param("isolated", marks=pytest.mark.slow)])
def test_a_subaccount_may_hold_several_positions(margin):
    """Transfers restore the shares, are the flows of each run, and add up to 0."""
    names = ("A", "B", "C")
    markets = bt.Markets(
        {name: bt.Market.sample(bars=24 * 6, seed=k) for k, name in enumerate(names)},
        currency="USD",
    )
    plan = bt.Subaccounts(
        {
            "pair": bt.Subaccount(
                {"A": Constant(2.0), "B": Constant(1.0)}, 0.5, instrument=("A", "B"),
                signal={"A": 0.5, "B": -0.5}, overlay=Constant(0.9),
            ),
            "all": (Constant(1.5), 0.3),
            "one": bt.Subaccount(Constant(1.0), 0.2, instrument="C"),
        },
        rebalance="36h",
    )  # fmt: skip
    account = bt.Account(capital=1000.0, margin=margin, venue_leverage=10.0, band=0.05)
    done = plan.run(markets, **TERMS | {"account": account})
    assert len(done.transfers) == 3
    assert done.transfers.sum(axis=1).tolist() == pytest.approx([0.0] * 3, abs=1e-9)
    for name, result in done.results.items():
        flows = result.bars["flows"]
        assert flows[flows != 0.0].tolist() == done.transfers[name].tolist()
    place = done.equity.index.get_loc(done.transfers.index[1])
    before, moved = done.equity.iloc[place - 1], done.transfers.iloc[1]
    shares = done.table["share"].drop("whole")
    assert (before[shares.index] + moved).tolist() == pytest.approx(
        (shares * before["whole"]).tolist()
    )
    assert list(done.results["pair"].names) == ["A", "B"]
    assert done.settings["pockets"]["all"]["instrument"] == list(names)
    assert "pair: 0.5 of" in done.summary()


@pytest.mark.parametrize(("make", "message"), [
    (lambda: bt.Subaccounts({}), "subaccounts must be a mapping with one or more"),
    (lambda: bt.Subaccounts({"a": (Constant(1.0), 0.5)}), "must add up to 1, got 0.5"),
    (lambda: bt.Subaccounts({"a": (Constant(1.0), math.nan)}), "share must be"),
    (lambda: bt.Subaccounts({"a": Constant(1.0)}), "must be a bt.Subaccount or"),
    (lambda: bt.Subaccounts({"a": (Constant, 1.0)}), "policy must be a Policy"),
    (lambda: pair(transfer="all"), "transfer must be"),
    (lambda: pair(rebalance="soon"), "soon"),
    (lambda: pair().run(market_of(np.full(9, 1.0)), venue=free_venue(),
                        account=bt.Account(flows=pd.Series(
                            [1.0], pd.DatetimeIndex(["2020-01-01 02:00"], tz="UTC")))),
     "flows must be left out"),
    (lambda: pair().run(market_of(np.full(9, 1.0)), venue=free_venue(), account=bt.Account(
        collateral=[bt.Collateral("X", 1.0, prices=1.0, rate=1.0)], negative_limit=0.0)),
     "collateral must be left out"),
    (lambda: bt.Subaccounts({"a": bt.Subaccount(Constant(1.0), 1.0, instrument=("A", "B"))}).run(
        bt.Markets({"A": market_of(np.full(9, 1.0))}, currency="USD"), **TERMS),
     "some of them, got 'B'"),
    (lambda: bt.Spending(0.0), "share must be"),
    (lambda: bt.Spending(0.1, least=2.0, most=1.0), "least must not be above most"),
])  # fmt: skip
def test_a_wrong_argument_is_one_clear_error(make, message):
    with pytest.raises(bt.ParameterError, match=message):
        make()


@pytest.mark.parametrize(("old", "new"), [("Allocation", "Subaccounts"), ("PanelPaths", "Paths")])
def test_a_former_public_name_warns(old, new):
    with pytest.warns(DeprecationWarning, match=rf"bt\.{old} is bt\.{new}"):
        assert getattr(bt, old) is getattr(bt, new)
