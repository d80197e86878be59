"""The rates of a lending market by its utilization: a curve with a kink, as at Aave."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pandas as pd

from backtest.base import (
    FloatArray,
    FloatSeries,
    Number,
    ParameterError,
    Value,
    declared,
    did_you_mean,
    utc_index,
)
from backtest.market import Market

SLOPE = Number(0, 100)


@declared
class RateCurve(Value):
    """Rates per year of borrowing and supplying, by the utilization of a lending market.

    Parameters
    ----------
    base : float
        The borrow rate at a utilization of 0.
    slope1, slope2 : float
        How much it rises up to the optimal utilization, and from there to a utilization of 1.
    optimal : float
        The utilization at the kink, over 0 and under 1.
    reserve_factor : float
        The share of the interest that the protocol keeps, from 0 to 1.

    Notes
    -----
    With U the utilization, borrowed over supplied,
    ``R = base + slope1 U / U_opt`` up to U_opt, then
    ``R = base + slope1 + slope2 (U - U_opt) / (1 - U_opt)``; suppliers earn
    ``R U (1 - reserve_factor)``. Rates are per year without compounding: the engine charges them
    for the time of each bar, on what is owed then. Source: Aave (2022), Aave V3 Technical Paper,
    and ``DefaultReserveInterestRateStrategy`` in github.com/aave/aave-v3-core.

    Examples
    --------
    >>> curve = RateCurve(base=0.0, slope1=0.04, slope2=0.6, optimal=0.9, reserve_factor=0.1)
    >>> round(curve.borrow(0.45), 6), round(curve.borrow(0.95), 6), round(curve.supply(0.45), 6)
    (0.02, 0.34, 0.0081)
    """

    base: Annotated[float, SLOPE]
    slope1: Annotated[float, SLOPE]
    slope2: Annotated[float, SLOPE]
    optimal: Annotated[float, Number(0, 1, open_low=True, open_high=True)]
    reserve_factor: Annotated[float, Number(0, 1)] = 0.0

    def borrow(self, utilization: Any) -> Any:
        """Return the borrow rate per year at a utilization, or at each of an array or Series.

        Raises
        ------
        ParameterError
            If a utilization is not from 0 to 1.
        """
        used = check_utilization(utilization)
        low = self.base + self.slope1 * np.minimum(used, self.optimal) / self.optimal
        high = self.slope2 * np.maximum(used - self.optimal, 0.0) / (1.0 - self.optimal)
        return shape_like(utilization, low + high)

    def supply(self, utilization: Any) -> Any:
        """Return the supply rate per year at a utilization, or at each of an array or Series."""
        used = check_utilization(utilization)
        kept = 1.0 - self.reserve_factor
        return shape_like(utilization, self.borrow(used) * used * kept)

    def rates(self, market: Market, utilization: float | str) -> dict[str, FloatSeries | float]:
        """Return ``borrow_rate`` and ``cash_rate`` of a venue, by a utilization through time.

        Parameters
        ----------
        market : Market
            The market of the run.
        utilization : float or str
            A constant, or the column of the market with the utilization known at each close. It
            sets the rate from the next open on; the first bar has the rate of the second.

        Raises
        ------
        ParameterError
            If there is no such column, or a utilization is not from 0 to 1.
        """
        if not isinstance(utilization, str):
            return {
                "borrow_rate": self.borrow(utilization),
                "cash_rate": self.supply(utilization),
            }
        used = market.columns.get(utilization)
        if used is None:
            raise ParameterError(
                "utilization must be a number or a further column of the bars, got "
                f"{utilization!r}{did_you_mean(utilization, market.columns)}"
            )
        known_at = np.concatenate([used[:1], used[:-1]])
        index = utc_index(market.time)
        return {
            "borrow_rate": pd.Series(self.borrow(known_at), index),
            "cash_rate": pd.Series(self.supply(known_at), index),
        }


def check_utilization(utilization: Any) -> FloatArray:
    used = np.asarray(utilization, dtype=np.float64)
    bad = ~((used >= 0.0) & (used <= 1.0))
    if bad.any():
        found = float(used[bad].ravel()[0])
        raise ParameterError(
            f"utilization must be from 0 to 1, got {found:g} in {int(bad.sum())} of {used.size}"
        )
    return used


def shape_like(given: Any, values: FloatArray) -> Any:
    if isinstance(given, pd.Series):
        return pd.Series(values, given.index)
    return values if values.ndim else float(values)
