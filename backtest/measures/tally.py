"""The measures that accumulate bar by bar, the same function in a run and in a sweep.

Everything is scalar arithmetic on named tuples, in bar order: plain Python and compiled code give
the same bits. Returns are of the unit value, sampled where ``ends_sample`` says so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest.account.bar import State, place
from backtest.account.ledger import Ledger
from backtest.account.steps import (
    Books,
    Quote,
    Rules,
    compute_backing,
    compute_requirement,
    is_failing,
    worsen,
)

if TYPE_CHECKING:
    from backtest.base.units import FloatArray

NEAR = 0.1
"""A close within this fraction of the liquidation price counts as near it."""

FARTHEST = 1.01 / (1.0 - NEAR)
"""A factor of the close beyond which it does not matter whether the requirement fails."""


class Clock(NamedTuple):
    """What the measures need of time, arrays of shape (n_bars,).

    ``is_on`` is None where nothing is to be measured; ``ends_sample`` is 1 at the last bar of each
    sampling period, ``log_return`` the logarithmic mark return of one contract (NaN where it has
    none), ``risk_free`` the simple rate earned over the bar.
    """

    is_on: bool | None
    ends_sample: FloatArray
    log_return: FloatArray
    risk_free: FloatArray


class Tally(NamedTuple):
    """What has been accumulated so far.

    ``peak`` is the running peak of the unit value, ``low`` and ``low_peak`` the deepest fall with
    the peak it fell from; then the bars of that peak, the trough and the recovery (-1: none).
    ``mean`` and ``squares`` are Welford's for sampled returns, ``excess`` for returns over the
    risk-free rate. The peak margin ratio is ``peak_needed / peak_backing``. ``inverse`` is 1 /
    equity at the last close. ``decay_held`` sums l ln(1 + r); ``decay_log`` and ``decay_product``
    hold ln(1 + l r), the product taken to a logarithm only when it leaves the range of float64.
    """

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
    bars: int
    equity: float
    price_pnl: float
    fees: float
    slippage: float
    impact: float
    funding: float
    interest: float
    liquidation_loss: float
    flows: float
    top_up: float
    bad_debt: float
    traded: float
    liquidations: int
    stops: int
    calls: int
    first_liquidation: int
    ruin: int
    near: int
    leverage: float
    peak_leverage: float
    peak_needed: float
    peak_backing: float
    inverse: float
    decay_held: float
    decay_log: float
    decay_product: float


class Sample(NamedTuple):
    """The moments of sampled returns so far, and where the sample in progress began."""

    unit: float
    free: float
    n: int
    mean: float
    squares: float
    excess_mean: float
    excess_squares: float
    downside: float


class Exposure(NamedTuple):
    """How close to the limit the account has been at closes."""

    near: int
    leverage: float
    peak_leverage: float
    peak_needed: float
    peak_backing: float


def start_tally(unit: float, equity: float, t: int) -> Tally:
    """Return an empty tally for an account of this unit value and equity before bar t.

    The first peak is the start itself, bar t - 1 so to speak.
    """
    zero = 0.0
    return Tally(
        unit, unit, unit, unit, t - 1, t - 1, t - 1, -1,
        unit, zero, 0, zero, zero, zero, zero, zero,
        0, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero,
        0, 0, 0, -1, -1, 0, zero, zero, zero, 1.0, invert(equity), zero, zero, 1.0,
    )  # fmt: skip


def count_bar(
    rules: Rules,
    clock: Clock,
    tally: Tally,
    before: State,
    after: State,
    ledger: Ledger,
    quote: Quote,
    t: int,
) -> Tally:
    """Return the tally with bar t added."""
    unit = after.unit
    peak_bar, recovered = tally.peak_bar, tally.recovered
    peak_at, trough_at = tally.drawdown_peak, tally.drawdown_trough
    peak, low, low_peak = deepen(tally.peak, tally.low, tally.low_peak, unit)
    if unit >= tally.peak:
        if low < low_peak and recovered < 0:
            recovered = t
        peak_bar = t
    elif is_deeper(tally.peak, tally.low, tally.low_peak, unit):
        peak_at, trough_at, recovered = peak_bar, t, -1
    sample = add_free(clock, read_sample(tally), t)
    if clock.ends_sample[place(t)] != 0.0:
        sample, _ = take_sample(sample, unit)
    inverse = invert(after.equity)
    moved = ledger.flows + ledger.top_up
    base = tally.inverse if moved == 0.0 else invert(before.equity + moved)
    held, log, product = tally.decay_held, tally.decay_log, tally.decay_product
    if ledger.liquidations + ledger.stops == 0:
        move = clock.log_return[place(t)]
        quantity = after.books.quantity
        held, product = add_decay(held, product, quantity, base, before.books.value, quote, move)
        log, product = fold(log, product)
    exposure = watch(rules, read_exposure(tally), after.books, inverse, quote)
    first, ruin = tally.first_liquidation, tally.ruin
    if first < 0 and ledger.liquidations > 0:
        first = t
    if ruin < 0 and after.is_ruined:
        ruin = t
    return Tally(
        tally.first_unit,
        peak,
        low,
        low_peak,
        peak_bar,
        peak_at,
        trough_at,
        recovered,
        sample.unit,
        sample.free,
        sample.n,
        sample.mean,
        sample.squares,
        sample.excess_mean,
        sample.excess_squares,
        sample.downside,
        tally.bars + 1,
        tally.equity + after.equity,
        tally.price_pnl + ledger.price_pnl,
        tally.fees + ledger.fees,
        tally.slippage + ledger.slippage,
        tally.impact + ledger.impact,
        tally.funding + ledger.funding,
        tally.interest + ledger.interest,
        tally.liquidation_loss + ledger.liquidation_loss,
        tally.flows + ledger.flows,
        tally.top_up + ledger.top_up,
        tally.bad_debt + ledger.bad_debt,
        tally.traded + ledger.traded,
        tally.liquidations + ledger.liquidations,
        tally.stops + ledger.stops,
        tally.calls + ledger.calls,
        first,
        ruin,
        exposure.near,
        exposure.leverage,
        exposure.peak_leverage,
        exposure.peak_needed,
        exposure.peak_backing,
        inverse,
        held,
        log,
        product,
    )


def invert(equity: float) -> float:
    """Return 1 / equity, and 0 where there is none: it then carries no leverage."""
    return 1.0 / equity if equity > 0.0 else 0.0


def is_deeper(peak: float, low: float, low_peak: float, unit: float) -> bool:
    """Tell whether a unit value is further under its peak than the deepest so far."""
    return unit * low_peak < low * peak


def deepen(peak: float, low: float, low_peak: float, unit: float) -> tuple[float, float, float]:
    """Return the running peak and the deepest fall, with a unit value added."""
    peak = max(peak, unit)
    if is_deeper(peak, low, low_peak, unit):
        return peak, unit, peak
    return peak, low, low_peak


def read_sample(tally: Tally) -> Sample:
    """Return the sampling fields of a tally."""
    return Sample(
        tally.sample_unit,
        tally.sample_free,
        tally.samples,
        tally.mean,
        tally.squares,
        tally.excess_mean,
        tally.excess_squares,
        tally.downside,
    )


def add_free(clock: Clock, sample: Sample, t: int) -> Sample:
    """Return the sample with the risk-free rate of bar t earned."""
    free = grow_free(sample.free, clock.risk_free[place(t)])
    return Sample(
        sample.unit,
        free,
        sample.n,
        sample.mean,
        sample.squares,
        sample.excess_mean,
        sample.excess_squares,
        sample.downside,
    )


def grow_free(free: float, rate: float) -> float:
    """Return the risk-free return so far, with one more bar's."""
    return free + rate * (1.0 + free)


