"""Downloads into a folder for ``Market.load``; they resume, and are never partial."""

from backtest.market.fetch.download import RetryPolicy
from backtest.market.fetch.fetch_market import Fetched, fetch_market
from backtest.market.fetch.request import Request, read_request

__all__ = ["Fetched", "Request", "RetryPolicy", "fetch_market", "read_request"]
