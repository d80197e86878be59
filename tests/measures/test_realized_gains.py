"""Realization of gains and losses, by hand."""

import math

import numpy as np
import pytest

import backtest as bt
from backtest.measures import realization
from backtest.strategies import Constant
from tests.markets import live, market_of
from tests.portfolio.portfolio_helpers import (
    Hold,
    Once,
    flat,
    make_market,
    make_venue,
    simulate_pair,
)

HOUR = 3_600_000_000_000


def realize(closes, trades, **kind):
    """Return the realization over hourly bars of (bar, quantity, price) trades."""
    rows, quantity, price = (np.array(each, dtype=float) for each in zip(*trades, strict=True))
    time = np.arange(len(closes)) * HOUR
    return realization(time, np.array(closes, float), (rows * HOUR).astype(int), quantity, price,
                       **kind)  # fmt: skip


def test_shares_and_times_by_hand():
    """2 at 10; half sold at 12 in bar 2, half at 8 in bar 4.

    Bar 1 closes at 12: a paper gain of 1. Bar 2: half realized at 12, half kept at 11, both gains.
    Bar 3: the rest is kept at 8, a loss. Bar 4: it is realized at 8. PGR = 0.5 / 2, PLR = 1 / 2.
    """
    found = realize([10, 12, 11, 8, 9, 9], [(0, 2, 10), (2, -1, 12), (4, -1, 8)])
    assert (found.realized_gains, found.paper_gains) == (0.5, 1.5)
    assert (found.realized_losses, found.paper_losses) == (1.0, 1.0)
    assert (found.gains_realized, found.losses_realized, found.disposition) == (0.25, 0.5, -0.25)
    assert found.error == pytest.approx(math.sqrt(0.25 * 0.75 / 2 + 0.5 * 0.5 / 2))
    assert (found.winner_days * 24, found.loser_days * 24) == (2.0, 4.0)
    assert found.lots["change"].tolist() == pytest.approx([0.2, -0.2])


def test_a_flip_closes_the_oldest_lots_and_opens_the_other_side():
    """1 at 10, 1 at 14 (mean 12); 3 sold at 13: both are closed at a gain of 1, 1 is short."""
    found = realize([10, 14, 13, 12], [(0, 1, 10), (1, 1, 14), (2, -3, 13)])
    assert found.lots["change"].tolist() == pytest.approx([0.3, -1 / 14])
    assert found.lots["quantity"].tolist() == [1.0, 1.0]
    # bar 1: the first lot is kept at 14; bar 2: all is realized; bar 3: the short gains at 12
    assert (found.realized_gains, found.paper_gains) == (1.0, 2.0)
    assert (found.realized_losses, found.paper_losses) == (0.0, 0.0)
    assert math.isnan(found.losses_realized)


def test_the_average_entry_is_that_of_the_account():
    """1 at 10 and 1 at 14 enter at 12; what is left of them after a sale gains at 13."""
    found = realize([10, 14, 13, 13], [(0, 1, 10), (1, 1, 14), (2, -1, 13)])
    assert (found.paper_gains, found.paper_losses) == (2.5, 0.0)
    # inverse contracts at 10 and 40 enter at their harmonic mean, 16
    found = realize([10, 40, 20], [(0, 1, 10), (1, 1, 40)], is_inverse=True)
    assert (found.paper_gains, found.paper_losses) == (2.0, 0.0)


