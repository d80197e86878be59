"""``Result.trades``: a row per round trip or lot, their measures, and the money of no trade."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from backtest.account import ledger
from backtest.account.portfolio_ledger import DELISTED, EXPIRED
from backtest.account.terms import MONEY_TERMS, SIGNS
from backtest.base import Choice, checked, to_nanoseconds, utc_index
from backtest.engine.result_tables import (
    KINDS,
    OWNER,
    price_of,
)
from backtest.engine.trade_fills import (
    CARRIED,
    OPEN,
    Holding,
    InstrumentFills,
    list_holdings,
    read_entries,
    read_fills,
)
from backtest.measures import (
    TradeRows,
    TradeView,
    list_trades,
    measure_trades,
    reduce_spans,
)
from backtest.measures.attribution import CALENDAR_PERIODS
from backtest.measures.trades import VIEWS

if TYPE_CHECKING:
    from backtest.base import BoolArray, FloatArray, IntArray
    from backtest.engine.run_record import RunRecord
    from backtest.engine.trade_fills import InstrumentFills
    from backtest.measures import TradeRows


Group: TypeAlias = Literal["day", "week", "month", "quarter", "year", "instrument", "side", "ended"]
GROUPS = Choice(*CALENDAR_PERIODS, "instrument", "side", "ended")
ENDINGS = {kind: name for kind, name in KINDS.items() if kind in ledger.STOP_KINDS} | {
    ledger.FILL: "order", ledger.LIQUIDATED: "liquidation", ledger.RUINED: "ruin",
    DELISTED: "delisting", EXPIRED: "expiry", OPEN: "open",
}  # fmt: skip
UNALLOCATED = tuple(x.name for x in MONEY_TERMS if not x.in_trades and x.name != "flows")


class Trades(pd.DataFrame):
    _metadata = ["_run", "view"]  # noqa: RUF012 - the name that pandas reads
    _run: RunRecord
    view: TradeView

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    @property
    def unallocated(self) -> pd.Series:
        account, positions = self._run.record.account, self._run.record.positions
        found = {name: SIGNS[name] * float(getattr(account, name).sum()) for name in UNALLOCATED}
        found["interest"] += sum_coin_interest(self._run)
        lost = account.liquidation_loss.sum() - positions.liquidation_loss.sum()
        if self._run.options is not None:
            lost -= self._run.options.record.liquidation_loss.sum()
        is_dust = abs(lost) <= 1e-9 * np.abs(account.liquidation_loss).sum()
        found["liquidation_loss"] = 0.0 if is_dust else -float(lost)
        return pd.Series(found, name="amount").rename_axis("term") + 0.0

    @property
    def measures(self) -> pd.Series:
        return pd.Series(self._measure(np.ones(len(self), dtype=bool)), name=self.view)

    @checked
    def lots(self, by: TradeView = "fifo") -> Trades:
        Choice(*VIEWS).check("by", by)
        return list_run_trades(self._run, by)

    @checked
    def measures_by(self, by: Group) -> pd.DataFrame:
        GROUPS.check("by", by)
        group = self._find_groups(by)
        rows = {each: self._measure((group == each).to_numpy()) for each in sorted(set(group))}
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(by)
        return table.drop(columns="time_in_market", errors="ignore")

    def _find_groups(self, by: Group) -> pd.Series:
        if by in CALENDAR_PERIODS:
            naive: Any = self["exit_time"].dt.tz_localize(None)
            found: pd.Series = naive.dt.to_period(
                CALENDAR_PERIODS[by]
            ).dt.start_time.dt.tz_localize("UTC")
            return found
        return self[by].astype(object)

    def _measure(self, rows: BoolArray) -> dict[str, float]:
        chosen = pd.DataFrame(self)[rows].sort_values("exit_time", kind="stable")
        is_open = (chosen["ended"] == "open").to_numpy()
        closed = chosen[~is_open]
        days = (closed["exit_time"] - closed["entry_time"]).dt.total_seconds() / 86_400.0
        held = self._run.of_positions("quantity").any(axis=1)
        if self._run.options is not None:
            held = held | self._run.options.record.quantity.any(axis=1)
        return {
            **measure_trades(
                np.asarray(closed["profit"], dtype=np.float64), np.asarray(days, dtype=np.float64)
            ),
            "open": float(is_open.sum()),
            "time_in_market": float(held.mean()),
        }


def find_price(run: RunRecord, held: Holding, value: FloatArray) -> FloatArray:
    return value if held.place is None else price_of(run.list_venues()[held.place], value)


def sum_coin_interest(run: RunRecord) -> float:
    entries = read_entries(run)
    if entries.shape[1] <= OWNER:
        return 0.0
    own = entries[(entries[:, 1] == ledger.INTEREST) & (entries[:, OWNER] >= 0)]
    return float(own[:, 4].sum())


def list_run_trades(run: RunRecord, view: TradeView) -> Trades:
    """Return the trades of a run.

    Columns: ``instrument``, ``side``, ``quantity`` (contracts opened), ``entry_time``,
    ``exit_time`` (opens of the bars, as in the events; of an open trade that of the last bar),
    ``entry_price``, ``exit_price`` (filled, averages by quantity; of an open trade the last mark),
    ``bars`` at whose close it was open; ``peak_leverage`` of the position at these closes;
    ``price_pnl`` before costs, ``fees``, ``slippage``, ``impact``, ``liquidation_loss``,
    ``funding`` paid while held (with dividends, and what a short spot leg pays for coins), and
    ``profit`` after them, in the settlement currency; ``return`` = profit / entry notional;
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
    run: RunRecord, held: Holding, read: InstrumentFills, view: TradeView
) -> pd.DataFrame:
    rows = list_trades(read.fills, view)
    costs = rows.fees + rows.slippage + rows.impact + rows.loss + rows.funding
    price_pnl = rows.gain + rows.slippage + rows.impact
    profit, entry = price_pnl - costs, find_price(run, held, rows.entry_value)
    ended, first, stop = find_endings(run, held, read, rows), *find_held(read, rows)
    size = rows.quantity * np.abs(rows.entry_value)
    with np.errstate(divide="ignore", invalid="ignore"):
        on_size = profit / size
    return pd.DataFrame(
        {
            "instrument": held.name,
            "side": np.where(rows.side > 0.0, "long", "short"),
            "quantity": rows.quantity,
            "entry_time": utc_index(run.time[read.bar[rows.entry]]),
            "exit_time": utc_index(run.time[read.bar[rows.exit]]),
            "entry_price": entry,
            "exit_price": find_price(run, held, rows.exit_value),
            "bars": stop - first,
            "peak_leverage": find_peaks(run, held, read, rows, first, stop),
            "price_pnl": price_pnl,
            "fees": rows.fees,
            "slippage": rows.slippage,
            "impact": rows.impact,
            "liquidation_loss": rows.loss,
            "funding": rows.funding,
            "profit": profit,
            "return": on_size,
            **measure_excursions(run, held, read, rows, entry),
            "opened": np.where(read.kind[rows.entry] == CARRIED, "earlier run", "order"),
            "ended": ended,
        }
    )


