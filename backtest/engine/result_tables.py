"""The tables of a result: one row per bar, and one row per event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.account import ledger
from backtest.account.contagion import CAUSED
from backtest.account.portfolio_ledger import (
    CONVERTED,
    DELISTED,
    EXPIRED,
    MARGIN_REFUSED,
    MARGIN_RETURNED,
    RESTED,
    UNQUOTED,
)
from backtest.base import (
    BoolArray,
    FloatArray,
    IntArray,
    make_array_twins,
    utc_index,
)
from backtest.venue import contract_value, liquidation_price, requirement

if TYPE_CHECKING:
    from backtest.venue import Venue

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
    DELISTED: "delisted",
    EXPIRED: "expiry",
    UNQUOTED: "unquoted",
    CONVERTED: "conversion",
    RESTED: "limit_order",
    MARGIN_RETURNED: "margin_returned",
    MARGIN_REFUSED: "margin_refused",
}
ORDER = (
    "fill", "stop", "liquidation", "fee", "slippage", "impact", "liquidation_loss", "funding",
    "interest", "margin_call", "top_up", "bad_debt", "flow", "withdrawal_refused",
    "ruin", "call_met", "call_partly_met", "call_failed", "margin_added",
    "trailing_stop", "equity_stop", "take_profit", "delisted", "conversion", "margin_returned",
    "margin_refused", "time_stop", "limit_order", "expiry", "unquoted",
)  # fmt: skip
OWNER = 8
"""The column of entries that says whose they are: an instrument, then collateral; -1 the account.
"""
WITHOUT_PRICE = (
    ledger.INTEREST, ledger.FLOW, ledger.TOP_UP, ledger.REFUSED, ledger.CALLED, ledger.CALL_MET,
    ledger.CALL_PARTLY_MET, ledger.CALL_FAILED,
)  # fmt: skip
DIVIDEND = "dividend"
FORCED = (*(KINDS[kind] for kind in ledger.STOP_KINDS), "liquidation", "ruin")
TRADES = ("fill", *FORCED, "delisted", "expiry")
ARRAYS = make_array_twins(contract_value, requirement, liquidation_price)


def price_of(venue: Venue, value: FloatArray) -> FloatArray:
    return np.asarray(ARRAYS.compute_price(venue.contract.size, is_inverse(venue), value))


def value_of(venue: Venue, price: FloatArray) -> FloatArray:
    return np.asarray(ARRAYS.compute_value(venue.contract.size, is_inverse(venue), price))


def is_inverse(venue: Venue) -> bool:
    return venue.contract.kind == "inverse"


def events_table(
    names: Sequence[str],
    assets: Sequence[str],
    venues: Sequence[Venue],
    time: IntArray,
    entries: FloatArray,
    first: int,
    paying: Sequence[str] = (),
    options: Mapping[int, str] | None = None,
) -> pd.DataFrame:
    shown = entries[entries[:, 1] != CAUSED]
    price = find_prices(shown, venues)
    kinds = shown[:, 1].astype(np.int64)
    parts = [_rows(shown, price, np.arange(len(shown)), "")]
    parts[0]["kind"] = [KINDS[kind] for kind in kinds]
    for place, (name, chosen, column) in enumerate(find_costs(kinds), start=1):
        rows = np.flatnonzero(chosen & (shown[:, column] != 0.0))
        parts.append(_rows(shown, price, rows, name, amount=column, place=place))
    table = pd.concat(parts).sort_values(["row", "place"], kind="stable", ignore_index=True)
    bar = table.pop("bar").to_numpy(dtype=np.int64) - first
    who = table.pop("who").to_numpy(dtype=np.int64)
    table = table.drop(columns=["row", "place"])
    table.insert(0, "time", utc_index(time[bar]))
    named = options or {}
    unknown = [""] * (max(named, default=-1) + 1 - len(names) - len(assets))
    labels = np.array([*names, *assets, *unknown, ""], dtype=object)
    for owner, name in named.items():
        labels[owner] = name
    is_paid = (table["kind"] == "funding") & np.isin(labels[who], list(paying))
    table.loc[is_paid, "kind"] = DIVIDEND  # paid as funding is, and a market has one of the two
    table["kind"] = pd.Categorical(table["kind"], categories=[*ORDER, DIVIDEND])
    of: Any = pd.Categorical(labels[who], categories=[*dict.fromkeys(labels)])
    table.insert(2, "instrument", of)
    return table


def find_costs(kinds: IntArray) -> tuple[tuple[str, BoolArray, int], ...]:
    trades = np.isin(kinds, (ledger.FILL, *ledger.STOP_KINDS, DELISTED, EXPIRED))
    liquidations = kinds == ledger.LIQUIDATED
    return (
        ("fee", trades, 5),
        ("slippage", trades, 6),
        ("impact", trades, 7),
        ("liquidation_loss", liquidations, 5),
    )


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


def forced_changes(entries: FloatArray, first: int, n_bars: int) -> FloatArray:
    forced = tuple(kind for kind, name in KINDS.items() if name in FORCED)
    return sum_contracts(entries, forced, first, n_bars)


def sum_contracts(
    entries: FloatArray, kinds: tuple[float, ...], first: int, n_bars: int
) -> FloatArray:
    """Return the contracts that entries of some kinds traded in each bar, of shape (n_bars,)."""
    chosen = entries[np.isin(entries[:, 1], kinds)]
    bars = chosen[:, 0].astype(np.int64) - first
    return np.bincount(bars, weights=chosen[:, 3], minlength=n_bars).astype(np.float64)


def _rows(
    entries: FloatArray,
    price: FloatArray,
    rows: IntArray,
    kind: str,
    *,
    amount: int = 4,
    place: int = 0,
) -> pd.DataFrame:
    who = entries[rows, OWNER]
    return pd.DataFrame(
        {
            "bar": entries[rows, 0],
            "who": who,
            "kind": np.full(len(rows), kind, dtype=object),
            "price": price[rows],
            "quantity": entries[rows, 3],
            "amount": entries[rows, amount],
            "row": rows,
            "place": np.full(len(rows), place),
        }
    )
