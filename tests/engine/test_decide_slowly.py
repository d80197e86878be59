"""Policies that decide on longer bars than those that the account lives."""

from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.core import BacktestError
from backtest.market import find_clock
from tests.kit import ask_test, check_refused, free_venue

HOUR = 3_600_000_000_000
FOUR = 4 * HOUR
BEGIN = pd.Timestamp("2023-01-01 04:00").timestamp()
"""The open of the first whole bar of four hours; the market begins at 02:00."""
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
ACCOUNT = bt.Account(capital=10_000.0)
FINE = (
    "max_drawdown", "peak_leverage", "peak_margin_ratio", "near_liquidation_share", "liquidations",
)  # fmt: skip
"""Measures of every bar of the market."""
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SEEN: list[Any] = []


class Reading(bt.Policy):
    target: Annotated[float, bt.Range(0, 50, "turns")] = 3.0

    def leverage(self, bar, account):
        size = self.target * min(account.equity / 10_000.0, 1.0)
        return size * (1.0 + 0.1 * account.margin_ratio)


class Waiting(Reading):
    """The same on the bars of the account, NaN between the closes of four hours."""

    def leverage(self, bar, account):
        if (bar.time + 3600.0) % 14_400.0 != 0.0 or bar.time < BEGIN:
            return np.nan
        return super().leverage(bar, account)


class Telling(bt.Policy):
    target: Annotated[float, bt.Range(0, 50, "turns")] = 3.0

    def observe(self, market):
        return {"top": market.high, "side": market.signal}

    def leverage(self, bar, account):
        SEEN.append((bar, account))
        return self.target


def run(market: Any, policy: Any, account: bt.Account = ACCOUNT, **terms: Any) -> bt.Result:
    settings = {"venue": VENUE, "compile": False, **terms}
    return bt.run(market, policy, account=account, **settings)


def check_same(one: bt.Result, other: bt.Result) -> None:
    """Compare bars and events; the signal of longer bars is another column."""
    bars = one.bars.drop(columns="signal", errors="ignore")
    expected = other.bars.drop(columns="signal", errors="ignore")
    pd.testing.assert_frame_equal(bars, expected)
    pd.testing.assert_frame_equal(one.events, other.events)


@pytest.fixture(scope="module")
def market() -> bt.Market:
    return bt.Market.sample(bars=400).slice(2, 399)


def test_an_interval_of_decisions_that_is_that_of_the_bars_changes_nothing(market):
    """``decision_interval`` equal to the bar's interval is no clock of its own."""
    plain = run(market, Telling(), ACCOUNT)
    hourly = run(market, Telling(), ACCOUNT, decision_interval="1h")

    check_same(plain, hourly)
    assert plain.manifest["id"] == hourly.manifest["id"]


@pytest.mark.parametrize("account", [
    ACCOUNT, replace(ACCOUNT, fill="next_close"), replace(ACCOUNT, fill="same_close"),
    replace(ACCOUNT, stop_loss=0.01, max_holding="9h"),
    replace(ACCOUNT, fill="limit", offset=1e-3),
    replace(ACCOUNT, margin="isolated", venue_leverage=40.0),
    replace(ACCOUNT, reserve=500.0, margin_call=0.06, top_up_to=0.05),
])  # fmt: skip
def test_holding_between_longer_closes_gives_the_same_account(market, account):
    """A policy without columns or counters that waits for the longer closes is the same."""
    slow = run(market, Reading(12.0), account, decision_interval="4h")
    waiting = run(market, Waiting(12.0), account)

    assert slow.metrics["turnover"] > 0.0
    check_same(slow, waiting)
    for name in FINE:
        assert slow.metrics[name] == waiting.metrics[name], name


def test_policies_see_the_longer_bars_alone(market):
    """Bars, columns, signal, days and the highest equity are those of the longer closes."""
    SEEN.clear()
    coarse = market.resample("4h")
    signal = pd.Series(np.linspace(-1.0, 1.0, 98), index=coarse.times)
    result = run(market, Telling(), ACCOUNT, decision_interval="4h", signal=signal)
    bars = [bar for bar, _ in SEEN]
    views = [view for _, view in SEEN]
    assert len(SEEN) == coarse.n_bars == 98

    for name in ("open", "high", "low", "close", "volume"):
        assert [getattr(bar, name) for bar in bars] == getattr(coarse, name).tolist()
    assert [bar.time for bar in bars] == (coarse.time / 1e9).tolist()
    assert [bar.top for bar in bars] == coarse.high.tolist()
    assert [bar.side for bar in bars] == signal.tolist()

    # The view of the account is that of the closes at which four hours end.
    ends = np.flatnonzero((market.time + HOUR) % FOUR == 0)[-98:]
    hourly = result.bars["equity"].to_numpy()
    equity = hourly[ends]
    peaks = np.maximum.accumulate(np.maximum(equity, 10_000.0))
    falls = 1 - equity / peaks
    days = (market.time[ends] + HOUR - market.time[0]) / 86_400e9
    assert [view.equity for view in views] == equity.tolist()
    np.testing.assert_allclose([view.peak_equity for view in views], peaks, rtol=1e-12)
    np.testing.assert_allclose([view.drawdown for view in views], falls, atol=1e-12)
    np.testing.assert_allclose([view.days for view in views], days)

    # The measure of the run counts all closes.
    hourly_falls = 1 - hourly / np.maximum.accumulate(hourly)
    assert result.metrics["max_drawdown"] >= hourly_falls.max() - 1e-12


def list_times(result, kind):
    """Return the times of events of a kind in ns."""
    times = result.events.query("kind == @kind")["time"]
    return pd.DatetimeIndex(times).as_unit("ns").asi8