def find_held(read: InstrumentFills, rows: TradeRows) -> tuple[IntArray, IntArray]:
    first, last = read.bar[rows.entry], read.bar[rows.exit]
    return first, last + (read.kind[rows.exit] == OPEN)


def find_endings(
    run: RunRecord, held: Holding, read: InstrumentFills, rows: TradeRows
) -> FloatArray:
    kind = read.kind[rows.exit]
    expires = None if held.place is None else run.venues[held.name].contract.expires
    names = np.array([ENDINGS[each] for each in kind.tolist()], dtype=object)
    if expires is not None:
        end = run.span.closes[read.bar[rows.exit]] + run.interval
        is_over = end >= to_nanoseconds(expires)
        names[(kind == DELISTED) & is_over] = "expiry"
    return names


def find_peaks(
    run: RunRecord,
    held: Holding,
    read: InstrumentFills,
    rows: TradeRows,
    first: IntArray,
    stop: IntArray,
) -> FloatArray:
    equity = run.of_account("equity")
    before = np.concatenate(([run.account.capital], equity[:-1]))[read.bar[rows.entry]]
    fills = read.fills
    size = np.abs(fills.turns.after[rows.entry] * fills.value[rows.entry])
    with np.errstate(divide="ignore", invalid="ignore"):
        turns = np.where(equity > 0.0, held.notional / equity, 0.0)
        at_fill = np.where(before > 0.0, size / before, 0.0)
    seen = reduce_spans(turns, first, stop, np.fmax)
    return np.where(np.isnan(seen), at_fill, seen)


def measure_excursions(
    run: RunRecord, held: Holding, read: InstrumentFills, rows: TradeRows, entry: FloatArray
) -> dict[str, FloatArray]:
    first, stop = find_whole_bars(run, read, rows)
    end = read.fills.value[rows.exit]
    if held.place is not None:
        end = price_of(run.list_venues()[held.place], end)
    found = {}
    for name, columns in (("mark", ("mark_low", "mark_high")), ("last", ("low", "high"))):
        low, high = read_extremes(run, held, *columns)
        least = np.fmin(reduce_spans(low, first, stop, np.fmin), end)
        most = np.fmax(reduce_spans(high, first, stop, np.fmax), end)
        down, up = np.minimum(least / entry - 1.0, 0.0), np.maximum(most / entry - 1.0, 0.0)
        if np.isnan(low).all():
            down, up = np.full((2, len(end)), np.nan)
        is_long = rows.side > 0.0
        found[f"mae_{name}"] = np.where(is_long, down, -up)
        found[f"mfe_{name}"] = np.where(is_long, up, -down) + 0.0
    return found


def find_whole_bars(
    run: RunRecord, read: InstrumentFills, rows: TradeRows
) -> tuple[IntArray, IntArray]:
    at_close = np.isin(read.kind, (ledger.RUINED, DELISTED, OPEN))
    late = (read.kind == ledger.FILL) & (run.account.fill == "next_close")
    first = read.bar[rows.entry] + late[rows.entry]
    return first, np.maximum(first, read.bar[rows.exit] + (at_close | late)[rows.exit])


def read_extremes(
    run: RunRecord, held: Holding, low: str, high: str
) -> tuple[FloatArray, FloatArray]:
    shape, i = (run.record.n_bars,), held.place
    if i is None:
        seen = held.value if low == "mark_low" else np.full(shape, np.nan)
        return seen, seen
    found = [getattr(run.quotes, name) for name in (low, high)]
    arrays = [each[:, i] if len(each) else np.full(shape, np.nan) for each in found]
    return np.broadcast_to(arrays[0], shape), np.broadcast_to(arrays[1], shape)
