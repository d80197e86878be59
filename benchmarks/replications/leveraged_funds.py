"""What a leveraged fund loses to variance, Avellaneda and Zhang (2010), against runs.

    python benchmarks/replications/leveraged_funds.py [FOLDER] [--years 20] [--seed 0]

A fund that keeps L times the underlying S, financed at rate r and charged fees f a year, grows by

    ln(fund) = L ln(S_T / S_0) - (L^2 - L) / 2 V_T + ((1 - L) r - f) T,

V the realised variance (their formula, without the cost of borrowing shares). A fund rebalanced by
the bar is off by the sum of ln(1 + L r) - L ln(1 + r) + (L^2 - L) r^2 / 2 over its returns r, about
(L^3 - L) r^3 / 3 each: that much is allowed here. The funds are accounts under a constant leverage,
short ones by the signal, on simulated daily prices; financing is the venue's interest on loans;
rebalancing at a fee costs about fee |L^2 - L| sum |r|. FOLDER holds hourly bars and funding of a
perpetual from 2020 to 2023: on these the formula is tested over quarters, as the paper does for 56
funds, without and with funding.

Source: Avellaneda and Zhang (2010), Path-Dependence of Leveraged ETF Returns, SIAM J. Financial
Mathematics 1.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import pandas as pd
from comparison import Row, write
from paths import FREE, FloatArray, live, market_of, venue_of, walk

import backtest as bt
from backtest.indicators import settled_funding
from backtest.strategies import Constant

SIGMA, MU, RATE, FEE = 0.4, 0.05, 0.04, 2e-4
LEVERAGES = (2.0, 3.0, -1.0, -2.0)
DAYS = 365


def hold(market: bt.Market, turns: float, venue: bt.Venue) -> bt.Result:
    """Return the account of a fund, short where its leverage is negative."""
    policy = Constant(leverage=abs(turns))
    side = math.copysign(1.0, turns)
    return live(market, policy, venue=venue, signal=side, compile=market.n_bars > 10_000)


def measure(market: bt.Market) -> tuple[float, FloatArray]:
    """Return the log growth of the underlying and its simple returns, from the second open on."""
    price = np.concatenate([[market.open[1]], market.mark_close[1:]])
    return math.log(price[-1] / price[0]), price[1:] / price[:-1] - 1.0


def predict(turns: float, growth: float, returns: FloatArray) -> float:
    """Return the formula's log growth before financing and fees."""
    return turns * growth - 0.5 * (turns**2 - turns) * float(np.sum(returns**2))


def leave(turns: float, returns: FloatArray) -> FloatArray:
    """Return what rebalancing by the bar leaves of the formula, bar by bar."""
    formula = turns * np.log1p(returns) - 0.5 * (turns**2 - turns) * returns**2
    return np.log1p(turns * returns) - formula


def simulate(years: int, seed: int) -> list[Row]:
    """Return a row per fund on simulated days: plain, financed, and charged for rebalancing."""
    noise = np.random.default_rng(seed).standard_normal(years * DAYS)
    market = market_of(walk(noise, MU, SIGMA, DAYS), "1D")
    growth, returns = measure(market)
    financed = venue_of(interest_on="loan", borrow_rate=RATE, cash_rate=RATE)
    charged = venue_of(taker=FEE)

    rows = []
    for turns in LEVERAGES:
        formula = predict(turns, growth, returns)
        near = 1.05 * abs(float(np.sum(leave(turns, returns)))) + 1e-9
        plain, costly, fed = (
            math.log1p(hold(market, turns, venue).metrics["total_return"])
            for venue in (FREE, charged, financed)
        )

        # What is traded to keep the leverage, and at first.
        size = abs(turns)
        trading = FEE * (abs(turns**2 - turns) * float(np.sum(np.abs(returns))) + size)

        # The interest of a bar is that since the open before: the first is on the cash alone.
        carry = RATE / DAYS * ((1.0 - turns) * (len(returns) - 1) + 1.0)

        # Costs are relative to wealth after the bar's return, not before it.
        spread = size * SIGMA / math.sqrt(DAYS)
        later = 2.0 * spread**2 + size * abs(float(np.mean(returns)))

        rows += [
            Row(f"{turns:g}x", plain, formula, near),
            Row(
                f"{turns:g}x, rebalanced at {FEE:.2%}",
                costly,
                formula - trading,
                near + trading * spread,
            ),
            Row(
                f"{turns:g}x, financed at {RATE:.0%}",
                fed,
                formula + carry,
                near + abs(carry) * later,
            ),
        ]
    return rows


def compare_quarters(market: bt.Market, turns: float, every: str) -> list[Row]:
    """Return the error of the formula over quarters of real prices: mean, deviation, with funding.

    Fills and marks are both at last prices, so that the fund holds what the formula is about.
    """
    bare = bt.Market.from_frames(market.bars())
    funded = bt.Market.from_frames(market.bars(), funding=market.funding())

    simple = bare.close[1:] / bare.close[:-1] - 1.0
    drag = 0.5 * (turns**2 - turns) * simple**2
    formula = turns * np.log1p(simple) - drag
    paid = turns * settled_funding(funded)[1:]

    steps = {
        "drag": drag,
        "left": leave(turns, simple),
        "bare": log_steps(hold(bare, turns, FREE)) - formula,
        "funded": log_steps(hold(funded, turns, FREE)) - (formula - paid),
    }
    quarter = bare.times[1:].tz_localize(None).to_period("Q")
    sums = pd.DataFrame(steps, index=quarter).groupby(level=0).sum()

    near = 1.05 * abs(float(sums["left"].mean())) + 1e-3  # an open is not quite the close before
    name = f"{turns:g}x {every} on real prices"
    mean = sums["bare"].mean()
    deviation = sums["bare"].std()
    return [
        Row(f"{name}, mean drag a quarter", float(sums["drag"].mean()), math.nan),
        Row(f"{name}, mean error of the formula", float(mean), 0.0, near),
        Row(f"{name}, deviation of the error", float(deviation), math.nan),
        Row(f"{name}, mean error with funding", float(sums["funded"].mean()), 0.0, near + 1e-3),
    ]


def log_steps(result: bt.Result) -> FloatArray:
    """Return the log growth of each bar after the first."""
    return np.diff(np.log(result.bars["unit"].to_numpy()))


def replicate(years: int = 20, seed: int = 0, folder: str | None = None) -> list[Row]:
    """Return all rows; those on real prices where a folder is given.

    Three turns rebalanced daily are left out there: they did not live through 12 March 2020.
    """
    rows = simulate(years, seed)
    if folder is None:
        return rows

    hourly = bt.Market.load(folder, since="2020-01-01", until="2024-01-01")
    daily = hourly.resample("1d")
    for turns in (2.0, -1.0, -2.0):
        rows += compare_quarters(daily, turns, "daily")
    for turns in LEVERAGES:
        rows += compare_quarters(hourly, turns, "hourly")
    return rows


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--years", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()

    rows = replicate(wanted.years, wanted.seed, wanted.folder)
    facts = {"mu": MU, "sigma": SIGMA, "rate": RATE, "fee": FEE, "years": wanted.years}
    write("Leveraged funds, Avellaneda and Zhang (2010)", rows, facts, against="formula")


if __name__ == "__main__":
    main()
