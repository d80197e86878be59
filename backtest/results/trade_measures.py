"""Trades of an account, with their costs and excursions, and the measures of all of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from backtest import core
from backtest.account.events import Event
from backtest.account.money import IN_PRICE
from backtest.core import BoolArray, FloatArray, IntArray
from backtest.core.units import DAY
from backtest.results import tables
from backtest.results.performance import divide
from backtest.results.trade_fills import (
    CARRIED,
    ENDED,
    OPEN,
    Fills,
    Holding,
    TradeRows,
    TradeView,
    list_holdings,
    list_trades,
    read_entries,
    read_fills,
)

if TYPE_CHECKING:
    from backtest.results.run_record import RunRecord

RollSplit: TypeAlias = Literal["roll", "leg"]
ROLL_COSTS = ("premium", "proceeds", "fees", "spread", "cost")


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
    # Closed trades, in the order in which they ended.
    order = np.argsort(exit_time, kind="stable")
    order = order[~is_open[order]]
    profit = profit[order]
    days = (exit_time[order] - entry_time[order]) / DAY
    n = len(profit)

    wins = profit[profit > 0.0]
    losses = profit[profit < 0.0]
    lost = -float(losses.sum())
    profit_factor = math.nan
    if lost > 0.0:
        profit_factor = float(wins.sum()) / lost

    win_rate = math.nan
    best = math.nan
    worst = math.nan
    if n > 0:
        win_rate = len(wins) / n
        best = float(profit.max())
        worst = float(profit.min())

    # Between two trades without a loss stands a run of losses.
    without_loss = np.flatnonzero(~(profit < 0.0))
    longest_run = np.diff(without_loss, prepend=-1, append=n).max() - 1
    return {
        "trades": float(n),
        "win_rate": win_rate,
        "profit_factor": profit_factor,
        "expectancy": average(profit),
        "mean_win": average(wins),
        "mean_loss": average(losses),
        "best": best,
        "worst": worst,
        "longest_losing_run": float(longest_run),
        "mean_days": average(days),
        "open": float(is_open.sum()),
        "time_in_market": measure_time_in_market(run),
    }


def measure_time_in_market(run: RunRecord) -> float:
    """Return the share of closes at which a run held an instrument or an option."""
    is_held = run.of_positions("quantity").any(axis=1)
    if run.options is not None:
        is_held = is_held | run.options.record.quantity.any(axis=1)
    return float(is_held.mean())


def average(values: FloatArray) -> float:
    """Return the mean of values, NaN of none."""
    if len(values) == 0:
        return math.nan
    return float(values.mean())


def measure_round_trips(run: RunRecord) -> dict[str, float]:
    """Return the measures of all round trips of a run."""
    trades = collect_trades(run, "trip")
    return measure_closed(
        run,
        trades["profit"],
        trades["entry_time"],
        trades["exit_time"],
        trades["ended"] == "open",
    )


def collect_trades(run: RunRecord, view: TradeView) -> dict[str, Any]:
    """Return the columns of all trades, in the order of their entries; times are UTC ns."""
    entries = read_entries(run)
    parts = []
    for holding in list_holdings(run):
        fills = read_fills(run, entries, holding)
        parts.append(compute_trades(run, holding, fills, view))

    table = {}
    for name in parts[0]:
        columns = [part[name] for part in parts]
        table[name] = np.concatenate(columns)

    # By their entries, those of one time by their exits: lexsort sorts by the last key first.
    order = np.lexsort((table["exit_time"], table["entry_time"]))
    return {name: values[order] for name, values in table.items()}


def find_price(
    run: RunRecord,
    holding: Holding,
    value: FloatArray,
) -> FloatArray:
    """Return the prices of values of a holding; of an option they are the same."""
    if holding.place is None:
        return value
    venue = run.list_venues()[holding.place]
    return tables.price_of(venue.contract, value)


def compute_trades(
    run: RunRecord,
    holding: Holding,
    fills: Fills,
    view: TradeView,
) -> dict[str, Any]:
    """Return the columns of the trades in one instrument or option; times are UTC ns."""
    rows = list_trades(fills, view)

    # The gain is between prices of fills, which have slippage and impact in them. Both are added
    # back here, and subtracted with the other costs.
    price_pnl = sum((rows.costs[name] for name in IN_PRICE), rows.gain)
    costs = sum(rows.costs.values()) + rows.loss + sum(rows.holding.values())
    profit = price_pnl - costs
    entry_price = find_price(run, holding, rows.entry_value)
    with np.errstate(divide="ignore", invalid="ignore"):
        on_entry_notional = profit / (rows.quantity * np.abs(rows.entry_value))

    # An open trade is held at the last close too.
    first = fills.bar[rows.entry]
    last = fills.bar[rows.exit]
    stop = last + (fills.kind[rows.exit] == OPEN)
    return {
        "instrument": np.full(len(first), holding.name, dtype=object),
        "side": np.where(rows.side > 0.0, "long", "short"),
        "quantity": rows.quantity,
        "entry_time": run.time[first],
        "exit_time": run.time[last],
        "entry_price": entry_price,
        "exit_price": find_price(run, holding, rows.exit_value),
        "bars": stop - first,
        "peak_leverage": find_peak_leverage(run, holding, fills, rows.entry, stop),
        "price_pnl": price_pnl,
        **rows.costs,
        "liquidation_loss": rows.loss,
        **rows.holding,
        "profit": profit,
        "return": on_entry_notional,
        **measure_excursions(
            run,
            holding,
            fills,
            rows,
            entry_price,
        ),
        "opened": np.where(fills.kind[rows.entry] == CARRIED, "earlier run", "order"),
        "ended": name_endings(run, holding, fills, rows),
    }


def name_endings(
    run: RunRecord,
    holding: Holding,
    fills: Fills,
    rows: TradeRows,
) -> Any:
    """Return how each trade ended; a delisting at the contract's expiry is an expiry."""
    kind = fills.kind[rows.exit]
    ended = np.array([ENDED[number] for number in kind.tolist()], dtype=object)

    # Options have no venue of their own, and perpetuals do not expire.
    expires = None
    if holding.place is not None:
        expires = run.venues[holding.name].contract.expires
    if expires is None:
        return ended

    # The last bar may close up to an interval before the expiry.
    next_close = run.span.closes[fills.bar[rows.exit]] + run.interval
    is_over = next_close >= core.to_nanoseconds(expires)
    ended[(kind == Event.DELISTED) & is_over] = "expiry"
    return ended


