"""Tally of a run: sums and extremes that are updated bar by bar, in runs and in sweeps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest.account import (
    Balances,
    InstrumentRules,
    Ledger,
    Quote,
    find_adverse,
    is_failing,
    new_ledger,
    worsen,
)

if TYPE_CHECKING:
    from backtest.base import FloatArray

NEAR = 0.1
"""A close within this fraction of the liquidation price counts as near it."""

FARTHEST = 1.01 / (1.0 - NEAR)
"""Factor of the close beyond which a failing requirement cannot make the close near."""


def as_index(t: int) -> int:
    return t


class Clock(NamedTuple):
    """Inputs of the tally by bar, arrays of shape (n_bars,)."""

    is_on: bool | None
    ends_sample: FloatArray
    log_return: FloatArray
    risk_free: FloatArray


class Drawdown(NamedTuple):
    peak: float
    low: float
    low_peak: float
    peak_bar: int
    drawdown_peak: int
    drawdown_trough: int
    recovered: int


class Sample(NamedTuple):
    sample_unit: float
    sample_free: float
    samples: int
    mean: float
    squares: float
    excess_mean: float
    excess_squares: float
    downside: float
    disutility: float


class Exposure(NamedTuple):
    near: int
    over_cap: int
    leverage: float
    peak_leverage: float
    peak_needed: float
    peak_backing: float


class Decay(NamedTuple):
    decay_held: float
    decay_log: float
    decay_product: float
    carry: float


class Tally(NamedTuple):
    first_unit: float
    drawdown: Drawdown
    sample: Sample
    money: Ledger
    exposure: Exposure
    decay: Decay
    bars: int
    equity: float
    first_liquidation: int
    ruin: int
    inverse: float
    first_ambiguous: int
    first_both: int


def start_tally(unit: float, equity: float, t: int) -> Tally:
    return Tally(
        first_unit=unit,
        drawdown=Drawdown(
            peak=unit,
            low=unit,
            low_peak=unit,
            peak_bar=t - 1,
            drawdown_peak=t - 1,
            drawdown_trough=t - 1,
            recovered=-1,
        ),
        sample=Sample(
            sample_unit=unit,
            sample_free=0.0,
            samples=0,
            mean=0.0,
            squares=0.0,
            excess_mean=0.0,
            excess_squares=0.0,
            downside=0.0,
            disutility=0.0,
        ),
        money=new_ledger(),
        exposure=Exposure(
            near=0, over_cap=0, leverage=0.0, peak_leverage=0.0, peak_needed=0.0, peak_backing=1.0
        ),
        decay=Decay(decay_held=0.0, decay_log=0.0, decay_product=1.0, carry=0.0),
        bars=0,
        equity=0.0,
        first_liquidation=-1,
        ruin=-1,
        inverse=invert(equity),
        first_ambiguous=-1,
        first_both=-1,
    )


def mark_drawdown(drawdown: Drawdown, unit: float, t: int) -> Drawdown:
    if unit < drawdown.peak and not is_deeper(drawdown.peak, drawdown.low, drawdown.low_peak, unit):
        return drawdown
    peak_bar, recovered = drawdown.peak_bar, drawdown.recovered
    peak_at, trough_at = drawdown.drawdown_peak, drawdown.drawdown_trough
    peak, low, low_peak = update_drawdown(drawdown.peak, drawdown.low, drawdown.low_peak, unit)
    if unit >= drawdown.peak:
        if low < low_peak and recovered < 0:
            recovered = t
        peak_bar = t
    elif is_deeper(drawdown.peak, drawdown.low, drawdown.low_peak, unit):
        peak_at, trough_at, recovered = peak_bar, t, -1
    return Drawdown(
        peak=peak,
        low=low,
        low_peak=low_peak,
        peak_bar=peak_bar,
        drawdown_peak=peak_at,
        drawdown_trough=trough_at,
        recovered=recovered,
    )


def invert(equity: float) -> float:
    return 1.0 / equity if equity > 0.0 else 0.0


def is_deeper(peak: float, low: float, low_peak: float, unit: float) -> bool:
    return unit * low_peak < low * peak


def update_drawdown(
    peak: float, low: float, low_peak: float, unit: float
) -> tuple[float, float, float]:
    peak = max(peak, unit)
    if is_deeper(peak, low, low_peak, unit):
        return peak, unit, peak
    return peak, low, low_peak


def add_free(clock: Clock, sample: Sample, t: int) -> Sample:
    free = grow_free(sample.sample_free, clock.risk_free[as_index(t)])
    if free == sample.sample_free:
        return sample
    return Sample(
        sample_unit=sample.sample_unit,
        sample_free=free,
        samples=sample.samples,
        mean=sample.mean,
        squares=sample.squares,
        excess_mean=sample.excess_mean,
        excess_squares=sample.excess_squares,
        downside=sample.downside,
        disutility=sample.disutility,
    )


def grow_free(free: float, rate: float) -> float:
    return free + rate * (1.0 + free)


def finish_sample(sample: Sample, unit: float) -> tuple[Sample, float]:
    change = unit / sample.sample_unit - 1.0 if sample.sample_unit > 0.0 else 0.0
    excess = change - sample.sample_free
    n = sample.samples + 1
    step = change - sample.mean
    mean = sample.mean + step / n
    excess_step = excess - sample.excess_mean
    excess_mean = sample.excess_mean + excess_step / n
    below = min(excess, 0.0)
    after = Sample(
        sample_unit=unit,
        sample_free=0.0,
        samples=n,
        mean=mean,
        squares=sample.squares + step * (change - mean),
        excess_mean=excess_mean,
        excess_squares=sample.excess_squares + excess_step * (excess - excess_mean),
        downside=sample.downside + below * below,
        disutility=sample.disutility + find_disutility(1.0 + change),
    )
    return after, change


def find_disutility(growth: float) -> float:
    square = growth * growth
    return 1.0 / square if square > 0.0 else math.inf


def add_carry(carry: float, ledger: Ledger, inverse: float) -> float:
    carry = carry + ledger.funding * inverse
    carry = carry + ledger.interest * inverse
    return carry + ledger.fees * inverse


def needs_folding(product: float) -> bool:
    return product > 1e100 or product < 1e-100


def fold_product(log: float, product: float) -> tuple[float, float]:
    if needs_folding(product):
        return log + math.log(product), 1.0
    return log, product


def raise_ratio(
    peak_needed: float, peak_backing: float, needed: float, backing: float, is_held: bool
) -> tuple[float, float]:
    if is_held and not backing > 0.0:
        return 1.0, 0.0
    if needed * peak_backing > peak_needed * backing:
        return needed, backing
    return peak_needed, peak_backing


def is_near(rules: InstrumentRules, balances: Balances, quote: Quote) -> bool:
    lower, upper = find_near(rules, quote)
    value = find_adverse(balances.positions[0], lower, upper)
    return is_failing(rules, balances, value, quote.multiplier)


def find_near(rules: InstrumentRules, quote: Quote) -> tuple[float, float]:
    close = quote.mark_close
    lower = worsen(rules, close, 1.0, 1.0 / (1.0 + NEAR) - 1.0)
    upper = worsen(rules, close, 1.0, 1.0 / (1.0 - NEAR) - 1.0)
    return lower, upper
