"""Policies: what may be declared, what is refused, what compiles, and what they see."""

from __future__ import annotations

import dataclasses
import importlib
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import Choice, ParameterError, PolicyError, Range
from backtest.base.json_values import repr_plain
from backtest.engine.manifest import hash_source
from backtest.features import traded_returns
from backtest.strategies import Cppi, SharpeScaling, VolTarget
from tests.markets import market_of

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT", at="latest")
MARKET = bt.Market.sample(bars=300)
ROOT = Path(__file__).parents[2]


def live(policy: bt.Policy, **settings: Any) -> bt.Result:
    """Run on the sample, in plain Python unless told otherwise."""
    settings = {"account": bt.Account(), "compile": False, **settings}
    return bt.run(settings.pop("market", MARKET), policy, venue=VENUE, **settings)


def compiled(policy: bt.Policy, **settings: Any) -> bt.Result:
    """Run compiled, and check that plain Python gives the same bits."""
    result = live(policy, compile=True, **settings)
    plain = live(policy, **settings)
    assert result.manifest["compiled"] == "yes"
    assert np.array_equal(result.record, plain.record, equal_nan=True)
    assert np.array_equal(result.entries, plain.entries)
    assert np.array_equal(result.memory, plain.memory)
    return result


class Mixed(bt.Policy):
    """One parameter of each kind."""

    target: Annotated[float, Range(0.1, 2.0, "turns")] = 1.0
    count: Annotated[int, Range(1, 9)] = 3
    mode: Annotated[str, Choice("low", "high")] = "low"
    is_on: bool = True

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return a leverage that depends on all four."""
        scale = 2.0 if self.mode == "high" else 1.0
        return self.target * scale / self.count if self.is_on else 0.0


# ----- declared -----


def test_a_policy_is_a_frozen_value():
    one, same, other = Mixed(), Mixed(target=1.0), Mixed(target=1.5)
    assert one == same != other
    assert hash(one) == hash(same)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        one.target = 2.0  # type: ignore[misc]


def test_parameters_may_be_given_by_position():
    assert Mixed(0.5, 2) == Mixed(target=0.5, count=2)
    assert VolTarget(0.3) == VolTarget(target=0.3)


def test_parameters_may_not_be_given_twice_or_too_many():
    with pytest.raises(TypeError, match="multiple values for argument 'target'"):
        Mixed(0.5, target=0.5)  # type: ignore[misc]
    with pytest.raises(bt.ParameterError, match="takes 4 parameters, was given 5"):
        Mixed(0.5, 2, "low", True, 7)  # type: ignore[call-arg]


def test_a_policy_tells_its_parameters_title_and_summary():
    found = Mixed.parameters()
    assert list(found) == ["target", "count", "mode", "is_on"]
    assert found["target"] == ("target", float, Range(0.1, 2.0, "turns"), 1.0)
    assert found["is_on"].space is None
    assert Mixed.summary() == "One parameter of each kind."
    assert VolTarget.title() == "vol-target"
    assert SharpeScaling.title() == "sharpe-scaling"


def test_numbers_are_kept_as_their_declared_type():
    policy = Mixed(target=np.float32(0.5), count=np.int64(4), is_on=np.bool_(False))
    assert repr(policy) == "Mixed(target=0.5, count=4, mode='low', is_on=False)"
    assert [type(value) for value in policy.settings().values()] == [float, int, str, bool]
    assert repr(Mixed(target=1, count=2.0)) == "Mixed(target=1.0, count=2, mode='low', is_on=True)"


def test_settings_may_be_text():
    given = {"target": "0.5", "count": "4", "mode": "high", "is_on": "false"}
    assert Mixed.from_settings(given) == Mixed(0.5, 4, "high", False)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"targt": 1.0}, "Mixed has no parameter 'targt'; did you mean 'target'?"),
        ({"zzz": 1.0}, "Mixed has no parameter 'zzz'"),
        ({"target": 2.5}, "target must be 0.1 to 2 turns, was 2.5"),
        ({"target": 0.0}, "target must be 0.1 to 2 turns, was 0"),
        ({"target": np.float64(-1.0)}, "target must be 0.1 to 2 turns, was -1"),
        ({"count": np.int64(10)}, "count must be 1 to 9, was 10"),
        ({"target": math.nan}, "target must be a number, was nan"),
        ({"target": math.inf}, "target must be 0.1 to 2 turns, was inf"),
        ({"target": "0.5"}, "target must be a number, was '0.5'"),
        ({"target": None}, "target must be a number, was None"),
        ({"target": True}, "target must be a number, was True"),
        ({"target": np.array([0.5])}, "target must be a number, was array([0.5])"),
        ({"count": 2.5}, "count must be a whole number, was 2.5"),
        ({"count": 10}, "count must be 1 to 9, was 10"),
        ({"mode": "hihg"}, "mode must be one of low, high, was 'hihg'; did you mean 'high'?"),
        ({"mode": 1}, "mode must be one of low, high, was 1"),
        ({"is_on": 1}, "is_on must be True or False, was 1"),
        ({"is_on": "True"}, "is_on must be True or False, was 'True'"),
    ],
)
def test_wrong_parameters_are_refused_by_name(settings: dict[str, Any], problem: str):
    with pytest.raises(ParameterError, match=re.escape(problem)) as caught:
        Mixed(**settings)
    name, value = next(iter(settings.items()))
    assert caught.value.where == f"Mixed({name}={repr_plain(value)})"


def test_the_first_wrong_parameter_by_position_is_refused_too():
    with pytest.raises(ParameterError, match=r"target must be 0\.1 to 2 turns, was 7"):
        Mixed(7)


@pytest.mark.parametrize("text", ["x", "", "0.5x"])
def test_text_that_is_no_number_is_refused(text: str):
    with pytest.raises(ParameterError, match="target must be a number"):
        Mixed.from_settings({"target": text})


def test_settings_that_do_not_exist_are_refused():
    with pytest.raises(ParameterError, match="did you mean 'count'"):
        Mixed.from_settings({"cuont": "4"})


@pytest.mark.parametrize("value", [pd.Series([1.0, 2.0]), np.array(["low", "high"]), ["low"]])
def test_a_choice_refuses_what_is_not_text(value):
    """A table of dates in an experiment file becomes a series, which has no truth value."""
    with pytest.raises(ParameterError, match="mode must be one of low, high, was"):
        Choice("low", "high").check("mode", value, where="here")


def test_a_parameter_without_a_range_is_refused():
    class Bare(bt.Policy):
        target: float = 1.0

    with pytest.raises(ParameterError, match="a parameter needs a type and a range") as caught:
        Bare()
    assert caught.value.where == "class Bare"
    assert "declare target: Annotated[float, bt.Range(" in caught.value.cure


def test_a_parameter_of_another_type_is_refused():
    class Listed(bt.Policy):
        targets: Annotated[list, Range(0.0, 1.0)] = None  # type: ignore[type-arg,assignment]

    with pytest.raises(ParameterError, match="a parameter needs a type and a range, targets"):
        Listed()


def test_a_range_of_nothing_is_refused():
    with pytest.raises(ParameterError, match="low <= high"):
        Range(2.0, 1.0)
    with pytest.raises(ParameterError, match="low > 0 on a log scale"):
        Range(0.0, 1.0, log=True)


def test_parameters_are_inherited():
    class More(Mixed):
        extra: Annotated[float, Range(0.0, 1.0)] = 0.5

    assert list(More.parameters()) == ["target", "count", "mode", "is_on", "extra"]
    assert More(extra=0.25).settings()["extra"] == 0.25


def test_run_refuses_what_is_no_policy():
    with pytest.raises(ParameterError, match="policy must be a Policy") as caught:
        live(VolTarget)  # type: ignore[arg-type]
    assert "instance" in caught.value.cure
    with pytest.raises(ParameterError, match="policy must be a Policy"):
        live(1.0)  # type: ignore[arg-type]


def test_a_policy_without_leverage_says_so():
    class Undecided(bt.Policy):
        """Decides nothing."""

    with pytest.raises(PolicyError, match="a policy must define leverage, Undecided does not"):
        live(Undecided())


# ----- columns -----


def observing(observe: Callable[[bt.Market], Any]) -> bt.Policy:
    """Return a policy that observes what a function makes of the market."""

    class Observing(bt.Policy):
        """Observe."""

        def observe(self, market: bt.Market) -> Any:
            return observe(market)

        def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
            return 1.0

    return Observing()


@pytest.mark.parametrize(
    ("observe", "problem"),
    [
        (lambda m: {"a": m.close[1:]}, "column 'a' must be 300 numbers, one per bar, was an array"),
        (lambda m: {"a": np.ones((300, 2))}, "was an array of shape (300, 2)"),
        (lambda m: {"a": 1.0}, "was an array of shape (1,)"),
        (lambda m: {"a": ["x"] * 300}, "column 'a' must be 300 numbers, one per bar, was list"),
        (lambda m: {"a": None}, "column 'a' must be 300 numbers"),
        (lambda m: {"close": m.close}, "a column's name must be an identifier not in use"),
        (lambda m: {"a b": m.close}, "a column's name must be an identifier not in use"),
        (lambda m: {1: m.close}, "a column's name must be an identifier not in use, was 1"),
        (lambda m: {"_a": m.close}, "a column's name must be an identifier not in use"),
        (lambda m: m.close, "observe must return a dict of columns, returned ndarray"),
        (lambda m: None, "observe must return a dict of columns, returned NoneType"),
        (lambda m: {"a": m.closed}, "Observing.observe raised AttributeError"),
        (lambda m: {"a": m.columns["dvol"]}, "Observing.observe raised KeyError: 'dvol'"),
        (lambda m: {"a": np.append(m.close[1:], 1.0)}, "looks ahead: column 'a'"),
    ],
)
def test_columns_must_be_named_numbers_by_bar(observe: Callable[[bt.Market], Any], problem: str):
    with pytest.raises(PolicyError, match=re.escape(problem)) as caught:
        live(observing(observe))
    assert "Observing.observe" in caught.value.where or "test_policy.py" in caught.value.where


def test_columns_may_be_integers_booleans_and_lists():
    policy = observing(lambda m: {"a": m.close > 3e4, "b": list(range(m.n_bars)), "c": m.time})
    assert live(policy).metrics["mean_leverage"] > 0.9


# ----- what compiles -----


def bounded(value: float, high: float) -> float:
    """Return a value from 0 to high."""
    return not_negative(min(value, high))


def not_negative(value: float) -> float:
    """Return a value, at least 0."""
    return max(value, 0.0)


HIGH = 1.25


class Helped(bt.Policy):
    """Call helpers, which call helpers, and name a constant."""

    target: Annotated[float, Range(0.1, 4.0)] = 1.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return the target times the bar's range, bounded."""
        return bounded(self.target * 50.0 * math.log(bar.high / bar.low), HIGH)


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
def test_helpers_compile_with_the_policy():
    target = compiled(Helped()).bars["target"].to_numpy()
    expected = np.minimum(50.0 * np.log(MARKET.high / MARKET.low), HIGH)
    np.testing.assert_allclose(target, expected, rtol=1e-12)
    assert 1 < (target == HIGH).sum() < 299


