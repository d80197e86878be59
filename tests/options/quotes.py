"""Quotes around a known volatility, and the chain, the surfaces and the hours made of them."""

import math

import numpy as np
import pandas as pd

import backtest as bt
from backtest import options

NOW = pd.Timestamp("2026-01-01 12:00", tz="UTC")


def make_rows(
    days: tuple[float, ...] = (7.0, 30.0, 90.0),
    spot: float = 100.0,
    time: pd.Timestamp = NOW,
    settlement: str = "coin",
    spread: float = 0.01,
) -> pd.DataFrame:
    """Return quotes around .6 + .2 k^2 - .1 k, with forwards of spot (1 + T / 20)."""
    parts = []
    for each in days:
        years = each / 365.0
        forward = spot * (1.0 + years / 20.0)
        k = np.linspace(-2.5, 2.5, 13) * 0.6 * math.sqrt(years)
        strike = np.round(forward * np.exp(k), 6)
        volatility = known_volatility(np.log(strike / forward))
        for kind in ("call", "put"):
            bid, mark, ask = (
                options.price(kind, forward, strike, years, volatility + shift, 0.0, settlement)
                for shift in (-spread, 0.0, spread)
            )
            parts.append(
                pd.DataFrame(
                    {
                        "time": time,
                        "expiry": time + pd.Timedelta(days=each),
                        "strike": strike,
                        "kind": kind,
                        "bid": bid,
                        "ask": ask,
                        "mark": mark,
                        "iv": volatility,
                        "forward": forward,
                        "index": spot,
                        "underlying": "BTC",
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def known_volatility(k: np.ndarray) -> np.ndarray:
    return 0.6 + 0.2 * k * k - 0.1 * k


def make_chain(**given: object) -> bt.Chain:
    settlement = str(given.get("settlement", "coin"))
    return bt.Chain.from_frame(make_rows(**given), settlement=settlement)  # type: ignore[arg-type]


def make_surfaces() -> bt.Surfaces:
    """Return surfaces of three days at 12:00, whose volatility rises with the spot price."""
    days = [make_rows(spot=100.0 + 10.0 * k, time=NOW + pd.Timedelta(days=k)) for k in range(3)]
    return bt.Surfaces.fit(bt.Chain.from_frame(pd.concat(days), settlement="coin"))


def hours(n: int, start: str = "2026-01-01") -> bt.Market:
    index = pd.date_range(start, periods=n, freq="h", tz="UTC")
    prices = 100.0 + np.sin(np.arange(n))
    frame = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), prices), index=index)
    return bt.Market.from_frames(frame, instrument="BTCUSD")


ROWS = make_rows(days=(30.0,))
