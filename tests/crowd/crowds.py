"""Crowds and venues for the tests of cascades."""

from typing import Any

import numpy as np
import pandas as pd

import backtest as bt

RATE = 0.01
"""The maintenance rate of :func:`plain_venue`."""


def plain_venue(mode: str = "close", **costs: float) -> bt.Venue:
    """Return a venue with one bracket, a maintenance rate of 1 %, and no costs unless given."""
    terms: dict[str, Any] = {"fee": 0.0, "slippage": 0.0, **costs}
    return bt.Venue(
        contract=bt.Contract(lot=0.0, tick=1e-8, min_notional=0.0),
        brackets=[bt.Bracket(0.0, np.inf, 100.0, RATE)],
        fees=bt.Fees(taker=0.0, maker=0.0),
        slippage=bt.Slippage(rate=0.0),
        liquidation=bt.Liquidation(mode=mode, **terms),
    )


def longs_failing_at(prices: np.ndarray, quantity: float = 1.0) -> bt.Crowd:
    """Return longs, entered at 100, that :func:`plain_venue` liquidates at these prices.

    c + q (L - 100) = RATE q L, so c = q (100 - (1 - RATE) L).
    """
    collateral = quantity * (100.0 - (1.0 - RATE) * np.asarray(prices))
    frame = {"side": "long", "quantity": quantity, "entry": 100.0, "collateral": collateral}
    return bt.Crowd.from_positions(pd.DataFrame(frame), price=100.0)


def uniform_ladder(n: int, fall: float) -> bt.Crowd:
    return longs_failing_at(100.0 * (1.0 - fall * (np.arange(n) + 0.5) / n))


def random_crowd(rng: np.random.Generator, n: int) -> bt.Crowd:
    entry = 100.0 * np.exp(0.1 * rng.standard_normal(n))
    quantity = 10.0 ** rng.uniform(-2.0, 3.0, n)
    leverage = np.exp(rng.uniform(0.0, np.log(80.0), n))
    collateral = quantity * entry / leverage
    frame = pd.DataFrame(
        {
            "side": np.where(rng.random(n) < rng.uniform(0.1, 0.9), "long", "short"),
            "quantity": quantity,
            "entry": entry,
            "collateral": collateral,
            "equity": collateral * (1.0 + (rng.random(n) < 0.3) * rng.random(n)),
        }
    )
    return bt.Crowd.from_positions(frame, price=100.0)


def bracket_venue(mode: str, rng: np.random.Generator) -> bt.Venue:
    """Return a venue with three brackets and random costs."""
    step: Any = "bracket" if rng.random() < 0.3 else float(rng.uniform(0.1, 0.6))
    terms = {"step": step, "full_below": 50.0} if mode == "partial" else {}
    return bt.Venue(
        contract=bt.Contract(lot=0.0, tick=1e-8, min_notional=0.0),
        brackets=[
            bt.Bracket(0.0, 5_000.0, 100.0, 0.005),
            bt.Bracket(5_000.0, 50_000.0, 50.0, 0.01),
            bt.Bracket(50_000.0, np.inf, 20.0, 0.025),
        ],
        fees=bt.Fees(taker=5e-4, maker=2e-4),
        slippage=bt.Slippage(rate=1e-4),
        liquidation=bt.Liquidation(
            mode=mode,
            fee=float(rng.uniform(0.0, 0.02)),
            slippage=float(rng.uniform(0.0, 0.02)),
            **terms,
        ),
    )


def make_cascade() -> bt.Cascade:
    me = {"side": "long", "quantity": 1.0, "entry": 100.0, "collateral": 20.0}
    return bt.cascade(
        uniform_ladder(200, 0.2), plain_venue(slippage=0.02), shock=-0.03, insurance=20.0,
        impact=bt.Linear(5e-5), volume=1.0, me=me,
    )  # fmt: skip
