"""Prices of fills and stops in whole ticks, against the trader."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from tests.scenes import INF, NAN, account_of, happened, is_, isolated, play, total, venue_of


def price_of(result, kind="fill"):
    return happened(result, kind)["price"].tolist()


def rounded(tick=0.5, **changes):
    return venue_of(contract={"tick": tick, "round_to_tick": True}, **changes)


@pytest.mark.parametrize(("side", "price"), [(1.0, 100.5), (-1.0, 99.5)])
def test_a_fill_is_rounded_against_the_trader_and_costs_slippage(side, price):
    venue = rounded(slippage={"rate": 0.001})
    result = play(100, 100, targets=1.0, signal=side, venue=venue)
    # worsened to 100.1 or 99.9, then to the next half: 10 contracts cost 10 x 0.5
    assert price_of(result) == [is_(price)]
    assert result.bars["entry"].iloc[-1] == is_(price)
    assert total(result, "slippage") == is_(5.0)
    assert result.bars["equity"].iloc[-1] == is_(995.0)


def test_a_price_on_a_tick_stays():
    # 100.3 is 1003 ticks of 0.1, but not in floating point
    result = play(100.3, 100.3, targets=1.0, venue=rounded(0.1))
    assert price_of(result) == [is_(100.3)]
    assert total(result, "slippage") == is_(0.0)


@pytest.mark.parametrize(("side", "price"), [(1.0, 100.5), (-1.0, 99.5)])
def test_the_tick_of_an_inverse_contract_is_in_price(side, price):
    venue = venue_of(
        contract={"kind": "inverse", "tick": 0.5, "round_to_tick": True, "min_notional": 0.0},
        slippage={"rate": 0.001},
    )
    account = account_of(capital=10.0)
    result = play(100, 100, targets=1.0, signal=side, venue=venue, account=account)
    # 10 coins are 1,000 contracts of a dollar; each loses |1/100 - 1/price| coins
    assert price_of(result) == [is_(price)]
    assert total(result, "slippage") == is_(1000 * abs(1 / 100 - 1 / price))


def test_a_stop_fills_on_a_tick():
    account = account_of(stop_loss=0.051)
    result = play(100, (100, 100, 90, 92), targets=(1.0, NAN), venue=rounded(), account=account)
    # triggered at 94.9, which is not a tick: sold at 94.5; 10 x 0.4 are slippage
    assert price_of(result, "stop") == [is_(94.5)]
    assert total(result, "slippage") == is_(4.0)
    assert result.bars["equity"].iloc[-1] == is_(945.0)


def test_a_liquidation_is_not_rounded():
    result = play(100, 100, (100, 100, 90, 92), targets=(10.0, NAN), venue=rounded())
    assert price_of(result, "liquidation") == [is_(90 / 0.95)]


def test_impact_stays_impact():
    venue = rounded(slippage={"rate": 0.001, "impact": 0.5, "impact_window": "3h"})
    plain = venue_of(slippage={"rate": 0.001, "impact": 0.5, "impact_window": "3h"})
    bars = [100, 101, 100, 102, 101, 101]
    both = [
        play(*bars, targets=(0, 0, 0, 0, 1.0), venue=each, volume=100.0) for each in (venue, plain)
    ]
    change = float(happened(both[1], "fill")["quantity"].iloc[0])
    assert total(both[0], "impact") == is_(total(both[1], "impact"))
    assert total(both[0], "impact") > 0.0
    lost = total(both[0], "impact") + total(both[0], "slippage")
    assert lost == is_(change * (price_of(both[0])[0] - 101))
    assert price_of(both[0])[0] % 0.5 == 0.0


def test_the_initial_margin_holds_after_the_rounding():
    # N <= 16 (E - cost): each contract costs 0.5 of 100 and the fee on 100.5
    venue = rounded(slippage={"rate": 0.001}, fees={"taker": 0.001, "maker": 0.001})
    result = play(100, 100, targets=INF, venue=venue)
    cost = 0.005 + 0.001 * 1.005
    assert result.bars["position"].iloc[-1] == is_(16 * 1000 / (1 + 16 * cost) / 100)
    assert result.bars["leverage"].iloc[-1] == is_(16.0)


def test_an_isolated_wallet_pays_the_rounded_price():
    venue = rounded(slippage={"rate": 0.001})
    result = play(100, 100, targets=INF, venue=venue, account=isolated(10.0))
    # margin N / 10 at 100.5 takes the whole wallet, but the cap of initial margin is lower
    assert result.bars["position"].iloc[-1] <= 10_000 / 100.5 * (1 + 1e-12)
    assert result.bars["cash"].iloc[-1] >= 0.0


def test_a_graced_call_reduces_at_the_rounded_price():
    venue = rounded(call_grace=0)
    account = account_of(margin_call=0.5)
    result = play(
        100, 100, (100, 100, 96, 96), 96, targets=(9.0, NAN), venue=venue, account=account
    )
    plain = play(
        100, 100, (100, 100, 96, 96), 96, targets=(9.0, NAN), venue=venue_of(call_grace=0),
        account=account,
    )  # fmt: skip
    assert result.bars["margin_ratio"].iloc[-1] == is_(plain.bars["margin_ratio"].iloc[-1])
    assert all(price % 0.5 == 0.0 for price in price_of(result))


def test_a_tick_beyond_the_prices_is_refused():
    with pytest.raises(bt.ParameterError, match="tick must be at most the lowest price, 100"):
        play(100, 100, venue=rounded(101.0))

    play(100, 100, venue=venue_of(contract={"tick": 101.0}))


def test_the_cuts_of_targets_know_the_rounding():
    rng = np.random.default_rng(5)
    bars = (100 * np.exp(np.cumsum(rng.normal(0, 0.01, 60)))).tolist()
    signal = pd.Series(np.where(np.arange(60) % 7 < 4, 1.0, -0.8)).to_numpy()
    for account in (account_of(), isolated(12.0)):
        venue = rounded(slippage={"rate": 0.001}, fees={"taker": 0.001, "maker": 0.001})
        result = play(*bars, targets=40.0, signal=signal, venue=venue, account=account)
        rows = result.target_cuts()
        whole = rows.loc["all", "mean_asked"] - rows.loc["all", "mean_held"]
        parts = (rows["mean_shortfall"] * rows["decisions"]).iloc[1:].sum()
        assert parts / rows.loc["all", "decisions"] == pytest.approx(whole, rel=1e-9)
        assert "margin_call" not in rows.index  # nothing is left unexplained
