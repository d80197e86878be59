"""Growth under a drawdown limit, Grossman and Zhou (1993), against runs on random walks.

    python benchmarks/replications/grossman_zhou.py [--years 60] [--seed 0]

An account that keeps E >= alpha M (M its peak) and holds k (1 - alpha M / E) / (1 - alpha) grows by

    (1 - alpha) (kappa mu - kappa^2 sigma^2 / 2),  kappa = k / (1 - alpha),

a year in the long run: most, (1 - alpha) SR^2 / 2, where kappa is the Kelly leverage mu / sigma^2.
The reason is a statement about every path: with N an account under the constant leverage kappa and
N* its peak, M = (N*)^(1 - alpha) and E = alpha M + (1 - alpha) M N / N*, so that

    ln E_T = (1 - alpha) ln N*_T + ln(alpha + (1 - alpha) N_T / N*_T).

Here E and N are runs of ours on the same hourly walks, two with mirrored noise. Rebalanced and
watched by the hour, a peak is overshot by 0.5826 kappa sigma sqrt(dt) on average, which adds alpha
times that share to growth (second order of alpha + (1 - alpha) y against y^(1 - alpha)).

Source: Grossman and Zhou (1993), Optimal Investment Strategies for Controlling Drawdowns,
Mathematical Finance 3(3); Cvitanic and Karatzas (1995), On Portfolio Optimization under Drawdown
Constraints, IMA Volumes in Mathematics 65, for growth; Chernoff (1965) for 0.5826.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from comparison import Row, run
from paths import FREE, YEAR, FloatArray, live, market_of, mirrored_walks

import backtest as bt
from backtest.strategies import Constant, DrawdownControl

MU, SIGMA = 0.9, 0.6
KELLY = MU / SIGMA**2
FULL = 0.5 * (MU / SIGMA) ** 2
"""Growth of full Kelly without a limit."""
FLOORS = (0.5, 0.7, 0.9)
SHARES = (0.5, 0.75, 1.0, 1.25, 1.5)
"""kappa as shares of Kelly, at the middle floor."""
OVERSHOOT = 0.5826


def list_sets() -> pd.DataFrame:
    """Return floors at full Kelly, then shares of Kelly at the middle floor."""
    floors = [*FLOORS, *[FLOORS[1]] * len(SHARES)]
    shares = [*[1.0] * len(FLOORS), *SHARES]
    peaks = [share * KELLY * (1.0 - floor) for share, floor in zip(shares, floors, strict=True)]
    return pd.DataFrame({"at_peak": peaks, "floor": floors})


def grow(close: FloatArray, years: int) -> tuple[pd.DataFrame, list[float]]:
    """Return growth and drawdown of each set on a walk, and what the path says of the floors."""
    market = market_of(close)
    account = bt.Account(capital=1.0)
    table = (
        bt.Backtest(market, venue=FREE, account=account)
        .sweep(DrawdownControl, list_sets(), metrics="core")
        .table
    )
    found = {"growth": np.log(table["final_equity"]) / years, "drawdown": table["max_drawdown"]}

    # The formula, of the highest and the last value of the account without a floor.
    unit = live(market, Constant(leverage=KELLY)).bars["unit"].to_numpy()
    peak = float(unit.max())
    of_formula = []
    for floor in FLOORS:
        log_growth = (1.0 - floor) * math.log(peak)
        log_growth += math.log(floor + (1.0 - floor) * unit[-1] / peak)
        of_formula.append(log_growth / years)
    return pd.DataFrame(found), of_formula


def replicate(years: int = 60, seed: int = 0) -> list[Row]:
    """Return growth by floor and by share of Kelly, and what held on each path."""
    walks = mirrored_walks(years * YEAR + 2, MU, SIGMA, seed)
    (up, formula_up), (down, formula_down) = (grow(close, years) for close in walks)
    growth = 0.5 * (up["growth"] + down["growth"]) / FULL
    formula = 0.5 * (np.array(formula_up) + np.array(formula_down)) / FULL
    deepest = np.maximum(up["drawdown"], down["drawdown"])

    # At full Kelly, by floor: an account seen once a bar overshoots its floor.
    rows = []
    for i, floor in enumerate(FLOORS):
        over = floor * OVERSHOOT * KELLY * SIGMA / math.sqrt(YEAR)
        near = (1.0 - floor) * (over + allow(1.0, years))
        name = f"alpha {floor:g}"
        rows += [
            Row(f"{name}: growth / full Kelly", float(growth[i]), 1.0 - floor, near),
            Row(
                f"{name}: growth / that of the path's formula",
                float(growth[i] / formula[i]),
                1.0,
                1.3 * over,
            ),
            Row(
                f"{name}: deepest drawdown over the limit",
                max(float(deepest[i]) + floor - 1.0, 0.0),
                0.0,
                0.0,
            ),
        ]

    # At the middle floor, by share of Kelly: 2 c - c^2 of the best growth.
    middle = FLOORS[1]
    for i, share in enumerate(SHARES, start=len(FLOORS)):
        known = 2.0 * share - share**2
        over = middle * OVERSHOOT * share * KELLY * SIGMA / math.sqrt(YEAR)
        near = over * abs(known) + allow(share, years)
        ours = float(growth[i]) / (1.0 - middle)
        rows.append(Row(f"alpha {middle:g}: growth at {share:g} Kelly / best", ours, known, near))

    fastest = SHARES[int(np.argmax(growth[len(FLOORS) :]))]
    return [*rows, Row(f"alpha {middle:g}: share of Kelly that grows fastest", fastest, 1.0, 0.25)]


def allow(share: float, years: int) -> float:
    """Return what the finite time and the realised variance leave to chance, of full growth.

    ln(N* / N) at the end is about exponential with mean s / (2 - s) at s of Kelly. It bounds what
    the formula of the path adds: its mean, and three deviations of the mean of two walks.
    """
    deep = share / (2.0 - share) * (1.0 + 3.0 / math.sqrt(2.0))
    return deep / (years * FULL) + 3.0 * share**2 * math.sqrt(2.0 / (years * YEAR))


def main() -> None:
    """Print the comparison."""
    facts = {"mu": MU, "sigma": SIGMA, "bars_a_year": YEAR}
    run("Grossman and Zhou (1993)", replicate, against="formula", **facts)


if __name__ == "__main__":
    main()
