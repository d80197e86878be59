"""The tables of a run of several positions: bars, positions, events, contagion, attribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from backtest.account import ledger
from backtest.base.units import BoolArray, FloatArray, IntArray, utc_index
from backtest.engine.portfolio.book_loop import ACCOUNT_RECORD, POSITION_RECORD
from backtest.engine.result_tables import (
    DIVIDEND,
    FORCED,
    KINDS,
    ORDER,
    is_inverse,
    price_of,
    value_of,
)
from backtest.measures.realized_gains import Realization, count_realized, join_realized
from backtest.portfolio.book_contagion import BLAMED
from backtest.portfolio.book_ledger import CONVERTED, DELISTED
from backtest.venue import Venue

ALL_KINDS = {**KINDS, DELISTED: "delisted", CONVERTED: "conversion"}
ALL_NAMES = (*ORDER, "delisted", "conversion")
"""The kinds of events of a portfolio: the categories of the events table."""
TRADES = ("fill", *FORCED, "delisted")
"""The kinds of events that change a position."""
TERMS = (
    "price_pnl", "fees", "slippage", "impact", "funding", "interest", "liquidation_loss", "flows",
    "bad_debt", "collateral_pnl", "conversion",
)  # fmt: skip
"""The terms of the identity of equity."""
SHOWN = (
    "price_pnl", "fees", "slippage", "impact", "funding", "liquidation_loss", "margin",
)  # fmt: skip
"""Fields of a position that its table shows as they are."""
WITHOUT_PRICE = (
    ledger.INTEREST, ledger.FLOW, ledger.TOP_UP, ledger.REFUSED, ledger.CALLED, ledger.CALL_MET,
    ledger.CALL_PARTLY_MET, ledger.CALL_FAILED,
)  # fmt: skip
"""Kinds of entries of the account, which have no price."""


def column(record: FloatArray, name: str) -> FloatArray:
    """Return a column of the account's record."""
    return record[:, ACCOUNT_RECORD.index(name)]


def field(positions: FloatArray, name: str) -> FloatArray:
    """Return a field of the positions' record, of shape (n_bars, n)."""
    return positions[:, :, POSITION_RECORD.index(name)]


def compute_notionals(
    positions: FloatArray, marks: FloatArray, venues: Sequence[Venue]
) -> FloatArray:
    """Return the signed notionals at each close, of shape (n_bars, n); ``marks`` are prices."""
    quantity = field(positions, "quantity")
    values = [np.abs(value_of(venue, marks[:, i])) for i, venue in enumerate(venues)]
    return np.where(quantity != 0.0, quantity * np.stack(values, axis=1), 0.0)


def measure_profits(
    positions: FloatArray, marks: FloatArray, venues: Sequence[Venue]
) -> FloatArray:
    """Return the unrealized profits at each close, of shape (n_bars, n); ``marks`` are prices."""
    quantity, entry = field(positions, "quantity"), field(positions, "entry")
    values = np.stack([value_of(venue, marks[:, i]) for i, venue in enumerate(venues)], axis=1)
    return np.where(quantity != 0.0, quantity * (values - entry), 0.0)


def portfolio_bars(
    time: IntArray, record: FloatArray, notionals: FloatArray, paid_in: float, first_peak: float
) -> pd.DataFrame:
    """Return the table by bar, indexed by open time.

    Columns: ``equity``; ``gross_leverage`` and ``net_leverage`` of the positions; ``backing`` (M),
    ``requirement`` (times the level) and ``margin_ratio`` of the cross pool; ``balance`` (B);
    ``collateral`` in full and ``collateral_at_rate``; the terms of the identity (costs positive,
    ``flows`` with top-ups); ``cash``, ``reserve``, ``initial_margin``, ``overlay``; ``unit`` value
    and ``drawdown`` free of flows.
    """
    equity, needed = column(record, "equity"), column(record, "requirement")
    backing, unit = column(record, "backing"), column(record, "unit")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(backing > 0.0, needed / backing, np.inf)
        gross = np.where(equity > 0.0, np.abs(notionals).sum(axis=1) / equity, 0.0)
        net = np.where(equity > 0.0, notionals.sum(axis=1) / equity, 0.0)
    peak = np.maximum.accumulate(np.maximum(unit, first_peak))
    columns = {
        "equity": equity,
        "gross_leverage": gross,
        "net_leverage": net,
        "backing": backing,
        "requirement": needed,
        "margin_ratio": np.where(needed > 0.0, ratio, 0.0),
        "balance": column(record, "balance"),
        "collateral": column(record, "collateral"),
        "collateral_at_rate": column(record, "collateral_at_rate"),
        **{name: column(record, name) for name in TERMS},
        "top_up": column(record, "top_up"),
        "cash": column(record, "cash"),
        "reserve": column(record, "reserve"),
        "initial_margin": column(record, "initial"),
        "overlay": column(record, "overlay"),
        "unit": unit / paid_in,
        "drawdown": 1.0 - unit / peak,
    }
    return pd.DataFrame(columns, index=utc_index(time), copy=False)


