"""Policies in compiled code, and formulas whose powers, exp and log are those of bt.math."""

import dataclasses
import importlib
import math
import sys
import types
from typing import Annotated, Any

import numpy as np
import pytest

import backtest as bt
from backtest import PolicyError
from backtest.policy import formula_for
from backtest.policy.formulas import may_read_of_account, rewrite_formula
from backtest.strategies.vol_target import VolTarget
from tests.policy.policies import MARKET, VENUE, Remembering, live


def compiled(policy: bt.Policy, **settings: Any) -> bt.Result:
    """Run compiled, and check that plain Python gives the same bits."""
    result = live(policy, compile=True, **settings)
    plain = live(policy, **settings)
    assert result.manifest["compiled"] == "yes"
    assert np.array_equal(result.record.values, plain.record.values, equal_nan=True)
    assert np.array_equal(result.entries, plain.entries)
    assert np.array_equal(result.memory, plain.memory)
    return result


HIGH = 1.25


def make_closure(scale: float) -> bt.Policy:
    """Return a policy of a class made here, whose formula names a local value and function."""

    def scaled(value: float) -> float:
        return scale * value

    class Closed(bt.Policy):
        """Name what stands around the class."""

        def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
            return scale * bar.low / bar.high

    class Called(bt.Policy):
        """Call what stands around the class."""

        def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
            return scaled(bar.low / bar.high)

    return Closed() if scale < 10.0 else Called()


@pytest.mark.slow
def test_a_policy_made_in_a_function_compiles_with_the_values_around_it():
    """Two classes of one name and one text, told apart by what their closures hold."""
    one, two = compiled(make_closure(1.0)), compiled(make_closure(2.0))
    np.testing.assert_array_equal(two.bars["target"], 2.0 * one.bars["target"])
    np.testing.assert_allclose(one.bars["target"], MARKET.low / MARKET.high, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.compiled
def test_a_memory_compiles_and_holds_every_bar():
    result = compiled(Remembering())
    assert result.memory.tolist() == [300.0, MARKET.close.max(), 0.0]
    expected = MARKET.close / np.maximum.accumulate(MARKET.close)
    np.testing.assert_array_equal(result.bars["target"], expected)


class NearLiquidation(bt.Policy):
    """Hold more the nearer the liquidation price, by the account and by the formula."""

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return 1 plus the liquidation price over the close, as the mean of both ways to it."""
        if account.position == 0.0:
            return 2.0
        price = bt.margin.liquidation_price(
            account.venue, account.position, account.entry, account.wallet
        )
        return 1.0 + 0.5 * (price + account.liquidation_price) / bar.close


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize("signal", [1.0, -0.3])
def test_margin_functions_give_the_same_inside_compiled_code_as_outside(signal: float):
    bars = compiled(NearLiquidation(), signal=signal).bars
    held = bars[bars["position"] != 0.0]
    assert len(held) > 250
    np.testing.assert_allclose(
        held["target"], 1.0 + held["liquidation_price"] / held["close"], rtol=1e-9
    )
    wallet = held["cash"] + held["position"] * held["entry"]
    columns = (held["position"], held["entry"], wallet)
    outside = bt.margin.liquidation_price(VENUE, *(column.to_numpy() for column in columns))
    np.testing.assert_allclose(outside, held["liquidation_price"], rtol=1e-9)


class Tabled(bt.Policy):
    """Look words up, which numba cannot."""

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return 2 in rising bars."""
        table = {"rising": 2.0, "falling": 1.0}
        return table["rising" if bar.close > bar.open else "falling"]


@pytest.mark.slow
def test_what_does_not_compile_runs_in_plain_python_with_one_warning():
    with pytest.warns(UserWarning, match="Tabled runs in plain Python") as caught:
        result = live(Tabled(), compile=True)
    assert len(caught) == 1
    text = str(caught[0].message)
    line = Tabled.leverage.__code__.co_firstlineno
    assert any(f"test_compiled_policies.py, line {line + k}: " in text for k in range(4))
    assert result.manifest["compiled"] in text
    np.testing.assert_array_equal(result.record.values, live(Tabled()).record.values)
    assert set(result.bars["target"]) == {1.0, 2.0}


@pytest.mark.slow
@pytest.mark.compiled
def test_a_negative_leverage_is_placed_whether_compiled_or_not():
    class Falling(bt.Policy):
        """Fall below zero in the tenth hour."""

        def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
            return 10.0 - account.days * 24.0 - 0.5

    for is_compiled in (False, True):
        with pytest.raises(PolicyError, match=r"Falling returned -0\.5") as caught:
            live(Falling(), compile=is_compiled)
        assert "close of bar 9, 2023-01-01 09:00" in str(caught.value)


def write_module(folder, monkeypatch, name, text):
    """Write a module of the user's and import it anew."""
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return importlib.import_module(name)


BY_MODULE = """
from typing import NamedTuple
import backtest as bt
import levels_of_a_test

class Kept(NamedTuple):
    {slots}

class ByModule(bt.Policy):
    "Hold what another module says."
    def start(self):
        return Kept(a=1.0, b=3.0)
    def leverage(self, bar, account, memory):
        return levels_of_a_test.LEVEL * memory.a, (memory[0], memory[1])
"""


@pytest.mark.slow
def test_compiled_code_follows_a_changed_module_and_changed_memory(tmp_path, monkeypatch):
    """What a policy refers to through a module, and the order of its memory, are its code too."""
    market, venue, account = MARKET, VENUE, bt.Account()
    for level, slots in (
        (1.0, "a: float; b: float"),
        (2.0, "a: float; b: float"),
        (2.0, "b: float; a: float"),
    ):
        write_module(tmp_path, monkeypatch, "levels_of_a_test", f"LEVEL = {level}\n")
        text = BY_MODULE.format(slots=slots)
        policy = write_module(tmp_path, monkeypatch, "policy_of_a_test", text).ByModule()
        rules = {"venue": venue, "account": account}
        compiled = bt.run(market, policy, **rules)
        plain = bt.run(market, policy, **rules, compile=False)
        assert compiled.record.values.tobytes() == plain.record.values.tobytes()
        assert compiled.bars["target"].iloc[3] == level


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
