"""Policies that decide the leverage setting of an isolated position, by hand: margin that moves."""

import math
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.policy.policy import sets_margin
from backtest.strategies import Average, Capped, Constant, LiquidationDistance
from tests.kit import check_refused

BRACKETS = [bt.Bracket(0.0, 1e4, 20.0, 0.01), bt.Bracket(1e4, 1e9, 10.0, 0.02)]
START, HOUR = pd.Timestamp("2024-01-01", tz="UTC"), pd.Timedelta("1h")
SAFE = [100.0, 100.0, 101.0, 102.0, 101.0, 100.0]


class Steps(bt.Policy):
    """Buy at the first close and keep it; the settings are those of a column."""

    size: Annotated[float, bt.Range(0.1, 20.0)] = 2.0

    def observe(self, market):
        return {"setting": market.columns["setting"]}

    def leverage(self, bar, account):
        return self.size if account.days < 0.05 else math.nan

    def venue_leverage(self, bar, account):
        return bar.setting


def make_market(closes=SAFE, settings=(math.nan, 5.0, math.nan, 10.0, math.nan, math.nan), **more):
    """Hours at these closes, each opening at the close before; the decision of each close."""
    close = np.array(closes, dtype=float)
    start = np.concatenate([close[:1], close[:-1]])
    index = START + HOUR * np.arange(len(close))
    high, low = np.maximum(start, close), np.minimum(start, close)
    bars = {"open": start, "high": high, "low": low, "close": close, "volume": 1.0}
    frame = pd.DataFrame({**bars, "setting": list(settings)}, index=index)
    return bt.Market.from_frames(frame, mark=frame[["open", "high", "low", "close"]], **more)


def make_venue(**terms):
    return bt.Venue(
        contract=bt.Contract(kind="linear", size=1.0),
        brackets=BRACKETS,
        fees=bt.Fees(taker=0.0, maker=0.0),
        slippage=bt.Slippage(rate=0.0),
        liquidation=bt.Liquidation(mode="close", fee=0.0, slippage=0.0),
        **terms,
    )


def live(market, policy=None, **terms):
    account = {"capital": 1000.0, "margin": "isolated", "venue_leverage": 10.0, **terms}
    return bt.run(
        market, policy or Steps(), venue=make_venue(), account=bt.Account(**account), compile=False
    )


def happened(result, kind):
    """Times (in bars) and amounts of the events of a kind."""
    events = result.events[result.events["kind"] == kind]
    hours = (events["time"] - START) // HOUR
    return list(zip(hours, events["amount"].round(9), strict=True))


def test_from_10x_to_5x_and_back_the_liquidation_price_is_that_of_the_venue():
    """20 at 100: 200 of margin, 400 from bar 2 on, 200 from bar 4 on; no cost, no profit."""
    result = live(make_market())
    held = result.positions.iloc[1:]
    assert list(held["margin"]) == [200.0, 400.0, 400.0, 200.0, 200.0]
    assert happened(result, "margin_added") == [(2, 200.0)]
    assert happened(result, "margin_returned") == [(4, 200.0)]
    for _, row in held.iterrows():
        wanted = bt.margin.liquidation_price(make_venue(), 20.0, 100.0, row["margin"])
        assert row["liquidation_price"] == pytest.approx(wanted, rel=1e-14)
    assert list(result.bars["equity"]) == [1000, 1000, 1020, 1040, 1020, 1000]
    assert list(result.bars["cash"]) == [1000, 800, 600, 600, 800, 800]


def test_the_wallet_gives_what_it_has_and_the_rest_is_refused_once():
    """80 at 100 and 10x post 800; 5x asks 800 more of a wallet of 200."""
    market = make_market(settings=(math.nan, 5.0, 5.0, math.nan, math.nan, math.nan))
    result = live(market, Steps(size=8.0))
    assert happened(result, "margin_added") == [(2, 200.0)]
    assert happened(result, "margin_refused") == [(2, 600.0)]
    assert list(result.positions["margin"].iloc[1:]) == [800.0] + [1000.0] * 4


