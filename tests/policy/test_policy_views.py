"""What a policy sees of the account, the bar, the signal and its own memory."""

import math
from typing import Annotated, Any

import numpy as np
import pytest

import backtest as bt
from backtest import Range
from tests.policy.policies import MARKET, Remembering, live

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
