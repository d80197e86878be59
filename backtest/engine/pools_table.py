"""The table of the pools of an account that settles in several currencies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from backtest.base import IntArray, utc_index
from backtest.engine.record import PoolFields

COLUMNS = (
    "time", "currency", "equity", "cash", "balance", "backing", "requirement", "margin_ratio",
    "initial_margin", "transferred", "rate", "fx_pnl",
)  # fmt: skip


def pools_table(
    time: IntArray, currencies: Sequence[str], pools: PoolFields | None
) -> pd.DataFrame:
    """Return a row per bar and currency; none of an account in one currency.

    Columns: ``time``, ``currency``, ``equity``, ``cash``, ``balance`` (B), ``backing`` (M),
    ``requirement``, ``margin_ratio`` and ``initial_margin`` of its cross positions, and
    ``transferred``, what came in from other pools before the cost: in its currency; ``rate``, the
    price of the currency at the close, and ``fx_pnl``, what that gained, in the currency of the
    account.
    """
    if pools is None or not currencies:
        return pd.DataFrame({name: [] for name in COLUMNS})
    parts = []
    for pool, currency in enumerate(currencies):
        own = {name: each[:, pool] for name, each in pools.of_pools().items()}
        table = pd.DataFrame({"time": utc_index(time), "currency": currency, **own})
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(table.backing > 0.0, table.requirement / table.backing, np.inf)
        table["margin_ratio"] = np.where(table.requirement > 0.0, ratio, 0.0)
        parts.append(table.rename(columns={"initial": "initial_margin"})[list(COLUMNS)])
    whole = pd.concat(parts, ignore_index=True)
    return whole.sort_values("time", kind="stable", ignore_index=True)
