"""An account under a requirement of one's own, and under a preset by its name."""

import pytest

import backtest as bt
from backtest.strategies import Constant
from tests.scenes import market_of

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


@pytest.mark.slow
@pytest.mark.parametrize("leverage", [4.0])
def test_a_rule_of_ones_own_lives_as_the_brackets_that_it_copies(leverage):
    own, same = run(Flat(), leverage), run(bt.Brackets(), leverage)
    assert own.metrics["final_equity"] == pytest.approx(same.metrics["final_equity"], rel=1e-9)
    assert own.metrics["liquidations"] == same.metrics["liquidations"]
    assert own.manifest["compiled"] == "the requirement is a Python object"
    assert own.manifest["account"]["requirement"] == {"level": 1.0, "own": "Flat"}


def test_it_is_liquidated_at_the_same_place():
    """A falls by a quarter in one bar while B rises a little: both close on the way."""
    markets = bt.Markets(
        {
            "A": market_of(100.0, 100.0, (100.0, 101.0, 75.0, 76.0), 76.0),
            "B": market_of(50.0, 50.0, (50.0, 51.0, 49.5, 51.0), 51.0),
        }
    )
    found = [
        bt.run(
            markets,
            Constant(leverage=8.0),
            venue=VENUE,
            account=bt.Account(capital=10_000, requirement=rule),
            compile=False,
        ).metrics
        for rule in (Flat(), bt.Brackets())
    ]
    assert found[0]["liquidations"] == found[1]["liquidations"] == 1
    assert 0 < found[0]["final_equity"] < 10_000
    assert found[0]["final_equity"] == pytest.approx(found[1]["final_equity"], rel=1e-9)


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