def take_sample(sample: Sample, unit: float) -> tuple[Sample, float]:
    """Return the moments with the sample that ends here, and its return."""
    change = unit / sample.unit - 1.0 if sample.unit > 0.0 else 0.0
    excess = change - sample.free
    n = sample.n + 1
    step = change - sample.mean
    mean = sample.mean + step / n
    excess_step = excess - sample.excess_mean
    excess_mean = sample.excess_mean + excess_step / n
    below = min(excess, 0.0)
    after = Sample(
        unit,
        0.0,
        n,
        mean,
        sample.squares + step * (change - mean),
        excess_mean,
        sample.excess_squares + excess_step * (excess - excess_mean),
        sample.downside + below * below,
    )
    return after, change


def add_decay(
    held: float,
    product: float,
    quantity: float,
    inverse: float,
    value: float,
    quote: Quote,
    move: float,
) -> tuple[float, float]:
    """Return the decay's sum and product after a bar; ``inverse`` and ``value`` from before it."""
    is_known = not math.isnan(move)
    rise = quote.mark_close - value if is_known else 0.0
    drift = abs(value) * move if is_known else 0.0
    scale = quantity * inverse
    grown = 1.0 + scale * rise
    gain = scale * drift if grown > 0.0 else 0.0
    return held + gain, product * (grown if grown > 0.0 else 1.0)


