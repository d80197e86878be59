"""Tables of a result: events, positions, profits."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backtest.account.events import EVENTS, TRADES, WITHOUT_PRICE, Entries, Event
from backtest.account.money import FILL_COSTS, POSITION_TERMS, SIGNS, TERMS, TRADE_TERMS
from backtest.core import FloatArray
from backtest.core.code_names import pd
from backtest.margin import compute_price, compute_value
from backtest.venue import Contract, Venue

COSTS = {
    **dict.fromkeys(FILL_COSTS.values(), TRADES),
    "liquidation_loss": (Event.LIQUIDATED,),
}
"""Rows of the table of events that an entry of some kinds has beside its own: what it cost."""
NAMES = (*(event.kind.name for event in EVENTS), *COSTS)
"""Values of the column ``kind`` of the table of events."""


@functools.lru_cache(maxsize=64)
def make_categories(*names: str) -> pd.CategoricalDtype:
    """Return the type of a column of some names, which pandas checks and sorts only once."""
    return pd.CategoricalDtype([*names])


def price_of(contract: Contract, value: Any) -> FloatArray:
    """Return the prices at which one contract has some values u."""
    is_inverse = contract.kind == "inverse"
    return np.asarray(compute_price(contract.size, is_inverse, value))


def value_of(contract: Contract, price: Any) -> FloatArray:
    """Return the values u of one contract at some prices, in the settlement currency."""
    is_inverse = contract.kind == "inverse"
    return np.asarray(compute_value(contract.size, is_inverse, price))


def find_prices(entries: Entries, venues: Sequence[Venue]) -> FloatArray:
    """Return the prices of entries; NaN of kinds that have none."""
    value = entries["value"]
    price = np.full(len(entries), np.nan)
    has_price = ~np.isin(entries["kind"], WITHOUT_PRICE)
    for i, venue in enumerate(venues):
        rows = (entries["owner"] == i) & has_price
        price[rows] = price_of(venue.contract, value[rows])

    # Collateral and options have the price of one of them as their value.
    is_other = entries["owner"] >= len(venues)
    price[is_other] = value[is_other]
    return price


def sum_contracts(
    entries: Entries,
    kinds: Sequence[Event],
    first: int,
    n_bars: int,
) -> FloatArray:
    """Return the contracts that entries of some kinds traded in each bar, of shape (n_bars,)."""
    chosen = entries[np.isin(entries["kind"], kinds)]
    rows = chosen["bar"] - first
    sums = np.bincount(rows, weights=chosen["quantity"], minlength=n_bars)
    return sums.astype(np.float64)


Fields = Mapping[str, FloatArray]
SHOWN = (*TRADE_TERMS, "margin")


def count_assets(
    final: FloatArray,
    entries: Entries,
    n: int,
    first: int,
    n_bars: int,
) -> FloatArray:
    """Return the amounts of collateral at each close, of shape (n_bars, C).

    ``final`` (C,) are those at the end: what came later is taken away from the closes before.
    """
    amounts = np.tile(final, (n_bars, 1))

    # Owners are numbered: ``n`` instruments, then the assets of collateral, then others. What is
    # caused by another entry is in that one already.
    owners = entries["owner"]
    is_asset = (owners >= n) & (owners < n + len(final))
    is_change = is_asset & (entries["kind"] != Event.CAUSED)
    for entry in entries[is_change]:
        row = entry["bar"] - first
        asset = entry["owner"] - n
        amounts[:row, asset] -= entry["quantity"]
    return amounts


DUST = 1e-9
"""A rest of a term below this share of its payments is rounding."""


def attribution_table(
    names: Sequence[str],
    account: Fields,
    held: Fields,
) -> pd.DataFrame:
    """Return what each instrument made and paid, what no instrument did, and the total."""
    columns = {}
    for term in TERMS:
        by_instrument = np.zeros(len(names))
        if term in POSITION_TERMS:
            by_instrument = held[term].sum(axis=0)
        # What no instrument made is of the account itself, unless it is as small as rounding.
        total = account[term].sum()
        of_account = total - by_instrument.sum()
        if abs(of_account) <= DUST * np.abs(account[term]).sum():
            of_account = 0.0
        columns[term] = np.append(by_instrument, (of_account, total))

    index = pd.Index([*names, "account", "total"], name="instrument")
    table = pd.DataFrame(columns, index)
    table["net"] = sum(SIGNS[name] * table[name] for name in TERMS if name != "flows")
    return table


def attribute_money(
    names: Sequence[str],
    account: Fields,
    held: Fields,
    starts: pd.DatetimeIndex,
) -> pd.DataFrame:
    """Return :func:`attribution_table` of each period; ``starts`` has the period of each bar."""
    periods = {}
    for start in starts.unique():
        rows = np.flatnonzero(starts == start)
        span = slice(rows[0], rows[-1] + 1)
        periods[start] = attribution_table(
            names,
            take_rows(account, span),
            take_rows(held, span),
        )

    return pd.concat(periods, names=[starts.name])


def take_rows(fields: Fields, span: slice) -> dict[str, FloatArray]:
    """Return some bars of all fields."""
    return {name: values[span] for name, values in fields.items()}


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
    if is_inverse or run.markets is None:
        return ""
    return str(run.markets.currency)
