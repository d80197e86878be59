"""Combinations of policies that are written as text, and what cannot be combined."""

from typing import Any

import pytest

import backtest as bt
from backtest import ParameterError, PolicyError
from backtest.cli.find_policy import read_policy
from backtest.strategies import Capped, Constant, Cppi, Lowest, VolTarget
from tests.policy.test_combine import DEEP, INF, live


class Shadowing(bt.Combinator):
    """Take the name of a column of the policy for one of its own."""

    def observe(self, market: Any) -> Any:
        return {"vol_target__sigma": market.close}

    def combine(self, bar: Any, account: Any, asked: Any) -> float:
        return asked[0]


@pytest.mark.parametrize(("make", "text"), [
    (Capped, "must be given 1 policy, got 0"),
    (Lowest, "must be given at least 1 policy"),
    (lambda: Capped(VolTarget(), -1.0), "cap must be 0 to inf"),
    (lambda: Capped(VolTarget(), 1.0, cap=2.0), "cap was given twice"),
    (lambda: Capped.over(VolTarget).over(Cppi), "has its policies already"),
    (lambda: Capped(VolTarget), "must be instances and come before"),
    (lambda: Capped(1.0, VolTarget()), "must be instances and come before"),
    (lambda: Capped(VolTarget(), 1.0, 2.0), "takes policies, then cap; also got"),
    (lambda: live(Shadowing(VolTarget())), "two are called vol_target__sigma"),
])  # fmt: skip
def test_what_cannot_be_combined_is_refused(make: Any, text: str):
    with pytest.raises((ParameterError, PolicyError), match=text):
        make()


@pytest.mark.parametrize(("text", "policy"), [
    ("Capped(VolTarget(target=0.6), cap=3)", Capped(VolTarget(0.6), 3.0)),
    ("Capped(Cppi, inf)", Capped(Cppi(), INF)),
    (repr(Capped(DEEP, INF)), Capped(DEEP, INF)),
    (" Lowest( VolTarget(.5),Constant(2) ) ", Lowest(VolTarget(0.5), Constant(2.0))),
])  # fmt: skip
def test_a_combination_can_be_written_at_the_command_line(text: str, policy: bt.Policy):
    assert read_policy(text, {}) == policy


@pytest.mark.parametrize("text", [
    "Capped(VolTarget(), cap=__import__('os').getpid())",
    "Capped(**{})",
    "(lambda: 1)()",
    "float('inf')",
    "VolTarget(target=0.5, target=0.6)",
])  # fmt: skip
def test_any_other_text_is_refused_and_never_run(text: str):
    with pytest.raises(ParameterError, match="a policy must be"):
        read_policy(text, {})
