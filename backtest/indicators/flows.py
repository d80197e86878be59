"""What takers, open positions and the premium say: of columns that a venue gives with its bars."""

from __future__ import annotations

import numpy as np

from backtest import core
from backtest.core import FloatArray, ParameterError
from backtest.core.code_names import pd
from backtest.indicators.averages import sum_weighted
from backtest.indicators.lanes import OneOrMany, count_needed, find_decay, shape_as
from backtest.market import Market
from backtest.venue import FundingTerms


def read_column(market: Market, name: str, cure: str) -> FloatArray:
    """Return a column of the bars; raise if the market has none of that name."""
    if name not in market.columns:
        raise ParameterError(
            f"the market must have the column {name}, {cure}; got {', '.join(market.columns)}"
        )
    return np.asarray(market.columns[name], dtype=np.float64)


@core.checked
def taker_imbalance(market: Market, half_life: OneOrMany) -> FloatArray:
    """Return how much more of the volume takers bought than sold, from -1 to 1.

    (n_bars,) or (n_bars, k): 1 where takers only bought. The column ``taker_buy_volume`` is part of
    the volume. ``half_life``: bars after which a bar weighs half as much, over 0. NaN until one
    half-life of bars is over, and where nothing was traded.

    Notes
    -----
    sum_i w^(t - i) (2 b_i - v_i) / sum_i w^(t - i) v_i with w = 2^(-1/half_life), b what takers
    bought and v the volume of bar i; bars in which either is not known do not count.
    """
    bought = read_column(market, "taker_buy_volume", "klines of Binance have it")
    volume = np.asarray(market.volume, dtype=np.float64)

    # Takers sold what they did not buy, so the excess is bought less (volume less bought).
    is_known = np.isfinite(bought) & np.isfinite(volume)
    excess = np.where(is_known, 2.0 * bought - volume, 0.0)
    traded = np.where(is_known, volume, 0.0)
    n_known = np.cumsum(is_known)

    # A column for each half-life.
    columns = []
    decays = find_decay(half_life).tolist()
    counts = count_needed(half_life)
    for decay, needed in zip(decays, counts, strict=True):
        weighted_excess = sum_weighted(excess, decay)
        weighted_volume = sum_weighted(traded, decay)
        is_warm = (n_known >= needed) & (weighted_volume > 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            imbalance = weighted_excess / weighted_volume
        columns.append(np.where(is_warm, imbalance, np.nan))
    return shape_as(np.stack(columns, axis=1), half_life)


@core.checked
def open_interest_change(market: Market, bars: int) -> FloatArray:
    """Return the relative change of open interest over a number of bars, (n_bars,).

    .05 where 5 % more contracts are open. The column ``open_interest`` counts contracts or coins,
    not money, which moves with the price too. NaN in the first ``bars`` bars, and where either
    figure is missing or that before is 0.
    """
    if bars < 1:
        raise ParameterError(f"bars must be at least 1, got {bars}")

    cure = "`backtest data fetch --with metrics` has it"
    interest = read_column(market, "open_interest", cure)
    interest_before = interest[:-bars]
    change = np.full(market.n_bars, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = interest[bars:] / interest_before
        change[bars:] = np.where(interest_before > 0.0, ratio - 1.0, np.nan)
    return change


@core.checked_only("market")
def predicted_funding(
    market: Market,
    terms: FundingTerms,
    premium: str | FloatArray = "premium",
) -> FloatArray:
    """Return the funding rate of the next settlement that the premium so far leads to, (n_bars,).

    A fraction of the notional for the interval of the terms. Settlements are at whole intervals of
    UTC. NaN where no premium since the last one is known.

    Parameters
    ----------
    terms : FundingTerms
        Interest, clamp, period, interval, cap and floor: ``bt.funding.terms`` or ``read_terms``.
        Without a cap none is applied.
    premium : str or array of shape (n_bars,)
        The premium index of each bar at its close, or the column that has it.

    Notes
    -----
    P is the mean of the premia since the last settlement weighted 1, 2, ..., n; then
    (P + clamp(interest - P, -clamp, clamp)) interval / period, between floor and cap. Source:
    Binance, Introduction to Binance Futures Funding Rates; the venue weights points of 5 seconds.

    Minutes have a twelfth of these points. No recorded month of premia was at hand; on a generated
    one (an autoregression of 5 seconds about 1e-4, with a deviation of 3e-4 and a half-life of 30
    minutes) the means of minutes miss those of all points by 7e-7 at the median, 2.5e-6 at worst.
    """
    values = premium
    if isinstance(premium, str):
        values = read_column(market, premium, "`backtest data fetch --with premium` has it")
    points = np.asarray(values, dtype=np.float64)
    core.check_shape("premium", points, (market.n_bars,))

    # A bar belongs to the interval in which it closes; one that closes at a stamp ends it.
    interval = core.parse_duration(terms.interval, "interval")
    closes = market.time + market.interval
    span = (closes - 1) // interval
    mean = average_by_span(points, span)

    gap = terms.interest - mean
    rate = mean + np.clip(gap, -terms.clamp, terms.clamp)
    period = core.parse_duration(str(terms.period), "period")
    rate_of_interval = rate * (interval / period)
    return np.clip(rate_of_interval, terms.least, terms.cap)


def average_by_span(points: FloatArray, span: core.IntArray) -> FloatArray:
    """Return the mean of points since the start of each span, weighted 1, 2, ..., n; NaN skipped.

    A missing point takes no place: the next one has the weight that it would have had.
    """
    is_known = np.isfinite(points)
    is_first = np.diff(span, prepend=span[:1] - 1)
    begins = np.flatnonzero(is_first)
    ends = np.append(begins, len(span))
    lengths = np.diff(ends)
    start = np.repeat(begins, lengths)

    # The place of a point among the known ones of its span is its weight.
    n_known = np.cumsum(is_known)
    known_before = n_known[start] - is_known[start]
    place = n_known - known_before
    weight = np.where(is_known, place, 0).astype(np.float64)

    # Sums begin anew in each span, so that no rounding of earlier ones is carried.
    weighted = np.where(is_known, points, 0.0) * weight
    frame = pd.DataFrame({"weighted": weighted, "weight": weight})
    sums = frame.groupby(np.asarray(span)).cumsum()
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums["weighted"].to_numpy() / sums["weight"].to_numpy()
    return np.asarray(mean, dtype=np.float64)
