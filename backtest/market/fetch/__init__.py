"""Downloads of market data into a folder for ``Market.load``; they resume, and are never partial.

Read in this order: ``door`` (a whole fetch), ``request`` (what is fetched), ``target`` (the folder
and its lock), ``parts`` and ``seed`` (the days stored so far), ``archive`` and ``exchange`` (the
two kinds of source), ``offers`` (what each exchange has), ``web`` and ``patience`` (HTTP and
retries), ``gaps`` (what the venue lacks), ``publish`` (the final files). httpx and ccxt are
imported when they are needed.
"""

from backtest.market.fetch.download import RetryPolicy
from backtest.market.fetch.fetch_market import Fetched, fetch_market
from backtest.market.fetch.request import Request, read_request

__all__ = ["Fetched", "Request", "RetryPolicy", "fetch_market", "read_request"]
