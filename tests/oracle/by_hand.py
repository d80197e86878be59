"""A few bars of one hour for the oracle, without a cost unless one is said."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.draws import HOUR, START
from tests.free_terms import ACCOUNT, GROUPS, TERMS
from tests.oracle import Outcome, simulate_one

INF = math.inf
NAN = math.nan


def bracket(floor=0.0, cap=1e9, leverage=16.0, rate=0.05):
    return SimpleNamespace(
        floor=floor, cap=cap, max_leverage=leverage, maintenance_rate=rate, amount=None
    )


def venue_of(**changes: Any) -> SimpleNamespace:
    """A venue without costs, one bracket of 5 % maintenance; parts are given as dicts."""
    parts = {
        name: SimpleNamespace(**plain | changes.pop(name, {})) for name, plain in GROUPS.items()
    }
    return SimpleNamespace(**parts, **{"brackets": [bracket()]} | TERMS | changes)


def account_of(**changes: Any) -> SimpleNamespace:
    """A cross account of 1,000 without any rule of its own."""
    return SimpleNamespace(**ACCOUNT | changes)


def market_of(
    *bars: tuple[float, float, float, float],
    mark: tuple[tuple[float, float, float, float], ...] | None = None,
    funding: tuple[tuple[float, float, float], ...] = (),
    volume: float = 1e9,
    interval: int = HOUR,
) -> SimpleNamespace:
    """Bars of (open, high, low, close); funding of (hours since the start, rate, own price)."""
    last, marked = np.array(bars, dtype=float).T, np.array(mark or bars, dtype=float).T
    names = ("open", "high", "low", "close")
    stamps = [round(START + hours * HOUR) for hours, _, _ in funding]
    return SimpleNamespace(
        time=START + interval * np.arange(len(bars)),
        interval=interval,
        **dict(zip(names, last, strict=True)),
        **{f"mark_{name}": values for name, values in zip(names, marked, strict=True)},
        volume=np.full(len(bars), volume),
        funding_time=np.array(stamps, dtype=np.int64),
        funding_rate=np.array([rate for _, rate, _ in funding]),
        funding_mark=np.array([price for _, _, price in funding]),
    )


FLAT = (100.0, 100.0, 100.0, 100.0)


def play(
    *bars: tuple[float, float, float, float],
    targets: tuple[float, ...],
    signals: tuple[float, ...] | None = None,
    venue: SimpleNamespace | None = None,
    account: SimpleNamespace | None = None,
    **market: Any,
) -> Outcome:
    """Run bars; the last target is repeated."""
    repeat = [*targets, *[targets[-1]] * (len(bars) - len(targets))]
    return simulate_one(
        market_of(*bars, **market),
        repeat,
        signals or [1.0] * len(bars),
        venue or venue_of(),
        account or account_of(),
    )


def near(value: Decimal | None, expected: float | Fraction) -> bool:
    """Equal but for the last bits of the floats that went in."""
    assert value is not None
    return float(value) == pytest.approx(float(expected), rel=1e-12, abs=1e-12)
