"""The quotes of a chain that a fit uses, and how well they agree with it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest.base import FloatArray
from backtest.options.svi import SVI

WIDENING = 0.005
"""Volatility added to half the spread: differences within it weigh little."""
WIDTH = 2.5
"""Standard deviations of log-moneyness within which a fit is judged."""
MOST_BEYOND = 30.0
"""Largest logarithm of what the tolerance of a far quote is multiplied by."""
FEWEST = 5
"""Two-sided strikes that the fit of an expiry needs: as many as parameters."""


class Quotes(NamedTuple):
    k: FloatArray
    bid: FloatArray
    ask: FloatArray
    years: float

    @property
    def mid(self) -> FloatArray:
        return 0.5 * (self.bid + self.ask)

    @property
    def money(self) -> float:
        return float(self.mid[np.argmin(np.abs(self.k))])

    @property
    def width(self) -> float:
        return self.money * math.sqrt(self.years)

    @property
    def tolerance(self) -> FloatArray:
        z = self.k / self.width
        beyond = np.minimum(0.5 * np.maximum(z * z - WIDTH**2, 0.0), MOST_BEYOND)
        return (0.5 * (self.ask - self.bid) + WIDENING) * np.exp(beyond)


def is_out_of_the_money(rows: pd.DataFrame) -> pd.Series:
    return (rows["kind"] == "call") == (rows["k"] >= 0.0)


def choose_rows(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = rows.assign(k=np.log(rows["strike"] / rows["forward"]))
    keys = ["expiry", "strike", "kind"]
    reasons = pd.Series("", rows.index)
    for reason, bad in (
        ("expired", ~(rows["years"] > 0.0)),
        ("no forward", rows["forward"].isna()),
        ("duplicated", rows.duplicated(keys)),
        ("no bid", rows["bid"].isna()),
        ("no ask", rows["ask"].isna()),
        ("crossed", rows["bid"] > rows["ask"]),
        ("ask without a volatility", rows["ask_iv"].isna()),
    ):
        reasons = reasons.where((reasons != "") | ~bad, reason)
    inverted = (reasons == "") & rows["bid_iv"].notna()
    strikes = rows[inverted].groupby("expiry")["strike"].nunique()
    few = rows["expiry"].map(strikes).fillna(0) < FEWEST
    reasons = reasons.where((reasons != "") | ~few, f"fewer than {FEWEST} two-sided strikes")
    used = reasons == ""
    columns = ["expiry", "strike", "kind", "name"]
    left = rows.loc[~used, columns].assign(reason=reasons[~used])
    return rows[used].reset_index(drop=True), left.reset_index(drop=True)


def collect_quotes(part: pd.DataFrame) -> Quotes:
    is_out = is_out_of_the_money(part)
    both = part["bid_iv"].notna()
    ranked = part[both].assign(rank=~is_out[both]).sort_values(["strike", "rank"], kind="stable")
    best = ranked.drop_duplicates("strike")
    k, bid, ask = (best[name].to_numpy(dtype=np.float64) for name in ("k", "bid_iv", "ask_iv"))
    return Quotes(k, bid, ask, float(part["years"].median()))


def describe_fit(part: pd.DataFrame, smile: SVI) -> dict[str, object]:
    years = float(part["years"].median())
    fitted = np.sqrt(smile.total_variance(part["k"].to_numpy()) / years)
    money = math.sqrt(float(smile.total_variance(0.0)))
    near = (part["k"].abs() <= WIDTH * money).to_numpy()
    low = part["bid_iv"].fillna(0.0).to_numpy() - WIDENING
    inside = (fitted >= low) & (fitted <= part["ask_iv"].to_numpy() + WIDENING)
    marks = part["iv"].fillna(part["mark_iv"]).to_numpy()
    errors = np.abs(fitted - marks)[near]
    known = errors[~np.isnan(errors)]
    return {
        "expiry": part["expiry"].iloc[0],
        "years": years,
        "forward": float(part["forward"].median()),
        "forward_source": part["forward_source"].iloc[0],
        "a": smile.a,
        "b": smile.b,
        "rho": smile.rho,
        "m": smile.m,
        "sigma": smile.sigma,
        "quotes": int(near.sum()),
        "strikes": int(part.loc[near, "strike"].nunique()),
        "inside": float(inside[near].mean()) if near.any() else math.nan,
        "median_error": float(np.median(known)) if known.size else math.nan,
        "worst_error": float(known.max()) if known.size else math.nan,
        "least_density": smile.least_density,
    }
