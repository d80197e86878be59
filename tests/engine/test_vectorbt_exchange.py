"""Results as portfolios of vectorbt, and portfolios as signals."""

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant, VolTarget
from tests.markets import live, market_of

MARKET = bt.Market.sample(bars=300)
PLAIN = dataclasses.replace(
    MARKET, funding_time=MARKET.funding_time[:0], funding_rate=MARKET.funding_rate[:0],
    funding_mark=MARKET.funding_mark[:0],
)  # fmt: skip
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
TERMS = {"venue": VENUE, "compile": False}


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "account", "signal"), [
    (Constant(leverage=0.9), bt.Account(band=0.05), 1.0),
    (Constant(leverage=3.0), bt.Account(band=0.1), -1.0),
    (VolTarget(target=0.3), bt.Account(stop_loss=0.04, max_leverage=0.95), "breakout:12"),
    (Constant(leverage=0.5), bt.Account(fill="same_close"), "rsi:6:30:70"),
], ids=["long", "short at 3x", "both sides with stops", "filled at the close"])  # fmt: skip
def test_a_portfolio_is_worth_the_equity_at_every_close(policy, account, signal):
    result = bt.run(PLAIN, policy, account=account, signal=signal, **TERMS)
    portfolio = result.to_vectorbt("portfolio")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value, held = portfolio.value().to_numpy(), portfolio.assets().to_numpy()
        paid = portfolio.orders.records["fees"].sum()
    assert value == pytest.approx(result.bars["equity"].to_numpy(), rel=1e-9)
    assert held == pytest.approx(result.bars["position"].to_numpy(), abs=1e-9)
    assert paid == pytest.approx(result.metrics["fees"])
    assert result.bars["position"].nunique() >= 2


@pytest.mark.slow
def test_a_direction_survives_both_ways():
    """Signal, run, portfolio, signal: the same direction, and the same account again."""
    account = bt.Account(band=0.2)
    signal = bt.signals.breakout(PLAIN, 12)
    first = bt.run(PLAIN, Constant(leverage=0.5), account=account, signal=signal, **TERMS)
    again = bt.signals.from_vectorbt(first.to_vectorbt("portfolio"), "open")
    assert again[:-1].tolist() == signal[:-1].tolist()
    assert again.index.equals(PLAIN.times)
    second = bt.run(PLAIN, Constant(leverage=0.5), account=account, signal=again, **TERMS)
    assert second.bars["equity"].tolist() == first.bars["equity"].tolist()
    assert "signal not checked" in second.manifest["causality"]


class Portfolio:
    """What from_vectorbt reads of a portfolio, by hand."""

    def __init__(self, held, value, index):
        self.wrapper = pd.Series(held, index=index)
        self._held, self._value = pd.Series(held, index=index), pd.Series(value, index=index)

    def asset_value(self):
        return self._held

    def value(self):
        return self._value


def test_directions_and_shares_by_hand():
    """Held 0, 50 of 100, -30 of 120, 0: shares 0, 0.5, -0.25, 0."""
    index = pd.date_range("2023-01-01", periods=4, freq="1h")
    portfolio = Portfolio([0.0, 50.0, -30.0, 0.0], [100.0, 100.0, 120.0, 110.0], index)
    assert bt.signals.from_vectorbt(portfolio).tolist() == [0.0, 1.0, -1.0, 0.0]
    assert bt.signals.from_vectorbt(portfolio, sized=True).tolist() == [0.0, 0.5, -0.25, 0.0]
    assert bt.signals.from_vectorbt(portfolio, "open").tolist() == [1.0, -1.0, 0.0, 0.0]
    assert str(bt.signals.from_vectorbt(portfolio).index.tz) == "UTC"


def test_what_a_portfolio_cannot_hold_is_said():
    account = bt.Account()
    hurt = bt.Account(margin="isolated", venue_leverage=5.0, after_liquidation="halt")
    crash = market_of(np.array([100.0, 100, 100, 60, 60]))
    drop = live(crash, Constant(leverage=5.0), account=hurt, compile=False)
    cases = {
        "had funding": bt.run(MARKET, Constant(leverage=0.5), account=account, **TERMS),
        "had a liquidation": drop,
        "borrowed": bt.run(PLAIN, Constant(leverage=2.0), account=account, **TERMS),
    }
    for reason, result in cases.items():
        with pytest.raises(bt.ParameterError, match=reason):
            result.to_vectorbt("portfolio")
    with pytest.raises(bt.ParameterError, match="kind must be one of returns, portfolio"):
        drop.to_vectorbt("portfolo")


def test_what_is_no_portfolio_is_refused():
    with pytest.raises(bt.ParameterError, match="a portfolio of vectorbt is needed, got a float"):
        bt.signals.from_vectorbt(1.0)
    two = Portfolio([0.0], [1.0], pd.DatetimeIndex(["2023-01-01"]))
    two._held = pd.DataFrame(np.zeros((1, 2)))
    with pytest.raises(bt.ParameterError, match="has one column"):
        bt.signals.from_vectorbt(two)
