"""Gap risk of portfolio insurance, Cont and Tankov (2009), against runs on jumping prices.

    python benchmarks/replications/cppi_gap.py [--paths 2000] [--seed 0]

CPPI holds m times the cushion C = E - F. Without jumps it never loses the floor; a jump of the
price by Z < -1/m takes the cushion from C to C (1 + m Z) < 0, and all is sold. With Kou's (2002)
double exponential jumps (rate l, share p down, mean fall eta in logarithms) such jumps arrive at

    l* = l p (1 - 1/m)^(1/eta),  so that  P(loss by T) = 1 - exp(-l* T).

Before it the cushion grows as C exp(k T) on average, k = m mu + m l E[Z; Z > -1/m], and the jump
leaves a shortfall of (m - 1) eta / (1 + eta) times the cushion, so that

    E[shortfall] = C l* (m - 1) eta / (1 + eta) (exp((k - l*) T) - 1) / (k - l*).

Each path is a market of four-hour bars with an account of its own, under our Cppi with a constant
floor and no interest. Black and Perold (1992) is the case without jumps: the last rows.

Source: Cont and Tankov (2009), Constant Proportion Portfolio Insurance in the Presence of Jumps in
Asset Prices, Mathematical Finance 19(3), section 4; Kou (2002), Management Science 48(8).
"""

from __future__ import annotations

import math

import numpy as np
from comparison import Row, run
from paths import Jumps, jump_walk, live, market_of

import backtest as bt
from backtest.strategies import Cppi

MU, SIGMA, FLOOR, YEARS = 0.05, 0.1, 0.8, 1.0
JUMPS = Jumps(rate=10.0, down=0.5, mean_down=0.05, mean_up=0.04)
MULTIPLIERS = (4.0, 6.0, 8.0)
SMOOTH = 12.0
"""The multiplier without jumps; with them its mean is made by paths too rare to meet."""
BAR, PER_YEAR = "4h", 2190


def gap_rate(m: float, jumps: Jumps) -> float:
    """Return how often a year a jump is worse than -1/m."""
    return jumps.rate * jumps.down * (1.0 - 1.0 / m) ** (1.0 / jumps.mean_down)


def loss_probability(m: float, jumps: Jumps, years: float) -> float:
    """Return the probability of losing the floor."""
    return -math.expm1(-gap_rate(m, jumps) * years)


def cushion_rate(m: float, jumps: Jumps, order: int) -> float:
    """Return the rate at which the mean of the cushion's power grows, without gaps.

    order m mu + order (order - 1) / 2 m^2 sigma^2 + l E[(1 + m Z)^order - 1; Z > -1/m].
    """
    down = jumps.mean_down
    up = jumps.mean_up
    edge = -math.log(1.0 - 1.0 / m)

    # E[(1 + m Z)^order] by powers of the price: m^j (1 - m)^(order - j) E[exp(j J)], above the gap.
    total = 0.0
    for j in range(order + 1):
        risen = (1.0 - jumps.down) / (1.0 - j * up)
        fallen = jumps.down * -math.expm1(-edge * (1.0 + j * down) / down) / (1.0 + j * down)
        total += math.comb(order, j) * (1.0 - m) ** (order - j) * m**j * (risen + fallen)

    kept = 1.0 - gap_rate(m, jumps) / jumps.rate
    diffusion = order * m * MU + 0.5 * order * (order - 1) * (m * SIGMA) ** 2
    return diffusion + jumps.rate * (total - kept)


def shortfall_moment(m: float, jumps: Jumps, years: float, order: int = 1) -> float:
    """Return the mean of the shortfall's power, in multiples of the cushion at the start."""
    rate = gap_rate(m, jumps)
    down = jumps.mean_down
    gap = sum(math.comb(order, j) * (-1.0) ** j / (1.0 + j * down) for j in range(order + 1))
    excess = cushion_rate(m, jumps, order) - rate
    return rate * (m - 1.0) ** order * gap * math.expm1(excess * years) / excess


def run_path(market: bt.Market, m: float) -> float:
    """Return the cushion at the end of an account over that at the start."""
    final = live(market, Cppi(multiplier=m, floor=FLOOR)).metrics["final_equity"]
    return (final - FLOOR) / (1.0 - FLOOR)


def draw_market(jumps: Jumps, rng: np.random.Generator) -> bt.Market:
    """Return a market of a year after its first bar, in which nothing trades."""
    n_bars = round(YEARS * PER_YEAR) + 1
    return market_of(jump_walk(n_bars, MU, SIGMA, jumps, rng, PER_YEAR), BAR)


def gap_rows(paths: int, rng: np.random.Generator) -> list[Row]:
    """Return probability and size of losses by multiplier, within three standard errors."""
    markets = (draw_market(JUMPS, rng) for _ in range(paths))
    ends = np.array([[run_path(market, m) for m in MULTIPLIERS] for market in markets])

    rows = []
    for k, m in enumerate(MULTIPLIERS):
        chance = loss_probability(m, JUMPS, YEARS)
        short = np.maximum(-ends[:, k], 0.0)
        mean = shortfall_moment(m, JUMPS, YEARS, 1)
        square = shortfall_moment(m, JUMPS, YEARS, 2)

        # Standard errors of a share and of a mean.
        error = math.sqrt(chance * (1.0 - chance) / paths)
        spread = math.sqrt((square - mean**2) / paths)
        rows += [
            Row(f"m {m:g}: probability of loss", float(np.mean(short > 0.0)), chance, 3.0 * error),
            Row(f"m {m:g}: shortfall / cushion", float(np.mean(short)), mean, 3.0 * spread),
        ]
    return rows


def smooth_rows(paths: int, rng: np.random.Generator) -> list[Row]:
    """Return Black and Perold's case: no loss, and ln C_T = m ln S_T - (m^2 - m) sigma^2 T / 2."""
    none = JUMPS._replace(rate=0.0)
    m = SMOOTH
    drag = 0.5 * (m**2 - m) * SIGMA**2 * YEARS

    left = []
    losses = 0
    for _ in range(paths):
        market = draw_market(none, rng)
        end = run_path(market, m)
        losses += end <= 0.0
        growth = math.log(market.close[-1] / market.close[0])
        left.append(math.log(max(end, 1e-300)) - (m * growth - drag))

    # Three standard errors of the drag, and what steps of a bar leave of its third order.
    error = 3.0 * drag * math.sqrt(2.0 / (PER_YEAR * YEARS * paths))
    near = error + 2.0 * m**3 * SIGMA**3 / PER_YEAR
    return [
        Row(f"m {m:g} without jumps: losses", float(losses), 0.0, 0.0),
        Row(f"m {m:g} without jumps: ln cushion - formula", float(np.mean(left)), 0.0, near),
    ]


def replicate(paths: int = 2000, seed: int = 0) -> list[Row]:
    """Return all rows."""
    rng = np.random.default_rng(seed)
    return [*gap_rows(paths, rng), *smooth_rows(max(paths // 20, 10), rng)]


def main() -> None:
    """Print the comparison."""
    run(
        "CPPI gap risk, Cont and Tankov (2009)", replicate, against="formula", mu=MU, sigma=SIGMA,
        floor=FLOOR, years=YEARS, **JUMPS._asdict(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
