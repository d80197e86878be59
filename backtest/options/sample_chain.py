"""A synthetic chain of quotes, for examples."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from backtest.options.pricing import price

TIME = pd.Timestamp("2023-01-01 12:00", tz="UTC")
"""Half a day after the sample market begins."""
SPOT = 100_000.0
DAYS = (2.0, 7.0, 30.0, 90.0, 180.0)
SPREAD = 0.01


def write_sample() -> pd.DataFrame:
    """Return quotes of one underlying around a known smile, in coins.

    Volatility is ``0.5 - 0.05 z + 0.02 z^2`` at z standard deviations of log-moneyness, bids and
    asks a point below and above it.
    """
    parts = []
    for days in DAYS:
        years = days / 365.0
        forward = SPOT * math.exp(0.06 * years)
        z = np.linspace(-2.5, 2.5, 21)
        strike = np.round(forward * np.exp(z * 0.5 * math.sqrt(years)), -2)
        z = np.log(strike / forward) / (0.5 * math.sqrt(years))
        volatility = 0.5 - 0.05 * z + 0.02 * z * z
        for kind in ("call", "put"):
            place = (kind, forward, strike, years)
            rows = pd.DataFrame({"strike": strike, "iv": volatility}).assign(
                time=TIME, expiry=TIME + pd.Timedelta(days=days), kind=kind, forward=forward,
                index=SPOT, underlying="SYNTHETIC",
                bid=price(*place, volatility - SPREAD, 0.0, "coin"),
                mark=price(*place, volatility, 0.0, "coin"),
                ask=price(*place, volatility + SPREAD, 0.0, "coin"),
            )  # fmt: skip
            parts.append(rows)
    return pd.concat(parts, ignore_index=True)