def positions_table(
    time: IntArray,
    names: Sequence[str],
    venues: Sequence[Venue],
    spans: IntArray,
    equity: FloatArray,
    positions: FloatArray,
    marks: FloatArray,
) -> pd.DataFrame:
    """Return a row per bar and instrument that has it.

    Columns: ``time``, ``instrument``, ``quantity`` in contracts, ``entry`` and ``mark`` as prices,
    signed ``notional`` and ``leverage``, ``profit`` (unrealized), ``price_pnl``, ``fees``,
    ``slippage``, ``impact``, ``funding``, ``liquidation_loss`` of the bar, ``margin`` (isolated),
    ``liquidation_price`` (the others frozen), ``requirement_share`` (its Euler share), ``target``.
    """
    notionals = compute_notionals(positions, marks, venues)
    profits = measure_profits(positions, marks, venues)
    parts = []
    for i, name in enumerate(names):
        rows = slice(*(int(each) for each in spans[i]))
        own = {each: field(positions, each)[rows, i] for each in POSITION_RECORD}
        held = own["quantity"] != 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            leverage = np.where(equity[rows] > 0.0, notionals[rows, i] / equity[rows], 0.0)
        parts.append(
            pd.DataFrame(
                {
                    "time": utc_index(time[rows]),
                    "instrument": name,
                    "quantity": own["quantity"],
                    "entry": np.where(held, price_of(venues[i], own["entry"]), np.nan),
                    "mark": marks[rows, i],
                    "notional": notionals[rows, i],
                    "leverage": leverage,
                    "profit": profits[rows, i],
                    **{each: own[each] for each in SHOWN},
                    "liquidation_price": np.where(
                        held, price_of(venues[i], own["failure"]), np.nan
                    ),
                    "requirement_share": own["share"],
                    "target": own["target"],
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    table["instrument"] = pd.Categorical(table["instrument"], categories=list(names))
    return table.sort_values(["time", "instrument"], kind="stable", ignore_index=True)


# --------------------------------------------------------------------------------------- events


def portfolio_events(
    time: IntArray,
    names: Sequence[str],
    assets: Sequence[str],
    venues: Sequence[Venue],
    entries: FloatArray,
    first: int,
    paying: Sequence[str] = (),
) -> pd.DataFrame:
    """Return the ledger, one row per event: time, kind, instrument, price, quantity, amount.

    As :func:`backtest.engine.result_tables.events_table`, with the instrument, the collateral of a
    ``conversion``, or nothing for events of the account. What instruments named in ``paying`` pay
    are dividends. An event of the account has no price.
    """
    shown = entries[entries[:, 1] != BLAMED]
    price = find_prices(shown, venues)
    kinds = shown[:, 1].astype(np.int64)
    costs = find_costs(kinds)
    parts = [_event_rows(shown, price, np.arange(len(shown)), "", 4, 0)]
    for place, (name, chosen, at) in enumerate(costs, start=1):
        rows = np.flatnonzero(chosen & (shown[:, at] != 0.0))
        parts.append(_event_rows(shown, price, rows, name, at, place))
    parts[0]["kind"] = [ALL_KINDS[kind] for kind in kinds]
    table = pd.concat(parts).sort_values(["row", "place"], kind="stable", ignore_index=True)
    bar = table.pop("bar").to_numpy(dtype=np.int64) - first
    who = table.pop("who").to_numpy(dtype=np.int64)
    table = table.drop(columns=["row", "place"])
    labels = np.array([*names, *assets, ""], dtype=object)
    table.insert(0, "time", utc_index(time[bar]))
    kind: Any = pd.Categorical(labels[who], categories=[*names, *assets, ""])
    table.insert(2, "instrument", kind)
    is_paid = (table["kind"] == "funding") & table["instrument"].isin(paying)
    table.loc[is_paid, "kind"] = DIVIDEND
    table["kind"] = pd.Categorical(table["kind"], categories=[*ALL_NAMES, DIVIDEND])
    return table


def realize_by_instrument(
    time: IntArray,
    spans: IntArray,
    names: Sequence[str],
    venues: Sequence[Venue],
    marks: FloatArray,
    events: pd.DataFrame,
) -> Realization:
    """Return how readily positions were closed at a gain and at a loss, of all instruments.

    ``marks`` are the prices at closes, (n_bars, n_instruments), ``spans`` the bars of each
    instrument, both and the ``venues`` in the order of ``names``.
    """
    trades = events[events["kind"].isin(TRADES)]
    parts = {}
    for k, (name, (first, stop)) in enumerate(zip(names, spans, strict=True)):
        own = trades[trades["instrument"] == name]
        parts[name] = count_realized(
            time[first:stop],
            marks[first:stop, k],
            pd.DatetimeIndex(own["time"]).as_unit("ns").asi8,
            own["quantity"].to_numpy(),
            own["price"].to_numpy(),
            is_inverse=is_inverse(venues[k]),
        )
    return join_realized(parts)


def find_costs(kinds: IntArray) -> tuple[tuple[str, BoolArray, int], ...]:
    """Return the costs of events: name, which entries may have one, and its column."""
    trades = np.isin(kinds, (ledger.FILL, *ledger.STOPS, DELISTED))
    liquidations = kinds == ledger.LIQUIDATED
    return (
        ("fee", trades, 5),
        ("slippage", trades, 6),
        ("impact", trades, 7),
        ("liquidation_loss", liquidations, 5),
    )


def find_prices(entries: FloatArray, venues: Sequence[Venue]) -> FloatArray:
    """Return the prices of entries of the log; those of collateral are prices already."""
    price = np.full(len(entries), np.nan)
    who, kinds = entries[:, 8].astype(np.int64), entries[:, 1].astype(np.int64)
    has_price = ~np.isin(kinds, WITHOUT_PRICE)
    for i, venue in enumerate(venues):
        rows = (who == i) & has_price
        price[rows] = price_of(venue, entries[rows, 2])
    assets = who >= len(venues)
    price[assets] = entries[assets, 2]
    return price


def _event_rows(
    entries: FloatArray, price: FloatArray, rows: IntArray, kind: str, amount: int, place: int
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "bar": entries[rows, 0],
            "who": entries[rows, 8],
            "kind": np.full(len(rows), kind, dtype=object),
            "price": price[rows],
            "quantity": entries[rows, 3],
            "amount": entries[rows, amount],
            "row": rows,
            "place": np.full(len(rows), place),
        }
    )


# ------------------------------------------------------------------------------------ contagion


def contagion_table(
    time: IntArray, names: Sequence[str], entries: FloatArray, first: int
) -> pd.DataFrame:
    """Return a row per cause of each liquidation of the cross pool.

    Columns: ``liquidation`` (its number), ``time``, ``cause`` (an instrument, ``collateral``,
    ``flows`` or ``rules``), ``share`` of the fall since the last high (they sum to 1),
    ``quantity`` held, and ``profit``: what a position in profit had gained since its entry when
    this liquidation closed or reduced it, else 0.
    """
    labels = np.array([*names, "collateral", "flows", "rules"], dtype=object)
    is_cause, numbers = entries[:, 1] == BLAMED, number_liquidations(entries)
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
    """Return the number of the last liquidation up to each entry: 0 before the first."""
    is_cause = entries[:, 1] == BLAMED
    begins = is_cause & ~np.concatenate(([False], is_cause[:-1]))
    falls = np.concatenate(([False], np.diff(entries[:, 8]) <= 0.0)) & is_cause
    return np.cumsum(begins | falls)


def count_assets(
    final: FloatArray, entries: FloatArray, n: int, first: int, n_bars: int
) -> FloatArray:
    """Return the amounts of collateral at each close, of shape (n_bars, C).

    ``final`` are those at the last close; entries of assets, numbered from ``n`` on, say what was
    sold or lost in each bar.
    """
    found = np.tile(final, (n_bars, 1))
    for entry in entries[(entries[:, 8] >= n) & (entries[:, 1] != BLAMED)]:
        found[: int(entry[0]) - first, int(entry[8]) - n] -= entry[3]
    return found


def attribution_table(
    names: Sequence[str], record: FloatArray, positions: FloatArray
) -> pd.DataFrame:
    """Return the money of each instrument by term, of the account's own terms, and their sum."""
    own = ("price_pnl", "fees", "slippage", "impact", "funding", "liquidation_loss", "bad_debt")
    rows: dict[str, dict[str, float]] = {
        name: {term: float(field(positions, term)[:, i].sum()) for term in own}
        for i, name in enumerate(names)
    }
    total = {term: float(column(record, term).sum()) for term in TERMS}
    parts = {term: [row.get(term, 0.0) for row in rows.values()] for term in TERMS}
    rest = {term: total[term] - sum(parts[term]) for term in TERMS}
    rounding = {term: 1e-9 * np.abs(column(record, term)).sum() for term in TERMS}
    rows["account"] = {term: 0.0 if abs(x) <= rounding[term] else x for term, x in rest.items()}
    rows["total"] = total
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*TERMS]).fillna(0.0)
    costs = table[["fees", "slippage", "impact", "funding", "interest", "liquidation_loss"]]
    gains = table[["price_pnl", "bad_debt", "collateral_pnl"]].sum(axis=1)
    table["net"] = gains - costs.sum(axis=1) - table["conversion"]
    return table.rename_axis("instrument")


def mean_of(values: Mapping[str, FloatArray]) -> dict[str, float]:
    """Return the mean of each array over its known values; NaN if there are none."""
    return {
        name: float(np.nanmean(each)) if np.any(np.isfinite(each)) else float("nan")
        for name, each in values.items()
    }
