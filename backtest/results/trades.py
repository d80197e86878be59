"""Fills, round trips, rolls of options, and limit orders."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backtest import core
from backtest.account.events import (
    ENDINGS,
    ENTRY,
    STOPS,
    TRADED,
    TRADES,
    Entries,
    Event,
)
from backtest.account.money import FILL_COSTS, MONEY_TERMS, SIGNS
from backtest.market import place_on_bars
from backtest.options.option_inputs import SCHEDULED, TOTAL
from backtest.results import tables, trade_measures
from backtest.results.attribution import find_periods
from backtest.results.run_options import GREEKS, measure_equity

if TYPE_CHECKING:
    import numpy.typing as npt

    from backtest.core import BoolArray, FloatArray, IntArray
    from backtest.results.run_data import RunOptions
    from backtest.results.run_record import RunRecord


ORDER_COLUMNS = ("time", "instrument", "side", "price", "quantity", "is_filled", "next_move")


def list_limit_orders(run: RunRecord) -> pd.DataFrame:
    events, marks = run.events, run.marks
    kinds = events["kind"].astype(str).to_numpy()
    placed = np.flatnonzero(kinds == "limit_order")
    if not len(placed):
        return pd.DataFrame(columns=list(ORDER_COLUMNS))
    who = events["instrument"].cat.codes.to_numpy().astype(np.int64)
    bar = np.searchsorted(run.time, pd.DatetimeIndex(events["time"]).as_unit("ns").asi8)
    keys, fills = bar * (len(run.names) + 1) + who, np.flatnonzero(kinds == "fill")
    last = dict(zip(keys[fills].tolist(), fills.tolist(), strict=True))
    rows = zip(keys[placed].tolist(), placed.tolist(), strict=True)
    quantity, bar, who = events["quantity"].to_numpy()[placed], bar[placed], who[placed]
    after = np.minimum(bar + 1, len(marks) - 1)
    against = -np.sign(quantity) * (marks[after, who] / marks[bar, who] - 1.0)
    return pd.DataFrame(
        {
            "time": events["time"].to_numpy()[placed],
            "instrument": events["instrument"].astype(str).to_numpy()[placed],
            "side": np.where(quantity > 0.0, "buy", "sell"),
            "price": events["price"].to_numpy()[placed],
            "quantity": np.abs(quantity),
            "is_filled": np.array([last.get(key, -1) > row for key, row in rows], dtype=np.bool_),
            "next_move": np.where(after > bar, against, np.nan) + 0.0,
        }
    )


def count_limit_orders(orders: pd.DataFrame) -> dict[str, float]:
    """Return counts, and mean moves of the mark against the orders in the bar after theirs.

    A move is from close to close, as a fraction: down for a buy, up for a sale. NaN without any.
    """
    is_filled = orders["is_filled"].to_numpy(dtype=np.bool_)
    moves = orders["next_move"].to_numpy(dtype=np.float64)
    filled, others = (moves[~np.isnan(moves) & rows] for rows in (is_filled, ~is_filled))
    return {
        "placed": len(orders),
        "filled": int(is_filled.sum()),
        "move_against_filled": float(np.mean(filled)) if len(filled) else math.nan,
        "move_against_unfilled": float(np.mean(others)) if len(others) else math.nan,
    }


def describe_limit_orders(orders: pd.DataFrame) -> str:
    placed, filled, *moves = count_limit_orders(orders).values()
    text = (
        f"{core.count_nouns(int(placed), 'order')}, {filled:,} filled and {placed - filled:,} not"
    )
    told = [
        f"{core.format_percent(abs(move), 3)} {'against' if move > 0.0 else 'in favor of'} {whom}"
        for move, whom in zip(moves, ("those filled", "the others"), strict=True)
        if not math.isnan(move)
    ]
    if not told:
        return text
    return f"{text}; in the next bar the mark moved {' and '.join(told)}, on average"


def tabulate_fills(run: RunRecord) -> pd.DataFrame:
    """Return the fills of a run, a row for each change of a position or of the collateral.

    ``time`` is the open for what happens there, one ns before the end of the bar at its close, and
    two before it for stops and liquidations inside. ``step`` is the step of the bar. ``price`` has
    slippage and impact, ``reference`` has not. The ``fee`` of a liquidation is all that it cost.
    """
    own = run.entries[run.entries["kind"] != Event.CAUSED]
    kinds, quantity, venues = own["kind"], own["quantity"], run.list_venues()
    assets = [each.name for each in run.account.collateral]
    labels = tables.label_owners(run.names, assets, run.options.named if run.options else None)
    names = labels[own["owner"]]
    is_debt, is_trade = kinds == Event.BAD_DEBT, np.isin(kinds, TRADES)
    price, unworsened = tables.find_prices(own, venues), own.copy()
    worsened = np.where(is_trade, own["slippage"] + own["impact"], 0.0)
    unworsened["value"] -= worsened / np.where(quantity != 0.0, quantity, 1.0)
    reference = np.where(worsened != 0.0, tables.find_prices(unworsened, venues), price)
    for asset in run.account.collateral:
        rows = (kinds == Event.CONVERTED) & (names == asset.name)
        reference[rows] /= 1.0 - asset.slippage if asset.slippage < 1.0 else 1.0
    fee = np.where(is_trade | (kinds == Event.LIQUIDATED), own["fee"], 0.0)
    stamps = place_entries(run, own, names)
    table = pd.DataFrame(
        {
            "time": core.utc_index(stamps),
            "instrument": names,
            "quantity": np.where(is_debt, 0.0, quantity),
            "price": price,
            "reference": reference,
            "fee": np.where(is_debt, -own["amount"], fee),
            "fee_currency": run.manifest["data"].get("currency") or "",
            "kind": [name_fill(run, *each) for each in zip(kinds.tolist(), names, strict=True)],
            "step": own["step"],
        }
    )
    is_fill = is_debt | (np.isin(kinds, (*TRADED, Event.CONVERTED)) & (quantity != 0.0))
    found: pd.DataFrame = table[is_fill].reset_index(drop=True)
    return found


def place_entries(run: RunRecord, entries: Entries, names: npt.NDArray[np.object_]) -> IntArray:
    """Return the times of entries, ns: as :func:`tabulate_fills` says, inside at a settlement."""
    settled, opens, interval = find_settlements(run), run.time.tolist(), run.interval
    expiries: dict[str, int] = {}
    if run.options is not None:
        stamps = run.options.terms.expiries.tolist()
        expiries = dict(zip(run.options.names, stamps, strict=True))
    paid: dict[tuple[str, int, int], int] = defaultdict(int)
    found, last, stamp = [], -1, 0
    rows = entries[["bar", "kind", "step"]].tolist()
    for (bar, kind, step), name in zip(rows, names, strict=True):
        opened = opens[bar - run.span.first]
        stamp = stamp if bar == last else opened
        last = bar
        if kind == Event.FUNDING:
            known = [
                at for at, is_open in settled.get((name, opened), []) if is_open == (step == 2)
            ]
            k = paid[name, bar, step]
            paid[name, bar, step] = k + 1
            stamp = known[k] if k < len(known) else opened
        elif kind == Event.EXPIRED:
            stamp = expiries.get(name, opened)
        inside = max(stamp, opened) if step == 6 else opened + interval - (2 if step == 7 else 1)
        found.append(opened if step < 6 else inside)
    return np.array(found, dtype=np.int64)


Settlements: TypeAlias = dict[tuple[str, int], list[tuple[int, bool]]]
"""By instrument and open of the bar: stamps of settlements (ns), and whether at the open."""


def find_settlements(run: RunRecord) -> Settlements:
    found: Settlements = defaultdict(list)
    for name, market in (run.markets or {}).items():
        jitter, stamps = core.parse_duration(run.venues[name].funding_jitter), market.funding_time
        bars, is_open = place_on_bars(stamps, market.time, market.interval, jitter)
        for k in np.flatnonzero((bars >= 0) & (bars < market.n_bars)).tolist():
            found[name, int(market.time[bars[k]])].append((int(stamps[k]), bool(is_open[k])))
    return found


def name_fill(run: RunRecord, kind: int, name: str) -> str:
    venue = run.venues.get(name)
    if kind == Event.LIQUIDATED:
        modes = {each.liquidation.mode for each in ([venue] if venue else run.list_venues())}
        return "takeover" if modes == {"takeover"} else "liquidation"
    if kind == Event.DELISTED:
        return "expiry" if venue is not None and venue.contract.expires is not None else "delisting"
    return "stop" if kind in STOPS else ENDINGS.get(Event(kind)) or Event(kind).kind.name


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
            name=name,
            owner=i,
            quantity=run.of_positions("quantity")[:, i],
            value=tables.value_of(venue, run.marks[:, i]),
            notional=np.abs(run.notionals[:, i]),
            before=float(tables.value_of(venue, run.before.mark[i : i + 1])[0]),
            place=i,
        )
        for i, (name, venue) in enumerate(zip(run.names, run.list_venues(), strict=True))
    ]
    return found if run.options is None else [*found, *hold_options(run.options)]


def hold_options(options: RunOptions) -> Iterator[Holding]:
    own, delta = options.record, np.abs(options.greeks["delta"])
    for k, (owner, name) in enumerate(options.named.items()):
        numbers = (own.quantity[:, k], own.value[:, k], delta[:, k], math.nan)
        yield Holding(name, owner, *numbers, place=None)


class InstrumentFills(NamedTuple):
    """Fills of one instrument with the bar and the kind of each, arrays of shape (n_fills,)."""

    bar: IntArray
    kind: IntArray
    fills: trade_measures.Fills


def read_entries(run: RunRecord) -> Entries:
    """Return the entries of the ledger with bars counted from 0."""
    entries = run.entries.copy()
    entries["bar"] -= run.span.first
    return entries


def read_fills(run: RunRecord, entries: Entries, held: Holding) -> InstrumentFills:
    own = entries[entries["owner"] == held.owner]
    is_fill = np.isin(own["kind"], TRADED) & (own["quantity"] != 0.0)
    is_paid = np.isin(own["kind"], (Event.FUNDING, Event.INTEREST))
    rows, paid = np.flatnonzero(is_fill), np.flatnonzero(is_paid)
    fills, payments = own[rows], own[paid]
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
    place = np.searchsorted(rows, paid) + (carried != 0.0)
    n, rate = len(taken), payments["amount"] / np.abs(payments["quantity"])
    is_loss = taken["kind"] == Event.LIQUIDATED
    found = trade_measures.Fills(
        turns=trade_measures.split_trades(taken["quantity"]),
        value=taken["value"],
        costs={name: np.where(is_loss, 0.0, taken[column]) for name, column in FILL_COSTS.items()},
        loss=np.where(is_loss, taken["fee"], 0.0),
        funding=np.bincount(place, payments["amount"], n).astype(np.float64),
        rate=np.bincount(place, rate, n).astype(np.float64),
    )
    return InstrumentFills(taken["bar"], taken["kind"], found)


def make_entry(bar: int, kind: int, value: float, quantity: float) -> Entries:
    entry = np.zeros(1, ENTRY)
    entry["bar"], entry["kind"], entry["value"], entry["quantity"] = bar, kind, value, quantity
    return entry


Group: TypeAlias = Literal["day", "week", "month", "quarter", "year", "instrument", "side", "ended"]
ENDED: dict[int, str] = {int(kind): word for kind, word in ENDINGS.items()} | {OPEN: "open"}
UNALLOCATED = tuple(x.name for x in MONEY_TERMS if not x.in_trades and x.name != "flows")


class Trades(pd.DataFrame):
    _metadata = ["_run", "view"]  # noqa: RUF012 - the name that pandas reads
    _run: RunRecord
    view: trade_measures.TradeView

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    @property
    def unallocated(self) -> pd.Series:
        account, positions = self._run.record.account, self._run.record.positions
        found = {name: SIGNS[name] * float(getattr(account, name).sum()) for name in UNALLOCATED}
        entries = self._run.entries
        of_coins = (entries["kind"] == Event.INTEREST) & (entries["owner"] >= 0)
        found["interest"] += float(entries["amount"][of_coins].sum())
        lost = account.liquidation_loss.sum() - positions.liquidation_loss.sum()
        if self._run.options is not None:
            lost -= self._run.options.record.liquidation_loss.sum()
        is_dust = abs(lost) <= 1e-9 * np.abs(account.liquidation_loss).sum()
        found["liquidation_loss"] = 0.0 if is_dust else -float(lost)
        return pd.Series(found, name="amount").rename_axis("term") + 0.0

    @property
    def measures(self) -> pd.Series:
        return pd.Series(self._measure(np.ones(len(self), dtype=bool)), name=self.view)

    @core.checked
    def lots(self, by: trade_measures.TradeView = "fifo") -> Trades:
        return list_run_trades(self._run, by)

    @core.checked
    def measures_by(self, by: Group) -> pd.DataFrame:
        group: Any = self[by].astype(object) if by in self else None
        if group is None:
            times = pd.DatetimeIndex(self["exit_time"]).as_unit("ns").asi8
            group = find_periods(times, by)  # type: ignore[arg-type] # a period, as no column is
        rows = {each: self._measure(np.asarray(group == each)) for each in sorted(set(group))}
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(by)
        return table.drop(columns="time_in_market", errors="ignore")

    def _measure(self, rows: BoolArray) -> dict[str, float]:
        chosen = pd.DataFrame(self)[rows].sort_values("exit_time", kind="stable")
        is_open = (chosen["ended"] == "open").to_numpy()
        closed = chosen[~is_open]
        days = (closed["exit_time"] - closed["entry_time"]).dt.total_seconds() / 86_400.0
        held = self._run.of_positions("quantity").any(axis=1)
        if self._run.options is not None:
            held = held | self._run.options.record.quantity.any(axis=1)
        return {
            **trade_measures.measure_trades(
                np.asarray(closed["profit"], dtype=np.float64), np.asarray(days, dtype=np.float64)
            ),
            "open": float(is_open.sum()),
            "time_in_market": float(held.mean()),
        }


def find_price(run: RunRecord, held: Holding, value: FloatArray) -> FloatArray:
    return value if held.place is None else tables.price_of(run.list_venues()[held.place], value)


def list_run_trades(run: RunRecord, view: trade_measures.TradeView) -> Trades:
    """Return the trades of a run.

    Columns: ``instrument``, ``side``, ``quantity`` (contracts opened), ``entry_time``,
    ``exit_time`` (opens of the bars, as in the events; of an open trade that of the last bar),
    ``entry_price``, ``exit_price`` (filled, averages by quantity; of an open trade the last mark),
    ``bars`` at whose close it was open; ``peak_leverage`` of the position at these closes;
    ``price_pnl`` before costs, ``fees``, ``slippage``, ``impact``, ``liquidation_loss``,
    ``funding`` paid while held (with what a contract costs a year, and what a short spot leg pays
    for coins), and ``profit`` after them, in the settlement currency; ``return`` = profit / entry
    notional;
    ``mae_mark``, ``mfe_mark``, ``mae_last`` and ``mfe_last``, the furthest moves of the price
    against and for it, as returns on the entry price; ``opened`` (``order``, or ``earlier run``:
    held when the run went on, from the mark of that close) and ``ended``.
    """
    entries = read_entries(run)
    holdings = list_holdings(run)
    parts = [tabulate_trades(run, each, read_fills(run, entries, each), view) for each in holdings]
    table = pd.concat(parts, ignore_index=True)
    names = [each.name for each in holdings]
    for name, known in (("instrument", names), ("side", ("long", "short"))):
        table[name] = pd.Categorical(table[name], categories=list(known))
    table = table.sort_values(["entry_time", "exit_time"], kind="stable", ignore_index=True)
    trades = Trades(table)
    trades._run, trades.view = run, view
    return trades


def tabulate_trades(
    run: RunRecord, held: Holding, read: InstrumentFills, view: trade_measures.TradeView
) -> pd.DataFrame:
    fills, equity = read.fills, run.of_account("equity")
    rows = trade_measures.list_trades(fills, view)
    costs = sum(rows.costs.values()) + rows.loss + rows.funding
    price_pnl = rows.gain + rows.costs["slippage"] + rows.costs["impact"]
    profit, entry = price_pnl - costs, find_price(run, held, rows.entry_value)
    first, last, kind = read.bar[rows.entry], read.bar[rows.exit], read.kind[rows.exit]
    stop = last + (kind == OPEN)
    ended = np.array([ENDED[each] for each in kind.tolist()], dtype=object)
    expires = None if held.place is None else run.venues[held.name].contract.expires
    if expires is not None:
        is_over = run.span.closes[last] + run.interval >= core.to_nanoseconds(expires)
        ended[(kind == Event.DELISTED) & is_over] = "expiry"
    before = np.concatenate(([run.account.capital], equity[:-1]))[first]
    size = np.abs(fills.turns.after[rows.entry] * fills.value[rows.entry])
    with np.errstate(divide="ignore", invalid="ignore"):
        on_size = profit / (rows.quantity * np.abs(rows.entry_value))
        turns = np.where(equity > 0.0, held.notional / equity, 0.0)
        at_fill = np.where(before > 0.0, size / before, 0.0)
    peaks = trade_measures.reduce_spans(turns, first, stop, np.fmax)
    return pd.DataFrame(
        {
            "instrument": held.name,
            "side": np.where(rows.side > 0.0, "long", "short"),
            "quantity": rows.quantity,
            "entry_time": core.utc_index(run.time[first]),
            "exit_time": core.utc_index(run.time[last]),
            "entry_price": entry,
            "exit_price": find_price(run, held, rows.exit_value),
            "bars": stop - first,
            "peak_leverage": np.where(np.isnan(peaks), at_fill, peaks),
            "price_pnl": price_pnl,
            **rows.costs,
            "liquidation_loss": rows.loss,
            "funding": rows.funding,
            "profit": profit,
            "return": on_size,
            **measure_excursions(run, held, read, rows, entry),
            "opened": np.where(read.kind[rows.entry] == CARRIED, "earlier run", "order"),
            "ended": ended,
        }
    )


def measure_excursions(
    run: RunRecord,
    held: Holding,
    read: InstrumentFills,
    rows: trade_measures.TradeRows,
    entry: FloatArray,
) -> dict[str, FloatArray]:
    """Return the furthest moves of the price over the whole bars of each trade, and at its end."""
    at_close = np.isin(read.kind, (Event.RUINED, Event.DELISTED, OPEN))
    late = (read.kind == Event.FILL) & (run.account.fill == "next_close")
    first = read.bar[rows.entry] + late[rows.entry]
    stop = np.maximum(first, read.bar[rows.exit] + (at_close | late)[rows.exit])
    end, is_long = find_price(run, held, read.fills.value[rows.exit]), rows.side > 0.0
    unknown, found = np.full(run.record.n_bars, np.nan), {}
    for name, lead in (("mark", "mark_"), ("last", "")):
        low = high = held.value if lead else unknown
        if held.place is not None:
            low, high = (
                np.broadcast_to(each[:, held.place], unknown.shape) if len(each) else unknown
                for each in (getattr(run.quotes, f"{lead}{side}") for side in ("low", "high"))
            )
        least = np.fmin(trade_measures.reduce_spans(low, first, stop, np.fmin), end)
        most = np.fmax(trade_measures.reduce_spans(high, first, stop, np.fmax), end)
        down, up = np.minimum(least / entry - 1.0, 0.0), np.maximum(most / entry - 1.0, 0.0)
        if np.isnan(low).all():
            down, up = np.full((2, len(end)), np.nan)
        found[f"mae_{name}"] = np.where(is_long, down, -up)
        found[f"mfe_{name}"] = np.where(is_long, up, -down) + 0.0
    return found


RollSplit: TypeAlias = Literal["roll", "leg"]
COSTS = ("premium", "proceeds", "fees", "spread", "cost")
ROLL_COLUMNS = ("leg", "contract", "side", "opened", "closed", "ended", "quantity", *COSTS)


def tabulate_rolls(run: RunRecord, options: RunOptions | None, by: RollSplit) -> pd.DataFrame:
    """Return what options cost.

    By ``"roll"`` a row for each contract from its first fill to its last, in the settlement
    currency; by ``"leg"`` a row for each leg and their ``total``, with the number of ``rolls``, as
    fractions of the mean equity per year.
    """
    parts = [] if options is None else list_rolls(run, options)
    nothing = pd.DataFrame(columns=ROLL_COLUMNS).astype(dict.fromkeys(COSTS, np.float64))
    table = pd.concat(parts) if parts else nothing
    table = table.sort_values(["opened", "contract"], kind="stable", ignore_index=True)
    if by == "roll":
        return table
    legs = table.groupby("leg", sort=False)
    sums, counts = legs[list(COSTS)].sum(), legs[list(COSTS)].count()
    shares = sums.where(counts.eq(legs.size(), axis=0)) / measure_equity(run)
    shares.insert(0, "rolls", legs["contract"].count())
    shares.loc[TOTAL] = shares.sum(skipna=False)
    return shares.astype({"rolls": np.int64})


def list_rolls(run: RunRecord, options: RunOptions) -> list[pd.DataFrame]:
    entries, parts = read_entries(run), []
    pairs = zip(hold_options(options), options.legs, options.terms.names, strict=True)
    for held, leg, contract in pairs:
        read = read_fills(run, entries, held)
        rows = trade_measures.list_trades(read.fills, "trip")
        premium = rows.side * rows.quantity * rows.entry_value
        proceeds = rows.side * rows.quantity * rows.exit_value
        fees = rows.costs["fees"] + rows.loss
        own = {
            "leg": leg or SCHEDULED,
            "contract": contract,
            "side": np.where(rows.side > 0.0, "long", "short"),
            "opened": core.utc_index(run.time[read.bar[rows.entry]]),
            "closed": core.utc_index(run.time[read.bar[rows.exit]]),
            "ended": [ENDED[kind] for kind in read.kind[rows.exit].tolist()],
            "quantity": rows.quantity,
            "premium": premium,
            "proceeds": proceeds,
            "fees": fees,
            "spread": rows.costs["slippage"],
            "cost": premium - proceeds + fees,
        }
        parts.append(pd.DataFrame(own))
    return parts


def collect_options(run: RunRecord) -> dict[str, Any]:
    if run.options is None:
        return {}
    last = run.greeks.iloc[-1]
    return {
        "options": {
            "explained": run.explained().to_dict("index"),
            "rolls": core.list_records(tabulate_rolls(run, run.options, "roll")),
            "costs": tabulate_rolls(run, run.options, "leg").to_dict("index"),
            "hedging_error": run.hedging_error().to_dict("index"),
            "greeks": {name: float(last[name]) for name in (*GREEKS, "net_delta")},
            "contracts": [each.to_dict() for each in run.options.contracts],
        }
    }
