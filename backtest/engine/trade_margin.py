"""The initial margin that each trade held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backtest.engine.closes import compute_initial, list_tables
from backtest.measures import reduce_spans
from backtest.venue import Brackets

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray
    from backtest.engine.run_closes import RunCloses
    from backtest.engine.trade_fills import InstrumentFills
    from backtest.measures import TradeRows


def measure_margin(
    run: RunCloses,
    i: int,
    read: InstrumentFills,
    rows: TradeRows,
    first: IntArray,
    stop: IntArray,
    *,
    whole: bool,
) -> FloatArray:
    fills, held = read.fills, np.abs(run.of_positions("quantity")[:, i])
    after = np.abs(fills.turns.after)
    at_close = find_margins(run, i, held)
    at_fill = compute_margins(run, i, after * np.abs(fills.value), read.bar)
    if whole:
        seen = reduce_spans(at_close, first, stop, np.fmax)
        return np.asarray(np.fmax(seen, at_fill[rows.entry]))
    each = np.divide(at_close, held, out=np.full(len(held), np.nan), where=held > 0.0)
    one = np.divide(at_fill, after, out=np.full(len(after), np.nan), where=after > 0.0)
    seen = reduce_spans(each, first, stop, np.fmax)
    return np.asarray(rows.quantity * np.fmax(seen, one[rows.entry]))


def find_margins(run: RunCloses, i: int, held: FloatArray) -> FloatArray:
    if run.modes[i] == "isolated":
        return np.where(held > 0.0, run.of_positions("margin")[:, i], 0.0)
    size = np.abs(run.own_notionals)
    if not isinstance(run.account.requirement, Brackets):
        is_own = np.array([mode == "isolated" for mode in run.modes])
        pool = run.closes.initial - run.of_positions("margin")[:, is_own].sum(axis=1)
        gross = size[:, ~is_own].sum(axis=1)
        part = np.divide(size[:, i], gross, out=np.zeros(len(gross)), where=gross > 0.0)
        return np.asarray(pool * part)
    return compute_margins(run, i, size[:, i], np.arange(len(held)))


def compute_margins(run: RunCloses, i: int, notional: FloatArray, bar: IntArray) -> FloatArray:
    name, known = run.names[i], run.quotes.initial_multiplier
    if not known.size or not len(bar):
        return np.full(len(bar), np.nan)
    x = np.broadcast_to(known[:, i], (run.record.n_bars,))[bar]
    found = np.zeros(len(bar))
    for table in list_tables(run.venues[name], run.account.for_instrument(name), run.time):
        rows = (bar >= table.first) & (bar < table.stop)
        if rows.any():
            found[rows] = compute_initial(table.rules, notional[rows], x[rows])
    return found
