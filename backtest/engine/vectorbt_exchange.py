"""Returns as an object of vectorbt, and portfolios of vectorbt as signals."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from backtest.base import Choice, FloatArray, ParameterError, utc_index

if TYPE_CHECKING:
    from backtest.engine.run_record import RunRecord


def convert(result: RunRecord, unit: FloatArray) -> Any:
    vectorbt = import_vectorbt()
    change = np.divide(unit[1:], unit[:-1], out=np.ones(len(unit) - 1), where=unit[:-1] > 0.0)
    series = pd.Series(change - 1.0, index=naive_index(result), name="return")
    return vectorbt.returns.accessors.ReturnsSRAccessor(
        series, freq=pd.Timedelta(result.interval, unit="ns")
    )


def naive_index(result: RunRecord) -> pd.DatetimeIndex:
    return utc_index(result.time).tz_localize(None)


def import_vectorbt() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import vectorbt  # noqa: PLC0415 - only where asked for
    return vectorbt


Fills: TypeAlias = Literal["close", "open"]


def read_portfolio(portfolio: Any, fills: Fills, *, sized: bool) -> pd.Series:
    Choice("close", "open").check("fills", fills)
    if not (hasattr(portfolio, "asset_value") and hasattr(portfolio, "wrapper")):
        raise ParameterError(
            f"portfolio must be a vectorbt.Portfolio, got a {type(portfolio).__name__}"
        )
    held, worth = portfolio.asset_value(), portfolio.value()
    if np.ndim(held) != 1 or np.ndim(worth) != 1:
        raise ParameterError(
            f"portfolio must have one column, portfolio['name'], got {np.shape(held)[1:]}"
        )
    index = pd.DatetimeIndex(portfolio.wrapper.index)
    index = pd.DatetimeIndex(pd.to_datetime(index, utc=True))
    money, wealth = (np.asarray(each, dtype=np.float64) for each in (held, worth))
    share = np.divide(money, wealth, out=np.zeros(len(money)), where=wealth > 0.0)
    values = np.clip(share, -1.0, 1.0) if sized else np.sign(share)
    if fills == "open":
        values = np.append(values[1:], values[-1:])
    return pd.Series(values + 0.0, index=index, name="signal")
