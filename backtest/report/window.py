"""What a page needs to compute the figures of a window of time: sums over blocks of samples.

A *block* is a stretch of whole sampling periods, one where the run has few enough. The sums of
blocks side by side give return, volatility, Sharpe ratio, worst drawdown at closes and fills of any
window of whole blocks, exactly.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest import core
from backtest.account.events import STOPS, Event
from backtest.report.packing import pack_times
from backtest.results.run_record import FEW, sample_risk_free

if TYPE_CHECKING:
    from backtest.results import Result

MAX_BLOCKS = 1_500
MILLISECOND = 1_000_000
"""In ns: a page counts time in milliseconds."""


def collect_window(result: Result) -> dict[str, Any]:
    """Return the blocks of a run, as lists and packed times, for ``templates/window.js``."""
    ends = find_block_ends(result.ends_sample)
    unit = result.of_account("unit") / result.tally.first_unit
    named = result.span.named
    high, low, fall = measure_falls(unit, ends)
    return {
        "start": result.span.start // MILLISECOND,
        "ends": pack_times(named[ends].view("M8[ns]")),
        "unit": unit[ends].tolist(),
        "high": high.tolist(),
        "low": low.tolist(),
        "fall": fall.tolist(),
        "fills": count_fills(result, ends).tolist(),
        **sum_returns(result, ends),
        "periods": result.span.periods,
        "few": FEW,
    }


def find_block_ends(ends_sample: core.FloatArray) -> core.IntArray:
    """Return the last bar of each block.

    Blocks have the same number of samples, so many that there are about MAX_BLOCKS of them. What is
    left of the samples is a shorter block, and so are bars after the last sample.
    """
    samples = np.flatnonzero(ends_sample)
    samples_per_block = max(math.ceil(len(samples) / MAX_BLOCKS), 1)
    ends = samples[samples_per_block - 1 :: samples_per_block]

    last_sample = samples[-1:]
    last_bar = np.array([len(ends_sample) - 1])
    return np.unique(np.concatenate([ends, last_sample, last_bar])).astype(np.int64)


def measure_falls(
    unit: core.FloatArray,
    ends: core.IntArray,
) -> tuple[core.FloatArray, core.FloatArray, core.FloatArray]:
    """Return the highest and the lowest unit value of each block, and the deepest fall inside."""
    starts = np.append(0, ends[:-1] + 1)
    high = np.maximum.reduceat(unit, starts)
    low = np.minimum.reduceat(unit, starts)

    fall = np.empty(len(ends))
    for k, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        inside = unit[start : end + 1]
        peaks = np.maximum.accumulate(inside)
        positive_peaks = np.where(peaks > 0.0, peaks, 1.0)  # after a ruin there is no fall
        fall[k] = np.max(1.0 - inside / positive_peaks)
    return high, low, fall


def sum_returns(result: Result, ends: core.IntArray) -> dict[str, list[float]]:
    """Return the number of samples of each block, and sums of their returns and squares."""
    returns = result.samples.returns
    excess = returns - sample_risk_free(result)
    samples = np.flatnonzero(result.ends_sample)
    owner = np.searchsorted(ends, samples)

    values = {
        "count": np.ones(len(returns)),
        "returns": returns,
        "squares": returns**2,
        "excess": excess,
        "excess_squares": excess**2,
    }
    sums = {}
    for name, weights in values.items():
        sums[name] = np.bincount(owner, weights=weights, minlength=len(ends)).tolist()
    return sums


def count_fills(result: Result, ends: core.IntArray) -> core.IntArray:
    """Return the fills of each block, as the measure of the run counts them: orders and exits."""
    is_fill = np.isin(result.entries["kind"], (Event.FILL, *STOPS))
    bars = result.entries["bar"][is_fill] - result.span.first
    blocks = np.searchsorted(ends, bars)
    return np.bincount(blocks, minlength=len(ends))
