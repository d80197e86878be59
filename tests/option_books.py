"""Options of small books, and venues without a rule of their own."""

import pandas as pd

import backtest as bt
from tests.kit import make_venue

NOW = pd.Timestamp("2026-01-01")
FREE = make_venue(maintenance_rate=0.001, max_leverage=1000)
SHARES = make_venue(maintenance_rate=0.25, max_leverage=2)


def hold(quantity, kind="put", strike=50_000.0, days=30.0, index=60_000.0, size=1.0, **given):
    """Return an option on BTC; with a volatility of 60 % unless one or a mark is given."""
    settlement = given.pop("settlement", "cash")
    option = bt.Option(
        kind=kind, strike=strike, expiry=str(NOW + pd.Timedelta(days=days)), settlement=settlement,
        size=size, underlying="BTC",
    )  # fmt: skip
    if "mark" not in given:
        given.setdefault("volatility", 0.6)
    return bt.OptionPosition(option, quantity, index, str(NOW), **given)


def stock_option(kind, strike, quantity, mark, price, days=30.0):
    expiry = str(NOW + pd.Timedelta(days=days))
    option = bt.Option(kind=kind, strike=strike, expiry=expiry, size=100, underlying="XYZ")
    return bt.OptionPosition(option, quantity, price, str(NOW), mark=mark)
