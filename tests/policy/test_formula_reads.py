"""One compiled formula serves all values of what it does not read."""

from typing import Annotated

import pytest

import backtest as bt
from backtest.policy import formula_for
from backtest.policy.formula_reads import find_unread, may_read_of_account
from backtest.strategies.average import Average
from backtest.strategies.capped import Capped
from backtest.strategies.constant import Constant
from backtest.strategies.vol_target import VolTarget

ROOT_NAMES = frozenset({"liquidation_price"})


class Switch(bt.Policy):
    """A policy whose formula reads a word."""

    how: Annotated[str, bt.Choice("a", "b")] = "a"

    def leverage(self, bar, account):
        return 1.0 if self.how == "a" else 2.0


class HandsOn(bt.Policy):
    """A policy whose formula hands itself on: what is read of it cannot be told here."""

    how: Annotated[str, bt.Choice("a", "b")] = "a"

    def leverage(self, bar, account):
        mine = self
        return 1.0 if mine is not None else 2.0


class ByName(bt.Policy):
    how: Annotated[str, bt.Choice("a", "b")] = "a"

    def leverage(self, bar, account):
        return 1.0 if getattr(self, "how") == "a" else 2.0  # noqa: B009


@pytest.mark.parametrize(("policy", "unread"), [
    (VolTarget(), {"half_life", "estimator"}),
    (Switch(), set()),
    (HandsOn(), set()),
    (ByName(), set()),
    (Constant(), set()),
    (Capped(VolTarget(), cap=3.0), {"vol_target_half_life", "vol_target_estimator"}),
    (Average(VolTarget(), Switch()), {"vol_target_half_life", "vol_target_estimator"}),
], ids=lambda each: type(each).__name__)  # fmt: skip
def test_what_a_formula_does_not_read_is_told_from_its_code(policy, unread):
    assert find_unread(policy) == unread


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
