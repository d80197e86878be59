"""One compiled formula serves all values of what it does not read."""

import pytest

from backtest.policy import formula_for
from backtest.policy.formula_reads import may_read_of_account
from backtest.strategies.vol_target import VolTarget

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
