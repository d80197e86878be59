"""Volatility-managed portfolios, Moreira and Muir (2017), through runs on the market factor.

    python benchmarks/replications/moreira_muir.py FILE

FILE is Kenneth French's daily factors, F-F_Research_Data_Factors_daily_*.CSV; the market's excess
returns from July 1926 to April 2015 are used, by month. Each month holds c / RV^2 times the market,
RV^2 the variance of last month's days, c such that the managed portfolio has the volatility of the
market. The account is one of ours under VolTarget with power 2 (1 for 1 / RV), which looks at a
column with last month's deviation; a cap on leverage is the account's ``max_leverage``. Managed
returns are regressed on the market's: alpha in per cent a year, beta, R^2.

Tables of the published paper: 1 (market row), 2 (alphas by thirty years), 4 (costs), 5 (leverage).
Tables 4 and 5 print the alphas of 1/RV and 1/E[RV^2] the one for the other: 3.85 and 3.30. Costs
are fees on what is traded; ours counts the drift of a holding between months, theirs changes of
weight. 1/E[RV^2] forecasts the logarithm of the variance by a first-order autoregression on all
months, as they do: no rule of ours looks ahead so.

Source: Moreira and Muir (2017), Volatility-Managed Portfolios, J. Finance 72(4).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from comparison import Row, run
from paths import FloatArray, live, venue_of

import backtest as bt
from backtest.strategies import VolTarget

PERCENT_A_YEAR = 1200.0
THIRDS = {"1926-1955": 8.11, "1956-1985": 2.06, "1986-2015": 4.22}
CAPS = {1.0: (2.12, 0.52), 1.5: (3.10, 0.53)}
COSTS = {1: 4.77, 10: 3.98, 14: 3.63}
WEIGHTS = {"1/RV^2": (0.93, 1.59, 2.64, 6.39), "1/RV": (1.23, 1.61, 2.08, 3.36)}


class LastMonth(VolTarget):
    """Target the deviation that the market's column holds, as Moreira and Muir do."""

    def observe(self, market: bt.Market) -> bt.Columns:
        """Return the deviation of daily returns over the month of each bar."""
        return {"sigma": market.columns["deviation"]}


class Managed(NamedTuple):
    """Monthly returns of a managed portfolio beside the market's, and the weights it held."""

    returns: FloatArray
    plain: FloatArray
    weights: FloatArray
    months: pd.PeriodIndex


class Fit(NamedTuple):
    """A regression of managed on plain returns; ``alpha`` in per cent a year."""

    alpha: float
    beta: float
    r_squared: float
    months: int


def read_factor(file: Path, until: str = "2015-04-30") -> pd.Series:
    """Return the daily excess return of the market up to a day, as fractions."""
    lines = file.read_text(encoding="latin-1").splitlines()
    rows = [line.split(",")[:2] for line in lines if line[:8].isdigit()]
    days = pd.to_datetime([day for day, _ in rows], format="%Y%m%d").tz_localize("UTC")
    return pd.Series([float(value) / 100.0 for _, value in rows], index=days)[:until]


def monthly_market(daily: pd.Series, *, is_forecast: bool = False) -> bt.Market:
    """Return a bar per month, with the annual deviation of its days in a column.

    Or with the one forecast for the next month, by a first-order autoregression of its logarithm.
    """
    month = daily.index.tz_localize(None).to_period("M")
    returns = (1.0 + daily).groupby(month).prod() - 1.0
    deviation = daily.groupby(month).std() * math.sqrt(252.0)

    if is_forecast:
        logs = np.log(deviation.to_numpy())
        slope, level = np.polyfit(logs[:-1], logs[1:], 1)
        deviation = pd.Series(np.exp(level + slope * logs))

    close = 100.0 * np.cumprod(1.0 + returns.to_numpy())
    opens = np.concatenate([[100.0], close[:-1]])
    bars = {"open": opens, "close": close, "deviation": deviation.to_numpy()}
    bars |= {"high": np.maximum(opens, close), "low": np.minimum(opens, close)}

    index = pd.DatetimeIndex(returns.index.to_timestamp().tz_localize("UTC"), name="time")
    return bt.Market.from_frames(pd.DataFrame(bars, index=index), sessions=True)


def manage(market: bt.Market, target: float, power: float, **settings: object) -> Managed:
    """Return what an account under the rule earned by month, from the second month on."""
    policy = LastMonth(target=target, power=power)
    result = live(market, policy, calendar="252", compile=False, **settings)
    unit = result.bars["unit"].to_numpy()
    price = market.close
    return Managed(
        returns=unit[1:] / unit[:-1] - 1.0,
        plain=price[1:] / price[:-1] - 1.0,
        weights=result.bars["target"].to_numpy()[:-1],
        months=market.times[1:].tz_localize(None).to_period("M"),
    )


