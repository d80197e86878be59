"""Orders at vectorbt, and its portfolios as signals."""

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.engine.tables import TRADES
from backtest.strategies import Constant, VolTarget

MARKET = bt.Market.sample(bars=300)
PLAIN = dataclasses.replace(
    MARKET, funding_time=MARKET.funding_time[:0], funding_rate=MARKET.funding_rate[:0],
    funding_mark=MARKET.funding_mark[:0],
)  # fmt: skip
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
TERMS = {"venue": VENUE, "compile": False}


def make_portfolio(result):
    """Return the trades of a run as orders of vectorbt, of which a bar has one."""
    import vectorbt  # noqa: PLC0415 - slow to import

    events, index = result.events, result.bars.index
    trades = events[events["kind"].isin(TRADES)].set_index("time")
    fees = events[events["kind"] == "fee"].set_index("time")["amount"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return vectorbt.Portfolio.from_orders(
            pd.Series(result.mark, index), size=trades["quantity"].reindex(index),
            price=trades["price"].reindex(index), fixed_fees=fees.reindex(index, fill_value=0.0),
            init_cash=result.account.capital, freq="1h",
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "account", "signal"), [
    (Constant(leverage=0.9), bt.Account(band=0.05), 1.0),
    (Constant(leverage=3.0), bt.Account(band=0.1), -1.0),
    (VolTarget(target=0.3), bt.Account(stop_loss=0.04, max_leverage=0.95), "breakout:12"),
], ids=["long", "short at 3x", "both sides with stops"])  # fmt: skip
def test_orders_at_vectorbt_are_worth_the_equity_at_every_close(policy, account, signal):
    result = bt.run(PLAIN, policy, account=account, signal=signal, **TERMS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = make_portfolio(result).value().to_numpy()
    assert value == pytest.approx(result.bars["equity"].to_numpy(), rel=1e-9)
    assert result.bars["position"].nunique() >= 2


@pytest.mark.slow
def test_a_direction_survives_both_ways():
    """Signal, run, portfolio, signal: the same direction, and the same account again."""
    account = bt.Account(band=0.2)
    signal = bt.signals.breakout(PLAIN, 12)
    first = bt.run(PLAIN, Constant(leverage=0.5), account=account, signal=signal, **TERMS)
    again = bt.signals.from_vectorbt(make_portfolio(first), "open")
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


def test_what_is_no_portfolio_is_refused():
    with pytest.raises(bt.ParameterError, match=r"must be a vectorbt\.Portfolio, got a float"):
        bt.signals.from_vectorbt(1.0)
    two = Portfolio([0.0], [1.0], pd.DatetimeIndex(["2023-01-01"]))
    two._held = pd.DataFrame(np.zeros((1, 2)))
    with pytest.raises(bt.ParameterError, match="must have one column"):
        bt.signals.from_vectorbt(two)
