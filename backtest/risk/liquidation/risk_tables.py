"""Tables of a risk: quantiles of wealth by time, liquidations by day, and the typical path."""

from __future__ import annotations

import numpy as np
import pandas as pd

from backtest.base import FloatArray
from backtest.base.units import DAY
from backtest.risk.liquidation.path_events import PathEvents
from backtest.risk.paths.path_set import Paths

FAN = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the fan."""


def find_days(paths: Paths) -> FloatArray:
    """Return the days from the start to the close of each bar, of shape (n_bars,)."""
    time = paths.calendar.time
    return np.asarray((time[1:] - time[0]) / DAY, dtype=np.float64)


def weighted_quantiles(
    values: FloatArray, weights: FloatArray, chances: tuple[float, ...]
) -> list[float]:
    """Return the values below which these shares of the weight lie."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    at = np.searchsorted(total, np.array(chances) * total[-1])
    return [float(values[order][min(k, len(values) - 1)]) for k in at]


def tabulate_fan(paths: Paths, events: PathEvents) -> pd.DataFrame:
    """Return quantiles of wealth by close."""
    values = np.quantile(events.shown, FAN, axis=0).T
    names = [f"equity_{round(100 * q):02d}" for q in FAN]
    return pd.DataFrame(values, columns=names, index=paths.time[1:])


def tabulate_hazard(paths: Paths, events: PathEvents) -> pd.DataFrame:
    """Return liquidations by day: paths at risk, liquidated in it, and the share."""
    day = np.ceil(find_days(paths) - 1e-9).astype(np.int64)
    n_days = int(day[-1])
    died = events.liquidated[events.liquidated < paths.n_bars]
    counts = np.bincount(day[died] - 1, minlength=n_days)
    at_risk = len(events.liquidated) - np.concatenate([[0], np.cumsum(counts)[:-1]])
    share = counts / np.maximum(at_risk, 1)
    columns = {"at_risk": at_risk, "liquidated": counts, "hazard": share}
    return pd.DataFrame(columns, index=pd.RangeIndex(1, n_days + 1, name="day"))


def find_typical(
    paths: Paths, events: PathEvents, tilted: PathEvents | None
) -> pd.DataFrame | None:
    """Return the mean path given a liquidation, from tilted paths where those are used."""
    chosen = events if tilted is None else tilted
    if not chosen.doom > 0.0:
        return None
    price, wealth = chosen.doomed / chosen.doom
    return pd.DataFrame({"price": price, "equity": wealth}, index=paths.time[1:])
