"""The trace of a run of several positions: of the account, and of each instrument."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from backtest.base.units import FloatArray
from backtest.engine.portfolio.book_loop import ACCOUNT_RECORD, POSITION_RECORD
from backtest.regress.trace import STEPS, Trace, fingerprint_bars, normalize_values, scramble_bits

if TYPE_CHECKING:
    from backtest.engine.portfolio.portfolio_result import PortfolioResult
    from backtest.market import Markets

OF_ACCOUNT = tuple(name for name in STEPS if name in ACCOUNT_RECORD)
"""The columns of the account."""
OF_POSITIONS = {
    "mark": "mark", "quantity": "position", **{name: name for name in POSITION_RECORD
                                                if name in STEPS},
}  # fmt: skip
"""The columns of each instrument: of the record, and what a trace calls them."""


def take_panel_trace(result: PortfolioResult) -> Trace:
    """Return the trace of a result of several positions.

    A column of an instrument is called by both names, ``"BTCUSDT position"``.
    """
    columns = {name: _normalize(result.record, ACCOUNT_RECORD.index(name)) for name in OF_ACCOUNT}
    columns["ends_sample"] = normalize_values(result.ends_sample)
    for i, name in enumerate(result.names):
        own = result.positions_record[:, i]
        for field, called in OF_POSITIONS.items():
            columns[f"{name} {called}"] = (
                normalize_values(result.marks[:, i])
                if field == "mark"
                else _normalize(own, POSITION_RECORD.index(field))
            )
    n = len(result.time)
    inputs = None if result.markets is None else fingerprint_panel(result.markets)[-n:]
    return Trace(np.asarray(result.time), columns, inputs, result.tally.first_unit, result.interval)


def _normalize(record: FloatArray, field: int) -> FloatArray:
    return normalize_values(record[:, field])


def fingerprint_panel(markets: Markets) -> npt.NDArray[np.uint32]:
    """Return a hash of each bar's data on the clock, over all instruments that have the bar."""
    mixed = np.zeros(markets.n_bars, dtype=np.uint64)
    for market, (first, stop) in zip(markets.values(), markets.spans, strict=True):
        own = fingerprint_bars(market).astype(np.uint64)
        mixed[first:stop] = scramble_bits(mixed[first:stop] ^ own)
    return (mixed >> np.uint64(32)).astype(np.uint32)
