"""The fills of an instrument or option, and the trades that they make: round trips, or lots.

Values are u, those of one contract in the settlement currency. All trades end: what is open at the
end is closed by a last row of the fills, at the last mark and without costs.

============  ===========================================================================
word          what it is
============  ===========================================================================
holding       what was held over the bars of a run: an instrument, or an option
entry         a row of the ledger: a fill, or a payment of funding, interest or expense
fill          an entry that changes the quantity held
carried       held before the first bar: an earlier run opened it
turn          a fill split into the contracts that it closes and those that it opens
lot           contracts that one fill opened and one fill closed, first in first out
trip          all lots from a position's first fill to its last: a round trip
view          what a row of trades is: a trip, or a lot ("fifo")
============  ===========================================================================
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from backtest.account.events import ENDINGS, ENTRY, TRADED, Entries, Event
from backtest.account.money import FILL_COSTS
from backtest.core import BoolArray, FloatArray, IntArray
from backtest.results import tables

if TYPE_CHECKING:
    from backtest.results.run_data import RunOptions
    from backtest.results.run_record import RunRecord

FLAT = 1e-10
"""The largest rest of a trade, as a fraction of it, that is rounding: the position is closed."""
CARRIED_ROUNDING = 1e-9
"""The largest rest of the first bar's fills, as a fraction, that is rounding: nothing was held."""
CARRIED = -1
OPEN = -2
"""Kinds of the fills before the first, of what an earlier run held, and after the last."""
ENDED: dict[int, str] = {int(kind): word for kind, word in ENDINGS.items()} | {OPEN: "open"}
"""How a trade ended, by the kind of its last fill."""


class Turns(NamedTuple):
    """Trades split into what they close and what they open, arrays of shape (n_trades,)."""

    quantity: FloatArray
    before: FloatArray
    after: FloatArray
    closed: FloatArray
    opened: FloatArray

    @property
    def starts(self) -> BoolArray:
        """Whether a trade starts a position: from nothing held, or on the other side."""
        is_from_nothing = (self.before == 0.0) | (self.closed > 0.0)
        return np.asarray((self.opened > 0.0) & is_from_nothing)

    @property
    def closes_all(self) -> BoolArray:
        """Whether a trade closes all that was held: it ends flat, or on the other side."""
        return np.asarray((self.after == 0.0) | (self.opened > 0.0))


def split_trades(quantity: FloatArray) -> Turns:
    """Split signed contracts traded, in their order from nothing held, into turns."""
    after = np.empty(len(quantity))
    held = 0.0
    for k, traded in enumerate(quantity.tolist()):
        total = held + traded
        is_flat = abs(total) <= FLAT * max(abs(traded), abs(held))
        held = 0.0 if is_flat else total
        after[k] = held

    before = np.concatenate(([0.0], after))[:-1]
    is_same_side = before * after > 0.0
    change = np.abs(after) - np.abs(before)
    return Turns(
        quantity=quantity,
        before=before,
        after=after,
        closed=np.where(is_same_side, np.maximum(-change, 0.0), np.abs(before)),
        opened=np.where(is_same_side, np.maximum(change, 0.0), np.abs(after)),
    )


class Lots(NamedTuple):
    """Contracts that one fill opened and another closed, arrays of shape (n_lots,).

    ``entry`` and ``exit`` are the rows of the two fills. Lots stand in the order of their exits,
    those of one exit in the order of their entries.
    """

    entry: IntArray
    exit: IntArray
    contracts: FloatArray


def match_first_in(turns: Turns) -> Lots:
    """Return the lots of some turns, first in first out; what is never closed is in none."""
    open_lots = deque[tuple[int, float]]()  # the row that opened each, and what is left of it
    entries: list[int] = []
    exits: list[int] = []
    contracts: list[float] = []

    rows = zip(
        turns.closed.tolist(),
        turns.opened.tolist(),
        turns.closes_all.tolist(),
        strict=True,
    )
    for k, (closed, opened, closes_all) in enumerate(rows):
        unmatched = closed
        while open_lots and unmatched > 0.0:
            entry, left = open_lots.popleft()

            # A rest that is rounding ends with its lot.
            is_used_up = closes_all or left <= unmatched * (1.0 + FLAT)
            matched = left if is_used_up else unmatched

            entries.append(entry)
            exits.append(k)
            contracts.append(matched)
            unmatched -= matched
            if matched < left:
                open_lots.appendleft((entry, left - matched))

        if opened > 0.0:
            open_lots.append((k, opened))

    return Lots(
        entry=np.array(entries, dtype=np.int64),
        exit=np.array(exits, dtype=np.int64),
        contracts=np.array(contracts, dtype=np.float64),
    )


