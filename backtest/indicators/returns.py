"""What indicators are built on: returns by bar, and funding."""

from __future__ import annotations

import numpy as np

from backtest import core
from backtest.core.units import DAY, YEAR_DAYS
from backtest.indicators import averages, lanes
from backtest.indicators.lanes import OneOrMany
from backtest.market import Market, find_column, place_on_bars


@core.checked
def log_returns(market: Market) -> core.FloatArray:
    """Return ln(C_t / C_{t-1}) of the last prices at closes, of shape (n_bars,).

    The first is NaN.
    """
    close = market.close
    if close.ndim == 1:
        return np.diff(np.log(close), prepend=np.nan)

    # Paths begin with the same bars, whose logs are taken once.
    n_shared = max(lanes.count_shared(close), 1)
    shared_logs = np.log(close[:n_shared, :1])
    later_logs = np.log(close[n_shared - 1 :])
    returns = np.empty(close.shape, order="F")
    returns[:n_shared] = np.diff(shared_logs, axis=0, prepend=np.nan)
    returns[n_shared:] = np.diff(later_logs, axis=0)
    return returns


@core.checked
def long_returns(market: Market) -> core.FloatArray:
    """Return the return of a long position of 1x over each bar, net of funding.

    ``C_t / C_{t-1} - 1 - f_t``, simple, of shape (n_bars,), with f_t the sum of the rates settled
    after the close of bar t-1 and before that of bar t. The first is NaN.

    Notes
    -----
    A perpetual future or a hedged dollar position needs no cash: this is an excess return. Funding
    is taken as a fraction of the notional at the last close. :func:`traded_returns` of a signal of
    1 throughout.
    """
    always_long = np.ones(market.n_bars)
    return returns_of_signal(market, always_long)


@core.checked
def traded_returns(market: Market) -> core.FloatArray:
    """Return the return of the traded position over each bar at leverage 1, net of funding.

    ``s_{t-1} (C_t / C_{t-1} - 1 - g_t) - s_{t-2} o_t``, of shape (n_bars,), with s the signal
    decided at each close, in [-1, 1]: a short position earns what a long one loses. o_t is the
    funding settled at the open of bar t, which the position carried into it pays, g_t that settled
    after it. The first is NaN.

    Notes
    -----
    o_t and g_t add up to :func:`settled_funding`: each settlement counts in the bar at whose close
    it is known. As in the engine, a settlement belongs to an open if it is within a minute of it.
    One stamped some ms before the open of bar t is known at the close of bar t-1, and is paid by
    the position of that bar, s_{t-2}. Before the first close the position is assumed to be that of
    the first signal.
    """
    return returns_of_signal(market, market.signal)


def returns_of_signal(market: Market, signal: core.FloatArray) -> core.FloatArray:
    """Return the return of a signal over each bar, as :func:`traded_returns` has it."""
    n_bars = market.n_bars

    # A settlement is paid by the position carried into a bar if it is at the bar's open, and known
    # at its close. One stamped a little before the open is known a bar earlier.
    bar, is_at_open = place_on_bars(market.funding_time, market.time, market.interval)
    known = find_known_bars(market)
    is_carried = is_at_open & (bar == known)

    def sum_rates(is_summed: core.BoolArray) -> core.FloatArray:
        """Return the sum of the rates of some settlements, by the bar in which they are known."""
        rates = market.funding_rate[is_summed]
        sums = np.bincount(known[is_summed], rates, minlength=n_bars)
        return sums.astype(np.float64, copy=False)  # of none they are whole numbers

    # s_{t-1} (C_t / C_{t-1} - 1 - g_t): the position of the bar pays what settles after its open.
    price_return = market.close[1:] / market.close[:-1] - 1.0
    after_open = sum_rates(~is_carried)
    returns = np.full(n_bars, np.nan)
    returns[1:] = signal[:-1] * (price_return - after_open[1:])

    # s_{t-2} o_t: the position carried into the bar pays what settles at its open.
    if is_carried.any():
        at_open = sum_rates(is_carried)
        two_before = np.maximum(np.arange(n_bars) - 2, 0)
        paid = signal[two_before] * at_open
        paid = np.where(at_open == 0.0, 0.0, paid)  # 0 also if the signal is NaN
        returns[1:] -= paid[1:]
    return returns


