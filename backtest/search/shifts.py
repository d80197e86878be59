"""Decisions shifted in time by whole days, as a circle: what tests of timing compare them with.

A *row* is a close at which policies decide, a *shift* a number of days, and a day that of UTC from
the first decision on, or a session in a market with sessions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.core.units import DAY

LEAST_SHIFTS = 20
"""Shifts, the unshifted one among them, from which on p can be .05."""
FEW_FILLS = 10
"""An account of fewer fills has timed nothing."""
MOST_SECONDS = 20.0
"""Over so long expected, every k-th shift is tested."""
NEGLIGIBLE = 0.05
"""Autocorrelation of targets that is taken as none."""
TIE = 1e-9
"""Relative distance within which two accounts did as well: that to which runs of one are equal."""


class ChosenShifts(NamedTuple):
    """The shifts that are tested, in whole days: one in ``every`` of those that there are."""

    days: core.IntArray
    every: int


class DayCircle(NamedTuple):
    """The whole days of some rows of decisions; rows before the first and after the last stay.

    ``begins`` of shape (n_days + 1,) are the rows with which days begin, and where the last ends;
    ``n_rows`` counts all rows.
    """

    begins: core.IntArray
    n_rows: int

    @property
    def n_days(self) -> int:
        """The number of days, which is that of different shifts."""
        return len(self.begins) - 1

    def shift(self, days: int) -> core.IntArray:
        """Return the row whose decision each row takes from ``days`` earlier, of shape (n_rows,).

        A day that is longer than the earlier one repeats its last decision.
        """
        # Of each day the one that it takes decisions from: how far away it begins, and its end.
        lengths = np.diff(self.begins)
        from_day = (np.arange(self.n_days) - days) % max(self.n_days, 1)
        first_row = self.begins[from_day]
        distance = first_row - self.begins[:-1]
        last_row = first_row + lengths[from_day] - 1

        # Rows before the first day and after the last one stay; ``inside`` is a view of the others.
        rows = np.arange(self.n_rows)
        inside = rows[self.begins[0] : self.begins[-1]]
        inside += np.repeat(distance, lengths)
        np.minimum(inside, np.repeat(last_row, lengths), out=inside)
        return rows


def find_circle(
    closes: core.IntArray,
    interval: int,
    *,
    first: int,
    is_session: bool,
) -> DayCircle:
    """Return the whole days of decisions at some closes, in ns, from row ``first`` on.

    Days are those of the sessions, else of 24 hours from the first open on.
    """
    n = len(closes)
    first = min(first, n - 1)
    opens = closes - interval
    days = (opens - opens[first]) // DAY
    if is_session:
        days = opens // DAY
    changes = np.flatnonzero(np.diff(days) != 0) + 1
    begins = np.concatenate([[first], changes[changes > first]])

    # The last day counts if it is whole: its last bar ends it, or a session ends with the data.
    is_last_whole = (closes[-1] - opens[first]) % DAY == 0
    if is_session or is_last_whole or interval >= DAY:
        begins = np.append(begins, n)
    return DayCircle(begins.astype(np.int64), n)


def choose_every(n_accounts: float, seconds_each: float) -> int:
    """Return k, so that every k-th of some accounts together takes about 20 s at most."""
    return max(math.ceil(n_accounts * seconds_each / MOST_SECONDS), 1)


PLAIN = 200e-6
LOOP = 1.5e-6
LANE = 0.15e-6
"""Seconds for a bar of an instrument: in plain Python, in the compiled loop, and in a lane.

On one core of a busy server. The number of shifts follows from these figures and not from a clock,
so that the same inputs have the same p on every machine.
"""
OF_SIGNAL = 3e-6
"""Seconds for reading a signal of its own, by bar and instrument."""
OF_ACCOUNT = 5e-3
OF_PLAIN = 0.05
"""Seconds for setting an account up that is not in a lane: compiled, and in plain Python."""
OF_BLOCK = 0.03
"""Seconds for setting up the lanes of one shift, whatever the number of sets."""


def expect_seconds(
    n_bars: int,
    n_markets: int,
    *,
    is_compiled: bool,
    in_lanes: bool,
    has_own_signal: bool,
) -> float:
    """Return how long an account takes, about, so that all machines choose the same shifts."""
    bars = n_bars * n_markets
    if not is_compiled:
        return OF_PLAIN + PLAIN * bars
    if in_lanes:
        return LANE * bars

    rate = LOOP
    if has_own_signal:
        rate += OF_SIGNAL
    return OF_ACCOUNT + rate * bars


def find_memory(target: core.FloatArray) -> int:
    """Return the first lag with an |autocorrelation| below .05, the largest over instruments."""
    lags = [0]
    for column in pd.DataFrame(target).ffill().bfill().fillna(0.0).to_numpy().T:
        away = np.clip(column, -1e6, 1e6)
        away = away - away.mean()
        if np.ptp(column) == 0.0:
            continue

        # Autocorrelations by the Fourier transform, of a series padded so that it does not wrap.
        spectrum = np.fft.rfft(away, 2 * len(away))
        products = np.fft.irfft(spectrum * spectrum.conj())[: len(away)]
        is_small = np.abs(products) < NEGLIGIBLE * products[0]
        first_small = int(np.argmax(is_small))
        lags.append(first_small or len(away))  # the first lag is 0, and never small
    return max(lags)


def find_p(values: core.FloatArray) -> float:
    """Return the share of values that reach the first, the first among them."""
    if not np.isfinite(values[0]):
        return 1.0
    least = values[0] - TIE * max(abs(values[0]), 1.0)
    return float((1 + np.count_nonzero(values[1:] >= least)) / len(values))