TradeView: TypeAlias = Literal["trip", "fifo"]
HOLDING_COSTS = {"funding": (Event.FUNDING, Event.INTEREST), "expense": (Event.EXPENSE,)}
"""What holding a position costs, and the events that pay it; coins borrowed count as funding."""


class Fills(NamedTuple):
    """Fills of one instrument, arrays of shape (n_fills,), and what holding cost between them.

    ``costs`` are those of :data:`backtest.account.money.FILL_COSTS`, by name. ``holding`` are those
    of :data:`HOLDING_COSTS` per contract, from the fill before to each fill.
    """

    bar: IntArray
    kind: IntArray
    turns: Turns
    value: FloatArray
    costs: Mapping[str, FloatArray]
    loss: FloatArray
    holding: Mapping[str, FloatArray]


class TradeRows(NamedTuple):
    """Trades of one instrument, arrays of shape (n_trades,).

    ``entry`` and ``exit`` are rows of its fills; values are averages by contract, ``gain``, costs,
    ``loss`` and ``holding`` costs money of the whole trade.
    """

    entry: IntArray
    exit: IntArray
    side: FloatArray
    quantity: FloatArray
    entry_value: FloatArray
    exit_value: FloatArray
    gain: FloatArray
    costs: Mapping[str, FloatArray]
    loss: FloatArray
    holding: Mapping[str, FloatArray]


def list_trades(fills: Fills, view: TradeView) -> TradeRows:
    """Return the lots of an instrument, first in first out, or their sums by round trip."""
    turns = fills.turns
    lots = match_first_in(turns)
    entry = lots.entry
    last_exit = lots.exit
    money = sum_money_of_lots(fills, lots)

    # A round trip begins where a position is opened from nothing, and ends with its last lot.
    if view == "trip":
        trip_of_fill = np.cumsum(turns.starts) - 1
        trips = trip_of_fill[lots.entry]
        for name, column in money.items():
            money[name] = np.bincount(trips, column).astype(np.float64)
        entry = np.flatnonzero(turns.starts)
        is_last_of_trip = np.diff(trips, append=-1) != 0
        last_exit = lots.exit[is_last_of_trip]

    side = np.sign(turns.after[entry])
    quantity = money["quantity"]
    return TradeRows(
        entry=entry,
        exit=last_exit,
        side=side,
        quantity=quantity,
        entry_value=money["paid"] / quantity,
        exit_value=money["received"] / quantity,
        gain=side * (money["received"] - money["paid"]),
        costs={name: money[name] for name in fills.costs},
        loss=money["loss"],
        holding={name: money[name] for name in fills.holding},
    )


def sum_money_of_lots(fills: Fills, lots: Lots) -> dict[str, FloatArray]:
    """Return the contracts and the money of each lot by name, arrays of shape (n_lots,).

    A lot has the share of its contracts in what each of its two fills cost, and what holding cost
    between them.
    """
    entry = lots.entry
    exit_ = lots.exit
    contracts = lots.contracts
    share_of_entry = contracts / np.abs(fills.turns.quantity[entry])
    share_of_exit = contracts / np.abs(fills.turns.quantity[exit_])
    money = {
        "quantity": contracts,
        "paid": contracts * fills.value[entry],
        "received": contracts * fills.value[exit_],
        "loss": fills.loss[exit_] * share_of_exit,
    }

    for name, per_contract in fills.holding.items():
        paid_so_far = np.cumsum(per_contract)
        money[name] = contracts * (paid_so_far[exit_] - paid_so_far[entry])
    for name, cost in fills.costs.items():
        money[name] = cost[entry] * share_of_entry + cost[exit_] * share_of_exit
    return money


class Holding(NamedTuple):
    """What was held over the bars of a run: an instrument, or an option.

    ``owner`` is its number in the log. Of shape (n_bars,): ``quantity``, the ``value`` u of one
    contract at mark closes, and the ``notional`` without sign, of an option its delta in money.
    ``before`` is the value at the close before the run, NaN if unknown. ``place`` is that of an
    instrument; an option has none.
    """

    name: str
    owner: int
    quantity: FloatArray
    value: FloatArray
    notional: FloatArray
    before: float
    place: int | None


