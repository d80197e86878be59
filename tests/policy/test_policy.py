"""A policy is a frozen value: its parameters, its columns and its source."""

import dataclasses
import inspect
import math
import re
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import Choice, ParameterError, PolicyError, Range
from backtest.base.json_values import repr_plain
from backtest.engine.manifest import hash_source
from backtest.strategies import SharpeScaling, VolTarget
from tests.policy.policies import MARKET, VENUE, Mixed, live


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
    with pytest.raises(bt.ParameterError, match="takes 4 parameters, got 5"):
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


@pytest.mark.parametrize(("settings", "problem"), [
    ({"targt": 1.0}, "Mixed has no parameter 'targt'; did you mean 'target'?"),
    ({"target": 2.5}, "target must be 0.1 to 2 turns, got 2.5"),
    ({"count": np.int64(10)}, "count must be 1 to 9, got 10"),
    ({"target": math.nan}, "target must be a number, got nan"),
    ({"count": 2.5}, "count must be a whole number, got 2.5"),
    ({"mode": "hihg"}, "mode must be one of low, high, got 'hihg'; did you mean 'high'?"),
    ({"is_on": 1}, "is_on must be True or False, got 1"),
])  # fmt: skip
def test_wrong_parameters_are_refused_by_name(settings: dict[str, Any], problem: str):
    with pytest.raises(ParameterError, match=re.escape(problem)) as caught:
        Mixed(**settings)
    name, value = next(iter(settings.items()))
    assert caught.value.where == f"Mixed({name}={repr_plain(value)})"


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
    with pytest.raises(ParameterError, match="mode must be one of low, high, got"):
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
    assert "add ()" in str(caught.value)
    with pytest.raises(ParameterError, match="policy must be a Policy"):
        live(1.0)  # type: ignore[arg-type]


def test_a_policy_without_leverage_says_so():
    class Undecided(bt.Policy):
        """Decides nothing."""

    with pytest.raises(PolicyError, match="a policy must define leverage, Undecided does not"):
        live(Undecided())


def observing(observe: Callable[[bt.Market], Any]) -> bt.Policy:
    """Return a policy that observes what a function makes of the market."""

    class Observing(bt.Policy):
        """Observe."""

        def observe(self, market: bt.Market) -> Any:
            return observe(market)

        def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
            return 1.0

    return Observing()


@pytest.mark.parametrize(("observe", "problem"), [
    (lambda m: {"a": m.close[1:]}, "column 'a' must be 300 numbers, one per bar, got an array"),
    (lambda m: {"close": m.close}, "a column's name must be an identifier not in use"),
    (lambda m: m.close, "observe must return a dict of columns, returned ndarray"),
    (lambda m: {"a": m.closed}, "Observing.observe raised AttributeError"),
    (lambda m: {"a": np.append(m.close[1:], 1.0)}, "looks ahead: column 'a'"),
])  # fmt: skip
def test_columns_must_be_named_numbers_by_bar(observe: Callable[[bt.Market], Any], problem: str):
    with pytest.raises(PolicyError, match=re.escape(problem)) as caught:
        live(observing(observe))
    assert "Observing" in str(caught.value)


def test_columns_may_be_integers_booleans_and_lists():
    policy = observing(lambda m: {"a": m.close > 3e4, "b": list(range(m.n_bars)), "c": m.time})
    assert live(policy).metrics["mean_leverage"] > 0.9


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


def make_steady(estimate):
    """Return a policy that calls an estimator."""

    class Steady(bt.Policy):
        def observe(self, market):
            return {"sigma": estimate(market, 72)}

        def leverage(self, bar, account):
            return 0.3 / bar.sigma

    return Steady


def test_how_arguments_are_checked_is_not_part_of_a_source():
    """A stored source stays when the check of arguments in front of an estimator changes."""
    checked = bt.features.ewma_volatility
    plain = inspect.unwrap(checked)
    assert plain is not checked
    assert hash_source(make_steady(checked)) == hash_source(make_steady(plain))
    assert hash_source(make_steady(bt.features.parkinson_volatility)) != hash_source(
        make_steady(plain)
    )


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
