"""Bad options and rules of options: one clear error each."""

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
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name):
    make, expected = BAD[name]
    with pytest.raises(BacktestError) as caught:
        make()
    text = str(caught.value)
    assert expected in text
    assert "cure:" in text
