"""Policies: parameters, formulas, memory, columns, and what they see."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import PolicyError, Range
from backtest.engine.manifest import hash_source
from backtest.strategies import SharpeScaling, VolTarget
from tests.kit import check_refused
from tests.policy.policies import MARKET, Mixed, Remembering, live


def test_a_policy_is_a_frozen_value():
    one, same, other = Mixed(), Mixed(target=1.0), Mixed(target=1.5)
    assert one == same != other
    assert hash(one) == hash(same)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        one.target = 2.0  # type: ignore[misc]


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


def one(self: Any, bar: Any, account: Any) -> float:
    return 1.0


def observing(observe: Callable[[bt.Market], Any], formula: Any = one) -> bt.Policy:
    """Return a policy that observes what a function makes of the market."""

    class Observing(bt.Policy):
        """Observe."""

        def observe(self, market: bt.Market) -> Any:
            return observe(market)

        leverage = formula

    return Observing()


def make(**body: Any) -> type[bt.Policy]:
    """Return a policy class of some content."""
    return type("Made", (bt.Policy,), body)


def declare(**hints: Any) -> type[bt.Policy]:
    """Return a policy class with parameters that have a default."""
    return make(leverage=one, __annotations__=hints, **dict.fromkeys(hints, 1.0))


def keep(self: Any, bar: Any, account: Any) -> float:
    self.n = max(account.equity, 1.0)
    return 1.0


def misspell(self: Any, bar: Any, account: Any) -> float:
    return 1.0 / bar.sigmaa


@pytest.mark.parametrize(("call", "words"), [
    (lambda: Mixed(0.5, 2, "low", True, 7), "takes 4 parameters (target, count, mode, is_on)"),
    (lambda: Mixed(targt=1.0), "Mixed has no parameter 'targt'; did you mean 'target'?"),
    (lambda: Mixed(target=2.5), "Mixed.target must be 0.1 to 2 turns, got 2.5"),
    (lambda: Mixed(count=2.5), "count must be a whole number, got 2.5"),
    (lambda: Mixed(mode="hihg"), "must be one of low, high, got 'hihg'; did you mean 'high'?"),
    (lambda: Mixed(is_on=1), "is_on must be True or False, got 1"),
    (lambda: Mixed.from_settings({"target": "0.5x"}), "target must be a number"),
    (lambda: Range(2.0, 1.0), "low <= high"),
    (lambda: Range(0.0, 1.0, log=True), "low > 0 on a log scale"),
    (declare(target=float), "Made.target has <class 'float'>; declare target: Annotated"),
    (declare(parts=Annotated[float, Range(0.0, 1.0)]), "must not be reserved"),
    (make(__annotations__={"leverage": Annotated[float, Range(0.0, 5.0)]}), "needs leverage"),
    (bt.Policy.parameters, "Policy is a base class"),
    (lambda: live(VolTarget), "policy must be a Policy"),
    (lambda: live(make()()), "a policy must define leverage, Made does not"),
    (lambda: make(__init__=lambda self, window: None), "must not define __init__"),
    (lambda: live(make(leverage=keep)()), "keep state in its memory"),
    (lambda: live(observing(lambda m: {"sigma": m.close}, misspell)), "did you mean 'sigma'?"),
    (lambda: live(observing(lambda m: {"a": m.close[1:]})), "must be 300 numbers, one per bar"),
    (lambda: live(observing(lambda m: {"close": m.close})), "an identifier other than time"),
    (lambda: live(observing(lambda m: m.close)), "Observing.observe must return columns"),
    (lambda: live(observing(lambda m: {"a": m.closed})), "observe raised AttributeError"),
    (lambda: live(observing(lambda m: {"a": np.append(m.close[1:], 1.0)})), "looks ahead"),
])  # fmt: skip
def test_bad_policies_are_refused(call: Callable[[], object], words: str):
    check_refused(call, words)


def test_an_error_of_a_formula_names_its_line_and_its_bar():
    with pytest.raises(PolicyError, match=r"Observing\.leverage raised AttributeError") as caught:
        live(observing(lambda m: {"sigma": m.close}, misspell))
    line = misspell.__code__.co_firstlineno + 1
    assert f"test_policy.py, line {line}; at the close of bar 0, 2023-01-01" in str(caught.value)


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


class Slow(bt.Policy):
    """Look ahead, and take one's time over it."""

    def observe(self, market: Any) -> Any:
        time.sleep(0.05)
        centered = pd.Series(market.close).rolling(25, center=True).mean().to_numpy()
        known = np.where(np.arange(market.n_bars) < 200, np.nan, centered)
        return {"next": known}

    def leverage(self, bar: Any, account: Any) -> float:
        return bar.next / bar.close


VIEWS: list[tuple[Any, Any]] = []


class Watching(bt.Policy):
    """Keep what is shown (in plain Python), and hold enough to be liquidated."""

    target: Annotated[float, Range(0.0, 100.0)] = 3.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return the target."""
        VIEWS.append((bar, account))
        return self.target


@pytest.mark.parametrize(("settings", "signal"), [
    ({}, 1.0),
    ({}, -1.0),
    ({"margin": "isolated", "venue_leverage": 40.0, "max_leverage": 35.0}, 1.0),
])  # fmt: skip
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


def test_a_memory_goes_on_where_a_run_is_resumed():
    first = live(Remembering(), market=MARKET.prefix(100))
    second = live(Remembering(), market=MARKET, resume=first)
    assert first.memory.tolist() == [100.0, MARKET.close[:100].max(), 0.0]
    assert second.memory.tolist() == [300.0, MARKET.close.max(), 0.0]
