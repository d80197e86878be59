"""Tally of a run: sums and extremes that are updated bar by bar, in runs and in sweeps.

While bars are taken a tally is an array, with a row for each field of :class:`Tally` and of the
ledger; read of it, it is a record.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, get_type_hints

import numpy as np

from backtest.account.money import COUNTED, Ledger
from backtest.core.kernels import inlined

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backtest.core import FloatArray

NEAR = 0.1
"""A close within this fraction of the liquidation price counts as near it."""

FARTHEST = 1.01 / (1.0 - NEAR)
"""Factor of the close beyond which a failing requirement cannot make the close near."""


class Clock(NamedTuple):
    """Inputs of the tally by bar, arrays of shape (n_bars,)."""

    ends_sample: FloatArray
    log_return: FloatArray
    risk_free: FloatArray


class Tally(NamedTuple):
    first_unit: float
    peak: float
    low: float
    low_peak: float
    peak_bar: int
    drawdown_peak: int
    drawdown_trough: int
    recovered: int
    sample_unit: float
    sample_free: float
    samples: int
    mean: float
    squares: float
    excess_mean: float
    excess_squares: float
    downside: float
    disutility: float
    near: int
    over_cap: int
    leverage: float
    peak_leverage: float
    peak_needed: float
    peak_backing: float
    initial: float
    initial_share: float
    decay_held: float
    decay_log: float
    decay_product: float
    carry: float
    bars: int
    equity: float
    first_liquidation: int
    ruin: int
    inverse: float
    first_ambiguous: int
    first_both: int
    money: Ledger


(
    FIRST_UNIT, PEAK_UNIT, LOW, LOW_PEAK, PEAK_BAR, FALL_PEAK, FALL_TROUGH, RECOVERED, SAMPLE_UNIT,
    SAMPLE_FREE, SAMPLES, MEAN, SQUARES, EXCESS_MEAN, EXCESS_SQUARES, DOWNSIDE, DISUTILITY,
    NEAR_BARS, OVER_CAP, LEVERAGE, PEAK_LEVERAGE, PEAK_NEEDED, PEAK_BACKING, INITIAL, INITIAL_SHARE,
    DECAY_HELD, DECAY_LOG, DECAY_PRODUCT, CARRY, BARS, EQUITY_SUM, FIRST_LIQUIDATION, FIRST_RUIN,
    INVERSE, FIRST_AMBIGUOUS, FIRST_BOTH, MONEY,
) = range(len(Tally._fields))  # fmt: skip
FIELDS = (*Tally._fields[:MONEY], *Ledger._fields)
N_TALLY = len(FIELDS)
TRADED = FIELDS.index("traded")
COUNTS = frozenset(
    name for name, kind in {**get_type_hints(Tally), **COUNTED}.items() if kind is int
)


def start_tally(unit: float, equity: float, t: int) -> FloatArray:
    tally = np.zeros(N_TALLY)
    tally[[FIRST_UNIT, PEAK_UNIT, LOW, LOW_PEAK, SAMPLE_UNIT]] = unit
    tally[[PEAK_BAR, FALL_PEAK, FALL_TROUGH]] = t - 1
    tally[[RECOVERED, FIRST_LIQUIDATION, FIRST_RUIN, FIRST_AMBIGUOUS, FIRST_BOTH]] = -1.0
    tally[[PEAK_BACKING, DECAY_PRODUCT]] = 1.0
    tally[INVERSE] = invert(equity)
    return tally


def name_tally(tally: FloatArray) -> dict[str, float]:
    numbers = zip(FIELDS, tally.tolist(), strict=True)
    return {name: int(value) if name in COUNTS else value for name, value in numbers}


def read_tally(tally: FloatArray) -> Tally:
    return make_tally(name_tally(tally))


def make_tally(named: Mapping[str, Any]) -> Tally:
    money = Ledger(**{name: named[name] for name in Ledger._fields})
    return Tally(**{name: named[name] for name in FIELDS[:MONEY]}, money=money)


def flatten_tally(tally: Tally) -> dict[str, float]:
    named = tally._asdict()
    money: Ledger = named.pop("money")
    return named | money._asdict()


@inlined
def mark_drawdown(tally: FloatArray, unit: float, t: int) -> None:
    """Write the unit value of bar t into the peaks and the deepest drawdown of ``tally``."""
    peak, low, low_peak = tally[PEAK_UNIT], tally[LOW], tally[LOW_PEAK]
    if unit < peak and not is_deeper(peak, low, low_peak, unit):
        return
    if unit >= peak:
        if low < low_peak and tally[RECOVERED] < 0.0:
            tally[RECOVERED] = t
        tally[PEAK_UNIT], tally[PEAK_BAR] = unit, t
    if is_deeper(max(peak, unit), low, low_peak, unit):
        tally[LOW], tally[LOW_PEAK] = unit, max(peak, unit)
        tally[FALL_PEAK], tally[FALL_TROUGH], tally[RECOVERED] = tally[PEAK_BAR], t, -1.0


@inlined
def is_deeper(peak: float, low: float, low_peak: float, unit: float) -> bool:
    return unit * low_peak < low * peak


@inlined
def add_free(clock: Clock, tally: FloatArray, t: int) -> None:
    """Compound the risk-free return of bar t into the current sample of ``tally``."""
    tally[SAMPLE_FREE] = grow_free(tally[SAMPLE_FREE], clock.risk_free[t])


@inlined
def grow_free(free: float, rate: float) -> float:
    return free + rate * (1.0 + free)


def finish_sample(tally: FloatArray, unit: float) -> None:
    """Add the current sampling period to the moments of ``tally``, and begin a new one."""
    began, n = tally[SAMPLE_UNIT], tally[SAMPLES] + 1.0
    change = unit / began - 1.0 if began > 0.0 else 0.0
    excess = change - tally[SAMPLE_FREE]
    step, excess_step = change - tally[MEAN], excess - tally[EXCESS_MEAN]
    tally[MEAN] += step / n
    tally[EXCESS_MEAN] += excess_step / n
    tally[SQUARES] += step * (change - tally[MEAN])
    tally[EXCESS_SQUARES] += excess_step * (excess - tally[EXCESS_MEAN])
    below = min(excess, 0.0)
    tally[DOWNSIDE] += below * below
    tally[DISUTILITY] += find_disutility(1.0 + change)
    tally[SAMPLE_UNIT], tally[SAMPLE_FREE], tally[SAMPLES] = unit, 0.0, n


def find_disutility(growth: float) -> float:
    square = growth * growth
    return 1.0 / square if square > 0.0 else math.inf


@inlined
def invert(equity: float) -> float:
    return 1.0 / equity if equity > 0.0 else 0.0


@inlined
def needs_folding(product: float) -> bool:
    return product > 1e100 or product < 1e-100


@inlined
def fold_product(log: float, product: float) -> tuple[float, float]:
    """Return log and product with a product near the ends of its range moved into the log."""
    if needs_folding(product):
        return log + math.log(product), 1.0
    return log, product


def raise_ratio(
    peak_needed: float, peak_backing: float, needed: float, backing: float, is_held: bool
) -> tuple[float, float]:
    """Return requirement and backing of the highest margin ratio up to now."""
    if is_held and not backing > 0.0:
        return 1.0, 0.0
    if needed * peak_backing > peak_needed * backing:
        return needed, backing
    return peak_needed, peak_backing
