"""The exchanges that can be fetched from: what each has, and how much of it in one answer.

Sources: ccxt 4.5.64, the methods ``fetch_ohlcv`` and ``fetch_funding_rate_history`` of each
exchange and their limits (read 2026-11-20); tests compare ``kinds`` with its ``has``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

ARCHIVE = "binance-archive"
ARCHIVE_URL = "https://data.binance.vision"
"""Source: github.com/binance/binance-public-data, README, "Where do I access it"."""
MARKETS = ("um", "cm")


class Offer(NamedTuple):
    """What an exchange offers through the ccxt class ``client``.

    ``kinds`` are the kinds of data that it has a history of, ``limits`` the most rows in one answer
    by kind, and ``until`` the parameter that ends a window of funding. If ``ends_bars`` is True,
    requests of bars need an end too: the venue answers with the last bars of a window. ``rate`` and
    ``mark`` are the fields of the venue's own answer with the rate, if ccxt's is not the one, and
    with the price of the settlement.
    """

    client: str
    kinds: tuple[str, ...]
    limits: Mapping[str, int]
    until: str = "until"
    ends_bars: bool = False
    rate: str | None = None
    mark: str | None = None


_ALL = ("bars", "mark", "funding")
_NO_MARK = ("bars", "funding")

OFFERS: Mapping[str, Offer] = {
    "binance": Offer(
        "binanceusdm", _ALL, {"bars": 1000, "mark": 1000, "funding": 1000}, mark="markPrice"
    ),
    "binance-coinm": Offer(
        "binancecoinm", _ALL, {"bars": 1000, "mark": 1000, "funding": 1000}, mark="markPrice"
    ),
    "bybit": Offer("bybit", _ALL, {"bars": 1000, "mark": 1000, "funding": 200}),
    "okx": Offer("okx", _ALL, {"bars": 100, "mark": 100, "funding": 100}, until="after"),
    "hyperliquid": Offer("hyperliquid", _NO_MARK, {"bars": 5000, "funding": 500}, ends_bars=True),
    "bitmex": Offer("bitmex", _NO_MARK, {"bars": 500, "funding": 500}),
    # An hour's payment: ccxt's own fundingRate is the sum of eight, at every hour.
    "deribit": Offer("deribit", _NO_MARK, {"bars": 1000, "funding": 700}, rate="interest_1h"),
}
