"""Volatility targeting of US stocks, Harvey et al. (2018), through our accounts.

    python benchmarks/replications/volatility_targeting.py FILE

FILE is Kenneth French's daily factors, F-F_Research_Data_Factors_daily_*.CSV; the market's excess
returns of 1927 to 2017 are used, where the paper has CRSP. The position is a target over the
exponentially weighted volatility of a day before the last close. Returns are scaled to 10 % a year
over the whole sample. Sharpe ratios are those of overlapping months of 21 days; the intercept, in
hundredths of a per cent, is that of daily returns regressed on the unscaled ones, its tolerance the
standard error that the t-statistic of 3.05 implies.

The tables could not be looked up. The figures are those that summaries quote: Swedroe (2019),
Volatility Targeting Improves Risk-Adjusted Returns, Alpha Architect, 22 May, for the volatility of
volatility, and notes in public repositories, which agree, for the others. How the paper measures
the volatility of volatility they do not say: nothing is claimed of it.

Source: Harvey, Hoyle, Korgaonkar, Rattray, Sargaison and Van Hemert (2018), The Impact of
Volatility Targeting, J. Portfolio Management 45(1), 14-33.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from comparison import Row, run
from moreira_muir import read_factor
from paths import live, market_of_returns

import backtest as bt
from backtest.strategies import VolTarget

HALF_LIVES = (10, 20, 90)
MONTH, YEAR = 21, 252
TARGET = 0.10


class DayBefore(VolTarget):
    """Target the volatility that was known a day before the close."""

    def observe(self, market: bt.Market) -> bt.Columns:
        """Return the estimate of the bar before."""
        return {"sigma": np.concatenate([[np.nan], super().observe(market)["sigma"][:-1]])}


def scale_returns(daily: pd.Series, half_life: float) -> pd.Series:
    """Return the daily returns of an account under the rule, from 1927 on."""
    policy = DayBefore(target=TARGET, half_life=half_life)
    result = live(market_of_returns(daily), policy, calendar="252", compile=False)
    unit = pd.Series(result.bars["unit"].to_numpy(), index=daily.index)
    return normalize(unit.pct_change()["1927":])


def normalize(daily: pd.Series) -> pd.Series:
    """Return daily returns at a volatility of 10 % a year."""
    return daily * TARGET / (daily.std() * math.sqrt(YEAR))


def sharpe_of_months(daily: pd.Series) -> float:
    """Return the annual Sharpe ratio of overlapping months."""
    months = daily.rolling(MONTH).sum().dropna()
    return float(months.mean() / months.std() * math.sqrt(YEAR / MONTH))


def vary(daily: pd.Series) -> float:
    """Return the deviation of the volatility by year, of overlapping months, in per cent."""
    months = daily.rolling(MONTH).sum().dropna()
    return 100.0 * float((months.rolling(YEAR).std() * math.sqrt(YEAR / MONTH)).std())


def regress(scaled: pd.Series, plain: pd.Series) -> tuple[float, float]:
    """Return the intercept in hundredths of a per cent a day, and R^2."""
    beta = float(np.cov(scaled, plain)[0, 1] / plain.var())
    r_squared = float(np.corrcoef(scaled, plain)[0, 1] ** 2)
    return 1e4 * float(scaled.mean() - beta * plain.mean()), r_squared


def replicate(file: Path) -> list[Row]:
    """Return Sharpe ratios by half-life, and the regression at 20 days."""
    daily = read_factor(file, "2017-12-31")
    plain = normalize(daily["1927":])
    scaled = {each: scale_returns(daily, each) for each in HALF_LIVES}
    intercept, r_squared = regress(scaled[20], plain)
    return [
        Row("Sharpe ratio, unscaled", sharpe_of_months(plain), 0.40, 0.015),
        *(
            Row(f"Sharpe ratio, {each} days, paper 0.48 to 0.51", sharpe_of_months(found), 0.495,
                0.015)
            for each, found in scaled.items()
        ),
        Row("intercept, 20 days", intercept, 0.64, 0.21),
        Row("R^2, 20 days", r_squared, 0.73, 0.02),
        Row("volatility of volatility, unscaled, paper 4.6 %", vary(plain), 4.6),
        Row("volatility of volatility, 20 days, paper 1.8 %", vary(scaled[20]), 1.8),
    ]  # fmt: skip


def main() -> None:
    """Print the comparison."""
    run("Volatility targeting, Harvey et al. (2018)", replicate, against="quoted")


if __name__ == "__main__":
    main()
