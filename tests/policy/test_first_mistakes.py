"""The first mistakes of every newcomer are refused with the lines to write."""

import warnings
from typing import Annotated

import numpy as np
import pytest

import backtest as bt

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")


class Column(bt.Policy):
    """Reads a column that is not there."""

    target: Annotated[float, bt.Range(0, 5)] = 1.0

    def observe(self, market):
        return {"sigma": np.ones(market.n_bars)}

    def leverage(self, bar, account):
        return self.target / bar.sigmaa


class NotSupported(bt.Policy):
    """Calls what numba does not know."""

    def leverage(self, bar, account):
        return float(len(sorted(vars(bt).keys()))) * 0.0


def test_a_policy_with_its_own_init_is_shown_its_fields():
    with pytest.raises(bt.PolicyError, match="must not define __init__, Own does") as caught:

        class Own(bt.Policy):
            def __init__(self, window=24, scale=1.5, kind="up", both=True):
                self.window = window

            def leverage(self, bar, account):
                return 1.0

    lines = caught.value.cure.splitlines()[2:]
    assert [line.strip() for line in lines] == [
        "window: Annotated[int, bt.Range(1, 1000, 'bars')] = 24",
        "scale: Annotated[float, bt.Range(0.0, 15.0, 'unit')] = 1.5",
        "kind: Annotated[str, bt.Choice('up', 'other')] = 'up'",
        "both: bool = True",
    ]
    assert "__init__" in caught.value.where


def keep(self, bar, account):
    self.n = max(account.equity, 1.0)
    return 1.0


def count(self, bar, account):
    self.n += 1
    return 1.0


@pytest.mark.parametrize("formula", [keep, count])
def test_assigning_to_self_in_leverage_is_shown_its_memory(formula):
    with pytest.raises(bt.PolicyError, match=r"assigns self\.n") as caught:
        type("Keeps", (bt.Policy,), {"leverage": formula})
    lines = [line.strip() for line in caught.value.cure.splitlines()[1:]]
    assert lines[0] == "class Memory(NamedTuple): n: float"
    assert lines[1] == "def start(self): return Memory(n=0.0)"
    assert lines[2].endswith("(self, bar, account, memory): ...; return leverage, Memory(n=...)")


def test_a_column_that_is_not_there_is_told_with_those_that_are():
    market = bt.Market.sample(bars=60)
    with pytest.raises(bt.PolicyError, match="sigmaa") as caught:
        bt.run(market, Column(), venue=VENUE, account=bt.Account(), compile=False)
    assert "did you mean 'bar.sigma'?" in caught.value.cure
    assert "the columns of observe are sigma" in caught.value.cure
    assert "funding" in caught.value.cure


def test_the_warning_of_a_policy_that_does_not_compile_is_one_short_line():
    market = bt.Market.sample(bars=60)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bt.run(market, NotSupported(), venue=VENUE, account=bt.Account())
    told = [str(each.message) for each in caught if "plain Python" in str(each.message)]
    assert len(told) == 1
    assert "\n" not in told[0]
    assert "<" not in told[0]
    assert "test_first_mistakes.py, line " in told[0]
