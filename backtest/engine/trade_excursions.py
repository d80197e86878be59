"""How far prices moved against and for each trade while it was open: MAE and MFE."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backtest.account import ledger
from backtest.account.portfolio_ledger import DELISTED
from backtest.engine.result_tables import price_of
from backtest.engine.trade_fills import OPEN
from backtest.measures.lots import reduce_spans

if TYPE_CHECKING:
    from backtest.base.units import FloatArray, IntArray
    from backtest.engine.run_record import RunRecord
    from backtest.engine.trade_fills import InstrumentFills
    from backtest.measures.trade_rows import TradeRows


def measure_excursions(
    run: RunRecord, i: int, read: InstrumentFills, rows: TradeRows, entry: FloatArray
) -> dict[str, FloatArray]:
    """Return the columns ``mae_mark``, ``mfe_mark``, ``mae_last`` and ``mfe_last``.

    Moves from the entry price to the lowest and the highest price from the entry fill to the exit
    fill, as returns of 1x; MAE is 0 or negative. Whole bars count, from that of the entry on; of
    the bar of the exit only the price of the exit, unless it was at the close.
    """
    first, stop = find_whole_bars(run, read, rows)
    end = price_of(run.list_venues()[i], read.fills.value[rows.exit])
    found = {}
    for name, columns in (("mark", ("mark_low", "mark_high")), ("last", ("low", "high"))):
        low, high = read_extremes(run, i, *columns)
        least = np.fmin(reduce_spans(low, first, stop, np.fmin), end)
        most = np.fmax(reduce_spans(high, first, stop, np.fmax), end)
        down, up = np.minimum(least / entry - 1.0, 0.0), np.maximum(most / entry - 1.0, 0.0)
        if np.isnan(low).all():
            down, up = np.full((2, len(end)), np.nan)
        is_long = rows.side > 0.0
        found[f"mae_{name}"] = np.where(is_long, down, -up)
        found[f"mfe_{name}"] = np.where(is_long, up, -down) + 0.0
    return found


def find_whole_bars(
    run: RunRecord, read: InstrumentFills, rows: TradeRows
) -> tuple[IntArray, IntArray]:
    """Return the bars that each trade saw whole: the first, and the one after the last."""
    at_close = np.isin(read.kind, (ledger.RUINED, DELISTED, OPEN))
    late = (read.kind == ledger.FILL) & (run.account.fill == "next_close")
    first = read.bar[rows.entry] + late[rows.entry]
    return first, np.maximum(first, read.bar[rows.exit] + (at_close | late)[rows.exit])


def read_extremes(run: RunRecord, i: int, low: str, high: str) -> tuple[FloatArray, FloatArray]:
    """Return the lowest and the highest price of each bar, NaN if a saved result lacks them."""
    shape = (run.record.n_bars,)
    found = [getattr(run.quotes, name) for name in (low, high)]
    arrays = [each[:, i] if len(each) else np.full(shape, np.nan) for each in found]
    return np.broadcast_to(arrays[0], shape), np.broadcast_to(arrays[1], shape)
