"""Tally of a run: sums and extremes that are updated bar by bar, in runs and in sweeps.

All arithmetic is scalar, on named tuples, in the order of bars, so plain Python and compiled code
give the same bits. Returns are those of the unit value, sampled at the bars that ``ends_sample``
marks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.account import (
    Books,
    InstrumentRules,
    Ledger,
    Quote,
    State,
    as_index,
    compute_backing,
    compute_requirement,
    find_adverse,
)
from backtest.account.books import is_failing
from backtest.account.position import worsen

if TYPE_CHECKING:
    from backtest.base.units import FloatArray

NEAR = 0.1
"""A close within this fraction of the liquidation price counts as near it."""

FARTHEST = 1.01 / (1.0 - NEAR)
"""Factor of the close beyond which a failing requirement cannot make the close near."""


class Clock(NamedTuple):
    """Inputs of the tally by bar, arrays of shape (n_bars,).

    ``is_on`` is None if nothing is measured. ``ends_sample`` is 1 at the last bar of each sampling
    period, ``log_return`` the logarithmic mark return of one contract (NaN if it has none), and
    ``risk_free`` the simple rate earned over the bar.
    """

    is_on: bool | None
    ends_sample: FloatArray
    log_return: FloatArray
    risk_free: FloatArray


class Tally(NamedTuple):
    """Sums and extremes so far.

    ``peak`` is the running peak of the unit value. ``low`` and ``low_peak`` are the deepest trough
    and its peak, followed by the bars of that peak, the trough, and the recovery (-1: none).
    ``mean`` and ``squares`` are Welford's moments of sampled returns, ``excess_*`` those of returns
    over the risk-free rate. The peak margin ratio is ``peak_needed / peak_backing``. ``inverse`` is
    1 / equity at the last close. ``decay_held`` sums l ln(1 + r). ``decay_log`` and
    ``decay_product`` hold the sum of ln(1 + l r): the logarithm of the product is only taken before
    it would leave the range of float64.
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
    """Moments of sampled returns so far, and the start of the current sample."""

    unit: float
    free: float
    n: int
    mean: float
    squares: float
    excess_mean: float
    excess_squares: float
    downside: float


class Exposure(NamedTuple):
    """Leverage and margin use of the account at closes."""

    near: int
    leverage: float
    peak_leverage: float
    peak_needed: float
    peak_backing: float


def start_tally(unit: float, equity: float, t: int) -> Tally:
    """Return an empty tally for an account of this unit value and equity before bar t.

    The first peak is the start itself, counted as bar t - 1.
    """
    start: dict[str, Any] = dict.fromkeys(Tally._fields, 0.0)
    start |= dict.fromkeys(("samples", "bars", "liquidations", "stops", "calls", "near"), 0)
    start |= dict.fromkeys(("first_unit", "peak", "low", "low_peak", "sample_unit"), unit)
    start |= dict.fromkeys(("peak_bar", "drawdown_peak", "drawdown_trough"), t - 1)
    start |= dict.fromkeys(("recovered", "first_liquidation", "ruin"), -1)
    start |= {"peak_backing": 1.0, "inverse": invert(equity), "decay_product": 1.0}
    return Tally(**start)