def is_wide(product: float) -> bool:
    """Tell whether a product is about to leave the range of float64."""
    return product > 1e100 or product < 1e-100


def fold(log: float, product: float) -> tuple[float, float]:
    """Return logarithm and product, a wide product taken to the logarithm."""
    if is_wide(product):
        return log + math.log(product), 1.0
    return log, product


def read_exposure(tally: Tally) -> Exposure:
    """Return the exposure fields of a tally."""
    return Exposure(
        tally.near, tally.leverage, tally.peak_leverage, tally.peak_needed, tally.peak_backing
    )


def watch(rules: Rules, exposure: Exposure, books: Books, inverse: float, quote: Quote) -> Exposure:
    """Return the exposure with a close added.

    A close is near when the requirement would fail a tenth away.
    """
    peaks = raise_peaks(rules, exposure, books, inverse, quote)
    return Exposure(
        exposure.near + (1 if is_near(rules, books, quote) else 0),
        exposure.leverage + abs(books.quantity) * abs(quote.mark_close) * inverse,
        peaks.peak_leverage,
        peaks.peak_needed,
        peaks.peak_backing,
    )


def raise_peaks(
    rules: Rules, exposure: Exposure, books: Books, inverse: float, quote: Quote
) -> Exposure:
    """Return the exposure with its peaks brought up to a close; a second time changes nothing."""
    leverage = abs(books.quantity) * abs(quote.mark_close) * inverse
    backing = compute_backing(rules, books, quote.mark_close)
    needed = compute_requirement(rules, books, quote.mark_close, quote.multiplier)
    peak_needed, peak_backing = exposure.peak_needed, exposure.peak_backing
    if books.quantity != 0.0 and not backing > 0.0:
        peak_needed, peak_backing = 1.0, 0.0
    elif needed * peak_backing > peak_needed * backing:
        peak_needed, peak_backing = needed, backing
    return Exposure(
        exposure.near,
        exposure.leverage,
        max(exposure.peak_leverage, leverage),
        peak_needed,
        peak_backing,
    )


def is_near(rules: Rules, books: Books, quote: Quote) -> bool:
    """Tell whether the mark close is within a tenth of the liquidation price."""
    lower, upper = find_near(rules, quote)
    return is_failing(rules, books, lower if books.quantity > 0.0 else upper, quote.multiplier)


def find_near(rules: Rules, quote: Quote) -> tuple[float, float]:
    """Return the values at which a long and a short would have to fail to be near."""
    close = quote.mark_close
    lower = worsen(rules, close, 1.0, 1.0 / (1.0 + NEAR) - 1.0)
    upper = worsen(rules, close, 1.0, 1.0 / (1.0 - NEAR) - 1.0)
    return lower, upper
