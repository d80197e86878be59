"""Short runs to be reported."""

import backtest as bt

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")


def live(policy, days=80, **settings):
    market = bt.Market.sample(bars=24 * days)
    account = bt.Account(**{"capital": 10_000.0, **settings})
    return bt.run(market, policy, venue=VENUE, account=account, compile=False)
