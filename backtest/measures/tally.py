"""The measures that accumulate bar by bar, the same function in a run and in a sweep.

Everything is scalar arithmetic on named tuples, in bar order: plain Python and compiled code give
the same bits. Returns are of the unit value, sampled where ``ends_sample`` says so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest.accounting import (
    Books,
    Quote,
    Rules,
    compute_backing,
    compute_requirement,
    is_failing,
    worsen,
)
from backtest.bar import State, place
from backtest.ledger import Ledger

if TYPE_CHECKING:
    from backtest.units import FloatArray

NEAR = 0.1
"""A close within this fraction of the liquidation price counts as near it."""


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

    ``peak`` to ``recovered``: the running peak of the unit value, its bar, the deepest fall with
    the bars of its peak, trough and recovery (-1: none). ``mean`` and ``squares`` are Welford's
    for sampled returns, ``excess`` for returns over the risk-free rate. ``decay_held`` sums
    l ln(1 + r); ``decay_log`` and ``decay_product`` hold ln(1 + l r), the product taken to a
    logarithm only when it leaves the range of float64.
    """

    first_unit: float
    peak: float
    peak_bar: int
    drawdown: float
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
    peak_ratio: float
    decay_held: float
    decay_log: float
    decay_product: float


def start_tally(unit: float, t: int) -> Tally:
    """Return an empty tally for an account whose unit value is ``unit`` before bar t.

    The first peak is the start itself, bar t - 1 so to speak.
    """
    zero = 0.0
    return Tally(
        unit, unit, t - 1, zero, t - 1, t - 1, -1, unit, zero, 0, zero, zero, zero, zero, zero,
        0, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero,
        0, 0, 0, -1, -1, 0, zero, zero, zero, zero, zero, 1.0,
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
    peak, peak_bar, recovered = tally.peak, tally.peak_bar, tally.recovered
    deepest, peak_at, trough_at = tally.drawdown, tally.drawdown_peak, tally.drawdown_trough
    if unit >= peak:
        if deepest > 0.0 and recovered < 0:
            recovered = t
        peak, peak_bar = unit, t
    elif unit < peak * (1.0 - deepest):
        deepest, peak_at, trough_at, recovered = 1.0 - unit / peak, peak_bar, t, -1
    sample = take_sample(clock, tally, unit, t)
    held, log, product = add_decay(clock, tally, before, after, ledger, quote, t)
    notional = abs(after.books.quantity) * abs(quote.mark_close)
    leverage = notional / after.equity if after.equity > 0.0 else 0.0
    first, ruin = tally.first_liquidation, tally.ruin
    near, peak_ratio = watch_margin(rules, tally, after, quote)
    if first < 0 and ledger.liquidations > 0:
        first = t
    if ruin < 0 and after.is_ruined:
        ruin = t
    return Tally(
        tally.first_unit,
        peak,
        peak_bar,
        deepest,
        peak_at,
        trough_at,
        recovered,
        sample[0],
        sample[1],
        sample[2],
        sample[3],
        sample[4],
        sample[5],
        sample[6],
        sample[7],
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
        near,
        tally.leverage + leverage,
        max(tally.peak_leverage, leverage),
        peak_ratio,
        held,
        log,
        product,
    )


def take_sample(
    clock: Clock, tally: Tally, unit: float, t: int
) -> tuple[float, float, int, float, float, float, float, float]:
    """Return the sampling fields of the tally after bar t."""
    free = tally.sample_free + clock.risk_free[place(t)] * (1.0 + tally.sample_free)
    if clock.ends_sample[place(t)] == 0.0:
        return (
            tally.sample_unit,
            free,
            tally.samples,
            tally.mean,
            tally.squares,
            tally.excess_mean,
            tally.excess_squares,
            tally.downside,
        )
    change = unit / tally.sample_unit - 1.0 if tally.sample_unit > 0.0 else 0.0
    excess = change - free
    n = tally.samples + 1
    step = change - tally.mean
    mean = tally.mean + step / n
    excess_step = excess - tally.excess_mean
    excess_mean = tally.excess_mean + excess_step / n
    below = min(excess, 0.0)
    return (
        unit,
        0.0,
        n,
        mean,
        tally.squares + step * (change - mean),
        excess_mean,
        tally.excess_squares + excess_step * (excess - excess_mean),
        tally.downside + below * below,
    )


def add_decay(
    clock: Clock, tally: Tally, before: State, after: State, ledger: Ledger, quote: Quote, t: int
) -> tuple[float, float, float]:
    """Return the decay fields after bar t; bars that end in a liquidation or stop stand aside."""
    held, log, product = tally.decay_held, tally.decay_log, tally.decay_product
    quantity = after.books.quantity
    move = clock.log_return[place(t)]
    if quantity == 0.0 or ledger.liquidations + ledger.stops > 0 or math.isnan(move):
        return held, log, product
    base = before.equity + ledger.flows + ledger.top_up
    if not base > 0.0:
        return held, log, product
    scale = quantity / base
    grown = 1.0 + scale * (quote.mark_close - before.books.value)
    if not grown > 0.0:
        return held, log, product
    held += scale * abs(before.books.value) * move
    product *= grown
    if product > 1e100 or product < 1e-100:
        return held, log + math.log(product), 1.0
    return held, log, product


def watch_margin(rules: Rules, tally: Tally, after: State, quote: Quote) -> tuple[int, float]:
    """Return the bars near liquidation and the peak margin ratio after the bar.

    The ratio is only divided out when it is a new peak. A close is near when the requirement would
    fail a tenth away: the notional changes by a ninth at most, and so does the requirement, so what
    is further from it is not tested.
    """
    books = after.books
    if books.quantity == 0.0:
        return tally.near, tally.peak_ratio
    backing = compute_backing(rules, books, quote.mark_close)
    needed = compute_requirement(rules, books, quote.mark_close, quote.multiplier)
    notional = abs(books.quantity) * abs(quote.mark_close)
    near, peak = tally.near, tally.peak_ratio
    if backing <= needed + 0.23 * notional and is_near(rules, books, quote):
        near += 1
    if backing <= 0.0:
        return near, math.inf
    if needed > peak * backing:
        peak = needed / backing
    return near, peak


def is_near(rules: Rules, books: Books, quote: Quote) -> bool:
    """Tell whether the mark close is within a tenth of the liquidation price."""
    factor = 1.0 / (1.0 + NEAR) if books.quantity > 0.0 else 1.0 / (1.0 - NEAR)
    moved = worsen(rules, quote.mark_close, 1.0, factor - 1.0)
    return is_failing(rules, books, moved, quote.multiplier)
