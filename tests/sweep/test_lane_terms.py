"""Automatic margin, margin calls, fixed fees and the impact of liquidations by lane."""

from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.sweep.set_evaluator import Evaluator
from tests.sweep.test_lanes import assert_rows_are_runs

MARKET = bt.Market.sample(bars=1_200)


class Wave(bt.Policy):
    """Ask for a new leverage every seventh bar, and hold in between."""

    scale: Annotated[float, bt.Range(0.0, 50.0)] = 1.0

    def observe(self, market):
        t = np.arange(market.n_bars)
        return {"target": np.where(t % 7 == 0, 2.0 + np.sin(t / 11.0), np.nan)}

    def leverage(self, bar, account):
        return bar.target * self.scale


def make_venue(**terms) -> bt.Venue:
    """Return a venue with two brackets and all costs that depend on the order."""
    return bt.Venue(
        contract=bt.Contract(lot=0.001, min_notional=5.0),
        brackets=[bt.Bracket(0.0, 2e4, 100.0, 0.005), bt.Bracket(2e4, 1e9, 40.0, 0.012)],
        fees=bt.Fees(taker=5e-4, maker=2e-4, per_order=0.7),
        slippage=bt.Slippage(rate=1e-4),
        liquidation=bt.Liquidation(fee=0.004, slippage=0.001, impact=0.3, mode="partial", step=0.4),
        **terms,
    )


def draw_sets(seed: int) -> dict[str, np.ndarray]:
    """Return sets that differ in leverage, fixed fee, impact and band; fee and impact may be 0."""
    rng = np.random.default_rng(seed)
    sets = {
        "scale": rng.uniform(2.0, 14.0, 12),
        "venue.fees.per_order": rng.uniform(0.1, 3.0, 12),
        "venue.liquidation.impact": rng.uniform(0.1, 1.0, 12),
        "account.band": rng.uniform(0.0, 0.5, 12),
    }
    sets["venue.fees.per_order"][::3] = 0.0
    sets["venue.liquidation.impact"][::4] = 0.0
    return sets


def sweep(venue: bt.Venue, account: bt.Account, sets: dict[str, np.ndarray]):
    """Return the rows of some sets, each compared with its run."""
    evaluator = Evaluator(MARKET, Wave, venue=venue, account=account)
    rows = evaluator.evaluate(sets, returns=True)
    assert rows.done.all()
    assert not any(rows.errors)
    assert_rows_are_runs(evaluator, sets, rows)
    return rows.metrics


@pytest.mark.slow
def test_isolated_accounts_with_automatic_margin_and_calls_are_their_runs():
    venue = make_venue(profit_counts=0.3, call_grace=3)
    terms = {"margin": "isolated", "venue_leverage": 40.0, "auto_margin": True}
    plain = sweep(make_venue(profit_counts=0.3), bt.Account(**terms), draw_sets(1))
    assert plain["liquidations"].sum() > 0
    assert (plain["margin_calls"] == 0).all()
    called = sweep(venue, bt.Account(**terms, margin_call=0.6), draw_sets(1))
    ended = called["calls_met"] + called["calls_failed"]
    assert called["calls_met"].sum() > 0
    assert called["calls_failed"].sum() > 0
    assert np.isin(called["margin_calls"] - ended, (0.0, 1.0)).all()


@pytest.mark.slow
def test_cross_accounts_whose_profits_do_not_count_are_their_runs():
    fees = pd.Series([0.5, 2.0, 0.0], index=MARKET.times[[0, 300, 900]])
    venue = make_venue(profit_counts="losses", call_grace=2).override({"fees.per_order": fees})
    sets = draw_sets(2)
    del sets["venue.fees.per_order"]
    called = sweep(venue, bt.Account(margin_call=0.3), sets)
    assert called["liquidated_after_call"].sum() > 0
    assert np.isfinite(called["time_to_liquidation_after_call"]).any()
    sweep(venue.override(call_grace=None), bt.Account(), sets)


@pytest.mark.slow
def test_words_and_switches_of_these_terms_split_sets_into_groups():
    sets = {
        "account.auto_margin": np.array([True, False, True, False]),
        "venue.profit_counts": np.array(["losses", "losses", 0.25, 0.25], dtype=object),
        "venue.fees.per_order": np.array([0.5, 0.5, 1.0, 2.0]),
        "scale": np.array([12.0, 12.0, 12.0, 12.0]),
    }
    account = bt.Account(margin="isolated", venue_leverage=40.0, auto_margin=True)
    found = sweep(make_venue(), account, sets)
    assert found["liquidations"][1] > found["liquidations"][0]


@pytest.mark.slow
def test_a_compiled_run_of_these_terms_is_its_plain_run(monkeypatch):
    monkeypatch.setenv("BACKTEST_COMPILE", "now")
    fees = pd.Series([0.5, 2.0], index=MARKET.times[[0, 300]])
    venue = make_venue(profit_counts=0.3, call_grace=3).override({"fees.per_order": fees})
    account = bt.Account(
        margin="isolated", venue_leverage=40.0, auto_margin=True, margin_call=0.6,
        reserve=500.0, top_up_to=0.4, stop_loss=0.03,
    )  # fmt: skip
    given = {"venue": venue, "account": account}
    compiled = bt.run(MARKET, Wave(scale=8.0), **given)
    plain = bt.run(MARKET, Wave(scale=8.0), **given, compile=False)
    assert compiled.manifest["compiled"] == "yes"
    assert compiled.record.values.tobytes() == plain.record.values.tobytes()
    assert compiled.entries.tobytes() == plain.entries.tobytes()
    assert repr(dict(compiled.metrics)) == repr(dict(plain.metrics))