def test_bars_since_an_event_count_longer_closes(market):
    """After a stop nothing is decided before the next longer close, which counts 0 bars."""
    SEEN.clear()
    result = run(market, Telling(), replace(ACCOUNT, stop_loss=0.004), decision_interval="4h")
    stops = list_times(result, "stop")
    assert len(stops) > 5

    for bar, view in SEEN:
        opened = int(bar.time) * 1_000_000_000
        passed = stops[stops < opened + FOUR]
        bars_since = np.inf
        if len(passed):
            bar_of_stop = passed[-1] // FOUR * FOUR
            bars_since = (opened - bar_of_stop) // FOUR
        assert view.bars_since_stop == bars_since

    fills = list_times(result, "fill")
    assert not np.any(fills % FOUR)


def test_several_instruments_decide_on_one_longer_clock():
    """One that is listed inside a longer bar waits for the close of its first whole one."""
    late = bt.Market.sample(bars=200, seed=1).slice(3, 150)
    markets = bt.Markets({"A": bt.Market.sample(bars=200), "B": late})
    terms = {"decision_interval": "4h", "venue": {"A": VENUE, "B": VENUE}}
    result = run(markets, Reading(), **terms)

    fills = result.events.query("kind == 'fill'")
    assert set(pd.DatetimeIndex(fills["time"]).hour % 4) == {0}
    first = fills.query("instrument == 'B'")["time"].iloc[0]
    assert first == late.times[5]  # the open at 08:00, after the bar of 04:00 to 08:00

    with_overlay = run(markets, Reading(), overlay=Telling(1.0), **terms)
    assert with_overlay.metrics["turnover"] > 0.0


def test_a_longer_bar_without_its_last_bars_is_decided_at_the_next_open():
    """Gaps: the next open at or after its end fills, and a thin bar is counted."""
    bars = bt.Market.sample(bars=60).bars()
    with_gaps = bars.drop(bars.index[[10, 11, 22, 23]])
    market = bt.Market.from_frames(with_gaps, interval="1h", sessions=True)
    assert find_clock(bt.decide_every(market, "4h")).rows.tolist()[8:12] == [-3, 2, -4, -4]

    result = run(market, Reading(), decision_interval="4h", calendar="252")
    assert result.manifest["data"]["decision_interval"] == "4h"
    assert result.manifest["data"]["thin_bars"] == 2


def test_columns_that_look_ahead_are_refused_on_longer_bars(market):
    """The check for lookahead works on the longer bars."""

    class Peeking(Telling):
        def observe(self, market):
            return {"top": np.append(market.high[1:], np.nan), "side": market.signal}

    check_refused(lambda: run(market, Peeking(), decision_interval="4h"), "look", BacktestError)


def test_participation_is_a_share_of_the_last_longer_bar(market):
    """The cap is the volume of the bar that the policy saw."""
    thin = bt.Market(**{**market.fields(), "volume": np.full(market.n_bars, 0.01)}, source="")
    venue = replace(free_venue(), slippage=bt.Slippage(rate=0.0, max_participation=0.5))
    result = run(thin, Reading(), ACCOUNT, venue=venue, decision_interval="4h")

    fills = result.events.query("kind == 'fill'")["quantity"].abs()
    assert fills.iloc[0] == pytest.approx(0.5 * 0.04)


def test_decisions_of_a_live_account_wait_for_the_longer_close(market):
    """Between two longer closes nothing is decided, and a warning says so."""
    at_close = market.prefix(398 // 4 * 4 - 2)
    between = market.prefix(200)
    snapshot = bt.AccountSnapshot(equity=10_000.0)
    terms = {"venue": VENUE, "account": ACCOUNT, "state": snapshot, "decision_interval": "4h"}

    decision = ask_test("decide", at_close, Reading(), **terms)
    assert list(decision.leverage.values()) == [3.0]

    waiting = ask_test("decide", between, Reading(), **terms)
    assert np.isnan([*waiting.leverage.values()]).all()
    assert "every 4h" in str(waiting.warnings)


@pytest.mark.parametrize(("interval", "words"), [
    ("90m", "multiple"),
    ("30m", "finer bars"),
    ("0h", "duration"),
    ("60d", "whole group"),
])  # fmt: skip
def test_an_interval_of_decisions_that_cannot_be_is_refused(market, interval, words):
    check_refused(lambda: run(market, Reading(), decision_interval=interval), words)


def test_bad_input_is_refused(market):
    slow = bt.decide_every(market, "4h")
    check_refused(lambda: run(slow, Reading(), decision_interval="8h"), "every 4h already")
    check_refused(lambda: bt.Markets({"A": slow, "B": market}), "one clock")
    check_refused(lambda: bt.decide_every(7, "4h"), "must be a Market")

    terms = {"decision_interval": "4h", "signal": np.ones(market.n_bars)}
    check_refused(lambda: run(market, Reading(), **terms), "per bar")


@pytest.mark.slow
def test_searches_and_validations_take_the_clock():
    """``tune``, the validations and comparisons decide on the longer bars."""
    market = bt.Market.sample(bars=1200).slice(2, 1199)
    terms: dict[str, Any] = {"venue": VENUE, "account": ACCOUNT, "decision_interval": "4h"}
    search = {**terms, "trials": 8, "space": {"target": (0.5, 1.9)}}
    policy = bt.strategies.VolTarget

    study = ask_test("tune", market, policy, holdout="20%", **search)
    best = bt.run(market, study.best_policy, **terms)
    assert best.manifest["data"]["decision_interval"] == "4h"

    walk = ask_test("walk_forward", market, policy, train="20d", test="10d", **search)
    fills = walk.result.events.query("kind == 'fill'")
    assert set(fills["time"].dt.hour % 4) == {0}

    assert ask_test("cross_validate", market, policy, groups=4, **search) is not None
