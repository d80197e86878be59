"""Realization of gains and losses, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

import backtest as bt
from backtest.measures import realization
from backtest.strategies import Constant
from tests.markets import live, market_of

HOUR = 3_600_000_000_000


def realize(closes, trades):
    """Return the realization over hourly bars of (bar, quantity, price) trades."""
    rows, quantity, price = (np.array(each, dtype=float) for each in zip(*trades, strict=True))
    time = np.arange(len(closes)) * HOUR
    return realization(time, np.array(closes, float), (rows * HOUR).astype(int), quantity, price)


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


def test_a_resumed_result_is_refused():
    market = bt.Market.sample(bars=100)
    first = live(market.prefix(60), Constant(leverage=1.0), compile=False)
    later = live(market, Constant(leverage=1.0), resume=first, compile=False)
    with pytest.raises(bt.ParameterError, match="this result was resumed"):
        later.realization()