def test_what_is_refused_again_is_no_event_until_it_is_granted():
    """800 of 8,000 with 200 free: 5x and 4x want more, 10x and 9x are granted, 5x wants more."""
    settings = (math.nan, 5.0, 4.0, 10.0, 9.0, 5.0, 4.0, math.nan)
    result = live(make_market([100.0] * 8, settings), Steps(size=8.0))
    added = happened(result, "margin_added")
    assert [t for t, _ in added] == [2, 5, 6]
    assert happened(result, "margin_returned") == [(4, 200.0)]
    assert happened(result, "margin_refused") == [(2, 600.0), (6, pytest.approx(600.0))]


def test_margin_returns_down_to_the_initial_margin_and_the_loss():
    """20 at 100 with 400, at 95: 20x asks for 100, but 95 of initial margin and 100 are lost."""
    closes, settings = [100, 100, 95, 95, 100], (5.0, math.nan, 20.0, 20.0, math.nan)
    result = live(make_market(closes, settings))
    assert happened(result, "margin_returned") == [(3, 205.0)]
    assert happened(result, "margin_refused") == [(3, 95.0)]
    assert result.positions["margin"].iloc[-1] == 195.0


@pytest.mark.parametrize(("asked", "refused"), [(40.0, [(2, 50.0)]), (math.inf, [])])
def test_a_setting_is_cut_to_what_the_bracket_allows(asked, refused):
    """2,000 allow 20x: 100 of margin, where 40x asked for 50; infinite asks for the most."""
    result = live(make_market(settings=(math.nan, asked, *[math.nan] * 4)))
    assert result.positions["margin"].iloc[-1] == 100.0
    assert happened(result, "margin_refused") == refused


def test_a_position_beyond_its_bracket_is_not_forced_to_the_lower_setting():
    """At 20x 9,500 may grow past 10,000, where 10x is the most: asking for 20x again changes 0."""
    result = live(
        make_market([100, 100, 110, 110], [20.0] * 4), Steps(size=9.5), venue_leverage=20.0
    )
    assert list(result.positions["margin"].iloc[1:]) == [475.0] * 3


def test_funding_is_made_good_where_the_setting_is_asked_again():
    """A payment of 1 % of 2,000 leaves 180 of 200; asking for 10x again brings 20 back."""
    paid = pd.DataFrame({"rate": [0.01], "mark": [100.0]}, index=[START + 2 * HOUR])
    market = make_market(settings=[10.0] * 6, funding=paid, funding_gaps="zero")
    result = live(market)
    assert happened(result, "margin_added") == [(2, pytest.approx(20.0))]


def test_an_isolated_position_takes_nothing_that_a_cross_one_needs():
    """B in cross at 5x of 10x needs 500 of the 800 left; A may take 300 of the 400 it asks for."""
    markets = bt.Markets({"A": make_market(settings=(math.nan, 10 / 3, *[math.nan] * 4)),
                          "B": make_market([100.0] * 6, [math.nan] * 6)})  # fmt: skip
    account = bt.Account(
        capital=1000.0,
        margin={"A": "isolated", "B": "cross"},
        venue_leverage={"A": 10.0, "B": 10.0},
    )
    result = bt.run(
        markets, {"A": Steps(), "B": Constant(leverage=5.0)}, venue=make_venue(),
        account=account, signal={"A": 1.0, "B": 1.0}, compile=False,
    )  # fmt: skip
    assert happened(result, "margin_added") == [(2, 300.0)]
    assert happened(result, "margin_refused") == [(2, 100.0)]


@pytest.mark.parametrize(("policy", "margin"), [
    (Capped(Steps(), cap=3.0), 400.0),
    (Average(Steps(), Constant(leverage=2.0)), 400.0),
    (Capped(Capped(Steps(), cap=4.0), cap=3.0), 400.0),
])  # fmt: skip
def test_combinators_keep_the_setting_of_their_policies(policy, margin):
    """5x of 2,000 is 400, whatever combines the policy."""
    assert sets_margin(policy)
    assert live(make_market(), policy).positions["margin"].iloc[2] == pytest.approx(margin)


def test_a_resumed_run_goes_on_with_its_setting(tmp_path):
    """The whole run is the run to bar 3 and on from there, also from its file."""
    market = make_market()
    whole, half = live(market), live(market.prefix(3))
    half.save(tmp_path)
    (folder,) = tmp_path.iterdir() if not (tmp_path / "manifest.json").exists() else (tmp_path,)
    again = bt.run(
        market, Steps(), venue=make_venue(), resume=bt.Result.load(folder),
        account=half.account, compile=False,
    )  # fmt: skip
    assert list(again.positions["margin"]) == list(whole.positions["margin"].iloc[3:])


