"""The coin or stock that an instrument is named after."""

from __future__ import annotations

import re

QUOTES = re.compile(r"[-_/]?(USDT|USDC|BUSD|FDUSD|USD|PERP|SWAP).*")
ALIASES = {"XBT": "BTC", "PF_XBT": "BTC", "PF_ETH": "ETH"}


def find_asset(instrument: str) -> str:
    whole = instrument.upper()
    asset = QUOTES.sub("", whole) or whole
    return ALIASES.get(asset, asset)
