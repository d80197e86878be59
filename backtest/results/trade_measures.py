"""Trades of an account in one instrument: round trips, or lots, with their costs and measures.

Values are u, those of one contract in the settlement currency. All trades end: what is open at the
end is closed by a last row of the fills, at the last mark and without costs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from backtest import core
from backtest.account.events import ENDINGS, ENTRY, TRADED, Entries, Event
from backtest.account.money import FILL_COSTS, IN_PRICE
from backtest.core import BoolArray, FloatArray, IntArray
from backtest.core.units import DAY
from backtest.results import tables
from backtest.results.performance import divide

if TYPE_CHECKING:
    from backtest.results.run_data import RunOptions
    from backtest.results.run_record import RunRecord

FLAT = 1e-10
"""The largest rest of a trade, as a fraction of it, that is rounding: the position is closed."""


class Turns(NamedTuple):
    """Trades split into what they close and what they open, arrays of shape (n_trades,)."""

    quantity: FloatArray
    before: FloatArray
    after: FloatArray
    closed: FloatArray
    opened: FloatArray

    @property
    def starts(self) -> BoolArray:
        return np.asarray((self.opened > 0.0) & ((self.before == 0.0) | (self.closed > 0.0)))


def split_trades(quantity: FloatArray) -> Turns:
    after, held = np.empty(len(quantity)), 0.0
    for k, traded in enumerate(quantity.tolist()):
        total = held + traded
        held = 0.0 if abs(total) <= FLAT * max(abs(traded), abs(held)) else total
        after[k] = held
    before = np.concatenate(([0.0], after))[:-1]
    is_kept = before * after > 0.0
    change = np.abs(after) - np.abs(before)
    closed = np.where(is_kept, np.maximum(-change, 0.0), np.abs(before))
    opened = np.where(is_kept, np.maximum(change, 0.0), np.abs(after))
    return Turns(quantity, before, after, closed, opened)


def match_first_in(turns: Turns) -> tuple[IntArray, IntArray, FloatArray]:
    """Return the rows that opened and closed each lot, and its contracts, of shape (n_lots,)."""
    lots = deque[tuple[int, float]]()
    found: list[tuple[int, int, float]] = []
    is_whole = (turns.after == 0.0) | (turns.opened > 0.0)
    rows = zip(turns.closed.tolist(), turns.opened.tolist(), is_whole.tolist(), strict=True)
    for k, (closed, opened, closes_all) in enumerate(rows):
        rest = closed
        while lots and rest > 0.0:
            lot, left = lots.popleft()
            taken = left if closes_all or left <= rest * (1.0 + FLAT) else rest
            found.append((lot, k, taken))
            rest -= taken
            if taken < left:
                lots.appendleft((lot, left - taken))
        if opened > 0.0:
            lots.append((k, opened))
    columns = np.array(found, dtype=np.float64).reshape(-1, 3).T
    return columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2]


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
    entry, exit_, contracts = match_first_in(turns)
    part_in = contracts / np.abs(turns.quantity[entry])
    part_out = contracts / np.abs(turns.quantity[exit_])
    trips = (np.cumsum(turns.starts) - 1)[entry]
    lots: dict[str, Any] = {
        "quantity": contracts,
        "paid": contracts * fills.value[entry],
        "received": contracts * fills.value[exit_],
        "loss": fills.loss[exit_] * part_out,
    }
    for name, rates in fills.holding.items():
        total = np.cumsum(rates)
        lots[name] = contracts * (total[exit_] - total[entry])
    for name, cost in fills.costs.items():
        lots[name] = cost[entry] * part_in + cost[exit_] * part_out
    if view == "trip":
        lots = {name: np.bincount(trips, each) for name, each in lots.items()}
        entry = np.flatnonzero(turns.starts)
        exit_ = exit_[np.flatnonzero(np.diff(trips, append=-1))]
    side, quantity = np.sign(turns.after[entry]), lots["quantity"]
    return TradeRows(
        entry=entry,
        exit=exit_,
        side=side,
        quantity=quantity,
        entry_value=lots["paid"] / quantity,
        exit_value=lots["received"] / quantity,
        gain=side * (lots["received"] - lots["paid"]),
        costs={name: lots[name] for name in fills.costs},
        loss=lots["loss"],
        holding={name: lots[name] for name in fills.holding},
    )


def measure_closed(
    run: RunRecord,
    profit: FloatArray,
    entry_time: IntArray,
    exit_time: IntArray,
    is_open: BoolArray,
) -> dict[str, float]:
    """Return the measures of trades, arrays of shape (n_trades,) in the order of their entries.

    ``profit`` is after costs, in the settlement currency; times are in ns. Open trades are counted
    apart. The part of closes at which the run held anything is among the measures.
    """
    order = np.argsort(exit_time, kind="stable")
    order = order[~is_open[order]]
    profit, days = profit[order], (exit_time[order] - entry_time[order]) / DAY
    wins, losses, n = profit[profit > 0.0], profit[profit < 0.0], len(profit)
    lost, ends = -float(losses.sum()), np.flatnonzero(~(profit < 0.0))
    held = run.of_positions("quantity").any(axis=1)
    if run.options is not None:
        held = held | run.options.record.quantity.any(axis=1)
    return {
        "trades": float(n),
        "win_rate": len(wins) / n if n else math.nan,
        "profit_factor": float(wins.sum()) / lost if lost > 0.0 else math.nan,
        "expectancy": average(profit),
        "mean_win": average(wins),
        "mean_loss": average(losses),
        "best": float(profit.max()) if n else math.nan,
        "worst": float(profit.min()) if n else math.nan,
        "longest_losing_run": float(np.diff(ends, prepend=-1, append=n).max() - 1),
        "mean_days": average(days),
        "open": float(is_open.sum()),
        "time_in_market": float(held.mean()),
    }


def measure_round_trips(run: RunRecord) -> dict[str, float]:
    trades = collect_trades(run, "trip")
    times = trades["entry_time"], trades["exit_time"]
    return measure_closed(run, trades["profit"], *times, trades["ended"] == "open")


def collect_trades(run: RunRecord, view: TradeView) -> dict[str, Any]:
    """Return the columns of all trades, in the order of their entries; times are UTC ns."""
    entries = read_entries(run)
    parts = [compute_trades(run, x, read_fills(run, entries, x), view) for x in list_holdings(run)]
    table = {name: np.concatenate([x[name] for x in parts]) for name in parts[0]}
    order = np.lexsort((table["exit_time"], table["entry_time"]))
    return {name: values[order] for name, values in table.items()}


def average(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else math.nan


def reduce_spans(
    values: FloatArray, first: IntArray, stop: IntArray, reduce: np.ufunc
) -> FloatArray:
    ends = np.column_stack((first, np.maximum(stop, first))).ravel()
    found: FloatArray = reduce.reduceat(np.append(values, np.nan), ends)[::2]
    return np.where(stop > first, found, np.nan)


CARRIED, OPEN = -1, -2
"""Kinds of the fills before the first, of what an earlier run held, and after the last."""


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
    found = [
        Holding(
            name, i, run.of_positions("quantity")[:, i],
            tables.value_of(venue.contract, run.marks[:, i]), np.abs(run.notionals[:, i]),
            float(tables.value_of(venue.contract, run.before.mark[i])), place=i,
        )
        for i, (name, venue) in enumerate(zip(run.names, run.list_venues(), strict=True))
    ]  # fmt: skip
    return found if run.options is None else [*found, *hold_options(run.options)]


def hold_options(options: RunOptions) -> Iterator[Holding]:
    own, delta = options.record, np.abs(options.greeks["delta"])
    for k, (owner, name) in enumerate(options.named.items()):
        numbers = (own.quantity[:, k], own.value[:, k], delta[:, k], math.nan)
        yield Holding(name, owner, *numbers, place=None)


def read_entries(run: RunRecord) -> Entries:
    """Return the entries of the ledger with bars counted from 0."""
    entries = run.entries.copy()
    entries["bar"] -= run.span.first
    return entries


def read_fills(run: RunRecord, entries: Entries, held: Holding) -> Fills:
    own = entries[entries["owner"] == held.owner]
    is_fill = np.isin(own["kind"], TRADED) & (own["quantity"] != 0.0)
    rows = np.flatnonzero(is_fill)
    fills = own[rows]
    quantity, last = held.quantity, run.record.n_bars - 1
    in_first = fills["quantity"][fills["bar"] == 0]
    carried = float(quantity[0] - in_first.sum())
    if abs(carried) <= 1e-9 * max(abs(float(quantity[0])), *np.abs(in_first), 0.0):
        carried = 0.0
    parts = [fills]
    if carried != 0.0:
        parts.insert(0, make_entry(0, CARRIED, held.before, carried))
    if quantity[last] != 0.0:
        parts.append(make_entry(last, OPEN, held.value[last], -float(quantity[last])))
    taken = np.concatenate(parts)

    # What was paid per contract held, at the next fill of each payment.
    holding = {}
    for name, kinds in HOLDING_COSTS.items():
        paid = np.flatnonzero(np.isin(own["kind"], kinds))
        place = np.searchsorted(rows, paid) + (carried != 0.0)
        rates = own["amount"][paid] / np.abs(own["quantity"][paid])
        holding[name] = np.bincount(place, rates, len(taken)).astype(np.float64)

    is_loss = taken["kind"] == Event.LIQUIDATED
    return Fills(
        bar=taken["bar"],
        kind=taken["kind"],
        turns=split_trades(taken["quantity"]),
        value=taken["value"],
        costs={name: np.where(is_loss, 0.0, taken[column]) for name, column in FILL_COSTS.items()},
        loss=np.where(is_loss, taken["fee"], 0.0),
        holding=holding,
    )


def count_days(run: RunRecord, read: Fills, place: int) -> IntArray:
    """Return what an instrument realized and carried on each UTC day, of shape (6, n_days).

    Counts of positions closed with a gain and with a loss, of reductions, liquidations and
    expiries; last 1 for a gain and -1 for a loss of a position that was held from the day before
    and not sold, 0 for neither.
    """
    day = run.time // DAY - run.time[0] // DAY
    n, turns = int(day[-1]) + 1, read.turns
    kind, at, entry, held = read.kind, day[read.bar], np.full(len(read.value), np.nan), math.nan
    rows = zip(turns.after, turns.opened, turns.starts, read.value, strict=True)
    for k, (after, opened, starts, value) in enumerate(rows):  # average entry after each fill
        if starts:
            held = value
        elif opened > 0.0:
            held += (value - held) * opened / abs(after)
        entry[k] = held if after != 0.0 else math.nan
    before = np.concatenate([[np.nan], entry[:-1]])
    gain = np.sign(turns.before) * (read.value - before)
    is_whole = (turns.closed > 0.0) & ((turns.after == 0.0) | (turns.opened > 0.0))
    is_forced = np.isin(kind, (Event.LIQUIDATED, Event.RUINED))
    is_over = np.isin(kind, (Event.DELISTED, Event.EXPIRED))
    is_sold = (turns.closed > 0.0) & ~is_forced & ~is_over & (kind != OPEN)
    is_closed = is_whole & is_sold
    counted = (is_closed & (gain > 0.0), is_closed & (gain < 0.0), is_sold & ~is_whole)
    counts = [np.bincount(at[rows], minlength=n) for rows in (*counted, is_forced, is_over)]
    contract, starts = run.list_venues()[place].contract, np.searchsorted(day, np.arange(n))
    low, high = (
        reduce.reduceat(
            tables.value_of(contract, prices[:, place]), np.minimum(starts, len(day) - 1)
        )
        for reduce, prices in ((np.fmin, run.quotes.low), (np.fmax, run.quotes.high))
    )
    newest = np.searchsorted(at, np.arange(n)) - 1  # the last fill of a day before
    own = np.where(newest >= 0, entry[newest], np.nan)
    side = np.where(newest >= 0, np.sign(turns.after[newest]), 0.0)
    is_up = np.where(side > 0.0, low > own, high < own)
    is_down = np.where(side > 0.0, high < own, low > own)
    has_bars = np.bincount(day, minlength=n) > 0
    is_open = has_bars & (side != 0.0) & (sum(counts) == 0)
    return np.stack([*counts, np.where(is_open, is_up.astype(np.int64) - is_down, 0)])


def measure_realization(run: RunRecord) -> dict[str, float]:
    entries, found = read_entries(run), dict.fromkeys(REALIZED, 0.0)
    held = [(each, read_fills(run, entries, each)) for each in list_holdings(run)]
    rows = [count_days(run, read, each.place) for each, read in held
            if each.place is not None and len(read.bar)]  # fmt: skip
    if rows:
        gains, losses, *apart, paper = np.stack(rows, axis=1)
        is_counted = np.any(gains + losses > 0, axis=0) if len(run.names) > 1 else True
        counts = (gains.sum(), np.sum((paper > 0) & is_counted), losses.sum(),
                  np.sum((paper < 0) & is_counted), *(each.sum() for each in apart))  # fmt: skip
        found = dict(zip(REALIZED, map(float, counts), strict=True))
    variance = 0.0
    for share, kind in (("pgr", "gains"), ("plr", "losses")):  # realized over all
        n = found[f"realized_{kind}"] + found[f"paper_{kind}"]
        p = found[share] = found[f"realized_{kind}"] / n if n else math.nan
        variance += p * (1.0 - p) / n if n else math.nan
    difference = found["pgr"] - found["plr"]
    return found | {"difference": difference, "standard_error": math.sqrt(variance)}


REALIZED = (
    "realized_gains", "paper_gains", "realized_losses", "paper_losses", "reductions",
    "liquidations", "expiries",
)  # fmt: skip


def make_entry(bar: int, kind: int, value: float, quantity: float) -> Entries:
    entry = np.zeros(1, ENTRY)
    entry["bar"], entry["kind"], entry["value"], entry["quantity"] = bar, kind, value, quantity
    return entry


ENDED: dict[int, str] = {int(kind): word for kind, word in ENDINGS.items()} | {OPEN: "open"}


def find_price(run: RunRecord, held: Holding, value: FloatArray) -> FloatArray:
    if held.place is None:
        return value
    return tables.price_of(run.list_venues()[held.place].contract, value)


def compute_trades(run: RunRecord, held: Holding, read: Fills, view: TradeView) -> dict[str, Any]:
    """Return the columns of the trades in one instrument or option; times are UTC ns."""
    equity, rows = run.of_account("equity"), list_trades(read, view)
    costs = sum(rows.costs.values()) + rows.loss + sum(rows.holding.values())
    price_pnl = sum((rows.costs[name] for name in IN_PRICE), rows.gain)
    profit, entry = price_pnl - costs, find_price(run, held, rows.entry_value)
    first, last, kind = read.bar[rows.entry], read.bar[rows.exit], read.kind[rows.exit]
    stop = last + (kind == OPEN)
    ended = np.array([ENDED[each] for each in kind.tolist()], dtype=object)
    expires = None if held.place is None else run.venues[held.name].contract.expires
    if expires is not None:
        is_over = run.span.closes[last] + run.interval >= core.to_nanoseconds(expires)
        ended[(kind == Event.DELISTED) & is_over] = "expiry"
    before = np.concatenate(([run.account.capital], equity[:-1]))[first]
    size = np.abs(read.turns.after[rows.entry] * read.value[rows.entry])
    with np.errstate(divide="ignore", invalid="ignore"):
        on_size = profit / (rows.quantity * np.abs(rows.entry_value))
    at_fill, turns = divide(size, before), divide(held.notional, equity)
    peaks = reduce_spans(turns, first, stop, np.fmax)
    return {
        "instrument": np.full(len(first), held.name, dtype=object),
        "side": np.where(rows.side > 0.0, "long", "short"),
        "quantity": rows.quantity,
        "entry_time": run.time[first],
        "exit_time": run.time[last],
        "entry_price": entry,
        "exit_price": find_price(run, held, rows.exit_value),
        "bars": stop - first,
        "peak_leverage": np.where(np.isnan(peaks), at_fill, peaks),
        "price_pnl": price_pnl,
        **rows.costs,
        "liquidation_loss": rows.loss,
        **rows.holding,
        "profit": profit,
        "return": on_size,
        **measure_excursions(run, held, read, rows, entry),
        "opened": np.where(read.kind[rows.entry] == CARRIED, "earlier run", "order"),
        "ended": ended,
    }


def measure_excursions(
    run: RunRecord, held: Holding, read: Fills, rows: TradeRows, entry: FloatArray
) -> dict[str, FloatArray]:
    """Return the furthest moves of the price over the whole bars of each trade, and at its end."""
    at_close = np.isin(read.kind, (Event.RUINED, Event.DELISTED, OPEN))
    late = (read.kind == Event.FILL) & (run.account.fill == "next_close")
    first = read.bar[rows.entry] + late[rows.entry]
    stop = np.maximum(first, read.bar[rows.exit] + (at_close | late)[rows.exit])
    end, is_long = find_price(run, held, read.value[rows.exit]), rows.side > 0.0
    unknown, found = np.full(run.record.n_bars, np.nan), {}
    for name, lead in (("mark", "mark_"), ("last", "")):
        low = high = held.value if lead else unknown
        if held.place is not None:
            low, high = (
                np.broadcast_to(each[:, held.place], unknown.shape) if len(each) else unknown
                for each in (getattr(run.quotes, f"{lead}{side}") for side in ("low", "high"))
            )
        least = np.fmin(reduce_spans(low, first, stop, np.fmin), end)
        most = np.fmax(reduce_spans(high, first, stop, np.fmax), end)
        down, up = np.minimum(least / entry - 1.0, 0.0), np.maximum(most / entry - 1.0, 0.0)
        if np.isnan(low).all():
            down, up = np.full((2, len(end)), np.nan)
        found[f"mae_{name}"] = np.where(is_long, down, -up)
        found[f"mfe_{name}"] = np.where(is_long, up, -down) + 0.0
    return found


RollSplit: TypeAlias = Literal["roll", "leg"]
ROLL_COSTS = ("premium", "proceeds", "fees", "spread", "cost")
