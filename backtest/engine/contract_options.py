"""Listed options for the checks of policies that trade them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base.units import DAY, YEAR_DAYS
from backtest.market import Market, Markets
from backtest.options import SVI, Surface, Surfaces
from backtest.venue import Option, OptionCosts, Venue

EVERY = 21
"""Days from one expiry to the next."""
STRIKES = (0.85, 1.0, 1.2)
"""Strikes over the first close."""
VOLATILITY = 0.6
COSTS = OptionCosts(
    fee=0.0003, fee_cap=0.125, delivery_fee=0.00015, delivery_cap=0.125, tick=0.0, spread=0.02
)


def list_options(market: Market, end: int, *, is_coin: bool) -> Markets:
    """Return a market with puts and calls under one flat surface, known before its first bar.

    They depend on the first close and on ``end`` (UTC ns), so that another future has the same.
    """
    begin, price = int(market.time[0]), float(market.close[0])
    settlement = "coin" if is_coin else "cash"
    days = range(EVERY, int((end - begin) / DAY) + 2 * EVERY + 1, EVERY)
    options = [
        Option(
            kind=kind,
            strike=float(f"{share * price:.3g}"),
            expiry=str(pd.Timestamp(begin + day * DAY, tz="UTC")),
            underlying="X",
            settlement=settlement,
        )
        for day in days
        for share in STRIKES
        for kind in ("call", "put")
    ]
    years = np.array([EVERY, days[-1]]) / YEAR_DAYS
    stamp, nothing = pd.Timestamp(begin - 1, tz="UTC"), pd.DataFrame()
    fits = pd.DataFrame(
        {
            "expiry": [stamp + pd.Timedelta(days=int(day)) for day in (EVERY, days[-1])],
            "years": years,
            "forward": price,
        }
    )
    smiles = tuple(SVI(VOLATILITY**2 * each, 0.0, 0.0, 0.0, 0.1) for each in years)
    unread: Any = None  # it was fitted to no chain
    surface = Surface(stamp, "X", "svi", smiles, fits, nothing, price, settlement, nothing, unread)
    surfaces = Surfaces((surface,), pd.DataFrame(columns=["time", "reason"]))
    listed = {str(each.name): each for each in options}
    return Markets({"X": market, **listed}, surfaces={"X": surfaces}, max_age="10000d")


def hold_options(venue: Venue, account: Account) -> tuple[Venue, Account]:
    rule: Any = "deribit-standard"
    own = replace(account, margin="cross", venue_leverage=None, requirement=rule)
    return venue.override({"option_costs": COSTS}), own
