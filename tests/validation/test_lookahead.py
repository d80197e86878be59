"""A policy that looks ahead is refused before anything is run, whoever runs it, compiled or not."""

from typing import Annotated, Any

import numpy as np
import pytest

import backtest as bt
from backtest.sweep.set_evaluator import Evaluator
from tests.kit import ask_test, risk_of
from tests.validation.worlds import ACCOUNT, VENUE, make_market

pytestmark = [
    pytest.mark.peeks,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # short spans
]
MARKET = make_market(210)  # 840 bars of 6 h
PANEL = bt.Markets({"A": MARKET, "B": make_market(210, seed=3)})
TERMS: dict[str, Any] = {"venue": VENUE, "account": ACCOUNT}
SPACE = {"window": (1, 48), "depth": (1, 48)}
SEARCH: dict[str, Any] = {"space": SPACE, "trials": 8}
LEAN = {**SEARCH, "robust": False}


def next_rises(market: bt.Market) -> np.ndarray:
    """Return 1 where the next close is higher."""
    close = market.close
    return (np.append(close[1:], close[-1]) > close).astype(float)


class Peeking(bt.Policy):
    window: Annotated[int, bt.Range(1, 48)] = 12
    depth: Annotated[int, bt.Range(1, 48)] = 12

    def observe(self, market):
        return {"up": next_rises(market) if self.looks() else np.ones(market.n_bars)}

    def looks(self):
        return True

    def leverage(self, bar, account):
        return bar.up


class PeekingFar(Peeking):
    def looks(self):
        return self.window > 40 and self.depth > 40


def risk(policy: type[bt.Policy], **given: Any) -> Any:
    paths = bt.simulate_paths(MARKET, "gbm", paths=20, horizon="5d")
    return risk_of(paths, policy(), **TERMS, **given)


WINGS = {
    "sweep": lambda policy, **given: ask_test("sweep", MARKET, policy, SPACE, **TERMS, **given),
    "sweep of several": lambda policy, **given: ask_test(
        "sweep", PANEL, policy, SPACE, **TERMS, **given
    ),
    "tune": lambda policy, **given: ask_test("tune", MARKET, policy, **TERMS, **LEAN, **given),
    "walk": lambda policy, **given: ask_test(
        "walk_forward", MARKET, policy, **TERMS, **LEAN, train="90d", test="60d", **given
    ),
    "cross-validation": lambda policy, **given: ask_test(
        "cross_validate", MARKET, policy, **TERMS, **SEARCH, groups=4, **given
    ),
}
"""Calls that try many sets."""
SINGLES = {
    "risk on paths": risk,
    "sensitivity": lambda policy, **given: ask_test(
        "sensitivity", MARKET, policy(), **TERMS, **given
    ),
    "max_leverage": lambda policy, **given: ask_test(
        "max_leverage",
        MARKET,
        policy(),
        **TERMS,
        models=("gbm",),
        paths=2000,
        horizon="2d",
        **given,
    ),
    "run to be stressed": lambda policy, **given: bt.stress(
        bt.run(MARKET, policy(), **TERMS, **given)
    ),
}
"""Calls with one set."""


@pytest.fixture(autouse=True)
def _nothing_begins(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("sets were evaluated before the check")

    monkeypatch.setattr(Evaluator, "evaluate", refuse)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("policy", [Peeking, PeekingFar])
@pytest.mark.parametrize("name", WINGS)
def test_a_search_is_refused_before_it_begins(name, policy, compiled):
    with pytest.raises(bt.PolicyError, match=f"{policy.__name__} looks ahead: column 'up' is"):
        WINGS[name](policy, compile=compiled)


@pytest.mark.parametrize("name", SINGLES)
def test_a_single_policy_is_refused(name):
    with pytest.raises(bt.PolicyError, match=r"looks ahead: column '(peek.*__)?up' is"):
        SINGLES[name](Peeking, compile=False)
