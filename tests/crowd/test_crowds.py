"""Crowd: drawn accounts, given accounts, their liquidation prices and ladder."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from tests.crowd.crowds import bracket_venue, longs_failing_at, plain_venue, random_crowd
from tests.kit import check_refused


def test_liquidation_prices_are_those_of_the_margin_functions():
    rng = np.random.default_rng(0)
    crowd = random_crowd(rng, 300)
    venue = bracket_venue("close", rng)
    expected = bt.margin.liquidation_price(venue, crowd.quantity, crowd.entry, crowd.collateral)
    np.testing.assert_allclose(crowd.liquidation_prices(venue), expected, rtol=1e-12)


def test_liquidation_prices_of_inverse_contracts():
    venue = plain_venue().override(
        contract=bt.Contract(kind="inverse", size=100.0, lot=1.0, tick=0.1)
    )
    crowd = bt.Crowd.from_leverage(
        open_interest=50.0, leverage="uniform:2:20", accounts=200, price=30_000.0,
        venue=venue,
    )  # fmt: skip
    expected = bt.margin.liquidation_price(venue, crowd.quantity, crowd.entry, crowd.collateral)
    np.testing.assert_allclose(crowd.liquidation_prices(venue), expected, rtol=1e-12)
    assert crowd.open_interest() == pytest.approx(50.0)  # coins
    hit = bt.cascade(crowd, venue, shock=-0.1, impact=bt.SquareRoot(0.1), volume=100.0)
    assert hit.rounds["off"].max() <= 1e-9
    assert hit.multiplier > 1.0
    with pytest.raises(bt.ParameterError, match="contract"):
        bt.cascade(crowd, plain_venue(), shock=-0.1, impact=bt.Linear(0.0))


def test_drawn_accounts_have_the_stated_interest_leverage_and_sides():
    crowd = bt.Crowd.from_leverage(
        open_interest=1e6, leverage="loguniform:1:50", entries=200.0, long_share=0.7,
        accounts=20_000, seed=1,
    )  # fmt: skip
    notional = crowd.notional()
    assert len(crowd) == 20_000
    assert np.abs(notional).sum() == pytest.approx(1e6)
    assert notional[notional > 0.0].sum() == pytest.approx(0.7e6)
    ratio = np.abs(crowd.leverage)
    assert (ratio.min() >= 1.0) & (ratio.max() <= 50.0)
    assert np.median(ratio) == pytest.approx(math.sqrt(50.0), rel=0.03)
    assert np.abs(bt.Crowd.from_leverage(
        open_interest=1e6, leverage=7.0, entries=200.0, accounts=3).leverage
    ).tolist() == pytest.approx([7.0] * 3)  # fmt: skip


def test_entries_from_a_market_are_its_closes_that_the_account_survived():
    market = bt.Market.sample(bars=2_000)
    crowd = bt.Crowd.from_leverage(
        open_interest=1e6, leverage="uniform:2:40", entries=market, accounts=2_000, lookback="20d"
    )
    closes = market.close[-480:]
    assert np.isin(crowd.entry, closes).all()
    assert crowd.price == market.close[-1]
    lows = np.minimum.accumulate(market.low[-480:][::-1])[::-1]
    for entry, ratio in zip(crowd.entry, crowd.leverage, strict=True):
        rows = np.flatnonzero(closes == entry)
        if ratio > 0.0:  # a long: at one of these bars or later nothing was under its bankruptcy
            later = [lows[row + 1] if row + 1 < len(lows) else math.inf for row in rows]
            assert max(later) > entry * (1.0 - 1.0 / ratio)


def test_nobody_fails_before_the_shock_in_a_crowd_drawn_for_a_venue():
    market, venue = bt.Market.sample(bars=2_000), plain_venue()
    common = {
        "open_interest": 1e6,
        "leverage": "uniform:2:60",
        "entries": market,
        "accounts": 3_000,
    }
    bare, drawn = bt.Crowd.from_leverage(**common), bt.Crowd.from_leverage(venue=venue, **common)

    def count_failing(crowd: bt.Crowd) -> int:
        prices = crowd.liquidation_prices(venue)
        longs, shorts = crowd.quantity > 0.0, crowd.quantity < 0.0
        now = market.close[-1]
        return int(((prices >= now) & longs).sum() + ((prices <= now) & shorts).sum())

    assert count_failing(bare) > 0
    assert count_failing(drawn) == 0
    assert drawn.contract == venue.contract


def test_the_ladder_counts_notional_by_price():
    crowd = longs_failing_at(np.array([99.2, 97.3, 97.4, 20.0]), quantity=2.0)
    ladder = crowd.ladder(plain_venue(), bins=20, span=0.1)
    assert ladder["long"].sum() == pytest.approx(600.0)  # the one at 20 is out of the span
    level = ladder.iloc[np.abs(ladder.index - 97.5).argmin()]  # from 97 to 98
    assert level["long"] == pytest.approx(400.0)
    assert level["cumulative"] == pytest.approx(600.0)
    assert ladder["short"].sum() == 0.0
    bare = longs_failing_at(np.array([99.2])).ladder(bins=200)
    # bankruptcy: 100 - collateral = 0.99 x 99.2 = 98.2
    assert bare["long"].idxmax() == pytest.approx(98.25)


@pytest.mark.parametrize("bad", [
    {"side": "up"}, {"quantity": math.nan}, {"entry": -1.0}, {"collateral": math.inf},
    {"equity": 1.0},
], ids=str)  # fmt: skip
def test_bad_positions_are_refused_with_their_row(bad):
    rows = [
        {"side": "long", "quantity": 1.0, "entry": 100.0, "collateral": 10.0, "equity": 10.0}
    ] * 2
    frame = pd.DataFrame([rows[0], {**rows[1], **bad}])
    check_refused(lambda: bt.Crowd.from_positions(frame), "row 1")
    check_refused(lambda: bt.Crowd.from_positions(frame.drop(columns="entry")), "no entry")


@pytest.mark.parametrize("bad", [
    {"open_interest": math.nan}, {"leverage": "normal:1:5"}, {"leverage": "uniform:5:1"},
    {"leverage": "loguniform:1:x"}, {"leverage": [1.0, 2.0]}, {"long_share": 1.5},
    {"accounts": 2.5}, {"seed": -1}, {"price": None, "entries": None},
    {"lookback": "long", "entries": bt.Market.sample(bars=10)}, {"venue": "binance"},
], ids=str)  # fmt: skip
def test_bad_draws_are_refused(bad):
    terms = {"open_interest": 1e6, "entries": 100.0, "accounts": 10, **bad}
    check_refused(lambda: bt.Crowd.from_leverage(**terms), next(iter(bad)), bt.ParameterError)
