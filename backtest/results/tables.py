"""Tables of a result: events, positions, profits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.account import ledger
from backtest.account import records as r
from backtest.account.pool_liquidation import CAUSED
from backtest.core import FloatArray
from backtest.results.record import PositionFields
from backtest.venue import Venue
from backtest.margin import compute_price, compute_value

KINDS = {
    ledger.FILL: "fill",
    ledger.FUNDING: "funding",
    ledger.INTEREST: "interest",
    ledger.FLOW: "flow",
    ledger.TOP_UP: "top_up",
    ledger.REFUSED: "withdrawal_refused",
    ledger.STOPPED: "stop",
    ledger.LIQUIDATED: "liquidation",
    ledger.BAD_DEBT: "bad_debt",
    ledger.CALLED: "margin_call",
    ledger.RUINED: "ruin",
    ledger.CALL_MET: "call_met",
    ledger.CALL_PARTLY_MET: "call_partly_met",
    ledger.CALL_FAILED: "call_failed",
    ledger.MARGIN_ADDED: "margin_added",
    ledger.TRAILED: "trailing_stop",
    ledger.EQUITY_STOPPED: "equity_stop",
    ledger.TOOK_PROFIT: "take_profit",
    ledger.TIME_STOPPED: "time_stop",
    r.DELISTED: "delisted",
    r.EXPIRED: "expiry",
    r.UNQUOTED: "unquoted",
    r.CONVERTED: "conversion",
    r.RESTED: "limit_order",
    r.MARGIN_RETURNED: "margin_returned",
    r.MARGIN_REFUSED: "margin_refused",
}
ORDER = (
    "fill", "stop", "liquidation", "fee", "slippage", "impact", "liquidation_loss", "funding",
    "interest", "margin_call", "top_up", "bad_debt", "flow", "withdrawal_refused",
    "ruin", "call_met", "call_partly_met", "call_failed", "margin_added",
    "trailing_stop", "equity_stop", "take_profit", "delisted", "conversion", "margin_returned",
    "margin_refused", "time_stop", "limit_order", "expiry", "unquoted",
)  # fmt: skip
OWNER, STEP = 8, 9
"""The columns of entries that say whose they are (an instrument, then collateral; -1 the account),
and in which step of the bar.
"""
WITHOUT_PRICE = (
    ledger.INTEREST, ledger.FLOW, ledger.TOP_UP, ledger.REFUSED, ledger.CALLED, ledger.CALL_MET,
    ledger.CALL_PARTLY_MET, ledger.CALL_FAILED,
)  # fmt: skip
TRADES = (ledger.FILL, *ledger.STOP_KINDS, r.DELISTED, r.EXPIRED)
FORCED = (*(KINDS[kind] for kind in ledger.STOP_KINDS), "liquidation", "ruin")


def price_of(venue: Venue, value: Any) -> FloatArray:
    return np.asarray(compute_price(venue.contract.size, is_inverse(venue), value))


def value_of(venue: Venue, price: Any) -> FloatArray:
    return np.asarray(compute_value(venue.contract.size, is_inverse(venue), price))


def is_inverse(venue: Venue) -> bool:
    return venue.contract.kind == "inverse"


def label_owners(
    names: Sequence[str], assets: Sequence[str], options: Mapping[int, str] | None
) -> npt.NDArray[np.object_]:
    """Return the names of instruments, collateral and options by owner; the last is no one's."""
    named = options or {}
    unknown = [""] * (max(named, default=-1) + 1 - len(names) - len(assets))
    labels = np.array([*names, *assets, *unknown, ""], dtype=object)
    for owner, name in named.items():
        labels[owner] = name
    return labels


def find_prices(entries: FloatArray, venues: Sequence[Venue]) -> FloatArray:
    price = np.full(len(entries), np.nan)
    who, kinds = entries[:, OWNER].astype(np.int64), entries[:, 1].astype(np.int64)
    has_price = ~np.isin(kinds, WITHOUT_PRICE)
    for i, venue in enumerate(venues):
        rows = (who == i) & has_price
        price[rows] = price_of(venue, entries[rows, 2])
    assets = who >= len(venues)
    price[assets] = entries[assets, 2]
    return price


def sum_contracts(
    entries: FloatArray, kinds: tuple[float, ...], first: int, n_bars: int
) -> FloatArray:
    """Return the contracts that entries of some kinds traded in each bar, of shape (n_bars,)."""
    chosen = entries[np.isin(entries[:, 1], kinds)]
    bars = chosen[:, 0].astype(np.int64) - first
    return np.bincount(bars, weights=chosen[:, 3], minlength=n_bars).astype(np.float64)


# --------------------------------------------------------------------------------------- positions

Fields = Mapping[str, FloatArray]
SHOWN = (
    "price_pnl", "fees", "slippage", "impact", "funding", "liquidation_loss", "margin",
)  # fmt: skip
OWN = tuple(name for name in r.TERMS if name in PositionFields._fields)


def divide_by_equity(money: FloatArray, equity: FloatArray) -> FloatArray:
    if np.min(equity, initial=np.inf) > 0.0:  # usual, and faster
        return money / equity
    return np.divide(money, equity, out=np.zeros(len(equity)), where=equity > 0.0)


def sum_positions(values: FloatArray) -> FloatArray:
    return values[:, 0] if values.shape[1] == 1 else values.sum(axis=1)


def value_marks(marks: FloatArray, venues: Sequence[Venue]) -> FloatArray:
    """Return the values u of marks, of shape (n_bars, n); those of one need no copy."""
    if len(venues) == 1:
        return value_of(venues[0], marks)
    return np.stack([value_of(venue, marks[:, i]) for i, venue in enumerate(venues)], axis=1)


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
    known = {term: account[term] for term in r.TERMS if term in account}
    total = {term: float(each.sum()) for term, each in known.items()}
    parts = {term: [row.get(term, 0.0) for row in rows.values()] for term in known}
    rest = {term: total[term] - sum(parts[term]) for term in known}
    rounding = {term: 1e-9 * np.abs(each).sum() for term, each in known.items()}
    rows["account"] = {term: 0.0 if abs(x) <= rounding[term] else x for term, x in rest.items()}
    rows["total"] = total
    table = pd.DataFrame.from_dict(rows, orient="index", columns=r.TERMS).fillna(0.0)
    gains = [name for name in r.TERMS if r.SIGNS[name] > 0.0 and name != "flows"]
    costs = [name for name in r.TERMS if r.SIGNS[name] < 0.0 and name != "conversion"]
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
