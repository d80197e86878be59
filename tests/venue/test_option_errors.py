"""Bad options and rules of options: one clear error each."""

import math

import pytest

import backtest as bt
from backtest.base.errors import BacktestError
from tests.option_books import FREE, hold

CASH = {"kind": "put", "strike": 50_000.0, "expiry": "2026-01-31", "underlying": "BTC"}


def ask(rule="reg-t", options=None, **given):
    return bt.margin.requirement(
        {}, {}, {}, rule, options=hold(-1.0) if options is None else options, **given
    )


SCENARIOS = bt.ScenarioMargin(moves=[-0.1, 0.1])
BAD = {
    "no name": (bt.Option, "needs a name as Deribit's, or kind, strike, expiry, underlying"),
    "a day that is none": (lambda: bt.Option("BTC-32JUN26-60000-P"), "must have a day such as"),
    "another kind than the name": (
        lambda: bt.Option("BTC-26JUN26-60000-P", kind="call"),
        "what the name says",
    ),
    "American": (lambda: bt.Option("BTC-26JUN26-60000-P", style="american"), "style must be"),
    "a strike of 0": (lambda: bt.Option(**CASH | {"strike": 0.0}), "strike must be"),
    "a NaN strike": (lambda: bt.Option(**CASH | {"strike": math.nan}), "strike must be"),
    "an unknown settlement": (lambda: bt.Option(**CASH, settlement="gold"), "settlement must be"),
    "a size of 0": (lambda: bt.Option(**CASH, size=0.0), "size must be"),
    "an expiry that is no time": (
        lambda: bt.Option(**CASH | {"expiry": "soon"}),
        "a time must be readable",
    ),
    "expired": (
        lambda: bt.OptionPosition(bt.Option(**CASH), 1.0, 60_000.0, "2026-02-01", 0.5),
        "after the expiry",
    ),
    "neither volatility nor mark": (
        lambda: bt.OptionPosition(bt.Option(**CASH), 1.0, 60_000.0, "2026-01-01"),
        "a volatility or a mark",
    ),
    "a negative volatility": (lambda: hold(1.0, volatility=-0.1), "volatility must be"),
    "a negative mark": (lambda: hold(1.0, mark=-0.1), "mark must be"),
    "an index of 0": (lambda: hold(1.0, index=0.0), "index must be"),
    "an infinite quantity": (lambda: hold(math.inf), "quantity must be"),
    "no option": (
        lambda: bt.OptionPosition(7, 1.0, 60_000.0, "2026-01-01", 0.5),
        "an Option or a name",
    ),
    "options as a name": (
        lambda: ask(options="BTC-26JUN26-60000-P"),
        "an OptionPosition or a list",
    ),
    "brackets": (
        lambda: ask(bt.Brackets()),
        "options need portfolio margin, bt.Standard or bt.Strategy",
    ),
    "a rule of one's own": (lambda: ask(Own()), "options need portfolio margin"),
    "a preset without figures": (lambda: ask("okx-portfolio"), "figures for options on nothing"),
    "an asset without figures": (
        lambda: ask("derive", hold_sol()),
        "figures for options on BTC, ETH, got 'SOL'",
    ),
    "no volatility": (lambda: ask(SCENARIOS, hold(-1.0, mark=10.0)), "needs the volatility"),
    "a fall to 0": (lambda: ask(bt.ScenarioMargin(moves=[-1.0])), "must be over -1"),
    "coins and cash": (
        lambda: ask(SCENARIOS, [hold(1.0), hold(1.0, settlement="coin")]),
        "settle in one currency",
    ),
    "coins under strategies": (
        lambda: ask("reg-t", hold(-1.0, settlement="coin")),
        "settled in cash",
    ),
    "coins beside linear contracts": (
        lambda: bt.margin.requirement(
            FREE, {"A": 1.0}, {"A": 1.0}, SCENARIOS, options=hold(1.0, settlement="coin")
        ),
        "in coins beside a linear contract, A",
    ),
    "two indices": (
        lambda: ask(options=[hold(1.0), hold(1.0, index=61_000.0)]),
        "must have one index",
    ),
    "a deposit without options": (
        lambda: bt.margin.strategy_deposit({}, {}, {}, options=[]),
        "got no options",
    ),
    "a deposit of portfolio margin": (
        lambda: bt.margin.strategy_deposit({}, {}, {}, SCENARIOS, options=hold(-1.0)),
        "under a bt.Strategy",
    ),
    "a least over the initial": (
        lambda: bt.Standard(initial=0.15, least=0.05, maintenance=0.075),
        "least must be at least",
    ),
    "one power": (lambda: bt.OptionShocks(power=(0.3,)), "power must be 2 numbers"),
    "a falling charge": (
        lambda: bt.OptionShocks(short_charge=(0.01, 0.0)),
        "initial charge must be at least",
    ),
    "a move of a whole": (
        lambda: bt.OptionShocks(expiry_charge=(1.5, 0.5, 2.0)),
        "between 0 and 1",
    ),
    "a grid of one number": (lambda: bt.margin.scenario_grid(0.1), "moves must be a list"),
    "a volatility under 0": (
        lambda: bt.ScenarioMargin(moves=[(0.1, 1.0, -2.0)]),
        "must be at least -1",
    ),
}


class Own:
    """A rule of one's own."""

    def requirement(self, positions, prices):
        return 1.0

    initial = requirement


def hold_sol():
    option = bt.Option("SOL_USDC-26JUN26-200-P")
    return bt.OptionPosition(option, -1.0, 180.0, "2026-01-01", 0.9)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name):
    make, expected = BAD[name]
    with pytest.raises(BacktestError) as caught:
        make()
    text = str(caught.value)
    assert expected in text
    assert "cure:" in text


def test_the_bad_inputs_are_fifteen_or_more():
    assert len(BAD) >= 15
