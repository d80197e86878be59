"""Currencies and coins in the names of instruments."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from backtest.base import Declaration, Fault

_QUOTES = "USDT|USDC|FDUSD|BUSD|TUSD|USD|EUR|GBP|JPY|BTC|ETH|BNB"
_SETTLED = re.compile(r"[^/:]+/[^/:]+:(?P<currency>[A-Z]+)(-.*)?")
_INVERSE = re.compile(r"(?P<currency>[A-Z0-9]{2,})USD_(PERP|\d{6})")
_QUOTED = re.compile(
    rf"(?P<coin>[A-Z0-9]{{2,}}?)[-/_]?(?P<currency>{_QUOTES})([-_](PERP|SWAP|\d{{6}}))?"
)


def find_currency(instrument: str, *, is_inverse: bool = False) -> str:
    """Return the settlement currency in the name of an instrument; empty if there is none.

    The last part of a name is the quote currency, in which only a linear contract settles.
    """
    patterns = (_SETTLED, _INVERSE) if is_inverse else (_SETTLED, _INVERSE, _QUOTED)
    matches = (pattern.fullmatch(instrument) for pattern in patterns)
    return next((match["currency"] for match in matches if match), "")


def find_coin(instrument: str) -> str:
    match = _QUOTED.fullmatch(instrument)
    return match["coin"] if match else ""


class Currency(Declaration):
    kind: ClassVar[type] = str

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"[A-Z0-9]{2,12}", value):
            raise Fault("must be a currency in capital letters, 'USDT' for example")
        return value
