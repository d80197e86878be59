"""Tables by position: of each bar, and of money.

Fields of the positions come as arrays of shape (n_bars, n) by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from backtest.account.contagion import CAUSED
from backtest.account.terms import SIGNS, TERMS
from backtest.base import FloatArray, IntArray, utc_index
from backtest.engine.record import PositionFields
from backtest.engine.result_tables import (
    price_of,
    value_of,
)
from backtest.venue import Venue

Fields = Mapping[str, FloatArray]
SHOWN = (
    "price_pnl", "fees", "slippage", "impact", "funding", "liquidation_loss", "margin",
)  # fmt: skip
OWN = tuple(name for name in TERMS if name in PositionFields._fields)


def compute_notionals(held: Fields, marks: FloatArray, venues: Sequence[Venue]) -> FloatArray:
    """Return the signed notionals at each close, of shape (n_bars, n); ``marks`` are prices."""
    quantity = held["quantity"]
    return np.where(quantity != 0.0, quantity * np.abs(value_marks(marks, venues)), 0.0)


def measure_profits(held: Fields, marks: FloatArray, venues: Sequence[Venue]) -> FloatArray:
    """Return the unrealized profits at each close, of shape (n_bars, n); ``marks`` are prices."""
    quantity = held["quantity"]
    return np.where(quantity != 0.0, quantity * (value_marks(marks, venues) - held["entry"]), 0.0)


def sum_positions(values: FloatArray) -> FloatArray:
    return values[:, 0] if values.shape[1] == 1 else values.sum(axis=1)


def value_marks(marks: FloatArray, venues: Sequence[Venue]) -> FloatArray:
    """Return the values u of marks, of shape (n_bars, n); those of one need no copy."""
    if len(venues) == 1:
        return value_of(venues[0], marks)
    return np.stack([value_of(venue, marks[:, i]) for i, venue in enumerate(venues)], axis=1)


def positions_table(
    time: IntArray,
    names: Sequence[str],
    venues: Sequence[Venue],
    spans: IntArray,
    equity: FloatArray,
    held: Fields,
    marks: FloatArray,
    liquidation_prices: FloatArray,
    shares: FloatArray,
    options: Sequence[pd.DataFrame] = (),
) -> pd.DataFrame:
    """Return a row per bar and instrument that has it, and per bar and option that is held.

    Columns: ``time``, ``instrument``, ``quantity`` in contracts, ``entry`` and ``mark`` as prices,
    signed ``notional`` and ``leverage``, ``profit`` (unrealized), ``price_pnl``, ``fees``,
    ``slippage``, ``impact``, ``funding``, ``liquidation_loss`` of the bar, ``margin`` (isolated),
    ``liquidation_price`` (the others frozen), ``requirement_share`` (its Euler share; the whole
    maintenance of the only position), ``target``.

    ``options`` are the rows of each option. Prices of an option are those of one contract in the
    settlement currency, its notional is its delta in money, the ``liquidation_price`` is that of
    its underlying, and it has no share and no target. They have columns of their own, of
    instruments NaN but for ``delta``: ``value`` of the position, the Greeks in money
    (docs/options.md), implied ``volatility``, ``days`` to expiry and ``surface_age`` in days.
    """
    notionals = compute_notionals(held, marks, venues)
    profits = measure_profits(held, marks, venues)
    parts = []
    for i, name in enumerate(names):
        rows = slice(*(int(each) for each in spans[i]))
        is_held = held["quantity"][rows, i] != 0.0
        is_shown = is_held | bool(options)  # options fail with it where it is not held
        with np.errstate(divide="ignore", invalid="ignore"):
            leverage = np.where(equity[rows] > 0.0, notionals[rows, i] / equity[rows], 0.0)
        own = {
            "time": utc_index(time[rows]),
            "instrument": name,
            "quantity": held["quantity"][rows, i],
            "entry": np.where(is_held, price_of(venues[i], held["entry"][rows, i]), np.nan),
            "mark": marks[rows, i],
            "notional": notionals[rows, i],
            "leverage": leverage,
            "profit": profits[rows, i],
            **{each: held[each][rows, i] for each in SHOWN},
            "liquidation_price": np.where(is_shown, liquidation_prices[rows, i], np.nan),
            "requirement_share": shares[rows, i],
            "target": held["target"][rows, i],
        }
        parts.append(pd.DataFrame(own | ({"delta": notionals[rows, i]} if options else {})))
    parts.extend(options)
    table = pd.concat(parts, ignore_index=True)
    held_options = (each["instrument"].iloc[0] for each in options if len(each))  # any may be empty
    known = list(dict.fromkeys([*names, *held_options]))
    table["instrument"] = pd.Categorical(table["instrument"], categories=known)
    return table.sort_values(["time", "instrument"], kind="stable", ignore_index=True)


def count_assets(
    final: FloatArray, entries: FloatArray, n: int, first: int, n_bars: int
) -> FloatArray:
    """Return the amounts of collateral at each close, of shape (n_bars, C)."""
    found = np.tile(final, (n_bars, 1))
    is_asset = (entries[:, 8] >= n) & (entries[:, 8] < n + len(final))
    for entry in entries[is_asset & (entries[:, 1] != CAUSED)]:
        found[: int(entry[0]) - first, int(entry[8]) - n] -= entry[3]
    return found


def attribution_table(names: Sequence[str], account: Fields, held: Fields) -> pd.DataFrame:
    rows: dict[str, dict[str, float]] = {
        name: {term: float(held[term][:, i].sum()) for term in OWN} for i, name in enumerate(names)
    }
    known = {term: account[term] for term in TERMS if term in account}
    total = {term: float(each.sum()) for term, each in known.items()}
    parts = {term: [row.get(term, 0.0) for row in rows.values()] for term in known}
    rest = {term: total[term] - sum(parts[term]) for term in known}
    rounding = {term: 1e-9 * np.abs(each).sum() for term, each in known.items()}
    rows["account"] = {term: 0.0 if abs(x) <= rounding[term] else x for term, x in rest.items()}
    rows["total"] = total
    table = pd.DataFrame.from_dict(rows, orient="index", columns=TERMS).fillna(0.0)
    gains = [name for name in TERMS if SIGNS[name] > 0.0 and name != "flows"]
    costs = [name for name in TERMS if SIGNS[name] < 0.0 and name != "conversion"]
    net = table[gains].sum(axis=1) - table[costs].sum(axis=1)
    table["net"] = net - table["conversion"]
    return table.rename_axis("instrument")


def attribute_money(
    names: Sequence[str], account: Fields, held: Fields, starts: pd.DatetimeIndex
) -> pd.DataFrame:
    found = {}
    for start in starts.unique():
        rows = np.flatnonzero(starts == start)
        own = slice(rows[0], rows[-1] + 1)
        found[start] = attribution_table(
            names,
            {name: each[own] for name, each in account.items()},
            {name: each[own] for name, each in held.items()},
        )
    return pd.concat(found, names=[starts.name])


def mean_of(values: FloatArray) -> float:
    return float(np.nanmean(values)) if np.any(np.isfinite(values)) else float("nan")
