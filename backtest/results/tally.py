"""Tally of a run: sums and extremes that are updated bar by bar, in runs and in sweeps.

A run has a :class:`Tally`; in a block of lanes each of its numbers is a row. A new measure is a
field here, the line that counts it in :func:`backtest.engine.closes.count_close`, and its row of
:data:`backtest.results.measure_table.ABOUT`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest.account.money import Ledger
from backtest.core.kernels import inlined
from backtest.core.structs import Struct, lay_out

if TYPE_CHECKING:
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


@lay_out
class Tally(Struct):
    """The sums and extremes of an account, and its money by cause.

    Bars are numbers of bars, -1 where there was none. ``peak`` is the highest unit value so far,
    ``low`` the lowest after ``low_peak``, which is the deepest drawdown, ``recovered`` the bar that
    ended it. Of the sampling period in progress: its first unit value and risk-free return. Of
    those before: their number, ``mean`` and sum of ``squares`` about it, ``downside`` of squares
    below 0, and ``disutility`` of 1 / growth squared. What samples change, ``sample_unit`` to
    ``disutility``, has adjacent rows, which lanes copy as one. ``peak_needed`` and ``peak_backing``
    are requirement and backing of the highest margin ratio. ``decay_*`` and ``carry`` are sums of
    log growth, ``inverse`` is 1 / equity at the last close.
    """

    __slots__ = ()

    first_unit: float
    peak: float
    low: float
    low_peak: float
    peak_bar: float
    drawdown_peak: float
    drawdown_trough: float
    recovered: float
    sample_unit: float
    sample_free: float
    samples: float
    mean: float
    squares: float
    excess_mean: float
    excess_squares: float
    downside: float
    disutility: float
    near: float
    over_cap: float
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
    bars: float
    equity: float
    first_liquidation: float
    ruin: float
    inverse: float
    first_ambiguous: float
    first_both: float
    money: Ledger


def start_tally(unit: float, equity: float, t: int) -> Tally:
    """Return the tally of an account before bar t."""
    before = t - 1.0
    return Tally(
        first_unit=unit,
        peak=unit,
        low=unit,
        low_peak=unit,
        sample_unit=unit,
        peak_bar=before,
        drawdown_peak=before,
        drawdown_trough=before,
        recovered=-1.0,
        first_liquidation=-1.0,
        ruin=-1.0,
        first_ambiguous=-1.0,
        first_both=-1.0,
        peak_backing=1.0,
        decay_product=1.0,
        inverse=invert(equity),
    )


@inlined
def mark_drawdown(tally: Tally, unit: float, t: int) -> None:
    """Write the unit value of bar t into the peaks and the deepest drawdown of ``tally``.

    ``peak`` is the highest value so far, at ``peak_bar``. The deepest drawdown fell from
    ``low_peak``, at bar ``drawdown_peak``, to ``low``, at ``drawdown_trough``, and had recovered at
    bar ``recovered``, -1 while it has not. ``unit`` is the value of one unit of the account.
    """
    # Most bars are neither a peak nor a deeper low.
    peak = tally.peak
    if unit < peak and not is_deeper(peak, tally.low, tally.low_peak, unit):
        return

    # A new peak: a drawdown that there was has recovered.
    if unit >= peak:
        has_fallen = tally.low < tally.low_peak
        if has_fallen and tally.recovered < 0.0:
            tally.recovered = t
        tally.peak = peak = unit
        tally.peak_bar = t

    # The deepest drawdown so far, which begins anew at each deeper low.
    if is_deeper(peak, tally.low, tally.low_peak, unit):
        tally.low = unit
        tally.low_peak = peak
        tally.drawdown_peak = tally.peak_bar
        tally.drawdown_trough = t
        tally.recovered = -1.0


@inlined
def is_deeper(peak: float, low: float, low_peak: float, unit: float) -> bool:
    return unit * low_peak < low * peak


@inlined
def add_free(clock: Clock, tally: Tally, t: int) -> None:
    """Compound the risk-free return of bar t into the current sample of ``tally``."""
    tally.sample_free = grow_free(tally.sample_free, clock.risk_free[t])


@inlined
def grow_free(free: float, rate: float) -> float:
    return free + rate * (1.0 + free)


def finish_sample(tally: Tally, unit: float) -> None:
    """Add the current sampling period to the moments of ``tally``, and begin a new one."""
    began = tally.sample_unit
    n = tally.samples + 1.0
    change = unit / began - 1.0 if began > 0.0 else 0.0
    excess = change - tally.sample_free

    # Welford's moments: deviations from the mean before, times those from the mean after.
    step = change - tally.mean
    excess_step = excess - tally.excess_mean
    tally.mean += step / n
    tally.excess_mean += excess_step / n
    tally.squares += step * (change - tally.mean)
    tally.excess_squares += excess_step * (excess - tally.excess_mean)

    below = min(excess, 0.0)
    tally.downside += below * below
    tally.disutility += find_disutility(1.0 + change)
    tally.sample_unit = unit
    tally.sample_free = 0.0
    tally.samples = n


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
    peak_needed: float,
    peak_backing: float,
    needed: float,
    backing: float,
    is_held: bool,
) -> tuple[float, float]:
    """Return requirement and backing of the highest margin ratio up to now."""
    if is_held and not backing > 0.0:
        return 1.0, 0.0
    if needed * peak_backing > peak_needed * backing:
        return needed, backing
    return peak_needed, peak_backing
