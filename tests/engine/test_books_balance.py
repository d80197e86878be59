"""Balances that do not balance stop a run, with both sides of the difference."""

import pytest

import backtest as bt
from backtest.account.records import EQUITY
from backtest.engine import driver, loop
from tests.kit import Hold, flat, make_market, make_venue
from tests.scenes import play


def test_a_log_that_fills_up_is_enlarged_with_the_same_events(monkeypatch):
    """Room for one event, and 20 of them."""
    prices, targets = [100.0 + k % 3 for k in range(20)], [1.0 + k % 2 for k in range(20)]
    events = play(*prices, targets=targets).entries
    monkeypatch.setattr(driver, "LOGGED", -79)
    assert len(events) >= 10
    assert play(*prices, targets=targets).entries.tolist() == events.tolist()


def test_a_run_stops_at_the_bar_whose_terms_miss_a_change_of_equity(monkeypatch):
    """5,000 in each of two: prices rise by 10 % and 5 %, and 2 appear from nowhere."""
    live = loop.live_bar

    def live_with_gift(bar, t):
        live(bar, t)
        if t == 1:
            bar.state.wallet[EQUITY] += 2.0

    monkeypatch.setattr(loop, "live_bar", live_with_gift)
    up = {"A": (100.0, 110.0, 100.0, 110.0), "B": (100.0, 105.0, 100.0, 105.0)}
    markets = bt.Markets({name: make_market([flat(100.0), last]) for name, last in up.items()})
    with pytest.raises(bt.AccountingError) as raised:
        bt.run(
            markets, Hold(), venue=make_venue(), account=bt.Account(capital=10_000.0), compile=False
        )
    assert str(raised.value).startswith(
        "equity changed by 752.0 in bar 1, 2024-01-01 01:00 UTC, its terms add up to 750.0, "
        "a difference of 2.0; ledger [["
    )
