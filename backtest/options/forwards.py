"""Forwards of expiries that have no future, by put-call parity."""

from __future__ import annotations

import numpy as np
import pandas as pd

NEAREST = 3
"""Strikes nearest the money whose parities are averaged by their median."""


def fill_forwards(table: pd.DataFrame, settlement: str) -> pd.DataFrame:
    filled = table.copy()
    for _, rows in table.groupby(["time", "underlying", "expiry"], sort=False):
        without = rows.index[rows["forward_source"] == "none"]
        if without.empty:
            continue
        forward, source = find_parity(rows, settlement), "parity"
        if np.isnan(forward):
            forward, source = float(rows.loc[without, "index"].median()), "index"
        if np.isnan(forward):
            source = "none"
        filled.loc[without, "forward"] = forward
        filled.loc[without, "forward_source"] = source
    return filled


def find_parity(rows: pd.DataFrame, settlement: str) -> float:
    """Return the forward at which calls less puts of one expiry agree, NaN without a pair.

    In cash ``C - P = F - K``, undiscounted; in coins ``C - P = 1 - K / F``.
    """
    mid = (0.5 * (rows["bid"] + rows["ask"])).to_numpy()
    pairs = pd.DataFrame({"strike": rows["strike"], "kind": rows["kind"], "mid": mid})
    wide = pairs.pivot_table(index="strike", columns="kind", values="mid", aggfunc="first")
    if not {"call", "put"} <= {*wide.columns}:
        return float("nan")
    difference = (wide["call"] - wide["put"]).dropna()
    nearest = np.argsort(difference.abs().to_numpy(), kind="stable")[:NEAREST]
    difference = difference.iloc[nearest]
    if difference.empty:
        return float("nan")
    strikes = difference.index.to_numpy(dtype=np.float64)
    values = difference.to_numpy()
    if settlement == "coin":
        strikes, values = strikes[values < 1.0], values[values < 1.0]
        forwards = strikes / (1.0 - values)
    else:
        forwards = (strikes + values)[strikes + values > 0.0]
    return float(np.median(forwards)) if forwards.size else float("nan")
