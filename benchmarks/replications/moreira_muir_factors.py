"""Volatility-managed factors, Moreira and Muir (2017), Table 2, through runs of three positions.

    python benchmarks/replications/moreira_muir_factors.py FILE

FILE is Kenneth French's daily factors, F-F_Research_Data_Factors_daily_*.CSV: market, size (SMB)
and value (HML) from July 1926 to April 2015. The portfolio is the one with the highest Sharpe ratio
over the whole sample, its weights summing to 1. Each month holds c / RV^2 times the portfolio, RV^2
the variance of its daily returns in the month before, c such that the managed portfolio has the
volatility of the plain one.

The account holds the three factors at once: the signal has the weights, and VolTarget with power 2
asks for the same leverage in each, from a column with the portfolio's deviation of last month. The
account rebalances every month. Its returns are regressed on those of the plain portfolio, which is
a run of its own at a constant leverage. Standard errors are robust to heteroskedasticity (White);
alpha, its error and the root mean squared error are in per cent a year.

Months are compounded from days. The published months of SMB and HML are of portfolios that are held
over the month, and the data is of another vintage, so the last digits differ.

Source: Moreira and Muir (2017), Volatility-Managed Portfolios, J. Finance 72(4).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from comparison import Row, run
from moreira_muir import PERCENT_A_YEAR, LastMonth
from paths import FREE, FloatArray

import backtest as bt
from backtest.strategies import Constant

FACTORS = ("MKT", "SMB", "HML")
SMALL = 0.05
"""The target of the managed account, and the leverage of the plain one: the scale drops out."""


class Fit(NamedTuple):
    """A regression of managed on plain returns."""

    alpha: float
    error: float
    r_squared: float
    rmse: float
    months: int


def read_factors(file: Path) -> pd.DataFrame:
    """Return the daily returns of the factors up to April 2015, as fractions."""
    lines = file.read_text(encoding="latin-1").splitlines()
    rows = [line.split(",")[:4] for line in lines if line[:8].isdigit()]
    days = pd.to_datetime([row[0] for row in rows], format="%Y%m%d").tz_localize("UTC")
    values = [[float(value) / 100.0 for value in row[1:]] for row in rows]
    return pd.DataFrame(values, index=days, columns=list(FACTORS))[:"2015-04-30"]


def find_tangency(months: pd.DataFrame) -> FloatArray:
    """Return the weights of the highest Sharpe ratio over the whole sample, summing to 1."""
    weights = np.linalg.solve(months.cov().to_numpy(), months.mean().to_numpy())
    return np.asarray(weights / weights.sum())


def make_markets(daily: pd.DataFrame) -> tuple[bt.Markets, FloatArray]:
    """Return a bar per month of each factor, and the weights of the portfolio.

    Each market has the portfolio's deviation over the month, annual, in a column.
    """
    month = daily.index.tz_localize(None).to_period("M")
    returns = (1.0 + daily).groupby(month).prod() - 1.0
    weights = find_tangency(returns)
    daily_of_portfolio = daily @ weights
    deviation = (daily_of_portfolio.groupby(month).std() * math.sqrt(252.0)).to_numpy()

    index = pd.DatetimeIndex(returns.index.to_timestamp().tz_localize("UTC"), name="time")
    markets = {}
    for name in FACTORS:
        close = 100.0 * np.cumprod(1.0 + returns[name].to_numpy())
        opens = np.concatenate([[100.0], close[:-1]])
        bars = {"open": opens, "close": close, "deviation": deviation}
        bars |= {"high": np.maximum(opens, close), "low": np.minimum(opens, close)}

        frame = pd.DataFrame(bars, index=index)
        marks = frame.drop(columns="deviation")
        markets[name] = bt.Market.from_frames(frame, mark=marks, instrument=name, sessions=True)

    return bt.Markets(markets), weights


def earn(markets: bt.Markets, policy: bt.Policy, weights: FloatArray) -> FloatArray:
    """Return what an account under a policy earned by month, from the second month on."""
    result = bt.run(
        markets, policy, venue=FREE, account=bt.Account(capital=1.0),
        signal=dict(zip(FACTORS, map(float, weights), strict=True)), calendar="252", compile=False,
    )  # fmt: skip
    unit = result.bars["unit"].to_numpy()
    return np.asarray(unit[1:] / unit[:-1] - 1.0)


def regress(managed: FloatArray, plain: FloatArray) -> Fit:
    """Return the regression, with White's standard error of alpha."""
    n = len(plain)
    design = np.column_stack([np.ones(n), plain])
    inverse = np.linalg.inv(design.T @ design)
    alpha, beta = inverse @ design.T @ managed
    rest = managed - alpha - beta * plain
    spread = inverse @ (design.T * rest**2) @ design @ inverse
    return Fit(
        alpha=PERCENT_A_YEAR * float(alpha),
        error=PERCENT_A_YEAR * math.sqrt(spread[0, 0]),
        r_squared=float(np.corrcoef(managed, plain)[0, 1] ** 2),
        rmse=PERCENT_A_YEAR * math.sqrt(float(rest @ rest) / (n - 2)),
        months=n,
    )


def replicate(file: Path) -> list[Row]:
    """Return the rows of Table 2, column FF3.

    The alpha may differ by a fifth of its standard error: the vintage of SMB and HML.
    """
    markets, weights = make_markets(read_factors(file))
    managed = earn(markets, LastMonth(target=SMALL, power=2.0), weights)
    plain = earn(markets, Constant(leverage=SMALL), weights) / SMALL
    fit = regress(managed * (plain.std(ddof=1) / managed.std(ddof=1)), plain)
    return [
        Row("Table 2, FF3: alpha", fit.alpha, 4.99, 0.20),
        Row("Table 2, FF3: standard error", fit.error, 1.00, 0.03),
        Row("Table 2, FF3: R^2", fit.r_squared, 0.22, 0.01),
        Row("Table 2, FF3: rmse", fit.rmse, 34.50, 1.0),
        *(
            Row(f"weight of {name}", float(weight), math.nan)
            for name, weight in zip(FACTORS, weights, strict=True)
        ),
    ]


def main() -> None:
    """Print the comparison."""
    run("Moreira and Muir (2017), factors", replicate)


if __name__ == "__main__":
    main()
