"""The first mistakes of every newcomer are refused with the lines to write."""

import warnings
from typing import Annotated

import numpy as np
import pytest

import backtest as bt
from backtest.policy.common_mistakes import explain_numba, write_declaration

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


def test_memory_of_a_local_object_is_no_assignment_to_self():
    class Local(bt.Policy):
        def leverage(self, bar, account):
            own = self
            return own.turns

        turns: Annotated[float, bt.Range(0, 5)] = 1.0

    assert Local().turns == 1.0


def test_a_column_that_is_not_there_is_told_with_those_that_are():
    market = bt.Market.sample(bars=60)
    with pytest.raises(bt.PolicyError, match="sigmaa") as caught:
        bt.run(market, Column(), venue=VENUE, account=bt.Account(), compile=False)
    assert "did you mean 'bar.sigma'?" in caught.value.cure
    assert "the columns of observe are sigma" in caught.value.cure
    assert "funding" in caught.value.cure


def test_a_sweep_tells_it_too():
    market = bt.Market.sample(bars=60)
    with pytest.raises(bt.PolicyError) as caught:
        bt.sweep(
            market, Column, {"target": [1.0, 2.0]}, venue=VENUE, account=bt.Account(), compile=False
        )
    assert "did you mean 'bar.sigma'?" in str(caught.value)


@pytest.mark.parametrize(("line", "said"), [
    ("Unknown attribute 'sigmaa' of type Bar(int64, float64, float64)", "bar has no 'sigmaa'"),
    ("Untyped global name 'open': Cannot determine Numba type of <class 'builtin'>",
     "open is not supported"),
    ("Unknown attribute 'quantile2' of type Module(<module 'numpy' from '/x/y.py'>)",
     "numpy.quantile2 is not supported"),
    ("Cannot unify float64 and unicode_type for 'x.2', defined at <input> (3)",
     "x is sometimes float64, sometimes unicode_type: give it one type"),
    ("No implementation of function Function(<function sum at 0x7f0>) found for signature:",
     "sum is not supported with these arguments"),
])  # fmt: skip
def test_what_numba_says_is_said_without_its_types(line, said):
    assert explain_numba(line) == said


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


@pytest.mark.parametrize("default", [24.0, -3.0, 0.0, 5000, -2])
def test_a_declaration_that_an_error_proposes_is_accepted(default):
    """A default of 24.0 was proposed in a range from 0 to 10, which is refused."""
    scope = {"bt": bt, "Annotated": Annotated}
    name, _, rest = write_declaration("n", default).partition(": ")
    hint, _, value = rest.rpartition(" = ")
    members = {"__annotations__": {name: eval(hint, scope)}, name: eval(value, scope)}
    members["leverage"] = lambda self, bar, account: 1.0
    assert type("Declared", (bt.Policy,), members)().settings() == {"n": default}


def test_an_observe_that_asks_for_a_missing_column_is_told_which_there_are():
    class Wanting(bt.Policy):
        """Reads a column that the bars do not have."""

        def observe(self, market):
            return {"vix": market.columns["vix"]}

        def leverage(self, bar, account):
            return bar.vix

    market = bt.Market.sample().prefix(200)
    market = market.with_columns(rate=np.ones(market.n_bars))
    with pytest.raises(bt.PolicyError, match="KeyError: 'vix'") as caught:
        bt.run(
            market,
            Wanting(),
            venue=bt.Venue.preset("binance-usdm", "BTCUSDT"),
            account=bt.Account(),
        )
    assert "columns of this market are rate" in caught.value.cure