@pytest.mark.slow
def test_a_policy_made_in_a_function_compiles_with_the_values_around_it():
    """Two classes of one name and one text, told apart by what their closures hold."""
    one, two = compiled(make_closure(1.0)), compiled(make_closure(2.0))
    np.testing.assert_array_equal(two.bars["target"], 2.0 * one.bars["target"])
    np.testing.assert_allclose(one.bars["target"], MARKET.low / MARKET.high, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.compiled
def test_choices_flags_and_whole_numbers_compile():
    for policy, expected in ((Mixed(), 1 / 3), (Mixed(1.0, 4, "high"), 0.5), (Mixed(2.0, 1), 2.0)):
        assert (compiled(policy).bars["target"] == expected).all()
    assert (compiled(Mixed(is_on=False)).bars["target"] == 0.0).all()


class Seen(NamedTuple):
    """What the policy below remembers."""

    bars: float
    highest: float


class Remembering(bt.Policy):
    """Count the bars, and keep the highest close."""

    def start(self) -> Seen:
        """Return nothing seen."""
        return Seen(0.0, 0.0)

    def leverage(self, bar: bt.Bar, account: bt.AccountView, memory: Seen) -> tuple[float, Seen]:
        """Return the close over the highest, and more memories."""
        highest = max(memory.highest, bar.close)
        return bar.close / highest, Seen(memory.bars + 1.0, highest)


@pytest.mark.compiled
def test_a_memory_compiles_and_holds_every_bar():
    result = compiled(Remembering())
    assert result.memory == (300.0, MARKET.close.max())
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


@pytest.mark.slow
def test_all_margin_functions_compile_with_their_defaults():
    class Margins(bt.Policy):
        """Sum what the functions of margin return."""

        def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
            most = bt.margin.largest_notional(account.venue, account.equity)
            less = bt.margin.largest_notional(account.venue, account.equity, 3.0)
            needed = bt.margin.maintenance(account.venue, most)
            broke = bt.margin.bankruptcy_price(account.venue, 1.0, bar.close, account.equity)
            return (less + needed) / most + broke / bar.close

    result = compiled(Margins(), market=MARKET.prefix(20))
    equity, close = result.bars["equity"].to_numpy(), MARKET.close[:20]
    most = np.array([bt.margin.largest_notional(VENUE, e) for e in equity])
    expected = (3.0 * equity + bt.margin.maintenance(VENUE, most)) / most
    expected += bt.margin.bankruptcy_price(VENUE, 1.0, close, equity) / close
    np.testing.assert_allclose(result.bars["target"], expected, rtol=1e-12)


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
    assert any(f"test_policy.py, line {line + k}: " in text for k in range(4))
    assert result.manifest["compiled"] in text
    np.testing.assert_array_equal(result.record, live(Tabled()).record)
    assert set(result.bars["target"]) == {1.0, 2.0}


# ----- what a policy sees -----

VIEWS: list[tuple[Any, Any]] = []


class Watching(bt.Policy):
    """Keep what is shown (in plain Python), and hold enough to be liquidated."""

    target: Annotated[float, Range(0.0, 100.0)] = 3.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return the target."""
        VIEWS.append((bar, account))
        return self.target


@pytest.mark.parametrize(
    ("settings", "signal"),
    [
        ({}, 1.0),
        ({}, -1.0),
        ({"margin": "isolated", "venue_leverage": 40.0, "max_leverage": 35.0}, 1.0),
    ],
)
def test_the_account_a_policy_sees_is_the_one_in_the_result(settings: dict, signal: float):
    VIEWS.clear()
    policy = Watching(30.0 if settings else 3.0)
    account = bt.Account(**settings)
    bars = live(policy, account=account, signal=signal).bars
    views = [view for _, view in VIEWS]
    assert len(views) == len(bars) == 300
    for name in ("equity", "position", "leverage", "margin_ratio", "liquidation_price", "entry"):
        seen = np.array([getattr(view, name) for view in views])
        np.testing.assert_allclose(seen, bars[name], rtol=1e-9, atol=1e-12, err_msg=name)
    seen = np.array([view.maintenance for view in views])
    np.testing.assert_allclose(seen, bars["maintenance"], rtol=1e-9, atol=1e-12)
    peak = bars["equity"].cummax()
    np.testing.assert_allclose([view.peak_equity for view in views], peak, rtol=1e-9)
    drawdown = [view.drawdown for view in views]
    np.testing.assert_allclose(drawdown, bars["drawdown"], rtol=1e-9, atol=1e-12)
    days = np.arange(1, 301) / 24.0
    np.testing.assert_allclose([view.days for view in views], days, rtol=1e-12)
    if settings:
        assert min(view.bars_since_liquidation for view in views) < 300
    else:
        assert {view.bars_since_liquidation for view in views} == {math.inf}


def test_the_bar_a_policy_sees_is_the_one_that_closed():
    VIEWS.clear()
    live(Watching())
    bars = [bar for bar, _ in VIEWS]
    for name in ("open", "high", "low", "close", "volume", "time"):
        assert [getattr(bar, name) for bar in bars] == list(getattr(MARKET, name))
    assert [bar.mark for bar in bars] == list(MARKET.mark_close)
    last = [MARKET.funding_rate[MARKET.funding_time <= stamp][-1] for stamp in MARKET.time]
    assert [bar.funding for bar in bars] == last


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
        assert "close of bar 9, 2023-01-01 09:00" in caught.value.where


def test_a_memory_goes_on_where_a_run_is_resumed():
    first = live(Remembering(), market=MARKET.prefix(100))
    second = live(Remembering(), market=MARKET, resume=first)
    assert first.memory == (100.0, MARKET.close[:100].max())
    assert second.memory == (300.0, MARKET.close.max())


@pytest.mark.slow
@pytest.mark.compiled
def test_a_policy_of_ours_with_a_memory_compiles_to_the_same_bits():
    compiled(Cppi(multiplier=5.0, floor=0.8, growth=0.1, ratchet=0.5))


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
        assert compiled.record.tobytes() == plain.record.tobytes()
        assert compiled.bars["target"].iloc[3] == level


def test_the_policys_code_names_the_experiment():
    """Two policies of one name and different code are different experiments."""
    made = []
    for level in (1.0, 2.0):
        scope = {"bt": bt}
        text = f"class Same(bt.Policy):\n def leverage(self, bar, account):\n  return {level}\n"
        exec(text, scope)
        rules = {"venue": VENUE, "account": bt.Account(), "compile": False}
        made.append(bt.run(MARKET, scope["Same"](), **rules).manifest["id"])
    assert made[0] != made[1]


def test_a_leverage_without_a_default_must_be_given():
    class Bare(bt.Policy):
        """Hold a number."""

        leverage: Annotated[float, Range(0.0, 5.0, "turns")]  # type: ignore[assignment]

    with pytest.raises(ParameterError, match="needs leverage"):
        Bare()
    rules = {"venue": VENUE, "account": bt.Account(), "compile": False}
    assert bt.run(MARKET, Bare(leverage=2.0), **rules).bars["target"].iloc[3] == 2.0


def make_scaled(
    scale: float = 2.0, half: float = 0.5, low: float = 0.1, high: float = 9.0
) -> type[bt.Policy]:
    """Return a policy of one name with a constant, a property, a class and a static method."""

    class Scaled(bt.Policy):
        SCALE = scale
        EDGES = (scale, "both")
        size: Annotated[float, Range(0.0, 9.0)] = 1.0

        @property
        def half(self):
            return half

        @classmethod
        def low(cls):
            return low

        @staticmethod
        def high():
            return high

        def observe(self, market):
            x = np.clip(self.SCALE * self.half, self.low(), self.high())
            return {"x": np.full(market.n_bars, x)}

        def leverage(self, bar, account):
            return bar.x

    return Scaled


def test_constants_properties_class_and_static_methods_are_part_of_a_policys_source():
    changes = ({}, {"scale": 3.0}, {"half": 0.25}, {"low": 0.2}, {"high": 8.0})
    hashes = [hash_source(make_scaled(**each)) for each in changes]
    assert hash_source(make_scaled()) == hashes[0]
    assert len({*hashes}) == len(changes)


# ----- the signal, as policies see it -----


class Seeing(bt.Policy):
    """Hold as much as was earned in the direction traded."""

    def observe(self, market: Any) -> Any:
        return {"signal": market.signal, "earned": traded_returns(market)}

    def leverage(self, bar: Any, account: Any) -> float:
        return 1.0 + 10.0 * abs(bar.earned)


def flips(n: int) -> np.ndarray:
    return np.where(np.arange(n) // 7 % 2 == 0, 1.0, -0.5)


def test_a_policy_sees_the_direction_it_trades_in():
    """Up 10 % held long, then up 10 % held half short, then down 1/11 held short."""
    market = market_of(np.array([100.0, 110.0, 121.0, 110.0])).with_signal(
        np.array([1.0, -0.5, -1.0, 0.0])
    )
    np.testing.assert_allclose(traded_returns(market)[1:], [0.1, -0.05, 1.0 / 11.0], rtol=1e-12)
    assert (market_of(np.array([100.0, 110.0])).signal == 1.0).all()
    assert market.prefix(2).signal.tolist() == [1.0, -0.5]
    assert market.content_hash == market.prefix(4).content_hash


@pytest.mark.parametrize("has_market", [True, False])
def test_a_resumed_run_sees_the_signal_of_the_earlier_one(has_market: bool):
    market = bt.Market.sample(bars=200)
    signal = pd.Series(flips(200), index=market.index)
    terms: Any = {"venue": VENUE, "account": bt.Account(), "compile": False}
    whole = bt.run(market, Seeing(), signal=signal, **terms)
    first = bt.run(market.prefix(120), Seeing(), signal=signal[:120], **terms)
    later, rest = market, signal
    if has_market:
        later, rest = market.between(market.index[120]), signal[120:]
    else:
        first = dataclasses.replace(first, market=None)
    after = bt.run(later, Seeing(), signal=rest, resume=first, **terms)
    assert after.bars["target"].equals(whole.bars["target"].iloc[120:])


@pytest.mark.slow
def test_a_sweep_sees_the_signal_of_a_run():
    market = bt.Market.sample(bars=300)
    terms: Any = {"venue": VENUE, "account": bt.Account(), "signal": flips(300)}
    table = bt.sweep(market, Seeing, {"account.band": [0.0, 0.1]}, **terms).table
    alone = bt.run(market, Seeing(), **terms)
    assert table["final_equity"][0] == alone.metrics["final_equity"]


REMEMBERING = """
from typing import NamedTuple
import backtest as bt

class Kept(NamedTuple):
    value: float

class Remembering(bt.Policy):
    def start(self):
        return Kept(1.0)

    def leverage(self, bar, account, memory):
        return memory.value, Kept(memory.value)
"""


@pytest.mark.slow
def test_what_is_compiled_of_a_file_is_not_taken_for_the_same_text_elsewhere(tmp_path):
    """Compiled code refers to the class of a memory by its module, which another process lacks."""
    script = (
        "import sys, importlib, warnings; warnings.simplefilter('error')\n"
        f"sys.path[:0] = [{str(tmp_path)!r}]\n"
        "import backtest as bt\n"
        "policy = importlib.import_module(sys.argv[1]).Remembering()\n"
        "market, venue = bt.Market.sample(bars=50), bt.Venue.preset('binance-usdm', 'BTCUSDT')\n"
        "bt.run(market, policy, venue=venue, account=bt.Account())\n"
    )
    for name in ("one", "other", "one"):
        (tmp_path / "one.py").unlink(missing_ok=True)
        (tmp_path / f"{name}.py").write_text(REMEMBERING)
        done = subprocess.run(
            [sys.executable, "-c", script, name],
            check=False, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert not done.stderr


class Slow(bt.Policy):
    """Look ahead, and take one's time over it."""

    def observe(self, market: Any) -> Any:
        time.sleep(0.05)
        centered = pd.Series(market.close).rolling(25, center=True).mean().to_numpy()
        known = np.where(np.arange(market.n_bars) < 200, np.nan, centered)
        return {"next": known}

    def leverage(self, bar: Any, account: Any) -> float:
        return bar.next / bar.close


def test_a_slow_policy_is_caught_looking_ahead_too():
    """Whether it was depended on the clock: on how long its columns took."""
    with pytest.raises(PolicyError, match="looks ahead"):
        live(Slow())
