"""The account of a run at each close: its use of capital, and what follows from the record."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.account import AccountBar, ledger
from backtest.account.pool_liquidation import CAUSED, OF_COLLATERAL, OF_FLOWS, OF_RULES
from backtest.base import FloatArray, IntArray, utc_index
from backtest.base.units import TOLERANCE
from backtest.engine.driver import (
    find_fill,
    new_event_log,
    new_ledger_array,
    new_quotes,
    new_scratch,
    read_tables,
)
from backtest.engine.inputs import start_account_state
from backtest.engine.record import Closes, HeldAtCloses, new_closes
from backtest.engine.run_data import RunData
from backtest.engine.tables import (
    compute_notionals,
    count_assets,
    measure_profits,
    price_of,
    sum_positions,
    value_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backtest.base import FloatArray, IntArray
    from backtest.engine.record import Record
    from backtest.venue import Venue


class RunCloses(RunData):
    """The data of a run with what they say of each close, made on first access."""

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
    fill = find_fill(is_compiled=setup.is_compiled)
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


ROUNDING = 1e-9
"""Share of a fall that is rounding, and counts as none."""


def share_causes(run: RunCloses) -> FloatArray:
    """Return the entries of a run with the share of each cause in place of where it stands.

    Those that have none and gained nothing are left out.
    """
    entries, size = np.array(run.entries), len(run.names) + 3
    rows = np.flatnonzero(entries[:, 1] == CAUSED).reshape(-1, size)
    for own in rows:
        stood = find_stands(run, int(entries[own[0], 0]) - run.span.first)
        falls = entries[own, 2] - stood
        falls[-1] = -falls[-1] - falls[:-1].sum()  # D falls, and rules take what is left over
        falls = np.maximum(falls, 0.0)
        shares = falls / falls.sum() if falls.sum() > 0.0 else np.eye(size)[-1]
        entries[own, 2] = np.where(shares > ROUNDING, shares, 0.0)
    is_none = (entries[:, 1] == CAUSED) & (entries[:, 2] == 0.0) & ~(entries[:, 4] > 0.0)
    return np.asarray(entries[~is_none])


def find_stands(run: RunCloses, stop: int) -> FloatArray:
    """Return where the causes stood at the last high before a bar, and their gains since."""
    unit = run.of_account("unit")[:stop]
    highs = np.maximum.accumulate(np.concatenate(([run.first_peak], unit)))
    rows = np.flatnonzero(unit >= highs[:-1])
    if not len(rows):
        return run.before.stands + sum_gains(run, slice(0, stop))
    high = int(rows[-1])
    closes, n = run.read_closes(slice(high, high + 1)), len(run.names)
    stands = np.zeros(n + 3)
    shares = np.append(closes.share[0], closes.collateral_share)
    stands[: n + 1] = run.account.requirement.level * shares
    stands[np.flatnonzero(find_isolated(run))] = 0.0
    stands[n + OF_RULES] = closes.distance[0]
    return stands + sum_gains(run, slice(high + 1, stop))


def sum_gains(run: RunCloses, rows: slice) -> FloatArray:
    """Return what each cause gained in some bars, of shape (n + 3,); of rules it is not known."""
    n, found = len(run.names), np.zeros(len(run.names) + 3)
    held, account = run.record.take(rows).positions, run.record.take(rows).account
    costs = held.fees + held.slippage + held.impact + held.funding + held.liquidation_loss
    gains = held.price_pnl - costs
    if run.options is not None:
        own = run.options.record
        net = own.price_pnl - own.fees - own.slippage - own.liquidation_loss
        gains = gains + run.options.sum_by_underlying(net[rows], n)
    found[:n] = np.where(find_isolated(run), 0.0, gains.sum(axis=0))
    found[n + OF_COLLATERAL] = (account.collateral_pnl - account.conversion).sum()
    found[n + OF_FLOWS] = (account.flows - account.interest).sum()
    return found


def find_isolated(run: RunCloses) -> FloatArray:
    return np.array([mode == "isolated" for mode in run.modes])


def contagion_table(
    time: IntArray, names: Sequence[str], entries: FloatArray, first: int
) -> pd.DataFrame:
    labels = np.array([*names, "collateral", "flows", "rules"], dtype=object)
    is_cause, numbers = entries[:, 1] == CAUSED, number_liquidations(entries)
    pairs = numbers * len(labels) + entries[:, 8]
    is_closed = np.isin(pairs, pairs[entries[:, 1] == ledger.LIQUIDATED])
    gained = np.where(is_closed, np.maximum(entries[:, 4], 0.0), 0.0)
    is_shown = is_cause & ((entries[:, 2] > 0.0) | (gained > 0.0))
    chosen, hits = entries[is_shown], numbers[is_shown]
    bar = chosen[:, 0].astype(np.int64) - first
    return pd.DataFrame(
        {
            "liquidation": hits,
            "time": utc_index(time[bar]),
            "cause": labels[chosen[:, 8].astype(np.int64)],
            "share": chosen[:, 2],
            "quantity": chosen[:, 3],
            "profit": gained[is_shown],
        }
    )


def number_liquidations(entries: FloatArray) -> IntArray:
    is_cause = entries[:, 1] == CAUSED
    begins = is_cause & ~np.concatenate(([False], is_cause[:-1]))
    falls = np.concatenate(([False], np.diff(entries[:, 8]) <= 0.0)) & is_cause
    return np.cumsum(begins | falls)


def divide_by_equity(money: FloatArray, equity: FloatArray) -> FloatArray:
    if np.min(equity, initial=np.inf) > 0.0:  # usual, and faster
        return money / equity
    return np.divide(money, equity, out=np.zeros(len(equity)), where=equity > 0.0)


def find_margin_used(initial: FloatArray, equity: FloatArray) -> FloatArray:
    """Return initial margin over equity at each close, of shape (n_bars,)."""
    share = divide_by_equity(initial, equity)
    if not np.min(equity, initial=np.inf) > 0.0:
        share[(initial > 0.0) & ~(equity > 0.0)] = np.inf
    return share


def find_available(
    record: Record,
    marks: FloatArray,
    pool: tuple[FloatArray, FloatArray],
    modes: Sequence[str],
    venues: Sequence[Venue],
) -> FloatArray:
    """Return the money that may back a new order at each close, of shape (n_bars,).

    ``marks`` are the mark closes, of shape (n_bars, n), ``modes`` the margin modes of the
    positions. ``pool`` are the backing of the cross positions and the initial margin of all.
    """
    (backing, initial), held = pool, record.held
    is_own = np.array([mode == "isolated" for mode in modes])
    kept = np.array([1.0 - venue.profit_share() for venue in venues])
    uncounted: FloatArray | float = 0.0
    if (kept[~is_own] > 0.0).any():
        gains = kept * np.maximum(measure_profits(held, marks, venues), 0.0)
        uncounted = sum_positions(np.where(is_own, 0.0, gains))
    if is_own.any():
        initial = initial - sum_positions(held["margin"][:, is_own])
    return np.maximum(backing - uncounted - initial, 0.0)


def find_realized(
    record: Record, notional: FloatArray, profits: FloatArray, first_unrealized: FloatArray
) -> FloatArray:
    """Return the realized profit of each bar, with 0 for rounding.

    ``notional`` are gross notionals, ``profits`` of shape (n_bars, n) the unrealized profits at
    closes, and ``first_unrealized`` those at the close before the first bar.
    """
    account = record.account
    change = np.diff(profits.sum(axis=1), prepend=float(np.sum(first_unrealized)))
    realized = account.price_pnl - account.slippage - account.impact - change
    size = notional + np.abs(account.price_pnl)
    return np.where(np.abs(realized) <= TOLERANCE * size, 0.0, realized)


def compute_loan_columns(
    venue: Venue, record: Record, mark: FloatArray, maintenance: FloatArray, *, is_isolated: bool
) -> dict[str, FloatArray]:
    fields = record.of_one()
    quantity, cash = fields["quantity"], fields["cash"]
    owned = np.where(quantity != 0.0, quantity * value_of(venue, mark), 0.0)
    if is_isolated:
        cash = fields["margin"] - quantity * fields["entry"]
    collateral = np.maximum(cash, 0.0) + np.maximum(owned, 0.0)
    debt = np.maximum(-cash, 0.0) + np.maximum(-owned, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_long = (collateral - maintenance) / debt
        of_short = collateral / (debt + maintenance)
        ltv = np.where(debt > 0.0, debt / collateral, 0.0)
    health = np.where(owned < 0.0, of_short, of_long)
    return {"health_factor": np.where(debt > 0.0, health, np.inf), "ltv": ltv}