@pytest.mark.slow
def test_compiled_is_plain_and_rows_of_a_sweep_are_runs():
    """The same bits, of a policy, a combinator and a set of a sweep; lanes are left to the runs."""
    market = bt.Market.sample(bars=600)
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    account = bt.Account(capital=10_000.0, margin="isolated", venue_leverage=10.0)
    terms = {"venue": venue, "account": account}
    for policy in (LiquidationDistance(), Capped(LiquidationDistance(target=4.0), cap=3.0)):
        one, other = (bt.run(market, policy, compile=c, **terms) for c in (True, False))
        assert one.manifest["compiled"] == "yes"
        assert np.array_equal(one.record.values, other.record.values, equal_nan=True)
        assert (one.events["kind"] == "margin_added").sum() > 50
    found = bt.sweep(market, LiquidationDistance, {"distance": [0.05, 0.1, 0.2, 0.3]}, **terms)
    for _, row in found.table.iterrows():
        run = bt.run(market, LiquidationDistance(distance=row["distance"]), **terms)
        assert row["total_return"] == run.metrics["total_return"]


# ---------------------------------------------------------------------------------- bad inputs


class Answers(bt.Policy):
    """A policy with one answer."""

    value: ClassVar[object] = 0.0

    def leverage(self, bar, account):
        return 1.0

    def venue_leverage(self, bar, account):
        return self.value


@pytest.mark.parametrize("value", [0.0, -math.inf, "10", None, True, (5.0, 1.0)])
def test_an_answer_that_is_no_setting_is_refused(value):
    """Zero, negative or no number: an error that names the method, the value and the bar."""
    policy = type("Bad", (Answers,), {"value": value, "__doc__": "Bad."})()
    with pytest.raises(bt.PolicyError, match="venue_leverage") as found:
        live(make_market(), policy)
    assert "bar 0" in str(found.value)


class Listed(Steps):
    """Take the setting out of a list, which numba refuses here."""

    def venue_leverage(self, bar, account):
        return [bar.setting][0]


def test_what_numba_refuses_runs_in_plain_python_and_says_why(monkeypatch):
    monkeypatch.setenv("BACKTEST_COMPILE", "now")
    terms = {"venue": make_venue(), "account": bt.Account(margin="isolated", venue_leverage=10.0)}
    with pytest.warns(UserWarning, match="Listed runs in plain Python"):
        found = bt.run(make_market(), Listed(), **terms)
    assert "test_margin_decisions.py" in found.manifest["compiled"]
    plain = bt.run(make_market(), Steps(), compile=False, **terms)
    pd.testing.assert_frame_equal(found.bars, plain.bars)


@pytest.mark.slow
def test_a_compiled_answer_that_is_no_setting_is_refused_with_what_it_saw(monkeypatch):
    monkeypatch.setenv("BACKTEST_COMPILE", "now")
    market = make_market(settings=(math.nan, 5.0, -3.0, math.nan, math.nan, math.nan))
    terms = {"venue": make_venue(), "account": bt.Account(margin="isolated", venue_leverage=10.0)}
    with pytest.raises(bt.PolicyError, match="Steps returned -3") as error:
        bt.run(market, Steps(), **terms)
    assert "bar 2" in str(error.value)
    assert "close=101" in str(error.value)


def assigns(self, bar, account):
    self.seen = bar.close
    return 5.0


def derive(method):
    return type("Odd", (Steps,), {"venue_leverage": method, "__doc__": "Odd."})


def scale():
    account = bt.Account(capital=1000.0, margin="isolated", venue_leverage=10.0)
    markets = bt.Markets({"A": make_market()})
    bt.run(markets, Constant(), venue=make_venue(), account=account, overlay=Answers())


@pytest.mark.parametrize(("make", "words"), [
    (lambda: derive(5.0), "must be a plain method"),
    (lambda: live(make_market(), derive(assigns)()), "Odd.venue_leverage raised"),
    (lambda: live(make_market(), margin="cross"), "got 'cross'"),
    (lambda: live(make_market(), margin={"market": "cross"}), "margin of market must be"),
    (scale, "overlay must not define venue_leverage"),
])  # fmt: skip
def test_bad_input_is_refused(make, words):
    check_refused(make, words)
