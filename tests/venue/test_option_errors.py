"""Bad options and rules of options: one clear error each."""

import math

import pytest

import backtest as bt
from backtest.base.errors import BacktestError
from tests.option_books import hold

CASH = {"kind": "put", "strike": 50_000.0, "expiry": "2026-01-31", "underlying": "BTC"}


def ask(rule="reg-t", options=None, **given):
    return bt.margin.requirement(
        {}, {}, {}, rule, options=hold(-1.0) if options is None else options, **given
    )


SCENARIOS = bt.ScenarioMargin(moves=[-0.1, 0.1])
BAD = {
    "another kind than the name": (
        lambda: bt.Option("BTC-26JUN26-60000-P", kind="call"),
        "what the name says",
    ),
    "American": (lambda: bt.Option("BTC-26JUN26-60000-P", style="american"), "style must be"),
    "expired": (
        lambda: bt.OptionPosition(bt.Option(**CASH), 1.0, 60_000.0, "2026-02-01", 0.5),
        "after the expiry",
    ),
    "neither volatility nor mark": (
        lambda: bt.OptionPosition(bt.Option(**CASH), 1.0, 60_000.0, "2026-01-01"),
        "a volatility or a mark",
    ),
    "an infinite quantity": (lambda: hold(math.inf), "quantity must be"),
    "brackets": (
        lambda: ask(bt.Brackets()),
        "options need portfolio margin, bt.Standard or bt.Strategy",
    ),
    "a preset without figures": (lambda: ask("okx-portfolio"), "figures for options on nothing"),
    "no volatility": (lambda: ask(SCENARIOS, hold(-1.0, mark=10.0)), "needs the volatility"),
    "coins and cash": (
        lambda: ask(SCENARIOS, [hold(1.0), hold(1.0, settlement="coin")]),
        "settle in one currency",
    ),
    "two indices": (
        lambda: ask(options=[hold(1.0), hold(1.0, index=61_000.0)]),
        "must have one index",
    ),
    "a least over the initial": (
        lambda: bt.Standard(initial=0.15, least=0.05, maintenance=0.075),
        "least must be at least",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name):
    make, expected = BAD[name]
    with pytest.raises(BacktestError) as caught:
        make()
    text = str(caught.value)
    assert expected in text
    assert "cure:" in text
