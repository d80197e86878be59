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
    given = {"taker": 5e-4, "slippage": 1e-4, "maintenance_rate": 0.005, "max_leverage": 50.0}
    venue = bt.Venue.simple(**{**given, "liquidation_fee": 0.01})
    return venue.override({"option_costs": COSTS, **more})


def make_surfaces(
    times: list[str], volatility: float = 0.6, carry: float = 0.0, shift: float = 0.0, at: int = -1
) -> Surfaces:
    """Return flat surfaces of two expiries, 7 and 30 days after each time. Volatility rises by a
    point each time; that of ``at`` is ``shift`` higher."""
    found = []
    for k, each in enumerate(times):
        time, years = pd.Timestamp(each, tz="UTC"), np.array([7.0, 30.0]) / 365.0
        level = volatility + 0.01 * k + (shift if k == at else 0.0)
        expiries = [time + pd.Timedelta(days=d) for d in (7, 30)]
        forwards = 20_000.0 * np.exp(carry * years)
        fits = pd.DataFrame({"expiry": expiries, "years": years, "forward": forwards})
        smiles = tuple(SVI(level**2 * t, 0.0, 0.0, 0.0, 0.1) for t in years)
        empty = pd.DataFrame()
        found.append(
            Surface(time, "BTC", "svi", smiles, fits, empty, 20_000.0, "cash", empty, None)
        )
    return Surfaces(tuple(found), pd.DataFrame(columns=["time", "reason"]))


def make_chain(stamps: list[str], shift: float = 0.0, at: int = -1) -> bt.Chain:
    """Return the sample chain at several times, in cash; that of ``at`` is moved by ``shift``."""
    parts = []
    for k, each in enumerate(stamps):
        rows = write_sample()
        rows["time"], rows["index"] = rows["time"] + (pd.Timestamp(each, tz="UTC") - TIME), 20_000.0
        factor = 0.2 * (1.0 + (shift if k == at else 0.0) + 0.003 * k)
        for name in ("strike", "forward"):
            rows[name] *= 0.2
        for name in ("bid", "mark", "ask"):
            rows[name] *= 100_000.0 * factor
        parts.append(rows.assign(underlying="BTC"))
    return bt.Chain.from_frame(pd.concat(parts, ignore_index=True), settlement="cash")


def make_markets(bars: int = 240, options: Any = None, **more: Any) -> bt.Markets:
    """Return the sample market as BTC with a listed put, under one flat surface."""
    given = {"surfaces": {"BTC": make_surfaces(["2023-01-01 06:30"])}, **more}
    return bt.Markets({"BTC": bt.Market.sample(bars=bars), **(options or {"PUT": PUT})}, **given)
