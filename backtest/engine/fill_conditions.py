"""What each decision met when it filled: the account just before, the prices, and the limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.account.ledger import FILL, MARGIN_ADDED
from backtest.base import BoolArray, FloatArray, IntArray
from backtest.engine.fee_days import list_fees
from backtest.engine.result_tables import ARRAYS, sum_contracts

if TYPE_CHECKING:
    from backtest.engine.loop_inputs import Inputs
    from backtest.engine.record import Record


class AtOpen(NamedTuple):
    """Account and quote at the opens, or closes, where decisions fill: shape (n_decisions,)."""

    bar: IntArray
    value: FloatArray
    unit: FloatArray
    side: FloatArray
    scale: FloatArray
    leverage: FloatArray
    quantity: FloatArray
    entry: FloatArray
    cash: FloatArray
    margin: FloatArray
    equity: FloatArray
    multiplier: FloatArray
    change: FloatArray
    limit: FloatArray
    fee: FloatArray
    order_fee: FloatArray

    @property
    def held(self) -> FloatArray:
        return np.asarray(self.quantity * self.side * self.unit)

    def take(self, rows: BoolArray | IntArray) -> AtOpen:
        return AtOpen._make(values[rows] for values in self)


def read_opens(inputs: Inputs, record: Record, entries: FloatArray, first: int) -> AtOpen:
    series = record.of_one()
    feed, rules = inputs.feed, inputs.rules.instrument
    n = record.n_bars
    signal = take_bars(feed.signal, np.arange(first, first + n))
    target, position = series["target"][:-1], series["quantity"][:-1]
    is_closing = (signal[:-1] == 0.0) & (position != 0.0)
    rows = np.flatnonzero(~np.isnan(target) | is_closing)
    bar = first + rows + 1
    value = value_prices(inputs, take_fill_prices(inputs, bar))
    side = np.where(signal[rows] > 0.0, 1.0, -1.0)
    side = np.where((signal[rows] == 0.0) & (position[rows] > 0.0), 1.0, side)
    cash, margin = carry_over(inputs, series, rows, bar)
    if rules.has_auto_margin is not None:
        added = sum_margin_added(inputs, entries, first, n)[rows + 1]
        cash, margin = cash - added, margin + added
    quantity, entry = position[rows], series["entry"][rows]
    base = margin - quantity * entry if rules.is_isolated is not None else 0.0
    at = AtOpen(
        bar=bar,
        value=value,
        unit=np.abs(value),
        side=side,
        scale=np.abs(signal[rows]),
        leverage=target[rows],
        quantity=quantity,
        entry=entry,
        cash=cash,
        margin=margin,
        equity=cash + base + quantity * value,
        multiplier=take_bars(feed.initial, bar),
        change=sum_contracts(entries, (FILL,), first, n)[rows + 1],
        limit=take_bars(feed.limit, bar),
        fee=list_fees(inputs.fees, rules.fee, bar),
        order_fee=rules.order_fee + take_bars(feed.order_fee, bar),
    )
    return at.take(at.equity > at.order_fee)


def take_fill_prices(inputs: Inputs, bar: IntArray) -> FloatArray:
    feed, rules = inputs.feed, inputs.rules.instrument
    if rules.fills_early is not None:
        return np.asarray(feed.close[bar - 1])
    return np.asarray(feed.close[bar] if rules.fills_late is not None else feed.open[bar])


def take_bars(values: FloatArray, bar: IntArray) -> FloatArray:
    return np.asarray(values[np.minimum(bar, len(values) - 1)])


def carry_over(
    inputs: Inputs, series: Mapping[str, FloatArray], rows: IntArray, bar: IntArray
) -> tuple[FloatArray, FloatArray]:
    rules, quantity = inputs.rules.instrument, series["quantity"][rows]
    if rules.fills_early is not None:
        return series["cash"][rows], series["margin"][rows]
    top_up, flows = series["top_up"][rows + 1], series["flows"][rows + 1]
    funding = quantity * sum_open_funding(inputs, len(inputs.feed.open))[bar]
    if rules.fills_late is not None:
        funding = series["funding"][rows + 1]
    cash, margin = series["cash"][rows] + flows, series["margin"][rows]
    interest = series["interest"][rows + 1]
    if rules.is_isolated is None:
        return cash - funding - interest, margin
    cash, margin = cash - top_up, margin + top_up
    if rules.is_funded_by_wallet:
        cash, margin = charge_wallet(cash, margin, quantity, funding)
    else:
        margin = margin - funding
    return charge_wallet(cash, margin, quantity, interest)


def sum_margin_added(inputs: Inputs, entries: FloatArray, first: int, n_bars: int) -> FloatArray:
    """Return the margin that the wallet added before the fill of each bar, of shape (n_bars,)."""
    bars, kinds = entries[:, 0].astype(np.int64) - first, entries[:, 1]
    fills = np.full(n_bars, len(entries))
    is_fill = kinds == FILL
    fills[bars[is_fill]] = np.flatnonzero(is_fill)
    has_fill = fills[bars] < len(entries)
    opens = value_prices(inputs, inputs.feed.mark_open[first + bars])
    is_before = np.where(has_fill, np.arange(len(entries)) < fills[bars], entries[:, 2] == opens)
    amounts = np.where((kinds == MARGIN_ADDED) & is_before, entries[:, 4], 0.0)
    return np.bincount(bars, weights=amounts, minlength=n_bars).astype(np.float64)


def value_prices(inputs: Inputs, price: FloatArray) -> FloatArray:
    margin = inputs.rules.instrument.margin
    return np.asarray(ARRAYS.compute_value(margin.size, margin.is_inverse, price))


def charge_wallet(
    cash: FloatArray, margin: FloatArray, quantity: FloatArray, amount: FloatArray
) -> tuple[FloatArray, FloatArray]:
    left = cash - amount
    missing = np.where((left < 0.0) & (quantity != 0.0), left, 0.0)
    return left - missing, margin + missing


def sum_open_funding(inputs: Inputs, n_bars: int) -> FloatArray:
    """Return what one contract pays at the open of each bar, of shape (n_bars,)."""
    feed = inputs.feed
    rows = np.flatnonzero(feed.funding_is_open == 1)
    bars = feed.funding_bar[rows]
    price = feed.funding_price[rows]
    known = np.where(np.isnan(price), feed.mark_open[bars], price)
    margin = inputs.rules.instrument.margin
    value = ARRAYS.compute_value(margin.size, margin.is_inverse, known)
    paid = np.abs(value) * feed.funding_rate[rows]
    return np.bincount(bars, weights=paid, minlength=n_bars).astype(np.float64)
