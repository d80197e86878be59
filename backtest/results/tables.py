"""Tables of a result: events, positions, profits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backtest.account.events import EVENTS, TRADES, WITHOUT_PRICE, Entries, Event
from backtest.account.money import FILL_COSTS, POSITION_TERMS, SIGNS, TERMS, TRADE_TERMS
from backtest.core import FloatArray
from backtest.core.code_names import pd
from backtest.margin import compute_price, compute_value
from backtest.venue import Contract, Venue

COSTS = {**dict.fromkeys(FILL_COSTS.values(), TRADES), "liquidation_loss": (Event.LIQUIDATED,)}
"""Rows of the table of events that an entry of some kinds has beside its own: what it cost."""
NAMES = (*(each.kind.name for each in EVENTS), *COSTS)
"""What stands in the column ``kind`` of the table of events."""


def price_of(contract: Contract, value: Any) -> FloatArray:
    return np.asarray(compute_price(contract.size, contract.kind == "inverse", value))


def value_of(contract: Contract, price: Any) -> FloatArray:
    return np.asarray(compute_value(contract.size, contract.kind == "inverse", price))


def find_prices(entries: Entries, venues: Sequence[Venue]) -> FloatArray:
    price, value = np.full(len(entries), np.nan), entries["value"]
    has_price = ~np.isin(entries["kind"], WITHOUT_PRICE)
    for i, venue in enumerate(venues):
        rows = (entries["owner"] == i) & has_price
        price[rows] = price_of(venue.contract, value[rows])
    assets = entries["owner"] >= len(venues)
    price[assets] = value[assets]
    return price


def sum_contracts(entries: Entries, kinds: Sequence[Event], first: int, n_bars: int) -> FloatArray:
    """Return the contracts that entries of some kinds traded in each bar, of shape (n_bars,)."""
    chosen = entries[np.isin(entries["kind"], kinds)]
    found = np.bincount(chosen["bar"] - first, weights=chosen["quantity"], minlength=n_bars)
    return found.astype(np.float64)


Fields = Mapping[str, FloatArray]
SHOWN = (*TRADE_TERMS, "margin")


def count_assets(
    final: FloatArray, entries: Entries, n: int, first: int, n_bars: int
) -> FloatArray:
    """Return the amounts of collateral at each close, of shape (n_bars, C)."""
    found = np.tile(final, (n_bars, 1))
    is_asset = (entries["owner"] >= n) & (entries["owner"] < n + len(final))
    for entry in entries[is_asset & (entries["kind"] != Event.CAUSED)]:
        found[: entry["bar"] - first, entry["owner"] - n] -= entry["quantity"]
    return found


def attribution_table(names: Sequence[str], account: Fields, held: Fields) -> pd.DataFrame:
    index, columns = pd.Index([*names, "account", "total"], name="instrument"), {}
    for term in TERMS:
        own = held[term].sum(axis=0) if term in POSITION_TERMS else np.zeros(len(names))
        total, rounding = account[term].sum(), 1e-9 * np.abs(account[term]).sum()
        rest = total - own.sum()
        columns[term] = np.append(own, (0.0 if abs(rest) <= rounding else rest, total))
    table = pd.DataFrame(columns, index)
    table["net"] = sum(SIGNS[name] * table[name] for name in TERMS if name != "flows")
    return table


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


def find_settlement(run: Any) -> str:
    """Return the currency in which a run settles, empty if it is unknown."""
    stored: str | None = vars(run).get("settlement")
    if stored is not None:  # of a loaded run, which has no markets
        return stored

    contracts = [venue.contract for venue in run.list_venues()]
    stated = {contract.settles for contract in contracts} - {None}
    if stated:
        return str(stated.pop())

    # An inverse contract does not settle in the quote currency of its name.
    is_inverse = any(contract.kind == "inverse" for contract in contracts)
    return "" if is_inverse or run.markets is None else run.markets.currency