def count_bar(
    rules: InstrumentRules,
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
    peak, low, low_peak = update_drawdown(tally.peak, tally.low, tally.low_peak, unit)
    if unit >= tally.peak:
        if low < low_peak and recovered < 0:
            recovered = t
        peak_bar = t
    elif is_deeper(tally.peak, tally.low, tally.low_peak, unit):
        peak_at, trough_at, recovered = peak_bar, t, -1
    sample = add_free(clock, read_sample(tally), t)
    if clock.ends_sample[as_index(t)] != 0.0:
        sample, _ = finish_sample(sample, unit)
    inverse = invert(after.equity)
    moved = ledger.flows + ledger.top_up
    base = tally.inverse if moved == 0.0 else invert(before.equity + moved)
    held, log, product = tally.decay_held, tally.decay_log, tally.decay_product
    if ledger.liquidations + ledger.stops == 0:
        move = clock.log_return[as_index(t)]
        quantity, value = after.books.positions[0].quantity, before.books.positions[0].value
        held, product = add_decay(held, product, quantity, base, value, quote, move)
        log, product = fold_product(log, product)
    exposure = add_exposure(rules, read_exposure(tally), after.books, inverse, quote)
    first, ruin = tally.first_liquidation, tally.ruin
    if first < 0 and ledger.liquidations > 0:
        first = t
    if ruin < 0 and after.is_ruined:
        ruin = t
    return Tally(
        first_unit=tally.first_unit,
        peak=peak,
        low=low,
        low_peak=low_peak,
        peak_bar=peak_bar,
        drawdown_peak=peak_at,
        drawdown_trough=trough_at,
        recovered=recovered,
        sample_unit=sample.unit,
        sample_free=sample.free,
        samples=sample.n,
        mean=sample.mean,
        squares=sample.squares,
        excess_mean=sample.excess_mean,
        excess_squares=sample.excess_squares,
        downside=sample.downside,
        bars=tally.bars + 1,
        equity=tally.equity + after.equity,
        price_pnl=tally.price_pnl + ledger.price_pnl,
        fees=tally.fees + ledger.fees,
        slippage=tally.slippage + ledger.slippage,
        impact=tally.impact + ledger.impact,
        funding=tally.funding + ledger.funding,
        interest=tally.interest + ledger.interest,
        liquidation_loss=tally.liquidation_loss + ledger.liquidation_loss,
        flows=tally.flows + ledger.flows,
        top_up=tally.top_up + ledger.top_up,
        bad_debt=tally.bad_debt + ledger.bad_debt,
        traded=tally.traded + ledger.traded,
        liquidations=tally.liquidations + ledger.liquidations,
        stops=tally.stops + ledger.stops,
        calls=tally.calls + ledger.calls,
        first_liquidation=first,
        ruin=ruin,
        near=exposure.near,
        leverage=exposure.leverage,
        peak_leverage=exposure.peak_leverage,
        peak_needed=exposure.peak_needed,
        peak_backing=exposure.peak_backing,
        inverse=inverse,
        decay_held=held,
        decay_log=log,
        decay_product=product,
    )


def invert(equity: float) -> float:
    """Return 1 / equity, or 0 without equity, which then counts as no leverage."""
    return 1.0 / equity if equity > 0.0 else 0.0


def is_deeper(peak: float, low: float, low_peak: float, unit: float) -> bool:
    """Return whether a unit value is further under its peak than the deepest so far."""
    return unit * low_peak < low * peak


def update_drawdown(
    peak: float, low: float, low_peak: float, unit: float
) -> tuple[float, float, float]:
    """Return the running peak and the deepest fall, updated with a unit value."""
    peak = max(peak, unit)
    if is_deeper(peak, low, low_peak, unit):
        return peak, unit, peak
    return peak, low, low_peak


def read_sample(tally: Tally) -> Sample:
    """Return the sampling fields of a tally."""
    return Sample(
        unit=tally.sample_unit,
        free=tally.sample_free,
        n=tally.samples,
        mean=tally.mean,
        squares=tally.squares,
        excess_mean=tally.excess_mean,
        excess_squares=tally.excess_squares,
        downside=tally.downside,
    )


def add_free(clock: Clock, sample: Sample, t: int) -> Sample:
    """Return the sample with the risk-free rate of bar t earned."""
    return Sample(
        unit=sample.unit,
        free=grow_free(sample.free, clock.risk_free[as_index(t)]),
        n=sample.n,
        mean=sample.mean,
        squares=sample.squares,
        excess_mean=sample.excess_mean,
        excess_squares=sample.excess_squares,
        downside=sample.downside,
    )


def grow_free(free: float, rate: float) -> float:
    """Return the risk-free return so far, compounded with one more bar."""
    return free + rate * (1.0 + free)


def finish_sample(sample: Sample, unit: float) -> tuple[Sample, float]:
    """Return the moments updated with the sample that ends here, and its return."""
    change = unit / sample.unit - 1.0 if sample.unit > 0.0 else 0.0
    excess = change - sample.free
    n = sample.n + 1
    step = change - sample.mean
    mean = sample.mean + step / n
    excess_step = excess - sample.excess_mean
    excess_mean = sample.excess_mean + excess_step / n
    below = min(excess, 0.0)
    after = Sample(
        unit=unit,
        free=0.0,
        n=n,
        mean=mean,
        squares=sample.squares + step * (change - mean),
        excess_mean=excess_mean,
        excess_squares=sample.excess_squares + excess_step * (excess - excess_mean),
        downside=sample.downside + below * below,
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
    """Return the decay's sum and product after a bar; ``inverse`` and ``value`` precede it."""
    is_known = not math.isnan(move)
    rise = quote.mark_close - value if is_known else 0.0
    drift = abs(value) * move if is_known else 0.0
    scale = quantity * inverse
    grown = 1.0 + scale * rise
    gain = scale * drift if grown > 0.0 else 0.0
    return held + gain, product * (grown if grown > 0.0 else 1.0)


def needs_folding(product: float) -> bool:
    """Return whether a product is about to leave the range of float64."""
    return product > 1e100 or product < 1e-100


def fold_product(log: float, product: float) -> tuple[float, float]:
    """Return logarithm and product; a product out of range moves to the logarithm."""
    if needs_folding(product):
        return log + math.log(product), 1.0
    return log, product


def read_exposure(tally: Tally) -> Exposure:
    """Return the exposure fields of a tally."""
    return Exposure(
        tally.near, tally.leverage, tally.peak_leverage, tally.peak_needed, tally.peak_backing
    )


def add_exposure(
    rules: InstrumentRules, exposure: Exposure, books: Books, inverse: float, quote: Quote
) -> Exposure:
    """Return the exposure updated with a close."""
    peaks = update_peaks(rules, exposure, books, inverse, quote)
    notional = abs(books.positions[0].quantity) * abs(quote.mark_close)
    return Exposure(
        near=exposure.near + (1 if is_near(rules, books, quote) else 0),
        leverage=exposure.leverage + notional * inverse,
        peak_leverage=peaks.peak_leverage,
        peak_needed=peaks.peak_needed,
        peak_backing=peaks.peak_backing,
    )


def update_peaks(
    rules: InstrumentRules, exposure: Exposure, books: Books, inverse: float, quote: Quote
) -> Exposure:
    """Return the exposure with its peaks updated; a second call changes nothing."""
    position = books.positions[0]
    leverage = abs(position.quantity) * abs(quote.mark_close) * inverse
    backing = compute_backing(rules, books, quote.mark_close)
    needed = compute_requirement(rules, position, quote.mark_close, quote.multiplier)
    peak_needed, peak_backing = exposure.peak_needed, exposure.peak_backing
    if position.quantity != 0.0 and not backing > 0.0:
        peak_needed, peak_backing = 1.0, 0.0
    elif needed * peak_backing > peak_needed * backing:
        peak_needed, peak_backing = needed, backing
    return Exposure(
        near=exposure.near,
        leverage=exposure.leverage,
        peak_leverage=max(exposure.peak_leverage, leverage),
        peak_needed=peak_needed,
        peak_backing=peak_backing,
    )


def is_near(rules: InstrumentRules, books: Books, quote: Quote) -> bool:
    """Return whether the mark close is within a tenth of the liquidation price."""
    lower, upper = find_near(rules, quote)
    value = find_adverse(books.positions[0], lower, upper)
    return is_failing(rules, books, value, quote.multiplier)


def find_near(rules: InstrumentRules, quote: Quote) -> tuple[float, float]:
    """Return the values at which a long and a short are checked for being near."""
    close = quote.mark_close
    lower = worsen(rules, close, 1.0, 1.0 / (1.0 + NEAR) - 1.0)
    upper = worsen(rules, close, 1.0, 1.0 / (1.0 - NEAR) - 1.0)
    return lower, upper
