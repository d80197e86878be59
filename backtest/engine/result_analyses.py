"""Analyses of a result: its forecasts of liquidation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from backtest.base import (
    IntArray,
)
from backtest.engine.run_data import forecast_touches
from backtest.features import count_horizon, find_touches
from backtest.measures import Calibration, calibrate, check_bins

if TYPE_CHECKING:
    from backtest.engine.run_record import RunRecord


def calibrate_run(
    result: RunRecord,
    horizon: str,
    bins: int | Sequence[float],
    degrees_of_freedom: float | None,
) -> Calibration:
    where = "Result.calibration"
    ends = check_bins(bins, where=f"{where}, bins")
    sigma, trails = result.volatilities
    counts = [
        count_horizon(
            each, horizon, result.interval, is_session=result.is_session, where=f"{where}, horizon"
        )
        for each in trails
    ]
    prices, held = result.liquidation_prices, result.of_positions("quantity")
    quotes = result.quotes
    found = [
        find_touches(held[:, i], prices[:, i], quotes.mark_low[:, i], quotes.mark_high[:, i], n)
        for i, n in enumerate(counts)
    ]
    touched, is_known = (np.stack(each, axis=1) for each in zip(*found, strict=True))
    return calibrate(
        forecast_touches(result, horizon, degrees_of_freedom, prices).ravel(order="F"),
        touched.ravel(order="F"),
        sigma.ravel(order="F"),
        count_liquidations(result).ravel(order="F"),
        is_counted=(is_known & ~np.isnan(sigma)).ravel(order="F"),
        horizon=horizon,
        bars=counts[0],
        bins=ends,
    )


def count_liquidations(result: RunRecord) -> IntArray:
    """Return the liquidations in the bar after each close, of shape (n_bars, n)."""
    events = result.events
    dead = events[events["kind"] == "liquidation"]
    if "instrument" in dead:  # options have no price of their own that liquidates
        dead = dead[dead["instrument"].isin(result.names)]
    found = np.zeros((len(result.time), len(result.names)), dtype=np.int64)
    rows = np.searchsorted(result.time, pd.DatetimeIndex(dead["time"]).as_unit("ns").asi8) - 1
    who = np.zeros(len(dead), dtype=np.int64)
    if "instrument" in dead:
        who += dead["instrument"].cat.codes.to_numpy()
    np.add.at(found, (np.maximum(rows, 0), who), 1)
    return found
