"""Volatility-managed market without look-ahead, Liu, Tang and Zhou (2019), through our accounts.

    python benchmarks/replications/real_time_scale.py FILE

FILE is Kenneth French's daily factors, F-F_Research_Data_Factors_daily_*.CSV, to April 2015 as in
``moreira_muir.py``. There the scale c, which gives the managed portfolio the market's volatility,
comes from all months. Here each month has the c of the months before it, after some years of them.
The abstract says that the strategy then has a maximum drawdown of 68 to 93 % in almost all cases;
its cases, and its tables, could not be looked up, so nothing is claimed of a single one.

Source: Liu, Tang and Zhou (2019), Volatility-Managed Portfolio: Does It Really Work?, J. Portfolio
Management 46(1), abstract.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from comparison import Row, run
from moreira_muir import Managed, manage, monthly_market, read_factor, scale_to_market, sharpe

import backtest as bt
from backtest.results import max_drawdown

LEARNED = (5, 10, 20)
"""Years before the first month that is managed."""
SMALL = 0.05
"""The target of the unscaled portfolio: the scale drops out."""


def manage_with_past(market: bt.Market, unscaled: Managed, years: int) -> Managed:
    """Return the portfolio whose scale in each month is that of the months before."""
    least = 12 * years
    spread = (pd.Series(each).expanding(least).std() for each in (unscaled.plain, unscaled.returns))
    plain, managed = (each.to_numpy() for each in spread)
    scale = np.concatenate([[np.nan], plain / managed])  # known at the close of each month
    sigma = market.columns["deviation"] / np.sqrt(scale)
    found = manage(market.with_columns(deviation=sigma), SMALL, 2.0)
    return Managed(*(each[least:] for each in found))


def fall(returns: np.ndarray) -> float:
    """Return the maximum drawdown in per cent."""
    return 100.0 * float(max_drawdown(np.concatenate([[1.0], np.cumprod(1.0 + returns)])))


def replicate(file: Path) -> list[Row]:
    """Return the drawdowns, and the Sharpe ratios beside that of the market."""
    market = monthly_market(read_factor(file))
    unscaled = manage(market, SMALL, 2.0)

    scaled, _ = scale_to_market(unscaled)
    rows = [Row("drawdown, scale of all months, %", fall(scaled.returns), math.nan)]
    for years in LEARNED:
        found = manage_with_past(market, unscaled, years)
        held = found._replace(returns=found.plain)
        name = f"after {years} years"
        rows += [
            Row(f"drawdown, {name}, %, paper 68 to 93", fall(found.returns), math.nan),
            Row(f"drawdown of the market, {name}, %", fall(found.plain), math.nan),
            Row(f"Sharpe ratio, {name}", sharpe(found), math.nan),
            Row(f"Sharpe ratio of the market, {name}", sharpe(held), math.nan),
        ]
    return rows


def main() -> None:
    """Print the comparison."""
    run("Scale without look-ahead, Liu, Tang and Zhou (2019)", replicate, against="abstract")


if __name__ == "__main__":
    main()