@pytest.mark.parametrize("kind", ["linear", "inverse"])
def test_gains_are_counted_against_the_entry_of_the_bars(kind):
    market = bt.Market.sample(bars=150, seed=3)
    venue = make_venue().override({"contract": {"kind": kind}})
    signal = np.where(np.arange(150) // 40 % 2, -1.0, 1.0) * (0.3 + 0.1 * (np.arange(150) % 7))
    done = live(market, Constant(leverage=1.0), venue=venue, signal=signal, compile=False)
    held, entry = done.bars["position"].to_numpy(), done.bars["entry"].to_numpy()
    rows = held[:-1] != 0.0
    kept = np.clip(held[1:][rows] / held[:-1][rows], 0.0, 1.0)
    gain = (np.sign(held[:-1]) * (done.bars["mark"].to_numpy()[1:] - entry[:-1]))[rows]
    found = done.realization()
    assert found.paper_gains == pytest.approx(np.nansum(kept[gain > 0.0]))
    assert found.paper_losses == pytest.approx(np.nansum(kept[gain < 0.0]))


def test_nothing_traded_is_nothing_realized():
    found = realization(np.arange(3) * HOUR, np.ones(3), np.zeros(0, int), np.zeros(0), np.zeros(0))
    assert math.isnan(found.gains_realized)
    assert found.lots.empty


def test_a_run_counts_its_fills_and_its_liquidation():
    """Long from bar 1 at 100 with 5x; 110 is a gain, and at 70 the account is liquidated."""
    market = market_of(np.array([100.0, 100, 110, 70, 70, 70]))
    account = bt.Account(margin="isolated", venue_leverage=5.0, after_liquidation="halt", band=4)
    found = live(market, Constant(leverage=5.0), account=account, compile=False).realization()
    assert len(found.lots) == 1
    assert found.lots["entry"].iloc[0] == 100.0
    assert (found.paper_gains, found.realized_losses) == (1.0, 1.0)
    assert found.loser_days * 24 == pytest.approx(2.0)


@pytest.mark.filterwarnings("ignore:the history of B ends")
def test_positions_of_several_instruments_count_each_for_itself():
    """Long A at 100, 110 later; short B at 50, delisted at 60 in bar 2.

    Bar 2: A is kept at a gain, B is closed at a loss of 20 %. Bar 3: A is kept at a gain.
    """
    both = bt.Markets(
        {
            "A": make_market([flat(100), flat(100), flat(110), flat(110)]),
            "B": make_market([flat(50), flat(50), flat(60)]),
        }
    )
    done = bt.run(
        both, Once(1.0), venue=make_venue(), account=bt.Account(), compile=False,
        signal={"A": 0.5, "B": -0.5},
    )  # fmt: skip
    found = done.realization()
    assert (found.realized_gains, found.paper_gains) == (0.0, 2.0)
    assert (found.realized_losses, found.paper_losses) == (1.0, 0.0)
    assert found.disposition == -1.0
    row = found.lots.iloc[0]
    assert (row["instrument"], row["entry"], row["exit"]) == ("B", 50.0, 60.0)
    assert row["change"] == pytest.approx(-0.2)
    assert found.loser_days * 24 == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_result_of_several_counts_every_trade():
    """The lots and what is left add up to the positions, through stops and liquidations."""
    account = bt.Account(capital=1_000.0, margin="isolated", venue_leverage=8.0, stop_loss=0.03)
    done = bt.run(simulate_pair(60), Hold(4.0), venue=make_venue(), account=account, compile=False)
    found, trades = done.realization(), done.events
    assert {"liquidation", "stop", "delisted"} & set(trades["kind"])
    closed = found.lots.groupby("instrument")["quantity"].sum()
    bought = trades[(trades["kind"] == "fill") & (trades["quantity"] > 0.0)]
    for name, left in (
        done.positions.groupby("instrument", observed=True)["quantity"].last().items()
    ):
        own = bought.loc[bought["instrument"] == name, "quantity"].sum()
        assert closed[name] + left == pytest.approx(own)


def test_a_resumed_result_is_refused():
    market = bt.Market.sample(bars=100)
    first = live(market.prefix(60), Constant(leverage=1.0), compile=False)
    later = live(market, Constant(leverage=1.0), resume=first, compile=False)
    with pytest.raises(bt.ParameterError, match="this result was resumed"):
        later.realization()
