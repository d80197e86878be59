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
HISTORY, SHRUNK = "history", "shrunk"
Drift = float | str
"""Growth of the expected price per year, or :data:`HISTORY` or :data:`SHRUNK`."""


def read_drift(drift: Drift, market: Market) -> float:
    """Return a growth per year; that of history is that of the mean simple return of its bars.

    ``"shrunk"`` is that times max(0, 1 - (s / drift)^2), s its standard error: James and Stein
    (1961), Proc. 4th Berkeley Symposium 1, in one dimension, by the positive part.
    """
    if drift in (HISTORY, SHRUNK):
        moves, per_year = np.exp(log_returns(market)[1:]), count_per_year(market)
        found = math.log(float(np.mean(moves))) * per_year
        error = float(np.std(moves)) / math.sqrt(len(moves)) * per_year
        kept = max(0.0, 1.0 - (error / found) ** 2) if found else 0.0
        return found if drift == HISTORY else found * kept
    if isinstance(drift, str):
        raise core.ParameterError(
            f"drift must be a number per year, 'history' or 'shrunk', got {drift[:60]!r}"
        )
    rate = float(core.Real().check("drift", drift))
    core.warn_of_high_rate("drift", rate)
    return rate


def describe_drift(paths: Mapping[str, Any]) -> str:
    """Describe the drift of paths, and where they are too wide to show their mean price."""
    rates, found = paths["drift"], "no drift"
    if any(rates.values()):
        shown = {name: core.format_percent(rate, is_signed=True) for name, rate in rates.items()}
        each = [f"{name} {rate}" for name, rate in shown.items()]
        text = shown[next(iter(shown))] if len(set(rates.values())) == 1 else ", ".join(each)
        of = "of history, " if paths["drift_of_history"] else "of "
        found = f"a drift {of}{text} per year"
    wide = {name: size for name, size in paths.get("spread", {}).items() if size > WIDE}
    each = [f"{size:.1f}{f' ({name})' * (len(rates) > 1)}" for name, size in wide.items()]
    said = f"; log prices end {', '.join(each)} from today's (root mean square): few paths make the"
    return found + f"{said} mean price, and it is not seen in a sample" * bool(wide)


def count_per_year(market: Market) -> float:
    return float(np.ravel(bars_per_year(market))[-1])  # with sessions, the first day has NaN
