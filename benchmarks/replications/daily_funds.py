"""Funds of 2x and 3x the US stock market since 1990, against the formula of a daily fund.

    python benchmarks/replications/daily_funds.py FILE

FILE is Kenneth French's daily factors, F-F_Research_Data_Factors_daily_*.CSV; the market is the
excess return plus the risk-free rate. A fund that is set to L times its equity at every close, and
pays f a year on its loan, grows by the product of

    1 + L r_t - (L - 1) f dt_t,

r_t the return from close to close and dt_t its days over 365. This is how published tables of
leveraged funds are made. Our fund is an account under a constant leverage whose decisions fill at
the close they are taken on (``fill="same_close"``).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from comparison import Row, run
from paths import FloatArray, live, market_of_returns, venue_of

import backtest as bt
from backtest.strategies import Constant

SINCE, RATE = "1990-01-01", 0.05
LEVERAGES = (2.0, 3.0, -1.0)


def read_market(file: Path, since: str = SINCE) -> bt.Market:
    """Return a bar per session of the market's total return: the file has no opens."""
    lines = file.read_text(encoding="latin-1").splitlines()
    rows = [line.split(",") for line in lines if line[:8].isdigit()]
    days = pd.to_datetime([row[0] for row in rows], format="%Y%m%d").tz_localize("UTC")
    total = pd.Series([(float(row[1]) + float(row[4])) / 100.0 for row in rows], index=days)[since:]
    return market_of_returns(total)


def hold(market: bt.Market, turns: float, rate: float) -> FloatArray:
    """Return the value of a fund at each close; it is short if its leverage is negative."""
    terms = {"interest_on": "loan", "borrow_rate": rate} if rate else {}
    result = live(
        market, Constant(leverage=abs(turns)), venue=venue_of(**terms),
        account=bt.Account(capital=1.0, fill="same_close"), signal=math.copysign(1.0, turns),
        calendar="252", compile=False,
    )  # fmt: skip
    return result.bars["unit"].to_numpy()


def predict(market: bt.Market, turns: float, rate: float) -> FloatArray:
    """Return the formula's value of a fund at each close."""
    returns = market.close[1:] / market.close[:-1] - 1.0
    years = np.diff(market.time) / (365 * 86_400e9)
    steps = 1.0 + turns * returns - max(turns - 1.0, 0.0) * rate * years
    return np.concatenate([[1.0], np.cumprod(steps)])


def replicate(file: Path) -> list[Row]:
    """Return the annual growth of each fund, and its largest distance from the formula."""
    market = read_market(file)
    years = (market.time[-1] - market.time[0]) / (365.25 * 86_400e9)

    rows = []
    for turns in LEVERAGES:
        rates = (0.0, RATE) if turns > 1.0 else (0.0,)
        for rate in rates:
            name = f"{turns:g}x"
            if rate:
                name = f"{name}, financed at {rate:.0%}"

            ours = hold(market, turns, rate)
            formula = predict(market, turns, rate)
            growth = ours[-1] ** (1.0 / years) - 1.0
            known = formula[-1] ** (1.0 / years) - 1.0
            off = float(np.max(np.abs(ours / formula - 1.0)))
            rows += [
                Row(f"{name}, growth a year", float(growth), float(known), 1e-9),
                Row(f"{name}, largest relative distance", off, 0.0, 1e-9),
            ]
    return rows


def main() -> None:
    """Print the comparison."""
    run("Daily funds on the US market", replicate, against="formula", since=SINCE, rate=RATE)


if __name__ == "__main__":
    main()
