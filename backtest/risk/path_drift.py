"""The growth of the expected price of paths: given, of history, or shrunk; in words too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from backtest import core
from backtest.indicators import log_returns
from backtest.market import Market, bars_per_year

WIDE = 1.5
"""The spread of log prices at the end around today's from which few paths make the mean price."""
HISTORY = "history"
SHRUNK = "shrunk"
Drift = float | str
"""Growth of the expected price per year, or :data:`HISTORY` or :data:`SHRUNK`."""


def read_drift(drift: Drift, market: Market) -> float:
    """Return a growth per year; that of history is that of the mean simple return of its bars.

    ``"shrunk"`` is that times max(0, 1 - (s / drift)^2), s its standard error: James and Stein
    (1961), Proc. 4th Berkeley Symposium 1, in one dimension, by the positive part.
    """
    if drift == HISTORY:
        return measure_drift(market)[0]
    if drift == SHRUNK:
        mean, error = measure_drift(market)
        if mean == 0.0:
            return 0.0
        return mean * max(0.0, 1.0 - (error / mean) ** 2)

    if isinstance(drift, str):
        raise core.ParameterError(
            f"drift must be a number per year, 'history' or 'shrunk', got {drift[:60]!r}"
        )
    rate = float(core.Real().check("drift", drift))
    core.warn_of_high_rate("drift", rate)
    return rate


def measure_drift(market: Market) -> tuple[float, float]:
    """Return the growth of history per year, and its standard error."""
    moves = np.exp(log_returns(market)[1:])
    per_year = count_per_year(market)
    mean = math.log(float(np.mean(moves))) * per_year
    error = float(np.std(moves)) / math.sqrt(len(moves)) * per_year
    return mean, error


def describe_drift(paths: Mapping[str, Any]) -> str:
    """Describe the drift of paths, and where they are too wide to show their mean price."""
    rates = paths["drift"]
    text = "no drift"
    if any(rates.values()):
        source = "of"
        if paths["drift_of_history"]:
            source = "of history,"
        text = f"a drift {source} {list_rates(rates)} per year"

    ends = []
    for name, size in paths.get("spread", {}).items():
        if size <= WIDE:
            continue
        end = f"{size:.1f}"
        if len(rates) > 1:
            end = f"{end} ({name})"
        ends.append(end)
    if not ends:
        return text
    return (
        f"{text}; log prices end {', '.join(ends)} from today's (root mean square): few paths "
        "make the mean price, and it is not seen in a sample"
    )


def list_rates(rates: Mapping[str, float]) -> str:
    """Return the growth of each instrument, or the one of all."""
    shown = {name: core.format_percent(rate, is_signed=True) for name, rate in rates.items()}
    if len(set(rates.values())) == 1:
        return next(iter(shown.values()))
    return ", ".join(f"{name} {rate}" for name, rate in shown.items())


def count_per_year(market: Market) -> float:
    """Return the bars in a year; with sessions, the first day is NaN and the last one counts."""
    return float(np.ravel(bars_per_year(market))[-1])
