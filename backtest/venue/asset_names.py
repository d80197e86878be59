"""The coin or stock that an instrument is named after."""

from __future__ import annotations

import re

QUOTES = re.compile(r"[-_/]?(USDT|USDC|BUSD|FDUSD|USD|PERP|SWAP).*")
ALIASES = {"XBT": "BTC", "PF_XBT": "BTC", "PF_ETH": "ETH"}
"""Names under which venues list a coin."""


def find_asset(instrument: str) -> str:
    """Return the coin or stock that an instrument is named after, in capitals.

    Examples
    --------
    >>> find_asset("XBT-PERPETUAL"), find_asset("btc"), find_asset("AAPL")
    ('BTC', 'BTC', 'AAPL')
    """
    whole = instrument.upper()
    asset = QUOTES.sub("", whole) or whole
    return ALIASES.get(asset, asset)