def scale_to_market(managed: Managed) -> tuple[Managed, float]:
    """Return the portfolio at the market's volatility, and c: what it was multiplied by."""
    c = float(managed.plain.std(ddof=1) / managed.returns.std(ddof=1))
    return managed._replace(returns=c * managed.returns, weights=c * managed.weights), c


def between(managed: Managed, span: str) -> Managed:
    """Return the months of some years, such as ``1926-1955``."""
    first, last = map(int, span.split("-"))
    inside = (managed.months.year >= first) & (managed.months.year <= last)
    return Managed(*(each[inside] for each in managed))


def regress(managed: Managed) -> Fit:
    """Return the regression of managed on plain returns."""
    x = managed.plain
    y = managed.returns
    beta = float(np.cov(y, x)[0, 1] / x.var(ddof=1))
    alpha = PERCENT_A_YEAR * float(y.mean() - beta * x.mean())
    return Fit(alpha, beta, float(np.corrcoef(y, x)[0, 1] ** 2), len(x))


def sharpe(managed: Managed) -> float:
    """Return the annual Sharpe ratio of excess returns."""
    return float(managed.returns.mean() / managed.returns.std(ddof=1) * math.sqrt(12.0))


def replicate(file: Path) -> list[Row]:
    """Return the rows of Tables 1, 2, 4 and 5.

    Nothing is claimed of what their vintage of the data or a choice they do not print decides: the
    thirds of the sample (standard errors 3.09, 2.82 and 1.66), the forecast, the extreme weights.
    """
    daily = read_factor(file)
    market = monthly_market(daily)

    small = 0.05  # the scale drops out
    managed, c = scale_to_market(manage(market, small, 2.0))
    fit = regress(managed)
    rows = [
        Row("Table 1: alpha", fit.alpha, 4.86, 0.20),
        Row("Table 1: beta", fit.beta, 0.61, 0.02),
        Row("Table 1: R^2", fit.r_squared, 0.37, 0.02),
        Row("Table 1: N", float(fit.months), 1065.0, 0.0),
    ]
    for span, published in THIRDS.items():
        rows.append(Row(f"Table 2: alpha {span}", regress(between(managed, span)).alpha, published))
    rows += cost_rows(market, small * math.sqrt(c), managed)

    # Table 5: other powers of the deviation,
    inverse, _ = scale_to_market(manage(market, small, 1.0))
    forecast, _ = scale_to_market(manage(monthly_market(daily, is_forecast=True), small, 2.0))
    for name, strategy, published, ratio, near in (
        ("1/RV^2", managed, 4.86, 0.52, 0.01),
        ("1/RV", inverse, 3.30, 0.53, 0.01),
        ("1/E[RV^2]", forecast, 3.85, 0.51, math.nan),
    ):
        rows.append(Row(f"Table 5: {name} alpha", regress(strategy).alpha, published, 5.0 * near))
        rows.append(Row(f"Table 5: {name} Sharpe ratio", sharpe(strategy), ratio, near))

    # and caps of the leverage.
    for cap, (published, ratio) in CAPS.items():
        account = bt.Account(capital=1.0, max_leverage=cap)
        capped = manage(market, small * math.sqrt(c), 2.0, account=account)
        rows.append(Row(f"Table 5: cap {cap:g} alpha", regress(capped).alpha, published, 0.05))
        rows.append(Row(f"Table 5: cap {cap:g} Sharpe ratio", sharpe(capped), ratio, 0.01))
    return rows + weight_rows({"1/RV^2": managed, "1/RV": inverse})


def cost_rows(market: bt.Market, target: float, managed: Managed) -> list[Row]:
    """Return alphas after fees of some basis points on what is traded."""
    rows = []
    for bps, published in COSTS.items():
        net = manage(market, target, 2.0, venue=venue_of(taker=bps / 1e4))
        cost = managed.returns - net.returns
        alpha = regress(managed).alpha - PERCENT_A_YEAR * float(cost.mean())
        rows.append(Row(f"Table 4: alpha after {bps} bp", alpha, published, 0.05))
    return rows


def weight_rows(portfolios: dict[str, Managed]) -> list[Row]:
    """Return the median and the upper quantiles of weights."""
    rows = []
    for name, each in portfolios.items():
        found = np.quantile(each.weights, [0.5, 0.75, 0.9, 0.99])
        for level, ours, published in zip((50, 75, 90, 99), found, WEIGHTS[name], strict=True):
            near = 0.01 if level < 99 else math.nan
            rows.append(Row(f"Table 5: {name} weight P{level}", float(ours), published, near))
    return rows


def main() -> None:
    """Print the comparison."""
    run("Moreira and Muir (2017)", replicate)


if __name__ == "__main__":
    main()
