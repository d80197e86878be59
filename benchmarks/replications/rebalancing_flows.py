"""What leveraged funds trade at the close, Cheng and Madhavan (2009), against runs.

    python benchmarks/replications/rebalancing_flows.py [--days 250] [--seed 0]

A fund of assets A that keeps L times the index trades A L (L - 1) r after a day of return r, in the
direction of the day whether it is long or inverse. A fund here is an account under a constant
leverage whose decisions fill at the close they are taken on; what it trades is that of its fills.

Source: Cheng and Madhavan (2009), The Dynamics of Leveraged and Inverse Exchange-Traded Funds,
Journal of Investment Management 7(4).
"""

from __future__ import annotations

import numpy as np
from comparison import Row, run
from paths import FloatArray, live, market_of, walk

import backtest as bt
from backtest.strategies import Constant

FUNDS = (2.0, 3.0, -1.0, -2.0)


def trade(close: FloatArray, fund: float) -> tuple[FloatArray, FloatArray]:
    """Return what a fund trades at each close but the first two, and what the formula says."""
    result = live(
        market_of(close, "1D"),
        Constant(leverage=abs(fund)),
        account=bt.Account(capital=1.0, fill="same_close"),
        signal=float(np.sign(fund)),
        compile=False,
    )
    position = result.bars["position"].to_numpy()
    traded = np.diff(position)[2:] * close[2:-1]  # the row of a bar has what it held inside it
    equity = result.bars["equity"].to_numpy()
    return traded, equity[1:-2] * fund * (fund - 1.0) * (close[2:-1] / close[1:-2] - 1.0)


def replicate(days: int = 250, seed: int = 0) -> list[Row]:
    """Return the slope of what each fund trades on what the formula says, and its largest error."""
    close = walk(np.random.default_rng(seed).standard_normal(days), 0.1, 0.25, 252)

    rows = []
    for fund in FUNDS:
        traded, formula = trade(close, fund)
        slope = float(traded @ formula / (formula @ formula))
        largest = float(np.max(np.abs(traded - formula)))
        rows += [
            Row(f"{fund:+g}x: traded over A L (L - 1) r", slope, 1.0, 1e-6),
            Row(f"{fund:+g}x: largest difference, of A", largest, 0.0, 1e-6),
        ]
    return rows


def main() -> None:
    """Print the comparison."""
    run("Rebalancing, Cheng and Madhavan (2009)", replicate, against="formula")


if __name__ == "__main__":
    main()
