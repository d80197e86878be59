"""The portfolio index: the price of one unit of equity that holds the weights of a signal."""

from __future__ import annotations

from typing import Any

import numpy as np

from backtest.base import DataError, FloatArray, IntArray, format_time
from backtest.market.market import Market
from backtest.market.panel import Panel
from backtest.market.panel_data import PanelData
from backtest.market.tables.settlements import nearest_minute

NAME = "portfolio"


def make_index(markets: PanelData, weights: FloatArray) -> Market:
    """Return the index of weights decided at each close, of shape (n_instruments, n_bars).

    Notes
    -----
    Bar t holds the weights w of t - 1, none in the first bar, bought at the opens O of bar t
    without costs. Inside the bar V(u) = V_open (1 + sum_i w_i (P_i(u) / O_i - 1)) along the
    waypoints; the next open is V_open (1 + sum_i w_i (O_i' / O_i - 1)), with the close in place of
    O_i' where an instrument has no next bar. Mark prices are the value of the same holdings at the
    marks.
    """
    panel = markets.panel()
    held = _hold(weights)
    gains = _follow(panel, held)
    opens = _chain(panel, held)
    prices = {name: opens * (1.0 + gain) for name, gain in gains.items()}
    _check_positive(prices, markets, weights)
    none = np.empty(0)
    settled = (
        _sum_settlements(panel, held) if panel.funding_time.size else (none.astype(np.int64), none)
    )
    unknown = np.full(settled[0].size, np.nan)
    return Market(
        instrument=NAME,
        interval=markets.interval,
        time=markets.time,
        **prices,
        volume=np.full(markets.n_bars, np.nan),
        has_mark=any(market.has_mark for market in markets.values()),
        funding_time=settled[0],
        funding_rate=settled[1],
        funding_mark=unknown,
        funding_predicted=unknown,
        columns={},
        synthetic=markets.synthetic,
        sessions=markets.sessions,
        decide=0,
        filled={},
        source=f"{markets!r}.index(...)",
    )


def _hold(weights: FloatArray) -> FloatArray:
    """Return the weights that each bar holds: those of the bar before."""
    held = np.zeros_like(weights)
    held[:, 1:] = weights[:, :-1]
    return held


def _add(held: FloatArray, price: FloatArray, base: FloatArray) -> FloatArray:
    """Return sum_i w_i (P_i / O_i - 1), of shape (n_bars,), without what is not held."""
    total = np.zeros(held.shape[1])
    for weight, one, other in zip(held, price, base, strict=True):
        total += np.where(weight != 0.0, weight * (one / other - 1.0), 0.0)
    return total


def _follow(panel: Panel, held: FloatArray) -> dict[str, FloatArray]:
    """Return the gains since the open at the open, highest, lowest and close, last and mark."""
    found: dict[str, FloatArray] = {}
    is_low_first = panel.close >= panel.open
    for lead in ("", "mark_"):
        begin, high, low, end = (
            getattr(panel, f"{lead}{n}") for n in ("open", "high", "low", "close")
        )
        first, second = np.where(is_low_first, low, high), np.where(is_low_first, high, low)
        points = [_add(held, price, panel.open) for price in (begin, first, second, end)]
        found[f"{lead}open"], found[f"{lead}close"] = points[0], points[3]
        found[f"{lead}high"] = np.max(points, axis=0)
        found[f"{lead}low"] = np.min(points, axis=0)
    return found


def _chain(panel: Panel, held: FloatArray) -> FloatArray:
    """Return the value at each open, 1 at the first."""
    following = np.roll(panel.open, -1, axis=1)
    following[:, -1] = np.nan
    following = np.where(np.isnan(following), panel.close, following)
    growth = 1.0 + _add(held, following, panel.open)
    return np.concatenate([[1.0], np.cumprod(growth[:-1])])


def _sum_settlements(panel: Panel, held: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return stamps and rates of the settlements, those of one moment added up.

    What is paid at an open is paid by the weights held before it.
    """
    bar = panel.funding_bar - panel.funding_is_open
    weight = np.where(bar >= 0, held[panel.funding_instrument, np.maximum(bar, 0)], 0.0)
    moments = np.stack(
        [panel.funding_bar, panel.funding_is_open, nearest_minute(panel.funding_time)]
    )
    is_new = np.concatenate([[True], np.any(np.diff(moments, axis=1) != 0, axis=0)])
    group = np.cumsum(is_new) - 1
    rates = np.zeros(int(group[-1]) + 1)
    np.add.at(rates, group, weight * panel.funding_rate)
    return panel.funding_time[is_new], rates


def _check_positive(prices: dict[str, Any], markets: PanelData, weights: FloatArray) -> None:
    """Refuse an index that reaches 0: an account that holds these weights is ruined there."""
    lowest = np.minimum(prices["low"], prices["mark_low"])
    bad = np.flatnonzero(~(lowest > 0.0))
    if not bad.size:
        return
    bar = int(bad[0])
    gross = float(np.abs(weights[:, max(bar - 1, 0)]).sum())
    raise DataError(
        f"the portfolio index must stay over 0, falls to {lowest[bar]:.4g} with weights of "
        f"{gross:.4g} in total",
        where=f"{markets!r}, bar {bar}, {format_time(int(markets.time[bar]))} UTC",
        cure="give smaller weights: the leverage belongs to the policies, the signal to 1 in total",
    )
