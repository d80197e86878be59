"""The account of a run at each close: its use of capital, and what follows from the record."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from backtest.account import AccountBar
from backtest.base import FloatArray
from backtest.engine.capital_use import divide_by_equity, find_margin_used
from backtest.engine.closes import (
    compute_needed,
    list_tables,
)
from backtest.engine.portfolio_buffers import (
    new_event_log,
    new_ledger_array,
    new_quotes,
    new_scratch,
)
from backtest.engine.portfolio_driver import find_fill, read_tables
from backtest.engine.portfolio_inputs import start_account_state
from backtest.engine.position_tables import (
    compute_notionals,
    count_assets,
    measure_profits,
    sum_positions,
)
from backtest.engine.record import Closes, HeldAtCloses, new_closes
from backtest.engine.result_tables import price_of, value_of
from backtest.engine.run_data import RunData
from backtest.measures import AccountPath
from backtest.venue import OwnMargin


class RunCloses(RunData):
    """The data of a run with what they say of each close, made on first access."""

    def read_path(self, rows: slice) -> AccountPath:
        """Return the unit values and the margin used at some closes."""
        account, (_, initial) = self.record.take(rows).account, self.read_pool(rows)
        return AccountPath(account.unit, find_margin_used(initial, account.equity))

    def read_pool(self, rows: slice) -> tuple[FloatArray, FloatArray]:
        """Return the backing of the cross positions, and the initial margin of all, at closes."""
        backing, initial = self._pool
        return backing[rows], initial[rows]

    @cached_property
    def _pool(self) -> tuple[FloatArray, FloatArray]:
        closes = self.record.closes or vars(self).get("closes")
        closes = closes or measure_closes(self.setup, self, slice(None), is_whole=False)
        return closes.backing, closes.initial

    def read_closes(self, rows: slice) -> Closes:
        """Return what follows at some closes, of which no others are looked at."""
        if self.record.closes is None and "closes" not in vars(self):
            return measure_closes(self.setup, self, rows, is_whole=True)
        return Closes(*(each[rows] for each in self.closes))

    @property
    def market_returns(self) -> FloatArray:
        """Returns of the benchmark by bar, of shape (n_bars,)."""
        if self.benchmark is not None:
            return self.benchmark
        value = value_of(self.venue, np.concatenate((self.before.mark, self.mark)))
        return np.asarray(np.diff(value) / np.abs(value[:-1]))

    @cached_property
    def notionals(self) -> FloatArray:
        """Signed notionals of the positions at each close, of shape (n_bars, n)."""
        return compute_notionals(self.record.held, self.marks, self.list_venues())

    @property
    def net_leverage(self) -> FloatArray:
        """Sum of the signed notionals over equity at each close, of shape (n_bars,)."""
        return divide_by_equity(sum_positions(self.notionals), self.of_account("equity"))

    @cached_property
    def closes(self) -> Closes:
        """What follows from account and market at each close."""
        if self.record.closes is not None:
            return self.record.closes
        return measure_closes(self.setup, self, slice(None), is_whole=True)

    @cached_property
    def own_margins(self) -> tuple[tuple[FloatArray, FloatArray], ...]:
        """Maintenance margin and margin ratio of each position at each close, if it is isolated."""
        return tuple(map(self._measure_own, range(len(self.names))))

    def _measure_own(self, i: int) -> tuple[FloatArray, FloatArray]:
        name, known, shape = self.names[i], self.quotes.multiplier, (self.record.n_bars,)
        venue, mark, held = self.venues[name], self.marks[:, i], self.record.positions
        quantity, entry, margin = (each[:, i] for each in (held.quantity, held.entry, held.margin))
        x = np.broadcast_to(known[:, i], shape)
        tables = list_tables(venue, self.account.for_instrument(name), self.time)
        needed = compute_needed(venue, quantity, entry, mark, x, tables)
        with np.errstate(divide="ignore", invalid="ignore"):
            backing = margin - quantity * entry + quantity * value_of(venue, mark)
            ratio = np.where(backing > 0.0, needed / backing, np.inf)
        return needed, np.where(quantity != 0.0, ratio, 0.0)

    @cached_property
    def modes(self) -> tuple[str, ...]:
        """The margin modes of the positions."""
        return tuple(self.account.for_instrument(name).margin for name in self.names)

    @property
    def first_unit(self) -> float:
        """The unit value that tables show as 1: that of the start of the account."""
        is_resumed = self.manifest.get("resumed_from") is not None and not self.account.collateral
        return self.account.capital + self.account.reserve if is_resumed else self.first_peak

    @property
    def liquidation_prices(self) -> FloatArray:
        """Marks at which the positions fail, the others frozen, of shape (n_bars, n)."""
        venues, failure = self.list_venues(), self.closes.failure
        return np.stack([price_of(each, failure[:, i]) for i, each in enumerate(venues)], axis=1)

    @property
    def last_unrealized(self) -> FloatArray:
        """The unrealized profit of each position at the last close."""
        return np.asarray(self.unrealized[-1])

    @property
    def unrealized(self) -> FloatArray:
        """The unrealized profits at each close by position; last of all options, if any."""
        found = measure_profits(self.record.held, self.marks, self.list_venues())
        if self.options is None:
            return found
        return np.column_stack((found, self.options.profits.sum(axis=1)))


def measure_closes(setup: Any, run: Any, rows: slice, *, is_whole: bool) -> Closes:
    """Compute closes from the record of a run or outcome; of one not ``is_whole`` only the pool."""
    record, names, inputs = run.record, setup.markets.names, setup.inputs
    n, first, (begin, stop, _) = len(names), setup.first, rows.indices(record.n_bars)
    rule = setup.account.requirement
    own = rule if isinstance(rule, OwnMargin) else None
    fill = find_fill(is_compiled=setup.is_compiled, own=own, names=names)
    state = start_account_state(inputs, setup.account, first, has_overlay=False)
    assets = len(state.priced)
    room = (new_quotes(n, assets), new_scratch(n, assets), new_ledger_array(n))
    held = HeldAtCloses(
        cash=record.account.cash,
        quantity=record.positions.quantity,
        entry=record.positions.entry,
        margin=record.positions.margin,
        amounts=count_assets(run.state.held.amounts, run.entries, n, first, record.n_bars),
        options=record.options.quantity,
    )
    closes = new_closes(stop - begin, n, is_whole=is_whole)
    changed = (bar - first for bar, *_ in inputs.changes)
    edges = sorted({begin, stop, *(row for row in changed if begin < row < stop)})
    for row, end in pairwise(edges):
        terms = read_tables(inputs, first + row + 1)
        bar = AccountBar(terms, inputs.feed, state, *room, new_event_log(1))
        part = HeldAtCloses(*(each[row:end] for each in held))
        found = Closes(*(each[row - begin : end - begin] for each in closes))
        with np.errstate(all="ignore"):
            fill(bar, part, found, first + row, is_whole)
    return closes
