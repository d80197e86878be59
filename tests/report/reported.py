"""Short runs to be reported."""

import backtest as bt

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")


def live(policy, days=80, **settings):
    market = bt.Market.sample(bars=24 * days)
    account = bt.Account(**{"capital": 10_000.0, **settings})
    return bt.run(market, policy, venue=VENUE, account=account, compile=False)


def watched_page(context, address: str):
    """Open an address; what went wrong and what was asked for is kept on the page."""
    page = context.new_page()
    page.trouble, page.requests = [], []
    page.on("console", lambda message: page.trouble.append(message.text))
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(address)
    return page
