"""From the venues to the project's own layout: downloads that resume and are never half-written.

Read in this order: ``door`` (the whole of a fetch), ``request`` (what is asked for), ``target``
(the folder and its lock), ``parts`` and ``seed`` (what is there already), ``archive`` and
``exchange`` (the two kinds of source), ``offers`` (which venue has what), ``web``, ``patience``,
``unzip`` and ``archive_csv`` (one file of the archive), ``gaps`` (what the venue lacks),
``publish`` (the final files). httpx and ccxt are loaded when they are needed.
"""

from backtest.market.fetch.backoff import RetryPolicy
from backtest.market.fetch.fetch_market import Fetched, fetch_market
from backtest.market.fetch.request import Request, read_request

__all__ = ["Fetched", "Request", "RetryPolicy", "fetch_market", "read_request"]
