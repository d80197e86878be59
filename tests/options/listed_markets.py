"""Small markets with listed options, for tests of their inputs."""

from typing import Any

import numpy as np
import pandas as pd

import backtest as bt
from backtest.options import SVI, Surface, Surfaces
from backtest.options.chain import TIME, write_sample

COSTS = bt.OptionCosts(
    fee=0.0003, fee_cap=0.125, delivery_fee=0.00015, delivery_cap=0.125, tick=0.1, spread=0.02,
    lot=0.0,
)  # fmt: skip
PUT = bt.Option(kind="put", strike=30_000, expiry="2023-01-08 12:00", underlying="BTC")


def make_venue(**more: Any) -> bt.Venue:
    settings = {
        "taker": 5e-4, "slippage": 1e-4, "maintenance_rate": 0.005, "max_leverage": 50.0,
        "liquidation_fee": 0.01,
    }  # fmt: skip
    return bt.Venue.simple(**settings).override({"option_costs": COSTS, **more})


def make_surfaces(
    times: list[str], volatility: float = 0.6, carry: float = 0.0, shift: float = 0.0, at: int = -1
) -> Surfaces:
    """Return flat surfaces of two expiries, 7 and 30 days after each time. Volatility rises by a
    point each time; that of ``at`` is ``shift`` higher."""
    surfaces = []
    days = np.array([7.0, 30.0])
    years = days / 365.0
    empty = pd.DataFrame()
    for k, stamp in enumerate(times):
        time = pd.Timestamp(stamp, tz="UTC")
        level = volatility + 0.01 * k
        if k == at:
            level += shift

        expiries = [time + pd.Timedelta(days=days_left) for days_left in days]
        forwards = 20_000.0 * np.exp(carry * years)
        fits = pd.DataFrame({"expiry": expiries, "years": years, "forward": forwards})
        smiles = tuple(SVI(level**2 * t, 0.0, 0.0, 0.0, 0.1) for t in years)
        surfaces.append(
            Surface(time, "BTC", "svi", smiles, fits, empty, 20_000.0, "cash", empty, None)
        )

    return Surfaces(tuple(surfaces), pd.DataFrame(columns=["time", "reason"]))


def make_chain(stamps: list[str], shift: float = 0.0, at: int = -1) -> bt.Chain:
    """Return the sample chain at several times, in cash; that of ``at`` is moved by ``shift``."""
    parts = []
    for k, stamp in enumerate(stamps):
        rows = write_sample()
        rows["time"] += pd.Timestamp(stamp, tz="UTC") - TIME
        rows["index"] = 20_000.0

        # The sample is in coins of 100,000.
        factor = 1.0 + 0.003 * k
        if k == at:
            factor += shift
        for name in ("strike", "forward"):
            rows[name] *= 0.2
        for name in ("bid", "mark", "ask"):
            rows[name] *= 20_000.0 * factor
        parts.append(rows.assign(underlying="BTC"))

    return bt.Chain.from_frame(pd.concat(parts, ignore_index=True), settlement="cash")


def make_markets(bars: int = 240, options: Any = None, **more: Any) -> bt.Markets:
    """Return the sample market as BTC with a listed put, under one flat surface."""
    terms = {"surfaces": {"BTC": make_surfaces(["2023-01-01 06:30"])}, **more}
    listed = options or {"PUT": PUT}
    return bt.Markets({"BTC": bt.Market.sample(bars=bars), **listed}, **terms)
