"""A market keeps the columns of the last policy of the package, and their check."""

import numpy as np
import pytest

import backtest as bt
from backtest.engine import lookahead
from backtest.strategies import VolTarget


class Own(VolTarget):
    """A policy of the user, which may compute from more than the market."""


@pytest.fixture
def looked(monkeypatch):
    """Return the policies that were checked."""
    found, check = [], lookahead.check_causality

    def note(policy, *given, **more):
        found.append(policy)
        return check(policy, *given, **more)

    monkeypatch.setattr(lookahead, "check_causality", note)
    return found


def look(policy, market):
    columns, found = lookahead.observe_checked(policy, market)
    return columns["sigma"], found


def test_an_equal_policy_of_the_package_is_not_observed_again(looked):
    market = bt.Market.sample(bars=300)
    sigma, found = look(VolTarget(), market)
    again = look(VolTarget(), market.with_signal(market.signal))
    assert len(looked) == 1
    assert again[0] is sigma
    assert again[1] == found


def test_other_parameters_signals_and_own_policies_are(looked):
    market = bt.Market.sample(bars=300)
    signal = np.where(np.arange(300) < 100, 1.0, -1.0)
    for policy, seen in (
        (VolTarget(), market),
        (VolTarget(half_life=30.0), market),
        (VolTarget(), market),
        (VolTarget(), market.with_signal(np.array([-1.0]))),
        *[(VolTarget(), market.with_signal(signal))] * 2,
        *[(Own(), market)] * 2,
        (VolTarget(), market.prefix(200)),
    ):
        look(policy, seen)
    assert len(looked) == 9


class Turning(dict):
    """The facts of a market in which another thread replaces columns as soon as they are read."""

    def get(self, name, default=None):
        found = super().get(name, default)
        if name == lookahead.OBSERVED:
            self[name] = ("another policy",), {"sigma": None}, None
        return found


def test_columns_that_another_thread_replaces_are_not_those_of_this_policy(looked):
    market = bt.Market.sample(bars=300)
    sigma, _ = look(VolTarget(), market)
    vars(market)["facts"] = Turning(vars(market)["facts"])
    assert look(VolTarget(), market)[0] is sigma
    assert len(looked) == 1
