"""Infer the settlement currency of an instrument from its name."""

from __future__ import annotations

import re

_QUOTES = "USDT|USDC|FDUSD|BUSD|TUSD|USD|EUR|GBP|JPY|BTC|ETH|BNB"
_SETTLED = re.compile(r"[^/:]+/[^/:]+:(?P<currency>[A-Z]+)(-.*)?")
_INVERSE = re.compile(r"(?P<currency>[A-Z0-9]{2,})USD_(PERP|\d{6})")
_QUOTED = re.compile(
    rf"(?P<coin>[A-Z0-9]{{2,}}?)[-/_]?(?P<currency>{_QUOTES})([-_](PERP|SWAP|\d{{6}}))?"
)
_CURRENCY = re.compile(r"[A-Z0-9]{2,12}")


def is_currency(text: object) -> bool:
    """Whether a value is the name of a currency: 2 to 12 capital letters and digits."""
    return isinstance(text, str) and _CURRENCY.fullmatch(text) is not None


def find_currency(instrument: str, *, is_inverse: bool = False) -> str:
    """Return the settlement currency in the name of an instrument; empty if there is none.

    The last part of a name is the quote currency, in which only a linear contract settles.

    Examples
    --------
    >>> [find_currency(name) for name in ("BTCUSDT", "ETH/USDC:USDC", "BTCUSD_PERP", "SPY")]
    ['USDT', 'USDC', 'BTC', '']
    >>> find_currency("BTCUSD"), find_currency("BTCUSD", is_inverse=True)
    ('USD', '')
    """
    patterns = (_SETTLED, _INVERSE) if is_inverse else (_SETTLED, _INVERSE, _QUOTED)
    matches = (pattern.fullmatch(instrument) for pattern in patterns)
    return next((match["currency"] for match in matches if match), "")


def find_coin(instrument: str) -> str:
    """Return the coin that is quoted in the name of an instrument; empty if it says none.

    Examples
    --------
    >>> find_coin("BTCUSDT"), find_coin("ETH-USDC"), find_coin("gold")
    ('BTC', 'ETH', '')
    """
    match = _QUOTED.fullmatch(instrument)
    return match["coin"] if match else ""