@core.checked
def leverage_skew(market: Market, column: str) -> core.FloatArray:
    """Return the log of a venue's ratio of longs to shorts, of shape (n_bars,).

    It is what the column counts: of accounts a skew of heads, of positions one of notional, never
    of leverage itself, which venues do not publish. 0 where both are equal, over 0 with more longs.
    Raises DataError where a ratio is not over 0; NaN stays unknown.
    """
    ratio = find_column(market, column, "column")
    bad = np.flatnonzero(ratio <= 0.0)
    if len(bad):
        time = core.format_time(int(market.time[bad[0]]))
        raise core.DataError(
            f"column {column} must be a ratio over 0, got {ratio[bad[0]]:g} at {time} UTC"
        )
    return np.log(ratio)


@core.checked
def settled_funding(market: Market) -> core.FloatArray:
    """Return the sum of the funding rates known at each close and not at the one before.

    Of shape (n_bars,), as a fraction of the notional; positive: longs pay. A settlement belongs to
    the first bar that closes after its stamp.
    """
    known = find_known_bars(market)
    sums = np.bincount(known, market.funding_rate, minlength=market.n_bars)
    return sums.astype(np.float64, copy=False)


def find_known_bars(market: Market) -> core.IntArray:
    """Return the first bar that closes after the stamp of each settlement."""
    closes = market.time + market.interval
    return np.searchsorted(closes, market.funding_time, side="right")


@core.checked
def funding_forecast(market: Market, half_life: OneOrMany) -> core.FloatArray:
    """Return the exponentially weighted mean of the funding rates settled so far, per year.

    A fraction of the notional per year of 365 days, (n_bars,) or (n_bars, k), positive: longs pay;
    constant from one settlement to the next. ``half_life``: bars after which a settlement weighs
    half as much, over 0. NaN until two settlements are known and the first of them is
    ceil(half_life) bars old.

    Notes
    -----
    f_t = sum_i w^(t - b_i) r_i / sum_i w^(t - b_i) y_i with w = 2^(-1/half_life): r_i the rate of
    settlement i, y_i the years since the settlement before it, b_i the bar at whose close it is
    known, the first that closes after its stamp. So periods of different length count by their
    length, and the first settlement only starts the clock. This is the estimator of the rate of a
    renewal-reward process, reward per time, with exponential weights.
    """
    n_bars = market.n_bars
    rows = np.arange(n_bars)
    first, known = np.split(find_known_bars(market), [1])
    years = np.diff(market.funding_time) / (YEAR_DAYS * DAY)
    rates_by_bar = sum_by_bar(known, market.funding_rate[1:], n_bars)
    years_by_bar = sum_by_bar(known, years, n_bars)

    # Between settlements the forecast is that of the last one: row -1 is before the first.
    settled = np.where(np.isin(rows, known), rows, -1)
    last = np.maximum.accumulate(settled)

    columns = []
    decays = lanes.find_decay(half_life).tolist()
    counts = lanes.count_needed(half_life)
    for decay, needed in zip(decays, counts, strict=True):
        rates_so_far = averages.sum_weighted(rates_by_bar, decay)
        years_so_far = averages.sum_weighted(years_by_bar, decay)
        with np.errstate(invalid="ignore", divide="ignore"):
            rate = rates_so_far / years_so_far
        forecast = np.append(rate, np.nan)[last]

        is_cold = np.ones(n_bars, np.bool_)
        if len(first):
            is_cold = rows - first < needed
        columns.append(np.where(is_cold, np.nan, forecast))
    return lanes.shape_as(np.stack(columns, axis=1), half_life)


def sum_by_bar(
    bars: core.IntArray,
    values: core.FloatArray,
    n_bars: int,
) -> core.FloatArray:
    """Return the sum of values at each bar; bars after the last do not count."""
    sums = np.bincount(bars, values, minlength=n_bars)
    return sums[:n_bars].astype(np.float64)
