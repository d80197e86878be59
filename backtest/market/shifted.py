"""Tables stamped some hours off: marks that follow their bars late, settlements at odd hours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from backtest import core
from backtest.core import FloatArray, IntArray, format_duration, format_time
from backtest.core.units import DAY, HOUR
from backtest.market import tables
from backtest.market.rule_subjects import Hit, Subject
from backtest.market.tables import TimedTable

FIT, MISFIT = 0.8, 0.5
"""Correlations of returns: at the lag at which marks fit their bars, and at which they do not.

On hourly BTC, ETH and LTC perpetuals of 2019 to 2026, marks and last prices correlate .96 or more
in every 240 bars and .90 in every 100. At any other lag within 26 hours it is .26 at most in 240
bars, .43 in 100. Marks of short bars follow them less closely: noise of a third of the moves of a
minute leaves .90.
"""

LONGEST_SHIFT = 26 * HOUR
"""The furthest apart that two time zones are: UTC+14 and UTC-12."""

LARGEST_ZONE = 12 * HOUR
"""The largest offset for which there is a zone on either side of UTC."""

STRETCH = 240
"""Bars that are compared at once, or four times the lags, if that is more. A shift may change
inside of the data, as that of local times does in spring and in autumn."""

FEWEST = 100
"""The fewest marked bars that are compared."""

FEWEST_MOVES = 50
"""The fewest bars in which last prices move, and marks do: of fewer a few jumps decide."""

LARGEST_MOVE = 3.0
"""Larger moves count as so many usual ones (the median of those that are not 0)."""

MOST_SEARCHED = 32
"""The most stretches in which other lags are searched: each costs a few ms with bars of a minute.
"""


class Lag(NamedTuple):
    """How well the marks of some bars fit, and better at another lag.

    ``n_bars`` is how many bars later marks are stamped; of early ones it is negative.
    ``correlation`` is that of their returns at this lag, ``unshifted`` that of the same times.
    ``start`` is the open of the first of the bars, UTC ns.
    """

    n_bars: int
    correlation: float
    unshifted: float
    start: int


def find_late_marks(subject: Subject) -> list[Hit]:
    """Find the stretches of bars whose marks fit them only at another time.

    The two move together, bar by bar, so that the correlation of their returns says which times
    belong together. In a market with sessions a shift leaves marks without bars, a defect of its
    own.
    """
    interval = subject.interval
    if not interval or subject.sessions or subject.misaligned.size:
        return []
    bars, mark = subject.marked
    if not ("close" in bars.columns and "close" in mark.columns):
        return []

    n_lags = LONGEST_SHIFT // interval
    length = max(STRETCH, 4 * n_lags)
    suspects = list(find_misfits(bars, mark, length))
    every = -(-len(suspects) // MOST_SEARCHED) or 1  # rounded up
    lags = []
    for rows in suspects[::every]:
        lag = find_lag(bars.rows(rows), mark.rows(rows), interval, n_lags)
        if lag is not None:
            lags.append(lag)
    if not lags:
        return []

    # Local times have two shifts a year: the one of most stretches is described.
    shifts = [lag.n_bars for lag in lags]
    usual = max(shifts, key=shifts.count)
    first = lags[shifts.index(usual)]
    return [describe_lag(subject, first, np.array([lag.start for lag in lags]))]


def find_misfits(bars: TimedTable, mark: TimedTable, length: int) -> Iterator[slice]:
    """Yield the rows of each stretch in which bars and their marks do not move together.

    The tables have a row for each marked bar. This is the test that every market passes once, part
    by part, so that no copy of its prices is made.
    """
    n_rows = bars.time.size
    if n_rows < FEWEST:
        return

    # The last stretch is the longer one, with the bars that are left over.
    last_prices = bars.columns["close"]
    marks = mark.columns["close"]
    n_stretches = max(n_rows // length, 1)
    for number in range(n_stretches):
        stop = (number + 1) * length
        if number == n_stretches - 1:
            stop = n_rows
        rows = slice(number * length, stop)
        fit = correlate(measure_returns(last_prices[rows]), measure_returns(marks[rows]))
        if fit < MISFIT:
            yield rows


def measure_returns(prices: FloatArray) -> FloatArray:
    """Return the returns to all prices but the first, fractions; 0 where one is impossible."""
    with np.errstate(all="ignore"):
        returns = prices[1:] / prices[:-1] - 1.0
    returns[~np.isfinite(returns)] = 0.0
    return np.asarray(returns)


def correlate(first: FloatArray, second: FloatArray) -> float:
    """Return the correlation of returns around 0; 1 where either never moves: nothing shows."""
    scale = float(first @ first) * float(second @ second)
    if scale == 0.0:
        return 1.0
    return float(first @ second / scale**0.5)


def find_lag(bars: TimedTable, mark: TimedTable, interval: int, n_lags: int) -> Lag | None:
    """Return the one lag, of up to ``n_lags`` bars, at which marks fit; None if there is none.

    The tables have a row for each marked bar of a stretch.
    """
    # Lags are of time: returns stand on the grid of the bars, 0 where a bar or its mark lacks.
    place = (bars.time - bars.time[0]) // interval
    n_places = int(place[-1]) + 1
    if n_places > 2 * place.size:
        return None
    moves = place_moves(bars, place, n_places)
    mark_moves = place_moves(mark, place, n_places)
    if min(np.count_nonzero(moves), np.count_nonzero(mark_moves)) < FEWEST_MOVES:
        return None

    n_lags = min(n_lags, n_places // 2)
    lags = np.arange(-n_lags, n_lags + 1)
    fits = correlate_lags(moves, mark_moves, lags)
    unshifted = float(fits[n_lags])

    # Prices that repeat themselves fit at several lags: they say nothing.
    is_fit = fits > FIT
    if unshifted >= MISFIT or np.count_nonzero(is_fit) != 1:
        return None
    best = int(is_fit.argmax())
    return Lag(int(lags[best]), float(fits[best]), unshifted, int(bars.time[0]))


def place_moves(table: TimedTable, place: IntArray, n_places: int) -> FloatArray:
    """Return the returns of closes on the grid of bars, of shape (n_places,).

    ``place`` is that of each row. A move over a gap is unknown, which is 0, and large ones are cut
    to :data:`LARGEST_MOVE` usual ones, so that no single jump decides.
    """
    returns = measure_returns(table.columns["close"])
    is_adjacent = np.diff(place) == 1
    returns[~is_adjacent] = 0.0

    sizes = np.abs(returns[returns != 0.0])
    if sizes.size:
        limit = LARGEST_MOVE * float(np.median(sizes))
        returns = np.clip(returns, -limit, limit)

    moves = np.zeros(n_places)
    moves[place[1:]] = returns
    return moves


def correlate_lags(moves: FloatArray, mark_moves: FloatArray, lags: IntArray) -> FloatArray:
    """Return the correlation of moves with marks that come later by each lag, of shape of lags.

    Each is over the places that both then have.
    """
    n_places = moves.size
    size = 2 ** int(2 * n_places).bit_length()  # so long that no end meets the other
    spectrum = np.fft.rfft(mark_moves, size) * np.conj(np.fft.rfft(moves, size))
    products = np.fft.irfft(spectrum, size)[lags]  # a negative lag counts from the end

    # What both have at a lag: moves up to n - lag, marks from lag on, and the reverse before 0.
    squares = np.append(0.0, np.cumsum(moves**2))
    mark_squares = np.append(0.0, np.cumsum(mark_moves**2))
    first = np.maximum(-lags, 0)
    stop = n_places - np.maximum(lags, 0)
    total = squares[stop] - squares[first]
    mark_total = mark_squares[stop + lags] - mark_squares[first + lags]

    scale = np.sqrt(np.maximum(total * mark_total, 0.0))
    fits = np.zeros(lags.size)
    np.divide(products, scale, out=fits, where=scale > 0.0)
    return fits


def describe_lag(subject: Subject, lag: Lag, starts: IntArray) -> Hit:
    """Return what is wrong with marks that fit at a lag, and how to correct either table.

    ``starts`` are the opens at which the stretches begin that do, UTC ns.
    """
    shift = abs(lag.n_bars) * (subject.interval or 0)
    length = format_duration(shift)
    is_late = lag.n_bars > 0
    if is_late:
        mark_side, bar_side, before, sign = "late", "early", "before", "-"
    else:
        mark_side, bar_side, before, sign = "early", "late", "after", "+"

    text = (
        "mark prices must move with last prices, their returns correlate "
        f"{lag.unshifted:.2f} with those of the bars of their times and {lag.correlation:.2f} with "
        f"those of the bars {length} {before}: marks are stamped {length} {mark_side}, or bars "
        f"{length} {bar_side}"
    )
    cures = [f"mark.index {sign}= pd.Timedelta('{length}'), or shift the bars"]
    if abs(lag.n_bars) == 1:
        cures.insert(0, "both must be stamped with the open of their bars")
    if shift % HOUR == 0 and shift <= LARGEST_ZONE:
        cures.insert(0, describe_zones(shift // HOUR, is_late=is_late))
    cure = "; ".join(cures)
    place = f"{subject.table.name}, from {format_time(lag.start)} UTC"
    noted = f"correlation {lag.unshifted:.2f}, and {lag.correlation:.2f} {length} {mark_side}"
    return Hit(starts, text, place=place, cure=cure, places=(noted,))


def describe_zones(hours: int, *, is_late: bool) -> str:
    """Return which time zone reads stamps without one, where those of one table alone lack it.

    Marks that are so many ``hours`` late are of a zone ahead of UTC, or the bars of one behind it.
    The signs are those of POSIX: Etc/GMT+5 is 5 hours behind.
    """
    bar_sign, mark_sign = "-", "+"
    if is_late:
        bar_sign, mark_sign = "+", "-"
    return (
        f"timezone='Etc/GMT{bar_sign}{hours}' if the bars alone have no zone, "
        f"timezone='Etc/GMT{mark_sign}{hours}' if the marks alone have none (a zone with summer "
        "time by its name, such as America/New_York)"
    )


PHASES = {8 * HOUR: (0, 4 * HOUR), 4 * HOUR: (0,), 2 * HOUR: (0,)}
"""When after 00:00 UTC venues settle, by the time between two settlements, both ns. Binance, Bybit,
OKX, Gate, Bitget, Deribit and Bitfinex: 00:00, 08:00 and 16:00; BitMEX: 04:00, 12:00 and 20:00."""


FEWEST_SETTLEMENTS = 6
"""The fewest settlements whose hours are compared with those of venues: two days of them."""


def find_odd_hours(subject: Subject) -> list[Hit]:
    """Find settlements every 2, 4 or 8 hours, at other hours than those of venues.

    Only where most of them are: a venue may settle once at another hour.
    """
    time = tables.nearest_minute(subject.whole.time)
    every = tables.cadence(time)
    if subject.sessions or every not in PHASES or time.size < FEWEST_SETTLEMENTS:
        return []

    phase = time % every
    is_odd = ~np.isin(phase, PHASES[every]) & (time % HOUR == 0)
    if 2 * np.count_nonzero(is_odd) <= time.size:
        return []

    hours = np.unique(time[is_odd] % DAY // HOUR)
    odd_hours = ", ".join(f"{hour:02}:00" for hour in hours.tolist())
    place = f"at {odd_hours} UTC, venues settle each {format_duration(every)} from 00:00 UTC on"
    if every == 8 * HOUR:
        place = f"{place} (BitMEX from 04:00)"
    return [Hit(subject.whole.time[is_odd], places=(f"{place}: stamps of another time zone?",))]


def warn_of_odd_hours(funding: Subject) -> None:
    """Warn of settlements at hours at which no venue settles: they are paid at a wrong time."""
    for hit in find_odd_hours(funding):
        core.warn_caller(f"settlements are {hit.places[0]} ({funding.table.name})")
