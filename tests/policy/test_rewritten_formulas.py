"""Formulas whose powers, exp and log are replaced by those of ``bt.math``."""

import dataclasses
import math
import types
from typing import Annotated, Any

import numpy as np
import pytest

import backtest as bt
from backtest.policy import formula_for
from backtest.policy.formula_reads import may_read_of_account
from backtest.policy.formula_rewriter import rewrite_formula
from backtest.strategies.vol_target import VolTarget
from tests.policy.policies import MARKET, VENUE, live


def steepen(value: float, power: float = 1.7) -> float:
    """Return a power of a value."""
    return value**power


class Curved(bt.Policy):
    """Use every function that is replaced, here and in a helper."""

    power: Annotated[float, bt.Range(0.1, 5.0)] = 1.3

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return a sum of powers of the ratio of close and open."""
        ratio = bar.close / bar.open
        total = ratio**self.power + steepen(ratio)
        total **= 0.7
        total += math.exp(-ratio) + np.exp(-ratio) - math.log(ratio) + np.log(ratio)
        return 0.1 * total + 0.01 * pow(math.pow(ratio, 3.3), 0.3) + 0.01 * np.power(2.0, ratio)


def by_hand(ratio: float, power: float) -> float:
    """Return the formula of Curved with the functions of ``bt.math``."""
    f = bt.math
    total = f.power(f.power(ratio, power) + f.power(ratio, 1.7), 0.7)
    total += f.exp(-ratio) + f.exp(-ratio) - f.log(ratio) + f.log(ratio)
    first = 0.1 * total + 0.01 * f.power(f.power(ratio, 3.3), 0.3)
    return first + 0.01 * f.power(2.0, ratio)


def test_plain_python_uses_our_functions():
    targets = live(Curved()).bars["target"].to_numpy()
    ratios = (MARKET.close / MARKET.open).tolist()
    assert targets.tolist() == [by_hand(ratio, 1.3) for ratio in ratios]


@pytest.mark.slow
@pytest.mark.compiled
def test_compiled_code_and_lanes_have_the_bits_of_plain_python():
    plain, compiled = live(Curved()), live(Curved(), compile=True)
    assert compiled.manifest["compiled"] == "yes"
    assert np.array_equal(plain.record.values, compiled.record.values, equal_nan=True)
    venue, account = VENUE, bt.Account()
    powers = np.linspace(0.5, 3.0, 70)
    swept = bt.sweep(MARKET, Curved, {"power": powers}, venue=venue, account=account)
    for k in (0, 33, 69):
        policy = Curved(power=float(powers[k]))
        result = bt.run(MARKET, policy, venue=venue, account=account, compile=False)
        assert swept.table["final_equity"].iloc[k] == result.metrics["final_equity"]


def careful_log(value: float) -> float:
    """Return -1 where there is no logarithm."""
    try:
        return math.log(value)
    except ValueError:
        return -1.0


def test_a_formula_that_catches_exceptions_stays():
    assert rewrite_formula(careful_log)(-2.0) == -1.0


def test_looking_a_function_up_runs_nothing(monkeypatch):
    def refuse(*given: object) -> None:
        raise ImportError(given)

    lazy: Any = types.ModuleType("lazy")
    lazy.__getattr__ = refuse
    model: Any = dataclasses.make_dataclass("Model", [], namespace={"__call__": lambda self: 2.0})()
    monkeypatch.setitem(globals(), "LAZY", lazy)
    monkeypatch.setitem(globals(), "MODEL", model)

    def rule(value: float) -> float:
        return LAZY.load(value) if value > 9.0 else value**2.0 * MODEL()  # type: ignore[name-defined]  # noqa: F821

    assert rewrite_formula(rule)(3.0) == 18.0  # a dataclass with __call__ has no hash


ROOT_NAMES = frozenset({"liquidation_price"})


def read_it(account):
    return account.liquidation_price


def ask_it(policy, bar, account):
    return account.liquidation_price / bar.close


def ask_another(policy, bar, account):
    return read_it(account)


def ask_by_name(policy, bar, account):
    return getattr(account, "liquidation_" + "price")


def ask_by_place(policy, bar, account):
    return account[10]


def ask_equity(policy, bar, account):
    return account.equity / bar.close


@pytest.mark.parametrize("rule", [ask_it, ask_another, ask_by_name, ask_by_place])
def test_a_formula_that_may_ask_for_the_liquidation_price_is_told(rule):
    assert may_read_of_account(rule, ROOT_NAMES)


def test_the_liquidation_price_is_left_out_where_it_cannot_be_read():
    assert not may_read_of_account(ask_equity, ROOT_NAMES)
    assert not may_read_of_account(formula_for(VolTarget(), ("sigma",)), ROOT_NAMES)
