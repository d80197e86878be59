"""An account under a requirement of one's own, and under a preset by its name."""

from __future__ import annotations

import pytest

import backtest as bt
from backtest.strategies import Constant

VENUE = bt.Venue.simple(
    taker=5e-4, slippage=1e-4, maintenance_rate=0.05, max_leverage=10, liquidation_fee=0.01
)


class Flat:
    """What one bracket of 5 % and 10x asks for, as a Python object."""

    def requirement(self, positions, prices):
        return 0.05 * sum(abs(quantity) * prices[name] for name, quantity in positions.items())

    def initial(self, positions, prices):
        return 2.0 * self.requirement(positions, prices)


def run(requirement, leverage):
    markets = bt.Markets(
        {name: bt.Market.sample(bars=150, seed=k) for k, name in enumerate(("A", "B"), 1)}
    )
    account = bt.Account(capital=10_000, requirement=requirement)
    return bt.run(markets, Constant(leverage=leverage), venue=VENUE, account=account, compile=False)


@pytest.mark.parametrize("leverage", [4.0, 9.8])
def test_a_rule_of_ones_own_lives_as_the_brackets_that_it_copies(leverage):
    own, same = run(Flat(), leverage), run(bt.Brackets(), leverage)
    assert own.metrics["final_equity"] == pytest.approx(same.metrics["final_equity"], rel=1e-9)
    assert own.metrics["liquidations"] == same.metrics["liquidations"]
    assert own.manifest["compiled"] == "the requirement is a Python object"
    assert own.manifest["account"]["requirement"] == {"level": 1.0, "own": "Flat"}


def test_a_preset_is_resolved_for_the_instruments_of_the_run():
    found = run("okx-portfolio", 3.0)
    assert set(found.manifest["account"]["requirement"]["moves"]) == {"A", "B"}


def test_an_account_reads_the_name_of_a_preset():
    account = bt.Account.from_dict({"requirement": "binance-portfolio"})
    assert account.requirement == bt.PresetMargin(preset="binance-portfolio")
    assert bt.Account.from_dict(account.to_dict()) == account
    with pytest.raises(bt.BacktestError, match="there are no margin rules 'none'"):
        bt.Account(requirement="none")
    with pytest.raises(bt.ParameterError, match="must have the methods"):
        bt.Account(requirement=5)