def find_peak_leverage(
    run: RunRecord,
    holding: Holding,
    fills: Fills,
    entry: IntArray,
    stop: IntArray,
) -> FloatArray:
    """Return the highest leverage of each trade at closes, or at its fill if it saw no close."""
    equity = run.of_account("equity")
    first = fills.bar[entry]
    leverage = divide(holding.notional, equity)
    peaks = reduce_spans(leverage, first, stop, np.fmax)

    # A trade that saw no close has the leverage of its fill, on the equity before its bar.
    equity_before = np.concatenate(([run.account.capital], equity[:-1]))
    contracts = fills.turns.after[entry]
    notional_at_fill = np.abs(contracts * fills.value[entry])
    leverage_at_fill = divide(notional_at_fill, equity_before[first])
    return np.where(np.isnan(peaks), leverage_at_fill, peaks)


def reduce_spans(
    values: FloatArray,
    first: IntArray,
    stop: IntArray,
    reduce: np.ufunc,
) -> FloatArray:
    """Return a minimum or maximum over bars from ``first`` to before ``stop``; NaN without any."""
    # Pairs of places: every second of the reduced stretches lies between two trades.
    edges = np.column_stack((first, np.maximum(stop, first))).ravel()
    reduced: FloatArray = reduce.reduceat(np.append(values, np.nan), edges)[::2]
    return np.where(stop > first, reduced, np.nan)


def find_whole_bars(
    run: RunRecord,
    fills: Fills,
    rows: TradeRows,
) -> tuple[IntArray, IntArray]:
    """Return the first bar that each trade lived through whole, and the bar after the last one.

    A trade that begins at a close lives through the bars after that; one that ends at a close
    lives through that bar too.
    """
    fills_at_close = (fills.kind == Event.FILL) & (run.account.fill == "next_close")
    ends_at_close = np.isin(fills.kind, (Event.RUINED, Event.DELISTED, OPEN))
    is_at_close = fills_at_close | ends_at_close
    first = fills.bar[rows.entry] + fills_at_close[rows.entry]
    stop = fills.bar[rows.exit] + is_at_close[rows.exit]
    return first, np.maximum(first, stop)


def measure_excursions(
    run: RunRecord,
    holding: Holding,
    fills: Fills,
    rows: TradeRows,
    entry_price: FloatArray,
) -> dict[str, FloatArray]:
    """Return the furthest moves of mark and last price against each trade, and in its favor.

    ``mae`` (maximum adverse excursion) is negative, ``mfe`` positive, both as shares of the entry
    price. Prices are those of the whole bars of the trade, and that of its end.
    """
    first, stop = find_whole_bars(run, fills, rows)
    is_long = rows.side > 0.0
    end_price = find_price(run, holding, fills.value[rows.exit])
    excursions = {}
    for name in ("mark", "last"):
        low, high = find_bar_ranges(run, holding, name)
        lowest_inside = reduce_spans(low, first, stop, np.fmin)
        highest_inside = reduce_spans(high, first, stop, np.fmax)
        lowest = np.fmin(lowest_inside, end_price)
        highest = np.fmax(highest_inside, end_price)

        # As shares of the entry price; a price that never went that way has 0.
        down = np.minimum(lowest / entry_price - 1.0, 0.0)
        up = np.maximum(highest / entry_price - 1.0, 0.0)

        # Without such prices the end of a trade alone would look like its whole way.
        if np.isnan(low).all():
            down = np.full(len(end_price), np.nan)
            up = np.full(len(end_price), np.nan)

        excursions[f"mae_{name}"] = np.where(is_long, down, -up)
        excursions[f"mfe_{name}"] = np.where(is_long, up, -down) + 0.0  # no -0
    return excursions


def find_bar_ranges(
    run: RunRecord,
    holding: Holding,
    price: Literal["mark", "last"],
) -> tuple[FloatArray, FloatArray]:
    """Return the lowest and highest price of a holding in each bar; NaN where it is unknown.

    Of an option only the mark at the close is known.
    """
    if holding.place is None:
        if price == "mark":
            return holding.value, holding.value
        unknown = np.full(run.record.n_bars, np.nan)
        return unknown, unknown

    lead = "mark_" if price == "mark" else ""
    n_bars = run.record.n_bars
    low = pick_column(getattr(run.quotes, f"{lead}low"), holding.place, n_bars)
    high = pick_column(getattr(run.quotes, f"{lead}high"), holding.place, n_bars)
    return low, high


def pick_column(columns: FloatArray, place: int, n_bars: int) -> FloatArray:
    """Return the column of an instrument; NaN if the run has none of these prices."""
    if len(columns) == 0:
        return np.full(n_bars, np.nan)
    return np.broadcast_to(columns[:, place], (n_bars,))