def list_holdings(run: RunRecord) -> list[Holding]:
    """Return the instruments of a run, and its options after them."""
    holdings = []
    for i, (name, venue) in enumerate(zip(run.names, run.list_venues(), strict=True)):
        contract = venue.contract
        holding = Holding(
            name=name,
            owner=i,
            quantity=run.of_positions("quantity")[:, i],
            value=tables.value_of(contract, run.marks[:, i]),
            notional=np.abs(run.notionals[:, i]),
            before=float(tables.value_of(contract, run.before.mark[i])),
            place=i,
        )
        holdings.append(holding)

    if run.options is not None:
        holdings += list_option_holdings(run.options)
    return holdings


def list_option_holdings(options: RunOptions) -> Iterator[Holding]:
    """Yield the options of a run, each with its delta as its notional."""
    delta = np.abs(options.greeks["delta"])
    for k, (owner, name) in enumerate(options.named.items()):
        yield Holding(
            name=name,
            owner=owner,
            quantity=options.record.quantity[:, k],
            value=options.record.value[:, k],
            notional=delta[:, k],
            before=np.nan,
            place=None,
        )


def read_entries(run: RunRecord) -> Entries:
    """Return the entries of the ledger with bars counted from 0."""
    entries = run.entries.copy()
    entries["bar"] -= run.span.first
    return entries


def read_fills(run: RunRecord, entries: Entries, holding: Holding) -> Fills:
    """Return the fills of a holding in their order, and what holding it cost between them.

    So that all trades begin and end with a fill, two are added: one before the first buys or sells
    what the holding began with (``CARRIED``), and one after the last closes what is left at the end
    (``OPEN``). ``entries`` are those of :func:`read_entries`, whose bars count from 0.
    """
    owned = entries[entries["owner"] == holding.owner]
    is_fill = np.isin(owned["kind"], TRADED) & (owned["quantity"] != 0.0)
    traded = owned[is_fill]

    opening: list[Entries] = []
    carried = find_carried(holding, traded)
    if carried != 0.0:
        opening.append(make_entry(0, CARRIED, holding.before, carried))

    closing: list[Entries] = []
    last = run.record.n_bars - 1
    left = float(holding.quantity[last])
    if left != 0.0:
        closing.append(make_entry(last, OPEN, holding.value[last], -left))
    fills = np.concatenate([*opening, traded, *closing])

    # The fee of a liquidation is a loss, and no cost of trading.
    is_liquidation = fills["kind"] == Event.LIQUIDATED
    costs = {}
    for name, column in FILL_COSTS.items():
        costs[name] = np.where(is_liquidation, 0.0, fills[column])
    return Fills(
        bar=fills["bar"],
        kind=fills["kind"],
        turns=split_trades(fills["quantity"]),
        value=fills["value"],
        costs=costs,
        loss=np.where(is_liquidation, fills["fee"], 0.0),
        holding=sum_holding_costs(owned, is_fill, len(opening), n_fills=len(fills)),
    )


def sum_holding_costs(
    owned: Entries,
    is_fill: BoolArray,
    n_opening: int,
    *,
    n_fills: int,
) -> dict[str, FloatArray]:
    """Return what holding one contract cost between fills, an array (n_fills,) for each cost.

    A payment counts at the next fill after it. ``owned`` are the entries of a holding, of which
    ``is_fill`` are fills. These have the places from ``n_opening`` (0 or 1) on: before them stands
    the fill of what was carried, and after them that of what is left, which have no entries.
    """
    # The place of the next fill is the number of fills before it.
    n_fills_before = n_opening + np.cumsum(is_fill)
    costs = {}
    for name, kinds in HOLDING_COSTS.items():
        is_payment = np.isin(owned["kind"], kinds)
        payments = owned[is_payment]
        per_contract = payments["amount"] / np.abs(payments["quantity"])
        sums = np.bincount(n_fills_before[is_payment], per_contract, n_fills)
        costs[name] = sums.astype(np.float64)
    return costs


def find_carried(holding: Holding, fills: Entries) -> float:
    """Return the contracts held before the first bar: those that its fills do not explain."""
    in_first_bar = fills["quantity"][fills["bar"] == 0]
    first_quantity = float(holding.quantity[0])
    carried = float(first_quantity - in_first_bar.sum())
    largest = max(abs(first_quantity), *np.abs(in_first_bar), 0.0)
    if abs(carried) <= CARRIED_ROUNDING * largest:
        return 0.0
    return carried


def make_entry(
    bar: int,
    kind: int,
    value: float,
    quantity: float,
) -> Entries:
    """Return an entry of the log, as an array of one, for what no order filled."""
    entry = np.zeros(1, ENTRY)
    entry["bar"] = bar
    entry["kind"] = kind
    entry["value"] = value
    entry["quantity"] = quantity
    return entry
