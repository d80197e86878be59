"""A result of one instrument and one of several answer to the same names."""

import numpy as np

import backtest as bt
from backtest.engine.bar_loop import RECORDED
from backtest.market import as_markets

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
ACCOUNT = bt.Account(capital=1_000)


def test_a_market_becomes_markets_of_its_instrument():
    """The name is that of the instrument, or "market" without one; Markets stay as they are."""
    market = bt.Market.sample(bars=48)
    markets = as_markets(market)
    assert markets.names == (market.instrument or "market",)
    assert markets[markets.names[0]] is market
    assert as_markets(markets) is markets


def test_results_of_one_and_of_several_have_the_same_names():
    """Instruments, venues, policies, markets, marks and fields of the record."""
    market = bt.Market.sample(bars=60)
    policy = bt.strategies.Constant(2.0)
    one = bt.run(market, policy, venue=VENUE, account=ACCOUNT, compile=False)
    pair = bt.Markets({"A": market, "B": market})
    two = bt.run(pair, policy, venue=VENUE, account=ACCOUNT, compile=False)
    for result, n in ((one, 1), (two, 2)):
        assert len(result.names) == n
        assert list(result.venues) == list(result.policies) == list(result.names)
        assert result.overlay is None
        assert result.markets.names == result.names
        assert result.spans.tolist() == [[0, 60]] * n
        assert result.last_time == result.time[-1] == market.time[-1]
        assert result.marks.shape == result.of_positions("quantity").shape == (60, n)
        np.testing.assert_array_equal(result.of_account("equity"), result.bars["equity"])
    np.testing.assert_array_equal(
        one.of_positions("quantity")[:, 0], one.record[:, RECORDED.index("position")]
    )
