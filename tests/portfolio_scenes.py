"""Accounts that are small enough to compute by hand.

A scene is a :class:`tests.portfolio_cases.PortfolioCase` with a few bars: the oracle and the
engine both play it.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests import free_terms
from tests.agreement import assert_agrees
from tests.cases import PortfolioCase, Tape
from tests.draws import HOUR, START, utc
from tests.free_terms import GROUPS, TERMS
from tests.oracle import Outcome

Bar = tuple[float, float, float, float]

FREE: dict[str, dict[str, Any]] = {**GROUPS, "venue": TERMS}
ACCOUNT: dict[str, Any] = {
    **free_terms.ACCOUNT,
    "intrabar": "path",
    "max_gross_leverage": math.inf,
    "max_overlay": math.inf,
    "negative_limit": None,
    "conversion": "listed",
}


def flat(price: float) -> Bar:
    """Return a bar that does not move."""
    return (price,) * 4


def bracket(rate: float = 0.05, leverage: float = 20.0) -> dict[str, Any]:
    """Return one bracket for any notional: 5 % maintenance, 20 x."""
    return {"floor": 0.0, "cap": 1e12, "max_leverage": leverage, "maintenance_rate": rate}


def tape(
    bars: Sequence[Bar],
    target: Sequence[float] = (),
    funding: Sequence[tuple[float, float, float]] = (),
    first: int = 0,
) -> Tape:
    """Return hourly bars; the last target is repeated, funding is (hours, rate, own price)."""
    stamps = START + HOUR * (first + np.arange(len(bars)))
    frame = pd.DataFrame(bars, columns=["open", "high", "low", "close"], index=utc(stamps))
    frame = frame.astype(float).assign(volume=1e9)
    if target:
        frame["target"] = [*target, *[target[-1]] * (len(bars) - len(target))]
    paid = None
    if funding:
        index = utc([round(START + hours * HOUR) for hours, _, _ in funding])
        rows = [(rate, price) for _, rate, price in funding]
        paid = pd.DataFrame(rows, columns=["rate", "mark"], index=index)
    return Tape(frame, None, paid, HOUR)


def scene(
    tapes: Mapping[str, Tape],
    signal: Mapping[str, float | Sequence[float]],
    *,
    venues: Mapping[str, Mapping[str, Any]] | None = None,
    requirement: dict[str, Any] | None = None,
    collateral: Sequence[tuple[dict[str, Any], Tape]] = (),
    **account: Any,
) -> PortfolioCase:
    """Return an account without costs and with one bracket, but for what is said.

    ``venues`` has changes by group for each instrument, or under ``"*"`` for all.
    """
    clock = sorted({stamp for each in tapes.values() for stamp in each.bars.index.asi8})
    index = utc(clock)
    given = venues or {}
    columns = {name: np.broadcast_to(signal[name], len(clock)).copy() for name in tapes}
    return PortfolioCase(
        seed=-1,
        tapes=dict(tapes),
        venues={name: venue_of(given.get("*", {}), given.get(name, {})) for name in tapes},
        account=ACCOUNT | account,
        requirement=requirement,
        collateral=list(collateral),
        signal=pd.DataFrame(columns, index=index, dtype=float),
        overlay=None,
    )


def venue_of(*changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the groups of a venue with some of them changed, the last change first."""
    venue: dict[str, Any] = {name: dict(group) for name, group in FREE.items()}
    venue["brackets"] = [bracket()]
    for change in changes:
        for name, group in change.items():
            venue[name] = group if name == "brackets" else venue[name] | group
    return venue


def asset(name: str, amount: float, **terms: Any) -> dict[str, Any]:
    """Return the terms of collateral."""
    plain = {"rate": None, "tiers": None, "slippage": 0.0, "cancels_risk": None}
    return {"name": name, "amount": amount, **plain, **terms}


# ------------------------------------------------------------------------- one position

FLAT = flat(100.0)


def play(
    *bars: Bar,
    targets: Sequence[float],
    signals: float | Sequence[float] = 1.0,
    venue: Mapping[str, Any] | None = None,
    funding: Sequence[tuple[float, float, float]] = (),
    **account: Any,
) -> Outcome:
    """Run an account of one position by the oracle, and hold the engine to it."""
    changes = {"brackets": [bracket(leverage=16.0)]} | (venue or {})
    tapes, signal = {"TEST": tape(bars, targets, funding)}, {"TEST": signals}
    return assert_agrees(scene(tapes, signal, venues={"*": changes}, **account), "by hand").alone()


def near(value: Any, expected: float | Fraction) -> bool:
    """Equal but for the last bits of the floats that went in."""
    assert float(value) == pytest.approx(float(expected), rel=1e-12, abs=1e-12)
    return True


def play_case(case: PortfolioCase) -> Outcome:
    """Run the oracle, and hold the engine to it."""
    return assert_agrees(case, "by hand")
