"""Analyses of a result: its forecasts of liquidation, and how leverage was used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from backtest.base import (
    BoolArray,
    FloatArray,
    IntArray,
    ParameterError,
    Range,
    check_range,
    parse_duration,
)
from backtest.engine.run_data import forecast_touches
from backtest.features import count_horizon, find_touches
from backtest.measures import Calibration, LeverageProfile, calibrate, check_bins, profile_leverage

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


def profile_run(
    result: RunRecord,
    use: tuple[FloatArray, FloatArray, BoolArray, int],
    horizon: str,
    groups: int,
    depth: float,
    window: str,
) -> LeverageProfile:
    where = "Result.leverage_profile"
    whole = Range(2, 1000).check("groups", groups, where=f"{where}, groups", whole=True)
    least = check_range(
        "depth", depth, where=f"{where}, depth", low=0, high=1, open_low=True, open_high=True
    )
    ahead, back = (
        max(parse_duration(text, where=f"{where}, {name}") // result.interval, 1)
        for name, text in (("horizon", horizon), ("window", window))
    )
    leverage, move, is_counted, start = use
    lived = np.flatnonzero(is_counted)
    rows = slice(start, int(lived.max(initial=-1)) + 1)
    if rows.start >= rows.stop:
        raise ParameterError(
            f"a leverage profile needs an account that lives for two bars, got {len(lived)}",
            where=where,
            cure="use a longer run, or one that is not ruined at once",
        )
    return profile_leverage(
        leverage[rows],
        move[rows],
        result.of_account("unit")[rows],
        result.span.named[rows],
        first_peak=result.first_peak,
        horizon=ahead,
        groups=int(whole),
        depth=least,
        window=back,
    )
